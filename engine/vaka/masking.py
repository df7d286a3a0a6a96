"""Hides secret values in text.

The values are known, so hiding is a search for fixed strings: linear in the text, whatever the values
hold. Each value is hidden as it stands, line by line if it has several, as Base64, and as JSON writes
it.

A line that is masked on its own hides as much as one that is masked together with what is around it.
Of a text whose ends are not known, `prefix` and `suffix` give what can be masked for certain.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

HIDDEN = "[hidden]"
SHORT_LINE = 4
"""Characters below which a line of a value is no secret on its own: brackets, mostly."""
_PATTERNS = 128
"""Searches kept for the next text. A text has few of the values, mostly none."""


class Masker:
    """Replaces what it was told to hide. Values may be added at any time."""

    def __init__(self, values: Iterable[str] = ()) -> None:
        self.longest = 0
        """Characters of the longest form of any value."""
        self._needles: tuple[str, ...] = ()
        self._patterns: dict[tuple[str, ...], re.Pattern[str]] = {}
        self._lines: tuple[str, ...] = ()
        self.add(values)

    def add(self, values: Iterable[str]) -> None:
        """Hide these values from now on; empty ones are ignored."""
        needles = {needle for value in values if value for needle in _forms(value)}
        if needles <= set(self._needles):
            return
        needles |= set(self._needles)
        # the longest first: a value that contains another one is hidden whole
        self._needles = tuple(sorted(needles, key=lambda needle: (-len(needle), needle)))
        self.longest = len(self._needles[0])
        self._patterns.clear()
        self._lines = tuple(needle for needle in self._needles if "\n" not in needle)

    def text(self, text: str) -> str:
        """`text` with every known value replaced by `[hidden]`."""
        return self._hidden(text, self._needles)

    def lines(self, text: str) -> str:
        """`text` with each of its lines masked on its own, so that there are as many as before."""
        return self._hidden(text, self._lines)

    def prefix(self, text: str) -> str:
        """The beginning of `text` masked, when more may follow it that is not known.

        What is left out is the end that may belong to a value: less than the longest value has.
        """
        end = len(text) - self.longest + 1
        if not self._needles or end >= len(text):
            return text
        kept: list[str] = []
        at = 0
        pattern = self._pattern(text, self._needles)
        for found in pattern.finditer(text) if pattern is not None else ():
            if found.start() >= end:
                break
            kept += (text[at : found.start()], HIDDEN)
            at = found.end()
        kept.append(text[at : max(end, at)])
        return "".join(kept)

    def suffix(self, text: str) -> str:
        """The end of `text` masked, when more may stand before it that is not known."""
        begin = self.longest - 1
        if not self._needles or begin <= 0:
            return text
        kept: list[str] = []
        at = begin
        pattern = self._pattern(text, self._needles)
        for found in pattern.finditer(text) if pattern is not None else ():
            if found.end() <= begin:
                continue
            kept += (text[at : max(found.start(), at)], HIDDEN)
            at = found.end()
        kept.append(text[at:])
        return "".join(kept)

    def document(self, value: Any) -> Any:
        """A JSON value with every string in it masked, keys included."""
        if not self._needles:
            return value
        match value:
            case str():
                return self.text(value)
            case Mapping():
                return {self.text(key): self.document(item) for key, item in value.items()}
            case list() | tuple():
                return [self.document(item) for item in value]
            case _:
                return value

    def _hidden(self, text: str, needles: tuple[str, ...]) -> str:
        pattern = self._pattern(text, needles)
        return text if pattern is None else pattern.sub(HIDDEN, text)

    def _pattern(self, text: str, needles: tuple[str, ...]) -> re.Pattern[str] | None:
        """What finds those of `needles` that are in `text`, None when there are none.

        One search a value is many times faster than one search for all of them at each place.
        """
        present = tuple([needle for needle in needles if needle in text])
        if not present:
            return None
        pattern = self._patterns.get(present)
        if pattern is None:
            if len(self._patterns) >= _PATTERNS:
                self._patterns.clear()
            pattern = self._patterns[present] = re.compile("|".join(map(re.escape, present)))
        return pattern


def _forms(value: str) -> Iterable[str]:
    raw = value.encode("utf-8", "surrogatepass")
    yield value
    if "\n" in value:
        lines = [line for each in value.split("\n") if (line := each.strip())]
        yield from [line for line in lines if len(line) >= SHORT_LINE] or lines
    yield base64.b64encode(raw).decode()
    for encoded in (json.dumps(value), json.dumps(value, ensure_ascii=False)):
        yield encoded[1:-1]
        yield encoded[1:-1].replace("/", "\\/")
