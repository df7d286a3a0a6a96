"""GELF messages, out of the framings they travel in; bounded whatever comes."""

from __future__ import annotations

import gzip
import json
import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vaka.gelf import (
    CHUNK_MAGIC,
    CHUNK_PATIENCE,
    MESSAGE_BYTES,
    MOST_DEPTH,
    MOST_PARTIAL,
    Datagrams,
    Frames,
    Unreadable,
    messages,
)

MESSAGE = {"host": "abc", "short_message": "žluť", "level": 6}
PLAIN = json.dumps(MESSAGE).encode()


def one(data: bytes) -> Any:
    (found,) = messages(data)
    return str(found) if isinstance(found, Unreadable) else found


@pytest.mark.parametrize(
    "data", [PLAIN, zlib.compress(PLAIN), gzip.compress(PLAIN, mtime=0), b"\n" + PLAIN + b"\0"]
)
def test_a_message_may_be_compressed(data: bytes) -> None:
    assert messages(data) == [MESSAGE]


@pytest.mark.parametrize("data", [b"", b" \n\0"])
def test_nothing_is_no_message(data: bytes) -> None:
    assert messages(data) == []


def test_fields_of_its_own_that_hold_json_are_decoded() -> None:
    message = {"_a": '{"b": [1]}', "_c": "text", "d": '{"e": 1}', "_f": "12", "_g": "[" * 9}
    assert one(json.dumps(message).encode()) == {
        "_a": {"b": [1]},
        "_c": "text",
        "d": '{"e": 1}',
        "_f": 12,
        "_g": "[" * 9,
    }


def test_what_is_no_message_as_a_whole_may_be_one_a_line() -> None:
    first, second, third = messages(b'{"a": 1}\nnonsense\n\n{"b": 2}')
    assert (first, third) == ({"a": 1}, {"b": 2})
    assert str(second) == 'Cannot parse JSON data in event: "Syntax error". Data: "nonsense".'


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"{", 'Cannot parse JSON data in event: "Syntax error". Data: "{".'),
        (b'{"a": NaN}', 'Cannot parse JSON data in event: "Syntax error". Data: "{"a": NaN}".'),
        (b"[1]", 'Message data is not array: "[1]".'),
        (b'"text"', 'Message data is not array: ""text"".'),
        (b"\x78\x9cno", "Cannot decompress message"),
        (b"\x1f\x8bno", "Cannot decompress message"),
        (b"[" * 100_000, "Maximum stack depth exceeded"),
        (b'{"a":' * 100 + b"1" + b"}" * 100, "Maximum stack depth exceeded"),
        (b'{"_a": "%s"}' % (b"[" * 100 + b"]" * 100), "Maximum stack depth exceeded"),
        (b'{"a": %s}' % (b"1" * 10_000), "Syntax error"),
        (
            zlib.compress(b"a" * (MESSAGE_BYTES + 1)),
            f"Message is longer than {MESSAGE_BYTES} bytes",
        ),
        (gzip.compress(b"\0" * (100 << 20)), f"Message is longer than {MESSAGE_BYTES} bytes"),
    ],
    ids=range(12),
)
def test_what_is_no_message_says_why(data: bytes, reason: str) -> None:
    assert reason in one(data)


def test_a_message_may_be_as_deep_as_allowed() -> None:
    deep = b'{"a":' * (MOST_DEPTH - 1) + b"{}" + b"}" * (MOST_DEPTH - 1)
    assert isinstance(one(deep), dict)


def test_text_and_numbers_that_cannot_be_passed_on_are_mended() -> None:
    assert one(b'{"a\\ud800b": "\\udc00c", "n": [1e999], "bad\xff": 1}') == {
        "ab": "c",
        "n": ["inf"],
        "bad": 1,
    }


@given(st.binary(max_size=200))
def test_nothing_that_comes_is_an_error(data: bytes) -> None:
    for found in messages(data):
        assert isinstance(found, dict | Unreadable)
        json.dumps(found if isinstance(found, dict) else str(found)).encode()


@given(
    st.lists(st.binary(min_size=1, max_size=9).filter(lambda b: b"\0" not in b)), st.integers(1, 9)
)
def test_frames_do_not_depend_on_how_reads_were_cut(sent: list[bytes], step: int) -> None:
    data = b"\0".join(sent)
    frames = Frames()
    found = [each for at in range(0, len(data), step) for each in frames.feed(data[at : at + step])]
    assert found + frames.finish() == sent


def test_ends_without_a_message_are_none() -> None:
    frames = Frames()
    assert frames.feed(bytes(1_000)) == []
    assert frames.feed(b"a\0\0\0b\0\0c") == [b"a", b"b"]
    assert frames.feed(b"\0\0") == [b"c"]
    assert frames.finish() == []


def test_a_frame_without_an_end_is_said_once_and_takes_no_memory() -> None:
    frames = Frames()
    found = [each for _ in range(1_000) for each in frames.feed(b"x" * 10_000)]
    assert len(found) == 1
    assert f"longer than {MESSAGE_BYTES} bytes" in str(found[0])
    assert frames.feed(b"\0next\0") == [b"next"]
    assert frames.finish() == []


def chunk(index: int, count: int, data: bytes, id_: bytes = b"12345678") -> bytes:
    return CHUNK_MAGIC + id_ + bytes([index, count]) + data


def test_chunks_are_put_together_in_their_order_whenever_they_come() -> None:
    datagrams = Datagrams()
    assert datagrams.feed(chunk(2, 3, b"c"), "a", 0) is None
    assert datagrams.feed(chunk(0, 3, b"a"), "a", 1) is None
    assert datagrams.feed(chunk(0, 3, b"A"), "a", 1) is None
    assert datagrams.feed(chunk(1, 3, b"x"), "b", 1) is None
    assert datagrams.feed(b"whole", "a", 1) == b"whole"
    assert datagrams.feed(chunk(1, 3, b"b"), "a", 2) == b"abc"
    datagrams.finish()
    assert datagrams.given_up == 1


@pytest.mark.parametrize(
    "data",
    [CHUNK_MAGIC, chunk(0, 0, b""), chunk(3, 3, b""), chunk(0, 129, b""), chunk(0, 5, b"")],
)
def test_chunks_that_cannot_be_are_said(data: bytes) -> None:
    datagrams = Datagrams()
    assert datagrams.feed(chunk(1, 4, b""), "a", 0) is None
    assert isinstance(datagrams.feed(data, "a", 0), Unreadable)


def test_chunks_that_never_become_a_message_take_bounded_memory() -> None:
    datagrams = Datagrams()
    for number in range(1_000):
        assert datagrams.feed(chunk(0, 2, b"", number.to_bytes(8)), "a", 0) is None
    assert datagrams.given_up == 1_000 - MOST_PARTIAL
    assert datagrams.feed(chunk(1, 2, b"end", (999).to_bytes(8)), "a", 0) == b"end"
    assert datagrams.feed(chunk(0, 2, b""), "a", CHUNK_PATIENCE + 1) is None
    assert datagrams.given_up == 999
    big = [chunk(index, 128, b"x" * 60_000, b"bigbigbi") for index in range(5)]
    *parts, last = [datagrams.feed(each, "a", 0) for each in big]
    assert parts == [None] * 4
    assert f"longer than {MESSAGE_BYTES} bytes" in str(last)
