"""In which ways a secret is written when programs print it (encryption.md section 8.2)."""

from __future__ import annotations

import base64
import json
import shlex
from collections.abc import Callable, Iterable, Iterator
from urllib.parse import quote, quote_plus

SHORT_LINE = 4
"""Characters below which a line of a value is no secret on its own: brackets, mostly."""
SHORT_PART = 4
"""Characters of Base64 below which the part of it that is certain is in every other such text."""
WRAPPED = (64, 76)
"""Characters after which Base64 is broken into lines: PEM and OpenSSL; MIME, GNU and Python."""

_URL_SAFE = ("", "/", "~", "!*'()", ";,/?:@&=+$!*'()#")
"""What encoders leave as it is: strict ones, paths, and JavaScript's two."""
_FORM_SAFE = ("", "*")
_SHELL_SPECIAL = frozenset(" \t!\"#$&'()*,;<=>?[\\]^`{|}~")
_DOUBLE_SPECIAL = frozenset('"$`\\')
_ENTITIES = "<>&'\"+"
"""What some writers of JSON escape although they need not."""

Wanted = Callable[[str], bool]


def in_all_forms(value: str, shortest: int, wanted: Wanted) -> set[str]:
    """`value` in every form, as a whole and line by line; `shortest` and `wanted` are for lines."""
    found: set[str] = set()
    wholes = {value, value.strip()} - {""}
    for whole in wholes:
        found.update(_base64(whole.encode("utf-8", "surrogatepass")))
        found.update(_url_encoded(whole))
    for each in wholes.union(_lines(value, shortest, wanted)):
        found.update(_written(each))
        found.update(_quoted(each))
    return found


def in_few_forms(value: str, shortest: int, wanted: Wanted) -> set[str]:
    """`value` and its lines as they stand, and as JSON has them."""
    found: set[str] = set()
    for each in (value, *_lines(value, shortest, wanted)):
        found |= {each, json.dumps(each)[1:-1], json.dumps(each, ensure_ascii=False)[1:-1]}
    return found


def _lines(value: str, shortest: int, wanted: Wanted) -> list[str]:
    if "\n" not in value and "\r" not in value:
        return []
    lines = [line for each in value.replace("\r", "\n").split("\n") if (line := each.strip())]
    lines = [line for line in lines if wanted(line)]
    if shortest >= SHORT_LINE:
        return lines
    return [line for line in lines if len(line) >= SHORT_LINE] or lines


def _written(value: str) -> Iterator[str]:
    """As it stands and as JSON has it: alone, and in JSON that is a text in JSON again."""
    yield value
    for ascii_only in (True, False):
        once = json.dumps(value, ensure_ascii=ascii_only)[1:-1]
        for escaped in {once, once.replace("/", "\\/"), _without_entities(once)}:
            yield escaped
            yield json.dumps(escaped)[1:-1]
        if not value.isascii() and ascii_only:
            yield "".join(_upper_escape(each) for each in value)
    yield repr(value)[1:-1]


def _without_entities(escaped: str) -> str:
    for each in _ENTITIES:
        # the quotation mark is escaped already
        escaped = escaped.replace('\\"' if each == '"' else each, f"\\u{ord(each):04x}")
    return escaped


def _upper_escape(character: str) -> str:
    escaped = json.dumps(character)[1:-1]
    if character.isascii():
        return escaped
    return "\\u" + "\\u".join(each.upper() for each in escaped.split("\\u")[1:])


def _quoted(value: str) -> Iterator[str]:
    """As shells have it: in single quotes of two kinds, in double quotes, and bare."""
    yield shlex.quote(value).removeprefix("'").removesuffix("'")
    yield value.replace("'", "'\\''")
    yield value.replace("'", "''")  # YAML and SQL
    yield "".join(f"\\{each}" if each in _DOUBLE_SPECIAL else each for each in value)
    yield "".join(f"\\{each}" if each in _SHELL_SPECIAL else each for each in value)


def _url_encoded(value: str) -> Iterator[str]:
    raw = value.encode("utf-8", "surrogatepass")
    encoded = {quote(raw, safe=each) for each in _URL_SAFE}
    encoded |= {quote_plus(raw, safe=each) for each in _FORM_SAFE}
    encoded |= {each.replace("~", "%7E") for each in encoded}
    for each in encoded:
        yield each
        yield _lower_escapes(each)


def _lower_escapes(encoded: str) -> str:
    first, *others = encoded.split("%")
    return first + "".join(f"%{each[:2].lower()}{each[2:]}" for each in others)


def _base64(raw: bytes) -> Iterator[str]:
    for offset in range(3):
        for encoded in _aligned(raw, offset):
            yield encoded
            yield encoded.replace("+", "-").replace("/", "_")
            yield encoded.replace("/", "\\/")
            quoted = quote(encoded, safe="")
            yield quoted
            yield _lower_escapes(quoted)
    whole = base64.b64encode(raw).decode()
    for width in WRAPPED:
        yield from _wrapped(whole, width)


def _aligned(raw: bytes, offset: int) -> Iterable[str]:
    """What Base64 has of `raw` when `offset` more bytes, of three, are before it.

    Characters that hold bits of a neighbour are left out, but for the end of the data, padded or not.
    """
    encoded = base64.b64encode(b"\0" * offset + raw).decode()[-(-offset * 8 // 6) :]
    certain = (offset + len(raw)) * 8 // 6 - -(-offset * 8 // 6)
    parts = {encoded, encoded.rstrip("="), encoded[:certain]}
    return [each for each in parts if len(each) >= SHORT_PART]


def _wrapped(encoded: str, width: int) -> Iterator[str]:
    if len(encoded) <= width:
        return
    for begin in range(0, len(encoded), width):
        line = encoded[begin : begin + width]
        if len(line) >= 2 * SHORT_PART:
            yield line
            yield line.rstrip("=")
