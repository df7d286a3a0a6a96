"""What a container prints: from bytes to lines, and to the excerpt that an error message quotes."""

from __future__ import annotations

from dataclasses import dataclass, field

from vaka.models.container import OutputChunk, StreamName

TRIMMED = " [trimmed]"
MESSAGE_CHARACTERS = 4_000
"""Longest error message made of output; of longer output the two ends are quoted."""
_HEAD_BYTES = 4 * MESSAGE_CHARACTERS
_TAIL_BYTES = 2 * MESSAGE_CHARACTERS
_BLANK = b" \t\n\r\0\x0b"


def sanitise(data: bytes) -> str:
    """`data` as text: bytes that are not valid UTF-8 are dropped, everything else stays."""
    return data.decode("utf-8", "ignore")


class Excerpt:
    """The beginning and the end of a stream, however long it was."""

    def __init__(self) -> None:
        self._head = bytearray()
        self._tail = bytearray()
        self._size = 0

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the stream."""
        self._size += len(data)
        missing = _HEAD_BYTES - len(self._head)
        if missing > 0:
            self._head += data[:missing]
        self._tail += data[-_TAIL_BYTES:]
        del self._tail[:-_TAIL_BYTES]

    def text(self) -> str:
        """All of it when it fits a message, else its first and last half with ` ... ` between."""
        if self._size <= _HEAD_BYTES:
            whole = sanitise(bytes(self._head)).strip(_BLANK.decode())
            return shorten(whole)
        half = MESSAGE_CHARACTERS // 2
        head = sanitise(bytes(self._head)).lstrip(_BLANK.decode())
        tail = sanitise(bytes(self._tail)).rstrip(_BLANK.decode())
        return f"{head[:half]} ... {tail[-half:]}"

    def tail(self, lines: int) -> str:
        """The last lines, as far as they were kept."""
        return "\n".join(sanitise(bytes(self._tail)).strip(_BLANK.decode()).splitlines()[-lines:])


def shorten(text: str) -> str:
    """`text`, its middle left out when it is longer than an error message may be."""
    if len(text) <= MESSAGE_CHARACTERS:
        return text
    half = MESSAGE_CHARACTERS // 2
    return f"{text[:half]} ... {text[-half:]}"


@dataclass(slots=True)
class LineSplitter:
    """Cuts one stream into lines of at most `limit` bytes; what a line has beyond that is dropped."""

    limit: int
    received: int = 0
    """Bytes fed so far."""
    _rest: bytearray = field(default_factory=bytearray)
    _overlong: bool = False

    @property
    def told(self) -> int:
        """Bytes of the stream that the lines given out so far account for."""
        return self.received - len(self._rest)

    def feed(self, data: bytes) -> list[str]:
        """The lines that `data` completes, blank ones left out."""
        self.received += len(data)
        *complete, rest = data.split(b"\n")
        lines: list[str] = []
        for piece in complete:
            if self._rest:
                piece = bytes(self._rest) + piece  # noqa: PLW2901 - the line begins in an earlier read
                self._rest.clear()
            if not self._overlong:
                self._emit(piece, lines)
            self._overlong = False
        if not self._overlong:
            self._rest += rest
            if len(self._rest) > self.limit:
                self._emit(bytes(self._rest), lines)
                self._rest.clear()
                self._overlong = True
        return lines

    def finish(self) -> list[str]:
        """The last line, when the stream ended without a line break."""
        lines: list[str] = []
        if self._rest:
            self._emit(bytes(self._rest), lines)
            self._rest.clear()
        return lines

    def _emit(self, line: bytes, lines: list[str]) -> None:
        cut = len(line) > self.limit
        text = sanitise(line[: self.limit]).rstrip(_BLANK.decode())
        if text:
            lines.append(text + TRIMMED if cut else text)


class OutputReader:
    """Both streams of one container: excerpts of all of it, lines of what was not told before.

    `told` is what an earlier reader has accounted for; those bytes still count for the excerpts.
    """

    def __init__(self, limit: int, told: dict[StreamName, int]) -> None:
        self.excerpts: dict[StreamName, Excerpt] = {"stdout": Excerpt(), "stderr": Excerpt()}
        self._splitters: dict[StreamName, LineSplitter] = {
            name: LineSplitter(limit, received=0) for name in ("stdout", "stderr")
        }
        self._skip: dict[StreamName, int] = {
            "stdout": told.get("stdout", 0),
            "stderr": told.get("stderr", 0),
        }
        self._base = dict(self._skip)

    @property
    def received(self) -> dict[StreamName, int]:
        """Bytes of each stream taken so far, from its beginning; what a second look may skip."""
        return {
            name: self._base[name] - self._skip[name] + splitter.received
            for name, splitter in self._splitters.items()
        }

    @property
    def told(self) -> tuple[int, int]:
        """Bytes of (stdout, stderr) that the lines given out account for."""
        return (
            self._base["stdout"] + self._splitters["stdout"].told,
            self._base["stderr"] + self._splitters["stderr"].told,
        )

    def feed(self, chunk: OutputChunk) -> list[str]:
        """The new lines that a chunk completes."""
        self.excerpts[chunk.stream].feed(chunk.data)
        skip = min(self._skip[chunk.stream], len(chunk.data))
        self._skip[chunk.stream] -= skip
        data = chunk.data[skip:] if skip else chunk.data
        return self._splitters[chunk.stream].feed(data) if data else []

    def finish(self) -> dict[StreamName, list[str]]:
        """The last lines of streams that ended without a line break."""
        return {name: splitter.finish() for name, splitter in self._splitters.items()}
