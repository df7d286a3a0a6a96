"""Whether this machine can run jobs: one check after the other, each with what to do about it."""

from __future__ import annotations

import os
import platform
import secrets
import shutil
import tempfile
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import trio

from vaka.docker import Docker, DockerError, DockerNotFound, DockerUnreachable
from vaka.docker.containers import DockerContainer
from vaka.errors import ApplicationError
from vaka.runtime import containers_root
from vaka_server.cli import text
from vaka_server.settings import Settings, unknown_variables

State = Literal["ok", "warning", "failed"]

OLDEST_API = (1, 40)
LOW_DISK_BYTES = 1 << 30
SKEW = 2.0
"""Seconds that the clocks may differ."""
TIME_LIMIT = 30.0
"""Seconds that the daemon has for one check."""
LIKELY = ("busybox", "alpine", "debian", "ubuntu", "python", "pybase")
"""Images that are likely to have `cp`; then the smallest ones."""
TRIES = 6
LABEL = "vaka.doctor"
"""Marks the containers of a probe, with the folder that is probed."""
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


@dataclass(frozen=True, slots=True)
class Check:
    """What was looked at, how it is, and what to do when it is not well."""

    name: str
    state: State
    detail: str
    advice: str = ""

    def document(self) -> dict[str, str]:
        """For `--json`."""
        return {
            "name": self.name,
            "state": self.state,
            "detail": self.detail,
            "advice": self.advice,
        }


async def examine(settings: Settings) -> AsyncGenerator[Check, None]:
    """Every check of this machine, as it is made."""
    yield check_settings()
    yield check_home(settings)
    yield check_disk("disk", nearest(settings.home))
    yield check_user(settings)
    url = docker_url(settings.runtime_url)
    if url is _NOT_DOCKER:
        yield Check(
            "runtime",
            "warning",
            f"{settings.runtime_url} is not Docker's",
            "Ask the plugin that runs containers how to check it.",
        )
        return
    try:
        docker = Docker(url)
    except (DockerError, ValueError) as error:
        yield Check(
            "docker",
            "failed",
            f"the address of the daemon cannot be used: {error}",
            "Correct DOCKER_HOST, or VAKA_RUNTIME_URL.",
        )
        return
    async with docker:
        found = await check_daemon(docker)
        yield found
        if found.state == "failed":
            return
        info = await _limited(docker.system.info())
        yield check_version(await _limited(docker.version()))
        yield check_platform(info)
        yield await check_clock(docker)
        yield check_limits(info)
        try:
            root = containers_root(info)
        except ApplicationError as error:
            yield Check(
                "users", "failed", error.message, "See userns-remap in the operators' guide."
            )
            return
        if any(root):
            yield check_users(root)
        data = Path(str(info.get("DockerRootDir", "")))
        if data.is_absolute() and _is_local(docker) and await trio.Path(data).exists():
            yield check_disk("docker disk", data)
        yield await check_mount(docker, settings, root)


# -- this side -------------------------------------------------------------------------------------


def check_settings(environment: Mapping[str, str] | None = None) -> Check:
    """Whether every `VAKA_` variable means something."""
    unknown = unknown_variables(environment)
    if not unknown:
        return Check("settings", "ok", "every VAKA_ variable is known")
    guesses = [
        f"{name} (did you mean {meant}?)" if meant else name for name, meant in unknown.items()
    ]
    return Check(
        "settings", "warning", f"without effect: {', '.join(guesses)}", "Correct or unset them."
    )


def check_home(settings: Settings) -> Check:
    """Whether the home is there and can be written."""
    home = settings.home.absolute()
    if not home.exists():
        return Check("home", "warning", f"{home} is not there yet", "Run `vaka init`.")
    if not (home.is_dir() and os.access(home, os.R_OK | os.W_OK | os.X_OK)):
        return Check(
            "home",
            "failed",
            f"{home} cannot be written by user {os.geteuid()}",
            f"Run `chown -R {os.geteuid()} {home}`, or choose another one with --home.",
        )
    mode = home.stat().st_mode & 0o777
    if mode & 0o007:
        return Check(
            "home",
            "warning",
            f"{home} is open to every user of this machine (mode {mode:o})",
            f"Run `chmod o= {home}`: jobs' data and the catalog are in it.",
        )
    return Check("home", "ok", str(home))


def check_disk(name: str, folder: Path) -> Check:
    """Whether there is room for data."""
    usage = shutil.disk_usage(folder)
    detail = f"{text.size(usage.free)} free of {text.size(usage.total)} at {folder}"
    if usage.free < LOW_DISK_BYTES:
        advice = "Free some space: a job needs room for its inputs, outputs and images."
        return Check(name, "failed", detail, advice)
    return Check(name, "ok", detail)


def check_user(settings: Settings) -> Check:
    """Who this process is, and who containers are."""
    mine, theirs = f"{os.geteuid()}:{os.getegid()}", settings.engine.effective_user
    detail = f"this process is {mine}, containers are {theirs}"
    if theirs.partition(":")[0] in {"0", "root"}:
        return Check(
            "user",
            "warning",
            detail,
            "Set VAKA_CONTAINER_USER to an unprivileged uid:gid such as 1000:1000.",
        )
    if os.geteuid() != 0 and theirs.partition(":")[0] != str(os.geteuid()):
        return Check(
            "user",
            "failed",
            f"{detail}, and only root can hand files to another user",
            "Unset VAKA_CONTAINER_USER, or run as root.",
        )
    return Check("user", "ok", detail)


# -- the daemon ------------------------------------------------------------------------------------


async def check_daemon(docker: Docker) -> Check:
    """Whether the daemon answers."""
    try:
        await _limited(docker.ping())
    except trio.TooSlowError:
        return Check(
            "docker",
            "failed",
            f"{docker.docker_host} takes the connection and does not answer",
            "Restart the Docker Engine; its own log says why it hangs.",
        )
    except DockerUnreachable as error:
        return Check("docker", "failed", str(error.message), _reach_advice(docker.docker_host))
    except DockerError as error:
        return Check(
            "docker",
            "failed",
            f"{docker.docker_host} refuses: {error.message}",
            "Check that a Docker Engine listens there, and with which certificates.",
        )
    return Check("docker", "ok", f"answers at {docker.docker_host}")


def check_version(version: Mapping[str, Any]) -> Check:
    """Whether the daemon speaks what the engine needs."""
    detail = f"Docker Engine {version.get('Version')}, API {version.get('ApiVersion')}"
    try:
        major, minor = (int(part) for part in str(version.get("ApiVersion")).split("."))
    except ValueError:
        return Check("version", "failed", detail, "Install Docker Engine 20.10 or newer.")
    if (major, minor) < OLDEST_API:
        return Check("version", "failed", detail, "Install Docker Engine 20.10 or newer.")
    return Check("version", "ok", detail)


def check_platform(info: Mapping[str, Any]) -> Check:
    """What the daemon's images must be built for."""
    theirs = str(info.get("Architecture"))
    theirs = ARCHITECTURES.get(theirs, theirs)
    mine = ARCHITECTURES.get(platform.machine(), platform.machine())
    detail = f"{info.get('OSType')}/{theirs} there, {platform.system().lower()}/{mine} here"
    if info.get("OSType") != "linux":
        return Check("platform", "failed", detail, "Switch the daemon to Linux containers.")
    if theirs != mine:
        advice = f"Images must be built for linux/{theirs}; others fail or run emulated."
        return Check("platform", "warning", detail, advice)
    return Check("platform", "ok", detail)


async def check_clock(docker: Docker) -> Check:
    """Whether both clocks agree: leases, time-outs and `changed since` compare times of both."""
    before = datetime.now(UTC)
    info = await _limited(docker.system.info())
    after = datetime.now(UTC)
    theirs = parse_time(str(info.get("SystemTime", "")))
    if theirs is None:
        return Check("clock", "warning", "the daemon does not tell its time", "")
    middle = before + (after - before) / 2
    # what the answer took may have passed on either side
    skew = max(0.0, abs((theirs - middle).total_seconds()) - (after - before).total_seconds() / 2)
    detail = f"the daemon's clock differs by {skew:.1f} s"
    if skew > SKEW:
        return Check("clock", "failed", detail, "Set both clocks by NTP (timedatectl set-ntp on).")
    return Check("clock", "ok", detail)


def check_limits(info: Mapping[str, Any]) -> Check:
    """Whether limits on containers hold."""
    missing = [
        word
        for word, member in (
            ("memory", "MemoryLimit"),
            ("CPU", "CpuCfsQuota"),
            ("processes", "PidsLimit"),
        )
        if not info.get(member)
    ]
    if missing:
        return Check(
            "limits",
            "failed",
            f"the daemon cannot limit {', '.join(missing)}",
            "Mount the cgroup controllers, or use cgroup v2.",
        )
    detail = f"{info.get('NCPU')} CPUs, {text.size(int(info.get('MemTotal') or 0))} of memory"
    if not info.get("SwapLimit"):
        advice = "Start the kernel with swapaccount=1, or turn swap off: else memory limits leak."
        return Check("limits", "warning", f"{detail}; swap is not limited", advice)
    return Check("limits", "ok", detail)


def check_users(root: tuple[int, int]) -> Check:
    """Whether folders can be given to containers of a daemon that remaps their users, to this root."""
    detail = (
        f"the daemon remaps users (userns-remap): root of a container is {root[0]}:{root[1]} here"
    )
    if os.geteuid() != 0:
        return Check(
            "users",
            "failed",
            f"{detail}, and only root can hand files to others",
            "Run Vaka as root, or use a Docker Engine without userns-remap.",
        )
    return Check("users", "ok", detail)


async def check_mount(docker: Docker, settings: Settings, root: tuple[int, int] = (0, 0)) -> Check:
    """Whether a container reads and writes what this process lays out in a folder.

    `root` is who the root of containers is here.
    """
    try:
        images = await _limited(docker.images.list())
    except DockerError as error:
        return Check("mount", "failed", f"images cannot be listed: {error.message}", "")
    if not images:
        return Check(
            "mount",
            "warning",
            "not tried: there is no image on the host",
            "Run `docker pull busybox` (or import any image with a shell), then this again.",
        )
    user = settings.engine.effective_user
    uid, gid = settings.engine.owner
    with probe_folder(nearest(settings.home), (root[0] + uid, root[1] + gid)) as (folder, token):
        problem: Check | None = None
        for image in candidates(images)[:TRIES]:
            outcome = await _probe(docker, image, folder, token, user)
            if outcome is not None:
                if outcome.state == "ok":
                    return outcome
                problem = problem or outcome
        return problem or await _probe_archive(docker, candidates(images)[0], folder, token)


def candidates(images: Sequence[Mapping[str, Any]]) -> list[str]:
    """Images to try, the likely ones first, then by size."""

    def order(image: Mapping[str, Any]) -> tuple[bool, int]:
        names = " ".join(image.get("RepoTags") or ())
        return not any(word in names for word in LIKELY), int(image.get("Size") or 0)

    return [str(image["Id"]) for image in sorted(images, key=order)]


@contextmanager
def probe_folder(parent: Path, owner: tuple[int, int]) -> Iterator[tuple[Path, str]]:
    """A folder as a job's is, with a file `token` in it, and what the file says."""
    secret = secrets.token_hex(16)
    with tempfile.TemporaryDirectory(prefix=".vaka-doctor-", dir=parent) as name:
        folder = Path(name)
        file = folder / "token"
        file.write_text(secret)
        folder.chmod(0o700)
        file.chmod(0o600)
        if os.geteuid() == 0:
            for path in (file, folder):
                os.chown(path, *owner)
        yield folder, secret


async def _probe(docker: Docker, image: str, folder: Path, secret: str, user: str) -> Check | None:
    """Let a container copy the file; None when the image cannot do that."""
    config: dict[str, Any] = {
        "Image": image,
        "Entrypoint": ["cp"],
        "Cmd": ["/probe/token", "/probe/answer"],
        "User": user,
        "Labels": {LABEL: str(folder.parent)},
        "NetworkDisabled": True,
        "HostConfig": {
            "Binds": [f"{folder}:/probe"],
            "NetworkMode": "none",
            "CapDrop": ["ALL"],
            "SecurityOpt": ["no-new-privileges"],
        },
    }
    container: DockerContainer | None = None
    try:
        with trio.fail_after(TIME_LIMIT):
            container = await docker.containers.create(config)
            async with container.waiting() as end:
                await container.start()
                status = int((await end.result())["StatusCode"])
            said = "".join(await container.log(stdout=True, stderr=True)).strip()
    except trio.TooSlowError:
        return Check(
            "mount",
            "failed",
            f"a container did not end within {TIME_LIMIT:g} s",
            "Look at the daemon's log; the host may be overloaded.",
        )
    except DockerError:
        return None  # most likely it has no `cp`
    finally:
        if container is not None:
            await _remove(container)
    answer = folder / "answer"
    if status == 0 and answer.exists() and answer.read_text() == secret:
        return Check("mount", "ok", f"a container of user {user} read and wrote {folder.parent}")
    if status == 0:
        return _elsewhere(folder)
    if status in {126, 127}:
        return None
    if "No such file" in said:
        return _elsewhere(folder)
    return Check(
        "mount",
        "failed",
        f"a container of user {user} could not copy a file in {folder.parent}: {text.clean(said)}",
        "Check SELinux or AppArmor, and VAKA_CONTAINER_USER.",
    )


async def _probe_archive(docker: Docker, image: str, folder: Path, secret: str) -> Check:
    """Without any image that can copy: whether the daemon itself sees the folder."""
    config: dict[str, Any] = {
        "Image": image,
        "Cmd": ["none"],
        "Labels": {LABEL: str(folder.parent)},
        "HostConfig": {"Binds": [f"{folder}:/probe:ro"], "NetworkMode": "none"},
    }
    container: DockerContainer | None = None
    try:
        with trio.fail_after(TIME_LIMIT):
            container = await docker.containers.create(config)
            archive = await container.get_archive("/probe/token")
            member = archive.extractfile("token")
            content = member.read().decode() if member is not None else ""
    except DockerNotFound:
        return _elsewhere(folder)
    except (DockerError, trio.TooSlowError, KeyError) as error:
        return Check("mount", "failed", f"the probe failed: {error}", "See the daemon's log.")
    finally:
        if container is not None:
            await _remove(container)
    if content != secret:
        return _elsewhere(folder)
    return Check(
        "mount",
        "warning",
        "the daemon sees this machine's folders; no image here can show that a container reads them",
        "Run `docker pull busybox`, then this again.",
    )


async def _remove(container: DockerContainer) -> None:
    with trio.move_on_after(TIME_LIMIT, shield=True):
        try:
            await container.delete(force=True, v=True)
        except DockerError:
            return  # it is labelled, and the daemon has just failed anyway


def _elsewhere(folder: Path) -> Check:
    return Check(
        "mount",
        "failed",
        f"the daemon does not see {folder.parent} of this machine",
        "The daemon runs on another machine or in another container: run Vaka where the daemon is, "
        "or mount the home at the same path on both sides.",
    )


# -- a server --------------------------------------------------------------------------------------


async def examine_server(url: str, token: str | None) -> AsyncGenerator[Check, None]:
    """Every check that can be made of a server from here."""
    import httpx  # noqa: PLC0415 - only what is used is loaded

    headers = {"X-StorageApi-Token": token} if token else {}
    async with httpx.AsyncClient(base_url=url, headers=headers, timeout=TIME_LIMIT) as http:
        try:
            before = datetime.now(UTC)
            ready = await http.get("/readyz")
            after = datetime.now(UTC)
            verified = await http.get("/v2/storage/tokens/verify")
        except (httpx.TransportError, httpx.InvalidURL) as error:
            yield Check(
                "server",
                "failed",
                f"{url} does not answer: {str(error) or type(error).__name__}",
                "Start it with `vaka serve`, or name another one with --url.",
            )
            return
    yield Check("server", "ok", f"answers at {url}")
    if ready.status_code == 200:
        yield Check("ready", "ok", "it accepts and runs jobs")
    else:
        yield Check(
            "ready", "failed", text.clean(ready.text), "Run `vaka doctor` where the server is."
        )
    date = _http_date(ready.headers.get("Date", ""))
    if date is not None:
        late = max(0.0, abs((date - before).total_seconds()) - (after - before).total_seconds() - 1)
        skew = f"the server's clock differs by {late:.0f} s"
        yield Check("clock", "ok" if late <= SKEW else "warning", skew)
    if verified.status_code == 200:
        role = verified.json().get("role")
        yield Check("token", "ok", f"is valid, its role is {role}")
    else:
        advice = "Use --token or VAKA_TOKEN; `vaka token create` on the server's home makes one."
        yield Check("token", "failed", "is missing or not valid", advice)


# -- helpers ---------------------------------------------------------------------------------------

_NOT_DOCKER = "not docker"


def docker_url(runtime_url: str) -> str | None:
    """The daemon's address in a runtime URL; None is the usual one."""
    scheme, _, rest = runtime_url.partition("://")
    if scheme == "docker":
        return None
    if scheme.startswith("docker+"):
        return f"{scheme.removeprefix('docker+')}://{rest}"
    return _NOT_DOCKER


def nearest(path: Path) -> Path:
    """The folder itself, or the nearest one above that is there."""
    path = path.absolute()
    return next(each for each in (path, *path.parents) if each.is_dir())


def parse_time(stamp: str) -> datetime | None:
    """A time as Docker writes it, with nanoseconds."""
    head, dot, tail = stamp.partition(".")
    if dot:
        digits = tail[: len(tail) - len(tail.lstrip("0123456789"))]
        stamp = f"{head}.{digits[:6].ljust(6, '0')}{tail[len(digits) :]}"
    try:
        return datetime.fromisoformat(stamp).astimezone(UTC)
    except ValueError:
        return None


def _http_date(value: str) -> datetime | None:
    from email.utils import parsedate_to_datetime  # noqa: PLC0415

    try:
        return parsedate_to_datetime(value)
    except ValueError:
        return None


def _reach_advice(address: str) -> str:
    if address.startswith("unix://"):
        path = Path(address.removeprefix("unix://"))
        if not path.exists():
            return (
                "Install Docker Engine and start it (systemctl start docker), or set DOCKER_HOST."
            )
        if not os.access(path, os.W_OK):
            return (
                f"Give this user the right: `usermod -aG {path.group()} $USER`, then log in again."
            )
        return (
            "Start the Docker Engine (systemctl start docker); the socket is there, nobody listens."
        )
    return "Check the address in DOCKER_HOST, the network, and the firewall in between."


def _is_local(docker: Docker) -> bool:
    return docker.docker_host.startswith("unix://")


async def _limited(question: Any) -> Any:
    with trio.fail_after(TIME_LIMIT):
        return await question
