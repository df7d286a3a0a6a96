"""GELF, a format of log messages: out of the framings it travels in, and checked.

Everything here reads what a component sent, which may be anything. Sizes, depths, numbers of pieces
and what a compressed message may become are bounded, and nothing but `Unreadable` is raised.

Source: runner.md sections 4.10.1 and 4.10.2.
"""

from __future__ import annotations

import json
import math
import re
import zlib
from collections.abc import Mapping
from typing import Any, NoReturn

MESSAGE_BYTES = 256 << 10
"""Longest message. The documentation of components speaks of about 200 kB."""
CHUNK_MAGIC = b"\x1e\x0f"
MOST_CHUNKS = 128
"""Of one message, as GELF has it."""
MOST_PARTIAL = 64
"""Messages that wait for further chunks; when there are more, the oldest is given up."""
CHUNK_PATIENCE = 5.0
"""Seconds that a message may wait for its last chunk, as GELF has it."""
MOST_DEPTH = 64
"""Levels of lists and objects in a message."""
_CHUNK_HEAD = 12
_GZIP = 16 + zlib.MAX_WBITS
_MESSAGES = re.compile(rb"[^\0]+")


class Unreadable(Exception):
    """What came is no message; the text says why, and of what it was said."""


def messages(data: bytes) -> list[dict[str, Any] | Unreadable]:
    """The messages in what one frame, datagram or request held.

    What does not parse as a whole is taken for one message a line.
    """
    try:
        text = inflate(data).decode("utf-8", "ignore").strip(" \t\r\n\0")
    except Unreadable as error:
        return [error]
    if not text:
        return []
    first = _message(text)
    lines = text.splitlines()
    if isinstance(first, dict) or len(lines) == 1:
        return [first]
    return [_message(line) for line in lines if line.strip()]


def inflate(data: bytes) -> bytes:
    """What is compressed by zlib or gzip, undone; anything else as it is.

    Raises:
        Unreadable: it cannot be undone, or becomes longer than a message may be.
    """
    if data[:1] == b"\x78":
        window = zlib.MAX_WBITS
    elif data[:2] == b"\x1f\x8b":
        window = _GZIP
    else:
        return data
    try:
        plain = zlib.decompressobj(window).decompress(data, MESSAGE_BYTES + 1)
    except zlib.error as error:
        raise Unreadable(f"Cannot decompress message: {error}.") from error
    if len(plain) > MESSAGE_BYTES:
        raise too_long(plain)
    return plain


def too_long(data: bytes | bytearray) -> Unreadable:
    """What is said of a message that is longer than it may be."""
    begin = bytes(data[:200]).decode("utf-8", "ignore")
    return Unreadable(f'Message is longer than {MESSAGE_BYTES} bytes. Data: "{begin}".')


class Frames:
    """Messages on a connection, each ended by a NUL."""

    def __init__(self) -> None:
        self._rest = bytearray()
        self._overlong = False

    def feed(self, data: bytes) -> list[bytes | Unreadable]:
        """The messages that `data` completes; of one without an end only that it is too long."""
        found: list[bytes | Unreadable] = []
        begun, end, more = data.partition(b"\0")
        self._take(begun, found)
        if not end:
            return found
        self._end(found)
        whole, _, begun = more.rpartition(b"\0")
        for piece in _MESSAGES.findall(whole):  # a flood of nothing but ends is no work
            self._take(piece, found)
            self._end(found)
        self._take(begun, found)
        return found

    def finish(self) -> list[bytes | Unreadable]:
        """The last message, when the connection ended without a NUL."""
        rest = bytes(self._rest)
        self._rest.clear()
        return [rest] if rest else []

    def _end(self, found: list[bytes | Unreadable]) -> None:
        if self._rest:
            found.append(bytes(self._rest))
            self._rest.clear()
        self._overlong = False

    def _take(self, piece: bytes, found: list[bytes | Unreadable]) -> None:
        if self._overlong:
            return
        if len(self._rest) + len(piece) > MESSAGE_BYTES:
            found.append(too_long(self._rest + piece[:200]))
            self._rest.clear()
            self._overlong = True
        else:
            self._rest += piece


class _Partial:
    def __init__(self, count: int, since: float) -> None:
        self.count = count
        self.since = since
        self.pieces: dict[int, bytes] = {}
        self.size = 0


class Datagrams:
    """Messages in datagrams, whole or in chunks, which may come in any order and more than once."""

    def __init__(self) -> None:
        self._partial: dict[tuple[object, bytes], _Partial] = {}
        self.given_up = 0
        """Messages of which some chunks never came."""

    def feed(self, data: bytes, sender: object, now: float) -> bytes | Unreadable | None:
        """The message that a datagram completes, if it does. `now` is seconds on any clock."""
        if not data.startswith(CHUNK_MAGIC):
            return data
        if len(data) < _CHUNK_HEAD:
            return Unreadable("Chunk of a message is shorter than its head.")
        key = (sender, data[2:10])
        index, count = data[10], data[11]
        if not 0 <= index < count <= MOST_CHUNKS:
            return Unreadable(f"Chunk {index} of {count} cannot be.")
        self._give_up(now)
        partial = self._partial.setdefault(key, _Partial(count, now))
        if partial.count != count:
            return Unreadable(f"Chunk {index} of {count} belongs to a message of {partial.count}.")
        if index not in partial.pieces:
            partial.pieces[index] = data[_CHUNK_HEAD:]
            partial.size += len(data) - _CHUNK_HEAD
        if partial.size > MESSAGE_BYTES:
            del self._partial[key]
            return too_long(partial.pieces[min(partial.pieces)])
        if len(partial.pieces) < count:
            return None
        del self._partial[key]
        return b"".join(partial.pieces[place] for place in range(count))

    def finish(self) -> None:
        """Give up what waits."""
        self.given_up += len(self._partial)
        self._partial.clear()

    def _give_up(self, now: float) -> None:
        """Make room: forget what waits too long, and the oldest when too much waits."""
        while self._partial:
            oldest = next(iter(self._partial))
            late = now - self._partial[oldest].since > CHUNK_PATIENCE
            if not late and len(self._partial) < MOST_PARTIAL:
                return
            del self._partial[oldest]
            self.given_up += 1


def _message(text: str) -> dict[str, Any] | Unreadable:
    try:
        value = _loads(text)
        if not isinstance(value, dict):
            return Unreadable(f'Message data is not array: "{text}".')
        for name, member in value.items():
            if name.startswith("_") and isinstance(member, str):
                value[name] = _decoded(member)
        cleaned: dict[str, Any] = _clean(value, MOST_DEPTH)
    except _TooDeep:
        return _syntax("Maximum stack depth exceeded", text)
    except ValueError:
        return _syntax("Syntax error", text)
    return cleaned


def _syntax(reason: str, text: str) -> Unreadable:
    return Unreadable(f'Cannot parse JSON data in event: "{reason}". Data: "{text}".')


class _TooDeep(ValueError):
    pass


def _loads(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=_refuse)
    except RecursionError as error:
        raise _TooDeep from error


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def _decoded(text: str) -> Any:
    """A field that holds JSON as text, decoded; any other as it is."""
    try:
        return _loads(text)
    except ValueError:
        return text


def _clean(value: Any, depth: int) -> Any:
    """A JSON value without what no text can hold.

    Raises:
        _TooDeep: it has more than `depth` levels.
    """
    match value:
        case str():
            return value if value.isascii() else value.encode("utf-8", "ignore").decode()
        case Mapping() | list() if depth == 0:
            raise _TooDeep
        case Mapping():
            return {_clean(name, depth): _clean(each, depth - 1) for name, each in value.items()}
        case list():
            return [_clean(each, depth - 1) for each in value]
        case float() if not math.isfinite(value):  # 1e999 is JSON, and no JSON can be made of it
            return str(value)
        case _:
            return value
