"""Hides secret values in text.

The values are known, so hiding is a search for fixed strings: linear in the text, whatever the values
hold. Each value is hidden as it stands, as Base64, and as JSON writes it.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

HIDDEN = "[hidden]"


class Masker:
    """Replaces what it was told to hide. Values may be added at any time."""

    def __init__(self, values: Iterable[str] = ()) -> None:
        self._needles: set[str] = set()
        self._pattern: re.Pattern[str] | None = None
        self.add(values)

    def add(self, values: Iterable[str]) -> None:
        """Hide these values from now on; empty ones are ignored."""
        needles = {needle for value in values if value for needle in _forms(value)}
        if needles <= self._needles:
            return
        self._needles |= needles
        # the longest first: a value that contains another one is hidden whole
        ordered = sorted(self._needles, key=lambda needle: (-len(needle), needle))
        self._pattern = re.compile("|".join(map(re.escape, ordered)))

    def text(self, text: str) -> str:
        """`text` with every known value replaced by `[hidden]`."""
        return text if self._pattern is None else self._pattern.sub(HIDDEN, text)

    def document(self, value: Any) -> Any:
        """A JSON value with every string in it masked, keys included."""
        if self._pattern is None:
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


def _forms(value: str) -> Iterable[str]:
    raw = value.encode("utf-8", "surrogatepass")
    yield value
    yield base64.b64encode(raw).decode()
    for encoded in (json.dumps(value), json.dumps(value, ensure_ascii=False)):
        yield encoded[1:-1]
        yield encoded[1:-1].replace("/", "\\/")
