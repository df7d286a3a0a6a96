"""The queue as newer clients know it (storage-api.md section 13).

Jobs are the same as those of `/docker/{component}/run`; what is different is how they are asked for and
shown.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, TypeVar, cast

from vaka import Job
from vaka.errors import Conflict, InvalidInput, NotFound
from vaka.models.job import JobQuery, JobRecord, Mode, Status
from vaka_server import documents
from vaka_server.access import Access
from vaka_server.fields import Fields
from vaka_server.problems import Refused
from vaka_server.requests import job_spec
from vaka_server.route import Call, Response, Route, absent
from vaka_server.routes.docker import RUN_ID_LENGTH, header, of_caller

T = TypeVar("T")

LIMIT = 100
MOST = 500
GROUPS = 100
JOBS_OF_A_GROUP = 50
LARGEST_ID = (1 << 63) - 1
SORT_FIELDS = {
    "id": "id",
    "runId": "run_id",
    "projectId": "id",
    "branchId": "branch",
    "componentId": "component",
    "configId": "config",
    "tokenDescription": "token_description",
    "status": "status",
    "createdTime": "created",
    "updatedTime": "created",
    "startTime": "started",
    "endTime": "ended",
    "durationSeconds": "duration",
}
"""What a client may sort by, and the engine's word for it."""
MEMBERS = (
    *("config", "configData", "configRowIds", "branchId", "parallelism"),
    *("variableValuesId", "variableValuesData", "snapshotFormat"),
)
"""Members of a body that mean here what they mean to `/docker/{component}/run`."""
SIZES = ("xsmall", "small", "medium", "large")


# -- creating --------------------------------------------------------------------------------------


async def create(call: Call) -> Response:
    """`POST /queue/jobs`."""
    given = await call.json()
    if not isinstance(given, dict):
        raise InvalidInput("The request's body must be a JSON object.")
    component = given.get("component")
    if not isinstance(component, str) or not component:
        raise InvalidInput('Invalid value for path "job.component": it must name a component.')
    call.check_component(component)
    try:
        await call.gate.component(component)
    except NotFound as error:
        raise NotFound(
            f'Component "{component}" was not found.', kind="component", id=component
        ) from error
    mode = _mode(given.get("mode"))
    spec = job_spec(
        _members(given, await _default_branch(call)), component, mode, _tag(given.get("tag"))
    )
    if spec.config is not None and spec.config_data is None:
        # told at once, and not by a job that fails
        await call.engine.catalog.configuration(
            call.project.id, component, spec.config, branch=spec.branch
        )
    backend = given.get("backend")
    size = backend.get("containerType") if isinstance(backend, dict) else None
    orchestration = given.get("orchestrationJobId")
    spec = of_caller(
        call,
        spec,
        parent_run_id=_parent(given) or header(call, "X-KBC-RunId", RUN_ID_LENGTH),
        idempotency_key=header(call, "Idempotency-Key", RUN_ID_LENGTH),
        skip_disabled=mode is Mode.RUN,
        container_type=size if size in SIZES else None,
        orchestration=None if orchestration in (None, "") else _word(orchestration),
    )
    job = await call.engine.submit(spec)
    document = await _document(call, job.record)
    # however far it has come meanwhile
    return call.storage({**document, "status": "created"}, 201)


def _members(given: Mapping[str, Any], default_branch: str) -> dict[str, Any]:
    members = {name: given[name] for name in MEMBERS if given.get(name) is not None}
    if members.get("config") == "":
        del members["config"]
    if "config" in members and members.get("configData") in ([], {}):
        del members["configData"]  # some clients send every member, empty
    if str(members.get("branchId", "")) in {"", default_branch}:
        members.pop("branchId", None)
    return members


def _mode(value: Any) -> Mode:
    if value in (None, ""):
        return Mode.RUN
    if value not in [mode.value for mode in Mode]:
        words = ", ".join(f'"{mode.value}"' for mode in Mode)
        raise InvalidInput(f'Invalid value for path "job.mode": permissible values are {words}.')
    return Mode(value)


def _tag(value: Any) -> str | None:
    if value in (None, ""):
        return None
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise InvalidInput('Invalid type for path "job.tag": it must be a text.')
    return str(value)


def _parent(given: Mapping[str, Any]) -> str | None:
    value = given.get("parentRunId")
    if value in (None, ""):
        return None
    text = str(value)
    if not isinstance(value, str | int) or len(text) > RUN_ID_LENGTH or not text.isprintable():
        raise InvalidInput(
            'Invalid value for path "job.parentRunId": it must be printable, '
            f"at most {RUN_ID_LENGTH} characters."
        )
    return text


def _word(value: Any) -> str:
    text = str(value)
    plain = text.replace("-", "").replace("_", "").replace(".", "")
    if not (plain.isascii() and plain.isalnum() and len(text) <= 100):
        raise InvalidInput('Invalid value for path "job.orchestrationJobId": it must be an id.')
    return text


# -- one job ---------------------------------------------------------------------------------------


async def job(call: Call, job_id: str) -> Response:
    """`GET /queue/jobs/{id}`."""
    return call.storage(await _document(call, (await _job(call, job_id)).record))


async def kill(call: Call, job_id: str) -> Response:
    """`POST /queue/jobs/{id}/kill`."""
    found = await _job(call, job_id)
    call.check_component(found.record.component)
    refusal = InvalidInput(
        f'Job "{job_id}" is in the status "{found.record.status.value}", and not in one of killable '
        'states "created", "waiting", "processing".'
    )
    if found.record.status not in {Status.WAITING, Status.PROCESSING}:
        raise refusal
    try:
        record = await found.cancel({"id": call.token.id, "description": call.token.description})
    except Conflict as error:
        raise refusal from error
    return call.storage(await _document(call, record), 202)


async def _job(call: Call, text: str) -> Job:
    """The job of this id in the caller's project; ids that cannot be are not there."""
    missing = NotFound(f'Job "{text}" not found', kind="job", id=text)
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise missing
    try:
        return await call.engine.job(int(text), project=call.project.id)
    except NotFound as error:
        raise missing from error


# -- many jobs -------------------------------------------------------------------------------------


async def search(call: Call) -> Response:
    """`GET /queue/search/jobs`, and `GET /queue/jobs`."""
    query = await job_query(call, call.query)
    if query is None:
        return call.storage([])
    return call.storage(await _documents(call, await call.engine.jobs(query)))


async def grouped(call: Call) -> Response:
    """`GET /queue/search/grouped-jobs`: the newest jobs of each configuration."""
    given = call.query
    by = given.words("groupBy")
    if not set(by) <= {"componentId", "configId"}:
        raise Refused(400, "groupBy: must be componentId and configId.")
    per_group = given.whole("jobsPerGroup", 1, least=1, most=JOBS_OF_A_GROUP)
    query = await job_query(call, Fields(given.mapping("filters")))
    if query is None:
        return call.storage([])
    query = replace(
        _ordered(query, given),
        limit=given.whole("limit", GROUPS, most=GROUPS),
        offset=given.whole("offset", 0, most=1 << 31),
    )
    groups = []
    for component, config in await call.engine.job_groups(query):
        of_group = replace(
            query, components=(component,), configs=(config or "",), limit=per_group, offset=0
        )
        jobs = await _documents(call, await call.engine.jobs(of_group))
        groups.append({"group": {"componentId": component, "configId": config}, "jobs": jobs})
    return call.storage(groups)


async def job_query(call: Call, given: Fields) -> JobQuery | None:
    """What a search is asked for; None when nothing can match."""
    default_branch = await _default_branch(call)
    try:
        query = JobQuery(
            project=call.project.id,
            ids=_each(given, ("id",), _id),
            run_ids=_each(given, ("runId",), str),
            parent_run_ids=_texts(given, "parentRunId"),
            branches=_each(
                given,
                ("branchId",),
                lambda word: "" if word in {"default", "null", default_branch} else word,
            ),
            token_ids=_each(given, ("tokenId",), str),
            components=_each(given, ("componentId", "component"), str),
            configs=_each(given, ("configId", "config"), str),
            rows=_each(given, ("configRowIds",), str),
            modes=_each(given, ("mode",), Mode),
            statuses=_each(given, ("status",), _status),
            least_seconds=given.whole("durationSecondsFrom", None, most=LARGEST_ID),
            most_seconds=given.whole("durationSecondsTo", None, most=LARGEST_ID),
            created_since=given.moment("createdTimeFrom"),
            created_until=given.moment("createdTimeTo"),
            started_since=given.moment("startTimeFrom"),
            started_until=given.moment("startTimeTo"),
            ended_since=given.moment("endTimeFrom"),
            ended_until=given.moment("endTimeTo"),
            limit=given.whole("limit", LIMIT, most=MOST),
            offset=given.whole("offset", 0, most=1 << 31),
        )
    except _NothingMatches:
        return None
    kinds = given.words("type")
    if kinds and documents.JOB_TYPE not in kinds:
        return None
    return _ordered(query, given)


class _NothingMatches(Exception):
    """No value of a filter is one that a job can have."""


def _each(given: Fields, names: tuple[str, ...], parse: Callable[[str], T | None]) -> tuple[T, ...]:
    """The values of a filter that can be; raises `_NothingMatches` when it has only others."""
    words = [word for name in dict.fromkeys(names) for word in given.words(name)]
    found = []
    for word in words:
        try:
            value = parse(word)
        except ValueError:
            continue
        if value is not None:
            found.append(value)
    if words and not found:
        raise _NothingMatches
    return tuple(dict.fromkeys(found))


def _texts(given: Fields, name: str) -> tuple[str, ...]:
    """The values of a filter where an empty one has a meaning."""
    return tuple(dict.fromkeys(given.texts(name)))


def _id(word: str) -> int | None:
    return int(word) if word.isascii() and word.isdigit() and len(word) <= 18 else None


def _status(word: str) -> Status:
    return Status.WAITING if word == "created" else Status(word)


def _ordered(query: JobQuery, given: Fields) -> JobQuery:
    field = given.text("sortBy") or "id"
    if field not in SORT_FIELDS:
        raise Refused(400, f"sortBy: must be one of {', '.join(SORT_FIELDS)}.")
    direction = (given.text("sortOrder") or "desc").lower()
    if direction not in {"asc", "desc"}:
        raise Refused(400, "sortOrder: must be asc or desc.")
    return replace(query, order_by=cast("Any", SORT_FIELDS[field]), descending=direction == "desc")


async def project_stats(call: Call) -> Response:
    """`GET /queue/stats/project`."""
    seconds = await call.engine.run_seconds(call.project.id)
    return call.storage({"jobs": {"durationSum": seconds}})


# -- documents -------------------------------------------------------------------------------------


async def _document(call: Call, record: JobRecord) -> documents.Document:
    (document,) = await _documents(call, [record])
    return document


async def _documents(call: Call, records: list[JobRecord]) -> list[documents.Document]:
    branch, base = await _default_branch(call), call.service_url("queue")
    return [
        documents.queue_job(each, call.project, base, default_branch=branch) for each in records
    ]


async def _default_branch(call: Call) -> str:
    """Id of the project's default branch."""
    branches = await call.engine.catalog.branches(call.project.id)
    return next(each.id for each in branches if each.is_default)


_FILTERS = {
    "id": "Job ids",
    "runId": "Run ids",
    "parentRunId": "Run ids of parents; an empty one: of none",
    "componentId": "Component ids; also component",
    "configId": "Configuration ids; also config",
    "configRowIds": "Row ids",
    "branchId": "Branch ids",
    "tokenId": "Token ids",
    "mode": "run, forceRun or debug, or several",
    "status": "Status, or several",
    "createdTimeFrom": "Created then or later; also startTime, endTime, and To in place of From",
    "durationSecondsFrom": "Ran so long or longer; also durationSecondsTo",
    "limit": f"How many at most, {LIMIT} unless given",
    "offset": "How many to leave out",
    "sortBy": f"One of {', '.join(SORT_FIELDS)}",
    "sortOrder": "desc, or asc",
}

ROUTES = (
    Route(
        "POST",
        "/queue/jobs",
        Access.RUN,
        create,
        "Create a job",
        body="NewQueueJob",
        answer="QueueJob",
        status=201,
        dialect="service",
    ),
    Route(
        "GET",
        "/queue/jobs",
        Access.READ,
        search,
        "Search jobs, by its other path",
        query=_FILTERS,
        answer="QueueJob[]",
        dialect="service",
    ),
    Route(
        "GET",
        "/queue/jobs/<job_id>",
        Access.READ,
        job,
        "One job",
        answer="QueueJob",
        dialect="service",
    ),
    Route(
        "POST",
        "/queue/jobs/<job_id>/kill",
        Access.RUN,
        kill,
        "Ask a job to end",
        answer="QueueJob",
        status=202,
        dialect="service",
    ),
    Route(
        "GET",
        "/queue/search/jobs",
        Access.READ,
        search,
        "Search jobs, newest first",
        query=_FILTERS,
        answer="QueueJob[]",
        dialect="service",
    ),
    Route(
        "GET",
        "/queue/search/grouped-jobs",
        Access.READ,
        grouped,
        "The newest jobs of each configuration",
        query={
            "groupBy[]": "componentId and configId",
            "jobsPerGroup": "Jobs of each at most, 1 unless given",
            "filters[createdTimeFrom]": "As in a search; so are the other filters",
            "limit": "Groups at most",
            "offset": "Groups to leave out",
            "sortBy": "As in a search",
            "sortOrder": "desc, or asc",
        },
        answer="JobGroup[]",
        dialect="service",
    ),
    Route(
        "GET",
        "/queue/stats/project",
        Access.READ,
        project_stats,
        "Seconds that the project's jobs ran",
        answer="ProjectStatistics",
        dialect="service",
    ),
    absent("GET", "/queue/job/<job_id>/open-api-lineage", "Lineage of jobs", dialect="service"),
)
