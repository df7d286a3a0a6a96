"""The reference pages name everything there is, and nothing else."""

import inspect
import re
from pathlib import Path
from typing import Any

import pytest
from pydantic.fields import FieldInfo

from vaka import EngineConfig, errors, hooks
from vaka_server.settings import Settings

REFERENCE = Path(__file__).resolve().parents[2] / "docs/reference"


def sections(page: str, level: str) -> dict[str, str]:
    """The text below each heading of a page, by heading."""
    text = (REFERENCE / page).read_text()
    parts = re.split(rf"^{level} (.+)$", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def rows(text: str) -> list[list[str]]:
    """The cells of all tables in a text, without the lines of headings and rules."""
    lines = re.findall(r"^\|(.*)\|$", text, flags=re.MULTILINE)
    cells = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)] for line in lines]
    return [each for each in cells if each[0].startswith("`")]


def code(cell: str) -> list[str]:
    """What stands in backticks."""
    return re.findall(r"`([^`]+)`", cell)


# -- hooks -----------------------------------------------------------------------------------------


def hookspecs() -> dict[str, Any]:
    return {
        name: function
        for name, function in vars(hooks).items()
        if getattr(function, f"{hooks.PROJECT}_spec", None) is not None
    }


def test_every_hook_has_an_entry_with_its_arguments() -> None:
    wanted = {
        f"`{name}({', '.join(inspect.signature(function).parameters)})`"
        for name, function in hookspecs().items()
    }

    assert len(wanted) >= 9
    assert set(sections("hooks.md", "##")) == wanted


@pytest.mark.parametrize("heading", sections("hooks.md", "##"))
def test_an_entry_of_a_hook_says_all_that_is_asked(heading: str) -> None:
    table = re.findall(r"^\| (.+?) \| (.+) \|$", sections("hooks.md", "##")[heading], re.MULTILINE)

    assert [name for name, _ in table] == [
        *("When", "How often", "Order", "None", "Errors", "Built in"),
    ]


@pytest.mark.parametrize("name", hookspecs())
def test_a_hook_where_one_answer_is_enough_says_who_has_it(name: str) -> None:
    (text,) = (
        text for heading, text in sections("hooks.md", "##").items() if heading[1:].startswith(name)
    )

    is_first_result = hookspecs()[name].vaka_spec["firstresult"]
    assert ("the first that answers has it" in text) is is_first_result


# -- settings --------------------------------------------------------------------------------------

ENGINE = rows(sections("settings.md", "##")["Engine"])
SERVER = rows(sections("settings.md", "##")["Server"])


MACHINE = {
    EngineConfig.model_fields["starting"].default_factory: "2 * cores",
    EngineConfig.model_fields["cpus"].default_factory: "cores",
}
"""Defaults that depend on the machine."""


def default(field: FieldInfo) -> str:
    if field.default_factory is not None:
        return MACHINE[field.default_factory]
    return str(field.default)


def test_every_setting_of_the_engine_has_its_row() -> None:
    assert sorted(code(row[0])[0] for row in ENGINE) == sorted(EngineConfig.model_fields)


def test_every_setting_of_the_server_alone_has_its_row() -> None:
    own = {
        name
        for name, field in Settings.model_fields.items()
        if name not in EngineConfig.model_fields
        or default(field) != default(EngineConfig.model_fields[name])
    }

    assert sorted(code(row[0])[0] for row in SERVER) == sorted(own)


@pytest.mark.parametrize(
    ("row", "fields"),
    [
        *((row, EngineConfig.model_fields) for row in ENGINE),
        *((row, Settings.model_fields) for row in SERVER),
    ],
    ids=lambda value: code(value[0])[0] if isinstance(value, list) else "",
)
def test_a_row_of_a_setting_has_its_default_a_unit_and_a_reason(
    row: list[str], fields: dict[str, FieldInfo]
) -> None:
    name, shown, unit, text = row

    assert code(shown) == [default(fields[code(name)[0]])]
    assert unit
    assert text.endswith(".")


def test_two_defaults_depend_on_the_machine() -> None:
    computed = [
        name for name, field in Settings.model_fields.items() if field.default_factory is not None
    ]

    assert computed == ["starting", "cpus"]


# -- errors ----------------------------------------------------------------------------------------

ERRORS = rows(sections("errors.md", "##")["The tree"])


def tree() -> dict[str, type[errors.EngineError]]:
    return {
        name: kind
        for name, kind in vars(errors).items()
        if isinstance(kind, type) and issubclass(kind, errors.EngineError)
    }


def attributes(kind: type[errors.EngineError]) -> list[str]:
    """Facts that an error has beside those of its base."""
    if "__init__" not in vars(kind):
        return []
    taken = {"self"}
    if kind is not errors.EngineError:
        taken |= set(inspect.signature(kind.__bases__[0]).parameters)
    return [name for name in inspect.signature(kind.__init__).parameters if name not in taken]


def test_every_error_has_its_row() -> None:
    assert sorted(code(row[0])[0] for row in ERRORS) == sorted(tree())


@pytest.mark.parametrize("row", ERRORS, ids=lambda row: code(row[0])[0])
def test_a_row_of_an_error_has_its_base_and_its_attributes(row: list[str]) -> None:
    name, base, facts, when, remedy = row
    kind = tree()[code(name)[0]]

    assert code(base) == [kind.__bases__[0].__name__]
    assert code(facts) == attributes(kind)
    assert when
    assert remedy


@pytest.mark.parametrize("name", tree())
def test_the_tree_in_the_module_shows_every_error(name: str) -> None:
    assert errors.__doc__ is not None
    assert re.search(rf"\b{name}\b", errors.__doc__)
