"""Lines and excerpts of what containers print."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vaka.actors.output import (
    MESSAGE_CHARACTERS,
    TRIMMED,
    Excerpt,
    LineSplitter,
    OutputReader,
    sanitise,
)
from vaka.masking import Masker
from vaka.models.container import OutputChunk


def feed(splitter: LineSplitter, *reads: bytes) -> list[str]:
    lines = [line for read in reads for line in splitter.feed(read)]
    return lines + splitter.finish()


def test_a_line_may_come_in_any_number_of_reads() -> None:
    assert feed(LineSplitter(100), b"on", b"e\ntw", b"o", b"\r\nthree") == ["one", "two", "three"]


def test_blank_lines_make_no_event_and_are_accounted_for() -> None:
    splitter = LineSplitter(100)
    assert splitter.feed(b"\n  \t\r\n\nx\n") == ["x"]
    assert splitter.told == len(b"\n  \t\r\n\nx\n")


def test_leading_white_space_of_a_line_stays() -> None:
    assert feed(LineSplitter(100), b"Traceback:\n  File x\n") == ["Traceback:", "  File x"]


def test_an_endless_line_is_cut_once_and_said_so() -> None:
    splitter = LineSplitter(10)
    lines = feed(splitter, b"a" * 8, b"a" * 8, b"a" * 1000, b"\nnext\n")
    assert lines == ["a" * 10 + TRIMMED, "next"]


def test_a_line_of_exactly_the_limit_is_whole() -> None:
    assert feed(LineSplitter(4), b"abcd\n", b"abcde\n") == ["abcd", "abcd" + TRIMMED]


def test_an_endless_line_takes_no_memory() -> None:
    splitter = LineSplitter(1_000)
    for _ in range(1_000):
        splitter.feed(b"x" * 10_000)
    assert splitter.received - splitter.told <= 4_000


@pytest.mark.scenario("runner", 157)
@pytest.mark.parametrize("text", ["this is secret which is hidden", "this is secret" + "t" * 999])
def test_a_line_is_masked_before_it_is_cut(text: str) -> None:
    (line,) = feed(LineSplitter(13, Masker(["secret"])), text.encode())
    assert line == "this is [hidd [trimmed]"


def test_a_secret_is_not_seen_where_an_endless_line_is_cut() -> None:
    masker = Masker(["secret", "a" * 50])
    for at in range(40, 300):
        reads = [b"a" * 50] * 20 + [b"b" * at, b"secret" * 100]
        (line,) = feed(LineSplitter(100, masker), *reads)
        assert "secret" not in line
        assert "[hidden]" in line


@given(st.lists(st.text("se\nb", max_size=6).map(str.encode), max_size=30), st.integers(1, 9))
def test_masked_lines_do_not_depend_on_how_reads_were_cut(reads: list[bytes], limit: int) -> None:
    def masked(*reads: bytes) -> list[str]:
        return feed(LineSplitter(limit, Masker(["ss\ne\nb", "ee", "b\nb"], shortest=1)), *reads)

    assert masked(*reads) == masked(b"".join(reads))


@given(st.lists(st.text("se\nb", max_size=6).map(str.encode), max_size=30))
def test_a_second_reader_finds_the_same_secrets(reads: list[bytes]) -> None:
    masker = Masker(["ss\ne\nb", "ee", "b\nb"], shortest=1)
    once = feed(LineSplitter(100, masker), b"".join(reads))
    told: list[str] = []
    offset = 0
    for place in range(len(reads)):
        # as if the engine was killed after each read
        reader = OutputReader(100, {"stdout": offset}, masker)
        told += reader.feed(OutputChunk("stdout", b"".join(reads[: place + 1])))
        offset = reader.told[0]
    reader = OutputReader(100, {"stdout": offset}, masker)
    told += reader.feed(OutputChunk("stdout", b"".join(reads))) + reader.finish()["stdout"]
    assert told == once


def test_a_message_is_masked_before_its_middle_is_left_out() -> None:
    secret = "<" + "x" * 300
    for shift in range(0, 400, 7):
        excerpt = Excerpt()
        excerpt.feed(b"." * shift + secret.encode() * 2_000 + b"." * shift)
        assert "x" not in excerpt.text(Masker([secret]))
        assert "x" not in excerpt.tail(50, Masker([secret]))


def test_bytes_that_are_no_text_are_dropped() -> None:
    assert sanitise(b"begin\n\x3d\xd8\x4f\xdeend") == "begin\n=Oend"


@given(st.lists(st.binary(max_size=40), max_size=30), st.integers(1, 60))
def test_lines_do_not_depend_on_how_reads_were_cut(reads: list[bytes], step: int) -> None:
    whole = b"".join(reads)
    even = [whole[start : start + step] for start in range(0, len(whole), step)]
    assert feed(LineSplitter(10_000), *reads) == feed(LineSplitter(10_000), *even)


@given(st.lists(st.binary(max_size=40), max_size=20), st.lists(st.binary(max_size=40), max_size=20))
def test_a_second_reader_goes_on_where_the_first_one_stopped_telling(
    before: list[bytes], after: list[bytes]
) -> None:
    first = OutputReader(10_000, {})
    told_first = [line for data in before for line in first.feed(OutputChunk("stdout", data))]
    second = OutputReader(10_000, {"stdout": first.told[0]})
    told_second = [
        line
        for data in [b"".join(before), *after]
        for line in second.feed(OutputChunk("stdout", data))
    ] + second.finish()["stdout"]
    once = feed(LineSplitter(10_000), *before, *after)
    assert told_first + told_second == once
    everything = Excerpt()
    everything.feed(b"".join([*before, *after]))
    assert second.excerpts["stdout"].text() == everything.text()


def test_streams_are_counted_apart() -> None:
    reader = OutputReader(100, {})
    assert reader.feed(OutputChunk("stdout", b"out\nrest")) == ["out"]
    assert reader.feed(OutputChunk("stderr", b"err\n")) == ["err"]
    assert reader.told == (4, 4)
    assert reader.received == {"stdout": 8, "stderr": 4}
    assert reader.finish() == {"stdout": ["rest"], "stderr": []}
    assert reader.told == (8, 4)


def test_a_short_message_is_quoted_whole_and_trimmed() -> None:
    excerpt = Excerpt()
    excerpt.feed(b"\n  user ")
    excerpt.feed(b"error \n\0")
    assert excerpt.text() == "user error"


def test_of_a_long_message_the_two_ends_are_quoted() -> None:
    excerpt = Excerpt()
    for _ in range(2_000):
        excerpt.feed(b"a" * 500 + b"b" * 500)
    text = excerpt.text()
    assert len(text) == MESSAGE_CHARACTERS + len(" ... ")
    assert text.startswith("a" * 500 + "b" * 500)
    assert " ... " in text


@given(st.integers(0, 20_000))
def test_a_message_never_grows_beyond_its_limit(size: int) -> None:
    excerpt = Excerpt()
    excerpt.feed("é".encode() * size)
    text = excerpt.text()
    assert len(text) <= MESSAGE_CHARACTERS + len(" ... ")
    assert (" ... " in text) == (size > MESSAGE_CHARACTERS)


def test_the_tail_gives_the_last_lines() -> None:
    excerpt = Excerpt()
    excerpt.feed(b"".join(b"line %d\n" % number for number in range(1_000)))
    assert excerpt.tail(2) == "line 998\nline 999"
