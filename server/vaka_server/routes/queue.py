"""The job queue as older clients know it (runner.md section 1.11), and what happened in a job.

The paths of newer clients, which begin with `/queue/jobs`, are in `queue_api`.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, cast

import trio
from quart.wrappers.response import ResponseBody

from vaka import Job
from vaka.errors import Conflict, InvalidInput, NotFound
from vaka.models.event import Event
from vaka.models.job import JobQuery, Status
from vaka_server import documents
from vaka_server.access import Access, check_component
from vaka_server.route import Call, Response, Route

if TYPE_CHECKING:
    from vaka_server.app import Followers

SORT_FIELDS: dict[str, str] = {
    "id": "id",
    "status": "status",
    "params.component": "component",
    "params.config": "config",
    "createdTime": "created",
    "startTime": "started",
    "endTime": "ended",
    "durationSeconds": "duration",
}
"""What a client may sort by, and the engine's word for it."""
LIMIT = 100
MOST = 10_000
KEEP_ALIVE = 15.0
"""Seconds of silence after which a stream of server-sent events says that it is there."""
BATCH = 1 << 16
"""Bytes of past events that are sent at a time."""


async def job(call: Call, job_id: str) -> Response:
    """`GET /queue/job/{id}`."""
    found = await _job(call, job_id)
    include = call.words("include")
    waits_for = await call.engine.waits_for(found.record) if "stages" in include else None
    return call.runner(
        documents.job(found.record, call.project, call.base, include=include, waits_for=waits_for)
    )


async def jobs(call: Call) -> Response:
    """`GET /queue/job`."""
    query = job_query(call)
    records = [] if query is None else await call.engine.jobs(query)
    include = call.words("include")
    return call.runner(
        [documents.job(record, call.project, call.base, include=include) for record in records]
    )


def job_query(call: Call) -> JobQuery | None:
    """What a list is asked for; None when nothing can match."""
    service = call.text("component")
    if service is not None and service != documents.SERVICE:
        return None
    statuses = [word for name in call.words("status") if (word := _status(name)) is not None]
    if call.words("status") and not statuses:
        return None
    since = call.moment("since")
    query = JobQuery(
        project=call.project.id,
        statuses=tuple(statuses),
        component=call.text("params.component"),
        config=call.text("params.config"),
        run_id=call.text("runId"),
        created_since=since,
        # an end without a beginning has never had an effect
        created_until=None if since is None else call.moment("until"),
        limit=call.whole("limit", LIMIT, most=MOST),
        offset=call.whole("offset", 0, most=1 << 31),
        search=call.text("q"),
    )
    field = call.text("sortField")
    if field is None:
        return query
    if field not in SORT_FIELDS:
        raise InvalidInput(
            f"Sort field '{field}' is not allowed. Allowed fields are '{','.join(SORT_FIELDS)}'"
        )
    direction = (call.text("sortDirection") or "asc").lower()
    if direction not in {"asc", "desc"}:
        raise InvalidInput("Parameter 'sortDirection' must be asc or desc.")
    return replace(query, order_by=cast("Any", SORT_FIELDS[field]), descending=direction == "desc")


async def kill(call: Call, job_id: str) -> Response:
    """`POST /queue/job/{id}/kill`."""
    found = await _job(call, job_id)
    check_component(call.token, found.record.component)
    try:
        await found.cancel({"id": call.token.id, "description": call.token.description})
    except Conflict as error:
        raise InvalidInput("Job is not in a killable state") from error
    return call.runner({"message": "job termination request accepted for processing"}, 202)


async def error_note(call: Call, job_id: str) -> Response:
    """`PUT /queue/jobs/{id}/error-note`."""
    found = await _job(call, job_id)
    check_component(call.token, found.record.component)
    given = await call.json()
    note = given.get("errorNote") if isinstance(given, dict) else None
    if not isinstance(note, str):
        raise InvalidInput("Specify 'errorNote'.")
    record = await call.engine.set_error_note(found.id, note, project=call.project.id)
    return call.runner(documents.job(record, call.project, call.base))


async def events(call: Call, job_id: str) -> Response:
    """`GET /queue/jobs/{id}/events`: JSON lines, or server-sent events."""
    found = await _job(call, job_id)
    sent = "text/event-stream" in call.request.headers.get("Accept", "")
    after = call.whole("after", 0, most=1 << 53)
    last = call.request.headers.get("Last-Event-ID", "")
    if sent and last.isascii() and last.isdigit():
        after = int(last[:16])
    follow = call.flag("follow", default=sent)
    if sent and follow and found.record.status.is_finished and not await _has_more(found, after):
        # a browser that was told everything comes back for more, until it is told that there is none
        return Response(b"", 204)
    stream = EventStream(
        found,
        call.app.followers,
        after=after,
        follow=follow,
        kinds=frozenset(call.words("kind")),
        form="sse" if sent else "lines",
    )
    kind = "text/event-stream" if sent else "application/x-ndjson"
    return Response(stream, 200, content_type=kind)


async def log(call: Call, job_id: str) -> Response:
    """`GET /queue/jobs/{id}/log`: what the job's containers said, as text."""
    found = await _job(call, job_id)
    wanted = call.text("stream")
    if wanted not in {None, "stdout", "stderr"}:
        raise InvalidInput("Parameter 'stream' must be stdout or stderr.")
    stream = EventStream(
        found,
        call.app.followers,
        after=0,
        follow=call.flag("follow"),
        kinds=frozenset({"log"}),
        form="timed text" if call.flag("timestamps") else "text",
        stream=wanted,
    )
    headers = {"Content-Disposition": f'attachment; filename="job-{found.id}.log"'}
    return Response(stream, 200, headers, content_type="text/plain; charset=utf-8")


class EventStream(ResponseBody):
    """A job's events as bytes: what is there in batches, then what comes as soon as it does.

    Nothing is read ahead of the client: one that is slow gets its events later, in larger parts.
    """

    def __init__(
        self,
        job: Job,
        followers: Followers,
        *,
        after: int,
        follow: bool,
        kinds: frozenset[str],
        form: Literal["lines", "sse", "text", "timed text"],
        stream: str | None = None,
    ) -> None:
        self._job = job
        self._followers = followers
        self._after = after
        self._follow = follow
        self._kinds = kinds
        self._form = form
        self._stream = stream
        self._past = True
        self._events: AsyncIterator[Event] = job.events(after=after, follow=False)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        await self._close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        if self._past:
            batch = await self._batch()
            if batch or not self._follow:
                if not batch:
                    raise StopAsyncIteration
                return batch
            self._past = False
            await self._restart()
        data = await self._live()
        if not self._past:
            return data
        # there may be many by now
        await self._close()
        self._events = self._job.events(after=self._after, follow=False)
        return data

    async def _batch(self) -> bytes:
        """What is there now, as much as is sent at a time."""
        lines: list[bytes] = []
        size = 0
        async for event in self._events:
            if not self._wanted(event):
                continue
            lines.append(self._render(event))
            size += len(lines[-1])
            if size >= BATCH:
                break
        return b"".join(lines)

    async def _live(self) -> bytes:
        limit = KEEP_ALIVE if self._form == "sse" else math.inf
        with self._followers.wait(), trio.move_on_after(limit):
            data = self._render(await self._next())
            self._past = True
            return data
        if self._followers.is_dismissed:
            raise StopAsyncIteration  # who follows comes back, and goes on where this ends
        await self._restart()  # the cancelled iterator has ended
        return b":\n\n"

    async def _next(self) -> Event:
        while True:
            event = await anext(self._events)
            if self._wanted(event):
                return event

    def _wanted(self, event: Event) -> bool:
        self._after = event.seq
        if self._stream is not None and event.stream != self._stream:
            return False
        return not self._kinds or event.kind in self._kinds

    def _render(self, event: Event) -> bytes:
        if self._form == "text":
            return f"{event.message}\n".encode("utf-8", "replace")
        if self._form == "timed text":
            return f"{event.time.isoformat()} {event.message}\n".encode("utf-8", "replace")
        line = event.to_json()
        if self._form == "lines":
            return f"{line}\n".encode("utf-8", "replace")
        return f"id: {event.seq}\nevent: {event.kind}\ndata: {line}\n\n".encode("utf-8", "replace")

    async def _restart(self) -> None:
        await self._close()
        self._events = self._job.events(after=self._after, follow=True)

    async def _close(self) -> None:
        await _close(self._events)


async def _close(events: AsyncIterator[Event]) -> None:
    close = getattr(events, "aclose", None)
    if close is not None:
        await close()


async def _has_more(job: Job, after: int) -> bool:
    """Whether a job has an event after this one now."""
    events = job.events(after=after, follow=False)
    try:
        return await anext(events, None) is not None
    finally:
        await _close(events)


async def _job(call: Call, text: str) -> Job:
    """The job of this id in the caller's project; ids that cannot be are not there."""
    if text.isascii() and text.isdigit() and len(text) <= 18:
        try:
            return await call.engine.job(int(text), project=call.project.id)
        except NotFound as error:
            raise NotFound("Job not found", kind="job", id=text) from error
    raise NotFound("Job not found", kind="job", id=text)


def _status(word: str) -> Status | None:
    try:
        return Status(word)
    except ValueError:
        return None


_INCLUDE = {"include": "More members, comma separated: metrics, stages"}

ROUTES = (
    Route(
        "GET",
        "/queue/job",
        Access.READ,
        jobs,
        "List jobs, newest first",
        query={
            "component": "Service, always docker",
            "params.component": "Component id",
            "params.config": "Configuration id",
            "status": "Status, or several",
            "runId": "Run id, exactly",
            "since": "Created then or later: an ISO date or '-1 day'",
            "until": "Created then or earlier; only together with since",
            "offset": "How many to leave out",
            "limit": f"How many at most, {LIMIT} unless given",
            "sortField": f"One of {', '.join(SORT_FIELDS)}",
            "sortDirection": "asc or desc",
            "q": "A query such as params.component:C -status:success durationSeconds:>120",
            **_INCLUDE,
        },
        answer="Job[]",
    ),
    Route(
        "GET",
        "/queue/job/<job_id>",
        Access.READ,
        job,
        "One job",
        query=_INCLUDE,
        answer="Job",
    ),
    Route(
        "POST",
        "/queue/job/<job_id>/kill",
        Access.RUN,
        kill,
        "Ask a job to end",
        answer="Message",
        status=202,
    ),
    Route(
        "PUT",
        "/queue/jobs/<job_id>/error-note",
        Access.RUN,
        error_note,
        "Keep a note with a job",
        body="ErrorNote",
        answer="Job",
    ),
    Route(
        "GET",
        "/queue/jobs/<job_id>/events",
        Access.READ,
        events,
        "What happened in a job, one JSON object a line; server-sent events when asked for",
        query={
            "after": "Leave out this many events from the first on",
            "kind": "Only of these kinds, comma separated",
            "follow": "1: go on with what happens until the job has ended",
        },
        answer="application/x-ndjson",
    ),
    Route(
        "GET",
        "/queue/jobs/<job_id>/log",
        Access.READ,
        log,
        "All that the job's containers said, as text",
        query={
            "stream": "Only standard output or only standard error: stdout or stderr",
            "timestamps": "1: begin each line with its time",
            "follow": "1: go on with what is said until the job has ended",
        },
        answer="text/plain",
    ),
)
