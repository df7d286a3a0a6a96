"""Debug jobs: what they leave of each stage, and that they leave nothing else."""

from __future__ import annotations

import io
import json
import os
import tarfile
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trio
import yaml
import zstandard
from tests.engine.conftest import MakeEngine
from tests.engine.jobs.project import SCOPE, Project, Ran, Seen, Writes, copied
from tests.engine.jobs.test_chains import around
from tests.engine.jobs.test_inputs import upload
from trio.testing import MockClock

from vaka import JobSpec, Mode, Status
from vaka.actors import snapshot
from vaka.actors.snapshot import hide_secrets
from vaka.datafolder import archives
from vaka.masking import Masker
from vaka.models.container import ContainerSpec
from vaka.models.storage import FileDetail, FileQuery
from vaka.testing import Script, host_path

CSV = '"a"\n"1"\n'
IN, OUT = "in.c-main.source", "out.c-main.destination"
STORAGE = {
    "input": {"tables": [{"source": IN, "destination": "source.csv"}]},
    "output": {"tables": [{"source": "destination.csv", "destination": OUT}]},
}
TABLE = {"in/tables/source.csv"}
WRITES = {"out/tables/destination.csv": CSV, "out/state.json": '{"seen": 1}'}


@dataclass(frozen=True)
class Snapshot:
    """One stored archive."""

    file: FileDetail
    content: dict[str, bytes]
    """Its files and, with a slash at the end, its folders."""

    @property
    def name(self) -> str:
        return self.file.name

    @property
    def tags(self) -> set[str]:
        return set(self.file.tags)

    @property
    def names(self) -> set[str]:
        return set(self.content)

    def json(self, path: str) -> Any:
        return json.loads(self.content[path])


async def snapshots(project: Project) -> list[Snapshot]:
    """Everything tagged `debug`, in the order it was stored."""
    files = project.engine.storage.files
    found = await files.list_files(SCOPE, FileQuery(tags=("debug",)))
    opened = []
    for file in sorted(found, key=lambda each: each.id):
        target = project.folder / f"snapshot-{file.id}"
        await files.download(SCOPE, file.id, target)
        opened.append(Snapshot(file, _content(target.read_bytes())))
        target.unlink()
    return opened


def _content(data: bytes) -> dict[str, bytes]:
    if data.startswith(b"PK"):
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            assert archive.testzip() is None
            return {name: archive.read(name) for name in archive.namelist()}
    with (
        zstandard.open(io.BytesIO(data)) as unpacked,
        tarfile.open(fileobj=unpacked, mode="r|") as stream,
    ):
        return {
            each.name if each.isreg() else f"{each.name}/": b""
            if (file := stream.extractfile(each)) is None
            else file.read()
            for each in stream
        }


async def debug(project: Project, component: str = "x", **spec: Any) -> Ran:
    return await project.run(component, mode=Mode.DEBUG, **spec)


def named(found: Sequence[Snapshot]) -> list[str]:
    return [each.name for each in found]


@pytest.fixture
async def ready(project: Project, clock: MockClock) -> Project:
    """A project with a table, a component that writes another one, and two processors."""
    await project.load(IN, CSV)
    await project.component("x", WRITES)
    await project.processor("p.b")
    await project.processor("p.c")
    return project


# -- what is stored, and what is not ---------------------------------------------------------------


@pytest.mark.scenario("runner", 210)
async def test_a_debug_job_stores_two_snapshots_and_no_table(
    ready: Project, clock: MockClock
) -> None:
    ran = await debug(ready, config_data={"storage": STORAGE})

    assert ran.outcome.status is Status.SUCCESS
    first, last = await snapshots(ready)
    assert named((first, last)) == ["stage_0.zip", "stage_output.zip"]
    both = {"debug", "x", f"jobId:{ran.job.id}", f"JobId:{ran.job.id}", "rowId:", "RowId:"}
    assert (first.tags, last.tags) == (both | {"x"}, both)
    assert first.names >= TABLE
    assert "out/tables/destination.csv" not in first.names
    assert {*TABLE, "out/tables/destination.csv"} <= last.names
    assert first.content["in/tables/source.csv"].decode() == CSV
    assert await ready.tables() == [IN]


async def test_a_debug_job_ends_as_a_run_does(ready: Project, clock: MockClock) -> None:
    ran = await debug(ready, config_data={"storage": STORAGE})
    real = await ready.run("x", config_data={"storage": STORAGE})
    assert ran.result["message"] == real.result["message"]
    assert ran.result.keys() == real.result.keys()
    assert ran.result["output"]["tables"] == []
    stored = [event for event in ran.events if event.kind == "snapshot.stored"]
    assert [event.message for event in stored] == [
        "Stored snapshot stage_0.zip.",
        "Stored snapshot stage_output.zip.",
    ]
    assert [event.data["name"] for event in stored] == ["stage_0.zip", "stage_output.zip"]


@pytest.mark.scenario("runner", 211)
async def test_a_failing_component_leaves_what_it_was_given(
    ready: Project, clock: MockClock
) -> None:
    await ready.component("fails", WRITES, exit_code=1)
    ran = await debug(ready, "fails", config_data={"storage": STORAGE})
    assert (ran.outcome.status, ran.outcome.error) == (Status.ERROR, "user")
    assert named(await snapshots(ready)) == ["stage_0.zip"]


@pytest.mark.scenario("mapping", 71)
async def test_there_is_a_snapshot_before_each_stage_and_one_after_the_last(
    ready: Project, clock: MockClock
) -> None:
    storage = {
        **STORAGE,
        "output": {**STORAGE["output"], "files": [{"source": "f", "tags": ["t"]}]},
    }
    await ready.component("x", {**WRITES, "out/files/f": "file"})
    ran = await debug(ready, config_data=around(after=("p.b", "p.c"), storage=storage))

    assert ran.outcome.status is Status.SUCCESS
    found = await snapshots(ready)
    assert named(found) == ["stage_0.zip", "stage_1.zip", "stage_2.zip", "stage_output.zip"]
    assert all("debug" in each.tags and not each.file.is_public for each in found)
    assert all(each.file.max_age_days is not None for each in found)
    assert [each.names & {"in/files/f", "out/files/f"} for each in found] == [
        set(),
        {"in/files/f"},
        {"in/files/f"},
        {"in/files/f", "out/files/f"},
    ]
    assert await ready.tables() == [IN]
    files = await ready.engine.storage.files.list_files(SCOPE, FileQuery())
    assert {each.id for each in files} == {each.file.id for each in found}


@pytest.mark.scenario("mapping", 72)
async def test_a_failing_processor_leaves_the_stages_before_it(
    ready: Project, clock: MockClock
) -> None:
    await ready.component("p.fails", {}, exit_code=1)
    ran = await debug(ready, config_data=around(after=("p.fails", "p.c"), storage=STORAGE))
    assert ran.outcome.status is Status.ERROR
    assert named(await snapshots(ready)) == ["stage_0.zip", "stage_1.zip"]
    assert await ready.tables() == [IN]


@pytest.mark.scenario("runner", 213)
async def test_each_row_has_snapshots_of_its_own(ready: Project, clock: MockClock) -> None:
    await ready.configuration("x", {"storage": STORAGE}, rows={"row1": {}, "row2": {}})
    ran = await debug(ready, config="c")
    assert ran.outcome.status is Status.SUCCESS
    found = await snapshots(ready)
    assert named(found) == ["stage_0.zip", "stage_output.zip"] * 2
    rows = [{"RowId:row1", "rowId:row1"}] * 2 + [{"RowId:row2", "rowId:row2"}] * 2
    assert all(row <= each.tags for row, each in zip(rows, found, strict=True))


@pytest.mark.scenario("runner", 214)
async def test_rows_have_as_many_snapshots_as_stages(ready: Project, clock: MockClock) -> None:
    rows = {"one": around(after=("p.b", "p.c")), "two": {}}
    await ready.configuration("x", {"storage": STORAGE}, rows=rows)
    assert (await debug(ready, config="c")).outcome.status is Status.SUCCESS
    found = await snapshots(ready)
    names = ["stage_0", "stage_1", "stage_2", "stage_output", "stage_0", "stage_output"]
    assert named(found) == [f"{name}.zip" for name in names]
    assert ["RowId:one" in each.tags for each in found] == [True] * 4 + [False] * 2
    assert ["RowId:two" in each.tags for each in found] == [False] * 4 + [True] * 2
    assert {"p.b", "p-b"} <= found[1].tags  # its id, and its image without a tag
    assert {"p.c", "p-c"} <= found[2].tags
    for each in (found[0], found[3], found[4], found[5]):
        assert "x" in each.tags
        assert not {"p.b", "p.c"} & each.tags


@pytest.mark.scenario("runner", 215)
async def test_a_debug_job_remembers_nothing(ready: Project, clock: MockClock) -> None:
    await upload(ready, "f", "todo")
    files = [{"tags": ["todo"], "processed_tags": ["done"]}]
    storage = {**STORAGE, "input": {**STORAGE["input"], "files": files}}
    await ready.configuration("x", {"storage": storage})
    before = await ready.state("x")

    assert (await debug(ready, config="c")).outcome.status is Status.SUCCESS
    assert await ready.state("x") == before
    query = FileQuery(tags=("done",))
    assert await ready.engine.storage.files.list_files(SCOPE, query) == []

    assert (await ready.run("x", config="c")).outcome.status is Status.SUCCESS
    assert await ready.state("x") != before
    assert len(await ready.engine.storage.files.list_files(SCOPE, query)) == 1


@pytest.mark.scenario("runner", 216)
async def test_no_snapshot_has_the_state_that_the_component_left(
    ready: Project, clock: MockClock
) -> None:
    await debug(ready, config_data=around(after=("p.b", "p.c"), storage=STORAGE))
    found = await snapshots(ready)
    assert len(found) == 4
    assert all("config.json" in each.names for each in found)
    assert not any("out/state.json" in each.names for each in found)


async def test_usage_is_counted_as_in_a_run(ready: Project, clock: MockClock) -> None:
    await ready.component("x", {"out/usage.json": '[{"metric": "calls", "value": 3}]'})
    ran = await debug(ready, config_data={})
    real = await ready.run("x", config_data={})
    await ran.job.refresh()
    await real.job.refresh()
    assert ran.job.record.usage == real.job.record.usage
    assert [dict(each) for each in ran.job.record.usage] == [{"metric": "calls", "value": 3}]


# -- secrets ---------------------------------------------------------------------------------------


@pytest.mark.scenario("runner", 212)
async def test_secrets_are_hidden_in_the_archive_and_not_from_the_component(
    ready: Project, clock: MockClock
) -> None:
    parameters = {"#encrypted": "secret", "plain": "not-secret"}
    await debug(ready, config_data={"parameters": parameters})
    assert json.loads(ready.seen[0].files["config.json"])["parameters"] == parameters
    for each in await snapshots(ready):
        assert each.json("config.json")["parameters"] == {
            "#encrypted": "[hidden]",
            "plain": "not-[hidden]",
        }


@pytest.mark.scenario("mapping", 73)
async def test_a_snapshot_is_the_folder_less_the_secrets(ready: Project, clock: MockClock) -> None:
    await ready.load("in.c-main.secrets", '"a"\n"my-secret"\n')

    def writes(seen: Seen) -> Writes:
        assert seen.files["in/state.json"].count("my-secret") == 2
        return {**copied(seen), "out/files/f": "", "out/state.json": '{"x": "my-secret"}'}

    await ready.component("x", writes)
    await ready.component("p.b", lambda seen: {**copied(seen), "out/state.json": '["my-secret"]'})
    tables = [{"source": "in.c-main.secrets", "destination": "t.csv"}]
    document = around(after=("p.b",), parameters={"#password": "my-secret"})
    document = await ready.sealed({**document, "storage": {"input": {"tables": tables}}}, "x")
    await ready.configuration("x", document)
    state = {"component": {"#token": "my-secret", "note": "is my-secret"}}
    await ready.set_state("x", await ready.sealed(state, "x"))

    await debug(ready, config="c")

    first, second, last = await snapshots(ready)
    assert first.json("config.json")["parameters"] == {"#password": "[hidden]"}
    assert first.json("in/state.json") == {"#token": "[hidden]", "note": "is [hidden]"}
    assert last.json("out/state.json") == ["[hidden]"]
    for each in (first, second, last):
        assert b"my-secret" in each.content["in/tables/t.csv"]
        assert {"in/", "in/files/", "in/tables/", "out/", "out/files/", "out/tables/"} <= each.names
        assert not any(name.startswith(("stage_", "engine")) for name in each.names)
        documents = [data for name, data in each.content.items() if not name.endswith(".csv")]
        assert not any(b"my-secret" in data for data in documents)


@pytest.mark.scenario("encryption", 79)
@pytest.mark.parametrize("form", ["json", "yaml"])
async def test_documents_of_both_formats_are_masked(
    ready: Project, clock: MockClock, form: str
) -> None:
    secret, name = 'a/"b" ž', "json" if form == "json" else "yml"
    await ready.component("x", data={"configuration_format": form})
    parameters = {"#encrypted": secret, "plain": f"not-{secret}"}
    await ready.configuration("x", await ready.sealed({"parameters": parameters}, "x"))
    await ready.set_state("x", await ready.sealed({"component": parameters}, "x"))
    assert (await debug(ready, config="c")).outcome.status is Status.SUCCESS
    first, _ = await snapshots(ready)
    hidden = {"#encrypted": "[hidden]", "plain": "not-[hidden]"}
    load = json.loads if form == "json" else yaml.safe_load
    assert load(first.content[f"config.{name}"])["parameters"] == hidden
    assert load(first.content[f"in/state.{name}"]) == hidden


@pytest.mark.parametrize(
    "secret", ["a/b", 'say "x"', "žluť\\ 😀", "line\nline two", "12345", "[", ":"]
)
@pytest.mark.parametrize("path", ["config.json", "in/state.json", "config.yml", "out/state.yml"])
def test_a_document_stays_one_whatever_the_secret_is(path: str, secret: str) -> None:
    document = {
        "parameters": {
            "#encrypted": secret,
            "plain": f"not-{secret}",
            "number": 12345,
            "#nested": {"kept": True, "#flag": False, "#none": None, "#empty": ""},
            "#list": [secret, 1],
            "list": [[f"{secret}!"], {}],
        }
    }
    is_yaml = path.endswith(".yml")
    data = yaml.safe_dump(document) if is_yaml else json.dumps(document)
    hidden = hide_secrets(path, data.encode(), Masker([secret], shortest=1))
    if secret in {"[", ":"}:  # these are what the format itself is made of: no secret goes first
        assert secret not in hidden.decode().replace("[hidden]", "")
        return
    read = yaml.safe_load(hidden) if is_yaml else json.loads(hidden)
    assert read == {
        "parameters": {
            "#encrypted": "[hidden]",
            "plain": "not-[hidden]",
            "number": "[hidden]" if secret == "12345" else 12345,
            "#nested": {"kept": True, "#flag": "[hidden]", "#none": None, "#empty": ""},
            "#list": ["[hidden]", "[hidden]"],
            "list": [["[hidden]!"], {}],
        }
    }


@pytest.mark.parametrize("data", [b'{"a": secret', b"\xff secret", b"", b'{"a": ' * 5_000])
def test_what_is_no_document_is_masked_as_text(data: bytes) -> None:
    hidden = hide_secrets("out/state.json", data, Masker(["secret"]))
    assert b"secret" not in hidden
    assert (b"[hidden]" in hidden) == (b"secret" in data)


# -- how it is stored ------------------------------------------------------------------------------


async def test_snapshots_are_packed_as_the_job_asks(ready: Project, clock: MockClock) -> None:
    await debug(ready, config_data={"storage": STORAGE}, snapshot_format="tar.zst")
    found = await snapshots(ready)
    assert named(found) == ["stage_0.tar.zst", "stage_output.tar.zst"]
    assert {*TABLE, "out/tables/destination.csv", "config.json", "in/files/"} <= found[1].names


async def test_snapshots_are_packed_as_the_engine_is_set(
    make_engine: MakeEngine, host: Any, clock: MockClock, tmp_path: Path
) -> None:
    async with make_engine(snapshot_format="tar.zst") as engine:
        project = Project(engine, host, tmp_path)
        await project.component("x")
        await debug(project, config_data={})
        await debug(project, config_data={}, snapshot_format="zip")
        found = await snapshots(project)
    assert named(found) == [
        "stage_0.tar.zst",
        "stage_output.tar.zst",
        "stage_0.zip",
        "stage_output.zip",
    ]


async def test_what_is_left_out_of_a_snapshot_is_told(
    make_engine: MakeEngine, host: Any, clock: MockClock, tmp_path: Path
) -> None:
    def leave(spec: ContainerSpec) -> None:
        out = host_path(spec, "/data") / "out/files"
        (out / "link").symlink_to("/etc/passwd")
        (out / "large").write_bytes(b"x" * 3_001)
        os.mkfifo(out / "pipe")
        with (out / "sparse").open("wb") as file:
            file.truncate(10 << 40)
        (out / "small").write_bytes(b"small")

    async with make_engine(snapshot_bytes=3_000) as engine:
        project = Project(engine, host, tmp_path)
        await project.component("x", script=lambda _: Script(effect=leave))
        host.images["x:1"] = type(host.images["x:1"])(lambda _: Script(effect=leave))
        ran = await debug(project, config_data={})
        last = (await snapshots(project))[1]
    assert ran.outcome.status is Status.SUCCESS
    assert {name for name in last.names if name.startswith("out/files/")} == {
        "out/files/",
        "out/files/small",
    }
    (told,) = [event for event in ran.events if event.level == "warn"]
    assert told.message == (
        "Stored snapshot stage_output.zip without 4 of the folder's entries: "
        "out/files/large (no room in the 3000 bytes that an archive may hold); "
        "out/files/link (a symbolic link); out/files/pipe (a named pipe) and 1 more."
    )
    assert told.data["left_out"] == 4
    assert told.data["left_out_paths"][3] == "out/files/sparse: mostly holes"


async def test_an_archive_is_gone_once_it_is_stored(ready: Project, clock: MockClock) -> None:
    home = ready.engine.config.home
    left: list[Path] = []

    def look(seen: Seen) -> Writes:
        left.extend(home.glob("**/stage_*"))
        return copied(seen)

    await ready.component("x", look)
    await debug(ready, config_data=around(after=("p.b",)))
    assert len(ready.seen) == 2
    assert left == []


async def test_an_archive_that_was_begun_before_a_crash_is_written_again(
    ready: Project, clock: MockClock
) -> None:
    def leave(seen: Seen) -> Writes:
        (folder,) = (ready.engine.config.home / "jobs").glob("*/engine")
        (folder / "stage_1.zip").write_bytes(b"half of an archive")
        return copied(seen)

    await ready.component("x", leave)
    ran = await debug(ready, config_data=around(after=("p.b",)))
    assert ran.outcome.status is Status.SUCCESS
    assert named(await snapshots(ready)) == ["stage_0.zip", "stage_1.zip", "stage_output.zip"]


async def test_a_job_that_is_stopped_does_not_wait_for_its_snapshot(
    ready: Project, clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    writing = trio.Event()
    written = archives.write_archive

    def endless(*places: Any, proceed: Callable[[], None], **options: Any) -> Any:
        trio.from_thread.run_sync(writing.set)
        while True:
            proceed()
            written(*places, proceed=proceed, **options)
            places[1].unlink()

    monkeypatch.setattr(snapshot, "write_archive", endless)
    job = await ready.engine.submit(JobSpec(component="x", config_data={}, mode=Mode.DEBUG))
    await writing.wait()
    await job.cancel()
    assert (await ready.ended(job)).outcome.status is Status.TERMINATED
    assert ready.seen == []
    assert await snapshots(ready) == []


async def test_a_component_that_stages_nothing_has_snapshots_too(
    ready: Project, clock: MockClock
) -> None:
    staging = {"staging_storage": {"input": "none", "output": "none"}}
    await ready.component("x", {"out/files/f": "left"}, data=staging)
    ran = await debug(ready, config_data={})
    assert ran.outcome.status is Status.SUCCESS
    found = await snapshots(ready)
    assert named(found) == ["stage_0.zip", "stage_output.zip"]
    assert found[1].content["out/files/f"] == b"left"
