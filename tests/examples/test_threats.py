"""The table of `docs/explanation/threats.md`: each row is one of the contract, and names real tests."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROWS = dict(
    re.findall(
        r"^\| (T[0-9]+) \| (.+) \|$",
        (ROOT / "docs/explanation/threats.md").read_text(),
        re.MULTILINE,
    )
)
CONTRACT = re.findall(
    r"^\| (T[0-9]+) \|", (ROOT / "docs/spec/encryption.md").read_text(), re.MULTILINE
)


def test_the_rows_are_those_of_the_contract_in_its_order() -> None:
    assert list(ROWS) == [row for row in CONTRACT if row in ROWS]
    assert len(ROWS) > 20


@pytest.mark.parametrize("row", ROWS)
def test_a_row_names_tests_that_are_there(row: str) -> None:
    named = re.findall(r"`([^`]+)::(test_[a-z0-9_]+)`", ROWS[row])
    assert named
    for file, test in named:
        tree = ast.parse((ROOT / "tests" / file).read_text())
        functions = {
            node.name
            for node in ast.walk(tree)
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        }
        assert test in functions, f"{row}: {file} has no {test}"
