"""What becomes of a job's outputs: which options count, and what is kept of a job that fails."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.engine.conftest import MakeEngine
from trio.testing import MockClock

from vaka import Engine, JobSpec, Outcome, Status
from vaka._supervision import INTERNAL_ERROR
from vaka.errors import ApplicationError
from vaka.hooks import MappingBackend, hookimpl
from vaka.models.container import ContainerSpec
from vaka.models.storage import FileQuery, StorageScope
from vaka.testing import FakeHost, FakeImage, Printed, Script, host_path
from vaka_local.storage import LocalStorage

COMPONENT, IMAGE = "acme.main", "main:1"
SCOPE = StorageScope("1")
CSV = '"Id","Name"\n"1","one"\n'


def play(host: FakeHost, files: Mapping[str, str], *output: Printed, **script: Any) -> None:
    """Have the component leave these files in `/data/out`."""

    def work(spec: ContainerSpec) -> None:
        for name, content in files.items():
            path = host_path(spec, f"/data/out/{name}")
            path.parent.mkdir(exist_ok=True)
            path.write_text(content)

    host.images[IMAGE] = FakeImage(Script(output, effect=work, **script))


async def run(
    engine: Engine,
    configuration: Mapping[str, Any] | None = None,
    *,
    config: str | None = "c",
    definition: Mapping[str, Any] | None = None,
    **more: Any,
) -> Outcome:
    """Run the component with a configuration; `definition` and `more` are what its own says."""
    image = {"type": "dockerhub", "uri": "main", "tag": "1"}
    document = {
        "id": COMPONENT,
        "type": "other",
        "name": "Main",
        "data": {"definition": image, **(definition or {})},
        **more,
    }
    await engine.catalog.put_component(document)
    job = await engine.submit(
        JobSpec(component=COMPONENT, config=config, config_data=dict(configuration or {}))
    )
    return await job.wait()


def outputs(*tables: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    return {"storage": {"output": {"tables": [dict(table) for table in tables], **more}}}


async def tables(engine: Engine) -> list[str]:
    return [table.id for table in await engine.storage.tables.list_tables(SCOPE)]


ALWAYS = {"source": "table.csv", "destination": "out.c-b.always", "write_always": True}
SOMETIMES = {"source": "table0.csv", "destination": "out.c-b.sometimes", "write_always": False}
BOTH = {"tables/table.csv": CSV, "tables/table0.csv": CSV}


# -- jobs that fail ------------------------------------------------------------------------------


@pytest.mark.scenario("mapping", 232)
@pytest.mark.scenario("mapping", 239)
@pytest.mark.parametrize(
    ("code", "error", "message"),
    [(1, "user", "it went wrong"), (2, "application", INTERNAL_ERROR)],
)
async def test_a_job_that_fails_stores_what_is_always_written(
    host: FakeHost,
    clock: MockClock,
    make_engine: MakeEngine,
    code: int,
    error: str,
    message: str,
) -> None:
    play(host, {**BOTH, "files/f": "x"}, Printed(b"it went wrong\n"), exit_code=code)
    async with make_engine() as engine:
        outcome = await run(engine, outputs(ALWAYS, SOMETIMES))
        assert await tables(engine) == ["out.c-b.always"]
        assert await engine.storage.files.list_files(SCOPE, FileQuery()) == []
    assert (outcome.status, outcome.error) == (Status.ERROR, error)
    assert outcome.message == message
    assert ("it went wrong" in outcome.message) is (code == 1)


@pytest.mark.scenario("mapping", 235)
@pytest.mark.scenario("mapping", 236)
@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"tables/other.csv": CSV, "tables/other.csv.manifest": "{"}, []),
        ({"tables/orphan.csv.manifest": "{}"}, []),
        ({"tables/bad.csv": '"a","b"\n"1"\n', "tables/bad.csv.manifest": json.dumps(
            {"destination": "out.c-b.bad", "write_always": True})}, ["out.c-b.always"]),
    ],
)  # fmt: skip
async def test_what_else_goes_wrong_in_a_job_that_fails_does_not_hide_why(
    host: FakeHost,
    clock: MockClock,
    make_engine: MakeEngine,
    files: dict[str, str],
    expected: list[str],
) -> None:
    play(host, {"tables/table.csv": CSV, **files}, Printed(b"the reason\n"), exit_code=1)
    async with make_engine() as engine:
        outcome = await run(engine, outputs(ALWAYS))
        assert await tables(engine) == expected
    assert (outcome.error, outcome.message) == ("user", "the reason")


@pytest.mark.scenario("mapping", 237)
async def test_a_source_that_is_missing_fails_a_job_that_did_its_work(
    host: FakeHost, clock: MockClock, make_engine: MakeEngine
) -> None:
    play(host, {"tables/table0.csv": CSV})
    async with make_engine() as engine:
        await engine.storage.tables.create_bucket(SCOPE, "in", "b")
        await engine.storage.tables.create_table(SCOPE, "in.c-b.source", ["Id"])
        configuration = outputs(ALWAYS, SOMETIMES)
        configuration["storage"]["input"] = {"tables": [{"source": "in.c-b.source"}]}
        outcome = await run(engine, configuration)
        assert await tables(engine) == ["in.c-b.source"]
    assert (outcome.error, outcome.message) == ("user", 'Table sources not found: "table.csv"')
    (read,) = outcome.result["input"]["tables"]
    assert read["id"] == "in.c-b.source"


@pytest.mark.scenario("mapping", 175)
async def test_all_tables_that_fail_are_in_one_error(
    host: FakeHost, clock: MockClock, make_engine: MakeEngine
) -> None:
    play(host, {"tables/a.csv": "", "tables/b.csv": "", "tables/c.csv": CSV})
    async with make_engine() as engine:
        outcome = await run(engine, outputs(default_bucket="out.c-b"))
        assert await tables(engine) == ["out.c-b.c"]
    reason = "There are no data in import file"
    assert (outcome.error, outcome.message) == (
        "user",
        f'Failed to process output mapping: Failed to load table "out.c-b.a": {reason}\n'
        f'Failed to load table "out.c-b.b": {reason}',
    )


@pytest.mark.scenario("mapping", 146)
async def test_a_default_bucket_needs_a_configuration_to_be_named_after(
    host: FakeHost, clock: MockClock, make_engine: MakeEngine
) -> None:
    play(host, {"tables/a.csv": CSV})
    async with make_engine() as engine:
        outcome = await run(engine, config=None, definition={"default_bucket": True})
        assert await tables(engine) == []
        assert (outcome.error, outcome.message) == (
            "user",
            "Configuration ID not set, but is required for default_bucket option.",
        )
        assert (await run(engine, definition={"default_bucket": True})).status is Status.SUCCESS
        assert await tables(engine) == ["in.c-acme-main-c.a"]


# -- options -------------------------------------------------------------------------------------


async def test_types_are_those_of_project_configuration_and_component(
    host: FakeHost, clock: MockClock, make_engine: MakeEngine
) -> None:
    schema = {"schema": [{"name": "Id", "data_type": {"base": {"type": "INTEGER"}}}]}
    play(host, {"tables/t.csv": '"1"\n', "tables/t.csv.manifest": json.dumps(schema)})
    hints = {"dataTypesSupport": "hints"}
    async with make_engine() as engine:
        typed = await engine.catalog.create_project("Typed", features=["new-native-types"])
        plainly = outputs(default_bucket="out.c-b")
        outcome = await run(engine, plainly, dataTypesConfiguration=hints)
        assert outcome.status is Status.SUCCESS
        plain = await engine.storage.tables.table(SCOPE, "out.c-b.t")
        assert not plain.is_typed
        for bucket, support, expected in [
            ("out.c-hints", {}, "STRING"),
            ("out.c-types", {"data_type_support": "authoritative"}, "INTEGER"),
        ]:
            job = await engine.submit(
                JobSpec(
                    component=COMPONENT,
                    project=typed.id,
                    config_data=outputs(default_bucket=bucket, **support),
                )
            )
            assert (await job.wait()).status is Status.SUCCESS
            table = await engine.storage.tables.table(StorageScope(typed.id), f"{bucket}.t")
            assert [each.base_type for each in table.definitions] == [expected]


@pytest.mark.scenario("mapping", 231)
@pytest.mark.parametrize("feature", [True, False])
@pytest.mark.parametrize("option", [True, False])
async def test_tables_are_files_when_component_and_configuration_say_so(
    host: FakeHost, clock: MockClock, make_engine: MakeEngine, *, feature: bool, option: bool
) -> None:
    play(host, {"tables/my-table.csv": CSV, "files/f": "x"})
    configuration = {
        **outputs(default_bucket="out.c-b", table_files={"tags": ["mine"]}),
        "runtime": {"use_file_storage_only": option},
    }
    async with make_engine() as engine:
        features = ["allow-use-file-storage-only"] if feature else []
        outcome = await run(engine, configuration, features=features)
        assert outcome.status is Status.SUCCESS
        found = await engine.storage.files.list_files(SCOPE, FileQuery())
        both = feature and option
        assert await tables(engine) == ([] if both else ["out.c-b.my-table"])
    assert sorted(file.name for file in found) == (["f", "my_table.csv"] if both else ["f"])
    own = {f"componentId: {COMPONENT}", "configurationId: c"}
    for file in found:
        assert own < set(file.tags)
        assert ("mine" in file.tags) is (file.name == "my_table.csv")


# -- all or nothing ------------------------------------------------------------------------------


@pytest.mark.parametrize("setting", [True, False])
@pytest.mark.parametrize("option", [True, False, None])
async def test_outputs_land_together_where_that_is_asked_for(
    host: FakeHost,
    clock: MockClock,
    make_engine: MakeEngine,
    option: bool | None,
    *,
    setting: bool,
) -> None:
    play(host, {"tables/a.csv": CSV, "tables/b.csv": ""})
    configuration = {**outputs(default_bucket="out.c-b"), "runtime": {"atomic_output": option}}
    atomic = setting if option is None else option
    async with make_engine(atomic_output=setting) as engine:
        outcome = await run(engine, configuration)
        assert await tables(engine) == ([] if atomic else ["out.c-b.a"])
        assert outcome.error == "user"
        assert ("none was changed" in outcome.message) is atomic

        play(host, {"tables/a.csv": CSV, "tables/b.csv": CSV})
        assert (await run(engine, configuration)).status is Status.SUCCESS
        assert await tables(engine) == ["out.c-b.a", "out.c-b.b"]


class _OneByOne(LocalStorage):
    """A Storage that cannot load several tables in one transaction."""

    @property
    def loads_together(self) -> bool:
        return False


async def test_a_storage_that_cannot_load_together_is_named_before_a_component_runs(
    host: FakeHost, clock: MockClock, make_engine: MakeEngine
) -> None:
    @hookimpl
    def vaka_mapping_backend(url: str) -> MappingBackend:
        return _OneByOne(Path(url.removeprefix("local://")))

    plugin = SimpleNamespace(vaka_mapping_backend=vaka_mapping_backend)
    play(host, {"tables/a.csv": CSV})
    configuration = {**outputs(default_bucket="out.c-b"), "runtime": {"atomic_output": True}}
    async with make_engine(plugin) as engine:
        outcome = await run(engine, configuration)
        assert await tables(engine) == []
    assert outcome.error == "user"
    assert outcome.message.startswith('The Storage "snowflake" cannot load several tables in one')
    assert "atomic_output" in outcome.message
    assert host.created == []

    with pytest.raises(ApplicationError, match="the setting atomic_output asks for"):
        async with make_engine(plugin, atomic_output=True):
            pytest.fail("the engine opened")
