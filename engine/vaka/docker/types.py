"""Types of arguments, by the names aiodocker gives them."""

from __future__ import annotations

import enum
from collections.abc import AsyncIterable, Mapping, MutableMapping, Sequence
from typing import Any, Protocol, TypeAlias, TypedDict, TypeVar

JSONValue: TypeAlias = (
    str | int | float | bool | Mapping[str, "JSONValue"] | Sequence["JSONValue"] | None
)
JSONObject: TypeAlias = Mapping[str, JSONValue]
JSONList: TypeAlias = Sequence[JSONValue]
MutableJSONObject: TypeAlias = MutableMapping[str, JSONValue]

_T_co = TypeVar("_T_co", covariant=True)


class SupportsRead(Protocol[_T_co]):
    """An open file, or what reads like one."""

    def read(self, length: int = ..., /) -> _T_co: ...


Bytes: TypeAlias = bytes | bytearray | memoryview
Body: TypeAlias = Bytes | SupportsRead[bytes] | AsyncIterable[bytes]
"""What can be sent: bytes, an open file (read in a thread), or a stream (read as it is sent)."""


class PortInfo(TypedDict):
    """Where a container's port is published."""

    HostIp: str
    HostPort: str


class Sentinel(enum.Enum):
    """The one value that means "not given" where None means something."""

    TOKEN = enum.auto()


SENTINEL = Sentinel.TOKEN


class SupportsTotal(Protocol):
    """A time-out object with a `total` of seconds, such as `aiohttp.ClientTimeout`."""

    @property
    def total(self) -> float | None: ...


Timeout: TypeAlias = float | Sentinel | SupportsTotal | None
"""Seconds a call may take in all; None or left out: as long as the caller's own scope allows."""

JSON: TypeAlias = dict[str, Any]
"""An object as the daemon sent it."""

JSONs: TypeAlias = list[JSON]
"""Objects as the daemon sent them."""


def unless_given(timeout: Timeout) -> Timeout:
    """`timeout`, or no limit at all: for what may take long by nature, such as a wait or a pull."""
    return None if timeout is SENTINEL else timeout
