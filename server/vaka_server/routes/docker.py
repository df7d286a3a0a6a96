"""Creating jobs: `/docker/{component}/run` and `debug` (runner.md sections 1.5 to 1.7)."""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import SecretStr

from vaka.errors import InvalidInput, NotFound
from vaka.models.job import ActionSpec, JobSpec, Mode
from vaka_server.access import Access, check_component
from vaka_server.documents import job_url
from vaka_server.problems import Refused
from vaka_server.requests import job_spec
from vaka_server.route import Call, Response, Route

S = TypeVar("S", ActionSpec, JobSpec)

RUN_ID_LENGTH = 200
KEY_LENGTH = 200


async def run(call: Call, component: str) -> Response:
    """`POST /docker/{component}/run`."""
    return await _create(call, component, Mode.RUN, None)


async def run_tag(call: Call, component: str, tag: str) -> Response:
    """`POST /docker/{component}/run/tag/{tag}`."""
    return await _create(call, component, Mode.RUN, tag)


async def debug(call: Call, component: str) -> Response:
    """`POST /docker/{component}/debug`: a job that stores snapshots, and no outputs."""
    return await _create(call, component, Mode.DEBUG, None)


async def run_nothing(call: Call) -> Response:  # noqa: ARG001 - the route's signature
    """`POST /docker/run`: there is no component to run."""
    raise InvalidInput(
        "This api call without component name is not supported, perhaps you wanted to call "
        "/{component}/run"
    )


async def _create(call: Call, component: str, mode: Mode, tag: str | None) -> Response:
    """Check in the order of runner.md section 1.6.2, submit, answer 202."""
    given = members(await call.json())
    check_component(call.token, component)
    try:
        await call.gate.component(component)
    except NotFound as error:
        raise InvalidInput(f"Component '{component}' not found.") from error
    spec = job_spec(given, component, mode, tag)
    spec = of_caller(
        call,
        spec,
        parent_run_id=header(call, "X-KBC-RunId", RUN_ID_LENGTH),
        idempotency_key=header(call, "Idempotency-Key", KEY_LENGTH),
    )
    job = await call.engine.submit(spec)
    return call.runner(
        {
            "id": str(job.id),
            "url": job_url(call.base, job.id),
            "status": job.record.status.value,
        },
        202,
    )


def of_caller(call: Call, spec: S, **others: Any) -> S:
    """A job or an action that the caller asks for, with `others` of its members set."""
    token = call.token
    if isinstance(
        spec, JobSpec
    ):  # what a job may is what its token may now, whatever becomes of it
        others["buckets"] = None if (given := token.bucket_permissions) is None else dict(given)
        others["reads_all_files"] = token.can_read_all_file_uploads
    return spec.model_copy(
        update={
            "project": token.project.id,
            "token_id": token.id,
            "token_description": token.description,
            "token": SecretStr(call.secret or ""),
            **others,
        }
    )


def members(value: Any) -> dict[str, Any]:
    """A body's members; a list counts by its indexes, and a scalar has none."""
    if isinstance(value, dict):
        value.pop("component", None)
        return value
    if isinstance(value, list):
        return {str(index): member for index, member in enumerate(value)}
    return {}


def header(call: Call, name: str, length: int) -> str | None:
    """A header's value; `Refused` when it is longer than it may be, or no text."""
    value = call.request.headers.get(name)
    if value is not None and not (len(value) <= length and value.isprintable()):
        raise Refused(400, f"The header {name} must be printable, at most {length} characters.")
    return value or None


_BODY = "RunRequest"

ROUTES = (
    Route(
        "POST",
        "/docker/run",
        Access.READ,
        run_nothing,
        "Always refused: a job needs a component",
        body=_BODY,
        status=400,
    ),
    Route(
        "POST",
        "/docker/<component>/run",
        Access.RUN,
        run,
        "Create a job",
        body=_BODY,
        answer="JobCreated",
        status=202,
    ),
    Route(
        "POST",
        "/docker/<component>/run/tag/<tag>",
        Access.RUN,
        run_tag,
        "Create a job that runs another tag of the component's image",
        body=_BODY,
        answer="JobCreated",
        status=202,
    ),
    Route(
        "POST",
        "/docker/<component>/debug",
        Access.RUN,
        debug,
        "Create a job that stores snapshots of its data folder, and none of its outputs",
        body=_BODY,
        answer="JobCreated",
        status=202,
    ),
)
