"""Events: what clients say has happened, and what happened in jobs (storage-api.md section 11.1)."""

from __future__ import annotations

import json
import re
from typing import Any, get_args

from vaka import Job
from vaka.errors import NotFound
from vaka.models.client_event import ClientEventQuery, EventType, NewClientEvent
from vaka.models.event import Event
from vaka.models.job import JobRecord
from vaka.models.operation import OperationQuery, OperationStatus
from vaka_server import documents
from vaka_server.access import Access
from vaka_server.fields import Fields
from vaka_server.problems import Refused
from vaka_server.route import Call, Response, Route

LIMIT = 100
MOST = 10_000
LARGEST = 200_000
"""Bytes of one event."""
NAME_LENGTH = 255
LARGEST_ID = (1 << 63) - 1
_TERM = re.compile(
    r'\s*(?:(?P<field>[A-Za-z]+):)?(?:"(?P<quoted>[^"]*)"|(?P<word>[^\s":()\[\]{}]+))'
)
_FIELDS = {"component": "component", "configurationId": "configuration_id", "runId": "run_id"}
"""What `q` can name, and our word for it; `message` is where words are looked for in any case."""


async def create(call: Call) -> Response:
    """`POST /events`. The component need not be registered: clients name themselves."""
    given = await call.fields()
    if len(json.dumps(dict(given.tree), default=str)) > LARGEST:
        raise Refused(
            400, f"An event must not have more than {LARGEST} bytes.", code="requestTooLarge"
        )
    kind: Any = given.text("type") or "info"
    if kind not in get_args(EventType):
        raise Refused(400, f"type: must be one of {', '.join(get_args(EventType))}.")
    new = NewClientEvent(
        project=call.project.id,
        component=_name(given, "component"),
        message=given.required("message"),
        type=kind,
        description=given.text("description", ""),
        configuration_id=_name(given, "configurationId", required=False),
        run_id=given.text("runId") or call.run_id,
        params=_object(given, "params"),
        results=_object(given, "results"),
        duration=given.whole("duration", None, most=LARGEST_ID) if given.get("duration") else None,
        branch=call.branch,
        token_id=call.token.id,
        token_description=call.token.description,
    )
    event = await call.engine.add_event(new)
    return call.storage({"id": str(event.id), "uuid": event.uuid}, 201)


def _name(given: Fields, name: str, *, required: bool = True) -> str:
    text = given.required(name) if required else given.text(name, "")
    if len(text) > NAME_LENGTH or not text.isprintable():
        raise Refused(400, f"{name}: must be printable, at most {NAME_LENGTH} characters.")
    return text


def _object(given: Fields, name: str) -> dict[str, Any]:
    """An object, or a text that holds one; a list counts by its indexes."""
    value = given.json(name, code="storage.validation") if given.get(name) != "" else None
    if isinstance(value, list):
        return {str(index): member for index, member in enumerate(value)}
    return value or {}


async def events(call: Call) -> Response:
    """`GET /events`, newest first; with `runId` also what happened in the job of that run."""
    return call.storage(await _events(call))


async def _events(call: Call) -> list[documents.Document]:
    query = call.query
    limit = query.whole("limit", LIMIT, most=MOST)
    offset = query.whole("offset", 0, most=MOST)
    wanted = ClientEventQuery(
        project=call.project.id,
        run_id=query.text("runId") or None,
        component=query.text("component") or None,
        configuration_id=query.text("configurationId") or None,
        since_id=_number(query, "sinceId"),
        max_id=_number(query, "maxId"),
        limit=limit + offset,
    )
    wanted = _asked(wanted, query.text("q") or "")
    found = await call.engine.events(wanted)
    said = [(each.created, documents.client_event(each, call.base)) for each in found]
    job = await _job_of_run(call, wanted.run_id)
    if job is None or not _is_of(job.record, wanted):
        return [document for _, document in said[offset:]]
    log = await _log(job, limit + offset)
    said += [
        (each.time, documents.job_event(each, job.record, call.base))
        for each in reversed(log)
        if _matches(each, query, wanted)
    ]
    said.sort(key=lambda pair: pair[0], reverse=True)
    return [document for _, document in said[offset : offset + limit]]


def _asked(query: ClientEventQuery, text: str) -> ClientEventQuery:
    """The query with what `q` adds: words of the message, and `field:value`."""
    words: list[str] = []
    changes: dict[str, Any] = {}
    position = 0
    while text[position:].strip():
        found = _TERM.match(text, position)
        if found is None:
            raise Refused(400, f'Failed to parse query "{text[:200]}".', code="query.syntax")
        position = found.end()
        value = found["word"] if found["quoted"] is None else found["quoted"]
        field = found["field"]
        if field in _FIELDS:
            changes[_FIELDS[field]] = value
        elif field in {None, "message"}:
            words.append(value)
        else:
            raise Refused(
                400,
                f'Failed to parse query "{text[:200]}": there is no field {field}.',
                code="query.syntax",
            )
    members = {name: getattr(query, name) for name in ClientEventQuery.__slots__}
    return ClientEventQuery(**{**members, **changes, "words": tuple(words)})


async def _job_of_run(call: Call, run_id: str | None) -> Job | None:
    """The job whose run this is: by its run id, or by what comes last in it, which is its id."""
    last = (run_id or "").rpartition(".")[2]
    if not (last.isascii() and last.isdigit() and len(last) <= 18):
        return None
    try:
        job = await call.engine.job(int(last), project=call.project.id)
    except NotFound:
        return None
    return job if run_id in {last, job.record.run_id} else None


def _is_of(record: JobRecord, query: ClientEventQuery) -> bool:
    return query.component in {None, record.component} and query.configuration_id in {
        None,
        record.config or "",
    }


async def _log(job: Job, count: int) -> list[Event]:
    """The last events of a job, oldest first."""
    after = max(0, await job.last_seq() - count)
    return [each async for each in job.events(after=after, follow=False)]


def _matches(event: Event, query: Fields, wanted: ClientEventQuery) -> bool:
    message = event.message.lower()
    since, before = query.text("sinceId") or "", query.text("maxId") or ""
    return (
        all(word.lower() in message for word in wanted.words)
        and not (since and event.seq <= _seq(since))
        and not (before and event.seq >= _seq(before))
    )


def _number(query: Fields, name: str) -> int | None:
    """The number in an id; of an event of a job the job's."""
    text = (query.text(name) or "").partition(".")[0]
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise Refused(400, f"{name}: must be the id of an event.")
    return int(text)


def _seq(event_id: str) -> int:
    text = event_id.partition(".")[2]
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 18 else 0


async def event(call: Call, event_id: str) -> Response:
    """`GET /events/{id}`."""
    missing = NotFound(f"Event {event_id} not found", kind="event", id=event_id)
    first, _, rest = event_id.partition(".")
    if not (first.isascii() and first.isdigit() and len(first) <= 18):
        raise missing
    if not rest:
        found = await call.engine.event(int(first), project=call.project.id)
        return call.storage(documents.client_event(found, call.base))
    job = await _job_of_run(call, first)
    seq = _seq(event_id)
    if job is None or seq < 1:
        raise missing
    async for each in job.events(after=seq - 1, follow=False):
        return call.storage(documents.job_event(each, job.record, call.base))
    raise missing


async def table_events(call: Call, table: str) -> Response:
    """`GET /tables/{id}/events`: the storage jobs of a table that have ended."""
    call.check_bucket(table.rpartition(".")[0])
    await call.engine.storage.tables.table(call.scope, table)
    return await _done(call, table_id=table)


async def bucket_events(call: Call, bucket: str) -> Response:
    """`GET /buckets/{id}/events`: the storage jobs of its tables that have ended."""
    call.check_bucket(bucket)
    await call.engine.storage.tables.bucket(call.scope, bucket)
    return await _done(call, bucket_id=bucket)


async def _done(
    call: Call, *, table_id: str | None = None, bucket_id: str | None = None
) -> Response:
    query = OperationQuery(
        project=call.project.id,
        statuses=(OperationStatus.SUCCESS, OperationStatus.ERROR),
        limit=call.query.whole("limit", LIMIT, most=MOST),
        offset=call.query.whole("offset", 0, most=1 << 31),
        table_id=table_id,
        bucket_id=bucket_id,
    )
    found = await call.engine.operations.operations(query)
    return call.storage([documents.operation_event(each, call.base) for each in found])


_QUERY = {
    "runId": "Of this run, or of the job of this id, with its log",
    "component": "Component",
    "configurationId": "Configuration id",
    "q": "Words of the message; also component:, configurationId: and runId:",
    "sinceId": "After this event",
    "maxId": "Before this event",
    "limit": f"How many at most, {LIMIT} unless given",
    "offset": "How many to leave out",
}
_PAGE = {name: _QUERY[name] for name in ("limit", "offset")}

ROUTES = (
    Route(
        "POST",
        "/v2/storage/events",
        Access.READ,
        create,
        "Say what has happened",
        body="NewStorageEvent",
        answer="StorageEventCreated",
        status=201,
        branch=True,
    ),
    Route(
        "GET",
        "/v2/storage/events",
        Access.READ,
        events,
        "Events, newest first",
        query=_QUERY,
        answer="StorageEvent[]",
        branch=True,
    ),
    Route(
        "GET",
        "/v2/storage/events/<event_id>",
        Access.READ,
        event,
        "One event",
        answer="StorageEvent",
        branch=True,
    ),
    Route(
        "GET",
        "/v2/storage/tables/<table>/events",
        Access.READ,
        table_events,
        "What was done to a table by storage jobs",
        query=_PAGE,
        answer="StorageEvent[]",
        branch=True,
    ),
    Route(
        "GET",
        "/v2/storage/buckets/<bucket>/events",
        Access.READ,
        bucket_events,
        "What was done to the tables of a bucket by storage jobs",
        query=_PAGE,
        answer="StorageEvent[]",
        branch=True,
    ),
)
