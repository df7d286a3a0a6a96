"""JSON whose numbers stay as they were written: `1.0`, `1e2`, integers of thirty digits.

For documents that are handed back to who sent them with nothing changed but the secrets.
"""

from __future__ import annotations

import json
import re
import secrets
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
    """A document as JSON text, its numerals as they were; it has fewer levels than `DEPTH`."""
    mark = secrets.token_hex(16)  # no text in the document can have it

    def marked(value: object) -> Any:
        if isinstance(value, Numeral):
            return mark + value.text
        if isinstance(value, Mapping):
            return dict(value)
        raise TypeError(f"{type(value).__name__} is not JSON")

    text = json.dumps(document, separators=(",", ":"), default=marked, allow_nan=False)
    return re.sub(f'"{mark}([^"]*)"', r"\1", text) if mark in text else text


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
