"""Names of columns and names to be shown."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vaka.models.naming import webalize, webalize_display_name


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("_abc-def----ghi_", "abc_def_ghi"),
        ("žluťoučký    kůň", "zlutoucky_kun"),
        ("lot__of_____underscores____", "lot__of_____underscores"),
        ("Keeps Case", "Keeps_Case"),
        ("Straße/Łódź", "Strasse_Lodz"),
        ("ctid", "ctid_"),
        ("-_-", ""),
        ("😀", ""),
    ],
)
def test_column_names_are_plain(written: str, name: str) -> None:
    assert webalize(written) == name


@pytest.mark.parametrize(
    ("written", "name"), [("Můj první kbelík!", "Muj-prvni-kbelik"), ("_a-b_", "a-b"), ("$", "")]
)
def test_display_names_are_plain(written: str, name: str) -> None:
    assert webalize_display_name(written) == name


@given(st.text(max_size=100))
def test_a_plain_name_stays(written: str) -> None:
    once = webalize(written)
    assert webalize(once) == once
    assert once == "" or once.replace("_", "a").isalnum()
    assert once.isascii()
