"""From whatever the tasks of a job raise to exactly one verdict."""

from __future__ import annotations

import errno
import secrets
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from vaka.errors import (
    ApplicationError,
    CipherRefused,
    ComponentCrashed,
    ContainerFailed,
    ContainerLost,
    DeadlineExceeded,
    DiskFull,
    ImageUnavailable,
    InvalidDefinition,
    InvalidInput,
    MappingFailed,
    NotFound,
    OutOfMemory,
    RuntimeUnavailable,
    StorageUnavailable,
    StoreUnavailable,
    UserError,
)
from vaka.models.job import Cause, CauseKind

INTERNAL_ERROR = "Internal error occurred, please contact support@keboola.com"
"""What an author sees of a failure that is not theirs (runner.md section 2.4)."""
SIGNALLED = 128
"""Exit codes above this are 128 and the signal that ended the process."""
NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})


@dataclass(frozen=True, slots=True)
class Verdict:
    """One failure, told to its audiences: `message` for the author, `detail` for the operator."""

    error: Literal["user", "application"]
    message: str
    detail: str
    exception_id: str
    cause: Cause

    def map(self, change: Callable[[Any], Any]) -> Verdict:
        """The same verdict, `change` applied to every text in it."""
        return replace(
            self,
            message=change(self.message),
            detail=change(self.detail),
            cause=Cause(self.cause.kind, change(dict(self.cause.evidence))),
        )

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Verdict:
        cause = document["cause"]
        return cls(**{**document, "cause": Cause(CauseKind(cause["kind"]), cause["evidence"])})


def leaves(error: BaseException) -> Iterator[BaseException]:
    """The errors in a group, however deep, in the order they were raised; an error bare itself."""
    if isinstance(error, BaseExceptionGroup):
        for child in error.exceptions:
            yield from leaves(child)
    else:
        yield error


def new_exception_id() -> str:
    """A fresh name for one occurrence of a failure."""
    return f"docker-{secrets.token_hex(16)}"


def verdict(faults: Sequence[BaseException]) -> Verdict:
    """The one failure that a job is said to have died of.

    Our own fault outranks the author's: a bug among five user errors is an application error.
    """
    fault = next((each for each in faults if not isinstance(each, UserError)), faults[0])
    user = isinstance(fault, UserError)
    detail = str(fault) or repr(fault)
    if isinstance(fault, CipherRefused):
        detail = f"Encryption error: {detail}"
    if not isinstance(fault, UserError | ApplicationError):
        detail = f"{type(fault).__name__}: {detail}"
    return Verdict(
        error="user" if user else "application",
        message=detail if user else INTERNAL_ERROR,
        detail=detail,
        exception_id=new_exception_id(),
        cause=_cause(fault),
    )


def is_for_want_of_room(fault: BaseException) -> bool:
    """Whether the system said, here or where it comes from, that a disk is full."""
    cause: BaseException | None = fault
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno in NO_ROOM:
            return True
        cause = cause.__cause__
    return False


def _cause(fault: BaseException) -> Cause:
    match fault:
        case OutOfMemory(limit=limit, peak=peak, stderr_tail=tail):
            evidence: dict[str, Any] = {
                "limit_bytes": limit,
                "peak_bytes": peak,
                "stderr_tail": tail,
            }
            return Cause(CauseKind.OUT_OF_MEMORY, evidence)
        case DeadlineExceeded(seconds=seconds, setting=setting, stderr_tail=tail):
            evidence = {"seconds": seconds, "setting": setting, "stderr_tail": tail}
            return Cause(CauseKind.TIMEOUT, evidence)
        case ContainerFailed():
            return _ended(fault, CauseKind.USER_ERROR)
        case ComponentCrashed():
            return _ended(fault, CauseKind.APPLICATION_ERROR)
        case ImageUnavailable(reference=reference):
            return Cause(
                CauseKind.IMAGE_UNAVAILABLE, {"reference": reference, "detail": str(fault)}
            )
        case ContainerLost(name=name):
            return Cause(CauseKind.CONTAINER_LOST, {"container": name})
        case RuntimeUnavailable(exit_code=code):
            evidence = {"detail": str(fault)}
            return Cause(
                CauseKind.RUNTIME_LOST, evidence if code is None else evidence | {"exit_code": code}
            )
        case OSError() if is_for_want_of_room(fault):
            where = "" if fault.filename is None else f" that {fault.filename} is on"
            return Cause(
                CauseKind.STORAGE, {"detail": f"The disk{where} is full: free some of it."}
            )
        case ApplicationError() if is_for_want_of_room(fault):
            return Cause(
                CauseKind.STORAGE, {"detail": f"{fault} The disk is full: free some of it."}
            )
        case StoreUnavailable() | MappingFailed() | StorageUnavailable() | DiskFull():
            return Cause(CauseKind.STORAGE, {"detail": str(fault)})
        case CipherRefused(paths=paths):
            evidence = {"detail": str(fault), "paths": list(paths)}
            return Cause(CauseKind.CONFIGURATION, evidence)
        case InvalidDefinition() | InvalidInput() | NotFound():
            return Cause(CauseKind.CONFIGURATION, {"detail": str(fault)})
        case UserError():
            return Cause(CauseKind.USER_ERROR, {"detail": str(fault)})
        case ApplicationError():
            return Cause(CauseKind.APPLICATION_ERROR, {"detail": str(fault)})
        case _:
            return Cause(CauseKind.INTERNAL, {"error": type(fault).__name__})


def _ended(fault: ContainerFailed | ComponentCrashed, otherwise: CauseKind) -> Cause:
    """The cause of a container's end by itself, or by a signal."""
    code = fault.exit_code
    evidence: dict[str, Any] = {"exit_code": code, "stderr_tail": fault.stderr_tail}
    if code <= SIGNALLED:
        return Cause(otherwise, evidence)
    try:
        evidence["signal"] = signal.Signals(code - SIGNALLED).name
    except ValueError:
        return Cause(otherwise, evidence)  # a code like 255 is no signal's
    if fault.daemon_event:
        evidence["daemon_event"] = fault.daemon_event
    return Cause(CauseKind.KILLED, evidence)
