"""Kills a Docker Engine, by `kill -9`, while a job is created, started, run, waited for and removed.

The daemon is one of its own, with its own data root and socket. It comes back each time, and then the
job has to end truthfully: as it would have, once; or with the cause that the runtime or the container
was lost, nothing of it left.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import trio

from vaka import Engine, EngineConfig, JobSpec, Outcome
from vaka.hooks import ContainerRuntime, hookimpl
from vaka.models.container import ContainerExit, ContainerSpec, ContainerStatus
from vaka.runtime import DockerRuntime

PATIENCE = 60.0
"""Seconds in which a daemon has to answer, and an engine waits for one: a bound, no measure."""
TIME_LIMIT = 180.0
METHODS = ("create", "start", "wait", "remove")
LINES = 20
SCRIPT = f"echo begun; i=0; while [ $i -lt {LINES} ]; do echo $i; i=$((i+1)); sleep 0.05; done"
EXPECTED = ["begun", *map(str, range(LINES))]
MISSING = "may be missing here"
LOST = {"runtime_lost", "container_lost"}


class OwnDaemon:
    """A Docker Engine that nobody else uses."""

    # a daemon without a bridge removes the one that another has on its host
    command: tuple[str, ...] = ("unshare", "--net", "--", "dockerd")

    def __init__(self, folder: Path, *options: str) -> None:
        self.socket = folder / "docker.sock"
        self.is_dead = True
        self.mark = f"job of {folder.name}"
        """A part of the command of every job."""
        self._folder = folder
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def host(self) -> str:
        return f"unix://{self.socket}"

    def start(self) -> None:
        """Return when it answers."""
        for stale in (self._folder / "docker.pid", self._folder / "exec/containerd/containerd.pid"):
            stale.unlink(missing_ok=True)
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *self.command,
                    *("--host", self.host, "--storage-driver", "vfs"),
                    *("--data-root", str(self._folder / "data")),
                    *("--exec-root", str(self._folder / "exec")),
                    *("--pidfile", str(self._folder / "docker.pid")),
                    *("--bridge", "none", "--iptables=false", "--ip-forward=false"),
                    *self._options,
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + PATIENCE
        while self.docker("version").returncode != 0:
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError((self._folder / "log").read_text()[-2000:])
            time.sleep(0.05)
        self.is_dead = False

    def kill(self) -> None:
        """End it as the kernel would."""
        assert self._process is not None
        self.is_dead = True
        self._process.kill()
        self._process.wait(PATIENCE)

    def docker(
        self, *arguments: str, data: bytes | None = None
    ) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            ["docker", "--host", self.host, *arguments],
            input=data,
            capture_output=True,
            timeout=PATIENCE,
            check=False,
        )

    def containers(self) -> list[str]:
        return self.docker("ps", "--all", "--format", "{{.Names}}").stdout.decode().split()

    def processes(self) -> list[str]:
        """What runs of jobs, whatever the daemon knows of it: their scripts name this folder."""
        return list(_commands(self.mark).values())

    def close(self) -> None:
        """End it and all that it runs."""
        if self.is_dead:
            self.start()  # what it has left running is known to nobody else
        assert self._process is not None
        if names := self.containers():
            self.docker("rm", "--force", *names)
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(PATIENCE)
        # what it had begun to start when it was killed has a shim that nobody knows
        for pid in _commands(f"{self._folder}/exec/containerd"):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        # a daemon that was killed leaves its data root mounted on itself, once for each time
        while (
            subprocess.run(
                ["umount", str(self._folder / "data")], capture_output=True, check=False
            ).returncode
            == 0
        ):
            pass


def _commands(part: str) -> dict[int, str]:
    """The commands of running processes that contain `part`, by their ids."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes()
        except OSError:
            continue  # it ended meanwhile
        if part.encode() in line:
            found[int(path.parent.name)] = line.decode(errors="replace")
    return found


@contextmanager
def own_daemon(
    image: str, docker_host: str, *options: str, kind: type[OwnDaemon] = OwnDaemon
) -> Iterator[OwnDaemon]:
    """A running daemon that has `image`, which the daemon at `docker_host` gives."""
    with tempfile.TemporaryDirectory(prefix="vaka-dockerd-", dir="/tmp") as folder:
        daemon = kind(Path(folder), *options)
        try:
            daemon.start()
            saved = subprocess.run(
                ["docker", "--host", docker_host, "save", image],
                capture_output=True,
                timeout=PATIENCE,
                check=True,
            ).stdout
            daemon.docker("load", data=saved).check_returncode()
            yield daemon
        finally:
            daemon.close()


@dataclass
class Death:
    """The daemon is killed so many seconds after the first call of a method, and started again."""

    daemon: OwnDaemon
    method: str
    seconds: float
    back: trio.Event = field(default_factory=trio.Event)
    _is_due: bool = True

    @asynccontextmanager
    async def around(self, method: str) -> AsyncIterator[None]:
        """Call it around every call of a runtime."""
        if method != self.method or not self._is_due:
            yield
            return
        self._is_due = False
        failure: Exception | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._happen)
            try:
                yield
            except Exception as error:  # noqa: BLE001 - to be raised bare, not in a group
                failure = error
        if failure is not None:
            raise failure

    async def _happen(self) -> None:
        await trio.sleep(self.seconds)
        self.daemon.kill()
        await trio.to_thread.run_sync(self.daemon.start)
        self.back.set()


class MortalRuntime(DockerRuntime):
    """A Docker runtime whose daemon dies in a call."""

    def __init__(self, death: Death) -> None:
        super().__init__(death.daemon.host, patience=PATIENCE)
        self._death = death

    async def create(self, spec: ContainerSpec) -> ContainerStatus:
        async with self._death.around("create"):
            return await super().create(spec)

    async def start(self, name: str) -> None:
        async with self._death.around("start"):
            await super().start(name)

    async def wait(self, name: str) -> ContainerExit:
        async with self._death.around("wait"):
            return await super().wait(name)

    async def remove(self, name: str) -> None:
        async with self._death.around("remove"):
            await super().remove(name)


@dataclass(frozen=True)
class Ended:
    """What is to be seen of a job whose daemon has died."""

    outcome: Outcome
    printed: list[str]
    told: list[str]
    """What else its events say."""


async def run_job(death: Death, home: Path, image: str, script: str) -> Ended:
    """A job whose daemon dies, at its end."""

    @hookimpl
    def vaka_container_runtime(url: str) -> ContainerRuntime:
        return MortalRuntime(death)

    plugin = SimpleNamespace(vaka_container_runtime=vaka_container_runtime)
    config = EngineConfig(home=home, runtime_url="mortal://", instance="mortal")
    with trio.fail_after(TIME_LIMIT):
        async with Engine(config, plugins=[plugin]) as engine:
            job = await engine.submit(
                JobSpec(
                    image=image,
                    command=("sh", "-c", script, death.daemon.mark),
                    memory="32m",
                )
            )
            outcome = await job.wait()
            await death.back.wait()
            events = [event async for event in job.events()]
    return Ended(
        outcome,
        [event.message for event in events if event.kind == "log"],
        [event.message for event in events if event.kind != "log"],
    )


def judge(daemon: OwnDaemon, ended: Ended) -> list[str]:
    """What is not true of a job's end."""
    outcome, printed, wrong = ended.outcome, ended.printed, []
    if left := daemon.containers():
        wrong.append(f"containers are left: {left}")
    if running := daemon.processes():
        wrong.append(f"processes are left: {running}")
    if outcome.status == "success":
        is_told = any(MISSING in each for each in ended.told)
        if printed != (EXPECTED[: len(printed)] if is_told else EXPECTED):
            wrong.append(f"it succeeded and printed {printed}")
    elif outcome.cause is None or outcome.cause.kind not in LOST:
        wrong.append(f"it ended by {outcome.cause}")
    if printed != EXPECTED[: len(printed)]:
        wrong.append(f"it printed {printed}")
    return wrong


def long_form(
    image: str,
    docker_host: str,
    kills: int,
    chance: random.Random,
    tell: Callable[[str, list[str]], Any],
) -> None:
    """Kill a daemon so often, at random moments of each method in turn."""
    with own_daemon(image, docker_host) as daemon, tempfile.TemporaryDirectory() as folder:
        for number in range(kills):
            method = METHODS[number % len(METHODS)]
            seconds = chance.uniform(0.0, 1.5 if method == "wait" else 0.2)
            death = Death(daemon, method, seconds)
            ended = trio.run(run_job, death, Path(folder) / str(number), image, SCRIPT)
            label = f"daemon killed {seconds:.3f} s after {method}: {ended.outcome.status}"
            tell(label, judge(daemon, ended))
