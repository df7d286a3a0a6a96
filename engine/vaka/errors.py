"""The error tree.

```
EngineError
├── UserError                who asked can mend it; the message is shown to them as it is
│   ├── NotFound                 .kind  .id
│   ├── Conflict                 something of that name, or another version of it, is there already
│   ├── AccessDenied             the token is known and lacks the right
│   ├── NotAllowed               nobody may ask for it, whatever their token
│   ├── AuthenticationFailed     the token is missing, unknown, expired or disabled
│   ├── InvalidInput             .path: a configuration, definition, manifest or request is not valid
│   ├── Overloaded               .retry_after: as many of these run as may at a time
│   ├── CipherRefused            .reason  .paths: a value is no cipher that can be read here
│   ├── MappingFailed            input or output mapping could not be done as asked
│   ├── ContainerFailed          .exit_code  .stderr_tail  .daemon_event
│   ├── OutOfMemory              .limit  .peak  .stderr_tail
│   └── DeadlineExceeded         .seconds  .setting  .stderr_tail
└── ApplicationError         an operator must look; the author sees only a fixed text and an id
    ├── PluginError              .plugin  .hook
    ├── InvalidDefinition        a component's definition cannot be used
    ├── ComponentCrashed         .exit_code  .stderr_tail  .daemon_event: its own application error
    ├── ImageUnavailable         .reference  .transient
    ├── ContainerLost            .name  .never_started: it vanished before its end was seen
    ├── RuntimeUnavailable       .exit_code: the container runtime does not answer, or did not
    ├── HomeInUse                .pid: another engine works in this home
    ├── StoreUnavailable         the job store does not answer, or its disk is full
    ├── StorageUnavailable       Storage does not answer
    ├── DiskFull                 Storage has no room for what was to be kept
    └── UnderMaintenance         .retry_after: Storage is closed for a while; jobs go back to waiting
```

A message says what happened, to which thing, and what to do; facts are attributes. Whatever is raised
and is not in the tree is a bug and treated as an `ApplicationError`. No secret ever enters a message.
"""

from __future__ import annotations


class EngineError(Exception):
    """Everything the engine raises on purpose."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class UserError(EngineError):
    """A failure that the author of a job or a request can mend.

    `code` is Storage's word for it where that is more precise than what the class says, such as
    `storage.tables.validation.noColumns` (storage-api.md section 1.5).
    """

    def __init__(self, message: str, *, code: str | None = None) -> None:
        super().__init__(message)
        self.code = code


class NotFound(UserError):
    """The thing named does not exist, or not for this project."""

    def __init__(
        self,
        message: str,
        *,
        kind: str,
        id: str,  # noqa: A002 - the thing's id
        code: str | None = None,
    ) -> None:
        super().__init__(message, code=code)
        self.kind = kind
        self.id = id


class Conflict(UserError):
    """The thing is there already, or has changed since it was read."""


class AccessDenied(UserError):
    """The token is valid and does not have the right that the call needs."""


class NotAllowed(UserError):
    """What was asked for exists, and nobody may do it this way."""


class AuthenticationFailed(UserError):
    """The token is missing, unknown, expired or disabled."""


class InvalidInput(UserError):
    """A configuration, manifest, state or request does not have the shape it must have."""

    def __init__(self, message: str, *, path: str = "", code: str | None = None) -> None:
        super().__init__(message, code=code)
        self.path = path


class CipherRefused(UserError):
    """A value cannot be decrypted here: it is no cipher, or broken, or of another scope.

    The message is the same for all of that. `reason` tells an operator, and nobody else: `malformed`,
    `mac`, `scope`, `unknown_key`, `provider_refused`, `no_reader`, `not_text`. `paths` are the places
    in the document, the first of them being the one that the message is about.
    """

    def __init__(
        self,
        message: str = "",
        *,
        reason: str = "malformed",
        paths: tuple[str, ...] = (),
        code: str | None = None,
    ) -> None:
        super().__init__(message, code=code)
        self.reason = reason
        self.paths = paths


class MappingFailed(UserError):
    """Input or output mapping could not be done as asked."""


class Overloaded(UserError):
    """As many of these run already as may at a time; `retry_after` is seconds."""

    def __init__(self, message: str, *, retry_after: float, code: str | None = None) -> None:
        super().__init__(message, code=code)
        self.retry_after = retry_after


class ContainerFailed(UserError):
    """A component ended with its user-error code (1), or told to hide application errors.

    `daemon_event` is what the runtime tells of who ended it, if it does.
    """

    def __init__(
        self,
        message: str,
        *,
        exit_code: int,
        stderr_tail: str = "",
        daemon_event: str = "",
        code: str | None = None,
    ) -> None:
        super().__init__(message, code=code)
        self.exit_code = exit_code
        self.stderr_tail = stderr_tail
        self.daemon_event = daemon_event


class OutOfMemory(UserError):
    """The kernel ended a container because it passed its memory limit.

    `limit` and `peak` are bytes; `peak` is None where the daemon does not tell.
    """

    def __init__(
        self,
        message: str,
        *,
        limit: int,
        peak: int | None = None,
        stderr_tail: str = "",
        code: str | None = None,
    ) -> None:
        super().__init__(message, code=code)
        self.limit = limit
        self.peak = peak
        self.stderr_tail = stderr_tail


class DeadlineExceeded(UserError):
    """A container ran longer than it may; `setting` names what set the limit."""

    def __init__(
        self,
        message: str,
        *,
        seconds: float,
        setting: str,
        stderr_tail: str = "",
        code: str | None = None,
    ) -> None:
        super().__init__(message, code=code)
        self.seconds = seconds
        self.setting = setting
        self.stderr_tail = stderr_tail


class ApplicationError(EngineError):
    """A failure that an operator or a developer must look at."""


class PluginError(ApplicationError):
    """A plugin broke its contract."""

    def __init__(self, message: str, *, plugin: str, hook: str) -> None:
        super().__init__(message)
        self.plugin = plugin
        self.hook = hook


class InvalidDefinition(ApplicationError):
    """A component's definition cannot be used."""


class ComponentCrashed(ApplicationError):
    """A component ended with an exit code above 1."""

    def __init__(
        self, message: str, *, exit_code: int, stderr_tail: str = "", daemon_event: str = ""
    ) -> None:
        super().__init__(message)
        self.exit_code = exit_code
        self.stderr_tail = stderr_tail
        self.daemon_event = daemon_event


class ImageUnavailable(ApplicationError):
    """An image is not on the host and cannot be pulled; `transient`: it may be later."""

    def __init__(self, message: str, *, reference: str, transient: bool = False) -> None:
        super().__init__(message)
        self.reference = reference
        self.transient = transient


class ContainerLost(ApplicationError):
    """A container is gone and nobody saw its end.

    `never_started` is True where it is certain that nothing of it ran: it may be created again.
    """

    def __init__(self, message: str, *, name: str, never_started: bool = False) -> None:
        super().__init__(message)
        self.name = name
        self.never_started = never_started


class RuntimeUnavailable(ApplicationError):
    """The container runtime does not answer, or went away and took a container with it.

    `exit_code` is that of the container, then.
    """

    def __init__(self, message: str, *, exit_code: int | None = None) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class StoreUnavailable(ApplicationError):
    """The job store cannot be read or written."""


class StorageUnavailable(ApplicationError):
    """A backend or catalog does not answer, or is locked by somebody else; nothing was done."""


class DiskFull(ApplicationError):
    """There is no room for what was to be kept; nothing of it was."""


class HomeInUse(ApplicationError):
    """Another engine works in this home; `pid` is its process, where that is known."""

    def __init__(self, message: str, *, pid: int | None) -> None:
        super().__init__(message)
        self.pid = pid


class UnderMaintenance(ApplicationError):
    """A backend or catalog is closed for a while by its operator.

    A job that meets it is put back among the waiting, and no job starts for `retry_after` seconds.
    """

    def __init__(self, message: str, *, retry_after: float = 30.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


_NOT_FOUND = {
    "bucket": "storage.buckets.notFound",
    "table": "storage.tables.notFound",
    "file": "storage.files.notFound",
    "job": "storage.jobs.notFound",
    "configuration": "storage.configuration.notFound",
    "version": "storage.configuration.versionNotFound",
    "row": "storage.configuration.rowNotFound",
    "component": "storage.components.notFound",
    "token": "storage.tokens.notFound",
    "trigger": "storage.triggers.notFound",
    "snapshot": "storage.snapshots.notFound",
    "workspace": "storage.workspaces.notFound",
    "metadata": "storage.metadata.notFound",
    "branch": "devBranch.notFound",
}


def storage_code(error: UserError) -> str:
    """Storage's word for an error: its own, else that of its class (storage-api.md section 1.5)."""
    if error.code is not None:
        return error.code
    match error:
        case NotFound(kind=kind):
            return _NOT_FOUND.get(kind, "notFound")
        case Conflict():
            return "conflict"
        case AccessDenied():
            return "accessDenied"
        case Overloaded():
            return "overloaded"
        case _:
            return "storage.validation"
