"""The guide's snippets are the example's, and its table has every hook."""

import ast
import re
import tomllib
from pathlib import Path
from typing import Any

from vaka import hooks

DOCS = Path(__file__).resolve().parents[2] / "docs"
GUIDE = (DOCS / "guides/write-a-plugin.md").read_text()
EXAMPLE = DOCS / "examples/vaka-sqlite"


def snippets(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL)


def test_the_guide_lists_every_hook() -> None:
    listed = re.findall(r"^\| `(vaka_\w+)` \|", GUIDE, re.MULTILINE)

    assert sorted(listed) == sorted(
        name
        for name, function in vars(hooks).items()
        if getattr(function, f"{hooks.PROJECT}_spec", None) is not None
    )


def test_the_guides_project_file_is_a_part_of_the_examples() -> None:
    (snippet,) = snippets("toml")
    whole = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())["project"]

    def is_part(part: Any, of: Any) -> bool:
        if isinstance(part, dict):
            return all(name in of and is_part(value, of[name]) for name, value in part.items())
        return bool(part == of)

    assert is_part(tomllib.loads(snippet)["project"], whole)


def test_the_guides_contract_class_is_the_examples() -> None:
    (snippet,) = (each for each in snippets("python") if "Contract" in each)
    module = ast.parse((EXAMPLE / "tests/test_contract.py").read_text())
    (theirs,) = (node for node in module.body if isinstance(node, ast.ClassDef))
    # without its docstring, and what it says of its limits
    theirs.body = [node for node in theirs.body if isinstance(node, ast.AsyncFunctionDef)]

    assert ast.dump(ast.parse(snippet).body[0]) == ast.dump(theirs)


def test_the_guides_hook_is_written_as_the_examples() -> None:
    def signature(source: str) -> str:
        (function,) = (
            node
            for node in ast.parse(source).body
            if isinstance(node, ast.FunctionDef) and node.name.startswith("vaka_")
        )
        return ast.unparse(function).partition(":\n")[0]

    (snippet,) = (each for each in snippets("python") if "vaka_mapping_backend" in each)

    assert signature(snippet) == signature((EXAMPLE / "vaka_sqlite/__init__.py").read_text())


def test_what_the_pages_refer_to_is_there() -> None:
    for page in (DOCS / "guides/write-a-plugin.md", *(DOCS / "reference").glob("*.md")):
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} refers to {target}"
