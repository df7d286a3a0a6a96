"""The short form of the fuzzing of `make hostile`: no parser has any error but its own."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.hostile.parsers import PARSERS

EXAMPLES = 60
TOKENS = (
    b"[]{}()<>\"':;,.=&%*?+-!/\\|~^@#$_ \t\r\n\0",
    *(b"AND", b"OR", b"NOT", b"TO", b"i:0;", b"a:2:{", b"<!DOCTYPE x>", b"&a;", b"NaN", b"1e999"),
    *(b"\xff", b"\xed\xa0\x80", b"\\ud800", b"..", b"/", b"0" * 5_000, b"9" * 5_000, b"[" * 5_000),
    *(b"\x1f\x8b", b"PK\5\6", b"\x28\xb5\x2f\xfd", b"\x1e\x0f", b"bytes=", b"&a ", b"*a", b"!!"),
)


def mutated(seeds: tuple[bytes, ...]) -> st.SearchStrategy[bytes]:
    """Anything, or what a parser can read with pieces cut out, put in and repeated."""

    @st.composite
    def change(draw: st.DrawFn) -> bytes:
        data = draw(st.sampled_from(seeds))
        for _ in range(draw(st.integers(1, 6))):
            begin = draw(st.integers(0, len(data)))
            end = draw(st.integers(begin, min(len(data), begin + 20)))
            piece = draw(
                st.one_of(
                    st.binary(max_size=8),
                    st.sampled_from(TOKENS),
                    st.integers(2, 50).map(data[begin:end].__mul__),
                )
            )
            data = data[:begin] + piece + data[end:]
        return data

    return st.one_of(st.binary(max_size=400), change())


@pytest.mark.parametrize("name", list(PARSERS))
def test_a_parser_reads_anything_or_says_that_it_cannot(name: str) -> None:
    parser = PARSERS[name]

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(mutated(parser.seeds))
    def feed(data: bytes) -> None:
        parser.feed(data)

    for seed in parser.seeds:
        parser.feed(seed)
    feed()
