"""Triggers, clients' events and tickets as the store keeps them."""

from datetime import timedelta
from typing import Any

import pytest
import trio

from vaka.errors import NotFound, Overloaded
from vaka.models.client_event import ClientEventQuery, NewClientEvent
from vaka.models.trigger import NewTrigger, TriggerChanges
from vaka.store import JobStore, _client_events, _triggers

from .support import Clock


def trigger(**changes: Any) -> NewTrigger:
    values: dict[str, Any] = {
        "project": "1",
        "component": "acme.writer",
        "config": "x",
        "tables": ("in.c-a.t", "in.c-a.u"),
        "run_with_token_id": "44",
        "cool_down_minutes": 5,
        "token_id": "12",
        "token_description": "somebody",
    }
    return NewTrigger(**(values | changes))


def event(message: str = "hello", **changes: Any) -> NewClientEvent:
    return NewClientEvent(
        **({"project": "1", "component": "some.client", "message": message} | changes)
    )


async def test_a_trigger_is_kept_changed_and_forgotten(store: JobStore, clock: Clock) -> None:
    made = await store.add_trigger(trigger())
    other = await store.add_trigger(trigger(project="2"))

    assert (made.wanted, made.created, made.last_run) == (trigger(), clock.now, None)
    assert await store.trigger(made.id, "1") == made
    assert await store.triggers("1") == [made]
    changes = TriggerChanges(tables=("in.c-b.t",), cool_down_minutes=7)
    changed = await store.change_trigger(made.id, "1", changes)
    assert changed.wanted == trigger(tables=("in.c-b.t",), cool_down_minutes=7)
    assert await store.trigger(made.id, "1") == changed
    for project, number in (("2", made.id), ("1", other.id), ("1", 2**70), ("1", 0)):
        with pytest.raises(NotFound, match=f"Trigger {number} not found"):
            await store.trigger(number, project)
        with pytest.raises(NotFound):
            await store.change_trigger(number, project, TriggerChanges())
        with pytest.raises(NotFound):
            await store.remove_trigger(number, project)
    await store.remove_trigger(made.id, "1")
    assert await store.triggers("1") == []
    assert await store.triggers("2") == [other]


async def test_a_run_is_noted_unless_another_was_meanwhile(store: JobStore, clock: Clock) -> None:
    made = await store.add_trigger(trigger())
    later = clock.now + timedelta(seconds=1)

    await store.mark_trigger(made, clock.now)
    await store.mark_trigger(made, later)  # it knows nothing of the first one
    marked = await store.trigger(made.id, "1")
    assert marked.last_run == clock.now
    await store.mark_trigger(marked, later)
    assert (await store.trigger(made.id, "1")).last_run == later


async def test_a_project_may_have_so_many_triggers(
    store: JobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_triggers, "MOST", 1)
    await store.add_trigger(trigger())

    with pytest.raises(Overloaded, match="delete some"):
        await store.add_trigger(trigger())

    await store.add_trigger(trigger(project="2"))


async def test_an_event_is_kept_as_it_was_sent(store: JobStore, clock: Clock) -> None:
    sent = event(
        "Žluť",
        type="warn",
        description="more",
        configuration_id="9",
        run_id="7.88",
        params={"b": 1, "a": [None, "\0"]},
        results={"x": {}},
        duration=3,
        branch="5",
        token_id="44",
        token_description="me",
    )

    kept = await store.add_client_event(sent)

    assert (kept.said, kept.created) == (sent, clock.now)
    found = await store.client_event(kept.id, "1")
    assert found == kept
    assert list(found.said.params) == ["b", "a"]
    for number, project in ((kept.id, "2"), (kept.id + 1, "1"), (2**70, "1")):
        with pytest.raises(NotFound):
            await store.client_event(number, project)


async def test_events_are_found_newest_first(store: JobStore) -> None:
    kept = [
        await store.add_client_event(event(message, run_id=run_id, component=component))
        for message, run_id, component in (
            ("One thing", "7", "a"),
            ("another THING", "7.8", "a"),
            ("100% of it", "8", "b"),
            ("nothing", None, "b"),
        )
    ]
    await store.add_client_event(event(project="2", run_id="8"))

    async def found(**wanted: Any) -> list[int]:
        return [
            kept.index(each) for each in await store.client_events(ClientEventQuery("1", **wanted))
        ]

    assert await found() == [3, 2, 1, 0]
    assert await found(limit=2, offset=1) == [2, 1]
    assert await found(run_id="8") == [2, 1]
    assert await found(run_id="7") == [0]
    assert await found(run_id="7.8") == [1]
    assert await found(component="a") == [1, 0]
    assert await found(words=("thing",)) == [3, 1, 0]
    assert await found(words=("thing", "one")) == [0]
    assert await found(words=("0%",)) == [2]
    assert await found(words=("%",)) == [2]
    assert await found(since_id=kept[1].id) == [3, 2]
    assert await found(max_id=kept[1].id) == [0]
    assert await found(since_id=2**70) == []


async def test_old_events_go_and_of_one_project_all_but_so_many(
    store: JobStore, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_client_events, "MOST_KEPT", 2)
    monkeypatch.setattr(_client_events, "PRUNE_EVERY", 1)
    theirs = await store.add_client_event(event(project="2"))
    kept = []
    for _ in range(4):
        clock.advance(10)
        kept.append(await store.add_client_event(event()))

    assert await store.client_events(ClientEventQuery("1")) == [kept[3], kept[2]]
    assert await store.client_events(ClientEventQuery("2")) == [theirs]
    assert await store.forget_client_events(kept[3].created, 1) == 1
    assert await store.forget_client_events(kept[3].created, 10) == 1
    assert await store.forget_client_events(kept[3].created, 10) == 0
    assert await store.client_events(ClientEventQuery("1")) == [kept[3]]


async def test_tickets_grow_whichever_engine_asks(store_url: str) -> None:
    given: list[list[int]] = []

    async def ask() -> None:
        async with JobStore(store_url) as store:
            given.append([await store.ticket() for _ in range(10)])

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(ask)

    assert all(numbers == sorted(numbers) for numbers in given)
    assert len({number for numbers in given for number in numbers}) == 30
