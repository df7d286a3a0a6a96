"""Component definitions: defaults, refusals, and what follows from them."""

from __future__ import annotations

from typing import Any

import pytest

from vaka.errors import ApplicationError, InvalidDefinition, InvalidInput, UserError
from vaka.models.catalog import Component
from vaka.models.component import (
    DEFAULT_VERBOSITY,
    ComponentDefinition,
    Logging,
    parse_memory,
    split_reference,
)

PREFIX = (
    "Component definition is invalid. Verify the deployment setup and the repository settings in "
    "the Developer Portal. Detail: "
)
MINIMAL: dict[str, Any] = {"definition": {"type": "dockerhub", "uri": "acme/thing"}}


def component(data: Any, id_: str = "acme.ex-thing", **more: Any) -> Component:
    return Component(id=id_, name="Thing", type="extractor", data=data, **more)


def defined(**keys: Any) -> ComponentDefinition:
    return ComponentDefinition.parse(component(MINIMAL | keys))


def refusal(data: Any, **more: Any) -> str:
    with pytest.raises(InvalidDefinition) as caught:
        ComponentDefinition.parse(component(data, **more))
    assert isinstance(caught.value, ApplicationError)
    assert caught.value.message.startswith(PREFIX)
    return caught.value.message.removeprefix(PREFIX)


@pytest.mark.scenario("runner", 100)
def test_a_minimal_definition_has_the_defaults_of_the_contract() -> None:
    assert defined() == ComponentDefinition(
        id="acme.ex-thing",
        uri="acme/thing",
        image_type="dockerhub",
        default_tag="latest",
        digest="",
        memory="256m",
        memory_bytes=268_435_456,
        process_timeout=3600,
        configuration_format="json",
        forward_token=False,
        forward_token_details=False,
        default_bucket=False,
        default_bucket_stage="in",
        image_parameters={},
        network="bridge",
        synchronous_actions=(),
        logging=Logging("standard", DEFAULT_VERBOSITY, "tcp", no_application_errors=False),
        staging_input="local",
        staging_output="local",
        data_types_support="none",
    )


def test_credentials_of_a_definition_are_accepted_and_go_nowhere() -> None:
    repository = {"username": "me", "#password": "secret", "server": "registry.example.com"}
    image = {"type": "dockerhub", "uri": "acme/thing"}
    definition = defined(definition=image | {"repository": repository})
    assert definition == defined(definition=image)
    with pytest.raises(InvalidDefinition, match="username"):
        defined(definition=image | {"repository": {"username": []}})


def test_everything_that_a_definition_says_is_known() -> None:
    definition = ComponentDefinition.parse(
        component(
            {
                "definition": {"type": "aws-ecr", "uri": "1.registry.example/thing", "tag": "1.2",
                               "digest": "ab", "name": "thing", "repository": {"region": "eu-1"}},
                "memory": "1g", "process_timeout": 0, "configuration_format": "yaml",
                "forward_token": True, "forward_token_details": True, "default_bucket": True,
                "default_bucket_stage": "out", "image_parameters": {"#a": "b"}, "network": "none",
                "synchronous_actions": ["test", 5],
                "logging": {"type": "gelf", "verbosity": {"100": "verbose"},
                            "gelf_server_type": "udp", "no_application_errors": True},
                "staging_storage": {"input": "s3", "output": "none"},
            },
            features=("container-root-user", "no-swap"),
            extra={"dataTypesConfiguration": {"dataTypesSupport": "hints"}},
        )
    )  # fmt: skip

    assert definition == ComponentDefinition(
        id="acme.ex-thing", uri="1.registry.example/thing", image_type="aws-ecr", default_tag="1.2",
        digest="ab", replicated_name="thing", region="eu-1",
        features=("container-root-user", "no-swap"), memory="1g", memory_bytes=1 << 30,
        process_timeout=0, configuration_format="yaml", forward_token=True,
        forward_token_details=True, default_bucket=True, default_bucket_stage="out",
        image_parameters={"#a": "b"}, network="none", synchronous_actions=("test", "5"),
        logging=Logging("gelf", {**DEFAULT_VERBOSITY, 100: "verbose"}, "udp", True),
        staging_input="s3", staging_output="none", data_types_support="hints",
    )  # fmt: skip
    assert definition.runs_as_root
    assert definition.no_swap
    assert definition.extension == "yml"
    assert definition.dump({"a": []}) == b"a: {  }\n"


@pytest.mark.scenario("runner", 101)
@pytest.mark.parametrize("data", [{}, [], None])
def test_a_component_without_data_has_no_definition(data: Any) -> None:
    assert refusal(data) == 'The child config "definition" under "component" must be configured.'


@pytest.mark.scenario("runner", 102)
def test_a_definition_has_a_uri() -> None:
    assert refusal({"definition": {"type": "dockerhub", "uri": ""}}) == (
        'The path "component.definition.uri" cannot contain an empty value, but got "".'
    )
    assert refusal({"definition": {"type": "dockerhub"}}) == (
        'The child config "uri" under "component.definition" must be configured.'
    )


@pytest.mark.scenario("runner", 103)
@pytest.mark.parametrize("kind", ["whatever", "builder", "dockerhub-private"])
def test_an_image_type_is_one_of_three(kind: str) -> None:
    assert refusal({"definition": {"type": kind, "uri": "x"}}) == (
        f'Invalid configuration for path "component.definition.type": Invalid image type "{kind}".'
    )


@pytest.mark.scenario("runner", 104)
def test_a_configuration_format_is_json_or_yaml() -> None:
    assert refusal(MINIMAL | {"configuration_format": "fail"}) == (
        'Invalid configuration for path "component.configuration_format": '
        'Invalid configuration_format "fail".'
    )


@pytest.mark.scenario("runner", 105)
def test_a_network_is_one_of_three() -> None:
    assert refusal(MINIMAL | {"network": "whatever"}) == (
        'Invalid configuration for path "component.network": Invalid network type "whatever".'
    )
    assert defined(network="no-internet").network == "no-internet"


@pytest.mark.scenario("runner", 106)
@pytest.mark.scenario("mapping", 252)
@pytest.mark.parametrize(
    ("side", "kind", "values"),
    [
        ("input", "whatever", '"local", "s3", "abs", "none", "workspace-snowflake", '
         '"workspace-redshift", "workspace-bigquery"'),
        ("output", "s3", '"local", "none", "workspace-snowflake", "workspace-redshift", '
         '"workspace-bigquery"'),
    ],
)  # fmt: skip
def test_a_staging_kind_is_a_known_one(side: str, kind: str, values: str) -> None:
    assert refusal(MINIMAL | {"staging_storage": {side: kind}}) == (
        f'The value "{kind}" is not allowed for path "component.staging_storage.{side}". '
        f"Permissible values: {values}."
    )


@pytest.mark.parametrize(
    ("keys", "path", "rule"),
    [
        (
            {"default_bucket_stage": "x"},
            "default_bucket_stage",
            'Invalid default_bucket_stage "x".',
        ),
        ({"logging": {"type": "x"}}, "logging.type", 'Invalid logging type "x".'),
        (
            {"logging": {"gelf_server_type": "x"}},
            "logging.gelf_server_type",
            'Invalid GELF server type "x".',
        ),
        (
            {"logging": {"verbosity": {"100": "x"}}},
            "logging.verbosity.100",
            'Invalid verbosity "x".',
        ),
        (
            {"logging": {"verbosity": {"7": "none"}}},
            "logging.verbosity",
            'Invalid log level "7".',
        ),
    ],
)
def test_words_of_a_definition_are_checked(keys: Any, path: str, rule: str) -> None:
    assert refusal(MINIMAL | keys) == (f'Invalid configuration for path "component.{path}": {rule}')


def test_a_timeout_is_an_integer_that_is_not_negative() -> None:
    assert refusal(MINIMAL | {"process_timeout": "10"}) == (
        'Invalid type for path "component.process_timeout". Expected "int", but got "string".'
    )
    assert "too small" in refusal(MINIMAL | {"process_timeout": -1})


def test_data_types_support_is_one_of_three() -> None:
    extra = {"dataTypesConfiguration": {"dataTypesSupport": "x"}}

    assert 'The value "x" is not allowed' in refusal(MINIMAL, extra=extra)


@pytest.mark.scenario("runner", 107)
def test_unknown_keys_are_ignored_at_every_level() -> None:
    definition = MINIMAL["definition"] | {"unknown": 1, "repository": {"unknown": 1}}

    assert defined(
        unknown=1, vendor={"a": 1}, definition=definition, logging={"u": 1}, staging_storage={"u": 1}
    ) == defined()  # fmt: skip


@pytest.mark.scenario("runner", 108)
@pytest.mark.scenario("mapping", 44)
def test_hyphens_in_names_of_keys_are_underscores() -> None:
    definition = ComponentDefinition.parse(
        component(MINIMAL | {"staging-storage": {"input": "s3"}})
    )

    assert definition.staging_input == "s3"


def test_a_definition_with_a_bad_memory_limit_is_refused() -> None:
    assert refusal(MINIMAL | {"memory": "12X"}) == 'Value "12x" is not understood'


@pytest.mark.scenario("runner", 109)
@pytest.mark.scenario("mapping", 145)
@pytest.mark.parametrize(
    ("id_", "bucket"),
    [
        ("keboola.ex-generic", "in.c-keboola-ex-generic-test"),
        ("ex-generic", "in.c-ex-generic-test"),
        ("keboola.ex.generic", "in.c-keboola-ex-generic-test"),
        ("keboola.docker-demo-sync", "in.c-keboola-docker-demo-sync-test"),
    ],
)
def test_a_default_bucket_is_named_after_component_and_configuration(id_: str, bucket: str) -> None:
    parsed = ComponentDefinition.parse(component(MINIMAL | {"default_bucket": True}, id_))

    assert parsed.default_bucket_id("test") == bucket
    assert parsed.sanitised_id in bucket


def test_a_default_bucket_is_in_the_stage_asked_for_or_not_wanted() -> None:
    wanted = defined(default_bucket=True, default_bucket_stage="out")

    assert wanted.default_bucket_id("7") == "out.c-acme-ex-thing-7"
    assert defined().default_bucket_id(None) is None


def test_a_default_bucket_needs_a_configuration() -> None:
    with pytest.raises(UserError) as caught:
        defined(default_bucket=True).default_bucket_id(None)
    assert caught.value.message == (
        "Configuration ID not set, but is required for default_bucket option."
    )


def test_a_reference_is_made_of_registry_uri_and_tag() -> None:
    def reference(tag: str | None = None, **definition: Any) -> str:
        return defined(definition=MINIMAL["definition"] | definition).image_reference(tag)

    assert reference() == "acme/thing:latest"
    assert reference(tag="2.0") == "acme/thing:2.0"
    assert reference("") == "acme/thing:latest"
    assert (
        defined(definition=MINIMAL["definition"] | {"tag": "1"}).image_reference() == "acme/thing:1"
    )
    assert reference(type="aws-ecr", uri="1.ecr.example/x") == "1.ecr.example/x:latest"


@pytest.mark.parametrize("tag", ["a b", ":", "-1", "ž", "1/2", "x" * 129])
def test_no_registry_is_asked_for_a_tag_that_none_can_be(tag: str) -> None:
    with pytest.raises(UserError) as caught:
        defined().image_reference(tag)
    assert caught.value.message == f'Image "{defined().id}:{tag}" not found in the registry.'


@pytest.mark.scenario("runner", 134)
def test_a_quay_image_is_on_quay_and_latest_by_default() -> None:
    definition = defined(definition={"type": "quayio", "uri": "acme/thing", "tag": ""})

    assert definition.image_reference() == "quay.io/acme/thing:latest"


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ("256m", 256 << 20),
        ("1g", 1 << 30),
        ("1.5G", 3 << 29),
        ("32M", 32 << 20),
        ("64000k", 64000 << 10),
        ("1048576", 1 << 20),
        ("10 MiB", 10 << 20),
        ("10mb", 10 << 20),
        ("1b", 1),
        ("2t", 2 << 40),
    ],
)
def test_memory_is_counted_as_docker_does(size: str, expected: int) -> None:
    assert parse_memory(size) == expected


@pytest.mark.parametrize(
    "size", ["", "m", "-1m", "1x", "0", "0.0001k", "9999999999p", "1e3", "1 2m", "\u0661m"]
)
def test_what_is_no_size_is_refused(size: str) -> None:
    with pytest.raises(InvalidInput, match="is not understood"):
        parse_memory(size)


HEX = "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("image", "parts"),
    [
        ("alpine", ("alpine", "", "")),
        ("alpine:3.20", ("alpine", "3.20", "")),
        ("acme/thing:1", ("acme/thing", "1", "")),
        ("registry.example:5000/thing", ("registry.example:5000/thing", "", "")),
        ("registry.example:5000/a/b:1-x", ("registry.example:5000/a/b", "1-x", "")),
        ("localhost:5000", ("localhost", "5000", "")),
        (f"a/b@sha256:{HEX}", ("a/b", "", HEX)),
        (f"h:1/b:2@sha256:{HEX}", ("h:1/b", "2", HEX)),
        (f"sha256:{HEX}", ("sha256", HEX, "")),
    ],
)
def test_a_reference_is_split_where_it_must(image: str, parts: tuple[str, str, str]) -> None:
    assert split_reference(image) == parts


@pytest.mark.parametrize(
    "image",
    [
        "",
        ":1",
        "a:",
        "a b",
        "/a",
        "a//b",
        "a/",
        "-x",
        "a@sha256:12",
        "a:b:c",
        "a\n",
        f"a@md5:{HEX}",
    ],
)
def test_what_is_no_reference_is_refused(image: str) -> None:
    with pytest.raises(InvalidInput, match="is not the reference of an image"):
        split_reference(image)


def test_a_bare_image_runs_as_a_component_of_its_own() -> None:
    definition = ComponentDefinition.for_image(
        "registry.example:5000/thing:1",
        command=("true",),
        timeout=0,
        memory="64m",
        network="bridge",
    )

    assert definition.image_reference() == "registry.example:5000/thing:1"
    assert definition.image_reference("2") == "registry.example:5000/thing:2"
    assert definition.sanitised_id == "registry-example-5000-thing-1"
    assert definition.command == ("true",)
    assert (definition.process_timeout, definition.memory_bytes) == (0, 64 << 20)
    assert definition.network == "bridge"
    assert not definition.forward_token


def test_a_bare_image_has_a_components_limits_and_no_network() -> None:
    definition = ComponentDefinition.for_image("alpine")

    assert definition.image_reference() == "alpine:latest"
    assert (definition.process_timeout, definition.memory, definition.network) == (
        3600,
        "256m",
        "none",
    )


def test_a_bare_image_named_by_digest_or_id_stays_that_image() -> None:
    by_digest = ComponentDefinition.for_image(f"a/b:1@sha256:{HEX}")

    assert by_digest.image_reference() == f"a/b:1@sha256:{HEX}"
    assert by_digest.image_reference("2") == "a/b:2"
    assert by_digest.digest == HEX
    assert ComponentDefinition.for_image(f"sha256:{HEX}").image_reference() == f"sha256:{HEX}"


def mismatch(staging_input: str, staging_output: str) -> str:
    definition = defined(staging_storage={"input": staging_input, "output": staging_output})
    with pytest.raises(ApplicationError) as caught:
        definition.check_staging()
    return caught.value.message


@pytest.mark.scenario("runner", 111)
@pytest.mark.scenario("mapping", 247)
@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("workspace-snowflake", "local"),
        ("workspace-snowflake", "workspace-bigquery"),
        ("local", "workspace-snowflake"),
        ("s3", "workspace-snowflake"),
    ],
)
def test_a_workspace_goes_with_the_same_workspace_only(one: str, other: str) -> None:
    assert mismatch(one, other) == (
        f'Component staging setting mismatch - input: "{one}", output: "{other}".'
    )


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("local", "local"),
        ("s3", "local"),
        ("abs", "none"),
        ("none", "workspace-snowflake"),
        ("workspace-snowflake", "none"),
        ("workspace-snowflake", "workspace-snowflake"),
    ],
)
def test_other_pairs_of_staging_kinds_are_valid(one: str, other: str) -> None:
    defined(staging_storage={"input": one, "output": other}).check_staging()


@pytest.mark.scenario("runner", 194)
def test_processors_need_the_data_in_the_folder() -> None:
    with pytest.raises(UserError) as caught:
        defined(staging_storage={"input": "s3"}).check_staging(has_processors=True)
    assert caught.value.message == (
        "Processors cannot be used with component acme.ex-thing because it does not use local "
        "staging storage."
    )
    defined(staging_storage={"input": "none"}).check_staging(has_processors=True)
    defined().check_staging(has_processors=True)
