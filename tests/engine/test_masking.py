"""Secrets in text are hidden."""

from __future__ import annotations

import base64
import json
import re
import shlex
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from vaka.actors.snapshot import hide_secrets
from vaka.errors import UserError
from vaka.masking import HIDDEN, MOST, PIECE, Masker
from vaka.models.configuration import secrets


@pytest.mark.scenario("runner", 153)
def test_each_value_is_hidden_wherever_it_stands() -> None:
    masker = Masker(["e", "foo", "bar"], shortest=1)
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
    masked = Masker(values, shortest=1).text(" ".join([text, *values, text]))
    remains = masked.split(HIDDEN)
    assert not [value for value in values for part in remains if value in part]


VALUES = st.lists(st.text("ab\n", min_size=1, max_size=4), max_size=4)


@given(VALUES, st.text("abc\n", max_size=60), st.integers(0, 60))
def test_a_prefix_is_masked_as_it_is_in_the_whole(values: list[str], text: str, cut: int) -> None:
    masker = Masker(values, shortest=1)
    assert masker.text(text).startswith(masker.prefix(text[:cut]))
    assert len(text[:cut]) - len(masker.prefix(text[:cut])) < max(masker.longest, 1)


def test_a_suffix_begins_after_what_may_be_the_end_of_a_value() -> None:
    masker = Masker(["secret"])
    assert masker.longest == len("NlY3JldA%3D%3D")
    assert masker.suffix("cret and the other secret") == "other [hidden]"
    assert masker.suffix("12345678 secret....") == "[hidden]...."
    assert Masker().suffix("all of it") == "all of it"


def test_a_value_of_several_lines_is_hidden_line_by_line() -> None:
    masker = Masker(["-----BEGIN-----\n  key one\n}\n-----END-----\n"])
    assert masker.lines("a key one\n}\n-----END-----\n") == "a [hidden]\n}\n[hidden]\n"
    assert masker.text("x -----BEGIN-----\n  key one\n}\n-----END-----\n") == "x [hidden]"
    assert Masker(["ab\ncd"], shortest=1).lines("ab\ncd\n") == "[hidden]\n[hidden]\n"


def test_of_many_values_those_that_are_there_are_found() -> None:
    masker = Masker([f"<{number}>" for number in range(200)], shortest=3)
    for number in range(200):  # more searches than are kept
        assert masker.text(f"<{number}> and <{number + 1}>").count(HIDDEN) == 1 + (number < 199)


# -- forms -----------------------------------------------------------------------------------------

AWKWARD = "Žl ut/\"o'u$c\\k ~k+u`n <&> 😀 = 9f8e7d6c5b4a"


def cut_by_a_shell(value: str) -> str:
    return "".join(each if each.isalnum() or each in "/_-." else f"\\{each}" for each in value)


def of_javascript(value: str) -> str:
    return quote(value, safe="!*'()")


def of_go(value: str) -> str:
    written = json.dumps(value, ensure_ascii=False)[1:-1]
    return written.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


WRITERS: dict[str, Callable[[str], str]] = {
    "raw": str,
    "JSON": json.dumps,
    "JSON in UTF-8": partial(json.dumps, ensure_ascii=False),
    "JSON of PHP": lambda value: json.dumps(value).replace("/", "\\/"),
    "JSON with large digits": lambda value: re.sub(
        r"\\u....", lambda found: "\\u" + found[0][2:].upper(), json.dumps(value)
    ),
    "JSON in JSON": lambda value: json.dumps(json.dumps({"x": value})),
    "Python": repr,
    "URL": partial(quote, safe=""),
    "URL path": quote,
    "URL of JavaScript": of_javascript,
    "URL with small digits": lambda value: re.sub(
        "%..", lambda found: found[0].lower(), quote(value, safe="")
    ),
    "form": quote_plus,
    "form with small digits": lambda value: re.sub(
        "%..", lambda found: found[0].lower(), quote_plus(value)
    ),
    "single quotes": shlex.quote,
    "quotes in quotes": lambda value: "'" + value.replace("'", "'\\''") + "'",
    "YAML and SQL": lambda value: "'" + value.replace("'", "''") + "'",
    "double quotes": lambda value: '"' + re.sub(r'(["$`\\])', r"\\\1", value) + '"',
}


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("secret", [AWKWARD, "plain-words 9f8e7d6c5b4a", "a/b?c=d&9f8e7d6c5b4a"])
def test_nothing_is_left_of_a_secret_however_it_is_written(writer: str, secret: str) -> None:
    written = WRITERS[writer](secret)
    left = Masker([secret]).text(f"before {written} after")
    assert left.count(HIDDEN) == 1
    # nothing but what encloses it
    assert set(left.removeprefix("before ").removesuffix(" after").replace(HIDDEN, "")) <= set(
        "'\"\\{x: }"
    )


def test_json_of_go_is_known() -> None:
    assert Masker(["a<b>&c"]).text(of_go("a<b>&c")) == HIDDEN
    assert Masker(["it's-9f8e"]).text(cut_by_a_shell("it's-9f8e")) == HIDDEN


@given(
    st.binary(max_size=8),
    st.text(min_size=4, max_size=40).filter(lambda value: value.strip() == value),
    st.binary(max_size=8),
    st.booleans(),
)
def test_base64_hides_a_secret_at_any_alignment(
    before: bytes, secret: str, after: bytes, is_url_safe: bool
) -> None:
    masker = Masker([secret], shortest=4)
    assume(masker.hides(secret))
    raw = secret.encode()
    encode = base64.urlsafe_b64encode if is_url_safe else base64.b64encode
    written = encode(before + raw + after).decode()
    # the characters that hold only bits of the secret
    first, last = -(-len(before) * 8 // 6), (len(before) + len(raw)) * 8 // 6
    # an earlier place may look like the beginning of the secret, but only by chance of its bytes
    assume(written.find(written[first:last]) == first)
    left = masker.text(written)
    assert HIDDEN in left
    assert written[first:last] not in left


@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode])
@pytest.mark.parametrize("offset", [0, 1, 2])
@pytest.mark.parametrize("padded", [True, False])
@pytest.mark.parametrize("length", [20, 21, 22])
def test_base64_at_the_end_of_data_is_hidden_with_its_last_bits(
    encode: Callable[[bytes], bytes], offset: int, padded: bool, length: int
) -> None:
    secret = "s3\u00ff>?" + "9f8e7d6c5b4a" * 2
    secret = secret[:length]
    written = encode(b"x" * offset + secret.encode()).decode()
    if not padded:
        written = written.rstrip("=")
    kept = -(-offset * 8 // 6)
    assert Masker([secret]).text(f"[{written}]") == f"[{written[:kept]}{HIDDEN}]"


@pytest.mark.parametrize("width", [64, 76])
def test_base64_in_lines_is_hidden_line_by_line(width: int) -> None:
    secret = "".join(f"{number:03}!" for number in range(100)) + "9f8e7d6c5b4a!"
    whole = base64.b64encode(secret.encode()).decode()
    lines = [whole[at : at + width] for at in range(0, len(whole), width)]
    assert Masker([secret]).lines("\n".join(lines)) == "\n".join([HIDDEN] * len(lines))


def test_each_line_of_a_secret_is_hidden_in_json_and_shells_too() -> None:
    masker = Masker(["first \"line\"\r\nsecond 'line'\r\n"])
    assert masker.text(json.dumps(['first "line"'])) == '["[hidden]"]'
    assert masker.text("second '\\''line'\\''") == HIDDEN
    assert masker.lines('first "line"\r\nx\r\n') == "[hidden]\r\nx\r\n"


@pytest.mark.scenario("encryption", 81)
def test_the_longest_secret_at_a_place_is_hidden() -> None:
    assert Masker(["abc", "abcdef"]).text("abcdef") == HIDDEN
    assert Masker(["abc", "abcdef"], shortest=1).text("abcdef abcde") == "[hidden] [hidden]de"


def published() -> list[Any]:
    path = Path(__file__).parents[2] / "docs" / "spec" / "encryption-vectors.json"
    vectors: list[Any] = json.loads(path.read_text())["redaction_needles"]["vectors"]

    return vectors


@pytest.mark.parametrize("vector", published(), ids=lambda vector: vector["id"])
def test_every_published_form_is_hidden(vector: Any) -> None:
    secret = base64.b64decode(vector["secret_b64"]).decode()
    masker = Masker([secret], shortest=1)
    for needle in vector["needles"]:
        written = base64.b64decode(needle).decode()
        assert masker.text(f"({written})") in {f"({HIDDEN})", f'("{HIDDEN}")'}


# -- short and common values -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [
        "",
        "a",
        "abc",
        "true",
        "False",
        "admin",
        "null",
        "8080",
        "12345",
        "-1.5",
        "1e3",
        "0.125",
        "nan",
    ],
)
def test_what_is_in_every_text_is_not_hidden(value: str) -> None:
    masker = Masker([value])
    assert not masker.hides(value)
    assert masker.text(f"x{value}x {value}") == f"x{value}x {value}"


@pytest.mark.parametrize("value", ["abcd", "123456", "true!", "admin1", "secret", "-12345.75"])
def test_other_values_are(value: str) -> None:
    masker = Masker([value])
    assert masker.hides(value)
    assert masker.text(f"({value})") == "([hidden])"


def test_how_short_a_value_may_be_can_be_said() -> None:
    assert Masker(["abcdef"], shortest=7).text("abcdef") == "abcdef"
    assert Masker(["1"], shortest=1).text("a1") == "a[hidden]"


@pytest.mark.scenario("encryption", 82)
def test_an_empty_and_a_tiny_secret_are_hidden_by_structure_only() -> None:
    document = {"parameters": {"#empty": "", "#flag": "1", "count": 11, "text": 'a "" 1'}}
    masker = Masker(secrets(document))
    assert masker.text('row 1 of 11: ""') == 'row 1 of 11: ""'
    shown = json.loads(hide_secrets("config.json", json.dumps(document).encode(), masker))
    assert shown["parameters"] == {"#empty": "", "#flag": HIDDEN, "count": 11, "text": 'a "" 1'}


# -- any value, any text ---------------------------------------------------------------------------

ANY_TEXT = st.text(st.characters(), max_size=30)  # halves of surrogate pairs as well
ANY_DOCUMENT = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | ANY_TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(ANY_TEXT, inner, max_size=4),
    max_leaves=20,
)


@given(st.lists(ANY_TEXT, max_size=5), ANY_TEXT, ANY_DOCUMENT)
def test_no_value_and_no_text_is_too_odd(values: list[str], text: str, document: Any) -> None:
    for shortest in (1, 4):
        masker = Masker(values, shortest=shortest)
        found = masker.text(text + "".join(values) + text)
        parts = found.split(HIDDEN)
        assert not [value for value in values if masker.hides(value) for x in parts if value in x]
        assert masker.lines(text).count("\n") == text.count("\n")
        masker.prefix(text)
        masker.suffix(text)
        assert shape(masker.document(document)) == shape(document)
        masker.document(document, numbers=True)


def shape(document: Any) -> Any:
    match document:
        case dict():
            return [shape(each) for each in document.values()]
        case list():
            return [shape(each) for each in document]
        case str():
            return "text"
        case _:
            return type(document)


def test_documents_may_be_nested_more_deeply_than_functions_may() -> None:
    document: Any = "s3cret"
    for _ in range(50_000):
        document = [document]
    masked = Masker(["s3cret"]).document(document)
    while isinstance(masked, list):
        (masked,) = masked
    assert masked == HIDDEN


def test_keys_that_become_alike_are_numbered() -> None:
    masker = Masker(["s3cret", "t0ken!"])
    given = {"s3cret": 1, "t0ken!": 2, "[hidden] 2": 3, "a": 4, 5: "s3cret"}
    assert masker.document(given) == {
        "[hidden]": 1, "[hidden] 3": 2, "[hidden] 2": 3, "a": 4, 5: "[hidden]"
    }  # fmt: skip


def test_numbers_are_hidden_where_it_is_wanted() -> None:
    masker = Masker(["123456"])
    given = {"a": 123456, "b": [1.5, 71234567], "c": True}
    assert masker.document(given) == given
    hidden = {"a": HIDDEN, "b": [1.5, "7[hidden]7"], "c": True}
    assert masker.document(given, numbers=True) == hidden


def test_nothing_of_its_values_is_in_what_a_masker_prints_as() -> None:
    assert repr(Masker(["s3cret", "t0ken!"])) == "<Masker of 2 values>"


# -- bounds ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [PIECE, PIECE + 1, 10 * PIECE + 7, 40_000])
def test_a_long_secret_is_hidden_as_one_and_what_is_kept_of_a_stream_stays_small(
    length: int,
) -> None:
    secret = "".join(f"{number:05}," for number in range(length))[:length]
    masker = Masker([secret])
    assert masker.longest <= PIECE
    assert masker.text(f"<{secret}>") == "<[hidden]>"
    assert masker.text(f"<{secret}{secret}>") == "<[hidden][hidden]>"
    assert masker.prefix(f"<{secret}{' ' * PIECE}").startswith("<[hidden] ")


def test_secrets_that_are_too_long_to_be_hidden_are_refused() -> None:
    masker = Masker(["s3cret-value"])
    with pytest.raises(UserError, match="too many or too long to be hidden") as refused:
        masker.add(["\u00e9" * MOST])
    assert "\u00e9" not in str(refused.value)
    assert masker.text("the s3cret-value") == "the [hidden]"


def test_of_very_many_secrets_each_is_hidden_at_least_as_it_stands_and_in_json() -> None:
    values = [f"{number:07}/{'x' * 100}" for number in range(12_000)]
    masker = Masker(values)
    for value in (values[0], values[-1]):
        assert masker.text(f"a {value} {json.dumps(value)}") == 'a [hidden] "[hidden]"'


@pytest.mark.parametrize(
    ("values", "unit"),
    [
        (["a" * 400 + "b"], "a"),
        (["a" * 4, "a" * (PIECE - 1) + "b"], "a"),
        (["a" * 2_000], "a"),
        (["abab" * 100 + "c", "baba" * 100 + "c"], "ab"),
        (["\n" * 6 + "a"], "\n"),
        ([f"{number:06}" for number in range(200)], "012345"),
    ],
)
def test_the_time_for_a_text_grows_as_it_does(values: list[str], unit: str) -> None:
    """Sixteen times the text may take a hundred times as long, where squares take 256 times."""
    masker = Masker(values)

    def seconds(repeats: int) -> float:
        text = unit * repeats
        masker.lines(text)

        def once() -> float:
            began = time.process_time()
            masker.lines(text)
            masker.text(text)
            return time.process_time() - began

        return min(once() for _ in range(3))

    assert seconds(16 * 20_000) <= 100 * max(seconds(20_000), 1e-4)


def test_another_thread_may_mask_while_values_are_added() -> None:
    masker = Masker(["s3cret-0"])
    texts: list[str] = []

    def mask() -> None:
        while len(texts) < 20:
            texts.append(masker.text("the s3cret-0") + masker.lines("\ns3cret-0"))

    thread = threading.Thread(target=mask)
    thread.start()
    number = 0
    while thread.is_alive():
        number += 1
        masker.add([f"s3cret-{number}"])
        assert masker.text(f"s3cret-{number}") == HIDDEN
    thread.join()
    assert set(texts) == {"the [hidden]\n[hidden]"}
