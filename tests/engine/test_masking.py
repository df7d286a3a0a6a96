"""Secrets in text are hidden."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vaka.masking import HIDDEN, Masker


@pytest.mark.scenario("runner", 153)
def test_each_value_is_hidden_wherever_it_stands() -> None:
    masker = Masker(["e", "foo", "bar"])
    assert masker.text("abcdfooghijk") == "abcd[hidden]ghijk"
    assert masker.text("abcdefooghijk") == "abcd[hidden][hidden]ghijk"
    assert masker.text("abcdFooBarghijk") == "abcdFooBarghijk"


@pytest.mark.scenario("runner", 154)
def test_a_value_is_hidden_as_it_is_in_base64_and_in_json() -> None:
    secret = "sec\\ret/\"sec'ret"
    masker = Masker([secret])
    encoded = base64.b64encode(secret.encode()).decode()
    assert masker.text(f"a {secret} b") == "a [hidden] b"
    assert masker.text(f"a {encoded} b") == "a [hidden] b"
    assert secret[:3] not in masker.text(f"a {json.dumps(secret)} b")
    assert secret[:3] not in masker.text("a " + json.dumps(secret).replace("/", "\\/") + " b")


def test_a_value_that_contains_another_is_hidden_whole() -> None:
    assert Masker(["pass", "password"]).text("my password") == "my [hidden]"


def test_an_empty_value_hides_nothing() -> None:
    assert Masker([""]).text('a "" b') == 'a "" b'


def test_values_may_be_added_later() -> None:
    masker = Masker()
    assert masker.text("secret") == "secret"
    masker.add(["secret"])
    assert masker.text("secret") == HIDDEN


def test_documents_are_masked_in_keys_and_values() -> None:
    masker = Masker(["s3cret"])
    assert masker.document({"a": ["x s3cret", 1, None], "s3cret": {"b": True}}) == {
        "a": ["x [hidden]", 1, None],
        "[hidden]": {"b": True},
    }


@given(
    st.lists(st.text(min_size=1, max_size=8), min_size=1, max_size=6),
    st.text(max_size=200),
)
def test_no_value_is_left_in_what_was_masked(values: list[str], text: str) -> None:
    masked = Masker(values).text(" ".join([text, *values, text]))
    remains = masked.split(HIDDEN)
    assert not [value for value in values for part in remains if value in part]


VALUES = st.lists(st.text("ab\n", min_size=1, max_size=4), max_size=4)


@given(VALUES, st.text("abc\n", max_size=60), st.integers(0, 60))
def test_a_prefix_is_masked_as_it_is_in_the_whole(values: list[str], text: str, cut: int) -> None:
    masker = Masker(values)
    assert masker.text(text).startswith(masker.prefix(text[:cut]))
    assert len(text[:cut]) - len(masker.prefix(text[:cut])) < max(masker.longest, 1)


def test_a_suffix_begins_after_what_may_be_the_end_of_a_value() -> None:
    masker = Masker(["secret"])
    assert masker.longest == len("c2VjcmV0")
    assert masker.suffix("cret and the secret") == "d the [hidden]"
    assert masker.suffix("x secret.") == "[hidden]."
    assert Masker().suffix("all of it") == "all of it"


def test_a_value_of_several_lines_is_hidden_line_by_line() -> None:
    masker = Masker(["-----BEGIN-----\n  key one\n}\n-----END-----\n"])
    assert masker.lines("a key one\n}\n-----END-----\n") == "a [hidden]\n}\n[hidden]\n"
    assert masker.text("x -----BEGIN-----\n  key one\n}\n-----END-----\n") == "x [hidden]"
    assert Masker(["ab\ncd"]).lines("ab\ncd\n") == "[hidden]\n[hidden]\n"


def test_of_many_values_those_that_are_there_are_found() -> None:
    masker = Masker([f"<{number}>" for number in range(200)])
    for number in range(200):  # more searches than are kept
        assert masker.text(f"<{number}> and <{number + 1}>").count(HIDDEN) == 1 + (number < 199)
