"""A server is killed while a component works: nothing is lost, nothing is done twice."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
from tests.acceptance.conftest import Server
from tests.acceptance.images import Images

pytestmark = pytest.mark.docker

SLEEPER = r"""
set -e
i=0; while [ $i -lt 50 ]; do echo "early $i"; i=$((i+1)); done
echo gone-to-sleep
while [ ! -e /data/in/files/wake ] && [ ! -e /tmp/wake ]; do sleep 0.1; done
i=0; while [ $i -lt 50 ]; do echo "late $i"; i=$((i+1)); done
printf 'id,name\n1,one\n2,two\n' > /data/out/tables/out.csv
printf '{"runs": 1}' > /data/out/state.json
"""
CONFIGURATION = {
    "storage": {"output": {"tables": [{"source": "out.csv", "destination": "out.c-test.out"}]}}
}
EXPECTED = [
    *(f"early {number}" for number in range(50)),
    "gone-to-sleep",
    *(f"late {number}" for number in range(50)),
]


@pytest.fixture
def sleeping(server: Server, images: Images, tmp_path: Path) -> str:
    """A job whose component has printed half of its lines and waits to be woken; its id."""
    server.start()
    component = tmp_path / "component.json"
    component.write_text(json.dumps(images.component("test.sleeper", SLEEPER)))
    configuration = tmp_path / "configuration.json"
    configuration.write_text(json.dumps(CONFIGURATION))
    server.vaka("component", "add", str(component))
    named = ("--id", "c", "--name", "Sleeper", "--configuration", str(configuration))
    server.vaka("config", "create", "test.sleeper", *named)
    answer = server.post("/docker/test.sleeper/run", {"config": "c"})
    assert answer.status_code == 202, answer.text
    job = str(answer.json()["id"])
    server.wait_for_line(job, "gone-to-sleep")
    return job


def wake(server: Server, job: str) -> None:
    """Let the component go on, from outside: its scratch folder is the host's."""
    (server.home / "jobs" / job / "tmp" / "wake").touch()


def assert_done_once(server: Server, images: Images, job: str) -> None:
    resource = server.wait(job)
    assert resource["status"] == "success", resource
    assert server.logged(job) == EXPECTED
    table = server.get("/v2/storage/tables/out.c-test.out").json()
    assert table["rowsCount"] == 2
    state = server.vaka("state", "get", "test.sleeper", "c")
    assert "runs" in json.dumps(state)
    assert images.containers(server.instance) == []
    assert list((server.home / "jobs").iterdir()) == []


def test_a_job_survives_the_death_of_its_server(
    server: Server, images: Images, sleeping: str
) -> None:
    server.kill()
    (name,) = images.containers(server.instance)
    server.start()
    assert images.containers(server.instance) == [name]
    assert server.get(f"/queue/job/{sleeping}").json()["status"] == "processing"
    wake(server, sleeping)
    assert_done_once(server, images, sleeping)
    kinds = [event["kind"] for event in server.events(sleeping)]
    assert kinds.count("job.resumed") == 1
    assert kinds.count("stage.started") == 1
    assert kinds.count("output.table") == 1


def test_what_ended_while_no_server_ran_is_collected(
    server: Server, images: Images, sleeping: str
) -> None:
    server.kill()
    wake(server, sleeping)
    images.wait_until_ended(server.instance)
    server.start()
    assert_done_once(server, images, sleeping)


def test_a_job_survives_many_deaths(server: Server, images: Images, sleeping: str) -> None:
    for _ in range(3):
        server.kill()
        server.start()
    wake(server, sleeping)
    assert_done_once(server, images, sleeping)


def test_stopping_a_server_in_good_order_leaves_its_jobs_running(
    server: Server, images: Images, sleeping: str
) -> None:
    server.kill(signal.SIGTERM)
    assert len(images.containers(server.instance)) == 1
    server.start()
    wake(server, sleeping)
    assert_done_once(server, images, sleeping)


def test_cancel_ends_a_running_job_and_leaves_nothing(
    server: Server, images: Images, sleeping: str
) -> None:
    server.vaka("cancel", sleeping)
    resource = server.get(f"/queue/job/{sleeping}").json()
    assert resource["status"] == "terminated"
    assert resource["result"]["message"] == "Job has been terminated"
    assert images.containers(server.instance) == []
    assert server.logged(sleeping) == EXPECTED[:51]


@pytest.fixture
def draining(server: Server) -> None:
    """The server waits for its jobs when it is asked to stop."""
    server.settings = {"VAKA_SHUTDOWN": "drain"}


@pytest.fixture
def stopping(server: Server) -> None:
    """The server ends its jobs when it is asked to stop."""
    server.settings = {"VAKA_SHUTDOWN": "stop", "VAKA_STOP_GRACE": "0.5"}


def test_a_second_signal_ends_a_server_that_waits_and_its_jobs_go_on(
    draining: None, server: Server, images: Images, sleeping: str
) -> None:
    server.send(signal.SIGTERM)
    server.wait_for_log("server.stopping")
    assert server.is_alive
    server.send(signal.SIGTERM)
    assert server.ended() == -signal.SIGTERM
    (name,) = images.containers(server.instance)
    server.start()
    assert images.containers(server.instance) == [name]
    wake(server, sleeping)
    assert_done_once(server, images, sleeping)


def test_a_server_that_is_to_stop_its_jobs_leaves_none_alive(
    stopping: None, server: Server, images: Images, sleeping: str
) -> None:
    assert server.kill(signal.SIGTERM) == 0
    assert images.containers(server.instance) == []
    assert list((server.home / "jobs").iterdir()) == []
    server.start()
    resource = server.get(f"/queue/job/{sleeping}").json()
    assert resource["status"] == "terminated"
    assert resource["terminatedBy"]["description"] == "engine shutdown"
    assert server.logged(sleeping) == EXPECTED[:51]


STUBBORN = r"""
trap 'echo asked' TERM
echo begun
while [ ! -e /tmp/wake ]; do sleep 0.1; done
echo done
"""


@pytest.mark.scenario("runner", 249)
def test_a_server_that_is_told_to_stop_ends_what_is_terminating_and_lets_the_rest_finish(
    server: Server, images: Images, tmp_path: Path
) -> None:
    server.settings = {"VAKA_SHUTDOWN": "drain", "VAKA_STOP_GRACE": "2"}
    server.start()
    component = tmp_path / "component.json"
    component.write_text(json.dumps(images.component("test.stubborn", STUBBORN)))
    server.vaka("component", "add", str(component))
    jobs = []
    for _ in range(2):
        answer = server.post("/docker/test.stubborn/run", {"configData": {}})
        assert answer.status_code == 202, answer.text
        jobs.append(str(answer.json()["id"]))
    for job in jobs:
        server.wait_for_line(job, "begun")
    killed, other = jobs
    assert server.post(f"/queue/job/{killed}/kill").status_code == 202
    assert server.get(f"/queue/job/{killed}").json()["status"] == "terminating"
    server.send(signal.SIGTERM)
    images.wait_until_one_is_left(server.instance)
    wake(server, other)
    assert server.ended() == 0
    assert images.containers(server.instance) == []
    server.start()
    resource = server.get(f"/queue/job/{killed}").json()
    assert (resource["status"], resource["result"]["message"]) == (
        "terminated",
        "Job has been terminated",
    )
    assert "done" not in server.logged(killed)
    assert server.get(f"/queue/job/{other}").json()["status"] == "success"
    assert server.logged(other) == ["begun", "done"]  # nobody has asked it to stop


ROW = r"""
set -e
echo "$KBC_CONFIGROWID begun"
while [ ! -e /tmp/wake ]; do sleep 0.1; done
printf 'id\n%s\n' "$KBC_CONFIGROWID" > /data/out/tables/out.csv
printf '{"row": "%s"}' "$KBC_CONFIGROWID" > /data/out/state.json
"""


@pytest.fixture
def side_by_side(server: Server, images: Images, tmp_path: Path) -> str:
    """A job with two rows that run at the same time and wait to be woken, and one that waits; its id."""
    server.start()
    component = tmp_path / "component.json"
    component.write_text(json.dumps(images.component("test.rows", ROW)))
    server.vaka("component", "add", str(component))
    path = "/v2/storage/components/test.rows/configs"
    assert server.post(path, {"configurationId": "c", "name": "Rows"}).status_code == 201
    for row in ("a", "b", "c"):
        target = {"source": "out.csv", "destination": f"out.c-test.{row}"}
        body = {"rowId": row, "configuration": {"storage": {"output": {"tables": [target]}}}}
        assert server.post(f"{path}/c/rows", body).status_code == 201
    answer = server.post("/docker/test.rows/run", {"config": "c", "parallelism": 2})
    assert answer.status_code == 202, answer.text
    job = str(answer.json()["id"])
    for row in ("a", "b"):
        server.wait_for_line(job, f"{row} begun")
    return job


def wake_row(server: Server, job: str, number: int) -> None:
    (server.home / "jobs" / job / str(number) / "tmp" / "wake").touch()


def test_rows_side_by_side_survive_the_death_of_their_server(
    server: Server, images: Images, side_by_side: str
) -> None:
    wake_row(server, side_by_side, 1)
    server.wait_for_line(side_by_side, "c begun")  # in the place of b, which has ended
    server.kill()
    wake_row(server, side_by_side, 2)
    running = set(images.containers(server.instance))
    server.start()
    assert set(images.containers(server.instance)) <= running
    wake_row(server, side_by_side, 0)
    resource = server.wait(side_by_side)
    assert resource["status"] == "success", resource
    assert resource["result"]["rows"] == [
        {"id": row, "status": "success"} for row in ("a", "b", "c")
    ]
    assert sorted(server.logged(side_by_side)) == ["a begun", "b begun", "c begun"]
    for row in ("a", "b", "c"):
        assert server.get(f"/v2/storage/tables/out.c-test.{row}").json()["rowsCount"] == 1
        stored = server.get(f"/v2/storage/components/test.rows/configs/c/rows/{row}").json()
        assert stored["state"]["component"] == {"row": row}
    assert images.containers(server.instance) == []


def test_cancel_ends_rows_that_run_side_by_side(
    server: Server, images: Images, side_by_side: str
) -> None:
    assert server.post(f"/queue/job/{side_by_side}/kill").status_code == 202
    resource = server.wait(side_by_side)
    assert resource["status"] == "terminated"
    assert resource["result"]["rows"] == [{"id": row, "status": "terminated"} for row in ("a", "b")]
    assert images.containers(server.instance) == []
