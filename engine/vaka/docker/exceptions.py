"""What the client raises.

```
DockerError                       .status  .message: the daemon refused, or something stood in between
├── DockerNotFound                404: no such container, image, network, volume, exec or path
├── DockerConflict                409: the name is taken, or the state does not allow the call
├── DockerServerError             500 and above: after one of these on a create, look the name up first
├── DockerContainerError          .container_id: `containers.run` made a container and could not start it
├── DockerStreamError             .error_detail: an error inside a stream that began with status 200
├── DockerUnreachable             .address: no connection could be made, so nothing was asked for
├── DockerConnectionLost          .address: the connection broke; the daemon may or may not have acted
│   └── DockerStreamTruncated     the answer ended inside a frame, or short of its promised length
└── DockerContextError            .context_name: the command line's stored context cannot be used
    ├── DockerContextInvalidError
    └── DockerContextTLSError
```

`status` is the HTTP status; 900 where there was no answer, and 0 where a status would say nothing, the
same numbers as aiodocker's. What a caller passes wrongly is a `TypeError` or a `ValueError`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

NO_ANSWER = 900
"""The status of errors that no HTTP answer stands behind; aiodocker's number."""


class DockerError(Exception):
    """Everything the client raises on purpose."""

    def __init__(self, status: int, message: str, *args: Any) -> None:
        super().__init__(message, *args)
        self.status = status
        self.message = message

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.status}, {self.message!r})"

    def __str__(self) -> str:
        return f"[{self.status}] {self.message}"


class DockerNotFound(DockerError):
    """The daemon knows nothing of that name."""


class DockerConflict(DockerError):
    """The name is in use, or the object's state does not allow what was asked."""


class DockerServerError(DockerError):
    """The daemon failed, and may have done part of what was asked."""


class DockerContainerError(DockerError):
    """A container was created and could not be started; `container_id` is for removing it."""

    def __init__(self, status: int, message: str, container_id: str, *args: Any) -> None:
        super().__init__(status, message, *args)
        self.container_id = container_id

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.status}, {self.message!r}, {self.container_id!r})"

    def __str__(self) -> str:
        return f"{super().__str__()} (container: {self.container_id})"


class DockerStreamError(DockerError):
    """An error that the daemon reported inside a stream.

    `error_detail` is the daemon's `errorDetail` object, empty where it sent none.
    """

    def __init__(
        self, message: str, *, error_detail: Mapping[str, Any] | None = None, status: int = 0
    ) -> None:
        super().__init__(status, message)
        self.error_detail = dict(error_detail or {})

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.message!r}, error_detail={self.error_detail!r})"


class DockerUnreachable(DockerError):
    """No connection to `address` could be made; nothing was sent."""

    def __init__(self, message: str, *, address: str) -> None:
        super().__init__(NO_ANSWER, message)
        self.address = address

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.message!r}, address={self.address!r})"


class DockerConnectionLost(DockerError):
    """The connection to `address` broke during a call: whether the daemon acted is not known."""

    def __init__(self, message: str, *, address: str) -> None:
        super().__init__(NO_ANSWER, message)
        self.address = address

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.message!r}, address={self.address!r})"


class DockerStreamTruncated(DockerConnectionLost):
    """What was read is only the beginning of the answer."""


class DockerContextError(DockerError):
    """A context of the `docker` command line, named or current, cannot be used."""

    def __init__(self, message: str, context_name: str | None = None) -> None:
        super().__init__(0, message)
        self.context_name = context_name

    def __repr__(self) -> str:
        context = f", context={self.context_name!r}" if self.context_name else ""
        return f"{type(self).__name__}({self.message!r}{context})"

    def __str__(self) -> str:
        return (
            f"{self.message} (context: {self.context_name})" if self.context_name else self.message
        )


class DockerContextInvalidError(DockerContextError):
    """A file of the context is missing or is not what it should be."""


class DockerContextTLSError(DockerContextError):
    """The context's certificates cannot be read or used."""


def refusal(status: int, message: str) -> DockerError:
    """The error for an answer with a status that means failure."""
    if status == 404:
        return DockerNotFound(status, message)
    if status == 409:
        return DockerConflict(status, message)
    if status >= 500:
        return DockerServerError(status, message)
    return DockerError(status, message)
