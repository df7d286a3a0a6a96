"""`GET /queue/jobs/{id}/events`: the past at once, the rest as it comes."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from tests.server.fakes import FakeEngine, make_app, scope

from vaka.models.job import JobSpec
from vaka_server.routes.queue import BATCH, KEEP_ALIVE, EventStream

HEADERS = {"X-StorageApi-Token": "secret"}
EVENTS = "/queue/jobs/1/events"


@pytest.fixture
async def engine(tmp_path: Path) -> FakeEngine:
    engine = FakeEngine(tmp_path)
    await engine.submit(JobSpec(component="C", config="x"))
    for text in ("one", "two", "three"):
        engine.say(text)
    return engine


async def lines(response: Any) -> list[str]:
    return [json.loads(line)["message"] for line in (await response.get_data()).splitlines()]


async def test_the_past_is_one_object_a_line(engine: FakeEngine) -> None:
    client = make_app(engine).test_client()
    response = await client.get(EVENTS, headers=HEADERS)
    assert response.content_type == "application/x-ndjson"
    assert await lines(response) == ["one", "two", "three"]
    assert await lines(await client.get(f"{EVENTS}?after=2", headers=HEADERS)) == ["three"]
    assert await lines(await client.get(f"{EVENTS}?after=3", headers=HEADERS)) == []


async def test_only_some_kinds_are_sent_when_asked(engine: FakeEngine) -> None:
    engine.say("moved", kind="input.table")
    client = make_app(engine).test_client()
    response = await client.get(f"{EVENTS}?kind=input.table,output.table", headers=HEADERS)
    assert await lines(response) == ["moved"]


async def test_following_goes_on_until_the_job_has_ended(engine: FakeEngine) -> None:
    client = make_app(engine).test_client()
    async with client.request(f"{EVENTS}?follow=1", headers=HEADERS) as connection:
        await connection.send_complete()
        past = await connection.receive()
        assert [json.loads(line)["seq"] for line in past.splitlines()] == [1, 2, 3]
        await trio.testing.wait_all_tasks_blocked()
        engine.say("four")
        assert json.loads(await connection.receive())["message"] == "four"
        engine.say("five")
        engine.finish(1)
        assert json.loads(await connection.receive())["message"] == "five"


async def test_server_sent_events_carry_their_number_and_go_on_from_it(
    engine: FakeEngine, autojump_clock: trio.abc.Clock
) -> None:
    client = make_app(engine).test_client()
    headers = {**HEADERS, "Accept": "text/event-stream", "Last-Event-ID": "2"}
    response = await client.get(f"{EVENTS}?follow=0", headers=headers)
    assert response.content_type == "text/event-stream"
    async with client.request(EVENTS, headers=headers) as connection:
        await connection.send_complete()
        first = (await connection.receive()).decode()
        assert first.startswith("id: 3\nevent: log\ndata: {")
        assert first.endswith("}\n\n")
        before = trio.current_time()
        assert await connection.receive() == b":\n\n"
        assert trio.current_time() - before == pytest.approx(KEEP_ALIVE)
        engine.say("four")
        assert (await connection.receive()).startswith(b"id: 4\n")
        engine.finish(1)


async def test_server_sent_events_end_with_the_job_for_good(engine: FakeEngine) -> None:
    engine.finish(1)
    client = make_app(engine).test_client()
    headers = {**HEADERS, "Accept": "text/event-stream"}
    response = await client.get(EVENTS, headers=headers)
    told: Any = await response.get_data()
    assert told.count(b"id: ") == len(engine.history)
    # a browser comes back by itself, and stops when it is told that there is nothing
    headers["Last-Event-ID"] = str(len(engine.history))
    response = await client.get(EVENTS, headers=headers)
    assert (response.status_code, await response.get_data()) == (204, b"")
    headers["Last-Event-ID"] = str(len(engine.history) - 1)
    response = await client.get(EVENTS, headers=headers)
    told = await response.get_data()
    assert told.count(b"id: ") == 1


async def test_a_client_that_goes_away_is_not_followed_any_further(engine: FakeEngine) -> None:
    gone = trio.Event()
    said: list[Any] = []
    first = True

    async def receive() -> Any:
        nonlocal first
        if first:
            first = False
            return {"type": "http.request"}
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        said.append(message)

    async with trio.open_nursery() as nursery:
        request = scope(EVENTS, secret="secret", query="follow=1")
        nursery.start_soon(make_app(engine), request, receive, send)
        await trio.testing.wait_all_tasks_blocked()
        assert b"three" in said[-1]["body"]
        gone.set()
    # the connection's tasks have ended, and the job has not
    assert said[-1]["more_body"]
    assert not engine.records[1].status.is_finished


async def test_a_long_past_is_sent_in_parts(engine: FakeEngine) -> None:
    for _ in range(2000):
        engine.say("x" * 100)
    client = make_app(engine).test_client()
    sizes = []
    async with client.request(EVENTS, headers=HEADERS) as connection:
        await connection.send_complete()
        while True:
            try:
                sizes.append(len(await connection.receive()))
            except trio.EndOfChannel:
                break
    assert max(sizes) < BATCH + 1000
    assert len([size for size in sizes if size]) > 2


@pytest.mark.parametrize("job", ["2", "0", "abc", "-1", "1.0", "9" * 30])
async def test_events_of_a_job_that_is_not_there(engine: FakeEngine, job: str) -> None:
    client = make_app(engine).test_client()
    response = await client.get(f"/queue/jobs/{job}/events", headers=HEADERS)
    assert response.status_code == 404
    assert (await response.get_json())["message"] == "Job not found"


@pytest.mark.parametrize("query", ["after=-1", "after=x", "follow=maybe"])
async def test_a_query_that_cannot_be_is_refused(engine: FakeEngine, query: str) -> None:
    client = make_app(engine).test_client()
    response = await client.get(f"{EVENTS}?{query}", headers=HEADERS)
    assert response.status_code == 400


# -- the log as text -------------------------------------------------------------------------------

LOG = "/queue/jobs/1/log"


async def test_the_whole_log_is_plain_text_to_download(engine: FakeEngine) -> None:
    engine.say("moved", kind="input.table")
    engine.say("žluť")
    response = await make_app(engine).test_client().get(LOG, headers=HEADERS)
    assert response.content_type == "text/plain; charset=utf-8"
    assert response.headers["Content-Disposition"] == 'attachment; filename="job-1.log"'
    assert await response.get_data() == "one\ntwo\nthree\nžluť\n".encode()


async def test_the_log_is_told_with_times_and_of_one_stream_when_asked(engine: FakeEngine) -> None:
    client = make_app(engine).test_client()
    response = await client.get(f"{LOG}?timestamps=1", headers=HEADERS)
    first, *_ = (await response.get_data()).splitlines()
    assert first == b"2026-01-02T03:04:05+00:00 one"
    engine.history[1] = replace(engine.history[1], stream="stderr")
    response = await client.get(f"{LOG}?stream=stderr", headers=HEADERS)
    assert await response.get_data() == b"two\n"
    response = await client.get(f"{LOG}?stream=both", headers=HEADERS)
    assert response.status_code == 400


async def test_the_log_is_followed_until_the_job_has_ended(engine: FakeEngine) -> None:
    client = make_app(engine).test_client()
    async with client.request(f"{LOG}?follow=1", headers=HEADERS) as connection:
        await connection.send_complete()
        assert await connection.receive() == b"one\ntwo\nthree\n"
        await trio.testing.wait_all_tasks_blocked()
        engine.say("four")
        assert await connection.receive() == b"four\n"
        engine.say("five")
        engine.say("six")
        engine.finish(1)
        rest = b""
        while rest != b"five\nsix\n":
            rest += await connection.receive()


async def test_the_log_of_a_job_of_others_is_not_there(engine: FakeEngine) -> None:
    response = await make_app(engine).test_client().get("/queue/jobs/2/log", headers=HEADERS)
    assert response.status_code == 404


async def test_a_slow_client_makes_nothing_wait_in_memory(engine: FakeEngine) -> None:
    for _ in range(5_000):
        engine.say("x" * 100)
    read = 0
    job = await engine.job(1)
    whole = job.events

    async def counted(**options: Any) -> Any:
        nonlocal read
        async for event in whole(**options):
            read += 1
            yield event

    job.events = counted  # type: ignore[method-assign]
    app = make_app(engine)
    stream = EventStream(
        job,  # type: ignore[arg-type]
        app.followers,
        after=0,
        follow=True,
        kinds=frozenset(),
        form="sse",
    )
    async with stream:
        parts = [await anext(stream)]
        first = read
        assert len(parts[0]) < BATCH + 1000
        assert first < 1_000
        await trio.testing.wait_all_tasks_blocked()
        assert read == first
        while sum(part.count(b"id: ") for part in parts) < len(engine.history):
            parts.append(await anext(stream))
        engine.finish(1)
        with pytest.raises(StopAsyncIteration):
            await anext(stream)
