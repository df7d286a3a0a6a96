"""The engine's promises to an embedder, on simulated time."""

from __future__ import annotations

import math
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trio
from tests.engine.conftest import MakeEngine
from tests.engine.test_plugins import Rot13
from trio.testing import MockClock

import vaka
from vaka import Event, Job, JobQuery, JobSpec, Status, UserError
from vaka._supervision import INTERNAL_ERROR
from vaka.actors import events
from vaka.actors.stages import LABEL_PREFIX
from vaka.errors import ApplicationError, Conflict, HomeInUse, NotFound, RuntimeUnavailable
from vaka.hooks import Encryptor, hookimpl
from vaka.models.container import ContainerSpec
from vaka.models.job import CauseKind, Phase, StageStatus
from vaka.testing import FakeHost, FakeImage, Printed, Script

IMAGE = "worker:1"


def play(host: FakeHost, *output: Printed, image: str = IMAGE, **script: Any) -> None:
    host.images[image] = FakeImage(Script(output, **script))


async def lines(job: Job) -> list[str]:
    return [event.message async for event in job.events() if event.kind == "log"]


async def first_line(job: Job) -> None:
    async for event in job.events():
        if event.kind == "log":
            return


# -- one job -----------------------------------------------------------------------------------


async def test_a_job_runs_to_its_end_and_leaves_nothing(
    host: FakeHost, clock: MockClock, make_engine: MakeEngine, tmp_path: Path
) -> None:
    play(host, Printed(b"one\n"), Printed(b"two\n", at=50, stream="stderr"), seconds=100)
    async with make_engine() as engine:
        job = await engine.submit(JobSpec(image=IMAGE))
        outcome = await job.wait()
    assert (outcome.status, outcome.message) == (
        Status.SUCCESS,
        "Component processing finished.",
    )
    assert outcome.result["images"] == [[{"id": IMAGE, "digests": []}]]
    assert host.containers == []
    assert list((tmp_path / "home" / "jobs").iterdir()) == []


async def test_events_come_live_and_again_from_the_first(
    host: FakeHost, clock: MockClock, make_engine: MakeEngine
) -> None:
    play(host, Printed(b"one\n"), Printed(b"two\n", at=50, stream="stderr"), seconds=100)
    async with make_engine() as engine:
        job = await engine.submit(JobSpec(image=IMAGE))
        live = [event async for event in job.events()]
        again = [event async for event in job.events(follow=False)]
        rest = [event async for event in job.events(after=live[2].seq)]
    assert live == again
    assert rest == live[3:]
    assert [event.seq for event in live] == list(range(1, len(live) + 1))
    logged = [(event.stream, event.level, event.message) for event in live if event.stream]
    assert logged == [("stdout", "info", "one"), ("stderr", "error", "two")]
    assert live[-1].kind == "job.finished"


async def test_a_job_past_its_timeout_leaves_no_container(
    host: FakeHost, clock: MockClock, make_engine: MakeEngine
) -> None:
    play(host, Printed(b"begun\n"), seconds=7_200)
    async with make_engine() as engine:
        job = await engine.submit(JobSpec(image=IMAGE, timeout=60))
        began = trio.current_time()
        outcome = await job.wait()
        assert 60 <= trio.current_time() - began < 65
        assert await lines(job) == ["begun"]
    assert (outcome.status, outcome.error) == (Status.ERROR, "user")
    assert outcome.message == f"Running {IMAGE} container exceeded the timeout of 60 seconds."
    assert outcome.cause is not None
    assert outcome.cause.kind is CauseKind.TIMEOUT
    assert outcome.cause.evidence["setting"] == f"process_timeout of component {IMAGE}"
    assert host.containers == []


async def test_without_a_timeout_a_job_may_run_for_days(
    host: FakeHost, clock: MockClock, make_engine: MakeEngine, seldom: dict[str, float]
) -> None:
    play(host, seconds=86_400)
    async with make_engine(**seldom) as engine:
        job = await engine.submit(JobSpec(image=IMAGE, timeout=0))
        assert (await job.wait()).status is Status.SUCCESS


@pytest.mark.scenario("runner", 113)
async def test_exit_code_1_is_the_authors_error_in_their_words(
    host: FakeHost, clock: MockClock, make_engine: MakeEngine
) -> None:
    play(host, Printed(b"user error\n"), exit_code=1)
    async with make_engine() as engine:
        outcome = await (await engine.submit(JobSpec(image=IMAGE))).wait()
    assert (outcome.error, outcome.message) == ("user", "user error")
    with pytest.raises(UserError, match="user error"):
        outcome.raise_for_status()


async def test_standard_error_is_preferred_as_the_message(
    host: FakeHost, clock: MockClock, make_engine: MakeEngine
) -> None:
    play(host, Printed(b"chatter\n"), Printed(b"  the reason \n", stream="stderr"), exit_code=1)
    async with make_engine() as engine:
        outcome = await (await engine.submit(JobSpec(image=IMAGE))).wait()
    assert outcome.message == "the reason"
    assert outcome.cause is not None
    assert outcome.cause.evidence == {"exit_code": 1, "stderr_tail": "the reason"}


@pytest.mark.scenario("runner", 114)
@pytest.mark.scenario("runner", 115)
@pytest.mark.parametrize("code", [2, 125, 255])
async def test_other_exit_codes_are_application_errors_whose_text_is_not_shown(
    host: FakeHost,
    clock: MockClock,
    make_engine: MakeEngine,
    code: int,
    caplog: pytest.LogCaptureFixture,
) -> None:
    play(host, Printed(b"application error\n"), exit_code=code)
    async with make_engine() as engine:
        outcome = await (await engine.submit(JobSpec(image=IMAGE))).wait()
    assert (outcome.error, outcome.message) == ("application", INTERNAL_ERROR)
    (told,) = [vars(record) for record in caplog.records if record.msg == "job.failed"]
    assert told["exception_id"] == outcome.exception_id
    assert f"failed: ({code}) application error" in told["error"]
    with pytest.raises(ApplicationError):
        outcome.raise_for_status()


@pytest.mark.scenario("runner", 124)
async def test_out_of_memory_is_named_even_behind_exit_code_0(
    host: FakeHost, clock: MockClock, make_engine: MakeEngine
) -> None:
    play(host, oom_killed=True, exit_code=0)
    async with make_engine() as engine:
        outcome = await (await engine.submit(JobSpec(image=IMAGE, memory="32m"))).wait()
    assert outcome.message == "Component out of memory (exceeded 32m)"
    assert outcome.cause is not None
    assert outcome.cause.evidence["limit_bytes"] == 32 << 20


async def test_an_image_that_does_not_exist_is_said_at_once(
    clock: MockClock, make_engine: MakeEngine
) -> None:
    async with make_engine() as engine:
        job = await engine.submit(JobSpec(image="nowhere:1"))
        outcome = await job.wait()
        notes = [event.message async for event in job.events()]
    assert outcome.error == "application"
    assert outcome.cause is not None
    assert outcome.cause.kind is CauseKind.IMAGE_UNAVAILABLE
    assert outcome.cause.evidence["reference"] == "nowhere:1"
    assert not [note for note in notes if "trying again" in note]


async def test_a_container_that_cannot_be_started_fails_its_job_and_is_removed(
    host: FakeHost, clock: MockClock, make_engine: MakeEngine
) -> None:
    play(host, start_error="exec format error")
    async with make_engine() as engine:
        outcome = await (await engine.submit(JobSpec(image=IMAGE))).wait()
    assert outcome.error == "application"
    assert outcome.cause is not None
    assert "exec format error" in str(outcome.cause.evidence)
    assert host.containers == []


async def test_a_container_that_somebody_removed_is_lost_and_not_run_again(
    host: FakeHost, clock: MockClock, make_engine: MakeEngine
) -> None:
    play(host, seconds=math.inf, vanishes_at=20)
    async with make_engine() as engine:
        outcome = await (await engine.submit(JobSpec(image=IMAGE))).wait()
    assert outcome.cause is not None
    assert outcome.cause.kind is CauseKind.CONTAINER_LOST
    assert len(host.created) == 1


async def test_a_create_that_fails_after_its_work_is_done_makes_no_second_container(
    host: FakeHost, clock: MockClock, make_engine: MakeEngine
) -> None:
    play(host, seconds=5)
    host.fail("start", ApplicationError("no answer"), after=True)
    async with make_engine() as engine:
        outcome = await (await engine.submit(JobSpec(image=IMAGE))).wait()
    assert outcome.status is Status.ERROR
    assert len(host.created) == 1
    assert host.containers == []


async def test_a_job_has_the_labels_limits_and_environment_of_the_contract(
    host: FakeHost, clock: MockClock, make_engine: MakeEngine
) -> None:
    play(host)
    async with make_engine(instance="i1", container_user="7:8") as engine:
        job = await engine.submit(JobSpec(image=IMAGE, memory="64m"))
        await job.wait()
    (spec,) = host.created
    assert spec.name == f"vaka-i1-{job.id}-1-0-0"
    assert spec.labels[LABEL_PREFIX + "jobId"] == str(job.id)
    assert spec.labels[LABEL_PREFIX + "runId"] == job.record.run_id
    assert spec.environment["KBC_RUNID"] == job.record.run_id
    assert spec.environment["KBC_DATADIR"] == "/data/"
    assert len(spec.environment["KBC_CONFIGID"]) == 40
    assert "KBC_TOKEN" not in spec.environment
    assert (spec.user, spec.memory_bytes, spec.network) == ("7:8", 64 << 20, "none")
    assert [mount.target for mount in spec.mounts] == ["/data", "/tmp"]
    assert spec.drop_capabilities
    assert spec.no_new_privileges


async def test_a_plugin_may_change_or_refuse_a_container(
    host: FakeHost, clock: MockClock, make_engine: MakeEngine
) -> None:
    @hookimpl
    def vaka_container_spec(spec: ContainerSpec) -> ContainerSpec:
        if spec.memory_bytes == 1 << 30:
            raise UserError("Too much memory.")
        return spec

    play(host)
    async with make_engine(SimpleNamespace(vaka_container_spec=vaka_container_spec)) as engine:
        fine = await engine.submit(JobSpec(image=IMAGE))
        refused = await engine.submit(JobSpec(image=IMAGE, memory="1g"))
        assert (await fine.wait()).status is Status.SUCCESS
        assert (await refused.wait()).message == "Too much memory."


# -- stopping ----------------------------------------------------------------------------------


@pytest.mark.scenario("runner", 86)
async def test_a_waiting_job_is_cancelled_and_nothing_ever_runs(
    host: FakeHost, clock: MockClock, make_engine: MakeEngine
) -> None:
    play(host, seconds=100)
    async with make_engine(concurrency=1) as engine:
        running = await engine.submit(JobSpec(image=IMAGE))
        waiting = await engine.submit(JobSpec(image=IMAGE))
        record = await waiting.cancel({"id": "4", "description": "me"})
        assert record.status is Status.CANCELLED
        assert (await waiting.wait()).status is Status.CANCELLED
        await running.wait()
    assert len(host.created) == 1


async def test_a_running_job_is_asked_to_stop_and_its_last_words_are_kept(
    host: FakeHost, clock: MockClock, make_engine: MakeEngine
) -> None:
    play(host, Printed(b"begun\n"), Printed(b"late\n", at=3), seconds=7_200, stop_seconds=4)
    async with make_engine() as engine:
        job = await engine.submit(JobSpec(image=IMAGE))
        await first_line(job)
        record = await job.cancel({"id": "4", "description": "me"})
        assert record.status is Status.TERMINATING
        outcome = await job.wait()
        assert host.containers == []
        assert await lines(job) == ["begun", "late"]
    assert (outcome.status, outcome.message) == (Status.TERMINATED, "Job has been terminated")
    assert job.record.terminated_by == {"id": "4", "description": "me"}


async def test_a_component_that_ignores_the_request_is_killed_after_the_grace_period(
    host: FakeHost, clock: MockClock, make_engine: MakeEngine
) -> None:
    play(host, Printed(b"begun\n"), seconds=math.inf, stop_seconds=math.inf)
    async with make_engine(stop_grace=10) as engine:
        job = await engine.submit(JobSpec(image=IMAGE))
        await first_line(job)
        began = trio.current_time()
        await job.cancel()
        assert (await job.wait()).status is Status.TERMINATED
        assert 10 <= trio.current_time() - began < 12
    assert host.containers == []


async def test_no_final_status_is_shown_while_a_container_lives(
    host: FakeHost, clock: MockClock, make_engine: MakeEngine
) -> None:
    play(host, Printed(b"begun\n"), seconds=math.inf, stop_seconds=8)
    async with make_engine() as engine:
        job = await engine.submit(JobSpec(image=IMAGE))
        await first_line(job)
        await job.cancel()
        seen: list[tuple[bool, bool]] = []
        while not (await job.refresh()).status.is_finished:
            seen.append((bool(host.containers), job.record.status is Status.TERMINATING))
            await trio.sleep(0.5)
        assert host.containers == []
    assert len(seen) > 10
    assert all(terminating for _, terminating in seen)


async def test_a_daemon_that_does_not_answer_keeps_a_stopped_job_terminating(
    host: FakeHost, clock: MockClock, make_engine: MakeEngine
) -> None:
    play(host, Printed(b"begun\n"), seconds=math.inf)
    async with make_engine() as engine:
        job = await engine.submit(JobSpec(image=IMAGE))
        await first_line(job)
        host.go_down()
        await job.cancel()
        await trio.sleep(120)
        assert (await job.refresh()).status is Status.TERMINATING
        host.come_back()
        outcome = await job.wait()
    assert outcome.status in {Status.TERMINATED, Status.ERROR}
    assert host.containers == []


async def test_a_job_that_has_ended_cannot_be_cancelled(
    host: FakeHost, clock: MockClock, make_engine: MakeEngine
) -> None:
    play(host)
    async with make_engine() as engine:
        job = await engine.submit(JobSpec(image=IMAGE))
        await job.wait()
        with pytest.raises(Conflict):
            await job.cancel()
        assert (await job.refresh()).status is Status.SUCCESS


async def test_a_job_is_cancelled_while_its_image_is_pulled(
    host: FakeHost, clock: MockClock, make_engine: MakeEngine
) -> None:
    host.images[IMAGE] = FakeImage(digests=("worker@sha256:1",), local=False, pull_seconds=3_600)
    async with make_engine() as engine:
        job = await engine.submit(JobSpec(image=IMAGE))
        await trio.sleep(30)
        began = trio.current_time()
        await job.cancel()
        assert (await job.wait()).status is Status.TERMINATED
        assert trio.current_time() - began < 5
    assert host.created == []


# -- capacity and locks ------------------------------------------------------------------------


async def all_finished(jobs: list[Job]) -> bool:
    return all([(await job.refresh()).status.is_finished for job in jobs])


async def test_no_more_jobs_run_than_may(
    host: FakeHost, clock: MockClock, make_engine: MakeEngine
) -> None:
    play(host, seconds=10)
    most = 0
    async with make_engine(concurrency=3) as engine:
        jobs = [await engine.submit(JobSpec(image=IMAGE)) for _ in range(9)]
        while not await all_finished(jobs):
            most = max(most, len(host.containers))
            await trio.sleep(1)
    assert most == 3
    assert {job.record.status for job in jobs} == {Status.SUCCESS}


async def test_memory_bounds_what_runs_together(
    host: FakeHost, clock: MockClock, make_engine: MakeEngine
) -> None:
    play(host, seconds=10)
    most = 0
    async with make_engine(concurrency=8, memory_bytes=1 << 30) as engine:
        jobs = [await engine.submit(JobSpec(image=IMAGE, memory="512m")) for _ in range(5)]
        while not await all_finished(jobs):
            most = max(most, len(host.containers))
            await trio.sleep(1)
    assert most == 2


async def test_an_idempotency_key_gives_the_same_job_again(
    host: FakeHost, clock: MockClock, make_engine: MakeEngine
) -> None:
    play(host)
    async with make_engine() as engine:
        first = await engine.submit(JobSpec(image=IMAGE, idempotency_key="k"))
        second = await engine.submit(JobSpec(image=IMAGE, idempotency_key="k"))
        assert first.id == second.id
        with pytest.raises(Conflict):
            await engine.submit(JobSpec(image=IMAGE, memory="1g", idempotency_key="k"))


async def test_a_job_that_does_not_exist_is_not_found(
    clock: MockClock, make_engine: MakeEngine
) -> None:
    async with make_engine() as engine:
        with pytest.raises(NotFound):
            await engine.job(1_000_000)


# -- lifetimes ---------------------------------------------------------------------------------


async def test_leaving_waits_for_what_runs(
    host: FakeHost, clock: MockClock, make_engine: MakeEngine
) -> None:
    play(host, Printed(b"begun\n"), seconds=500)
    async with make_engine() as engine:
        job = await engine.submit(JobSpec(image=IMAGE))
        await first_line(job)
    assert host.containers == []
    async with make_engine() as engine:
        assert (await (await engine.job(job.id)).wait()).status is Status.SUCCESS


@pytest.mark.parametrize("settings", [{}, {"shutdown": "stop"}])
async def test_cancelling_around_an_engine_stops_its_jobs(
    host: FakeHost, clock: MockClock, make_engine: MakeEngine, settings: dict[str, Any]
) -> None:
    play(host, Printed(b"begun\n"), seconds=math.inf, stop_seconds=3)
    with trio.CancelScope() as scope:
        async with make_engine(**settings) as engine:
            job = await engine.submit(JobSpec(image=IMAGE))
            await first_line(job)
            scope.cancel()
            await trio.sleep_forever()
    assert host.containers == []
    async with make_engine() as engine:
        outcome = await (await engine.job(job.id)).wait()
    assert outcome.status is Status.TERMINATED


async def test_an_error_around_an_engine_comes_back_as_itself(
    host: FakeHost, clock: MockClock, make_engine: MakeEngine
) -> None:
    play(host, Printed(b"begun\n"), seconds=math.inf)

    async def break_around_an_engine() -> None:
        async with make_engine() as engine:
            await first_line(await engine.submit(JobSpec(image=IMAGE)))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await break_around_an_engine()
    assert host.containers == []


async def test_a_job_outlives_an_engine_that_lets_go_of_it(
    host: FakeHost, clock: MockClock, make_engine: MakeEngine
) -> None:
    play(
        host,
        Printed(b"one\nhalf a "),
        Printed(b"line\n", at=50),
        Printed(b"three\n", at=90, stream="stderr"),
        seconds=100,
    )
    async with make_engine(shutdown="adopt") as engine:
        job = await engine.submit(JobSpec(image=IMAGE, timeout=200))
        await first_line(job)
        assert (await job.refresh()).phase is Phase.STAGE
    assert len(host.containers) == 1
    await trio.sleep(60)
    async with make_engine() as engine:
        job = await engine.job(job.id)
        assert (await job.wait()).status is Status.SUCCESS
        assert await lines(job) == ["one", "half a line", "three"]
        (stage,) = (await job.refresh()).stages
        assert stage.status is StageStatus.COLLECTED
    assert len(host.created) == 1
    assert host.containers == []


async def test_the_time_without_an_engine_counts_for_the_timeout(
    host: FakeHost, clock: MockClock, make_engine: MakeEngine
) -> None:
    play(host, Printed(b"begun\n"), seconds=math.inf)
    async with make_engine(shutdown="adopt") as engine:
        job = await engine.submit(JobSpec(image=IMAGE, timeout=100))
        await first_line(job)
    await trio.sleep(95)
    async with make_engine() as engine:
        began = trio.current_time()
        outcome = await (await engine.job(job.id)).wait()
        assert trio.current_time() - began < 100
    assert "exceeded the timeout of 100 seconds" in outcome.message


async def test_a_job_that_ended_while_no_engine_looked_is_collected(
    host: FakeHost, clock: MockClock, make_engine: MakeEngine
) -> None:
    play(host, Printed(b"one\n"), Printed(b"two\n", at=20), seconds=30, exit_code=1)
    async with make_engine(shutdown="adopt") as engine:
        job = await engine.submit(JobSpec(image=IMAGE))
        await first_line(job)
    await trio.sleep(3_000)
    async with make_engine() as engine:
        job = await engine.job(job.id)
        outcome = await job.wait()
        assert await lines(job) == ["one", "two"]
    assert outcome.message == "one\ntwo"


async def test_a_failure_stays_what_it_was_when_the_engine_dies_cleaning_up(
    host: FakeHost, clock: MockClock, make_engine: MakeEngine
) -> None:
    play(host, Printed(b"user error\n"), seconds=5, exit_code=1)
    host.delays["remove"] = 3_600
    async with make_engine(shutdown="adopt") as engine:
        job = await engine.submit(JobSpec(image=IMAGE))
        await trio.sleep(20)
        assert (await job.refresh()).status is Status.PROCESSING
    host.delays.clear()
    (name,) = host.containers
    host.vanish(name)
    async with make_engine() as engine:
        outcome = await (await engine.job(job.id)).wait()
    assert (outcome.status, outcome.error) == (Status.ERROR, "user")
    assert outcome.message == "user error"
    assert len(host.created) == 1


async def test_a_stop_asked_for_while_no_engine_ran_is_heard_by_the_next(
    host: FakeHost, clock: MockClock, make_engine: MakeEngine
) -> None:
    play(host, Printed(b"begun\n"), seconds=math.inf, stop_seconds=2)
    async with make_engine(shutdown="adopt") as engine:
        job = await engine.submit(JobSpec(image=IMAGE))
        await first_line(job)
    async with make_engine(worker=False) as viewer:
        record = await (await viewer.job(job.id)).cancel()
        assert record.status is Status.TERMINATING
    async with make_engine() as engine:
        assert (await (await engine.job(job.id)).wait()).status is Status.TERMINATED
    assert host.containers == []


async def test_a_home_has_one_working_engine(clock: MockClock, make_engine: MakeEngine) -> None:
    async with make_engine():
        with pytest.raises(HomeInUse, match="is in use by process") as caught:
            async with make_engine():
                raise AssertionError("two engines work in one home")
        assert caught.value.pid is not None


async def test_an_engine_without_a_worker_accepts_jobs_for_another(
    host: FakeHost, clock: MockClock, make_engine: MakeEngine
) -> None:
    play(host)
    async with make_engine(worker=False) as front:
        job = await front.submit(JobSpec(image=IMAGE))
        await trio.sleep(100)
        assert (await job.refresh()).status is Status.WAITING
        assert host.calls == []
        assert (await front.health()).ok
        with pytest.raises(RuntimeUnavailable, match="`worker` is off"):
            await front.services.runtime.info()
        async with make_engine():
            assert (await job.wait()).status is Status.SUCCESS


async def test_what_no_job_needs_is_removed_when_an_engine_starts(
    host: FakeHost, clock: MockClock, make_engine: MakeEngine, tmp_path: Path
) -> None:
    play(host, seconds=math.inf)
    runtime = make_engine().plugins.container_runtime("fake://")
    assert runtime is not None
    await runtime.create(
        ContainerSpec(
            name="left-over",
            image=IMAGE,
            labels={"vaka.instance": "vaka", "vaka.job": "999", "vaka.attempt": "1"},
        )
    )
    await runtime.create(ContainerSpec(name="somebody-elses", image=IMAGE))
    folder = tmp_path / "home" / "jobs" / "999" / "data"
    folder.mkdir(parents=True)
    async with make_engine():
        await trio.sleep(1)
    assert host.containers == ["somebody-elses"]
    assert not folder.exists()


async def test_using_an_engine_that_is_not_open_says_so(
    clock: MockClock, make_engine: MakeEngine
) -> None:
    with pytest.raises(ApplicationError, match="not open"):
        await make_engine().submit(JobSpec(image=IMAGE))


async def test_jobs_are_listed_newest_first(
    host: FakeHost, clock: MockClock, make_engine: MakeEngine
) -> None:
    play(host)
    async with make_engine() as engine:
        submitted = [(await engine.submit(JobSpec(image=IMAGE))).id for _ in range(3)]
        listed = [record.id for record in await engine.jobs(JobQuery())]
        assert listed == sorted(submitted, reverse=True)


@pytest.mark.postgresql
async def test_an_engine_works_on_postgresql_as_on_sqlite(
    host: FakeHost, make_engine: MakeEngine, fresh_database: str
) -> None:
    play(host, Printed(b"one\n"), Printed(b"two\n", at=0.1), seconds=0.2)
    async with make_engine(store_url=fresh_database, shutdown="adopt") as engine:
        job = await engine.submit(JobSpec(image=IMAGE))
        await first_line(job)
    async with make_engine(store_url=fresh_database) as engine:
        job = await engine.job(job.id)
        assert (await job.wait()).status is Status.SUCCESS
        assert await lines(job) == ["one", "two"]
    assert host.containers == []


def test_the_public_names_are_what_the_package_says() -> None:
    assert sorted(vaka.__all__) == vaka.__all__
    for name in vaka.__all__:
        value = getattr(vaka, name)
        assert (value.__name__, value.__module__.partition(".")[0]) == (name, "vaka")
    with pytest.raises(AttributeError, match="Nothing"):
        _ = vaka.Nothing


def test_a_plugin_or_command_that_uses_errors_does_not_load_the_engine() -> None:
    program = "import sys, vaka.errors; print('sqlalchemy' in sys.modules, 'trio' in sys.modules)"
    told = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout
    assert told.split() == ["False", "False"]


# -- plugins -----------------------------------------------------------------------------------


async def test_an_observer_that_hangs_holds_up_no_job_for_long(
    host: FakeHost, make_engine: MakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    never = threading.Event()

    @hookimpl
    def vaka_job_event(event: Event) -> None:
        if event.kind == "stage.started":
            never.wait()

    # on the real clock: the simulated one would wait for the observer's thread
    monkeypatch.setattr(events, "OBSERVERS", 0.05)
    play(host, Printed(b"one\n"))
    try:
        async with make_engine(SimpleNamespace(vaka_job_event=vaka_job_event)) as engine:
            job = await engine.submit(JobSpec(image=IMAGE))
            assert (await job.wait()).status is Status.SUCCESS
            assert await lines(job) == ["one"]
    finally:
        never.set()


async def test_a_key_provider_that_cannot_work_keeps_the_engine_from_opening(
    make_engine: MakeEngine,
) -> None:
    class Broken(Rot13):
        async def check(self) -> None:
            raise ApplicationError("The key file is missing.")

    @hookimpl
    def vaka_encryptors() -> list[Encryptor]:
        return [Broken()]

    with pytest.raises(ApplicationError, match="The key file is missing"):
        async with make_engine(
            SimpleNamespace(vaka_encryptors=vaka_encryptors), key_ring_document=None
        ):
            raise AssertionError("it opened")
