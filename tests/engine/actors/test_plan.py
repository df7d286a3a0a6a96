"""From a request to the definitions that run."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, cast

import pytest

from vaka.actors.plan import Plan, plan_definitions
from vaka.errors import NotFound, UserError
from vaka.hooks import Catalog
from vaka.models.catalog import Configuration, ConfigurationRow, State
from vaka.models.job import JobSpec

NOW = datetime(2026, 1, 1, tzinfo=UTC)


class OneConfiguration:
    """A catalog with one configuration, `c`, and a state for it and each of its rows."""

    def __init__(self, configuration: Any, *rows: ConfigurationRow) -> None:
        self._configuration = Configuration(
            component_id="x",
            id="c",
            name="",
            description="",
            configuration=configuration,
            is_disabled=False,
            version=3,
            created=NOW,
            change_description="",
            rows=rows,
        )

    async def configuration(
        self, project: str, component_id: str, config_id: str, *, branch: str | None = None
    ) -> Configuration:
        assert branch is None
        if config_id != "c":
            raise NotFound(f"Configuration {config_id} not found", kind="config", id=config_id)
        return self._configuration

    async def state(
        self,
        project: str,
        component_id: str,
        config_id: str,
        row_id: str | None = None,
        *,
        branch: str | None = None,
    ) -> State:
        assert branch is None
        await self.configuration(project, component_id, config_id)
        return State({"component": {"of": row_id or config_id}}, 5)


def row(row_id: str, configuration: Any, *, disabled: bool = False) -> ConfigurationRow:
    return ConfigurationRow(
        id=row_id,
        name="",
        description="",
        configuration=configuration,
        is_disabled=disabled,
        version=1,
        created=NOW,
        change_description="",
    )


async def plan(catalog: OneConfiguration, **request: Any) -> Plan:
    return await plan_definitions(cast(Catalog, catalog), JobSpec(component="x", **request))


async def test_a_configuration_without_rows_is_one_definition() -> None:
    planned = await plan(OneConfiguration({"parameters": {"a": 1}}), config="c")
    (definition,) = planned.definitions
    assert definition.configuration == {"parameters": {"a": 1}}
    assert (definition.row_id, definition.version) == (None, "3")
    assert definition.state == {"component": {"of": "c"}}


@pytest.mark.scenario("runner", 203)
async def test_rows_are_merged_over_their_configuration_in_order() -> None:
    catalog = OneConfiguration(
        {"parameters": {"a": 1, "l": [1, 2, 3]}},
        row("r1", {"parameters": {"b": 2, "l": [9]}}),
        row("r2", {}),
    )
    planned = await plan(catalog, config="c")
    assert [each.row_id for each in planned.definitions] == ["r1", "r2"]
    assert planned.definitions[0].configuration == {"parameters": {"a": 1, "l": [9, 2, 3], "b": 2}}
    assert planned.definitions[1].configuration == {"parameters": {"a": 1, "l": [1, 2, 3]}}
    assert planned.definitions[1].state == {"component": {"of": "r2"}}


async def test_a_disabled_row_is_skipped_and_said_so() -> None:
    catalog = OneConfiguration({}, row("r1", {}), row("off", {}, disabled=True))
    planned = await plan(catalog, config="c")
    assert [each.row_id for each in planned.definitions] == ["r1"]
    assert planned.notes == ("Skipping disabled configuration: c, version: 3, row: off",)


async def test_a_disabled_row_that_is_asked_for_runs() -> None:
    catalog = OneConfiguration({}, row("r1", {}), row("off", {}, disabled=True))
    planned = await plan(catalog, config="c", row="off")
    assert [each.row_id for each in planned.definitions] == ["off"]
    assert planned.notes == ("Force running disabled configuration: c, version: 3, row: off",)


async def test_rows_are_found_by_their_text() -> None:
    planned = await plan(OneConfiguration({}, row("7", {})), config="c", row=7)
    assert [each.row_id for each in planned.definitions] == ["7"]


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"config": "c", "row": "no"}, "Row no not found."),
        ({"config": "c", "rows": ("no", "nor")}, 'None of rows "no,nor" was found.'),
        ({"config": "c", "row": [1, 2]}, "Unsupported row value"),
        ({"config": "zz"}, "Error reading configuration 'zz': Configuration zz not found"),
        ({"config": "c", "config_data": {}, "row": "r"}, "Row r not found."),
        ({}, "Specify 'config' or 'configData'."),
    ],
)
async def test_what_cannot_be_planned_is_refused_in_words(
    request_: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message.replace("(", r"\(")):
        await plan(OneConfiguration({}, row("r1", {})), **request_)


async def test_a_row_of_a_configuration_without_rows_is_not_found() -> None:
    with pytest.raises(UserError, match=r"Row r not found\."):
        await plan(OneConfiguration({}), config="c", row="r")


PROCESSORS = {"processors": {"after": [{"definition": {"component": "p"}}]}}


async def test_processors_may_be_in_one_place_only() -> None:
    with pytest.raises(UserError, match="but not in both places"):
        await plan(OneConfiguration(PROCESSORS, row("r", PROCESSORS)), config="c")
    empty: dict[str, Any] = {"processors": {"before": [], "after": []}}
    assert (await plan(OneConfiguration(empty, row("r", PROCESSORS)), config="c")).definitions
    assert (await plan(OneConfiguration(PROCESSORS, row("r", empty)), config="c")).definitions


async def test_an_inline_configuration_reads_no_state_and_may_write_it() -> None:
    catalog = OneConfiguration({"parameters": {"stored": True}})
    (definition,) = (await plan(catalog, config="c", config_data={"parameters": {}})).definitions
    assert definition.configuration == {"parameters": {}}
    assert definition.state == {}
    assert definition.state_version == 5
    (missing,) = (await plan(catalog, config="zz", config_data={})).definitions
    assert missing.state_version is None
