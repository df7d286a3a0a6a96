"""Whatever JSON comes in, every document of the system is valid or refused; nothing else happens."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vaka.errors import InvalidDefinition, InvalidInput
from vaka.models.catalog import Component
from vaka.models.component import ComponentDefinition
from vaka.models.configuration import CONFIGURATION, JobConfiguration, dumps_config, merge, secrets
from vaka.models.manifest import parse_file_manifest, parse_table_manifest
from vaka.models.mapping import InputFile, InputTable, OutputFile, OutputTable
from vaka.models.state import JobState, parse_result, parse_state_file, parse_usage
from vaka.models.tree import (
    Bool,
    Choice,
    Int,
    ListOf,
    MapOf,
    Node,
    Object,
)

SCALARS: st.SearchStrategy[Any] = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5)
    | st.sampled_from(["", "eq", "ne", "in.c-main.t", "adaptive", "-1 day", "include", "run", "1"])
)
JSON: st.SearchStrategy[Any] = st.recursive(
    SCALARS,
    lambda item: (
        st.lists(item, max_size=3) | st.dictionaries(st.text(max_size=5), item, max_size=3)
    ),
    max_leaves=5,
)


def near(node: Node) -> st.SearchStrategy[Any]:
    """Documents that are like what a node accepts, with a fault here and there."""
    likely: st.SearchStrategy[Any]
    match node:
        case Object():
            children = {key: near(child) for key, child in node.children.items()}
            given = {
                key: children.pop(key)
                for key, child in node.children.items()
                if child.required or key == "source"
            }
            likely = st.fixed_dictionaries(given, optional=children) if node.children else JSON
        case ListOf():
            likely = st.lists(near(node.item), max_size=2)
        case MapOf():
            likely = st.dictionaries(st.text(max_size=5), near(node.item), max_size=2)
        case Choice():
            likely = st.sampled_from(node.words)
        case Bool():
            likely = st.booleans()
        case Int():
            likely = st.integers()
        case _:
            likely = SCALARS
    return st.integers(0, 49).flatmap(lambda roll: JSON if roll == 0 else likely)


INPUT, OUTPUT = (CONFIGURATION.children["storage"].children[side] for side in ("input", "output"))  # type: ignore[attr-defined]
CONFIGURATIONS = near(CONFIGURATION)
MANY = settings(max_examples=200, suppress_health_check=list(HealthCheck), deadline=None)


@MANY
@given(CONFIGURATIONS | JSON)
def test_any_configuration_is_normalised_once_or_refused(data: Any) -> None:
    before = json.dumps(data)
    with suppress(InvalidInput):
        configuration = JobConfiguration.parse(data)
        assert JobConfiguration.parse(configuration.data) == configuration
        for tables in configuration.input_tables:
            with suppress(InvalidInput):
                InputTable.parse(tables)
        for files in configuration.input_files:
            InputFile.parse(files)
        for table in configuration.output_tables:
            OutputTable.parse(table)
        for file in configuration.output_files:
            OutputFile.parse(file)
        assert isinstance(configuration.runtime.extra, dict)
        assert json.loads(dumps_config(configuration.config_file(image_parameters={})))
    assert json.dumps(data) == before


@MANY
@given(near(INPUT.children["tables"].item))
def test_any_input_table_is_understood_or_refused(item: Any) -> None:
    with suppress(InvalidInput):
        table = InputTable.parse(item)
        assert table.name
        assert len(table.columns) == len(table.column_types)


@MANY
@given(near(OUTPUT.children["tables"].item))
def test_any_output_table_is_understood_or_refused(item: Any) -> None:
    with suppress(InvalidInput):
        table = OutputTable.parse(item)
        assert OutputTable.parse(table.data) == table


@MANY
@given(near(INPUT.children["files"].item), near(OUTPUT.children["files"].item))
def test_any_file_is_understood_or_refused(read: Any, written: Any) -> None:
    with suppress(InvalidInput):
        assert isinstance(InputFile.parse(read).state_tags, list)
    with suppress(InvalidInput):
        assert all(isinstance(tag, str) for tag in OutputFile.parse(written).options.tags)


@MANY
@given(JSON | near(OUTPUT.children["tables"].item))
def test_any_file_that_a_component_leaves_is_understood_or_refused(value: Any) -> None:
    data = json.dumps(value).encode()
    with suppress(InvalidInput):
        assert parse_table_manifest(data, path="x.manifest")
    with suppress(InvalidInput):
        tags = parse_file_manifest(data, path="x.manifest").tags
        assert len(tags) == len(set(tags))
    with suppress(InvalidInput):
        assert isinstance(parse_result(data, path="result.json"), dict)
    with suppress(InvalidInput):
        assert isinstance(parse_usage(data), list)
    with suppress(InvalidInput):
        assert isinstance(parse_state_file(data, path="state.json"), dict)


STATES = st.fixed_dictionaries(
    {},
    optional={
        "component": JSON,
        "storage": st.fixed_dictionaries({"input": JSON}) | JSON,
        "data_app": JSON,
    },
)


@MANY
@given(STATES | JSON)
def test_any_state_is_stored_again_or_refused(value: Any) -> None:
    with suppress(InvalidInput):
        state = JobState.parse(value)
        assert JobState.parse(state.to_json()) == state


DEFINITIONS = st.fixed_dictionaries(
    {"definition": st.fixed_dictionaries({"type": st.just("quayio"), "uri": SCALARS}) | JSON},
    optional={
        "memory": st.sampled_from(["1g", "256m", "x"]) | JSON,
        "process_timeout": st.integers() | JSON,
        "logging": st.fixed_dictionaries({"verbosity": JSON}) | JSON,
        "staging_storage": JSON,
        "synchronous_actions": JSON,
        "image_parameters": JSON,
    },
)


@MANY
@given(DEFINITIONS | JSON, st.dictionaries(st.just("dataTypesConfiguration"), JSON))
def test_any_definition_is_usable_or_refused(data: Any, extra: dict[str, Any]) -> None:
    component = Component(id="a", name="a", type="other", data=data, extra=extra)
    with suppress(InvalidDefinition):
        definition = ComponentDefinition.parse(component)
        assert definition.image_reference().startswith("quay.io/")
        assert definition.memory_bytes > 0


@MANY
@given(JSON, JSON)
def test_any_row_is_merged_and_any_document_searched_for_secrets(one: Any, other: Any) -> None:
    merged = merge(one, other)

    assert merge(merged, other) == merged
    assert all(secrets(merged))
