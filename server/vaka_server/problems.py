"""The one table from errors to HTTP answers.

Four dialects exist because four families of clients do: the runner's (`/docker`, `/queue` and
everything else; runner.md section 1.4), Storage's (`/v2/storage` and our own `/vaka`; storage-api.md
section 1.5), that of the services beside Storage (storage-api.md section 13.4), which is Storage's with
a number as `code`, and that of the blob protocol (storage-api.md section 4.5), which its routes write
themselves. In all of them an answer of 500 and above tells nothing of what happened but an id, under
which the log has everything; an engine that is busy says so.
"""

from __future__ import annotations

import errno
import logging
import math
import re
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from werkzeug.exceptions import HTTPException, MethodNotAllowed
from werkzeug.exceptions import NotFound as NoSuchRoute

from vaka.errors import (
    AccessDenied,
    AuthenticationFailed,
    Conflict,
    DiskFull,
    EngineError,
    NotAllowed,
    NotFound,
    Overloaded,
    RuntimeUnavailable,
    StorageUnavailable,
    StoreUnavailable,
    UnderMaintenance,
    UserError,
    storage_code,
)

if TYPE_CHECKING:
    from vaka_server.body import Request

log = logging.getLogger(__name__)

CANNED = "Contact support@keboola.com and attach this exception id."
"""What the runner's clients read in place of an internal failure's own words."""
ACCESS_DENIED = "You don't have access to the resource."
INVALID_TOKEN = "Invalid access token"  # noqa: S105 - a sentence
Dialect = Literal["runner", "storage", "service", "blob"]
_DIALECTS: dict[str, Dialect] = {
    "/v2/storage": "storage",
    "/vaka": "storage",
    "/encryption": "service",
    "/sync-actions": "service",
    "/kbc.blob.core.windows.net": "blob",
}
"""How errors are told below a path, where the route does not say. Elsewhere: as the runner does."""


class Refused(UserError):
    """A request that is turned down with a status of its own; `code` is Storage's word for it."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        context: Mapping[str, Any] | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message, code=code)
        self.status = status
        self.context = context
        """Facts that the answer tells beside the message."""
        self.headers = headers or {}


class Maintenance(UserError):
    """The operator has closed the door for a while; the message is the reason."""


@dataclass(frozen=True, slots=True)
class Problem:
    """An error as it goes out: `message` is for the caller, `code` is Storage's word."""

    status: int
    message: str
    code: str


def new_exception_id() -> str:
    """A fresh name for one occurrence of a failure."""
    return f"docker-{secrets.token_hex(16)}"


def describe(error: BaseException) -> Problem:
    """What a caller is told of `error`."""
    match error:
        case Refused(status=status, message=message, code=code):
            return Problem(status, message, code or _code(status))
        case Maintenance(message=reason) | UnderMaintenance(message=reason):
            return Problem(503, reason, "maintenance")
        case AuthenticationFailed():
            return Problem(401, INVALID_TOKEN, "storage.tokenInvalid")
        case AccessDenied():
            return Problem(403, ACCESS_DENIED, "accessDenied")
        case NotAllowed(message=message, code=code):
            return Problem(405, message, code or "notAllowed")
        case NotFound(message=message):
            return Problem(404, message, storage_code(error))
        case Conflict(message=message):
            return Problem(409, message, storage_code(error))
        case Overloaded(message=message):
            return Problem(503, message, storage_code(error))
        case UserError(message=message):
            return Problem(400, message, storage_code(error))
        case NoSuchRoute() | MethodNotAllowed():
            return Problem(404, "Route not found", "notFound")
        case HTTPException(code=int(status), description=text) if 400 <= status < 500:
            return Problem(status, text or _code(status), _code(status))
        case HTTPException(code=501, description=text):
            return Problem(501, text or "Not implemented", "notImplemented")
        case DiskFull() | OSError(errno=errno.ENOSPC | errno.EDQUOT):
            return Problem(
                507, "The server's disk is full; nothing was stored.", "storage.diskFull"
            )
        case StoreUnavailable() | StorageUnavailable() | RuntimeUnavailable():
            return Problem(500, "The server cannot work now; see its readiness report.", "internal")
        case _:
            return Problem(500, "Internal error; attach the exception id.", "internal")


def body(error: BaseException, request: Request) -> tuple[dict[str, Any], int, dict[str, str]]:
    """The JSON body, status and extra headers that answer `request` after `error`; logs it too."""
    problem = describe(error)
    exception_id = new_exception_id()
    _record(error, problem, exception_id)
    headers = dict(error.headers) if isinstance(error, Refused) else {}
    if isinstance(error, Overloaded):
        headers["Retry-After"] = f"{math.ceil(error.retry_after)}"
    dialect = request.dialect or path_dialect(request.routed_path)
    if dialect == "runner":
        return _runner(error, problem, exception_id, request), problem.status, headers
    document = _storage(problem, exception_id)
    if isinstance(error, Refused) and error.context is not None:
        document["context"] = dict(error.context)
    if dialect == "service":
        document = {**document, "code": problem.status}
        document.setdefault("context", {})
    return document, problem.status, headers


def path_dialect(path: str) -> Dialect:
    """How errors are told below `path` by routes that do not say."""
    for prefix, dialect in _DIALECTS.items():
        if path.startswith(prefix) and path[len(prefix) : len(prefix) + 1] in {"", "/"}:
            return dialect
    return "runner"


@contextmanager
def conflict_is(status: int, code: str) -> Iterator[None]:
    """Within it, a `Conflict` goes out with this status, and Storage's word unless it has its own."""
    try:
        yield
    except Conflict as error:
        raise Refused(status, error.message, code=error.code or code) from error


def run_id_number(header: str | None) -> int:
    """The run id of an error body: the integer that a run id starts with, 0 without one."""
    match = re.match(r"\s*([+-]?[0-9]{1,18})", header or "")
    return int(match[1]) if match else 0


def _runner(
    error: BaseException, problem: Problem, exception_id: str, request: Request
) -> dict[str, Any]:
    title, message = "User error", problem.message
    if isinstance(error, Maintenance | UnderMaintenance):
        title, message = "Project is disabled", f"Project is disabled - {problem.message}"
    elif isinstance(error, AuthenticationFailed):
        message = "Invalid StorageApi Token"
    elif problem.status >= 500:
        title = "Application error"
        is_told = problem.status == 501 or isinstance(error, Overloaded)
        message = problem.message if is_told else CANNED
    return {
        "status": "error",
        "error": title,
        "code": problem.status,
        "message": message,
        "exceptionId": exception_id,
        "runId": run_id_number(request.headers.get("X-KBC-RunId")),
    }


def _storage(problem: Problem, exception_id: str) -> dict[str, Any]:
    if problem.code == "maintenance":
        return {
            "status": "maintenance",
            "reason": problem.message,
            "error": problem.message,
            "code": problem.code,
            "exceptionId": exception_id,
        }
    return {
        "error": problem.message,
        "code": problem.code,
        "exceptionId": exception_id,
        "status": "error",
    }


def _record(error: BaseException, problem: Problem, exception_id: str) -> None:
    fields = {
        "exception_id": exception_id,
        "status": problem.status,
        "error": type(error).__name__,
        "detail": error.message if isinstance(error, EngineError) else str(error),
    }
    if problem.status >= 500 and not isinstance(
        error, Refused | Maintenance | UnderMaintenance | Overloaded
    ):
        log.error("request.failed", extra=fields, exc_info=error)
    else:
        log.info("request.refused", extra=fields)


def _code(status: int) -> str:
    return {
        400: "storage.validation",
        401: "storage.tokenInvalid",
        403: "accessDenied",
        404: "notFound",
        408: "requestTimeout",
        413: "requestTooLarge",
        501: "notImplemented",
    }.get(status, "error")
