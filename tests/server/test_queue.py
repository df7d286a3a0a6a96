"""The job resource, lists, kill and note, on a real engine."""

from __future__ import annotations

import math
import os
import re
import socket
import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

import pytest
import trio
from tests.server.conftest import IMAGE, Site

from vaka.testing import FakeImage, Printed, Script
from vaka_server import schemas

SLEEPS = FakeImage(Script(seconds=math.inf))
CONFIGS = "/v2/storage/components/C/configs"


def busy(site: Site) -> None:
    """Let every job run until it is stopped."""
    site.host.images[IMAGE] = SLEEPS


async def configured(site: Site) -> None:
    """A stored configuration `X`."""
    answer = await site.ask("POST", CONFIGS, {"name": "X", "configurationId": "X"})
    assert answer.status == 201


async def started(site: Site, id_: int) -> None:
    """Return once a job's container runs."""
    async for event in (await site.engine.job(id_)).events():
        if event.kind == "stage.started":
            return
    pytest.fail(f"job {id_} ended without a container: {await site.job(id_)}")


@pytest.mark.scenario("runner", 78)
async def test_a_new_job(site: Site) -> None:
    busy(site)
    await configured(site)
    first = await site.run({"config": "X"})
    await started(site, first)
    job = await site.job(await site.run({"config": "X"}))  # waits for the first one
    assert (job["status"], job["isFinished"]) == ("waiting", False)
    for name in ("startTime", "endTime", "durationSeconds", "waitSeconds", "error", "errorNote"):
        assert job[name] is None
    assert (job["component"], job["command"]) == ("docker", "run")
    assert job["params"] == {"component": "C", "config": "X", "mode": "run"}
    assert job["terminatedBy"] == {"id": None, "description": None}
    assert job["process"] == {"host": socket.gethostname(), "pid": os.getpid()}  # its creator's
    assert (job["result"], job["nestingLevel"]) == ({}, 0)
    assert job["lockName"] == f"docker-{job['project']['id']}-C-X"
    assert job["url"] == f"http://localhost/queue/job/{job['id']}"
    told = (await site.job(job["id"], "?include=stages"))["progress"]["waitsFor"]
    assert told == f"job {first} of the same configuration, which has not ended"
    assert datetime.fromisoformat(job["createdTime"]).utcoffset() is not None


async def test_a_job_shows_no_secret(site: Site) -> None:
    id_ = await site.run(token="run")
    await site.finished(id_)
    job = await site.job(id_)
    assert job["token"] == {"id": job["token"]["id"], "description": "the run"}
    assert site.tokens["run"] not in str(job)
    assert job["project"] == {"id": 1, "name": job["project"]["name"]}
    schemas.Job.model_validate(job)


@pytest.mark.scenario("runner", 80)
async def test_metrics_and_stages_are_there_when_asked_for(site: Site) -> None:
    site.host.images[IMAGE] = FakeImage(Script((Printed(b"one\n"),)))
    id_ = await site.run()
    job = await site.finished(id_)
    assert not {"metrics", "stages", "cause", "progress"} & set(job)
    with_metrics = await site.job(id_, "?include=metrics")
    assert set(with_metrics) - set(job) == {"metrics"}
    assert set(with_metrics["metrics"]) == {"network", "storage", "backend"}
    everything = await site.job(id_, "?include=metrics,stages,unknown")
    parsed = schemas.Job.model_validate(everything)
    assert parsed.stages is not None
    (stage,) = parsed.stages
    assert (stage.kind, stage.image, stage.exit_code) == ("main", IMAGE, 0)
    assert (stage.status, stage.stdout_bytes) == ("collected", 4)
    assert stage.start_time is not None
    for listed in await site.get("/queue/job?include=metrics"):
        assert "metrics" in listed


@pytest.mark.scenario("runner", 31)
async def test_a_job_started_by_another_has_its_run_id_in_its_own(site: Site) -> None:
    nested = await site.job(await site.run(headers={"X-KBC-RunId": "111"}))
    assert re.fullmatch(r"111\.\d+", nested["runId"])
    assert nested["nestingLevel"] == 1
    alone = await site.job(await site.run())
    assert re.fullmatch(r"\d+", alone["runId"])
    assert alone["nestingLevel"] == 0


# -- lists -----------------------------------------------------------------------------------------


@pytest.mark.scenario("runner", 81)
async def test_a_list_has_a_hundred_jobs_of_the_project_newest_first(site: Site) -> None:
    ids = [await site.run() for _ in range(103)]
    other = await site.ask("POST", "/docker/C/run", {"configData": {}}, token="other")
    listed = await site.get("/queue/job")
    assert [job["id"] for job in listed] == sorted(ids, reverse=True)[:100]
    assert int(other.value["id"]) not in ids
    for job in listed[:3]:
        schemas.Job.model_validate(job)
    (theirs,) = await site.get("/queue/job", token="other")
    assert theirs["id"] == int(other.value["id"])


@pytest.mark.scenario("runner", 82)
async def test_a_list_can_be_paged(site: Site) -> None:
    ids = [await site.run() for _ in range(4)]
    listed = await site.get("/queue/job?limit=2&offset=1")
    assert [job["id"] for job in listed] == [ids[2], ids[1]]
    assert await site.get("/queue/job?limit=0") == []


@pytest.mark.scenario("runner", 83)
async def test_a_list_can_be_of_one_status_or_run_only(site: Site) -> None:
    good = await site.run()
    await site.finished(good)
    site.host.images[IMAGE] = FakeImage(Script((Printed(b"no"),), exit_code=1))
    bad = await site.run(headers={"X-KBC-RunId": "77"})
    failed = await site.finished(bad)
    assert [job["id"] for job in await site.get("/queue/job?status=error")] == [bad]
    both = await site.get("/queue/job?status=error,success")
    assert [job["id"] for job in both] == [bad, good]
    assert await site.get("/queue/job?status=nonsense") == []
    assert [j["id"] for j in await site.get(f"/queue/job?runId={failed['runId']}")] == [bad]
    assert await site.get("/queue/job?runId=77") == []


async def test_a_list_can_be_of_one_component_or_configuration(site: Site) -> None:
    await configured(site)
    stored, inline = await site.run({"config": "X"}), await site.run()
    assert len(await site.get("/queue/job?component=docker")) == 2
    assert await site.get("/queue/job?component=C") == []  # the service's name, always docker
    assert len(await site.get("/queue/job?params.component=C")) == 2
    assert [j["id"] for j in await site.get("/queue/job?params.config=X")] == [stored]
    assert inline > stored


@pytest.mark.scenario("runner", 84)
async def test_a_list_can_be_of_a_time(site: Site) -> None:
    id_ = await site.run()
    tomorrow = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    yesterday = (datetime.now(UTC) - timedelta(days=1)).isoformat()

    async def ids(**query: str) -> list[int]:
        client = site.app.test_client()
        response = await client.get(
            "/queue/job", query_string=query, headers={"X-StorageApi-Token": site.tokens["admin"]}
        )
        assert response.status_code == 200, await response.get_data()
        return [job["id"] for job in await response.get_json()]

    assert await ids(since="-1 day") == [id_]
    assert await ids(since=tomorrow) == []
    assert await ids(since="-1 week", until=yesterday) == []
    assert await ids(since="-1 week", until=tomorrow) == [id_]
    assert await ids(until=yesterday) == [id_]  # without a beginning it has no effect


@pytest.mark.scenario("runner", 85)
async def test_a_list_is_sorted_by_what_is_asked_and_then_newest_first(site: Site) -> None:
    ids = [await site.run() for _ in range(3)]
    for id_ in ids:
        await site.finished(id_)
    await set_durations(site, dict(zip(ids, (120, 240, 120), strict=True)))
    listed = await site.get("/queue/job?sortField=durationSeconds&sortDirection=asc")
    assert [job["id"] for job in listed] == [ids[2], ids[0], ids[1]]
    assert [job["durationSeconds"] for job in listed] == [120, 120, 240]
    listed = await site.get("/queue/job?sortField=durationSeconds&sortDirection=DESC")
    assert [job["id"] for job in listed] == [ids[1], ids[2], ids[0]]
    listed = await site.get("/queue/job?sortField=id")
    assert [job["id"] for job in listed] == ids


async def set_durations(site: Site, seconds: dict[int, int]) -> None:
    """Let finished jobs have taken as long as a test needs them to have."""

    def write() -> None:
        with closing(sqlite3.connect(site.engine.config.home / "vaka.db")) as db, db:
            for id_, duration in seconds.items():
                # moments are microseconds
                later = "UPDATE jobs SET ended = started + ? WHERE id = ?"
                db.execute(later, [duration * 1_000_000, id_])

    await trio.to_thread.run_sync(write)


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("sortField=result", "Sort field 'result' is not allowed. Allowed fields are 'id,status,"),
        ("sortField=id;DROP", "Sort field 'id;DROP' is not allowed."),
        ("sortField=id&sortDirection=up", "Parameter 'sortDirection' must be asc or desc."),
        ("limit=-1", "Parameter 'limit' must be a whole number from 0 to 10000."),
        ("limit=ten", "Parameter 'limit' must be a whole number"),
        ("limit=99999999999999999999", "Parameter 'limit' must be a whole number"),
        ("offset=x", "Parameter 'offset' must be a whole number"),
        ("since=soon", "Parameter 'since' must be a time such as '-1 day'"),
        ("since=now&until=x", "Parameter 'until' must be a time such as"),
    ],
)
async def test_a_list_that_cannot_be_is_refused(site: Site, query: str, words: str) -> None:
    answer = await site.ask("GET", f"/queue/job?{query}")
    assert (answer.status, answer.value["error"]) == (400, "User error")
    assert answer.value["message"].startswith(words)


async def test_a_list_can_be_asked_for_by_a_query(site: Site) -> None:
    await configured(site)
    good = await site.run({"config": "X"})
    await site.finished(good)
    site.host.images[IMAGE] = FakeImage(Script((Printed(b"wrong password"),), exit_code=1))
    bad = await site.run()
    await site.finished(bad)
    theirs = await site.ask("POST", "/docker/C/run", {"configData": {}}, token="other")
    assert theirs.status == 202

    async def ids(query: str) -> list[int]:
        listed = await site.get("/queue/job?" + urlencode({"q": query}))
        return [job["id"] for job in listed]

    assert await ids("params.component:C params.config:X") == [good]
    assert await ids("-status:success") == [bad]
    assert await ids('result.message:"Wrong password"') == [bad]
    assert await ids("startTime:[2018-06-21 TO *]") == [bad, good]
    for wrong in ("status:", "nothing:1", "(" * 5_000, "startTime:[x TO y]", "\x00"):
        answer = await site.ask("GET", "/queue/job?" + urlencode({"q": wrong}))
        assert (answer.status, answer.value["error"]) == (400, "User error")
        assert answer.value["message"].startswith('Failed to parse query "')


# -- kill ------------------------------------------------------------------------------------------


@pytest.mark.scenario("runner", 86)
async def test_a_waiting_job_is_cancelled_and_never_runs(site: Site) -> None:
    busy(site)
    await configured(site)
    first = await site.run({"config": "X"})
    await started(site, first)
    second = await site.run({"config": "X"})
    answer = await site.ask("POST", f"/queue/job/{second}/kill", token="run")
    assert answer.status == 202
    assert answer.value == {"message": "job termination request accepted for processing"}
    job = await site.job(second)
    assert (job["status"], job["isFinished"]) == ("cancelled", True)
    assert job["terminatedBy"]["description"] == "the run"
    await site.ask("POST", f"/queue/job/{first}/kill")
    await site.finished(first)
    assert all(
        spec.labels["com.keboola.docker-runner.jobId"] != str(second) for spec in site.host.created
    )


@pytest.mark.scenario("runner", 87)
@pytest.mark.scenario("runner", 88)
async def test_a_running_job_is_terminated_and_others_are_not(site: Site) -> None:
    busy(site)
    victim, other = await site.run(), await site.run()
    await started(site, victim)
    await started(site, other)
    answer = await site.ask("POST", f"/queue/job/{victim}/kill")
    assert answer.status == 202
    assert answer.value == {"message": "job termination request accepted for processing"}
    job = await site.finished(victim)
    assert (job["status"], job["result"]["message"]) == ("terminated", "Job has been terminated")
    assert job["isFinished"]
    assert job["endTime"] is not None
    assert job["durationSeconds"] is not None
    assert job["waitSeconds"] is None
    assert job["terminatedBy"]["description"] == "the admin"
    left = [site.host.spec(name) for name in site.host.containers]
    assert [spec.labels["com.keboola.docker-runner.jobId"] for spec in left] == [str(other)]
    assert (await site.job(other))["status"] == "processing"


async def test_a_finished_job_cannot_be_killed(site: Site) -> None:
    id_ = await site.run()
    await site.finished(id_)
    answer = await site.ask("POST", f"/queue/job/{id_}/kill")
    assert (answer.status, answer.value["message"]) == (400, "Job is not in a killable state")
    assert (await site.job(id_))["status"] == "success"


# -- what else a job has ---------------------------------------------------------------------------


@pytest.mark.scenario("runner", 94)
async def test_a_users_error_is_told_with_its_id(site: Site) -> None:
    site.host.images[IMAGE] = FakeImage(Script((Printed(b"wrong password"),), exit_code=1))
    job = await site.finished(await site.run())
    assert (job["status"], job["error"]) == ("error", "user")
    assert job["result"]["message"] == "wrong password"
    assert re.fullmatch("docker-[0-9a-f]{32}", job["result"]["exceptionId"])
    assert job["result"]["context"] == []


async def test_an_application_error_is_told_to_the_operator_only(site: Site) -> None:
    site.host.images[IMAGE] = FakeImage(Script((Printed(b"Traceback"),), exit_code=2))
    job = await site.finished(await site.run())
    assert (job["status"], job["error"]) == ("error", "application")
    assert job["result"]["message"] == "Internal error occurred, please contact support@keboola.com"
    assert "Traceback" not in str(job)


@pytest.mark.scenario("runner", 99)
async def test_a_note_is_kept_with_a_job(site: Site) -> None:
    id_ = await site.run()
    answer = await site.ask("PUT", f"/queue/jobs/{id_}/error-note", {"errorNote": "x"})
    assert (answer.status, answer.value["errorNote"]) == (200, "x")
    assert (await site.job(id_))["errorNote"] == "x"
    body: Any
    for body in ({}, {"errorNote": None}, {"errorNote": 1}, []):
        answer = await site.ask("PUT", f"/queue/jobs/{id_}/error-note", body)
        assert (answer.status, answer.value["message"]) == (400, "Specify 'errorNote'.")


async def test_run_time_is_told_in_sum_and_by_day(site: Site) -> None:
    ids = [await site.run() for _ in range(2)]
    for id_ in ids:
        await site.finished(id_)
    await set_durations(site, dict(zip(ids, (10, 20), strict=True)))
    assert await site.get("/docker/stats/project") == {"jobs": {"durationSum": 30}}
    assert await site.get("/docker/stats/project", token="other") == {"jobs": {"durationSum": 0}}
    ended = {datetime.fromisoformat((await site.job(id_))["endTime"]).date() for id_ in ids}
    first = min(ended) - timedelta(days=1)
    days = {"fromDate": first, "toDate": max(ended), "timezoneOffset": "+00:00"}
    told = (await site.get("/docker/stats/project/daily?" + urlencode(days)))["jobs"]
    assert sum(day["durationSum"] for day in told) == 30
    assert told[0] == {"date": first.isoformat(), "durationSum": 0}
    assert [day["date"] for day in told] == sorted(day["date"] for day in told)
    usual = (await site.get("/docker/stats/project/daily"))["jobs"]
    assert len(usual) == 30
    assert sum(day["durationSum"] for day in usual) == 30


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("fromDate=soon", "Parameter 'fromDate' must be a date such as 2024-01-31."),
        ("toDate=2024-1-1", "Parameter 'toDate' must be a date"),
        ("fromDate=2024-02-30&toDate=2024-03-01", "Parameter 'fromDate' must be a date"),
        ("fromDate=0001-01-01&toDate=2024-03-01", "Parameter 'fromDate' must be a date"),
        ("fromDate=2024-02-02&toDate=2024-02-01", "Parameter 'toDate' must not be before"),
        ("fromDate=1990-02-02&toDate=2024-02-01", "The range must not have more than 3660 days."),
        ("fromDate=2024-02-02&toDate=2024-02-02&timezoneOffset=2", "Parameter 'timezoneOffset'"),
    ],
)
async def test_statistics_that_cannot_be_are_refused(site: Site, query: str, words: str) -> None:
    answer = await site.ask("GET", f"/docker/stats/project/daily?{query}")
    assert answer.status == 400
    assert answer.value["message"].startswith(words)


async def test_the_log_of_a_job_can_be_read_while_it_runs_and_after(site: Site) -> None:
    site.host.images[IMAGE] = FakeImage(Script((Printed(b"one\ntwo\n"),)))
    id_ = await site.run()
    followed = await site.ask("GET", f"/queue/jobs/{id_}/events?follow=1&kind=log")
    assert followed.headers["Content-Type"] == "application/x-ndjson"
    lines = followed.value.decode().splitlines()
    assert [re.search('"message":"(.*?)"', line)[1] for line in lines] == ["one", "two"]  # type: ignore[index]
    again = await site.ask("GET", f"/queue/jobs/{id_}/events?kind=log")
    assert again.value == followed.value


async def test_a_second_try_with_the_same_key_gets_the_same_job(site: Site) -> None:
    key = {"Idempotency-Key": "once"}
    first = await site.run(headers=key)
    assert await site.run(headers=key) == first
    changed = await site.ask(
        "POST", "/docker/C/run", {"configData": {"parameters": {}}}, headers=key
    )
    assert changed.status == 409
    theirs = await site.ask("POST", "/docker/C/run", {"configData": {}}, headers=key, token="other")
    assert theirs.status == 202
    assert int(theirs.value["id"]) != first


@pytest.mark.parametrize("id_", ["0", "999999", "abc", "1e3", "-1", "9" * 40])
async def test_a_job_that_is_not_there(site: Site, id_: str) -> None:
    answer = await site.ask("GET", f"/queue/job/{id_}")
    assert (answer.status, answer.value["message"]) == (404, "Job not found")
    assert (await site.ask("POST", f"/queue/job/{id_}/kill")).status == 404
