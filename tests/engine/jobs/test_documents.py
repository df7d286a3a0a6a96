"""What containers are given besides data: environment, configuration file, and what they leave."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trio
import yaml
from pydantic import SecretStr
from tests.engine.conftest import MakeEngine
from tests.engine.jobs.project import Project, Seen, Writes
from trio.testing import MockClock

from vaka import JobSpec, Status
from vaka.testing import FakeHost, Printed

TOKEN = "1-2-aVerySecretToken"
ASKS: dict[str, Any] = {
    "token": SecretStr(TOKEN),
    "token_id": "47",
    "token_description": "somebody's token",
}
FORWARDED = {"KBC_TOKEN": TOKEN, "KBC_URL": "http://vaka.test"}
DETAILS = {
    "KBC_PROJECTNAME": "Main",
    "KBC_TOKENID": "47",
    "KBC_TOKENDESC": "somebody's token",
}


# -- environment -----------------------------------------------------------------------------------


async def environment(
    project: Project, data: dict[str, Any] | None = None, **spec: Any
) -> dict[str, str]:
    await project.component("x", data=data)
    ran = await project.run("x", **{"config_data": {}, **spec})
    assert ran.outcome.status is Status.SUCCESS, ran.outcome
    return dict(project.seen[-1].environment)


async def test_every_container_is_told_where_it_is(project: Project, clock: MockClock) -> None:
    await project.component("x")
    await project.configuration("x", rows={"r": {}})
    ran = await project.run("x", config="c", branch=None)
    (seen,) = project.seen
    told = dict(seen.environment)
    version = str(ran.result["configVersion"])
    features = (await project.engine.catalog.project("1")).features
    assert told == {
        "KBC_RUNID": ran.job.record.run_id,
        "KBC_PROJECTID": "1",
        "KBC_DATADIR": "/data/",
        "KBC_CONFIGID": "c",
        "KBC_CONFIGROWID": "r",
        "KBC_CONFIGVERSION": version,
        "KBC_COMPONENTID": "x",
        "KBC_STACKID": "vaka.test",
        "KBC_STAGING_FILE_PROVIDER": "local",
        "KBC_PROJECT_FEATURE_GATES": ",".join(features),
        "KBC_COMPONENT_RUN_MODE": "run",
    }


@pytest.mark.scenario("runner", 167)
@pytest.mark.scenario("runner", 168)
@pytest.mark.parametrize("token", [True, False])
@pytest.mark.parametrize("details", [True, False])
async def test_the_token_is_given_to_components_that_ask_for_it(
    project: Project, clock: MockClock, token: bool, details: bool
) -> None:
    given = await environment(
        project, {"forward_token": token, "forward_token_details": details}, **ASKS
    )
    expected = (FORWARDED if token else {}) | (DETAILS if details else {})
    assert {name: given[name] for name in given if name in FORWARDED | DETAILS} == expected


@pytest.mark.scenario("mapping", 261)
async def test_a_token_that_was_given_is_hidden_in_what_is_printed(
    project: Project, clock: MockClock
) -> None:
    await project.component(
        "x",
        data={"forward_token": True},
        output=[Printed(f"my token is {TOKEN}\n".encode())],
    )
    ran = await project.run("x", config_data={}, **ASKS)
    assert project.seen[0].environment["KBC_TOKEN"] == TOKEN
    assert "my token is [hidden]" in ran.told
    assert not [message for message in ran.told if TOKEN in message]


@pytest.mark.scenario("runner", 169)
async def test_a_parameter_is_no_environment_variable(project: Project, clock: MockClock) -> None:
    parameters = {"KBC_CONFIGID": "mine", "KBC_OTHER": "x"}
    given = await environment(project, config_data={"parameters": parameters})
    assert re.fullmatch(r"[0-9a-f]{40}", given["KBC_CONFIGID"])
    assert "KBC_OTHER" not in given


@pytest.mark.scenario("runner", 170)
@pytest.mark.scenario("mapping", 260)
async def test_an_inline_configuration_has_an_id_that_stands_for_its_parameters(
    project: Project, clock: MockClock
) -> None:
    first = await environment(project, config_data={"parameters": {"a": 1, "b": [2]}})
    assert first["KBC_DATADIR"] == "/data/"
    assert re.fullmatch(r"[0-9a-f]{40}", first["KBC_CONFIGID"])
    again = await environment(
        project, config_data={"storage": {}, "parameters": {"b": [2], "a": 1}}
    )
    other = await environment(project, config_data={"parameters": {"a": 1}})
    assert again["KBC_CONFIGID"] == first["KBC_CONFIGID"] != other["KBC_CONFIGID"]


@pytest.mark.scenario("mapping", 262)
async def test_each_container_is_told_its_own_component_and_the_run_that_all_share(
    project: Project, clock: MockClock
) -> None:
    await project.component("x", data={"forward_token_details": True})
    await project.processor("p.one")
    await project.processor("p.two", data={"forward_token": True})
    ran = await project.run("x", config_data=processors(before=["p.one"], after=["p.two"]), **ASKS)
    assert [seen.component for seen in project.seen] == ["p.one", "x", "p.two"]
    assert {seen.environment["KBC_RUNID"] for seen in project.seen} == {ran.job.record.run_id}
    asked = [
        sorted(seen.environment.keys() & {"KBC_TOKEN", "KBC_TOKENID"}) for seen in project.seen
    ]
    assert asked == [[], ["KBC_TOKENID"], ["KBC_TOKEN"]]


@pytest.fixture
async def typed(
    clock: MockClock, make_engine: MakeEngine, host: FakeHost, tmp_path: Path
) -> AsyncIterator[Project]:
    """A project with native types."""
    async with make_engine() as engine:
        made = await engine.catalog.create_project("typed", features=["new-native-types"])
        assert made.id == "2"
        yield Project(engine, host, tmp_path)


async def test_processors_are_told_the_main_components_support_of_types(
    typed: Project, clock: MockClock
) -> None:
    await typed.component("x", types="authoritative")
    await typed.processor("p")
    ran = await typed.run("x", config_data=processors(after=["p"]), project="2")
    assert ran.outcome.status is Status.SUCCESS, ran.outcome
    told = [seen.environment["KBC_DATA_TYPE_SUPPORT"] for seen in typed.seen]
    assert told == ["authoritative", "authoritative"]
    assert typed.seen[0].environment["KBC_PROJECT_FEATURE_GATES"] == "new-native-types"


# -- configuration files and formats ---------------------------------------------------------------


def processors(before: Any = (), after: Any = ()) -> dict[str, Any]:
    return {
        "processors": {
            "before": [{"definition": {"component": name}} for name in before],
            "after": [{"definition": {"component": name}} for name in after],
        }
    }


@pytest.mark.scenario("runner", 171)
@pytest.mark.scenario("mapping", 50)
async def test_a_component_that_reads_yaml_is_given_yaml(
    project: Project, clock: MockClock
) -> None:
    await project.component(
        "x",
        {
            "out/state.yml": "page: 3\n",
            "out/usage.yml": "- metric: kB\n  value: 150\n",
            "out/tables/result.csv": '"a"\n"1"\n',
            "out/tables/result.csv.manifest": "destination: out.c-yaml.result\nincremental: true\n",
        },
        data={"configuration_format": "yaml"},
    )
    await project.load("in.c-main.t", '"id"\n"1"\n')
    source = {"source": "in.c-main.t", "destination": "t.csv"}
    await project.configuration(
        "x", {"parameters": {"a": [1]}, "storage": {"input": {"tables": [source]}}}
    )
    await project.set_state("x", {"component": {"page": 2}})
    ran = await project.run("x", config="c")
    assert ran.outcome.status is Status.SUCCESS, ran.outcome
    (seen,) = project.seen
    assert sorted(path for path in seen.files if "/tables/" not in path) == [
        "config.yml",
        "in/state.yml",
    ]
    assert yaml.safe_load(seen.files["config.yml"])["parameters"] == {"a": [1]}
    assert yaml.safe_load(seen.files["in/state.yml"]) == {"page": 2}
    manifest = seen.files["in/tables/t.csv.manifest"]
    assert yaml.safe_load(manifest)["id"] == "in.c-main.t"
    with pytest.raises(json.JSONDecodeError):
        json.loads(manifest)
    assert (await project.state("x")).value["component"] == {"page": 3}
    assert ran.job.record.usage == ({"metric": "kB", "value": 150},)
    assert await project.tables() == ["in.c-main.t", "out.c-yaml.result"]


async def test_a_folder_without_any_mapping_has_its_whole_layout(
    project: Project, clock: MockClock
) -> None:
    await project.component("x")
    await project.run("x", config_data={})
    (seen,) = project.seen
    assert seen.folders == (
        *("in", "in/files", "in/tables", "in/user", "out", "out/files", "out/tables"),
    )
    assert list(seen.files) == ["config.json", "in/state.json"]


# -- usage and variables ---------------------------------------------------------------------------


@pytest.mark.scenario("runner", 185)
@pytest.mark.scenario("mapping", 65)
async def test_the_usage_of_all_rows_is_the_jobs(project: Project, clock: MockClock) -> None:
    def writes(seen: Seen) -> Writes:
        row = seen.environment["KBC_CONFIGROWID"]
        usage = {"r1": [{"metric": "kB", "value": 150}], "r2": [{"metric": "rows", "value": 0}]}
        return {"out/usage.json": json.dumps(usage.get(row, []))}

    await project.component("x", writes)
    await project.configuration("x", rows={"r1": {}, "empty": {}, "r2": {}})
    one = await project.run("x", config="c", row="r1")
    assert one.job.record.usage == ({"metric": "kB", "value": 150},)
    every = await project.run("x", config="c")
    assert every.job.record.usage == (
        {"metric": "kB", "value": 150},
        {"metric": "rows", "value": 0},
    )


@pytest.mark.scenario("mapping", 67)
@pytest.mark.scenario("runner", 187)
@pytest.mark.parametrize(
    ("usage", "expected"),
    [(None, ()), ("[]", ()), ('[{"metric": "kB", "value": 1}]', ({"metric": "kB", "value": 1},))],
)
async def test_usage_is_kept_of_a_component_that_fails_too(
    project: Project, clock: MockClock, usage: str | None, expected: Any
) -> None:
    writes = {} if usage is None else {"out/usage.json": usage}
    await project.component("good", writes)
    await project.component("bad", writes, exit_code=1)
    good = await project.run("good", config_data={})
    bad = await project.run("bad", config_data={})
    assert (good.outcome.status, bad.outcome.error) == (Status.SUCCESS, "user")
    assert good.job.record.usage == bad.job.record.usage == expected


@pytest.mark.scenario("runner", 186)
@pytest.mark.scenario("mapping", 66)
async def test_usage_of_another_shape_fails_the_job(project: Project, clock: MockClock) -> None:
    await project.component("x", {"out/usage.json": '[{"metric": "a", "value": 1, "random": 2}]'})
    ran = await project.run("x", config_data={})
    assert ran.outcome.error == "user"
    assert ran.outcome.message.startswith(
        'Failed to store Job usage: Unrecognized option "random" under "usage.0"'
    )
    assert ran.job.record.usage == ()


@pytest.mark.scenario("mapping", 68)
async def test_variables_that_a_component_leaves_are_the_jobs(
    project: Project, clock: MockClock
) -> None:
    variables = {"my_var": "hello", "count": 42, "none": None, "list": [1], "object": {}}
    await project.component(
        "x",
        {
            "out/result.json": json.dumps({"variables": variables}),
            "out/tables/t.csv": '"a"\n"1"\n"2"\n',
        },
    )
    mapping = {"output": {"tables": [{"source": "t.csv", "destination": "in.c-main.t"}]}}
    ran = await project.run("x", config_data={"storage": mapping})
    assert ran.result["output"]["variables"] == [
        {"name": "my_var", "value": "hello"},
        {"name": "count", "value": "42"},
        {"name": "none", "value": ""},
    ]
    (table,) = ran.result["output"]["tables"]
    assert table["metrics"] == [{"name": "importedRowsCount", "value": 2}]


@pytest.mark.scenario("mapping", 68)
@pytest.mark.parametrize("content", ["{", "[1]", '{"variables": 5}', "", '"x"'])
async def test_variables_that_cannot_be_read_are_a_warning(
    project: Project, clock: MockClock, content: str
) -> None:
    await project.component("x", {"out/result.json": content})
    ran = await project.run("x", config_data={})
    assert ran.outcome.status is Status.SUCCESS
    (warning,) = [event.message for event in ran.events if event.level == "warn"]
    assert warning.startswith("Failed to parse result.json file")
    assert "variables" not in ran.result["output"]


async def test_the_variables_of_all_rows_stand_in_their_order(
    project: Project, clock: MockClock
) -> None:
    def writes(seen: Seen) -> Writes:
        variables = {"row": seen.environment["KBC_CONFIGROWID"]}
        return {"out/result.json": json.dumps({"variables": variables})}

    await project.component("x", writes)
    await project.configuration("x", rows={"r1": {}, "r2": {}})
    ran = await project.run("x", config="c")
    assert [each["value"] for each in ran.result["output"]["variables"]] == ["r1", "r2"]


# -- names of outputs ------------------------------------------------------------------------------


@pytest.mark.scenario("runner", 247)
async def test_an_inline_configuration_is_stored_under_the_configuration_it_names(
    project: Project, clock: MockClock
) -> None:
    data = {"default_bucket": True, "default_bucket_stage": "out"}
    await project.component("acme.x", {"out/tables/result.csv": '"a"\n"1"\n'}, data=data)
    ran = await project.run("acme.x", config="c7", config_data={})
    assert ran.outcome.status is Status.SUCCESS, ran.outcome
    assert await project.tables() == ["out.c-acme-x-c7.result"]
    assert ran.result["configVersion"] is None


@pytest.mark.scenario("runner", 248)
async def test_a_default_bucket_needs_a_configuration(project: Project, clock: MockClock) -> None:
    await project.component("x", data={"default_bucket": True})
    ran = await project.run("x", config_data={})
    assert ran.outcome.error == "user"
    assert ran.outcome.message == (
        "Configuration ID not set, but is required for default_bucket option."
    )
    assert project.host.created == []
    own = {"storage": {"output": {"default_bucket": "in.c-own"}}}
    assert (await project.run("x", config_data=own)).outcome.status is Status.SUCCESS


@pytest.mark.parametrize(
    ("left_at", "message"),
    [
        (5, "Component p.before asks for the Storage token"),  # while the first of them runs
        (15, "Component x asks for the Storage token"),  # the first has ended, the next runs
        (25, None),  # all have ended that were given it
    ],
)
async def test_without_keys_a_token_that_went_with_its_engine_is_missed_by_who_needs_it(
    make_engine: MakeEngine,
    host: FakeHost,
    clock: MockClock,
    tmp_path: Path,
    left_at: float,
    message: str | None,
) -> None:
    asks = {"forward_token": True}
    async with make_engine(shutdown="adopt", key_ring_document=None) as engine:
        project = Project(engine, host, tmp_path)
        await project.processor("p.before", data=asks, seconds=10)
        await project.component("x", data=asks, seconds=10)
        await project.processor("p.after", seconds=10)
        document = processors(before=["p.before"], after=["p.after"])
        job = await engine.submit(JobSpec(component="x", config_data=document, **ASKS))
        await trio.sleep(left_at)
    async with make_engine(key_ring_document=None) as engine:
        project.engine = engine
        outcome = (await project.ended(await engine.job(job.id))).outcome
    if message is None:
        assert outcome.status is Status.SUCCESS, outcome
    else:
        assert outcome.error == "user"
        assert outcome.message.startswith(message)
    assert host.containers == []
