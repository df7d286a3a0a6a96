"""A container runtime that plays scripts, on Trio's clock, which a test may simulate.

A `Script` says what a container does. `FakeRuntime` plays it, and `shell` turns it into a command for
a real runtime.
"""

from __future__ import annotations

import hashlib
import math
from bisect import bisect_right
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any
from uuid import uuid4

import trio

from vaka.errors import (
    ApplicationError,
    ContainerLost,
    ImageUnavailable,
    NotFound,
    RuntimeUnavailable,
)
from vaka.hooks import ContainerRuntime, Login
from vaka.models.container import (
    ContainerExit,
    ContainerPhase,
    ContainerSpec,
    ContainerStatus,
    HostImage,
    ImageInfo,
    OutputChunk,
    RegistryAuth,
    RuntimeInfo,
    StreamName,
)

PLATFORM = "linux/amd64"
"""What a fake host says that it is."""
KILLED = 137
"""Exit code of a container that was killed."""


@dataclass(frozen=True, slots=True)
class Printed:
    """Bytes that a container writes in one go, `at` seconds after its start, `times` over."""

    data: bytes
    at: float = 0.0
    stream: StreamName = "stdout"
    times: int = 1


@dataclass(frozen=True, slots=True)
class Script:
    """What a container does once it is started. Times are seconds after its start."""

    output: Sequence[Printed] = ()
    """In the order of time."""
    seconds: float = 0.0
    """How long it runs, at least until it has printed all; `math.inf`: until it is stopped."""
    exit_code: int = 0
    oom_killed: bool = False
    """It passes its memory limit when `seconds` are over, and is killed for it."""
    stop_seconds: float = 0.0
    """How long it takes to end when it is asked to; `math.inf`: it does not listen."""
    stop_exit_code: int = 143
    start_error: str | None = None
    """Words with which the runtime refuses to start it."""
    vanishes_at: float | None = None
    """When somebody else removes it. Only the fake can."""
    effect: Callable[[ContainerSpec], object] | None = None
    """Called when it ends by itself: does to the mounted folders what the container would have done.
    Only the fake can."""

    def __post_init__(self) -> None:
        if any(one.at > two.at for one, two in pairwise(self.output)):
            raise ValueError("what a script prints must stand in the order of time")


def shell(script: Script) -> tuple[str, ...]:
    """A command that does what `script` says, for an image with `sh`, `printf`, `sleep` and `tail`.

    A script that shall be killed for its memory needs a container with a small limit and no swap.
    """
    if script.start_error is not None:
        return ("/nowhere/no-such-command",)
    if script.vanishes_at is not None or script.effect is not None:
        raise ValueError("no command can do what the script says: vanishes_at and effect are fake")
    if 0 < script.stop_seconds < math.inf:
        raise ValueError("a command obeys at once or never: stop_seconds must be 0 or infinite")
    obeys = not script.stop_seconds
    lines = [f"trap 'exit {script.stop_exit_code}' TERM" if obeys else "trap '' TERM"]
    now = 0.0
    for printed in script.output:
        lines += _shell_sleep(printed.at - now)
        now = max(now, printed.at)
        octal = "".join(f"\\{byte:03o}" for byte in printed.data)
        line = f"printf '{octal}'" + (" >&2" if printed.stream == "stderr" else "")
        if printed.times > 1:
            line = f"i=0; while [ $i -lt {printed.times} ]; do {line}; i=$((i+1)); done"
        lines.append(line)
    lines += _shell_sleep(script.seconds - now)
    lines.append("exec tail /dev/zero" if script.oom_killed else f"exit {script.exit_code}")
    return ("sh", "-c", "\n".join(lines))


def _shell_sleep(seconds: float) -> list[str]:
    if seconds <= 0:
        return []
    # in the background, so that the shell hears a signal at once
    return [f"sleep {min(seconds, 1_000_000):.3f} & wait $!"]


@dataclass(frozen=True, slots=True)
class FakeImage:
    """An image that a fake host has, or can pull."""

    script: Script | Callable[[ContainerSpec], Script] = field(default_factory=Script)
    """What its containers do, or what decides that for each."""
    digests: tuple[str, ...] = ()
    """Repository digests; none is an image that was made on the host."""
    local: bool = True
    """Whether the host has it before it is pulled."""
    pull_seconds: float = 0.0
    pull_error: str | None = None
    """The registry's words, when it does not give it."""
    platform: str = PLATFORM


@dataclass(slots=True)
class _Fault:
    error: Exception
    after: bool
    times: int
    name: str | None


@dataclass(slots=True, eq=False)
class _Container:
    spec: ContainerSpec
    script: Script
    id: str
    created: float
    started: float | None = None
    end: float = math.inf
    exit_code: int = 0
    oom_killed: bool = False
    ended: bool = False
    stopped: bool = False
    vanishes: float = math.inf
    prints: list[tuple[float, StreamName, bytes]] = field(default_factory=list)


class FakeHost:
    """A host with images and containers, which live on while runtimes come and go.

    Time is Trio's. Containers need no tasks: what they have done by now is worked out when somebody
    looks, so they run on when every runtime that knew of them is gone.
    """

    def __init__(self, images: Mapping[str, FakeImage | Script] | None = None) -> None:
        self.images: dict[str, FakeImage] = {
            reference: FakeImage(image) if isinstance(image, Script) else image
            for reference, image in (images or {}).items()
        }
        self.calls: list[tuple[str, str]] = []
        """Every call of a runtime, as method and name of the container or image; `pull` is the part
        of `prepare_image` that asks a registry."""
        self.created: list[ContainerSpec] = []
        """What was created so far, in order, also what is gone."""
        self.logins: list[tuple[str, RegistryAuth | None]] = []
        """References that were pulled, with the credentials; every registry is open to all."""
        self.delays: dict[str, float] = {}
        """Seconds that each call of a method takes before it does anything."""
        self.is_down = False
        self._containers: dict[str, _Container] = {}
        self._pulled: set[str] = set()
        self._faults: dict[str, list[_Fault]] = {}
        self._changed = trio.Event()
        self._epoch: tuple[datetime, float] | None = None

    @property
    def containers(self) -> list[str]:
        """Names of all containers, in any phase, in the order of creation."""
        self._settle()
        return list(self._containers)

    def spec(self, name: str) -> ContainerSpec:
        """What a container that is there was created with; `NotFound` when it is not."""
        return self._container(name).spec

    def now(self) -> datetime:
        """The host's clock: starts at the real time, and goes as Trio's does."""
        return self._moment(trio.current_time())

    def fail(
        self,
        method: str,
        error: Exception,
        *,
        after: bool = False,
        times: int = 1,
        name: str | None = None,
    ) -> None:
        """Let the next calls of `method` raise `error`.

        With `after`, the call does its work first: the caller cannot know whether it was done. With
        `name`, only calls about this container or image fail.
        """
        self._faults.setdefault(method, []).append(_Fault(error, after, times, name))

    def go_down(self) -> None:
        """Stop answering: calls fail, output breaks off, containers run on."""
        self.is_down = True
        self._notify()

    def come_back(self) -> None:
        """Answer again."""
        self.is_down = False
        self._notify()

    def print(self, name: str, data: bytes, stream: StreamName = "stdout") -> None:
        """Let a running container write something now."""
        container = self._container(name)
        now = trio.current_time()
        place = bisect_right(container.prints, now, key=lambda printed: printed[0])
        container.prints.insert(place, (now, stream, data))
        self._notify()

    def finish(self, name: str, exit_code: int = 0, *, oom_killed: bool = False) -> None:
        """Let a running container end now, by itself."""
        container = self._container(name)
        if container.started is None:
            raise ValueError(f"container {name} has not been started, so it cannot end")
        container.exit_code, container.oom_killed = exit_code, oom_killed
        container.end = trio.current_time()
        self._settle()

    def vanish(self, name: str) -> None:
        """Remove a container behind everybody's back."""
        del self._containers[self._container(name).spec.name]
        self._notify()

    def _container(self, name: str) -> _Container:
        self._settle()
        container = self._containers.get(name)
        if container is None:
            raise NotFound(f"Container {name} does not exist.", kind="container", id=name)
        return container

    def _settle(self) -> None:
        """Let everything happen that is due."""
        if not self._containers:
            return
        now = trio.current_time()
        for name, container in list(self._containers.items()):
            if container.vanishes <= now:
                del self._containers[name]
                self._notify()
            elif container.end <= now and not container.ended:
                container.ended = True
                if container.script.effect is not None and not container.stopped:
                    container.script.effect(container.spec)
                self._notify()

    def _notify(self) -> None:
        changed, self._changed = self._changed, trio.Event()
        changed.set()

    async def _change(self, until: float) -> None:
        """Wait until something is done to the host, or a moment has come; then settle."""
        with trio.move_on_at(until):
            await self._changed.wait()
        self._settle()

    def _fault(self, method: str, name: str) -> _Fault | None:
        for fault in self._faults.get(method, []):
            if fault.times and fault.name in (None, name):
                fault.times -= 1
                return fault
        return None

    def _moment(self, time: float) -> datetime:
        if self._epoch is None:
            self._epoch = (datetime.now(UTC), trio.current_time())
        return self._epoch[0] + timedelta(seconds=time - self._epoch[1])


class FakeRuntime(ContainerRuntime):
    """A container runtime that plays scripts.

    Args:
        images: by reference, what the host has and what its containers do.
        host: a host to share with another runtime, instead of a new one with `images`.
    """

    def __init__(
        self,
        images: Mapping[str, FakeImage | Script] | None = None,
        *,
        host: FakeHost | None = None,
    ) -> None:
        self.host = host or FakeHost(images)

    async def open(self) -> None:
        async with self._call("open", ""):
            pass

    async def info(self) -> RuntimeInfo:
        async with self._call("info", ""):
            return RuntimeInfo("fake", "1.0", PLATFORM, cpus=4, memory_bytes=8 << 30)

    async def prepare_image(
        self,
        reference: str,
        *,
        digest: str | None = None,
        login: Login | None = None,
        progress: Callable[[Mapping[str, Any]], None] | None = None,
    ) -> ImageInfo:
        async with self._call("prepare_image", reference):
            image = self.host.images.get(reference)
            if image is None:
                if login is not None:
                    await login(None)
                raise ImageUnavailable(
                    f"Cannot pull image '{reference}': no such image", reference=reference
                )
            here = image.local or reference in self.host._pulled
            known = digest is not None and any(each.endswith(digest) for each in image.digests)
            info = ImageInfo(
                image_id(reference),
                reference,
                digests=image.digests,
                platform=image.platform,
                warning=""
                if image.platform == PLATFORM
                else f"Image {reference} is made for {image.platform}, and this host is {PLATFORM}.",
            )
            if not here or (image.digests and not known):
                if login is not None:
                    self.host.logins.append((reference, await login(info if here else None)))
                await self._pull(reference, image, progress)
            return replace(info, pulled=not here)

    async def images(
        self,
        ids: Collection[str],
        labels: Mapping[str, str],  # noqa: ARG002 - the fake's images have none
    ) -> list[HostImage]:
        async with self._call("images", ""):
            return [
                HostImage(image_id(reference), (reference,), self.host.images[reference].digests)
                for reference in sorted(self.host._pulled)
                if image_id(reference) in ids
            ]

    async def remove_image(self, name: str) -> bool:
        async with self._call("remove_image", name):
            users = [each.spec.image for each in self.host._containers.values()]
            if name not in self.host._pulled or {name, image_id(name)} & set(users):
                return False
            self.host._pulled.remove(name)
            return True

    async def create(self, spec: ContainerSpec) -> ContainerStatus:
        async with self._call("create", spec.name):
            host = self.host
            there = host._containers.get(spec.name)
            if there is not None:
                if not spec.labels.items() <= there.spec.labels.items():
                    raise ApplicationError(
                        f"Container {spec.name} is there already, with other labels."
                    )
                return self._status(there)
            image = next(
                (
                    image
                    for reference, image in host.images.items()
                    if spec.image in (reference, image_id(reference))
                    and (image.local or reference in host._pulled)
                ),
                None,
            )
            if image is None:
                raise ImageUnavailable(
                    f"Image {spec.image} is not on the host any more.",
                    reference=spec.image,
                    transient=True,
                )
            script = image.script if isinstance(image.script, Script) else image.script(spec)
            container = _Container(spec, script, uuid4().hex * 2, trio.current_time())
            host._containers[spec.name] = container
            host.created.append(spec)
            return self._status(container)

    async def start(self, name: str) -> None:
        async with self._call("start", name):
            if name not in self.host._containers:
                raise ContainerLost(f"There is no container {name}.", name=name, never_started=True)
            container = self._container(name)
            if container.started is not None:
                return
            script = container.script
            if script.start_error is not None:
                raise ApplicationError(f"Container {name} cannot start: {script.start_error}")
            now = trio.current_time()
            container.started = now
            container.end = now + max([script.seconds, *(each.at for each in script.output)])
            container.exit_code = KILLED if script.oom_killed else script.exit_code
            container.oom_killed = script.oom_killed
            if script.vanishes_at is not None:
                container.vanishes = now + script.vanishes_at
            container.prints = [
                (now + printed.at, printed.stream, printed.data)
                for printed in script.output
                for _ in range(printed.times)
            ]
            self.host._notify()

    async def find(self, name: str) -> ContainerStatus | None:
        async with self._call("find", name):
            container = self.host._containers.get(name)
            return None if container is None else self._status(container)

    async def list_containers(self, labels: Mapping[str, str]) -> list[ContainerStatus]:
        async with self._call("list_containers", ""):
            return [
                self._status(container)
                for container in self.host._containers.values()
                if labels.items() <= container.spec.labels.items()
            ]

    @asynccontextmanager
    async def output(
        self, name: str, *, skip: Mapping[StreamName, int] | None = None
    ) -> AsyncIterator[AsyncIterator[OutputChunk]]:
        async with self._call("output", name):
            container = self._container(name)
        async with aclosing(self._read(container, dict(skip or {}))) as chunks:
            yield chunks

    async def host_address(self, network: str) -> str | None:
        """This machine itself: what an effect of a `Script` sends, it sends from here."""
        async with self._call("host_address", network):
            return None if network == "none" else "127.0.0.1"

    async def wait(self, name: str) -> ContainerExit:
        async with self._call("wait", name):
            container = self._container(name)
            while not container.ended:
                await self.host._change(min(container.end, container.vanishes))
                self._still_there(container)
            return ContainerExit(
                container.exit_code,
                oom_killed=container.oom_killed,
                started_at=self._moment(container.started),
                finished_at=self._moment(container.end),
            )

    async def stop(self, name: str, *, grace: float) -> None:
        async with self._call("stop", name):
            container = self.host._containers.get(name)
            if container is None or container.started is None:
                return
            now, obeys = trio.current_time(), container.script.stop_seconds
            self._end(container, now + min(obeys, grace), obeys <= grace)
            while not container.ended and container is self.host._containers.get(name):
                await self.host._change(min(container.end, container.vanishes))

    async def remove(self, name: str) -> None:
        async with self._call("remove", name):
            container = self.host._containers.get(name)
            if container is not None:
                self._end(container, trio.current_time(), obeys=False)
                self.host._settle()
                del self.host._containers[name]
                self.host._notify()

    @asynccontextmanager
    async def _call(self, method: str, name: str) -> AsyncIterator[None]:
        host = self.host
        host.calls.append((method, name))
        await trio.sleep(host.delays.get(method, 0))
        if host.is_down:
            raise RuntimeUnavailable("The fake runtime is down: start it.")
        host._settle()
        fault = host._fault(method, name)
        if fault is not None and not fault.after:
            raise fault.error
        yield
        if fault is not None:
            raise fault.error

    async def _pull(
        self,
        reference: str,
        image: FakeImage,
        progress: Callable[[Mapping[str, Any]], None] | None,
    ) -> None:
        self.host.calls.append(("pull", reference))
        if progress is not None:
            progress({"status": f"Pulling {reference}"})
        await trio.sleep(image.pull_seconds)
        if image.pull_error is not None:
            raise ImageUnavailable(
                f"Cannot pull image '{reference}': {image.pull_error}",
                reference=reference,
                transient=True,
            )
        self.host._pulled.add(reference)

    async def _read(
        self, container: _Container, skip: dict[StreamName, int]
    ) -> AsyncGenerator[OutputChunk, None]:
        place = 0
        while True:
            if self.host.is_down:
                raise RuntimeUnavailable(
                    f"The output of {container.spec.name} broke off: the fake runtime is down."
                )
            due = min(trio.current_time(), container.end)
            while place < len(container.prints) and container.prints[place][0] <= due:
                _, stream, data = container.prints[place]
                place += 1
                skipped = min(skip.get(stream, 0), len(data))
                skip[stream] = skip.get(stream, 0) - skipped
                if data[skipped:]:
                    yield OutputChunk(stream, data[skipped:])
            if container.ended or container is not self.host._containers.get(container.spec.name):
                return
            following = math.inf
            if place < len(container.prints):
                following = container.prints[place][0]
            await self.host._change(min(following, container.end, container.vanishes))

    def _end(self, container: _Container, time: float, obeys: bool) -> None:
        if container.ended or container.started is None or container.end <= time:
            return
        container.end, container.stopped, container.oom_killed = time, True, False
        container.exit_code = container.script.stop_exit_code if obeys else KILLED
        self.host._notify()

    def _container(self, name: str) -> _Container:
        container = self.host._containers.get(name)
        if container is None:
            raise ContainerLost(f"There is no container {name}.", name=name)
        return container

    def _still_there(self, container: _Container) -> None:
        if self._container(container.spec.name) is not container:
            raise ContainerLost(f"Container {container.spec.name} was replaced.", name=container.id)

    def _moment(self, time: float | None) -> datetime | None:
        return None if time is None else self.host._moment(time)

    def _status(self, container: _Container) -> ContainerStatus:
        phase = ContainerPhase.RUNNING
        if container.started is None:
            phase = ContainerPhase.CREATED
        elif container.ended:
            phase = ContainerPhase.EXITED
        return ContainerStatus(
            container.id,
            container.spec.name,
            phase,
            dict(container.spec.labels),
            self.host._moment(container.created),
            self.host._moment(container.end) if container.ended else None,
        )


def image_id(reference: str) -> str:
    """The id that the fake gives the image of this reference."""
    return f"sha256:{hashlib.sha256(reference.encode()).hexdigest()}"


def host_path(spec: ContainerSpec, path: str) -> Path:
    """Where a path in a container is on the host; `ValueError` when nothing is mounted there.

    What an effect of a `Script` needs to do a container's work.
    """
    inside = Path(path)
    for mount in sorted(spec.mounts, key=lambda mount: len(mount.target), reverse=True):
        if inside.is_relative_to(mount.target):
            return mount.source / inside.relative_to(mount.target)
    raise ValueError(f"nothing is mounted at {path} in {spec.name}")
