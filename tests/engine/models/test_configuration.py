"""Configurations: what is refused with which words, and what a container gets to see."""

from __future__ import annotations

import json
from typing import Any

import pytest

from vaka.errors import InvalidInput
from vaka.models.configuration import (
    JobConfiguration,
    ProcessorDefinition,
    dumps_config,
    merge,
    refuse_component_secrets,
    secrets,
)

EXAMPLE = b"""{
    "parameters": {
        "key1": "value1",
        "key2": {
            "key3": "value3",
            "key4": []
        }
    },
    "image_parameters": {
        "fooBar": "baz"
    },
    "action": "run",
    "storage": {},
    "authorization": {}
}"""
FULL: dict[str, Any] = {
    "storage": {
        "input": {
            "tables": [
                {"source": "in.c-shop.orders", "destination": "orders.csv",
                 "columns": ["id", "total"], "where_column": "status", "where_operator": "ne",
                 "where_values": ["void"], "changed_since": "adaptive", "limit": 500}
            ],
            "files": [
                {"query": "name: testfile.png"},
                {"source": {"tags": [{"name": "inbox"}, {"name": "done", "match": "exclude"}]},
                 "changed_since": "-7 days", "limit": 20},
            ],
        },
        "output": {
            "tables": [
                {"source": "result.csv", "destination": "out.c-shop.result", "incremental": True,
                 "primary_key": ["id"],
                 "delete_where": [{"where_filters": [
                     {"column": "day", "operator": "eq", "values_from_set": ["2024-01-01"]}]}]}
            ],
            "files": [{"source": "chart.png", "tags": ["chart"], "is_permanent": True}],
        },
    },
    "parameters": {"foo": "bar", "#token": "<ciphertext>"},
    "processors": {"after": [{"definition": {"component": "keboola.processor-skip-lines"},
                              "parameters": {"lines": 1}}]},
    "runtime": {"image_tag": "1.2.3"},
}  # fmt: skip


def refusal(data: Any, root: str = "container") -> str:
    with pytest.raises(InvalidInput) as caught:
        JobConfiguration.parse(data, root=root)
    return caught.value.message


def written(data: Any, **extra: Any) -> dict[str, Any]:
    arguments: dict[str, Any] = {"image_parameters": {}} | extra
    return JobConfiguration.parse(data).config_file(**arguments)


def test_the_full_example_of_the_contract_is_valid() -> None:
    configuration = JobConfiguration.parse(FULL)

    assert configuration.input_tables[0]["where_values"] == ["void"]
    assert [item["overwrite"] for item in configuration.input_files] == [True, True]
    assert configuration.output_tables[0]["delimiter"] == ","
    assert configuration.output_files[0]["is_encrypted"] is True
    assert configuration.processors_before == ()
    assert configuration.processors_after == (
        ProcessorDefinition("keboola.processor-skip-lines", None, {"lines": 1}),
    )
    assert configuration.has_processors
    assert configuration.runtime.image_tag == "1.2.3"
    assert list(configuration.data) == list(FULL)


@pytest.mark.parametrize("data", [FULL, {}, {"storage": {"input": {}, "output": {}}}])
def test_a_normalised_configuration_stays_as_it_is(data: Any) -> None:
    once = JobConfiguration.parse(data)

    assert JobConfiguration.parse(once.data) == once


@pytest.mark.scenario("mapping", 1)
@pytest.mark.scenario("runner", 161)
@pytest.mark.parametrize("data", [{}, [], None])
def test_an_empty_configuration_is_valid_and_written_with_its_four_keys(data: Any) -> None:
    assert JobConfiguration.parse(data).input_tables == []
    assert json.loads(dumps_config(written(data))) == {
        "image_parameters": {},
        "action": "run",
        "storage": {},
        "parameters": {},
        "authorization": {},
    }


@pytest.mark.scenario("mapping", 2)
@pytest.mark.scenario("runner", 162)
def test_an_unknown_root_key_is_refused() -> None:
    assert refusal({"key1": 1}).startswith(
        'Unrecognized option "key1" under "container". Available options are "action", "artifacts"'
    )


@pytest.mark.scenario("mapping", 3)
@pytest.mark.scenario("runner", 165)
def test_an_unknown_key_of_a_table_is_refused() -> None:
    tables = [{"source": "in.c-main.t", "foo": "bar"}]

    assert refusal({"storage": {"input": {"tables": tables}}}).startswith(
        'Unrecognized option "foo" under "container.storage.input.tables.0"'
    )


@pytest.mark.scenario("mapping", 4)
@pytest.mark.scenario("runner", 166)
def test_columns_are_no_objects() -> None:
    tables = [{"source": "in.c-main.t", "columns": [{"value": "id"}]}]

    assert refusal({"storage": {"input": {"tables": tables}}}) == (
        'Invalid type for path "container.storage.input.tables.0.columns.0". '
        'Expected "scalar", but got "array".'
    )


@pytest.mark.parametrize(
    ("storage", "message"),
    [
        (
            {"output": {"files": [{}]}},
            'The child config "source" under "container.storage.output.files.0" must be configured.',
        ),
        (
            {"output": {"tables": [{}]}},
            'The child config "source" under "container.storage.output.tables.0" must be configured.',
        ),
        (
            {"in": {}},
            'Unrecognized option "in" under "container.storage". '
            'Available options are "input", "output".',
        ),
    ],
)
def test_a_fault_in_storage_has_its_whole_path(storage: Any, message: str) -> None:
    assert refusal({"storage": storage}) == message


def test_missing_lists_are_made_and_missing_objects_are_not() -> None:
    assert JobConfiguration.parse({"storage": {"input": {}}}).data == {
        "storage": {"input": {"tables": [], "files": []}}
    }
    assert JobConfiguration.parse({"storage": None}).data == {"storage": {}}


@pytest.mark.scenario("mapping", 35)
def test_data_type_support_is_one_of_three() -> None:
    assert refusal({"storage": {"output": {"data_type_support": "invalid"}}}) == (
        'The value "invalid" is not allowed for path "container.storage.output.data_type_support". '
        'Permissible values: "authoritative", "hints", "none".'
    )


@pytest.mark.scenario("mapping", 36)
def test_table_modifications_is_one_of_three_or_null() -> None:
    data = {"storage": {"output": {"table_modifications": None}}}

    assert "table_modifications" not in JobConfiguration.parse(data).output
    assert refusal({"storage": {"output": {"table_modifications": "invalid"}}}) == (
        'The value "invalid" is not allowed for path "container.storage.output.table_modifications". '
        'Permissible values: "none", "non-destructive", "all".'
    )


@pytest.mark.scenario("mapping", 37)
def test_read_only_storage_access_is_boolean_or_null() -> None:
    assert refusal({"storage": {"input": {"read_only_storage_access": "yes"}}}) == (
        'Invalid configuration for path "container.storage.input.read_only_storage_access": '
        "must be boolean or null"
    )
    JobConfiguration.parse({"storage": {"input": {"read_only_storage_access": None}}})


@pytest.mark.scenario("mapping", 38)
@pytest.mark.parametrize(
    ("value", "rule"),
    [
        (0, "must be greater than 0"),
        (-1, "must be greater than 0"),
        (1.5, 'must be "null" or "int"'),
        ("10", 'must be "null" or "int"'),
        (True, 'must be "null" or "int"'),
    ],
)
def test_process_timeout_is_a_positive_integer_or_null(value: Any, rule: str) -> None:
    assert refusal({"runtime": {"process_timeout": value}}) == (
        f'Invalid configuration for path "container.runtime.process_timeout": {rule}'
    )


def test_process_timeout_is_at_most_a_day() -> None:
    def timeout(value: Any) -> int | None:
        return JobConfiguration.parse(
            {"runtime": {"process_timeout": value}}
        ).runtime.process_timeout

    assert (timeout(None), timeout(10), timeout(25 * 3600)) == (None, 10, 86_400)


@pytest.mark.scenario("mapping", 39)
def test_runtime_keeps_what_others_put_there() -> None:
    configuration = JobConfiguration.parse({"runtime": {"parallelism": 5, "backend": None}})

    assert configuration.runtime.extra == {"parallelism": 5}
    assert configuration.data["runtime"]["backend"] == {}


def test_runtime_has_no_wishes_by_default() -> None:
    runtime = JobConfiguration.parse({"runtime": {"backend": {"type": "small", "foo": 1}}}).runtime

    assert runtime == JobConfiguration.parse({"runtime": {"backend": {"type": "small"}}}).runtime
    assert runtime.backend_type == "small"
    assert (runtime.safe, runtime.image_tag, runtime.use_file_storage_only) == (None, None, False)
    assert JobConfiguration.parse({}).runtime == JobConfiguration.parse({"runtime": None}).runtime


@pytest.mark.scenario("mapping", 40)
@pytest.mark.parametrize("given", [{}, {"#password": "a", "#privateKey": "b"}])
def test_workspace_credentials_have_exactly_one_secret(given: dict[str, str]) -> None:
    credentials = {"id": "1", "type": "snowflake"} | given

    assert refusal({"runtime": {"backend": {"workspace_credentials": credentials}}}) == (
        'Invalid configuration for path "container.runtime.backend.workspace_credentials": '
        'Exactly one of "password" or "privateKey" must be configured.'
    )


def test_workspace_credentials_may_be_null_or_complete() -> None:
    credentials = {"id": "1", "type": "snowflake", "#password": "a"}

    def given(value: Any) -> Any:
        data = {"runtime": {"backend": {"workspace_credentials": value}}}
        return JobConfiguration.parse(data).runtime.workspace_credentials

    assert given(None) is None
    assert given(credentials) == credentials


@pytest.mark.scenario("mapping", 41)
@pytest.mark.parametrize(
    ("processor", "message"),
    [
        (
            {"parameters": {}},
            'The child config "definition" under "container.processors.before.0" must be configured.',
        ),
        (
            {"definition": {}},
            'The child config "component" under "container.processors.before.0.definition" '
            "must be configured.",
        ),
        (
            {"definition": {"component": ""}},
            'The path "container.processors.before.0.definition.component" cannot contain an empty '
            'value, but got "".',
        ),
    ],
)
def test_a_processor_names_its_component(processor: Any, message: str) -> None:
    assert refusal({"processors": {"before": [processor]}}) == message


def test_a_processor_may_have_a_tag_and_parameters() -> None:
    before = [
        {"definition": {"component": "a", "tag": "1.0.0"}, "parameters": {"a-b": []}},
        {"definition": {"component": "b", "tag": ""}},
    ]

    configuration = JobConfiguration.parse({"processors": {"before": before}})

    assert configuration.processors_before == (
        ProcessorDefinition("a", "1.0.0", {"a-b": []}),
        ProcessorDefinition("b", None, {}),
    )
    assert not JobConfiguration.parse({"processors": {"before": []}}).has_processors


@pytest.mark.scenario("mapping", 42)
def test_artifacts_of_earlier_runs_need_a_filter() -> None:
    assert refusal({"artifacts": {"runs": {"enabled": True}}}) == (
        'Invalid configuration for path "container.artifacts.runs": '
        'At least one of "date_since" or "limit" parameters must be defined.'
    )
    assert refusal({"artifacts": {"runs": {"enabled": "1"}}}) == (
        'Invalid type for path "container.artifacts.runs.enabled". '
        'Expected "bool", but got "string".'
    )
    JobConfiguration.parse({"artifacts": {"runs": {"enabled": True, "filter": {"limit": 1}}}})


def test_artifacts_of_another_configuration_need_one_of_three_ids() -> None:
    assert refusal({"artifacts": {"custom": {"enabled": True}}}) == (
        'Invalid configuration for path "container.artifacts.custom": '
        '"component_id", "config_id" and "branch_id" parameters must be defined.'
    )
    JobConfiguration.parse(
        {"artifacts": {"custom": {"enabled": True, "filter": {"config_id": "1"}}}}
    )


@pytest.mark.scenario("mapping", 43)
def test_artifacts_have_no_unknown_key_whatever_the_document_is_called() -> None:
    assert refusal({"artifacts": {"backend": {}}}, root="configuration").startswith(
        'Unrecognized option "backend" under "configuration.artifacts".'
    )
    assert refusal({"artifacts": {"runs": {"foo": 1}}}, root="configuration") == (
        'Unrecognized option "foo" under "configuration.artifacts.runs". '
        'Available options are "enabled", "filter".'
    )


PROXY: dict[str, Any] = {
    "auth_providers": [{"id": "idp", "type": "oidc", "client-id": "x"}],
    "auth_rules": [{"type": "pathPrefix", "auth_required": True, "auth": ["idp"], "value": "/"}],
}


def test_an_app_proxy_is_passed_on_as_it_is_given() -> None:
    document = written({"authorization": {"app_proxy": PROXY}})

    assert document["authorization"] == {"app_proxy": PROXY}


RULE = PROXY["auth_rules"][0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"auth_providers": None, "auth_rules": []},
         'The path "app_proxy.auth_rules" should have at least 1 element(s) defined.'),
        ({"auth_providers": [{"id": "", "type": "x"}]},
         'The path "app_proxy.auth_providers.0.id" cannot contain an empty value, but got "".'),
        ({"auth_rules": [RULE | {"type": 5}]},
         'Invalid configuration for path "app_proxy.auth_rules.0.type": value must be a string'),
        ({"auth_rules": [RULE | {"auth_required": "yes"}]},
         'Invalid type for path "app_proxy.auth_rules.0.auth_required". '
         'Expected "bool", but got "string".'),
        ({"auth_rules": [RULE | {"auth_required": False}]},
         'Invalid configuration for path "app_proxy.auth_rules.0": '
         '"auth" value must be configured (only) when "auth_required" is true'),
        ({"auth_rules": [RULE | {"auth": ["idp", "foo"]}]},
         'Invalid configuration for path "app_proxy": '
         "auth_rules.0.auth contains unknown auth providers: foo"),
    ],
)  # fmt: skip
def test_an_app_proxy_that_does_not_hold_together_is_refused(changes: Any, message: str) -> None:
    assert refusal({"authorization": {"app_proxy": PROXY | changes}}) == message


def test_an_app_proxy_has_both_of_its_lists() -> None:
    assert refusal({"authorization": {"app_proxy": {"auth_rules": [RULE]}}}) == (
        'The child config "auth_providers" under "app_proxy" must be configured.'
    )


def test_ids_of_variables_and_shared_code_are_text() -> None:
    data = {"variables_id": 12, "variables_values_id": None, "shared_code_row_ids": [1, "b"]}

    assert JobConfiguration.parse(data).data == {
        "variables_id": "12",
        "shared_code_row_ids": ["1", "b"],
    }


def test_options_of_the_output_are_told_apart_from_their_absence() -> None:
    def output(**options: Any) -> JobConfiguration:
        return JobConfiguration.parse({"storage": {"output": options}})

    assert output().treat_values_as_null is None
    assert output(treat_values_as_null=[]).treat_values_as_null == ()
    assert output(treat_values_as_null=["", "NA", 0]).treat_values_as_null == ("", "NA", "0")
    assert output(default_bucket="").default_bucket is None
    assert output(default_bucket="in.c-x").default_bucket == "in.c-x"
    assert output().table_files.is_permanent
    assert output(table_files={"tags": ["a"]}).table_files.tags == ("a",)


@pytest.mark.scenario("runner", 160)
def test_the_example_of_the_contract_is_written_byte_for_byte() -> None:
    parameters = {"key1": "value1", "key2": {"key3": "value3", "key4": []}}

    document = written({"parameters": parameters}, image_parameters={"fooBar": "baz"})

    assert dumps_config(document) == EXAMPLE


def test_empty_objects_inside_parameters_stay_objects() -> None:
    document = written({"parameters": {"a": {}, "b": [{}], "c": []}})

    assert document["parameters"] == {"a": {}, "b": [{}], "c": []}


def test_empty_objects_inside_storage_are_written_as_they_always_were() -> None:
    document = written({"storage": {"output": {"tables": [{"source": "t.csv"}]}}})

    assert document["storage"]["output"]["tables"][0]["column_metadata"] == []


@pytest.mark.scenario("mapping", 47)
@pytest.mark.scenario("runner", 163)
def test_runtime_and_processors_are_not_written() -> None:
    document = written(FULL | {"runtime": {"foo": "baz"}})

    assert list(document) == [
        "storage",
        "parameters",
        "image_parameters",
        "action",
        "authorization",
    ]
    assert b"baz" not in dumps_config(document)


@pytest.mark.scenario("mapping", 48)
def test_the_backend_context_is_written_as_authorization() -> None:
    assert written({"runtime": {"backend": {"context": "wlm"}}})["authorization"] == {
        "context": "wlm"
    }
    assert written({"runtime": {"backend": {}}})["authorization"] == {}


@pytest.mark.scenario("mapping", 49)
def test_image_parameters_are_the_components_own() -> None:
    document = written({"image_parameters": {"mine": 1}}, image_parameters={"own": 2})

    assert document["image_parameters"] == {"own": 2}


def test_the_action_is_the_one_that_runs() -> None:
    assert written({"action": "mine"}, action="test")["action"] == "test"


def test_only_credentials_are_written_of_an_authorization() -> None:
    given = {"oauth_api": {"id": "5", "version": 3, "credentials": {"#data": "x"}},
             "workspace": {"host": "h"}, "context": "c"}  # fmt: skip

    document = written({"authorization": given}, oauth_credentials={"#data": "broker's"})

    assert document["authorization"] == {"oauth_api": {"credentials": {"#data": "x"}}}


def test_fetched_credentials_and_a_workspace_are_written() -> None:
    document = written(
        {"authorization": {"oauth_api": {"id": "5"}}},
        oauth_credentials={"#data": "x"},
        workspace={"host": "h"},
    )

    assert document["authorization"] == {
        "oauth_api": {"credentials": {"#data": "x"}},
        "workspace": {"host": "h"},
    }
    assert list(document)[:2] == ["authorization", "image_parameters"]


def test_yaml_is_not_given_keys_that_have_nothing() -> None:
    document = written({"parameters": {"a": "b"}}, image_parameters={}, format="yaml")

    assert dumps_config(document, "yaml") == (
        b"parameters:\n    a: b\nimage_parameters: {  }\naction: run\n"
    )


@pytest.mark.scenario("mapping", 70)
def test_a_processor_sees_its_own_parameters_only() -> None:
    configuration = JobConfiguration.parse(
        FULL | {"authorization": {"oauth_api": {"credentials": 1}}}
    )

    document = configuration.processor_file({"lines": 1}, image_parameters={"own": True})

    assert document == {
        "parameters": {"lines": 1},
        "image_parameters": {"own": True},
        "action": "run",
        "storage": {},
        "authorization": {},
    }


def test_a_processor_gets_the_workspace() -> None:
    document = JobConfiguration.parse({}).processor_file(
        {}, image_parameters={}, workspace={"host": "h"}
    )

    assert document["authorization"] == {"workspace": {"host": "h"}}


@pytest.mark.scenario("mapping", 45)
def test_a_configuration_cannot_use_the_secrets_of_its_component() -> None:
    own = {"deep": [{"#key": "s3cret"}], "plain": "public", "#empty": ""}

    with pytest.raises(InvalidInput) as caught:
        written({"parameters": {"#secret": "s3cret"}}, image_parameters=own)

    assert caught.value.message == (
        'Component secrets cannot be used in configurations (used in "parameters.#secret"). '
        "Please contact support if you need further explanation."
    )
    refuse_component_secrets({"a": "s3cret", "#b": "public", "#c": "", "#d": "S3cret"}, own)
    with pytest.raises(InvalidInput, match=r'used in "a\.1\.#b"'):
        refuse_component_secrets({"a": [0, {"#b": "s3cret"}]}, own)


def test_secrets_are_scalars_under_hash_keys_at_any_depth() -> None:
    document = {
        "#a": "one",
        "b": [{"#c": "two", "d": "public"}],
        "#e": {"inner": "not collected", "#f": 3},
        "#g": ["not collected"],
        "#h": None,
        "#i": "",
        "#j": True,
        "#k": 1.5,
        "#l": "one",
    }

    assert secrets(document) == ["one", "two", "3", "1.5"]


@pytest.mark.scenario("runner", 155)
def test_a_hash_in_a_value_makes_no_secret() -> None:
    assert secrets({"g": "#h"}) == []
    assert secrets("#h") == []


@pytest.mark.scenario("runner", 203)
def test_a_row_is_merged_by_key_and_by_index() -> None:
    configuration = {"parameters": {"a": 1, "l": [1, 2, 3]}}
    row = {"parameters": {"b": 2, "l": [9]}}

    assert merge(configuration, row) == {"parameters": {"a": 1, "l": [9, 2, 3], "b": 2}}
    assert configuration == {"parameters": {"a": 1, "l": [1, 2, 3]}}


@pytest.mark.parametrize(
    ("configuration", "row", "merged"),
    [
        ({"a": [1]}, {"a": [5, 6]}, {"a": [5, 6]}),
        ({"a": [{"x": 1}]}, {"a": [{"y": 2}]}, {"a": [{"x": 1, "y": 2}]}),
        ({"a": [1]}, {"a": []}, {"a": [1]}),
        ({"a": {"b": 1}}, {"a": {}}, {"a": {"b": 1}}),
        ({"a": {"b": 1}}, {"a": []}, {"a": {"b": 1}}),
        ({"a": []}, {"a": {"b": 1}}, {"a": {"b": 1}}),
        ({"a": [1]}, {"a": 5}, {"a": 5}),
        ({"a": 5}, {"a": [1]}, {"a": [1]}),
        ({"a": 5}, {"a": []}, {"a": []}),
        ({"a": 5}, {"a": None}, {"a": None}),
        ({"a": [1, 2]}, {"a": {"b": 1}}, {"a": {"b": 1}}),
        ([], {"a": 1}, {"a": 1}),
        ({"a": 1}, [], {"a": 1}),
    ],
)
def test_what_a_row_replaces_and_what_it_leaves(configuration: Any, row: Any, merged: Any) -> None:
    assert merge(configuration, row) == merged


def test_a_row_of_any_depth_is_merged_or_refused() -> None:
    deep: Any = {}
    for _ in range(50_000):
        deep = {"a": deep}

    with pytest.raises(InvalidInput, match="nested deeper"):
        merge(deep, deep)
    while deep:
        deep = deep.popitem()[1]
