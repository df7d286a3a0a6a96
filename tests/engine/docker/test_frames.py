"""The framing of two output streams, undone from any cut of the bytes."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vaka.docker import DockerError, DockerStreamError, DockerStreamTruncated, Message
from vaka.docker._frames import MOST_DATA, Demultiplexer, MessageReader


def frame(stream: int, data: bytes) -> bytes:
    return struct.pack(">BxxxL", stream, len(data)) + data


def merged(messages: Iterable[Message]) -> list[tuple[int, bytes]]:
    """Messages with neighbours of the same stream joined: what was printed, without borders."""
    groups = itertools.groupby(messages, key=lambda message: message.stream)
    return [(stream, b"".join(m.data for m in group)) for stream, group in groups]


frames = st.lists(st.tuples(st.sampled_from([0, 1, 2]), st.binary(max_size=300)), max_size=8)


@given(frames, st.data())
def test_any_cut_of_the_bytes_gives_the_same_messages(
    printed: list[tuple[int, bytes]], data: st.DataObject
) -> None:
    raw = b"".join(frame(stream, content) for stream, content in printed)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=6)))
    demultiplexer = Demultiplexer()
    messages: list[Message] = []
    for start, end in itertools.pairwise([0, *cuts, len(raw)]):
        messages += demultiplexer.feed(raw[start:end])
    assert messages == [Message(*each) for each in printed if each[1]]
    assert demultiplexer.missing == 0


@given(st.integers(1, 40), st.data())
def test_what_is_missing_of_a_frame_is_known_to_the_byte(length: int, data: st.DataObject) -> None:
    raw = frame(1, b"x" * length)
    cut = data.draw(st.integers(1, len(raw) - 1))
    demultiplexer = Demultiplexer()
    assert demultiplexer.feed(raw[:cut]) == []
    assert demultiplexer.missing == (8 - cut if cut < 8 else len(raw) - cut)


def test_a_long_frame_comes_in_pieces_and_is_never_held_whole() -> None:
    demultiplexer = Demultiplexer()
    head = struct.pack(">BxxxL", 2, 0xFFFF_FFFF)
    assert demultiplexer.feed(head) == []
    for _ in range(50):
        messages = demultiplexer.feed(b"x" * MOST_DATA)
        assert [(m.stream, len(m.data)) for m in messages] == [(2, MOST_DATA)]
        assert len(demultiplexer._buffer) == 0


def test_a_long_frame_between_others_is_joined_again_without_a_gap() -> None:
    data = bytes(range(256)) * 1024
    raw = frame(1, b"before") + frame(2, data) + frame(1, b"after")
    demultiplexer = Demultiplexer()
    chunks = [raw[at : at + 1000] for at in range(0, len(raw), 1000)]
    messages = [message for chunk in chunks for message in demultiplexer.feed(chunk)]
    assert merged(messages) == [(1, b"before"), (2, data), (1, b"after")]
    assert max(len(message.data) for message in messages) == MOST_DATA


@pytest.mark.parametrize("raw", [b"plain text of a terminal", b"\x01\x00\x01\x00\x00\x00\x00\x01x"])
def test_output_without_frames_is_refused(raw: bytes) -> None:
    with pytest.raises(DockerError, match="not framed"):
        Demultiplexer().feed(raw)


def reader(*chunks: bytes, tty: bool = False) -> MessageReader:
    left = list(chunks)

    async def receive() -> bytes:
        return left.pop(0) if left else b""

    return MessageReader(receive, tty=tty, address="unix:///test.sock")


async def test_an_end_between_frames_is_an_end() -> None:
    messages = reader(frame(1, b"a"), frame(2, b"b"))
    assert [await messages.read() for _ in range(4)] == [
        Message(1, b"a"),
        Message(2, b"b"),
        None,
        None,
    ]


@pytest.mark.parametrize(("cut", "missing"), [(3, 5), (8, 5), (11, 2)])
async def test_an_end_inside_a_frame_is_a_truncation(cut: int, missing: int) -> None:
    messages = reader(frame(1, b"whole") + frame(1, b"short")[:cut])
    assert await messages.read() == Message(1, b"whole")
    with pytest.raises(DockerStreamTruncated, match=rf"{missing} bytes short.*unix:///test.sock"):
        await messages.read()


async def test_an_error_of_the_daemon_inside_the_stream_is_raised_after_what_came_before() -> None:
    messages = reader(frame(1, b"line\n") + frame(3, b"Error grabbing logs: disk\n"))
    assert await messages.read() == Message(1, b"line\n")
    with pytest.raises(DockerStreamError, match="Error grabbing logs: disk"):
        await messages.read()


async def test_a_terminals_output_is_standard_output_as_it_comes() -> None:
    messages = reader(b"\x01\x00\x00\x00", b"\x00\x00\x00\x05", tty=True)
    assert await messages.read() == Message(1, b"\x01\x00\x00\x00")
    assert await messages.read() == Message(1, b"\x00\x00\x00\x05")
    assert await messages.read() is None
