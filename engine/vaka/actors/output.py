"""What a container prints: from bytes to masked lines, and to the excerpt that an error quotes.

Text is repaired (what is no UTF-8 is dropped), then masked, then cut: a value is hidden before any of
these could leave a part of it that is not found any more.
"""

from __future__ import annotations

from vaka.masking import Masker
from vaka.models.container import OutputChunk, StreamName

TRIMMED = " [trimmed]"
MESSAGE_CHARACTERS = 4_000
"""Longest error message made of output; of longer output the two ends are quoted."""
_EXCERPT_BYTES = 1 << 15
"""Bytes kept of each end of a stream: more than a message quotes, because masking may shorten it."""
_WIDTH = 4
"""Bytes of one character at most."""
_BLANK = " \t\n\r\0\x0b"
_SWAP_WARNING = (
    "WARNING: Your kernel does not support swap limit capabilities or the cgroup is not mounted. "
    "Memory limited without swap."
)
"""What Docker's command says where a host does not limit swap; it is of no use to a job's author."""


def sanitise(data: bytes | bytearray) -> str:
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
        missing = _EXCERPT_BYTES - len(self._head)
        if missing > 0:
            self._head += data[:missing]
        self._tail += data[-_EXCERPT_BYTES:]
        if len(self._tail) > 2 * _EXCERPT_BYTES:
            del self._tail[:-_EXCERPT_BYTES]

    def text(self, masker: Masker | None = None) -> str:
        """All of it when it fits a message, else its first and last half with ` ... ` between."""
        masker = masker or Masker()
        head = _without_warning(sanitise(self._head))
        if self._size <= _EXCERPT_BYTES:
            return shorten(masker.text(head).strip(_BLANK))
        half = MESSAGE_CHARACTERS // 2
        head = masker.prefix(head).lstrip(_BLANK)
        tail = masker.suffix(sanitise(self._tail[-_EXCERPT_BYTES:])).rstrip(_BLANK)
        return f"{head[:half]} ... {tail[-half:]}"

    def tail(self, lines: int, masker: Masker | None = None) -> str:
        """The last lines, as far as they were kept."""
        masker = masker or Masker()
        text = sanitise(self._tail[-_EXCERPT_BYTES:])
        masked = masker.text(text) if self._size <= _EXCERPT_BYTES else masker.suffix(text)
        return "\n".join(_without_warning(masked).strip(_BLANK).splitlines()[-lines:])


def shorten(text: str) -> str:
    """`text`, its middle left out when it is longer than an error message may be."""
    if len(text) <= MESSAGE_CHARACTERS:
        return text
    half = MESSAGE_CHARACTERS // 2
    return f"{text[:half]} ... {text[-half:]}"


class LineSplitter:
    """Cuts one stream into masked lines of at most `limit` characters; what is beyond is dropped.

    Lines come out in the order of the stream, blank ones left out, each without its line break and
    the white space before it.
    """

    def __init__(self, limit: int, masker: Masker | None = None) -> None:
        self.received = 0
        """Bytes fed so far."""
        self._limit = limit
        self._masker = masker or Masker()
        self._rest = bytearray()
        self._overlong = False

    @property
    def told(self) -> int:
        """Bytes of the stream that the lines given out so far account for."""
        return self.received - len(self._rest)

    @property
    def _room(self) -> int:
        """Bytes of a line that are looked at: its limit, and what may be a value beyond it."""
        return _WIDTH * (self._limit + self._masker.longest)

    def feed(self, data: bytes) -> list[str]:
        """The lines that `data` completes."""
        self.received += len(data)
        if self._overlong:
            end = data.find(b"\n") + 1
            if not end:
                return []
            data = data[end:]
            self._overlong = False
        end = data.rfind(b"\n") + 1
        lines: list[str] = []
        if end:
            block = bytes(self._rest) + data[:end] if self._rest else data[:end]
            self._rest.clear()
            lines = self._lines(block)
            data = data[end:]
        self._rest += data
        if len(self._rest) > self._room:  # an endless line
            lines += self.finish()
            self._overlong = True
        return lines

    def finish(self) -> list[str]:
        """What is left, when the stream has ended without a line break."""
        block = bytes(self._rest)
        self._rest.clear()
        return self._lines(block)

    def _lines(self, block: bytes) -> list[str]:
        room = self._room
        if len(block) > room and any(len(line) > room for line in block.split(b"\n")):
            return [line for each in block.split(b"\n") for line in self._line(each, room)]
        return self._cut(self._masker.lines(_without_warning(sanitise(block))))

    def _line(self, line: bytes, room: int) -> list[str]:
        """A line as a list of one, which may be longer than is looked at; a blank one is none."""
        if len(line) <= room:
            return self._cut(self._masker.lines(_without_warning(sanitise(line))))
        text = self._masker.prefix(sanitise(line[:room])).rstrip(_BLANK)
        return [text[: self._limit] + TRIMMED] if text else []

    def _cut(self, masked: str) -> list[str]:
        limit = self._limit
        lines = [kept for line in masked.split("\n") if (kept := line.rstrip(_BLANK))]
        if len(masked) <= limit:
            return lines
        return [line if len(line) <= limit else line[:limit] + TRIMMED for line in lines]


class OutputReader:
    """Both streams of one container: excerpts of all of it, masked lines of what was not told before.

    `told` is what an earlier reader has accounted for; those bytes still count for the excerpts.
    """

    def __init__(
        self, limit: int, told: dict[StreamName, int], masker: Masker | None = None
    ) -> None:
        self.excerpts: dict[StreamName, Excerpt] = {"stdout": Excerpt(), "stderr": Excerpt()}
        self.remark = ""
        """What the component said of an error by other means than its output, already masked."""
        self._splitters: dict[StreamName, LineSplitter] = {
            name: LineSplitter(limit, masker) for name in ("stdout", "stderr")
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


def _without_warning(text: str) -> str:
    return text.replace(_SWAP_WARNING, "") if _SWAP_WARNING in text else text
