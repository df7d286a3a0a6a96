"""The queue as newer clients use it, on a real engine."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

import pytest
from tests.server.conftest import COMPONENT, IMAGE, Answer, Site

from vaka.models.container import ContainerSpec
from vaka.testing import FakeImage, Printed, Script, host_path
from vaka_server import schemas

KEYS = [
    *("id", "runId", "parentRunId", "project", "token", "status", "desiredStatus", "mode"),
    *("component", "config", "configData", "configRowIds", "tag", "createdTime", "startTime"),
    *("endTime", "durationSeconds", "result", "usageData", "isFinished", "url", "branchId"),
    *("variableValuesId", "variableValuesData", "backend", "executor", "metrics", "behavior"),
    *("parallelism", "type", "orchestrationJobId", "orchestrationTaskId"),
    *("onlyOrchestrationTaskIds", "previousJobId"),
]
CONFIGS = "/v2/storage/components/C/configs"
INLINE: dict[str, Any] = {"component": "C", "configData": {}}


async def create(site: Site, body: Any = None, **options: Any) -> Any:
    """The document of a new job."""
    answer = await site.ask("POST", "/queue/jobs", body or INLINE, **options)
    assert answer.status == 201, answer
    schemas.QueueJob.model_validate(answer.value)
    return answer.value


async def ended(site: Site, job: Any) -> Any:
    """A job's document once it has ended."""
    await (await site.engine.job(int(job["id"]))).wait()
    return await site.get(f"/queue/jobs/{job['id']}")


async def configured(site: Site, name: str = "X", **members: Any) -> None:
    body = {"name": name, "configurationId": name, **members}
    answer = await site.ask("POST", CONFIGS, body)
    assert answer.status == 201, answer


async def found(site: Site, **query: Any) -> list[str]:
    """Ids that a search finds."""
    return [
        job["id"] for job in await site.get(f"/queue/search/jobs?{urlencode(query, doseq=True)}")
    ]


def writes_a_table(spec: ContainerSpec) -> None:
    """What a component does that has one output table."""
    (host_path(spec, "/data/out/tables") / "t.csv").write_text("id\n1\n")


def refused(answer: Answer, status: int) -> str:
    """The words of a refusal, in the dialect of the services."""
    value = answer.value
    assert (answer.status, value["code"], value["status"]) == (status, status, "error"), answer
    assert value["exceptionId"]
    return str(value["error"])


@pytest.mark.scenario("storage-api", 110)
async def test_a_new_job_has_every_key_and_is_created(site: Site) -> None:
    job = await create(site, headers={"X-KBC-RunId": "7"})

    assert list(job) == KEYS
    assert (job["status"], job["desiredStatus"], job["isFinished"]) == (
        "created",
        "processing",
        False,
    )
    assert (job["runId"], job["parentRunId"]) == (f"7.{job['id']}", "7")
    assert (job["component"], job["config"], job["mode"]) == ("C", None, "run")
    assert job["url"] == f"http://localhost/queue/jobs/{job['id']}"
    assert job["token"]["description"] == "the admin"
    assert job["project"]["id"] == "1"
    branches = await site.engine.catalog.branches("1")
    assert job["branchId"] == branches[0].id
    assert datetime.fromisoformat(job["createdTime"]).utcoffset() is not None
    alone = await create(site)
    assert (alone["runId"], alone["parentRunId"]) == (alone["id"], "")
    named = await create(site, {**INLINE, "parentRunId": "5.6"}, headers={"X-KBC-RunId": "7"})
    assert named["runId"] == f"5.6.{named['id']}"


async def test_a_job_that_has_ended_shows_its_result(site: Site) -> None:
    job = await ended(site, await create(site))

    assert list(job) == KEYS
    assert (job["status"], job["isFinished"]) == ("success", True)
    assert job["result"]["message"] == "Component processing finished."
    assert job["result"]["output"] == {"tables": []}
    assert isinstance(job["durationSeconds"], int)
    old = await site.job(int(job["id"]))
    assert old["result"] == job["result"]

    site.host.images[IMAGE] = FakeImage(Script((Printed(b"wrong password"),), exit_code=1))
    failed = await ended(site, await create(site))
    assert (failed["status"], failed["isFinished"]) == ("error", True)
    assert failed["result"]["message"] == "wrong password"
    assert failed["result"]["error"] == {"type": "user"}


async def test_members_that_clients_send_empty_count_as_absent(site: Site) -> None:
    await configured(site)
    branch = (await site.engine.catalog.branches("1"))[0].id
    for config, data in (("X", []), ("X", None), ("X", {})):
        body: dict[str, Any] = {"component": "C", "config": config, "configData": data, "tag": None}
        job = await create(site, {**body, "branchId": branch, "mode": "run", "unknown": 1})
        assert (job["config"], job["configData"], job["tag"]) == ("X", {}, None)
        assert (await ended(site, job))["result"]["configVersion"] == 1
    inline = await create(site, {"component": "C", "config": "", "configData": []})
    assert inline["config"] is None


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({"component": "C"}, 400, "Specify 'config' or 'configData'."),
        ({"component": "C", "config": None, "configData": None}, 400, "Specify 'config'"),
        ({"configData": {}}, 400, 'Invalid value for path "job.component"'),
        ({"component": "nothing", "configData": {}}, 404, 'Component "nothing" was not found.'),
        ({"component": "C", "config": "nothing"}, 404, "Configuration nothing not found"),
        ({**INLINE, "mode": "dance"}, 400, 'Invalid value for path "job.mode"'),
        ({**INLINE, "tag": {}}, 400, 'Invalid type for path "job.tag"'),
        ({**INLINE, "parentRunId": "x" * 300}, 400, 'Invalid value for path "job.parentRunId"'),
        ({**INLINE, "branchId": "4711"}, 404, "Branch 4711 not found"),
        ({"component": "C", "config": "X", "configRowIds": "a"}, 400, "Invalid type for path"),
        ([], 400, "The request's body must be a JSON object."),
    ],
)
async def test_a_job_that_cannot_be_is_refused(
    site: Site, body: Any, status: int, words: str
) -> None:
    answer = await site.ask("POST", "/queue/jobs", body)

    assert refused(answer, status).startswith(words), answer
    assert await site.get("/queue/jobs") == []


@pytest.mark.scenario("storage-api", 113)
async def test_errors_have_a_number_as_their_code(site: Site) -> None:
    for path in ("/queue/jobs/1", "/queue/search/jobs", "/queue/stats/project"):
        wrong = await site.ask("GET", path, token="wrong")
        assert refused(wrong, 401) == "Invalid access token"
        refused(await site.ask("GET", path, token=None), 401)
    for unknown in ("4711", "abc", "9" * 40, "-1"):
        answer = await site.ask("GET", f"/queue/jobs/{unknown}")
        assert refused(answer, 404) == f'Job "{unknown}" not found'
        refused(await site.ask("POST", f"/queue/jobs/{unknown}/kill"), 404)
    theirs = await create(site, token="other")
    refused(await site.ask("GET", f"/queue/jobs/{theirs['id']}"), 404)
    refused(await site.ask("POST", "/queue/jobs", INLINE, token="read"), 403)
    lineage = await site.ask("GET", f"/queue/job/{theirs['id']}/open-api-lineage")
    assert lineage.status == 501


async def test_a_running_job_can_be_killed_and_a_finished_one_not(site: Site) -> None:
    site.host.images[IMAGE] = FakeImage(Script(seconds=math.inf))
    job = await create(site)
    async for event in (await site.engine.job(int(job["id"]))).events():
        if event.kind == "stage.started":
            break

    answer = await site.ask("POST", f"/queue/jobs/{job['id']}/kill")

    assert (answer.status, answer.value["desiredStatus"]) == (202, "terminating")
    assert list(answer.value) == KEYS
    assert (await ended(site, job))["status"] == "terminated"
    again = await site.ask("POST", f"/queue/jobs/{job['id']}/kill")
    assert "not in one of killable states" in refused(again, 400)


async def test_a_disabled_configuration_is_skipped_unless_it_is_forced(site: Site) -> None:
    await configured(site, isDisabled=True)
    skipped = await ended(site, await create(site, {"component": "C", "config": "X"}))
    assert (skipped["status"], skipped["isFinished"]) == ("warning", True)
    assert skipped["result"]["message"] == "No configurations executed."
    assert site.host.created == []
    said = [event.message async for event in (await site.engine.job(int(skipped["id"]))).events()]
    assert "Skipping disabled configuration: X, version: 1" in said

    body = {"component": "C", "config": "X", "mode": "forceRun"}
    forced = await ended(site, await create(site, body))
    assert (forced["status"], forced["mode"]) == ("success", "forceRun")
    assert len(site.host.created) == 1
    older = await site.finished(await site.run({"config": "X"}))
    assert older["status"] == "success"  # who asks the older way knows nothing of it


@pytest.mark.scenario("storage-api", 114)
async def test_rows_are_run_also_disabled_ones_that_are_named(site: Site) -> None:
    await configured(site)
    for row, off in (("a", False), ("b", True), ("c", False)):
        body = {"rowId": row, "name": row, "configuration": {}, "isDisabled": off}
        assert (await site.ask("POST", f"{CONFIGS}/X/rows", body)).status == 201
    body = {"component": "C", "config": "X", "configRowIds": ["a", "b"]}
    job = await ended(site, await create(site, body))
    assert job["configRowIds"] == ["a", "b"]
    assert [row["id"] for row in job["result"]["rows"]] == ["a", "b"]

    inline = await ended(
        site, await create(site, {"component": "C", "configData": {"parameters": {}}})
    )
    assert (inline["status"], inline["configData"]) == ("success", {"parameters": {}})

    site.host.images[IMAGE] = FakeImage(Script(effect=writes_a_table))
    output = {"tables": [{"source": "t.csv", "destination": "out.c-main.t"}]}
    config = {"component": "C", "configData": {"storage": {"output": output}}}
    debug = await ended(site, await create(site, {**config, "mode": "debug"}))
    assert (debug["status"], debug["mode"]) == ("success", "debug")
    files = await site.get("/v2/storage/files")
    assert files
    assert all("debug" in file["tags"] for file in files)
    assert await site.get("/v2/storage/tables") == await site.get("/v2/storage/buckets") == []
    assert (await ended(site, await create(site, config)))["status"] == "success"
    assert [each["id"] for each in await site.get("/v2/storage/tables")] == ["out.c-main.t"]


@pytest.mark.scenario("storage-api", 112)
async def test_a_search_filters_by_what_is_asked(site: Site) -> None:
    await configured(site)
    await configured(site, "Y")
    await site.engine.catalog.put_component({**COMPONENT, "id": "D"})
    assert (await site.ask("POST", f"{CONFIGS}/Y/rows", {"rowId": "r", "name": "r"})).status == 201
    bodies = [
        INLINE,
        {"component": "C", "config": "X"},
        {"component": "C", "config": "Y", "configRowIds": ["r"]},
        {"component": "D", "configData": {}, "mode": "debug"},
        {**INLINE, "parentRunId": "7"},
    ]
    jobs = [await create(site, body) for body in bodies]
    await create(site, token="other")
    for job in jobs:
        await ended(site, job)
    site.host.images[IMAGE] = FakeImage(Script(exit_code=1))
    jobs.append(await create(site, INLINE, token="run"))
    last = await ended(site, jobs[-1])
    ids = [job["id"] for job in jobs]
    everything = ids[::-1]

    assert await found(site) == everything
    assert await site.get("/queue/jobs") == await site.get("/queue/search/jobs")
    for query, expected in (
        ({"id": ids[1:3]}, [2, 1]),
        ({"id[]": ids[0]}, [0]),
        ({"id": "abc"}, []),
        ({"runId": f"7.{ids[4]}"}, [4]),
        ({"parentRunId": "7"}, [4]),
        ({"parentRunId": ""}, [5, 3, 2, 1, 0]),
        ({"component": "D"}, [3]),
        ({"componentId": ["C", "D"]}, [5, 4, 3, 2, 1, 0]),
        ({"config": "X"}, [1]),
        ({"configId[]": ["X", "Y"]}, [2, 1]),
        ({"configRowIds": "r"}, [2]),
        ({"configRowIds": "x"}, []),
        ({"mode": "debug"}, [3]),
        ({"mode": "dance"}, []),
        ({"status": "error"}, [5]),
        ({"status": ["error", "success"]}, [5, 4, 3, 2, 1, 0]),
        ({"status[]": ["error", "terminated"]}, [5]),
        ({"status": "created"}, []),
        ({"status": "nonsense"}, []),
        ({"tokenId": last["token"]["id"]}, [5]),
        ({"branchId": jobs[0]["branchId"]}, [5, 4, 3, 2, 1, 0]),
        ({"branchId": "4711"}, []),
        ({"type": "standard"}, [5, 4, 3, 2, 1, 0]),
        ({"type": "container"}, []),
        ({"createdTimeFrom": "-1 day"}, [5, 4, 3, 2, 1, 0]),
        ({"createdTimeTo": "-1 day"}, []),
        ({"startTimeFrom": (datetime.now(UTC) + timedelta(days=1)).isoformat()}, []),
        ({"endTimeFrom": "-1 hour", "endTimeTo": "now"}, [5, 4, 3, 2, 1, 0]),
        ({"durationSecondsFrom": "3600"}, []),
        ({"durationSecondsTo": "3600"}, [5, 4, 3, 2, 1, 0]),
        ({"limit": 2, "offset": 1}, [4, 3]),
        ({"sortBy": "startTime", "sortOrder": "desc"}, [5, 4, 3, 2, 1, 0]),
        ({"sortBy": "id", "sortOrder": "asc"}, [0, 1, 2, 3, 4, 5]),
        ({"component": "C", "config": "X", "status": ["success"], "limit": 500}, [1]),
    ):
        assert await found(site, **query) == [ids[index] for index in expected], query
    for wrong in (
        {"sortBy": "result"},
        {"sortOrder": "up"},
        {"limit": 501},
        {"createdTimeFrom": "x"},
    ):
        refused(await site.ask("GET", f"/queue/search/jobs?{urlencode(wrong)}"), 400)


async def test_jobs_can_be_grouped_by_configuration(site: Site) -> None:
    for name in ("X", "Y"):
        await configured(site, name)
    ids: dict[str, list[str]] = {"X": [], "Y": []}
    for name in ("X", "Y", "X", "X"):
        ids[name].append((await create(site, {"component": "C", "config": name}))["id"])
    inline = await create(site)
    query = [
        *(("groupBy[]", "componentId"), ("groupBy[]", "configId"), ("jobsPerGroup", "2")),
        ("filters[createdTimeFrom]", "-1 day"),
    ]

    async def groups(*more: tuple[str, str]) -> list[tuple[Any, list[str]]]:
        given = await site.get(f"/queue/search/grouped-jobs?{urlencode([*query, *more])}")
        return [
            (each["group"]["configId"], [job["id"] for job in each["jobs"]])
            for each in given
            if each["group"]["componentId"] == "C"
        ]

    expected = [
        (None, [inline["id"]]),
        ("X", ids["X"][:0:-1]),
        ("Y", ids["Y"]),
    ]
    assert await groups() == expected
    assert await groups(("limit", "1"), ("offset", "1")) == expected[1:2]
    assert await groups(("filters[configId]", "Y")) == expected[2:]
    assert await groups(("filters[createdTimeTo]", "-1 day")) == []
    assert await groups(("sortOrder", "asc"), ("sortBy", "createdTime")) == [
        ("X", ids["X"][:2]),
        ("Y", ids["Y"]),
        (None, [inline["id"]]),
    ]


async def test_run_time_is_told_in_sum(site: Site) -> None:
    await ended(site, await create(site))

    assert await site.get("/queue/stats/project") == {"jobs": {"durationSum": 0}}
