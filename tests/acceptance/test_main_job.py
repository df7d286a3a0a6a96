"""The main job: a stored configuration with a row, processors, tables, a file and state."""

from __future__ import annotations

import csv
import io
import json
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
from tests.acceptance.conftest import Server
from tests.acceptance.images import Images

pytestmark = pytest.mark.docker

DEMO = Path(__file__).parents[2] / "docs/examples/demo"
FLIGHTS = """\
year,month,carrier,origin,dep_delay,arr_delay
2013,1,AA,JFK,10,5
2013,1,AA,JFK,NA,NA
2013,1,AA,LGA,30,30
2013,2,DL,JFK,-2,4
2013,7,DL,JFK,60,90
"""


@pytest.fixture(scope="module")
def made(
    demo_images: dict[str, str], docker_host: str, tmp_path_factory: pytest.TempPathFactory
) -> Server:
    """A stopped server with the demo's components and configuration, and a handful of flights."""
    tmp_path = tmp_path_factory.mktemp("demo")
    server = Server(tmp_path / "home", "template")
    server.home.mkdir()
    server.start()
    for name in ("delays", "processor-drop-missing", "processor-add-row-hash"):
        document = json.loads((DEMO / f"definitions/{name}.json").read_text())
        uri, _, tag = demo_images[f"demo-{name}"].partition(":")
        document["data"]["definition"] |= {"uri": uri, "tag": tag}
        written = tmp_path / f"{name}.json"
        written.write_text(json.dumps(document))
        server.vaka("component", "add", str(written))
    (tmp_path / "flights.csv").write_text(FLIGHTS)
    (tmp_path / "carriers.json").write_text('{"AA": "American", "DL": "Delta"}')
    server.vaka("bucket", "create", "in", "demo")
    server.vaka("table", "load", "in.c-demo.flights", str(tmp_path / "flights.csv"))
    server.vaka("file", "upload", str(tmp_path / "carriers.json"), "--tag", "carriers")
    configuration = ("--configuration", str(DEMO / "configuration.json"))
    server.vaka("config", "create", "demo.delays", "--id", "f", "--name", "F", *configuration)
    row = ("--id", "jfk", "--name", "JFK", "--configuration", str(DEMO / "row-jfk.json"))
    server.vaka("row", "create", "demo.delays", "f", *row)
    server.kill(signal.SIGTERM)
    return server


@pytest.fixture
def ready(server: Server, made: Server) -> Server:
    """A server on a copy of what was made."""
    shutil.copytree(made.home, server.home, dirs_exist_ok=True)
    server.token = made.token
    server.start()
    return server


def run(server: Server, **body: Any) -> dict[str, Any]:
    answer = server.post("/docker/demo.delays/run", {"config": "f", **body})
    assert answer.status_code == 202, answer.text
    return server.wait(str(answer.json()["id"]))


def output(server: Server, tmp_path: Path) -> list[dict[str, str]]:
    target = tmp_path / "out.csv"
    target.unlink(missing_ok=True)
    server.vaka("table", "export", "out.c-demo.delays", "--output", str(target))
    return sorted(
        csv.DictReader(io.StringIO(target.read_text())),
        key=lambda row: (row["carrier"], row["month"]),
    )


@pytest.mark.scenario("runner", 180)
@pytest.mark.scenario("runner", 204)
def test_a_stored_configuration_runs_end_to_end(
    ready: Server, images: Images, tmp_path: Path
) -> None:
    first = run(ready)
    assert first["status"] == "success", first
    rows = output(ready, tmp_path)
    keys = ("origin", "carrier", "carrier_name", "month", "flights")
    assert [tuple(row[key] for key in keys) for row in rows] == [
        ("JFK", "AA", "American", "1", "1"),
        ("JFK", "DL", "Delta", "2", "1"),
    ]
    assert all(row["row_hash"] for row in rows)
    used = [image["id"] for image in first["result"]["images"][0]]
    assert [reference.split("/")[1].split(":")[0] for reference in used] == [
        "demo-processor-drop-missing",
        "demo-delays",
        "demo-processor-add-row-hash",
    ]
    table = ready.get("/v2/storage/tables/out.c-demo.delays").json()
    assert table["primaryKey"] == ["origin", "carrier", "month"]

    # the row's state comes back, and the second half of the year is loaded on top
    second = run(ready)
    assert second["status"] == "success", second
    assert "This is run 2; the months up to 6 are done." in ready.logged(str(second["id"]))
    assert [row["month"] for row in output(ready, tmp_path)] == ["1", "2", "7"]
    configuration_state = ready.vaka("state", "get", "demo.delays", "f")
    assert "done_up_to" not in json.dumps(configuration_state)
    assert images.containers(ready.instance) == []


def expect_user_error(server: Server, message: str, **body: Any) -> None:
    resource = run(server, **body)
    assert (resource["status"], resource["error"]) == ("error", "user"), resource
    assert message in resource["result"]["message"]


def change(server: Server, tmp_path: Path, **storage: Any) -> None:
    document = json.loads((DEMO / "configuration.json").read_text())
    document["storage"]["input"] |= storage
    changed = tmp_path / "changed.json"
    changed.write_text(json.dumps(document))
    server.vaka("config", "put", "demo.delays", "f", "--configuration", str(changed))


def test_bad_input_is_told_and_loses_nothing(ready: Server, tmp_path: Path) -> None:
    assert run(ready)["status"] == "success"
    before = output(ready, tmp_path)
    table: dict[str, Any] = {"source": "in.c-demo.nothing", "destination": "flights.csv"}
    change(ready, tmp_path, tables=[table])
    expect_user_error(ready, "Cannot import data from Storage API: The table")
    table = {"source": "in.c-demo.flights", "destination": "flights.csv", "columns": ["colour"]}
    change(ready, tmp_path, tables=[table])
    expect_user_error(ready, "colour")
    expect_user_error(ready, "Row nothing not found.", row="nothing")
    refused = ready.post("/docker/no.such/run", {"config": "f"})
    assert (refused.status_code, refused.json()["message"]) == (
        400,
        "Component 'no.such' not found.",
    )
    assert output(ready, tmp_path) == before


def test_an_image_that_does_not_exist_is_named_to_whoever_asks(
    ready: Server, tmp_path: Path
) -> None:
    resource = run(ready, tag="no-such-tag")
    assert (resource["status"], resource["error"]) == ("error", "application")
    shown = subprocess.run(
        [*ready.command, "show", str(resource["id"])],
        env=ready.client_environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    ).stdout
    assert "no-such-tag" in shown
