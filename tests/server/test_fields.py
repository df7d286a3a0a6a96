"""Bodies and queries in all their encodings give one tree, within bounds."""

import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
import trio
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from werkzeug.exceptions import RequestEntityTooLarge

from vaka_server import fields
from vaka_server.body import Body
from vaka_server.fields import Fields, parse_form, read_fields
from vaka_server.problems import Refused

LIMIT = 1 << 20
FORM = "application/x-www-form-urlencoded"


async def read(raw: bytes, kind: str, folder: Path = Path("/nowhere"), **options: Any) -> Fields:
    """A body that comes in small parts."""
    body = Body(len(raw), None)
    for start in range(0, len(raw), 7):
        body.append(raw[start : start + 7])
    body.set_complete()
    return await read_fields(
        body, kind, limit=options.pop("limit", LIMIT), folder=folder, **options
    )


def multipart(*parts: tuple[str, str, bytes], boundary: str = "XyZ") -> tuple[bytes, str]:
    """A body and its content type; a part is a name, more of its disposition, and its content."""
    raw = b"".join(
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"{more}\r\n\r\n'.encode()
        + content
        + b"\r\n"
        for name, more, content in parts
    )
    return raw + f"--{boundary}--\r\n".encode(), f"multipart/form-data; boundary={boundary}"


def files(folder: Path) -> list[Path]:
    return list(folder.iterdir())


# -- PHP's brackets --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sent", "tree"),
    [
        ("", {}),
        ("&&", {}),
        ("a", {"a": ""}),
        ("a=", {"a": ""}),
        ("a=b=c", {"a": "b=c"}),
        ("a[]=x&a[]=y", {"a": ["x", "y"]}),
        ("a%5B%5D=x&a%5b%5d=y", {"a": ["x", "y"]}),
        ("tags[0]=x&tags[12]=y", {"tags": ["x", "y"]}),
        ("a[5]=x&a[1]=y&a[]=z", {"a": ["y", "x", "z"]}),
        ("a[0]=x&a[k]=y", {"a": {"0": "x", "k": "y"}}),
        ("bucketPermissions[in.c-x]=write", {"bucketPermissions": {"in.c-x": "write"}}),
        (
            "m[0][key]=k&m[0][value]=v&m[1][key]=l",
            {"m": [{"key": "k", "value": "v"}, {"key": "l"}]},
        ),
        (
            "input[0][source]=a&input[0][destination]=b",
            {"input": [{"source": "a", "destination": "b"}]},
        ),
        ("a[][x]=1&a[][x]=2", {"a": [{"x": "1"}, {"x": "2"}]}),
        ("a[x]=1&a[x]=2", {"a": {"x": "2"}}),
        ("a[x]=1&a[x][y]=2", {"a": {"x": {"y": "2"}}}),
        ("a=1&a[]=2", {"a": ["2"]}),
        ("a[]=1&a=2", {"a": "2"}),
        ("a[b=1", {"a[b": "1"}),
        ("[a]=1", {"[a]": "1"}),
        ("a[b]c=1", {"a": {"b": "1"}}),
        ("a[01]=1", {"a": {"01": "1"}}),
        ("a[-1]=1", {"a": {"-1": "1"}}),
        ("params.component=x", {"params.component": "x"}),
        ("a=%C4%8D+%26", {"a": "č &"}),
    ],
)
def test_brackets_are_what_php_makes_of_them(sent: str, tree: Any) -> None:
    assert parse_form(sent.encode()) == tree


def test_a_plain_name_that_is_repeated_is_a_list_where_one_is_wanted() -> None:
    found = Fields(parse_form(b"tableIds=a&tableIds=b&one=c&columns=a,b&columns=c"))
    assert found.list("tableIds") == ["a", "b"]
    assert found.words("tableIds") == ("a", "b")
    assert found.get("tableIds") == found.text("tableIds") == "b"
    assert found.list("one") == ["c"]
    assert found.list("none") == []
    assert found.words("columns") == ("a", "b", "c")


def test_what_is_too_much_is_refused_before_it_is_taken_apart() -> None:
    for sent in (
        b"a&" * fields.MOST_FIELDS,
        b"a" + b"[x]" * (fields.MOST_LEVELS + 1) + b"=1",
        b"a=%FF",
        b"a=\xff",
    ):
        with pytest.raises(Refused) as caught:
            parse_form(sent)
        assert (caught.value.status, caught.value.code) == (400, "malformedRequest")
    assert parse_form(b"a" + b"[x]" * fields.MOST_LEVELS + b"=1")


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
KEY = st.from_regex(
    r"[^\[\]\d\0-\x1f\ud800-\udfff][^\[\]\0-\x1f\ud800-\udfff]{0,5}", fullmatch=True
)
VALUE = st.recursive(
    TEXT,
    lambda inner: (
        st.lists(inner, min_size=1, max_size=3)
        | st.dictionaries(KEY, inner, min_size=1, max_size=3)
    ),
    max_leaves=8,
)
TREE = st.dictionaries(KEY, VALUE, max_size=3)


def pairs(value: Any, name: str) -> Iterator[tuple[str, str]]:
    """The fields that a PHP client sends for a value."""
    if isinstance(value, str):
        yield name, value
        return
    for key, member in value.items() if isinstance(value, dict) else enumerate(value):
        yield from pairs(member, f"{name}[{key}]")


@given(TREE)
def test_a_tree_comes_back_from_a_form_as_it_was(tree: dict[str, Any]) -> None:
    sent = [pair for name, value in tree.items() for pair in pairs(value, name)]
    for encode in (quote, quote_plus):
        raw = "&".join(f"{encode(n)}={encode(v)}" for n, v in sent).encode()
        assert parse_form(raw) == tree


@given(st.binary(max_size=200))
def test_whatever_is_sent_as_a_form_is_a_tree_or_refused(raw: bytes) -> None:
    with suppress(Refused):
        json.dumps(parse_form(raw))


@given(TREE)
@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_json_form_and_multipart_say_the_same(tmp_path: Path, tree: dict[str, Any]) -> None:
    sent = [pair for name, value in tree.items() for pair in pairs(value, name)]
    form = "&".join(f"{quote(n)}={quote(v)}" for n, v in sent).encode()
    assert trio.run(read, form, FORM).tree == tree
    raw = json.dumps(tree).encode()
    assert trio.run(read, raw, "application/json; charset=utf-8").tree == tree
    if all(name.isprintable() and '"' not in name and "\\" not in name for name, _ in sent):
        parts = multipart(*((name, "", value.encode()) for name, value in sent))
        assert trio.run(read, *parts, tmp_path).tree == tree


# -- bodies ----------------------------------------------------------------------------------------


async def test_no_body_is_no_fields() -> None:
    for kind in ("", "application/json", FORM, "text/plain"):
        assert (await read(b"", kind)).tree == {}
    assert (await read(b"[]", "application/json")).tree == {}


@pytest.mark.scenario("storage-api", 10)
@pytest.mark.parametrize(
    ("raw", "kind"),
    [
        (b"{", "application/json"),
        (b"[1]", "application/json"),
        (b'"a"', "application/json"),
        (b"\xff", "application/json"),
        (b"a", "text/plain"),
        (b"a", "multipart/form-data"),
        (b"a", "multipart/form-data; boundary=b"),
        (b"--b\r\n\r\na\r\n--b--", "multipart/form-data; boundary=b"),
        (
            b"--b\r\nContent-Disposition: form-data\r\n\r\na\r\n--b--",
            "multipart/form-data; boundary=b",
        ),
        (b"--b\r\n" + b"x" * (1 << 17), "multipart/form-data; boundary=b"),
        multipart(("other", '; filename="a"', b"x")),
        multipart(("data", '; filename="a"', b"x"), ("data", '; filename="b"', b"y")),
        multipart(("a", "", b"\xff")),
    ],
)
async def test_what_cannot_be_read_is_the_callers_mistake(
    raw: bytes, kind: str, tmp_path: Path
) -> None:
    with pytest.raises(Refused) as caught:
        await read(raw, kind, tmp_path)
    assert (caught.value.status, caught.value.code) == (400, "malformedRequest")
    assert files(tmp_path) == []


@given(st.binary(max_size=300))
@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_is_sent_as_multipart_is_fields_or_refused(tmp_path: Path, raw: bytes) -> None:
    for sent in (raw, b"--b\r\nContent-Disposition: form-data; name=data; filename=x\r\n" + raw):
        with suppress(Refused):
            trio.run(read, sent, "multipart/form-data; boundary=b", tmp_path).close()
        assert not any(tmp_path.iterdir())


async def test_a_file_goes_to_the_disk_and_is_removed(tmp_path: Path) -> None:
    content = bytes(range(256)) * 500 + b"\r\n--XyZ not the end\r\n--Xy"
    raw, kind = multipart(
        ("name", "", b"users"), ("data", '; filename="u.csv"', content), ("delimiter", "", b";")
    )
    found = await read(raw, kind, tmp_path)
    assert found.tree == {"name": "users", "delimiter": ";"}
    assert found.files["data"].read_bytes() == content
    found.close()
    assert files(tmp_path) == []
    with pytest.raises(RequestEntityTooLarge):
        await read(raw, kind, tmp_path, upload_limit=len(content) - 1)
    with pytest.raises(RequestEntityTooLarge):
        await read(raw, kind, tmp_path, limit=5)
    with pytest.raises(Refused):
        await read(raw[: len(raw) // 2], kind, tmp_path)
    assert files(tmp_path) == []


# -- values ----------------------------------------------------------------------------------------


def test_values_are_read_as_what_they_must_be() -> None:
    found = Fields(
        {
            "text": "a",
            "empty": "",
            "number": 12,
            "digits": "12",
            "yes": "True",
            "no": "0",
            "true": True,
            "null": None,
            "list": ["a", 1],
            "commas": "a,b,,c",
            "object": {"a": 1},
            "nothing": [],
            "json": '{"a": [1.50, {}]}',
            "time": "2024-01-31T12:00:00Z",
        }
    )
    assert (found.text("text"), found.text("empty"), found.text("number")) == ("a", "", "12")
    assert (found.text("null"), found.text("gone", "x")) == (None, "x")
    assert ("null" in found, "empty" in found, "gone" in found) == (False, True, False)
    assert found.required("text") == "a"
    assert [found.flag(name) for name in ("yes", "no", "true", "null")] == [
        True,
        False,
        True,
        False,
    ]
    assert found.flag("gone", True)
    assert found.whole("number", 0, most=20) == found.whole("digits", 0, most=20) == 12
    assert found.whole("gone", None, most=20) is None
    assert found.words("list") == ("a", "1")
    assert found.words("commas") == ("a", "b", "c")
    assert found.list("text") == ["a"]
    assert (found.mapping("object"), found.mapping("nothing"), found.mapping("gone")) == (
        {"a": 1},
        {},
        {},
    )
    assert found.json("json") == {"a": [1.5, {}]}
    assert (found.json("object"), found.json("nothing"), found.json("gone")) == ({"a": 1}, [], None)
    moment = found.moment("time")
    assert moment is not None
    assert moment.isoformat() == "2024-01-31T12:00:00+00:00"


@pytest.mark.parametrize(
    ("method", "value"),
    [
        ("text", ["a"]),
        ("text", {"a": "b"}),
        ("text", True),
        ("text", "a\0b"),
        ("required", ""),
        ("required", None),
        ("flag", "yes"),
        ("flag", ""),
        ("flag", 2),
        ("flag", ["1"]),
        ("words", [["a"]]),
        ("mapping", "a"),
        ("mapping", ["a"]),
        ("moment", "never"),
        ("moment", ["now"]),
    ],
)
def test_a_value_that_cannot_be_is_refused_by_its_name(method: str, value: Any) -> None:
    found = Fields({"member": value}, code="storage.buckets.validation")
    with pytest.raises(Refused, match=r"^member") as caught:
        getattr(found, method)("member")
    assert (caught.value.status, caught.value.code) == (400, "storage.buckets.validation")


@pytest.mark.parametrize("value", ["x", "1.5", "", -1, 21, "21", True, "9" * 30, [], "\uff11"])
def test_a_number_that_cannot_be_is_refused(value: Any) -> None:
    with pytest.raises(Refused, match="member: must be a whole number from 0 to 20"):
        Fields({"member": value}).whole("member", 0, most=20)


@pytest.mark.parametrize("value", ["x", "", "1", '"a"', "NaN", 5, True])
def test_json_that_is_none_has_a_word_of_its_own(value: Any) -> None:
    with pytest.raises(Refused, match="configuration: ") as caught:
        Fields({"configuration": value}).json("configuration")
    assert caught.value.code == "validation.invalidConfigurationFormat"
