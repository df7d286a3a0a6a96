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
