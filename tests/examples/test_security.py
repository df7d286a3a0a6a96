"""`SECURITY.md`: each guarantee names tests that are there and are run."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "SECURITY.md").read_text()
GUARANTEES = dict(
    re.findall(r"^\| (.+?) \| (.*`tests/.*) \|$", TEXT.partition("## Guarantees")[2], re.MULTILINE)
)


@cache
def functions_of(file: str) -> dict[str, list[str]]:
    """Names of the functions in a file, each with its decorators."""
    tree = ast.parse((ROOT / file).read_text())
    return {
        node.name: [ast.unparse(each) for each in node.decorator_list]
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }


def test_every_row_of_the_guarantees_names_a_test() -> None:
    rows = re.findall(r"^\| (?!Guarantee \||-)", TEXT.partition("## Guarantees")[2], re.MULTILINE)
    assert len(rows) == len(GUARANTEES) > 15


@pytest.mark.parametrize("guarantee", GUARANTEES)
def test_a_guarantee_names_tests_that_are_there_and_run(guarantee: str) -> None:
    named = re.findall(r"`(tests/[^`]+?\.py)::(\w+)`", GUARANTEES[guarantee])
    assert len(named) == GUARANTEES[guarantee].count("`tests/")
    for file, test in named:
        assert test.startswith("test_")
        assert test in functions_of(file), f"{file} has no {test}"
        assert not any("skip" in each for each in functions_of(file)[test]), (
            f"{test} may be skipped"
        )


def test_what_the_page_refers_to_is_there() -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", TEXT):
        assert (ROOT / target).exists(), f"SECURITY.md refers to {target}"
