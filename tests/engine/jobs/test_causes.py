"""Why did it stop: each kind of cause, by a job that ends so, with its evidence and its sentence."""

from __future__ import annotations

import errno
import math
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
from tests.engine.jobs.project import Project, Ran, until
from trio.testing import MockClock

from vaka import JobSpec
from vaka.errors import ContainerLost, RuntimeUnavailable
from vaka.models.job import CauseKind
from vaka.testing import Printed
from vaka_server import documents
from vaka_server.cli import text

WORDS = Printed(b"first\nlast words\n", stream="stderr")
End = Callable[[Project], Awaitable[Ran]]


def ends(**play: Any) -> End:
    """A job whose container ends so."""

    async def run(project: Project) -> Ran:
        await project.component("x", output=(WORDS,), data={"memory": "64m"}, **play)
        return await project.run("x", config_data={})

    return run


async def takes_too_long(project: Project) -> Ran:
    data = {"process_timeout": 60}
    await project.component("x", output=(WORDS,), seconds=math.inf, data=data)
    return await project.run("x", config_data={})


async def is_cancelled(project: Project) -> Ran:
    await project.component("x", seconds=math.inf)
    job = await project.engine.submit(JobSpec(component="x", config_data={}))
    await until(lambda: project.host.containers)
    await trio.sleep(1)
    await job.cancel({"id": "4", "description": "me"})
    return await project.ended(job)


def fails(method: str, error: Exception) -> End:
    """A job whose runtime fails."""

    async def run(project: Project) -> Ran:
        await project.component("x")
        project.host.fail(method, error)
        return await project.run("x", config_data={})

    return run


async def has_no_image(project: Project) -> Ran:
    await project.component("x")
    project.host.images.clear()
    return await project.run("x", config_data={})


async def reads_what_is_not_there(project: Project) -> Ran:
    await project.component("x")
    tables = [{"source": "in.c-no.table", "destination": "t.csv"}]
    return await project.run("x", config_data={"storage": {"input": {"tables": tables}}})


async def is_configured_wrongly(project: Project) -> Ran:
    await project.component("x")
    return await project.run("x", config_data={"storage": {"input": {"tables": "none"}}})


FULL = OSError(errno.ENOSPC, "No space left on device", "/home/vaka/jobs/1/data")
KINDS: dict[str, tuple[End, CauseKind, dict[str, Any], str]] = {
    "success": (ends(), CauseKind.FINISHED, {}, "Component processing finished."),
    "exit code 1": (
        ends(exit_code=1),
        CauseKind.USER_ERROR,
        {"exit_code": 1, "stderr_tail": "first\nlast words"},
        "The component ended with exit code 1, a user error: first last words",
    ),
    "exit code 2": (
        ends(exit_code=2),
        CauseKind.APPLICATION_ERROR,
        {"exit_code": 2, "stderr_tail": "first\nlast words"},
        "The component failed with exit code 2; its last words: last words. The log has it as ",
    ),
    "a code that is no signal's": (
        ends(exit_code=255),
        CauseKind.APPLICATION_ERROR,
        {"exit_code": 255, "stderr_tail": "first\nlast words"},
        "The component failed with exit code 255; its last words: last words. The log has it as ",
    ),
    "memory": (
        ends(oom_killed=True),
        CauseKind.OUT_OF_MEMORY,
        {"limit_bytes": 64 << 20, "peak_bytes": None, "stderr_tail": "first\nlast words"},
        "The component was ended because it needed more memory than its limit of 67.1 MB",
    ),
    "time": (
        takes_too_long,
        CauseKind.TIMEOUT,
        {
            "seconds": 60,
            "setting": "process_timeout of component x",
            "stderr_tail": "first\nlast words",
        },
        "It ran longer than the 1 min 00 s that process_timeout of component x allows",
    ),
    "SIGKILL": (
        ends(exit_code=137),
        CauseKind.KILLED,
        {"exit_code": 137, "signal": "SIGKILL", "stderr_tail": "first\nlast words"},
        "The container was killed by SIGKILL (exit code 137)",
    ),
    "SIGSEGV": (
        ends(exit_code=139),
        CauseKind.KILLED,
        {"exit_code": 139, "signal": "SIGSEGV", "stderr_tail": "first\nlast words"},
        "The container was killed by SIGSEGV (exit code 139)",
    ),
    "a stop": (
        is_cancelled,
        CauseKind.CANCELLED,
        {"id": "4", "description": "me"},
        "It was stopped by me while it ran.",
    ),
    "a lost container": (
        fails("wait", ContainerLost("It is gone.", name="c")),
        CauseKind.CONTAINER_LOST,
        {"container": "c"},
        "The container c vanished before its end was seen",
    ),
    "a lost runtime": (
        fails("wait", RuntimeUnavailable("Nobody answers.")),
        CauseKind.RUNTIME_LOST,
        {"detail": "Nobody answers."},
        "The container runtime did not answer: Nobody answers",
    ),
    "no image": (
        has_no_image,
        CauseKind.IMAGE_UNAVAILABLE,
        {"reference": "x:1", "detail": "Cannot pull image 'x:1': no such image"},
        "The image x:1 is not on the host and cannot be pulled",
    ),
    "no table": (
        reads_what_is_not_there,
        CauseKind.STORAGE,
        {},
        "Storage could not do what was asked: ",
    ),
    "a wrong configuration": (
        is_configured_wrongly,
        CauseKind.CONFIGURATION,
        {},
        "The configuration cannot be used: ",
    ),
    "a full disk": (
        fails("create", FULL),
        CauseKind.STORAGE,
        {"detail": "The disk that /home/vaka/jobs/1/data is on is full: free some of it."},
        "Storage could not do what was asked: The disk that /home/vaka/jobs/1/data is on is full",
    ),
    "a bug": (
        fails("create", KeyError("k")),
        CauseKind.INTERNAL,
        {"error": "KeyError"},
        "The engine itself failed (KeyError). The log has it as ",
    ),
}


@pytest.mark.parametrize("way", KINDS)
async def test_a_job_that_ended_says_why(project: Project, clock: MockClock, way: str) -> None:
    end, kind, evidence, sentence = KINDS[way]
    ran = await end(project)
    cause = ran.outcome.cause
    assert cause is not None
    assert (cause.kind, {**cause.evidence, **evidence}) == (kind, dict(cause.evidence))
    owner = (await project.engine.catalog.projects())[0]
    record = await ran.job.refresh()
    document = documents.job(record, owner, "http://vaka.test", include=("stages",))
    assert document["cause"] == {"kind": kind.value, "evidence": dict(cause.evidence)}
    assert text.explain(document).startswith(sentence)


def test_every_kind_is_shown() -> None:
    assert {kind for _, kind, _, _ in KINDS.values()} == set(CauseKind)


async def test_evidence_is_masked(project: Project, clock: MockClock) -> None:
    await project.component(
        "x", output=(Printed(b"it is hunter22\n", stream="stderr"),), exit_code=2
    )
    sealed = await project.sealed({"parameters": {"#password": "hunter22"}}, "x")
    ran = await project.run("x", config_data=sealed)
    assert ran.outcome.cause is not None
    assert "hunter22" not in str(ran.outcome.cause)
    assert ran.outcome.cause.evidence["stderr_tail"].startswith("it is ")
