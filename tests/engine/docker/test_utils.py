"""The small conversions give what aiodocker's give."""

from __future__ import annotations

import base64
import io
import tarfile
from pathlib import Path
from typing import Any

import aiodocker.utils
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vaka.docker import utils

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3)
    ),
    max_leaves=6,
)


@given(json_values, json_values)
def test_identical_agrees(left: Any, right: Any) -> None:
    their_identical: Any = aiodocker.utils.identical
    assert utils.identical(left, right) == their_identical(left, right)
    assert utils.identical(left, left)


@given(st.none() | st.dictionaries(st.text(max_size=3), json_values, max_size=3))
def test_httpize_agrees(params: dict[str, Any] | None) -> None:
    assert utils.httpize(params) == aiodocker.utils.httpize(params)


@given(st.none() | st.dictionaries(st.text(max_size=3), json_values, max_size=3))
def test_clean_filters_agrees(filters: dict[str, Any] | None) -> None:
    assert utils.clean_filters(filters) == aiodocker.utils.clean_filters(filters)


@pytest.mark.parametrize(
    "value", ["true", "Yes", "y", "1", "FALSE", "no", "n", "0", 0, 1, None, []]
)
def test_human_bool_agrees(value: Any) -> None:
    assert utils.human_bool(value) is aiodocker.utils.human_bool(value)


def test_human_bool_refuses_what_is_neither() -> None:
    with pytest.raises(ValueError, match="'perhaps' is neither yes nor no"):
        utils.human_bool("perhaps")


@pytest.mark.parametrize("filters", [["label=a"], "label=a"])
def test_filters_must_be_a_mapping(filters: Any) -> None:
    with pytest.raises(TypeError, match="must be a mapping"):
        utils.clean_filters(filters)


@pytest.mark.parametrize("value", [None, "v", b"v", ""])
def test_format_env_agrees(value: Any) -> None:
    assert utils.format_env("NAME", value) == aiodocker.utils.format_env("NAME", value)


def test_clean_map_and_clean_networks_agree() -> None:
    assert utils.clean_map({"a": None, "b": 0}) == aiodocker.utils.clean_map({"a": None, "b": 0})
    for networks in (None, [], ["a"], [{"Target": "a"}, "b"]):
        assert utils.clean_networks(networks) == aiodocker.utils.clean_networks(networks)  # type: ignore[arg-type]  # objects are taken too
    with pytest.raises(TypeError, match="must be a list"):
        utils.clean_networks(("a",))


@pytest.mark.parametrize(
    "text", ["text/plain", "Application/JSON; Charset=UTF-8", "a/b; c=d;; e=f"]
)
def test_parse_content_type_agrees(text: str) -> None:
    assert utils.parse_content_type(text) == aiodocker.utils.parse_content_type(text)


@pytest.mark.parametrize("text", ["text", "a/b/c", "text/plain; charset"])
def test_a_broken_content_type_is_refused_by_both(text: str) -> None:
    for module in (utils, aiodocker.utils):
        with pytest.raises(ValueError, match=r"(?i)invalid"):
            module.parse_content_type(text)


LEGACY = base64.b64encode(b"user:pass:word").decode()


@pytest.mark.parametrize(
    "auth",
    [
        {"username": "u", "password": "p"},
        {"identitytoken": "t"},
        {"auth": LEGACY},
        LEGACY,
        LEGACY.encode(),
        {"username": "ü", "password": "?>~"},
    ],
)
@pytest.mark.parametrize("registry", [None, "127.0.0.1:5000"])
def test_credentials_are_put_as_aiodocker_puts_them(auth: Any, registry: str | None) -> None:
    ours = utils.compose_auth_header(auth, registry)
    assert ours == aiodocker.utils.compose_auth_header(auth, registry)


def test_credentials_of_another_form_are_refused_without_being_told() -> None:
    with pytest.raises(TypeError, match="base64 encoded"):
        utils.compose_auth_header(5)  # type: ignore[arg-type]  # that is the point
    with pytest.raises(ValueError, match="no colon") as caught:
        utils.compose_auth_header(base64.b64encode(b"sesame"))
    assert "sesame" not in str(caught.value)


def test_a_dockerfile_becomes_an_archive(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"FROM scratch\n")
    with (tmp_path / "file").open("rb") as file:
        for source in (io.BytesIO(b"FROM scratch\n"), file):
            with utils.mktar_from_dockerfile(source) as packed, tarfile.open(fileobj=packed) as tar:
                assert tar.getnames() == ["Dockerfile"]
                member = tar.extractfile("Dockerfile")
                assert member is not None
                assert member.read() == b"FROM scratch\n"
