"""JSON whose numbers stay as they were written: `1.0`, `1e2`, integers of thirty digits.

For documents that are handed back to who sent them with nothing changed but the secrets.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, NoReturn

from vaka.errors import InvalidInput
from vaka.models.catalog import Json

DEPTH: Final = 512
"""Levels of arrays and objects from which on a document is refused."""
_LONGEST_INT: Final = 18
_TOKEN: Final = re.compile(r'"(?:[^"\\]|\\.)*+"?|[\[{]|[\]}]', re.DOTALL)
_SAFE: Final = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Numeral:
    """A number as it was written."""

    text: str


def load_json(data: bytes | str) -> Json:
    """The document that a JSON text holds; numbers that Python would write otherwise are `Numeral`.

    Raises:
        InvalidInput: `Bad JSON format of request body: …`.
    """
    try:
        text = data if isinstance(data, str) else data.decode()
    except UnicodeDecodeError:
        raise _bad("Malformed UTF-8 characters, possibly incorrectly encoded") from None
    _check_depth(text)
    try:
        document = json.loads(text, parse_int=_integer, parse_float=Numeral, parse_constant=_refuse)
    except ValueError:
        raise _bad("Syntax error") from None
    if "\\u" in text and _SAFE.search(json.dumps(_plain(document), ensure_ascii=False)):
        raise _bad("Single unpaired high surrogate in Unicode escape")
    return document


def dump_json(document: Json) -> str:
    """A document as JSON text, its numerals as they were."""
    parts: list[str] = []
    stack: list[Any] = [document]
    while stack:
        match stack.pop():
            case _Mark(text):
                parts.append(text)
            case Numeral(text):
                parts.append(text)
            case Mapping() as members:
                stack.append(_Mark("}"))
                for n, (key, value) in reversed(list(enumerate(members.items()))):
                    stack += (value, _Mark(f"{',' if n else ''}{json.dumps(key)}:"))
                parts.append("{")
            case list() | tuple() as items:
                stack.append(_Mark("]"))
                for n, item in reversed(list(enumerate(items))):
                    stack += (item, _Mark("," if n else ""))
                parts.append("[")
            case scalar:
                parts.append(json.dumps(scalar, allow_nan=False))
    return "".join(parts)


@dataclass(frozen=True, slots=True)
class _Mark:
    text: str


def _integer(text: str) -> int | Numeral:
    return Numeral(text) if len(text) > _LONGEST_INT or text.startswith("-0") else int(text)


def _plain(document: Json) -> Json:
    return json.loads(dump_json(document), parse_int=str, parse_float=str)


def _check_depth(text: str) -> None:
    if text.count("[") + text.count("{") < DEPTH:
        return
    depth = 0
    for token in _TOKEN.finditer(text):
        first = token[0][0]
        if first in "[{":
            depth += 1
            if depth >= DEPTH:
                raise _bad("Maximum stack depth exceeded")
        elif first in "]}":
            depth -= 1


def _refuse(_: str) -> NoReturn:
    raise ValueError("no number of JSON")


def _bad(reason: str) -> InvalidInput:
    return InvalidInput(f"Bad JSON format of request body: {reason}")
