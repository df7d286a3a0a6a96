"""From what a job and its configurations name to configurations without placeholders."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, cast

import pytest

from vaka.actors.plan import DefinitionPlan, Plan
from vaka.actors.resolving import resolve_plan
from vaka.errors import NotFound, UserError
from vaka.hooks import Catalog
from vaka.models.catalog import Configuration, ConfigurationRow, VaultVariable
from vaka.models.job import JobSpec
from vaka.variables import SHARED_CODE, VARIABLES

NOW = datetime(2026, 1, 1, tzinfo=UTC)
FOO = {"variables": [{"name": "foo", "type": "string"}]}


def values(**given: Any) -> dict[str, Any]:
    return {"values": [{"name": name, "value": value} for name, value in given.items()]}


class Library:
    """A catalog with configurations of variables and of shared code, and a vault."""

    def __init__(self) -> None:
        self.kept: dict[tuple[str, str], tuple[Any, Mapping[str, Any]]] = {}
        self.vault: list[VaultVariable] = []
        self.asked: list[str] = []

    async def configuration(
        self, project: str, component_id: str, config_id: str, *, branch: str | None = None
    ) -> Configuration:
        self.asked.append(f"{component_id} {config_id}")
        if (component_id, config_id) not in self.kept:
            raise NotFound(
                f"Configuration {config_id} not found", kind="configuration", id=config_id
            )
        document, rows = self.kept[component_id, config_id]
        return Configuration(
            component_id=component_id,
            id=config_id,
            name="",
            description="",
            configuration=document,
            is_disabled=False,
            version=1,
            created=NOW,
            change_description="",
            rows=tuple(
                ConfigurationRow(row_id, "", "", content, False, 1, NOW, "")
                for row_id, content in rows.items()
            ),
        )

    async def vault_variables(
        self, project: str, *, branch: str | None = None
    ) -> list[VaultVariable]:
        self.asked.append(f"vault {branch}")
        return self.vault


@pytest.fixture
def library() -> Library:
    """Has the variables configuration `v`: it declares `foo`, and has values `a` and `b`."""
    library = Library()
    library.kept[VARIABLES, "v"] = (FOO, {"a": values(foo="of a"), "b": values(foo="of b")})
    return library


async def resolve(
    library: Library,
    *configurations: dict[str, Any],
    strict: bool = False,
    row_id: str | None = None,
    **spec: Any,
) -> Plan:
    plan = Plan(
        tuple(DefinitionPlan(each, row_id, "1", {}, 1) for each in configurations), ("before",)
    )
    return await resolve_plan(
        cast("Catalog", library), JobSpec(component="x", **spec), plan, strict=strict
    )


async def refused(library: Library, message: str, *configurations: Any, **options: Any) -> None:
    with pytest.raises(UserError) as caught:
        await resolve(library, *configurations, **options)
    assert message in caught.value.message


def asking(text: str = "{{ foo }}", **members: Any) -> dict[str, Any]:
    return {"parameters": {"a": text}, "variables_id": "v", **members}


def parameters(plan: Plan, index: int = 0) -> Any:
    return plan.definitions[index].configuration["parameters"]


# -- values ----------------------------------------------------------------------------------------


@pytest.mark.scenario("runner", 217)
async def test_a_placeholder_without_a_value_is_empty_or_an_error(library: Library) -> None:
    given = asking("foo is {{ foo }} and {{ notreplaced }}.")
    inline: dict[str, Any] = {"variable_values_data": values(foo="bar")}

    plan = await resolve(library, given, **inline)

    assert parameters(plan) == {"a": "foo is bar and ."}
    await refused(
        library, "Missing values for placeholders: notreplaced", given, strict=True, **inline
    )


@pytest.mark.scenario("runner", 218)
@pytest.mark.parametrize(
    ("spec", "note", "result"),
    [
        (
            {"variable_values_data": values(foo="inline", extra="too")},
            "Replacing variables using inline values.",
            "inline too",
        ),
        (
            {"variable_values_id": "b"},
            'Replacing variables using values with ID: "b".',
            "of b ",
        ),
        ({}, 'Replacing variables using default values with ID: "a"', "of a "),
        (
            {"variable_values_data": {"values": []}},
            'Replacing variables using default values with ID: "a"',
            "of a ",
        ),
    ],
)
async def test_values_come_from_one_source(
    library: Library, spec: dict[str, Any], note: str, result: str
) -> None:
    default = "a" if "default" in note else "gone"  # what the job brings overrides it

    plan = await resolve(
        library, asking("{{ foo }} {{ extra }}", variables_values_id=default), **spec
    )

    assert parameters(plan) == {"a": result}
    assert plan.notes == ("before", note, 'Replaced values for variables: "foo".')
    configuration = plan.definitions[0].configuration
    assert (configuration["variables_id"], configuration["variables_values_id"]) == ("v", default)


@pytest.mark.scenario("runner", 219)
async def test_a_job_brings_values_or_names_them_not_both(library: Library) -> None:
    await refused(
        library,
        "Only one of variables_id and variableValuesId can be entered",
        {"parameters": {"no": "variables"}},
        variable_values_id="a",
        variable_values_data=values(foo="1"),
    )


@pytest.mark.scenario("runner", 220)
async def test_variables_need_values(library: Library) -> None:
    await refused(
        library,
        'No variable values provided for configuration "123", row "321", referencing variables "v".',
        asking(),
        config="123",
        row_id="321",
    )


@pytest.mark.scenario("runner", 221)
async def test_values_that_are_not_there_are_named(library: Library) -> None:
    where = 'for configuration "123", row "321".'
    at = {"config": "123", "row_id": "321"}
    await refused(
        library,
        f'Cannot read default variable values "gone" {where}',
        asking(variables_values_id="gone"),
        **at,
    )
    await refused(
        library,
        f'Cannot read requested variable values "gone" {where}',
        asking(variables_values_id="a"),
        variable_values_id="gone",
        **at,
    )


@pytest.mark.scenario("runner", 222)
async def test_variables_that_are_not_there_are_named(library: Library) -> None:
    await refused(
        library,
        "Variable configuration cannot be read: Configuration non-existent not found",
        asking(variables_id="non-existent"),
    )


@pytest.mark.scenario("runner", 223)
async def test_malformed_variables_and_values_are_told(library: Library) -> None:
    library.kept[VARIABLES, "bad"] = ({"invalid": 1}, {})
    library.kept[VARIABLES, "v"] = (FOO, {"bad": {"invalid": 1}})
    detail = 'is invalid: Unrecognized option "invalid" under "configuration"'
    # the variables are looked at before the values
    await refused(library, f"Variable configuration {detail}", asking(variables_id="bad"))
    await refused(
        library,
        f"Variable values configuration {detail}",
        asking(variables_values_id="bad"),
    )
    await refused(
        library,
        f"Variable values configuration {detail}",
        asking(),
        variable_values_data={"invalid": 1},
    )


@pytest.mark.scenario("runner", 224)
async def test_without_variables_nothing_is_replaced(library: Library) -> None:
    given = {"parameters": {"a": "{{ foo }}"}}
    for spec in ({"variable_values_id": "a"}, {"variable_values_data": values(foo="1")}):
        plan = await resolve(library, given, strict=True, **spec)
        assert plan.definitions[0].configuration == given
        assert plan.notes == ("before",)
    assert library.asked == []


@pytest.mark.scenario("runner", 225)
async def test_a_declared_variable_needs_a_value(library: Library) -> None:
    await refused(
        library,
        'No value provided for variable "foo".',
        asking("unused"),
        variable_values_data=values(bar="1"),
    )


@pytest.mark.scenario("runner", 226)
async def test_a_value_with_quotes_and_newlines_arrives_unchanged(library: Library) -> None:
    value = 'say "\\n"\nand\t{{ foo }}'
    plan = await resolve(library, asking(), variable_values_data=values(foo=value))
    assert parameters(plan) == {"a": value}


async def test_each_row_has_its_own_variables_and_each_configuration_is_read_once(
    library: Library,
) -> None:
    library.kept[VARIABLES, "w"] = (FOO, {"a": values(foo="of w")})
    plan = await resolve(
        library,
        asking(variables_values_id="a"),
        asking(variables_values_id="b"),
        asking(variables_id="w", variables_values_id="a"),
        {"parameters": {"a": "{{ foo }}"}},
    )
    assert [parameters(plan, index)["a"] for index in range(4)] == [
        "of a",
        "of b",
        "of w",
        "{{ foo }}",
    ]
    assert library.asked == [f"{VARIABLES} v", f"{VARIABLES} w"]


async def test_what_was_replaced_survives_in_the_journal(library: Library) -> None:
    (definition,) = (await resolve(library, asking(variables_values_id="a"))).definitions
    assert definition.variables == ({"name": "foo", "value": "of a"},)
    assert DefinitionPlan.from_json(definition.to_json()) == definition
    older = {key: value for key, value in definition.to_json().items() if key != "variables"}
    assert DefinitionPlan.from_json(older).variables == ()


async def test_a_configuration_that_is_broken_by_its_values_is_told(library: Library) -> None:
    await refused(
        library,
        "Variable replacement resulted in invalid configuration, error: Syntax error",
        asking("{{{ foo }}}"),
        variable_values_data=values(foo='"'),
    )


# -- shared code -----------------------------------------------------------------------------------


@pytest.fixture
def shared(library: Library) -> Library:
    library.kept[SHARED_CODE, "s"] = (
        {"componentId": "any"},
        {
            "row1": {"code_content": ["SELECT {{ foo }};", "COMMIT;"], "variables_id": "v"},
            "row2": {"code_content": "SELECT 2;"},
            "other": {"code_content": ["unused"]},
        },
    )
    return library


def script(*lines: str, **members: Any) -> dict[str, Any]:
    return {
        "parameters": {"blocks": [{"codes": [{"script": list(lines)}]}]},
        "shared_code_id": "s",
        "shared_code_row_ids": ["row1", "row2"],
        **members,
    }


def lines(plan: Plan) -> Any:
    return parameters(plan)["blocks"][0]["codes"][0]["script"]


@pytest.mark.scenario("runner", 227)
async def test_shared_code_is_inserted_and_its_variables_are_replaced(shared: Library) -> None:
    plan = await resolve(
        shared,
        script("{{ row1 }}", "{{ other }}", variables_id="v", variables_values_id="a"),
        script("{{ row2 }}{{ row1 }}"),
    )
    assert lines(plan) == ["SELECT of a;", "COMMIT;", ""]
    assert plan.definitions[1].configuration["parameters"]["blocks"][0]["codes"][0]["script"] == [
        "SELECT {{ foo }};",
        "COMMIT;",
        "SELECT 2;",
    ]
    assert plan.notes[1] == 'Loaded shared code snippets with ids: "row1, row2".'


async def test_shared_code_that_cannot_be_had_is_told(shared: Library) -> None:
    shared.kept[SHARED_CODE, "s"][1]["row2"]["invalid"] = 1
    problem = "Shared code configuration cannot be read: "
    await refused(
        shared,
        problem + "Configuration gone not found",
        script("x", shared_code_id="gone"),
    )
    await refused(shared, problem + "Row gone not found", script("x", shared_code_row_ids=["gone"]))
    await refused(
        shared, 'Shared code configuration is invalid: Unrecognized option "invalid"', script("x")
    )


async def test_without_rows_no_shared_code_is_read(shared: Library) -> None:
    plan = await resolve(shared, script("{{ row1 }}", shared_code_row_ids=[]))
    assert lines(plan) == ["{{ row1 }}"]
    assert shared.asked == []


# -- the vault -------------------------------------------------------------------------------------


@pytest.mark.scenario("runner", 228)
async def test_the_vault_needs_no_variables(library: Library) -> None:
    library.vault = [VaultVariable("x", "from the vault"), VaultVariable("y", "unused")]
    given = {"parameters": {"a": "{{ vault.x }} {{ foo }}"}}

    plan = await resolve(library, given, asking("{{ vault.x }} {{ foo }}"),
                         variable_values_data=values(foo="1"), branch="7")  # fmt: skip

    assert parameters(plan, 0) == {"a": "from the vault {{ foo }}"}
    assert parameters(plan, 1) == {"a": "from the vault 1"}
    assert plan.definitions[0].variables == ({"name": "vault.x", "value": "from the vault"},)
    assert library.asked == ["vault 7", f"{VARIABLES} v"]


async def test_the_vault_is_not_asked_for_nothing(library: Library) -> None:
    await resolve(library, asking(variables_values_id="a"), {"parameters": {"a": "vault.x"}})
    assert library.asked == [f"{VARIABLES} v"]


async def test_an_unknown_name_of_the_vault_is_always_an_error(library: Library) -> None:
    given = asking("{{ vault.gone }} {{ vault.too }} {{ notreplaced }}", variables_values_id="a")
    missing = "Missing values for placeholders: vault.gone, vault.too"
    with pytest.raises(UserError) as caught:
        await resolve(library, given)
    assert caught.value.message == missing
    await refused(library, f"{missing}, notreplaced", given, strict=True)


async def test_what_is_encrypted_in_the_vault_stays_so_and_is_not_listed(library: Library) -> None:
    library.vault = [
        VaultVariable("x", "KBC::ProjectSecure::abc", is_encrypted=True),
        VaultVariable("y", "1"),
    ]
    plan = await resolve(library, {"parameters": {"a": "{{ vault.y }}"}})
    assert parameters(plan) == {"a": "1"}
    plan = await resolve(library, {"parameters": {"#a": "{{ vault.x }}"}})
    assert parameters(plan) == {"#a": "KBC::ProjectSecure::abc"}
    (definition,) = plan.definitions
    assert definition.variables == ({"name": "vault.x", "value": "[hidden]"},)
