"""Events and tickets of Storage, on a real engine."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

import pytest
import trio
from tests.server.conftest import IMAGE, Answer, Site

from vaka import Engine
from vaka.models.operation import NewOperation
from vaka.models.storage import StorageScope
from vaka.store import _client_events
from vaka.testing import FakeImage, Printed, Script
from vaka_server import schemas

EVENTS = "/v2/storage/events"


async def said(site: Site, message: str = "hello", **members: Any) -> str:
    """The id of a new event."""
    body = {"component": "some.client", "message": message, **members}
    answer = await site.ask("POST", EVENTS, body)
    assert answer.status == 201, answer
    assert set(answer.value) == {"id", "uuid"}
    return str(answer.value["id"])


async def listed(site: Site, **query: Any) -> list[Any]:
    found: list[Any] = await site.get(f"{EVENTS}?{urlencode(query)}")
    for each in found:
        schemas.StorageEvent.model_validate(each)
    return found


def refused(answer: Answer) -> str:
    assert answer.status == 400, answer
    return str(answer.value["code"])


@pytest.mark.scenario("storage-api", 123)
async def test_a_client_nobody_knows_may_say_what_it_did(site: Site) -> None:
    id_ = await said(
        site,
        "Tool called",
        component="keboola.mcp-server-tool",
        type="success",
        configurationId="12",
        runId="7.88",
        params={"tool": "x"},
        results='{"rows": [1, 2]}',
        duration=3,
    )

    event = await site.get(f"{EVENTS}/{id_}")
    assert event["uuid"]
    assert event["event"] == "ext.keboola.mcp-server-tool.12"
    assert event["message"] == "Tool called"
    assert (event["type"], event["runId"], event["configurationId"]) == ("success", "7.88", "12")
    assert event["params"] == {"tool": "x"}
    assert event["results"] == {"rows": [1, 2]}
    assert event["performance"] == {"duration": 3}
    assert event["token"]["name"] == "the admin"
    for run_id in ("7.88", "88"):
        assert [each["id"] for each in await listed(site, runId=run_id)] == [id_]
    assert await listed(site, runId="7") == []
    plain = await site.get(f"{EVENTS}/{await said(site)}")
    assert (plain["params"], plain["results"], plain["performance"]) == ({}, {}, {})
    answer = await site.ask("GET", f"{EVENTS}?limit=10001")
    assert refused(answer) == "storage.validation"
    assert await site.get(f"{EVENTS}?limit=10000")
    assert await site.get(EVENTS, token="other") == []


async def test_events_come_as_forms_too_and_in_branches(site: Site) -> None:
    form = b"component=c&message=m&params%5Ba%5D=1&results=%5B%5D"
    answer = await site.ask(
        "POST",
        "/v2/storage/branch/default/events",
        data=form,
        headers={"Content-Type": "application/x-www-form-urlencoded", "X-KBC-RunId": "55"},
    )
    assert answer.status == 201, answer
    (event,) = await site.get("/v2/storage/branch/default/events")
    assert (event["params"], event["results"], event["runId"]) == ({"a": "1"}, {}, "55")


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"component": "c"}, "storage.validation"),
        ({"message": "m"}, "storage.validation"),
        ({"component": "c", "message": "m", "type": "loud"}, "storage.validation"),
        ({"component": "c", "message": "m", "params": "no json"}, "storage.validation"),
        ({"component": "c", "message": "m", "duration": "long"}, "storage.validation"),
        ({"component": "c" * 300, "message": "m"}, "storage.validation"),
        ({"component": "c", "message": "m" * 200_001}, "requestTooLarge"),
    ],
)
async def test_an_event_that_cannot_be_is_refused(site: Site, body: Any, code: str) -> None:
    assert refused(await site.ask("POST", EVENTS, body)) == code
    assert await site.get(EVENTS) == []


async def test_a_list_is_newest_first_and_filtered(site: Site) -> None:
    ids = [
        await said(site, f"number {n} is Here", component=f"c{n % 2}", configurationId=str(n))
        for n in range(5)
    ]

    async def numbers(**query: Any) -> list[int]:
        return [ids.index(each["id"]) for each in await listed(site, **query)]

    assert await numbers() == [4, 3, 2, 1, 0]
    assert await numbers(limit=2, offset=1) == [3, 2]
    assert await numbers(component="c1") == [3, 1]
    assert await numbers(configurationId="2") == [2]
    assert await numbers(sinceId=ids[2]) == [4, 3]
    assert await numbers(maxId=ids[2]) == [1, 0]
    assert await numbers(q="here number") == [4, 3, 2, 1, 0]
    assert await numbers(q='"number 3"') == [3]
    assert await numbers(q="component:c0 here") == [4, 2, 0]
    assert await numbers(q="100%") == []
    for wrong in ('"open', "a:(b", "nothing:1"):
        answer = await site.ask("GET", f"{EVENTS}?{urlencode({'q': wrong})}")
        assert refused(answer) == "query.syntax"
        assert answer.value["error"].startswith("Failed to parse query")


@pytest.mark.parametrize("id_", ["4711", "abc", "1.5", "4711.1", "9" * 30, "-1"])
async def test_an_event_that_is_not_there(site: Site, id_: str) -> None:
    assert (await site.ask("GET", f"{EVENTS}/{id_}")).status == 404


async def test_the_log_of_a_job_is_among_the_events_of_its_run(site: Site) -> None:
    site.host.images[IMAGE] = FakeImage(
        Script((Printed(b"first line\nsecond line\n"), Printed(b"trouble\n", stream="stderr")))
    )
    other = await site.run()
    job_id = await site.run(headers={"X-KBC-RunId": "7"})
    job = await site.finished(job_id)
    await site.finished(other)
    mine = await said(site, "from outside", runId=job["runId"])

    events: list[Any] = []
    for run_id in (str(job_id), job["runId"]):
        events = await listed(site, runId=run_id)
        messages = [each["message"] for each in events]
        assert messages[0] == "from outside"
        assert messages.index("second line") < messages.index("first line")
        assert {each["runId"] for each in events} == {job["runId"]}
        assert {each["component"] for each in events[1:]} == {"C"}
    (trouble,) = await listed(site, runId=job_id, q="trouble")
    assert trouble["type"] == "error"
    assert await site.get(f"{EVENTS}/{trouble['id']}") == trouble
    assert [each["id"] for each in await listed(site, runId=job_id, component="some.client")] == [
        mine
    ]
    newest = await listed(site, runId=job_id, limit=2)
    assert [each["id"] for each in newest] == [each["id"] for each in events[:2]]
    assert await listed(site, runId=job_id, limit=2, offset=1) == events[1:3]
    later = await listed(site, runId=job_id, q="line", sinceId=trouble["id"].partition(".")[0])
    assert len(later) == 2
    theirs = await site.get(f"{EVENTS}?runId={job_id}", token="other")
    assert theirs == []


async def test_tables_and_buckets_have_the_jobs_that_were_about_them(site: Site) -> None:
    scope = StorageScope("1")
    tables = site.engine.storage.tables
    await tables.create_bucket(scope, "in", "a")
    await tables.create_table(scope, "in.c-a.t", ["x"])
    await tables.create_table(scope, "in.c-a.u", ["x"])
    for table, kind in (("in.c-a.t", "tableExport"), ("in.c-a.t", "tableDrop")):
        made = await site.engine.operations.submit(NewOperation("1", kind, {}, table_id=table))
        await site.engine.operations.wait(made.id)
    await tables.create_table(scope, "in.c-a.t", ["x"])

    of_table = await site.get("/v2/storage/tables/in.c-a.t/events")
    assert [each["event"] for each in of_table] == [
        "storage.tableDropDone",
        "storage.tableExportDone",
    ]
    for each in of_table:
        schemas.StorageEvent.model_validate(each)
    assert await site.get("/v2/storage/buckets/in.c-a/events") == of_table
    assert await site.get("/v2/storage/tables/in.c-a.u/events") == []
    assert (await site.ask("GET", "/v2/storage/tables/in.c-a.v/events")).status == 404


async def test_only_so_many_events_of_a_project_are_kept(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_client_events, "MOST_KEPT", 3)
    monkeypatch.setattr(_client_events, "PRUNE_EVERY", 1)

    ids = [await said(site) for _ in range(5)]

    assert [each["id"] for each in await listed(site)] == ids[:1:-1]


@pytest.mark.scenario("storage-api", 126)
async def test_tickets_strictly_increase(site: Site) -> None:
    given: list[int] = []

    async def ask() -> None:
        for _ in range(5):
            answer = await site.ask("POST", "/v2/storage/tickets")
            assert answer.status == 201
            given.append(int(answer.value["id"]))

    before = await site.engine.ticket()
    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(ask)
    after = await site.engine.ticket()

    assert len(set(given)) == 20
    assert before < min(given)
    assert max(given) < after
    another = Engine(site.engine.config.model_copy(update={"worker": False}))
    async with another:  # on the same store
        assert await another.ticket() > after
        assert await site.engine.ticket() > after + 1
