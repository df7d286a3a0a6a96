"""Artifacts: what a run leaves, and what later runs find."""

from __future__ import annotations

import tarfile
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trio
from tests.engine.conftest import MakeEngine
from trio.testing import MockClock

from vaka import Engine, Job, JobSpec, Mode, Status
from vaka.errors import MappingFailed
from vaka.models.container import ContainerSpec
from vaka.models.storage import FileDetail, FileQuery, FileUpload, StorageScope
from vaka.testing import FakeHost, FakeImage, Script, host_path

COMPONENT = "vendor.worker"
SCOPE = StorageScope(project="1")


class Worker:
    """A component: remembers the artifacts it was given, leaves those it is told to."""

    def __init__(self, host: FakeHost) -> None:
        self.found: list[dict[str, str]] = []
        self.leaves: dict[str, str] = {}
        self.then: Callable[[Path], object] | None = None
        self.exit_code = 0
        host.images["worker:1"] = FakeImage(self._script)

    def _script(self, spec: ContainerSpec) -> Script:
        return Script(effect=self._work, exit_code=self.exit_code)

    def _work(self, spec: ContainerSpec) -> None:
        data = host_path(spec, "/data")
        artifacts = data / "artifacts/in"
        self.found.append(
            {
                path.relative_to(artifacts).as_posix(): path.read_text()
                for path in sorted(artifacts.rglob("*"))
                if path.is_file()
            }
        )
        for name, text in self.leaves.items():
            path = data / "artifacts/out" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        if self.then is not None:
            self.then(data)


@pytest.fixture
def worker(host: FakeHost) -> Worker:
    return Worker(host)


async def configure(engine: Engine, config: str = "c", **artifacts: Any) -> None:
    definition = {"type": "dockerhub", "uri": "worker", "tag": "1"}
    await engine.catalog.put_component(
        {
            "id": COMPONENT,
            "type": "application",
            "name": "W",
            "data": {"definition": definition},
        }
    )
    await engine.catalog.create_configuration(
        "1", COMPONENT, config, config_id=config, configuration={"artifacts": artifacts}
    )


async def run(engine: Engine, config: str = "c", **spec: Any) -> Job:
    job = await engine.submit(JobSpec(component=COMPONENT, config=config, **spec))
    await job.wait()
    await job.refresh()
    return job


async def stored(engine: Engine) -> list[FileDetail]:
    return await engine.storage.files.list_files(SCOPE, FileQuery(query="tags:artifact"))


async def unpacked(engine: Engine, detail: FileDetail, folder: Path) -> dict[str, bytes]:
    target = folder / str(detail.id)
    await engine.storage.files.download(SCOPE, detail.id, target)
    with tarfile.open(target, "r:gz") as archive:
        files = [member for member in archive.getmembers() if member.isreg()]
        return {each.name: archive.extractfile(each).read() for each in files}  # type: ignore[union-attr]


async def warnings(job: Job) -> list[str]:
    return [event.message async for event in job.events() if event.level == "warn"]


@pytest.mark.scenario("runner", 238)
async def test_what_a_run_leaves_is_stored_as_one_archive(
    clock: MockClock, make_engine: MakeEngine, worker: Worker, tmp_path: Path
) -> None:
    async with make_engine() as engine:
        await configure(engine)
        nothing = await run(engine)
        worker.then = lambda data: (data / "artifacts/out/current/empty").mkdir(parents=True)
        empty = await run(engine)
        assert await stored(engine) == []
        for job in (nothing, empty):
            assert job.record.result["artifacts"] == {"uploaded": [], "downloaded": []}
        worker.then = None
        worker.leaves = {
            "current/file": "one",
            "current/sub/file": "two",
            "shared/file": "nobody's",
        }

        job = await run(engine)

        (branch,) = await engine.catalog.branches("1")
        (detail,) = await stored(engine)
        assert detail.name == "artifacts.tar.gz"
        assert detail.tags == (
            "artifact",
            f"branchId-{branch.id}",
            f"componentId-{COMPONENT}",
            "configId-c",
            f"jobId-{job.id}",
        )
        assert await unpacked(engine, detail, tmp_path) == {"file": b"one", "sub/file": b"two"}
        assert job.record.result["artifacts"] == {
            "uploaded": [{"storageFileId": str(detail.id)}],
            "downloaded": [],
        }
        assert await warnings(job) == []


@pytest.mark.scenario("runner", 239)
async def test_earlier_runs_are_found_by_later_ones(
    clock: MockClock, make_engine: MakeEngine, worker: Worker
) -> None:
    async with make_engine() as engine:
        await configure(engine, runs={"enabled": True, "filter": {"limit": 1}})
        await configure(engine, "other")
        jobs = []
        for text in ("first", "second"):
            worker.leaves = {"current/sub/file": text}
            jobs.append(await run(engine))
        await run(engine, "other")
        worker.leaves = {}

        last = await run(engine)

        second = jobs[1].record
        assert worker.found[-1] == {f"runs/jobId-{second.id}/sub/file": "second"}
        assert worker.found[0] == {}
        assert last.record.result["artifacts"] == {
            "uploaded": [],
            "downloaded": second.result["artifacts"]["uploaded"],
        }


async def test_runs_since_a_date_and_another_configuration_are_found(
    clock: MockClock, make_engine: MakeEngine, worker: Worker
) -> None:
    async with make_engine() as engine:
        await configure(engine, "since", runs={"enabled": True, "filter": {"date_since": "-1 day"}})
        tomorrow = (datetime.now(UTC) + timedelta(days=2)).date().isoformat()
        await configure(engine, "later", runs={"enabled": True, "filter": {"date_since": tomorrow}})
        await configure(
            engine, "never", runs={"enabled": True, "filter": {"date_since": "nonsense"}}
        )
        await configure(
            engine,
            "custom",
            custom={"enabled": True, "filter": {"config_id": "since", "limit": 5}},
        )
        jobs = []
        for text in ("first", "second"):
            worker.leaves = {"current/file": text}
            jobs.append(await run(engine, "since"))
            await run(engine, "later")
        await run(engine, "custom")
        by_job = {
            f"jobId-{job.id}/file": text
            for job, text in zip(jobs, ["first", "second"], strict=True)
        }
        assert worker.found[-1] == {f"custom/{path}": text for path, text in by_job.items()}
        assert worker.found[2] == {f"runs/jobId-{jobs[0].id}/file": "first"}
        assert worker.found[3] == {}
        wrong = await run(engine, "never")
        assert wrong.record.error == "user"
        assert '"nonsense" is no date' in wrong.record.result["message"]


async def test_jobs_of_an_orchestration_share_artifacts(
    clock: MockClock, make_engine: MakeEngine, worker: Worker, tmp_path: Path
) -> None:
    async with make_engine() as engine:
        await configure(engine, "one", runs={"enabled": True, "filter": {"limit": 9}})
        await configure(engine, "two", shared={"enabled": True})
        worker.leaves = {"current/own": "own", "shared/ours": "ours"}
        first = await run(engine, "one", orchestration="o-1")
        worker.leaves = {}
        await run(engine, "two", orchestration="o-1")
        await run(engine, "two", orchestration="o-2")
        await run(engine, "two")
        await run(engine, "one")

        shared, current = await stored(engine)
        assert shared.tags[-2:] == ("shared", "orchestrationId-o-1")
        assert current.tags[-1] == "orchestrationId-o-1"
        assert "shared" not in current.tags
        assert await unpacked(engine, shared, tmp_path) == {"ours": b"ours"}
        assert worker.found[1:] == [
            {f"shared/jobId-{first.id}/ours": "ours"},
            {},
            {},
            {f"runs/jobId-{first.id}/own": "own"},
        ]
        ids = [{"storageFileId": str(each.id)} for each in (current, shared)]
        assert first.record.result["artifacts"]["uploaded"] == ids


async def test_files_can_be_stored_one_by_one(
    clock: MockClock, make_engine: MakeEngine, worker: Worker
) -> None:
    async with make_engine() as engine:
        await configure(
            engine,
            options={"zip": False},
            runs={"enabled": True, "filter": {"limit": 10}},
        )
        worker.leaves = {"current/a.csv": "a", "current/sub/b.csv": "b"}
        first = await run(engine)
        assert sorted(each.name for each in await stored(engine)) == ["a.csv", "b.csv"]
        worker.leaves = {}
        second = await run(engine)
        assert worker.found[1] == {
            f"runs/jobId-{first.id}/a.csv": "a",
            f"runs/jobId-{first.id}/b.csv": "b",
        }
        assert len(second.record.result["artifacts"]["downloaded"]) == 2


async def test_artifacts_follow_the_state(
    clock: MockClock, make_engine: MakeEngine, worker: Worker
) -> None:
    """Where no state is stored there are none: inline, debug and failed runs, other projects."""
    worker.leaves = {"current/file": "x"}
    async with make_engine() as engine:
        await configure(engine, runs={"enabled": True, "filter": {"limit": 1}})
        inline = {"artifacts": {"runs": {"enabled": True, "filter": {"limit": 1}}}}
        for spec in (
            JobSpec(component=COMPONENT, config_data=inline),
            JobSpec(component=COMPONENT, config="c", mode=Mode.DEBUG),
        ):
            outcome = await (await engine.submit(spec)).wait()
            assert outcome.status is Status.SUCCESS, outcome
        worker.exit_code = 1
        assert (await run(engine)).record.error == "user"
        assert await stored(engine) == []
        worker.exit_code = 0
        plain = await engine.catalog.create_project("plain")
        await engine.catalog.create_configuration(plain.id, COMPONENT, "c", config_id="c")
        job = await run(engine, project=plain.id)
        assert job.record.status is Status.SUCCESS
        found = await engine.storage.files.list_files(StorageScope(plain.id), FileQuery())
        assert found == []


async def test_artifacts_that_cannot_be_stored_are_a_warning(
    clock: MockClock, make_engine: MakeEngine, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with make_engine() as engine:
        await configure(engine)
        worker.then = lambda data: (data / "artifacts").symlink_to("/etc")
        hostile = await run(engine)
        assert hostile.record.status is Status.SUCCESS
        (warning,) = await warnings(hostile)
        assert warning.startswith('Error uploading artifacts "/data/artifacts is a symbolic link')

        worker.then, worker.leaves = None, {"current/file": "x" * 2_000}
        monkeypatch.setattr("vaka.actors.artifacts.LARGEST", 1_000)
        large = await run(engine)
        assert large.record.status is Status.SUCCESS
        assert await warnings(large) == [
            'Error uploading artifacts "There are more than 1000 bytes. Write less."'
        ]
        monkeypatch.undo()

        async def upload(*args: Any, **kwargs: Any) -> FileDetail:
            raise MappingFailed("the disk is full")

        monkeypatch.setattr(type(engine.storage.files), "upload", upload)
        failed = await run(engine)
        assert failed.record.status is Status.SUCCESS
        assert await warnings(failed) == ['Error uploading artifacts "the disk is full"']
        assert failed.record.result["artifacts"]["uploaded"] == []


async def test_a_hostile_archive_is_refused_before_the_container(
    clock: MockClock, make_engine: MakeEngine, worker: Worker, tmp_path: Path
) -> None:
    link = tarfile.TarInfo("link")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc"
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as archive:
        archive.addfile(link)
    tags = ("artifact", f"componentId-{COMPONENT}", "configId-c")
    upload = FileUpload(name="artifacts.tar.gz", tags=(*tags, "jobId-7"))
    async with make_engine() as engine:
        await configure(engine, custom={"enabled": True, "filter": {"component_id": COMPONENT}})
        for wrong in ("jobId-../../x", "jobId-"):
            nobody = FileUpload(name="artifacts.tar.gz", tags=(*tags, wrong))
            await engine.storage.files.upload(SCOPE, nobody, tmp_path / "a.tar.gz")
        job = await run(engine)
        assert job.record.status is Status.SUCCESS
        assert worker.found == [{}]
        assert len(await warnings(job)) == 2

        hostile = await engine.storage.files.upload(SCOPE, upload, tmp_path / "a.tar.gz")
        job = await run(engine)
        assert (job.record.error, job.record.result["message"]) == (
            "user",
            f"The artifact {hostile.id} cannot be unpacked. "
            '"link" in it is neither a regular file nor a folder.',
        )
        assert len(worker.found) == 1


async def test_artifacts_are_stored_once_however_often_it_is_tried(
    clock: MockClock, make_engine: MakeEngine, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine dies after it has stored them, and before it has written that down."""
    async with make_engine(shutdown="adopt") as engine:
        await configure(engine)
        worker.leaves = {"current/file": "x"}
        files = engine.storage.files
        upload = type(files).upload
        reached = trio.Event()

        async def stuck(self: Any, *args: Any, **kwargs: Any) -> FileDetail:
            await upload(self, *args, **kwargs)
            reached.set()
            await trio.sleep_forever()
            raise AssertionError

        with monkeypatch.context() as patched:
            patched.setattr(type(files), "upload", stuck)
            job = await engine.submit(JobSpec(component=COMPONENT, config="c"))
            await reached.wait()
            (before,) = await stored(engine)
    async with make_engine() as engine:
        job = await engine.job(job.id)
        outcome = await job.wait()
        assert outcome.status is Status.SUCCESS, outcome
        assert await stored(engine) == [before]
        assert outcome.result["artifacts"]["uploaded"] == [{"storageFileId": str(before.id)}]
    assert len(worker.found) == 1
