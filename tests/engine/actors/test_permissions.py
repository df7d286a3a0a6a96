"""Taking a folder back from an image that runs as root (runner.md section 4.12)."""

from __future__ import annotations

import logging

import pytest
import trio
from tests.engine.conftest import MakeEngine
from trio.testing import MockClock

from vaka import Engine, Job, JobSpec, Status
from vaka.datafolder import JobFolder
from vaka.models.container import ContainerSpec
from vaka.testing import FakeHost, FakeImage, Script

COMPONENT = "keboola.ex-root"


@pytest.fixture
def unprivileged(monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine that may not give away what others own."""

    def refuse(*_: object) -> None:
        raise PermissionError("Operation not permitted")

    monkeypatch.setattr(JobFolder, "normalise_permissions", refuse)


async def run(engine: Engine) -> Job:
    await engine.catalog.put_component(
        {
            "id": COMPONENT,
            "type": "extractor",
            "name": "Root",
            "features": ["container-root-user"],
            "data": {"definition": {"type": "dockerhub", "uri": "root"}, "network": "bridge"},
        }
    )
    job = await engine.submit(JobSpec(component=COMPONENT, config_data={}))
    await job.wait()
    return job


def helpers(host: FakeHost, *endings: Script) -> None:
    """Let the helpers of a root image end like this, one after the other."""
    left = list(endings)

    def play(spec: ContainerSpec) -> Script:
        return left.pop(0) if "-owner-" in spec.name else Script()

    host.images["root:latest"] = FakeImage(play)


async def test_an_engine_that_is_root_needs_no_helper(
    host: FakeHost, clock: MockClock, make_engine: MakeEngine
) -> None:
    helpers(host)
    async with make_engine() as engine:
        assert (await run(engine)).record.status is Status.SUCCESS
    assert len(host.created) == 1


@pytest.mark.scenario("runner", 189)
@pytest.mark.usefixtures("unprivileged")
async def test_a_helper_that_hangs_is_tried_again(
    host: FakeHost, clock: MockClock, make_engine: MakeEngine, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    helpers(host, Script(seconds=130), Script())
    async with make_engine(container_user="7:8") as engine:
        before = trio.current_time()
        job = await run(engine)
        seconds = trio.current_time() - before
    assert job.record.status is Status.SUCCESS
    assert 120 + 60 <= seconds < 120 + 180 + 10
    assert host.containers == []
    _, first, second = host.created
    assert (first.name, second.name) == (
        f"vaka-vaka-{job.id}-1-0-0-owner-1",
        f"vaka-vaka-{job.id}-1-0-0-owner-2",
    )
    assert (first.user, first.network, first.drop_capabilities) == ("0:0", "none", False)
    assert first.command == ("chown -R 7:8 /data /tmp && chmod -R u+rwX /data /tmp",)
    reasons = [vars(record).get("reason") for record in caplog.records]
    assert reasons.count("Normalizing working directory permissions") == 2


@pytest.mark.usefixtures("unprivileged")
@pytest.mark.parametrize(
    ("endings", "words"),
    [
        ([Script(seconds=1_000)] * 3, "did not end within 120 s, 3 times"),
        ([Script(exit_code=127)], "could not give it back (exit code 127)"),
    ],
)
async def test_a_folder_that_cannot_be_had_is_an_application_error(
    host: FakeHost,
    clock: MockClock,
    make_engine: MakeEngine,
    caplog: pytest.LogCaptureFixture,
    endings: list[Script],
    words: str,
) -> None:
    helpers(host, *endings)
    async with make_engine() as engine:
        job = await run(engine)
    assert job.record.error == "application"
    (failed,) = [vars(record) for record in caplog.records if record.msg == "job.failed"]
    assert words in failed["error"]
    assert host.containers == []
