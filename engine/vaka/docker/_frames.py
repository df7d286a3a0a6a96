"""The daemon's framing of two output streams on one connection, undone piece by piece.

A frame is eight bytes of head (the stream's number, three zeros, the length in network order) and as
many bytes of data. With a terminal there are no frames, and everything counts as standard output.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from vaka.docker.exceptions import DockerError, DockerStreamError, DockerStreamTruncated

STDIN, STDOUT, STDERR, DAEMON_ERROR = range(4)

MOST_DATA = 65536
"""Bytes of data in one message. Frames of the daemon are smaller (it copies 32 KiB at a time), so that
a frame comes whole; a head that announces 4 GiB is taken in pieces, and memory stays bounded."""

_HEAD = struct.Struct(">B3xL")
_ZEROS = b"\0\0\0"


class Message(NamedTuple):
    """Some output: `stream` is 1 for standard output, 2 for standard error."""

    stream: int
    data: bytes


class Demultiplexer:
    """Takes bytes as they come off the connection and gives messages; keeps less than one message."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._stream = STDOUT
        self._left = 0  # bytes that the frame at hand still has to bring

    def feed(self, data: bytes) -> list[Message]:
        """The messages that `data` completes; `DockerError` when it is not framed at all."""
        buffer, at, messages = self._buffer, 0, []
        buffer += data
        while True:
            if not self._left:
                if len(buffer) - at < _HEAD.size:
                    break
                stream, self._left = _HEAD.unpack_from(buffer, at)
                if stream > DAEMON_ERROR or buffer[at + 1 : at + 4] != _ZEROS:
                    raise DockerError(
                        0, "the output is not framed as a container's without a terminal should be"
                    )
                self._stream = stream
                at += _HEAD.size
                continue
            length = min(self._left, MOST_DATA)
            if len(buffer) - at < length:
                break
            messages.append(Message(self._stream, bytes(buffer[at : at + length])))
            self._left -= length
            at += length
        del buffer[:at]
        return messages

    @property
    def missing(self) -> int:
        """Bytes without which the frame, or the head of one, at hand is not whole."""
        if self._left:
            return self._left - len(self._buffer)
        return _HEAD.size - len(self._buffer) if self._buffer else 0


class MessageReader:
    """Messages out of `receive`, which gives the next bytes, or none at the end."""

    def __init__(self, receive: Callable[[], Awaitable[bytes]], *, tty: bool, address: str) -> None:
        self._receive = receive
        self._demultiplexer = None if tty else Demultiplexer()
        self._address = address
        self._ready: deque[Message] = deque()

    async def read(self) -> Message | None:
        """The next message, None at the end. Cancelling it loses nothing.

        Raises:
            DockerStreamTruncated: the stream ended inside a frame.
            DockerStreamError: the daemon could not read on, and says why.
        """
        while not self._ready:
            data = await self._receive()
            if self._demultiplexer is None:
                return Message(STDOUT, data) if data else None
            if not data:
                if missing := self._demultiplexer.missing:
                    raise DockerStreamTruncated(
                        f"the output ended {missing} bytes short of a whole frame: the connection "
                        f"to {self._address} broke; read it again from the container's log",
                        address=self._address,
                    )
                return None
            self._ready += self._demultiplexer.feed(data)
        message = self._ready.popleft()
        if message.stream == DAEMON_ERROR:
            raise DockerStreamError(message.data.decode(errors="replace").strip())
        return message
