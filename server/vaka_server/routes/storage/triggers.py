"""Triggers and tickets (storage-api.md sections 11.2 and 11.3)."""

from __future__ import annotations

from collections.abc import Sequence

from vaka.errors import AccessDenied, NotFound
from vaka.models.trigger import NewTrigger, TriggerChanges
from vaka_server import documents
from vaka_server.access import Access
from vaka_server.fields import Fields
from vaka_server.problems import Refused
from vaka_server.route import Call, Response, Route

MINUTES = 60 * 24 * 366
"""The longest cool-down, a year."""
NAME_LENGTH = 255


async def triggers(call: Call) -> Response:
    """`GET /triggers`."""
    component = call.query.text("component") or None
    config = call.query.text("configurationId") or None
    found = [
        documents.trigger(each)
        for each in await call.engine.triggers.list(call.project.id)
        if component in {None, each.wanted.component} and config in {None, each.wanted.config}
    ]
    return call.storage(found)


async def trigger(call: Call, trigger_id: str) -> Response:
    """`GET /triggers/{id}`."""
    found = await call.engine.triggers.get(call.project.id, _id(trigger_id))
    return call.storage(documents.trigger(found))


async def create(call: Call) -> Response:
    """`POST /triggers`."""
    given = await call.fields()
    component = _name(given, "component")
    call.check_component(component)
    run_with = _name(given, "runWithTokenId")
    tables = _tables(given)
    _check_rights(call, run_with, tables)
    made = await call.engine.triggers.create(
        NewTrigger(
            project=call.project.id,
            component=component,
            config=_name(given, "configurationId"),
            tables=tables,
            run_with_token_id=run_with,
            cool_down_minutes=_minutes(given) or 0,
            token_id=call.token.id,
            token_description=call.token.description,
        )
    )
    return call.storage(documents.trigger(made), 201)


async def update(call: Call, trigger_id: str) -> Response:
    """`PUT /triggers/{id}`: only what is given changes."""
    given = await call.fields()
    await _check_own(call, trigger_id)
    component = _name(given, "component") if "component" in given else None
    if component is not None:
        call.check_component(component)
    run_with = _name(given, "runWithTokenId") if "runWithTokenId" in given else None
    tables = _tables(given) if "tableIds" in given else None
    _check_rights(call, run_with, tables or ())
    changes = TriggerChanges(
        component=component,
        config=_name(given, "configurationId") if "configurationId" in given else None,
        tables=tables,
        run_with_token_id=run_with,
        cool_down_minutes=_minutes(given),
    )
    changed = await call.engine.triggers.update(call.project.id, _id(trigger_id), changes)
    return call.storage(documents.trigger(changed))


async def delete(call: Call, trigger_id: str) -> Response:
    """`DELETE /triggers/{id}`."""
    await _check_own(call, trigger_id)
    await call.engine.triggers.delete(call.project.id, _id(trigger_id))
    return Response(b"", 204)


async def ticket(call: Call) -> Response:
    """`POST /tickets`: a number above all that were given before."""
    return call.storage({"id": str(await call.engine.ticket())}, 201)


async def _check_own(call: Call, trigger_id: str) -> None:
    """`AccessDenied` for a trigger that runs with rights that the caller has not."""
    found = (await call.engine.triggers.get(call.project.id, _id(trigger_id))).wanted
    call.check_component(found.component)
    _check_rights(call, found.run_with_token_id, found.tables)


def _check_rights(call: Call, run_with: str | None, tables: Sequence[str]) -> None:
    """`AccessDenied` unless the caller may read the tables, and may run jobs with that token."""
    for table in tables:
        call.check_bucket(table.rpartition(".")[0])
    if run_with not in {None, call.token.id} and not call.token.is_master:
        raise AccessDenied(f"Token {call.token.id} may not run jobs with token {run_with}.")


def _id(text: str) -> int:
    if text.isascii() and text.isdigit() and len(text) <= 18:
        return int(text)
    raise NotFound(f"Trigger {text} not found", kind="trigger", id=text)


def _name(given: Fields, name: str) -> str:
    text = given.required(name)
    if len(text) > NAME_LENGTH or not text.isprintable():
        raise Refused(400, f"{name}: must be printable, at most {NAME_LENGTH} characters.")
    return text


def _tables(given: Fields) -> tuple[str, ...]:
    tables = tuple(dict.fromkeys(given.texts("tableIds")))
    if not all(0 < len(each) <= NAME_LENGTH for each in tables):
        raise Refused(400, "tableIds: each must be the id of a table.")
    return tables


def _minutes(given: Fields) -> int | None:
    return given.whole("coolDownPeriodMinutes", None, least=-MINUTES, most=MINUTES)


ROUTES = (
    Route(
        "GET",
        "/v2/storage/triggers",
        Access.READ,
        triggers,
        "Triggers",
        query={"component": "Of this component", "configurationId": "Of this configuration"},
        answer="Trigger[]",
    ),
    Route(
        "POST",
        "/v2/storage/triggers",
        Access.ADMIN,
        create,
        "Run a configuration whenever one of some tables was loaded",
        body="NewTrigger",
        answer="Trigger",
        status=201,
    ),
    Route(
        "GET",
        "/v2/storage/triggers/<trigger_id>",
        Access.READ,
        trigger,
        "One trigger",
        answer="Trigger",
    ),
    Route(
        "PUT",
        "/v2/storage/triggers/<trigger_id>",
        Access.ADMIN,
        update,
        "Change a trigger",
        body="TriggerChanges",
        answer="Trigger",
    ),
    Route(
        "DELETE",
        "/v2/storage/triggers/<trigger_id>",
        Access.ADMIN,
        delete,
        "Delete a trigger",
        status=204,
    ),
    Route(
        "POST",
        "/v2/storage/tickets",
        Access.READ,
        ticket,
        "A number above all that were given before",
        answer="Ticket",
        status=201,
    ),
)
