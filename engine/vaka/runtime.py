"""The engine's own container runtime: Docker Engine.

Two invariants are kept here. A container's output is handed on to the byte, once, whatever becomes of
connections: what a broken one has left is read from the container's log. And nothing is done twice
for want of an answer: after a call that may or may not have been done, the daemon is asked what there
is before it is told again.
"""

from __future__ import annotations

import logging
import math
import os
import re
import signal
import time
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Collection,
    Iterator,
    Mapping,
)
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from ipaddress import ip_network
from pathlib import Path
from typing import Any, TypeVar

import trio

from vaka._kernel import KernelLog
from vaka.docker import (
    Docker,
    DockerConflict,
    DockerConnectionLost,
    DockerContextError,
    DockerError,
    DockerNotFound,
    DockerServerError,
    DockerUnreachable,
    Message,
)
from vaka.docker.containers import DockerContainer
from vaka.docker.events import DockerEvents
from vaka.docker.stream import Output
from vaka.errors import ApplicationError, ContainerLost, ImageUnavailable, RuntimeUnavailable
from vaka.holders import Holders
from vaka.hooks import ContainerRuntime, Login
from vaka.models.container import (
    IDENTITY_TOKEN,
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

log = logging.getLogger(__name__)
T = TypeVar("T")

PATIENCE = 30.0
"""Seconds for which a daemon that does not answer is asked again: it restarts in one to ten."""
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 2.0
CALL_TIMEOUT = 120.0
"""Seconds for one call that has nothing to wait for, such as creating and starting: they take 10 and
300 ms, and on a host that is overrun some seconds."""
ATTEMPTS = 4
"""Tries to create or start a container of which the daemon says that it failed."""
KILL_TIMEOUT = 10.0
"""Seconds after which a container that was killed and still runs is killed again."""
LINGER = 1.0
"""Seconds between the end of a container's output and its own end that are nothing unusual: the daemon
tears its network down in between, in 10 to 80 ms when it is not busy."""
OOM_DELAY = 1.0
"""Seconds after a container's end in which the daemon may still learn that memory was the cause; up to
0.2 were seen on a busy host."""
KILLED = 137
"""Exit code of what was killed: 128 + 9."""
SIGNALS = range(129, 160)
"""Exit codes of what a signal has ended."""
MEMORY_LOOK = 1.0
"""Seconds between two looks at the memory of a container: one costs 20 µs."""
LOG_ENTRY = 16_384
"""Bytes at which the daemon cuts a line into several entries of its log."""
NEVER = ("MKNOD", "NET_RAW")
"""Capabilities that no container has, not even one that needs root: devices in the data folder, and
packets in the name of its neighbours, are nothing that a component makes."""
SMALL_OUTPUT = 1 << 20
"""Bytes of output that are quicker read again than doubted."""
BINFMT = Path("/proc/sys/fs/binfmt_misc")
CGROUPS = Path("/sys/fs/cgroup")

STREAMS: dict[int, StreamName] = {1: "stdout", 2: "stderr"}
PHASES = {
    "created": ContainerPhase.CREATED,
    "running": ContainerPhase.RUNNING,
    "paused": ContainerPhase.RUNNING,
    "restarting": ContainerPhase.RUNNING,
}
TASK_LEFT = re.compile(r"\btask \S+: already exists")
"""What a daemon says that died while it started a container, and finds what it has made then."""
GOING = ("removing", "dead")
"""States of a container that somebody has removed, whose end was never seen."""


def docker_runtime(url: str, *, network_holders: int | None = None) -> DockerRuntime:
    """The runtime for a URL, not opened yet.

    `docker://` is the daemon of `DOCKER_HOST`, or the system socket;
    `docker+unix:///path/to/docker.sock` and `docker+tcp://host:port` name one. TLS for TCP is as the
    `docker` command has it: `DOCKER_TLS_VERIFY` and `DOCKER_CERT_PATH`.

    Raises:
        ApplicationError: the URL is none of these.
    """
    if url == "docker://":
        return DockerRuntime(network_holders=network_holders)
    scheme, separator, rest = url.partition("://")
    kind = scheme.removeprefix("docker+")
    if not separator or not rest or kind == scheme or kind not in ("unix", "tcp", "https"):
        raise ApplicationError(
            f"No container runtime handles {url!r}: write docker://, "
            "docker+unix:///path/to/docker.sock or docker+tcp://host:port, or install a plugin."
        )
    return DockerRuntime(f"{kind}://{rest}", network_holders=network_holders)


@dataclass(slots=True)
class _Wait:
    """A wait for a container's end that is under way."""

    over: trio.Event = field(default_factory=trio.Event)
    exit: ContainerExit | None = None


@dataclass(slots=True)
class _Peak:
    """The most memory that a container was seen to use."""

    bytes: int | None = None


@dataclass(slots=True)
class _Pull:
    """A pull that is under way, and who wants to see it."""

    over: trio.Event = field(default_factory=trio.Event)
    watchers: list[Callable[[Mapping[str, Any]], None]] = field(default_factory=list)
    failure: ImageUnavailable | None = None
    image: ImageInfo | None = None


class DockerRuntime(ContainerRuntime):
    """Runs containers on a Docker Engine.

    Args:
        address: `unix:///path`, `tcp://host:port` or `https://host:port`; None is the daemon that the
            `docker` command would speak to.
        patience: seconds for which a daemon that is not there is asked again, where that is safe:
            creating, starting, waiting, reading output, stopping, removing.
        timeout: seconds after which a daemon that is there and does not answer is given up.
        network_holders: namespaces that are kept for containers without a network (`vaka.holders`);
            None is four times the daemon's cores.
    """

    def __init__(
        self,
        address: str | None = None,
        *,
        patience: float = PATIENCE,
        timeout: float = CALL_TIMEOUT,
        network_holders: int | None = None,
    ) -> None:
        self._address = address
        self._network_holders = network_holders
        self._patience = patience
        self._timeout = timeout
        self._docker: Docker | None = None
        self._holders: Holders | None = None
        self._cpus = 1
        self._platform = ""
        self._is_here = False
        self._root = (0, 0)
        self._forgets_newlines = False
        self._kernel: KernelLog | None = None
        self._memory_files = ""
        """Where the kernel tells the most memory of a container; `{id}` is the container's."""
        # Created here and never asked to start: nobody else knows of them, so nothing need be looked up.
        self._fresh: set[str] = set()
        self._ids: dict[str, str] = {}
        """Of containers created here, so that nothing need be looked up."""
        self._waits: dict[str, _Wait] = {}
        self._pulls: dict[tuple[str, RegistryAuth | None], _Pull] = {}
        self._breaks = 0
        """How often a connection broke or could not be made: a daemon that restarts breaks them all."""

    async def open(self) -> None:
        try:
            self._docker = Docker(self._address, timeout=self._timeout)
        except (ValueError, DockerContextError) as error:
            raise ApplicationError(f"The Docker Engine cannot be found: {error}") from error
        await self.info()
        most = self._network_holders
        self._holders = Holders(
            self._docker, self._platform, 4 * self._cpus if most is None else most
        )
        if self._is_here:
            self._kernel = KernelLog()

    async def aclose(self) -> None:
        if self._kernel is not None:
            self._kernel.close()
        if self._holders is not None:
            await self._holders.aclose()
        if self._docker is not None:
            await self._docker.close()

    async def info(self) -> RuntimeInfo:
        with self._speaking("describe itself"):
            version = await self._client.version()
            info = await self._client.system.info()
        self._cpus = int(info["NCPU"])
        self._platform = f"{version['Os']}/{version['Arch']}"
        self._forgets_newlines = _major(version["Version"]) < 23
        self._is_here = (
            self._client.docker_host.startswith("unix://")
            and version.get("KernelVersion") == os.uname().release
        )
        limits = {
            "MemoryLimit": "memory",
            "SwapLimit": "swap",
            "PidsLimit": "processes",
            "CpuCfsQuota": "CPUs",
        }
        warnings = [str(text).removeprefix("WARNING: ") for text in info.get("Warnings") or ()]
        warnings += [
            f"This host does not limit {what} of containers: its kernel or cgroup setup lacks {key}."
            for key, what in limits.items()
            if info.get(key) is False
        ]
        self._root = containers_root(info)
        if self._is_here:
            self._memory_files = memory_files(info)
        return RuntimeInfo(
            name="docker",
            version=f"{version['Version']} (API {version['ApiVersion']})",
            platform=self._platform,
            cpus=self._cpus,
            memory_bytes=int(info["MemTotal"]),
            warnings=tuple(warnings),
        )

    # Images

    async def prepare_image(
        self,
        reference: str,
        *,
        digest: str | None = None,
        login: Login | None = None,
        progress: Callable[[Mapping[str, Any]], None] | None = None,
    ) -> ImageInfo:
        """See `ContainerRuntime`.

        An image without a repository digest was made on this host: no registry is asked about it.
        """
        image = before = await self._find_image(reference)
        if image is None or not _is_settled(reference, digest, image):
            auth = None if login is None else await login(image)
            image = await self._pull(reference, auth, progress)
            image = replace(image, pulled=before is None or before.id != image.id)
        return self._check_platform(image)

    async def _find_image(self, reference: str) -> ImageInfo | None:
        with self._speaking(f"look for image {reference}"):
            try:
                found = await self._client.images.inspect(reference)
            except DockerError as error:
                if error.status not in (400, 404):  # 400: no image can have that name
                    raise
                return None
        return ImageInfo(
            id=found["Id"],
            reference=reference,
            digests=tuple(found.get("RepoDigests") or ()),
            platform=f"{found.get('Os', '')}/{found.get('Architecture', '')}",
        )

    async def _pull(
        self,
        reference: str,
        auth: RegistryAuth | None,
        progress: Callable[[Mapping[str, Any]], None] | None,
    ) -> ImageInfo:
        """Pull an image, or take part in the pull of it that is under way."""
        key = (reference, auth)
        while (pull := self._pulls.get(key)) is not None:
            if progress is not None:
                pull.watchers.append(progress)
            await pull.over.wait()
            if pull.failure is not None:
                failure = pull.failure
                raise ImageUnavailable(
                    failure.message, reference=reference, transient=failure.transient
                )
            if pull.image is not None:
                return pull.image
            # who pulled was cancelled: the next one of us does
        pull = self._pulls[key] = _Pull(watchers=[] if progress is None else [progress])
        try:
            pull.image = await self._pull_now(reference, auth, pull)
        except ImageUnavailable as error:
            pull.failure = error
            raise
        else:
            return pull.image
        finally:
            del self._pulls[key]
            pull.over.set()

    async def _pull_now(self, reference: str, auth: RegistryAuth | None, pull: _Pull) -> ImageInfo:
        name = reference
        credentials = None
        if auth is not None:
            credentials = {"username": auth.username, "password": auth.password}
            if auth.username == IDENTITY_TOKEN:
                credentials = {"identitytoken": auth.password}
            if "/" not in reference:
                name = f"docker.io/library/{reference}"  # what the short form stands for
        with self._speaking(f"pull image {reference}"):
            try:
                items = self._client.images.pull(name, auth=credentials, stream=True)
                async with aclosing(items):  # type: ignore[type-var]  # it is a generator
                    async for item in items:
                        for watcher in pull.watchers:
                            watcher(item)
            except (DockerUnreachable, DockerConnectionLost):
                raise
            except DockerError as error:
                raise ImageUnavailable(
                    f"Cannot pull image '{reference}': {error.message}",
                    reference=reference,
                    transient=not _is_refusal(error),
                ) from error
        image = await self._find_image(reference)
        if image is None:
            raise ImageUnavailable(
                f"Cannot pull image '{reference}': it was pulled, and removed again by somebody else",
                reference=reference,
                transient=True,
            )
        return image

    def _check_platform(self, image: ImageInfo) -> ImageInfo:
        """Say before the start that an image is for another kind of host.

        It is refused where it is certain that the host cannot emulate the other kind.
        """
        if image.platform == self._platform:
            return image
        text = (
            f"Image {image.reference} is made for {image.platform}, and this host is "
            f"{self._platform}: use an image for {self._platform}"
        )
        if self._is_here and not _may_emulate(image.platform):
            raise ImageUnavailable(
                f"{text}, or install an emulator such as qemu-user-static.",
                reference=image.reference,
            )
        return replace(image, warning=f"{text}, unless it is emulated.")

    async def images(self, ids: Collection[str], labels: Mapping[str, str]) -> list[HostImage]:
        with self._speaking("list images"):
            every = {each["Id"] for each in await self._client.images.list()}
            filters = {"label": [f"{key}={value}" for key, value in labels.items()]}
            labelled = await self._client.images.list(filters=filters) if labels else []
        wanted = (every & set(ids)) | {each["Id"] for each in labelled}
        found = []
        for image_id in sorted(wanted):
            with self._speaking(f"look at image {image_id}"):
                try:
                    found.append(_host_image(await self._client.images.inspect(image_id)))
                except DockerNotFound:
                    continue  # it went meanwhile
        return found

    async def remove_image(self, name: str) -> bool:
        with self._speaking(f"remove image {name}"):
            try:
                # what it was made of may be somebody else's
                await self._client.images.delete(name, noprune=True)
            except (DockerConflict, DockerNotFound):
                return False
        return True

    # Containers

    async def create(self, spec: ContainerSpec) -> ContainerStatus:
        body = container_body(spec, cpus=self._cpus)

        async def create() -> ContainerStatus:
            attempt = 1
            while True:
                try:
                    made = await self._client.containers.create(body, name=spec.name)
                except (
                    DockerConflict,
                    DockerServerError,
                    DockerConnectionLost,
                    TimeoutError,
                ) as error:
                    # it may have been made, now or by an earlier try
                    found = await self._own(spec)
                    if found is not None:
                        return found
                    if attempt == ATTEMPTS or not isinstance(
                        error, DockerConflict | DockerServerError
                    ):
                        raise
                    await trio.sleep(FIRST_PAUSE * 2**attempt)
                    attempt += 1
                else:
                    self._fresh.add(spec.name)
                    self._ids[spec.name] = made.id
                    return ContainerStatus(
                        made.id, spec.name, ContainerPhase.CREATED, dict(spec.labels)
                    )

        mode = await self._held.take(spec)
        if mode is not None:
            body["HostConfig"]["NetworkMode"] = mode
        try:
            with self._speaking(f"create container {spec.name} of image {spec.image}"):
                try:
                    return await self._patiently(create)
                except DockerNotFound as error:
                    if "no such image" not in error.message.lower():
                        raise
                    raise ImageUnavailable(
                        f"Image {spec.image} is not on the host any more: somebody has removed it.",
                        reference=spec.image,
                        transient=True,
                    ) from error
                except DockerError as error:
                    is_asked = spec.oci_runtime is not None and error.status == 400
                    if not (is_asked and "runtime" in error.message.lower()):
                        raise
                    raise ApplicationError(
                        f"Docker Engine does not have the OCI runtime {spec.oci_runtime!r} that a "
                        f"plugin chose for container {spec.name}: add it to `runtimes` in the daemon's "
                        "daemon.json, or correct the plugin."
                    ) from error
        except BaseException:
            await self._held.drop(spec.name)  # it may have been made all the same
            raise

    async def _own(self, spec: ContainerSpec) -> ContainerStatus | None:
        """The container of a spec's name, if it is there; `ApplicationError` if it is not ours."""
        data = await self._look(spec.name)
        if data is None or data["State"]["Status"] in GOING:
            return None
        found = _status(data)
        if not spec.labels.items() <= found.labels.items():
            raise ApplicationError(
                f"Container name {spec.name} is taken by a container with other labels "
                f"({found.id[:12]}): remove it, or give this engine another instance name."
            )
        return found

    async def start(self, name: str) -> None:
        container = self._container(name)
        may_run = False

        async def start() -> None:
            nonlocal may_run
            if name not in self._fresh and await self._phase(name) is not ContainerPhase.CREATED:
                return None
            self._fresh.discard(name)
            attempt = 1
            while True:
                try:
                    return await container.start()
                except DockerConnectionLost:
                    may_run = True
                    raise
                except (
                    DockerNotFound,
                    DockerConflict,
                    DockerServerError,
                    TimeoutError,
                ) as error:
                    may_run = may_run or not isinstance(error, DockerNotFound | DockerConflict)
                    # it may run, now or already over; a command that is not there is "not found" too
                    if await self._phase(name) is not ContainerPhase.CREATED:
                        return None
                    if await self._moved_out(name, error):
                        continue
                    if TASK_LEFT.search(str(error)):
                        raise ContainerLost(
                            f"Container {name} was being started when Docker Engine died, and it does "
                            "not know since whether it ran: run the job again.",
                            name=name,
                        ) from error
                    if attempt == ATTEMPTS or not isinstance(error, DockerServerError):
                        raise
                    await trio.sleep(FIRST_PAUSE * 2**attempt)
                    attempt += 1

        with self._speaking(f"start container {name}"):
            try:
                await self._patiently(start)
            except ContainerLost as error:
                error.never_started = not may_run
                raise

    async def _moved_out(self, name: str, error: Exception) -> bool:
        """Make a container anew, with a namespace of its own, when that of its holder is gone.

        So it is when an engine ended before it started what it had created, or the daemon restarted.
        """
        data = await self._look(name)
        if data is None:
            return False
        kind, _, holder = data["HostConfig"]["NetworkMode"].partition(":")
        if kind != "container" or holder not in str(error):
            return False
        log.info("holder.gone", extra={"container": name})
        await self._held.drop(name)
        body = {**data["Config"], "HostConfig": {**data["HostConfig"], "NetworkMode": "none"}}
        del body["Hostname"]  # the holder's
        await self._container(name).delete(force=True)
        self._breaks += 1  # who is attached to it hears no more
        await self._client.containers.create(body, name=name)
        return True

    async def find(self, name: str) -> ContainerStatus | None:
        with self._speaking(f"look for container {name}"):
            data = await self._patiently(lambda: self._look(name))
        if data is None:
            return None
        self._ids[name] = data["Id"]
        return _status(data)

    async def list_containers(self, labels: Mapping[str, str]) -> list[ContainerStatus]:
        filters = {"label": [f"{key}={value}" for key, value in labels.items()]}
        with self._speaking("list containers"):
            found = await self._client.containers.list(all=True, filters=filters)
        return [
            ContainerStatus(
                id=each.id,
                name=each["Names"][0].removeprefix("/"),
                phase=PHASES.get(each["State"], ContainerPhase.EXITED),
                labels=each["Labels"] or {},
                created=datetime.fromtimestamp(each["Created"], UTC),
            )
            for each in found
            if each["Names"]  # one that is being removed has none
        ]

    async def host_address(self, network: str) -> str | None:
        """The gateway of a network of the daemon, which is the host itself."""
        if network == "host":
            return "127.0.0.1"
        if network == "none":
            return None
        with self._speaking(f"look for network {network}"):
            try:
                found = await (await self._client.networks.get(network)).show()
            except DockerNotFound:
                return None  # the container cannot be made either, and the daemon says so
        return next(filter(None, map(_gateway, found["IPAM"]["Config"] or ())), None)

    def host_owner(self, user: int, group: int) -> tuple[int, int]:
        """See `ContainerRuntime`: with `userns-remap`, ids count from those of the containers' root."""
        return self._root[0] + user, self._root[1] + group

    async def wait(self, name: str) -> ContainerExit:
        mine = self._waits[name] = _Wait()
        try:
            with self._speaking(f"wait for container {name}"):
                mine.exit = await self._watched(name)
            return mine.exit
        finally:
            if self._waits.get(name) is mine:
                del self._waits[name]
            mine.over.set()

    async def _watched(self, name: str) -> ContainerExit:
        """Wait patiently, and see meanwhile how much memory it takes and whether the daemon is there."""
        failure: Exception | None = None
        exit_: ContainerExit | None = None
        peak = _Peak()
        unanswered: list[float] = []
        """Moments at which the daemon did not answer; of many, the first and the last."""

        def broken() -> None:
            unanswered[1:] = [time.time()]

        async with trio.open_nursery() as nursery:
            if self._memory_files:
                nursery.start_soon(self._watch_memory, name, peak)
            try:
                exit_ = await self._patiently(lambda: self._wait(name), broken)
            except Exception as error:  # noqa: BLE001 - to be raised bare, not in a group
                failure = error
            nursery.cancel_scope.cancel()
        if exit_ is None:
            assert failure is not None  # noqa: S101 - one of the two
            raise failure
        most = max(filter(None, (exit_.memory_peak_bytes, peak.bytes)), default=None)
        away = self._was_away(unanswered, exit_.finished_at)
        return replace(exit_, memory_peak_bytes=most, runtime_was_away=away)

    def _was_away(self, unanswered: list[float], ended: datetime | None) -> bool:
        """Whether a container ended between the first and the last time that nobody answered."""
        if not unanswered or ended is None or not self._is_here:
            return bool(unanswered)
        # the first break can be seen late by what a clock step is, the last by a pause between tries
        return unanswered[0] - LINGER <= ended.timestamp() <= unanswered[-1] + 2 * LONGEST_PAUSE

    async def _watch_memory(self, name: str, peak: _Peak) -> None:
        """Note the most memory that a container of this host has used, until cancelled.

        Its control group goes with its end, so what is known is from at most `MEMORY_LOOK` before.
        """
        pause = FIRST_PAUSE
        path: Path | None = None
        while True:
            await trio.sleep(pause)
            pause = min(2 * pause, MEMORY_LOOK)
            if path is None:
                container_id = self._ids.get(name)
                if container_id is None:
                    with suppress(DockerError, TimeoutError):
                        data = await self._look(name)
                        container_id = None if data is None else data["Id"]
                if container_id is None:
                    continue
                path = Path(self._memory_files.format(id=container_id))
            with suppress(OSError, ValueError):
                peak.bytes = int(path.read_bytes())

    async def _wait(self, name: str) -> ContainerExit:
        container = self._container(name)
        try:
            while True:
                await container.wait(condition="not-running")
                data = await container.show()
                state = data["State"]
                if state["Status"] in GOING:
                    raise _lost(name)
                if not state["Running"] and state["Status"] != "created":
                    seen = _exit(state)
                    is_limited = bool(data["HostConfig"]["Memory"])
                    if is_limited and self._is_known_to_have_run_out(data["Id"], seen):
                        event = None
                    elif seen.exit_code in SIGNALS:
                        event = await self._killing(data["Id"], seen, is_limited=is_limited)
                        if event is None or event["Action"] != "oom":
                            return replace(seen, event=_told(event))
                    else:
                        return seen
                    peak = None if self._kernel is None else self._kernel.peak(data["Id"])
                    return replace(
                        seen, oom_killed=True, memory_peak_bytes=peak, event=_told(event)
                    )
                # not started yet: the next end is told from before it can happen
                async with container.waiting(condition="next-exit") as ending:
                    if (await container.show())["State"]["Status"] == "created":
                        await ending.result()
        except DockerNotFound as error:
            raise _lost(name) from error

    def _is_known_to_have_run_out(self, container_id: str, seen: ContainerExit) -> bool:
        """Whether the kernel or the daemon says that a container was killed for its memory."""
        if self._kernel is not None and self._kernel.has_killed(container_id):
            return True
        return seen.oom_killed

    async def _killing(
        self, container_id: str, seen: ContainerExit, *, is_limited: bool
    ) -> Mapping[str, Any] | None:
        """The daemon's event of who ended a container that died of a signal; None when it has none.

        The daemon often learns of the kernel's deed after the container's end (20.10: one in ten, on a
        busy host), and then tells it as an event only, or not at all.
        """
        if seen.finished_at is None:
            return None
        wait = OOM_DELAY if is_limited and seen.exit_code == KILLED else 0.0
        events = DockerEvents(self._client)
        told = events.subscribe(
            filters={"container": [container_id], "event": ["oom", "kill"]},
            since="0",
            until=f"{seen.finished_at.timestamp() + wait:.3f}",
        )
        try:
            event: Mapping[str, Any] | None = await told.get()
            return event  # the first one decides: a `kill` was somebody's wish
        finally:
            await events.stop()

    async def stop(self, name: str, *, grace: float) -> None:
        container = self._container(name)
        deadline = trio.current_time() + grace

        async def stop() -> None:
            left = deadline - trio.current_time()
            if left > 0:
                with trio.move_on_after(left), suppress(DockerServerError):
                    await container.stop(t=math.ceil(left))
            while (data := await self._look(name)) is not None and data["State"]["Running"]:
                # it may have ended meanwhile, or not within the daemon's own patience
                with trio.move_on_after(KILL_TIMEOUT), suppress(DockerConflict, DockerServerError):
                    await container.kill()
                    await container.wait(condition="not-running")

        with self._speaking(f"stop container {name}"):
            try:
                await self._patiently(stop)
            except DockerNotFound:
                return

    async def remove(self, name: str) -> None:
        container = self._container(name)

        async def remove() -> None:
            pause = FIRST_PAUSE
            while True:
                try:
                    await container.delete(force=True, v=True)
                except DockerNotFound:
                    return
                except (DockerConflict, DockerServerError) as error:
                    # somebody else is at it, or something of it is busy
                    log.info("container.busy", extra={"container": name, "reason": error.message})
                else:
                    return  # the daemon answers when it is gone
                if await self._look(name) is None:
                    return
                await trio.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE)

        with self._speaking(f"remove container {name}"):
            await self._patiently(remove)
        self._end_orphans(name)
        self._fresh.discard(name)
        self._ids.pop(name, None)
        self._held.give_back(name)

    def _end_orphans(self, name: str) -> None:
        """Kill what runs in the control group of a container of this host that its daemon has removed.

        A daemon that dies while it starts a container does not know its process afterwards.
        """
        container_id = self._ids.get(name)
        if container_id is None or not self._memory_files:
            return
        group = Path(self._memory_files.format(id=container_id)).parent / "cgroup.procs"
        for pid in _processes(group):
            with suppress(OSError):
                process = os.pidfd_open(pid)
                try:
                    if pid in _processes(group):  # it is still the same
                        signal.pidfd_send_signal(process, signal.SIGKILL)
                        log.warning("container.orphaned", extra={"container": name, "pid": pid})
                finally:
                    os.close(process)

    async def tidy(self) -> None:
        with self._speaking("list holders of network namespaces"):
            await self._held.tidy()

    # Output

    @asynccontextmanager
    async def output(
        self, name: str, *, skip: Mapping[StreamName, int] | None = None
    ) -> AsyncIterator[AsyncIterator[OutputChunk]]:
        cursor, breaks = _Cursor(dict(skip or {})), self._breaks
        async with AsyncExitStack() as stack:
            with self._speaking(f"read the output of container {name}"):
                attached = await self._patiently(lambda: self._attach(name, stack))
            chunks = (
                self._read_log(name, cursor)
                if attached is None
                else self._read_attached(name, attached, cursor, breaks)
            )
            yield await stack.enter_async_context(aclosing(chunks))

    async def _attach(self, name: str, stack: AsyncExitStack) -> Output | None:
        """A connection to a container that is not started yet; None for one that is."""
        known = name in self._fresh
        if not known and await self._phase(name) is not ContainerPhase.CREATED:
            return None
        container = self._container(name)
        try:
            output = await stack.enter_async_context(container.output(logs=False))
        except DockerNotFound as error:
            raise _lost(name) from error
        if known or await self._phase(name) is ContainerPhase.CREATED:
            return output
        # Somebody has started it meanwhile: its beginning may have been missed. A connection that is
        # not read would stop it.
        await output.aclose()
        return None

    async def _read_attached(
        self, name: str, output: Output, cursor: _Cursor, breaks: int
    ) -> AsyncGenerator[OutputChunk, None]:
        """What comes over a connection made when `breaks` were known, and what did not of the rest."""
        try:
            async for message in output:
                chunk = cursor.pass_on(message.stream, message.data)
                if chunk is not None:
                    yield chunk
        except DockerError as error:
            log.info("output.broken", extra={"container": name, "reason": error.message})
            self._breaks += 1
            await output.aclose()
        if await self._is_whole(name, cursor, breaks, time.time()):
            return
        cursor.rewind()
        async with aclosing(self._read_log(name, cursor)) as rest:
            async for chunk in rest:
                yield chunk

    async def _is_whole(self, name: str, cursor: _Cursor, breaks: int, moment: float) -> bool:
        """Whether the end of an attached connection at `moment` was the end of the output.

        The daemon ends the connection without a word when the container has closed its output, and
        something in between that cuts it looks just the same. It was the end when the container had
        ended before, and no other connection broke, as all do when the daemon stops.
        """
        if breaks != self._breaks:
            return False
        exit_ = None
        with trio.move_on_after(LINGER):
            exit_ = await self._exit(name)
        if exit_ is None or exit_.finished_at is None or breaks != self._breaks:
            return False
        if self._is_here:  # by the same clock
            return exit_.finished_at.timestamp() <= moment
        return cursor.total > SMALL_OUTPUT

    async def _exit(self, name: str) -> ContainerExit | None:
        """A container's end, by the wait for it that is under way, if there is one."""
        wait = self._waits.get(name)
        if wait is not None:
            await wait.over.wait()
            if wait.exit is not None:
                return wait.exit
        try:
            return await self.wait(name)
        except (ContainerLost, RuntimeUnavailable):
            return None

    async def _read_log(self, name: str, cursor: _Cursor) -> AsyncGenerator[OutputChunk, None]:
        """What a container's log holds from the cursor on, and what is added until the end."""
        container = self._container(name)
        retry = _Retry(self._patience)
        has_ended = False
        while True:
            entries = _LogEntries(forgets_newlines=self._forgets_newlines)
            try:
                has_ended = has_ended or await self._phase(name) is ContainerPhase.EXITED
                async with container.output(timestamps=True) as output:
                    async for message in output:
                        retry.succeeded()
                        chunk = cursor.pass_on(message.stream, entries.undo(message))
                        if chunk is not None:
                            yield chunk
                if has_ended:
                    for stream in entries.rest():
                        chunk = cursor.pass_on(stream, b"\n")
                        if chunk is not None:
                            yield chunk
                    break
                # Following a log ends early now and then (20.10: one in ten, on a busy host). Only what
                # is read after the container's end is all.
                with trio.move_on_after(LINGER):
                    has_ended = await self._exit(name) is not None
            except (DockerNotFound, ContainerLost):
                break  # `wait` tells that it is lost
            except DockerError as error:
                with self._speaking(f"read the output of container {name}"):
                    if not isinstance(error, DockerUnreachable | DockerConnectionLost):
                        raise
                    self._breaks += 1
                    if not retry.may_go_on():
                        raise
                log.info("output.broken", extra={"container": name, "reason": error.message})
                await retry.pause()
            cursor.rewind()
        if cursor.missing:  # the beginning of a long output is dropped from the log
            log.warning("output.incomplete", extra={"container": name, "bytes": cursor.missing})

    # The daemon

    @property
    def _client(self) -> Docker:
        if self._docker is None:
            raise RuntimeError("the runtime is not open: call `open` first")
        return self._docker

    @property
    def _held(self) -> Holders:
        if self._holders is None:
            raise RuntimeError("the runtime is not open: call `open` first")
        return self._holders

    def _container(self, name: str) -> DockerContainer:
        """A container by its name, without asking; none of ours has a terminal."""
        return self._client.containers.container(name, Config={"Tty": False})

    async def _look(self, name: str) -> dict[str, Any] | None:
        try:
            return await self._container(name).show()
        except DockerNotFound:
            return None

    async def _phase(self, name: str) -> ContainerPhase:
        data = await self._look(name)
        if data is None:
            raise _lost(name)
        return _status(data).phase

    @contextmanager
    def _speaking(self, doing: str) -> Iterator[None]:
        """Turn the client's errors into those of the tree; `doing` is what was asked of the daemon."""
        try:
            yield
        except DockerUnreachable as error:
            self._breaks += 1
            raise RuntimeUnavailable(error.message) from error
        except DockerConnectionLost as error:
            self._breaks += 1
            raise RuntimeUnavailable(
                f"The connection to Docker Engine at {error.address} broke when it was to {doing}; "
                "see its own log for why it stopped."
            ) from error
        except TimeoutError as error:
            raise RuntimeUnavailable(
                f"Docker Engine at {self._client.docker_host} did not {doing} in {self._timeout:g} s: "
                "it is overrun or hangs; see its own log."
            ) from error
        except DockerError as error:
            raise ApplicationError(f"Docker Engine could not {doing}: {error.message}") from error

    async def _patiently(
        self, operation: Callable[[], Awaitable[T]], broken: Callable[[], None] | None = None
    ) -> T:
        """What `operation` gives, tried again while the daemon does not answer.

        It must be harmless to repeat. `broken` is called each time that it did not answer.
        """
        retry = _Retry(self._patience)
        while True:
            began = trio.current_time()
            try:
                return await operation()
            except (DockerUnreachable, DockerConnectionLost) as error:
                self._breaks += 1
                if broken is not None:
                    broken()
                if trio.current_time() - began > self._patience:
                    retry.succeeded()  # it was connected for so long
                if not retry.may_go_on():
                    raise
                log.info("runtime.unanswered", extra={"reason": error.message})
            await retry.pause()


class _Retry:
    """How long to go on trying: pauses grow from `FIRST_PAUSE` up to `LONGEST_PAUSE`."""

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self.succeeded()

    def succeeded(self) -> None:
        """Start anew."""
        self._deadline = math.inf
        self._pause = FIRST_PAUSE

    def may_go_on(self) -> bool:
        """Whether another try is due after a failure."""
        self._deadline = min(self._deadline, trio.current_time() + self._patience)
        return trio.current_time() + self._pause <= self._deadline

    async def pause(self) -> None:
        await trio.sleep(self._pause)
        self._pause = min(2 * self._pause, LONGEST_PAUSE)


class _Cursor:
    """How far a container's output has been handed on, stream by stream."""

    def __init__(self, passed: dict[StreamName, int]) -> None:
        self._passed = passed
        self._skip = dict(passed)

    def pass_on(self, stream: int, data: bytes) -> OutputChunk | None:
        """What of `data` was not handed on before."""
        name = STREAMS[stream]
        skip = self._skip.get(name, 0)
        if skip:
            self._skip[name] = max(0, skip - len(data))
            data = data[skip:]
        if not data:
            return None
        self._passed[name] = self._passed.get(name, 0) + len(data)
        return OutputChunk(name, data)

    def rewind(self) -> None:
        """The output is going to be read from its first byte again."""
        self._skip = dict(self._passed)

    @property
    def total(self) -> int:
        return sum(self._passed.values())

    @property
    def missing(self) -> int:
        """Bytes that were handed on and have not been seen again."""
        return max(self._skip.values(), default=0)


class _LogEntries:
    """Undoes what the log of one container does to its output.

    The daemon cuts lines of more than 16 KiB into entries, and before version 23 its `local` log forgets
    the newline after the last entry of such a line. With time stamps every entry can be told apart, an
    empty one too, and so the newline is put back. Only whether the very last line of the output had one
    cannot be known, if it is as long as that; it is taken to have had.
    """

    _STAMP = re.compile(rb"\d{4}-\d\d-\d\dT[0-9:.]+(?:Z|[+-]\d\d:\d\d) ")

    def __init__(self, *, forgets_newlines: bool) -> None:
        self._forgets = forgets_newlines
        self._in_line = {1: False, 2: False}
        self._owed = {1: False, 2: False}

    def undo(self, message: Message) -> bytes:
        """The bytes that the container wrote."""
        stream, data = message
        stamp = self._STAMP.match(data)
        if stamp is not None:
            data = data[stamp.end() :]
        if not self._forgets:
            return data
        owed, was_in_line = self._owed[stream], self._in_line[stream]
        self._in_line[stream] = len(data) >= LOG_ENTRY and not data.endswith(b"\n")
        self._owed[stream] = was_in_line and len(data) < LOG_ENTRY
        return b"\n" + data if owed else data

    def rest(self) -> list[int]:
        """The streams that end with a newline that the log does not hold."""
        return [stream for stream, owed in self._owed.items() if owed]


def container_body(spec: ContainerSpec, *, cpus: int) -> dict[str, Any]:
    """What Docker Engine is told to create; `cpus` are those of the host, which it may not exceed."""
    host: dict[str, Any] = {
        "Mounts": [
            {
                "Type": "bind",
                "Source": str(mount.source),
                "Target": mount.target,
                "ReadOnly": mount.read_only,
            }
            for mount in spec.mounts
        ],
        "NetworkMode": spec.network,
        "Init": spec.init,
        "ReadonlyRootfs": spec.read_only_root,
        # Not json-file, which replaces every byte that is not UTF-8, even in lines that it has cut
        # itself. What is kept is between half of the bytes and all of them.
        "LogConfig": {
            "Type": "local",
            "Config": {
                "max-size": str(max(spec.log_bytes // 2, 1)),
                "max-file": "2",
                "compress": "false",
            },
        },
    }
    host["CapDrop"] = ["ALL"] if spec.drop_capabilities else list(NEVER)
    if spec.no_new_privileges:
        host["SecurityOpt"] = ["no-new-privileges"]
    if spec.pids is not None:
        host["PidsLimit"] = spec.pids
    if spec.memory_bytes is not None:
        host["Memory"] = spec.memory_bytes
    if spec.memory_swap_bytes is not None:
        host["MemorySwap"] = spec.memory_swap_bytes
    if spec.cpus is not None:
        host["NanoCpus"] = round(min(spec.cpus, cpus) * 1_000_000_000)
    if spec.read_only_root and all(mount.target != "/tmp" for mount in spec.mounts):  # noqa: S108
        host["Tmpfs"] = {"/tmp": "rw,nosuid,nodev,mode=1777"}  # noqa: S108 - in the container
    if spec.sysctls:
        host["Sysctls"] = dict(spec.sysctls)
    if spec.oci_runtime is not None:
        host["Runtime"] = spec.oci_runtime
    body: dict[str, Any] = {
        "Image": spec.image,
        "Env": [f"{name}={value}" for name, value in spec.environment.items()],
        "Labels": dict(spec.labels),
        "AttachStdin": False,
        "AttachStdout": True,
        "AttachStderr": True,
        "OpenStdin": False,
        "Tty": False,
        "HostConfig": host,
    }
    if spec.command is not None:
        body["Cmd"] = list(spec.command)
    if spec.entrypoint is not None:
        body["Entrypoint"] = list(spec.entrypoint)
    if spec.user is not None:
        body["User"] = spec.user
    return body


def memory_files(info: Mapping[str, Any]) -> str:
    """The path, with `{id}`, of the file that tells a container's most memory, as its daemon says.

    Of a daemon with a `cgroup-parent` of its own it is not known: nothing is there, then.
    """
    is_systemd = info.get("CgroupDriver") == "systemd"
    group = "system.slice/docker-{id}.scope" if is_systemd else "docker/{id}"
    if str(info.get("CgroupVersion", "1")) == "2":
        return f"{CGROUPS}/{group}/memory.peak"
    return f"{CGROUPS}/memory/{group}/memory.max_usage_in_bytes"


def containers_root(info: Mapping[str, Any]) -> tuple[int, int]:
    """Who root of a container is on its host, by what the daemon says of itself: user and group.

    A daemon with `userns-remap` has a data root for each mapping, which has its name.
    """
    if "name=userns" not in (info.get("SecurityOptions") or ()):
        return 0, 0
    named = re.search(r"/(\d+)\.(\d+)$", str(info.get("DockerRootDir")))
    if named is None:
        raise ApplicationError(
            "Docker Engine remaps the users of containers, and does not tell to whom: its data root "
            f"{info.get('DockerRootDir')} is not named after them. Use one without userns-remap."
        )
    return int(named[1]), int(named[2])


def _processes(group: Path) -> list[int]:
    """The processes of a control group; none when it is gone."""
    try:
        return [int(pid) for pid in group.read_text().split() if pid != "0"]
    except OSError:
        return []


def _told(event: Mapping[str, Any] | None) -> str:
    """An event of the daemon in a few words."""
    if event is None:
        return ""
    # what the client calls `time` is in this machine's zone
    stamp = datetime.fromtimestamp(event["timeNano"] / 1e9, UTC)
    number = event["Actor"]["Attributes"].get("signal")
    named = f" signal={number}" if number else ""
    return f"{event['Action']}{named} at {stamp:%Y-%m-%dT%H:%M:%SZ}"


def _gateway(config: Mapping[str, Any]) -> str | None:
    """The IPv4 gateway of one of a network's subnets.

    A daemon that has made its own bridge does not tell (20.10, until its next start), and has given it
    the first address.
    """
    subnet = ip_network(config["Subnet"], strict=False)
    if subnet.version != 4:
        return None
    return config.get("Gateway") or str(subnet[1])


def _major(version: str) -> int:
    number = version.partition(".")[0]
    return int(number) if number.isdecimal() else 999  # a development version


def _is_settled(reference: str, digest: str | None, image: ImageInfo) -> bool:
    """Whether an image that is on the host is the one asked for, so that no registry need be asked."""
    if reference.startswith("sha256:") or "@sha256:" in reference:
        return True
    if digest:
        wanted = digest.rpartition(":")[2]  # with or without `name@sha256:`
        return any(each.rpartition(":")[2] == wanted for each in image.digests)
    return not image.digests


def _is_refusal(error: DockerError) -> bool:
    """Whether a registry has answered, and will answer the same again."""
    if isinstance(error, DockerNotFound) or error.status == 400:
        return True
    words = ("unauthorized", "denied", "no basic auth credentials", "manifest unknown")
    return any(word in error.message.lower() for word in words)


def _may_emulate(platform: str) -> bool:
    """Whether this kernel may be able to run programs of a foreign platform."""
    try:
        handlers = [entry.name for entry in BINFMT.iterdir()]
    except OSError:
        return True
    if "status" not in handlers:
        return True  # the kernel has not told: what is registered may be hidden from here
    names = {"amd64": ("x86_64", "rosetta"), "arm64": ("aarch64",), "386": ("i386", "x86_64")}
    architecture = platform.partition("/")[2]
    wanted = names.get(architecture, (architecture,))
    return any(word in handler for handler in handlers for word in wanted)


def _status(data: Mapping[str, Any]) -> ContainerStatus:
    return ContainerStatus(
        id=data["Id"],
        name=data["Name"].removeprefix("/"),
        phase=PHASES.get(data["State"]["Status"], ContainerPhase.EXITED),
        labels=data["Config"]["Labels"] or {},
        created=_moment(data["Created"]),
        finished=_moment(data["State"]["FinishedAt"]),
    )


def _host_image(data: Mapping[str, Any]) -> HostImage:
    tags, digests = data.get("RepoTags") or (), data.get("RepoDigests") or ()
    names = [each for each in tags if each != "<none>:<none>"]
    # an image whose tag has moved on keeps the digests of its repository
    return HostImage(
        id=data["Id"],
        references=tuple(names),
        digests=tuple(digests),
        labels=(data.get("Config") or {}).get("Labels") or {},
        created=_moment(data["Created"]),
        bytes=data.get("Size"),
    )


def _exit(state: Mapping[str, Any]) -> ContainerExit:
    return ContainerExit(
        exit_code=state["ExitCode"],
        oom_killed=state["OOMKilled"],
        started_at=_moment(state["StartedAt"]),
        finished_at=_moment(state["FinishedAt"]),
        error=state["Error"],
    )


def _moment(text: str) -> datetime | None:
    moment = datetime.fromisoformat(text)
    return moment if moment.year > 1 else None


def _lost(name: str) -> ContainerLost:
    return ContainerLost(
        f"There is no container {name}: it was removed, and how it ended is not known.",
        name=name,
    )
