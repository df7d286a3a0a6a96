"""The text serialisation that envelopes of key services are in: exactly the part of it that they use.

Strings, and arrays of them, two levels at most. Anything else is refused where it is met: a general
reader of this format can be made to do what it is told (encryption.md section 5).
"""

from __future__ import annotations

import base64
import binascii
import re
import zlib
from collections.abc import Mapping
from typing import Final, TypeAlias

Key: TypeAlias = int | bytes
Flat: TypeAlias = dict[Key, bytes]

LARGEST: Final = 4 << 20
"""Bytes of an inflated body."""
MOST: Final = 8
"""Members of an array."""
_ARRAY: Final = re.compile(rb"a:(0|[1-9][0-9]?):\{")
_INTEGER: Final = re.compile(rb"i:(0|[1-9][0-9]{0,8});")
_STRING: Final = re.compile(rb's:(0|[1-9][0-9]{0,7}):"')
_SPACE: Final = str.maketrans("", "", " \t\n\r\v\f")


class Malformed(ValueError):
    """Text or bytes that are not what they must be."""


def decode_base64(text: str) -> bytes:
    """Standard base64; white space is skipped, padding may be missing, nothing else is forgiven."""
    plain = text.translate(_SPACE).rstrip("=")
    try:
        return base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
    except (ValueError, binascii.Error):
        raise Malformed("not base64") from None


def inflate(data: bytes) -> bytes:
    """What a zlib stream holds, up to `LARGEST` bytes, and nothing after it."""
    stream = zlib.decompressobj()
    try:
        content = stream.decompress(data, LARGEST)
    except zlib.error:
        raise Malformed("not a zlib stream") from None
    if not stream.eof or stream.unused_data or stream.unconsumed_tail:
        raise Malformed("not one whole zlib stream, or too large")
    return content


def read_array(data: bytes) -> Flat:
    """An array of strings, by integers or texts."""
    array, end = _array(data, 0)
    if end != len(data):
        raise Malformed("trailing bytes")
    return array


def read_pair(data: bytes) -> tuple[Flat, bytes]:
    """An array whose member 0 is an array of strings, and whose member 1 is a string."""
    head = _ARRAY.match(data)
    if head is None or head[1] != b"2":
        raise Malformed("not an array of two")
    key, at = _key(data, head.end())
    inner, at = _array(data, at)
    other, at = _key(data, at)
    text, at = _string(data, at)
    if (key, other) != (0, 1) or data[at:] != b"}":
        raise Malformed("not the two members")
    return inner, text


def read_envelope(body: str) -> Flat:
    """The array of strings in a cipher's body."""
    return read_array(inflate(decode_base64(body)))


def write_metadata(metadata: Mapping[str, str]) -> bytes:
    """Metadata sorted by name, as one key service authenticates them: the text of their coding."""
    parts = [f"a:{len(metadata)}:{{".encode()]
    for item in sorted(metadata.items()):
        for text in item:
            data = text.encode()
            parts += (f's:{len(data)}:"'.encode(), data, b'";')
    parts.append(b"}")
    return base64.b64encode(zlib.compress(b"".join(parts), 6))


def _array(data: bytes, at: int) -> tuple[Flat, int]:
    head = _ARRAY.match(data, at)
    if head is None or int(head[1]) > MOST:
        raise Malformed("not an array, or too long")
    found: Flat = {}
    at = head.end()
    for _ in range(int(head[1])):
        key, at = _key(data, at)
        if key in found:
            raise Malformed("a member twice")
        found[key], at = _string(data, at)
    if data[at : at + 1] != b"}":
        raise Malformed("an array that does not end")
    return found, at + 1


def _key(data: bytes, at: int) -> tuple[Key, int]:
    number = _INTEGER.match(data, at)
    if number is not None:
        return int(number[1]), number.end()
    return _string(data, at)


def _string(data: bytes, at: int) -> tuple[bytes, int]:
    head = _STRING.match(data, at)
    if head is None:
        raise Malformed("not a string")
    end = head.end() + int(head[1])
    if data[end : end + 2] != b'";':
        raise Malformed("a string of another length")
    return data[head.end() : end], end + 2
