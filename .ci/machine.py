"""Make the machine ready: `machine.py NEED...`; or `down`.

What it may need is python, docker, postgresql, networks, sandboxes and services, archivers for `make
bench` and tracers for `make hostile`. As root on Debian what is missing is installed, in one go, and a
Docker Engine is started when none answers. One that answers is used as it is: never restarted, never
configured. Without root, or without apt, every missing thing is named at once and nothing is changed.

`down` stops, by pid, what was started here, and nothing else.
"""

from __future__ import annotations

import fcntl
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from docker_api import DEFAULT_HOST, Docker, DockerUnreachable

ROOT = Path(__file__).resolve().parent.parent
STATE = ROOT / ".state"
PIDS = STATE / "pids"

SYSTEM_SOCKET = Path("/var/run/docker.sock")

START_TIME_LIMIT = 60.0
"""Seconds a Docker daemon may take to answer: on an empty data root it takes one, on a slow disk ten."""

STOP_TIME_LIMIT = 60.0
"""Seconds a daemon may take to stop: it stops its containers first, ten seconds each."""

IN_MEMORY = "vaka-docker"
"""The name under which a data root in memory is mounted."""

IN_MEMORY_AT_LEAST = 2 << 30
"""Bytes that a data root in memory must be allowed to take: images, and what containers write."""

SEARCH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin", "/usr/local/sbin"])


class Unready(Exception):
    """The machine cannot be made ready; the text says what is missing and what to do."""


@dataclass(frozen=True)
class Missing:
    """Something that the machine lacks."""

    what: str
    advice: str
    packages: tuple[str, ...] = ()
    """Debian packages that bring it."""

    startable: bool = False
    """Whether it is there and root need only start it."""


def say(text: str) -> None:
    print(f"[machine] {text}", flush=True)


def is_root() -> bool:
    return os.geteuid() == 0


def runs_systemd() -> bool:
    return Path("/run/systemd/system").is_dir()


# What is missing


def missing_python() -> list[Missing]:
    here = sys.executable
    if sys.version_info < (3, 11):  # noqa: UP036 - this file runs before anything is checked
        version = ".".join(map(str, sys.version_info[:3]))
        advice = "call make with PYTHON=/path/to/python3.11 (or newer)"
        return [Missing(f"Python 3.11 or newer ({here} is {version})", advice)]
    if (ROOT / ".venv/bin/pip").exists() or importlib.util.find_spec("ensurepip"):
        return []
    what = f"the Python module ensurepip, which virtual environments need ({here} has none)"
    if Path(here).resolve().parent == Path("/usr/bin"):
        return [Missing(what, "apt-get install python3-venv", ("python3-venv",))]
    return [Missing(what, "call make with PYTHON=/path/to/another/python3")]


def missing_docker() -> list[Missing]:
    address = os.environ.get("DOCKER_HOST") or DEFAULT_HOST
    try:
        Docker().ping()
    except DockerUnreachable as reason:
        why, absent = str(reason), reason.absent
    else:
        return []
    what = f"a Docker Engine that answers at {address} ({why})"
    if not address.startswith("unix://"):
        return [Missing(what, "set DOCKER_HOST to the address of a running one, or unset it")]
    if "ermission denied" in why:
        return [Missing(what, "let this user use it: usermod -aG docker USER, then log in again")]
    if not absent:
        return [Missing(what, "look at its log; it is not ours to restart")]
    if not shutil.which("dockerd", path=SEARCH):
        packages = ("docker.io", "iptables", "ca-certificates")
        return [Missing(what, "apt-get install docker.io iptables, and start it", packages)]
    return [Missing(what, "start it, or set DOCKER_HOST to one that runs", startable=True)]


def missing_postgresql() -> list[Missing]:
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    path = os.pathsep.join([*map(str, folders), SEARCH])
    if shutil.which("initdb", path=path) and shutil.which("postgres", path=path):
        return []
    what = "PostgreSQL's server programs (initdb, postgres)"
    advice = "apt-get install --no-install-recommends postgresql"
    return [Missing(what, advice, ("postgresql",))]


def missing_networks() -> list[Missing]:
    """What makes the networks that some clients are tried in."""
    if shutil.which("ip", path=SEARCH):
        return []
    return [Missing("the program ip", "apt-get install iproute2", ("iproute2",))]


def missing_archivers() -> list[Missing]:
    """What `make bench` measures snapshots beside."""
    return [
        Missing(f"the program {name}", f"apt-get install {name}", (name,))
        for name in ("zip", "zstd")
        if not shutil.which(name, path=SEARCH)
    ]


def missing_sandboxes() -> list[Missing]:
    """The OCI runtime with a kernel of its own that components are tried on."""
    if shutil.which("runsc", path=SEARCH) or os.uname().machine != "x86_64":
        return []  # Debian has it for amd64 only
    return [Missing("the program runsc", "apt-get install runsc", ("runsc",))]


def missing_services() -> list[Missing]:
    """What checks the units of services."""
    if shutil.which("systemd-analyze", path=SEARCH):
        return []
    return [Missing("the program systemd-analyze", "apt-get install systemd", ("systemd",))]


def missing_tracers() -> list[Missing]:
    """What `make hostile` watches a server with."""
    if shutil.which("strace", path=SEARCH):
        return []
    return [Missing("the program strace", "apt-get install strace", ("strace",))]


NEEDS = {
    "python": missing_python,
    "docker": missing_docker,
    "postgresql": missing_postgresql,
    "networks": missing_networks,
    "archivers": missing_archivers,
    "tracers": missing_tracers,
    "sandboxes": missing_sandboxes,
    "services": missing_services,
}


def ensure(needs: list[str]) -> None:
    """Return when everything in `needs` is there; `Unready` names all that is missing."""
    if not survey(needs):
        return
    if not is_root():
        raise Unready(
            "this is missing, and without root nothing can be installed or started here:\n"
            + listed(survey(needs))
        )
    STATE.mkdir(exist_ok=True)
    with lock(Path("/run/vaka-machine.lock")):
        missing = survey(needs)  # again: another `make` may have been at it
        if any(not fixable(item) for item in missing):
            raise Unready(f"this is missing:\n{listed(missing)}")
        if packages := sorted({package for item in missing for package in item.packages}):
            install(packages)
        if "docker" in needs and missing_docker():
            start_docker()
        if missing := survey(needs):
            raise Unready(f"after setting up this is still missing:\n{listed(missing)}")


def survey(needs: list[str]) -> list[Missing]:
    return [item for need in needs for item in NEEDS[need]()]


def listed(missing: list[Missing]) -> str:
    return "\n".join(f"  * {item.what}\n    {item.advice}" for item in missing)


def fixable(item: Missing) -> bool:
    return item.startable or bool(item.packages and shutil.which("apt-get", path=SEARCH))


@contextmanager
def lock(path: Path) -> Iterator[None]:
    """Hold the lock at `path`: two `make` at a time must not both install or start."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


# Installing


def install(packages: list[str]) -> None:
    say(f"installing from Debian: {' '.join(packages)}")
    started = time.monotonic()
    log = STATE / "apt.log"
    log.write_text("")
    options = ["-q", "-o", "DPkg::Lock::Timeout=300", "-o", "Acquire::Retries=3"]
    with no_services_started(), no_cluster_made():
        updated = apt(log, ["update", *options])
        installed = apt(log, ["install", "-y", "--no-install-recommends", *options, *packages])
    if installed != 0:  # an update may fail for a foreign source and not matter
        tail = "".join(log.read_text(errors="replace").splitlines(keepends=True)[-15:])
        offline = "" if updated == 0 else " (its package lists could not be renewed either)"
        raise Unready(f"apt-get install {' '.join(packages)} failed{offline}; {log}:\n{tail}")
    say(f"installed in {time.monotonic() - started:.0f} s")


def apt(log: Path, arguments: list[str]) -> int:
    with log.open("a") as output:
        return subprocess.run(
            ["apt-get", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
            timeout=900,
            check=False,
        ).returncode


@contextmanager
def no_services_started() -> Iterator[None]:
    """Without systemd, keep packages from starting daemons that nobody could stop by pid."""
    policy = Path("/usr/sbin/policy-rc.d")
    if runs_systemd() or policy.exists():
        yield
        return
    policy.write_text(
        "#!/bin/sh\n# written by vaka's set-up while packages are installed\nexit 101\n"
    )
    policy.chmod(0o755)
    try:
        yield
    finally:
        policy.unlink()


@contextmanager
def no_cluster_made() -> Iterator[None]:
    """Keep the package postgresql from making a cluster: the tests make their own."""
    folder = Path("/etc/postgresql-common/createcluster.d")
    setting = folder / "vaka.conf"
    existed = folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    setting.write_text("create_main_cluster = false\n")
    try:
        yield
    finally:
        setting.unlink()
        if not existed and folder.exists() and not list(folder.iterdir()):
            shutil.rmtree(folder)


# Docker


def start_docker() -> None:
    """Start a Docker Engine at the wanted address, for as long as nobody calls `down`."""
    docker = Docker()
    path = docker.socket_path
    assert path is not None
    if answers(docker):  # the package's own start-up brought it up, or another `make` did
        return
    if path.resolve() == SYSTEM_SOCKET.resolve() and runs_systemd():
        say("starting Docker by systemd")
        subprocess.run(["systemctl", "start", "docker"], check=False, timeout=120)
        if not wait_for(docker, START_TIME_LIMIT):
            raise Unready("systemctl start docker did not bring it up: see journalctl -u docker")
        return
    mount_cgroups()
    log = STATE / "dockerd.log"
    log.write_text("")
    for attempt, fallback in enumerate(FALLBACKS):
        if attempt:
            say(f"dockerd did not start; trying again with {' '.join(fallback)}")
        process, data = launch_docker(path, fallback, log)
        if wait_for(docker, START_TIME_LIMIT, process):
            mount = mount_of(data)
            mounted = mount.point if mount.source == IN_MEMORY else None
            remember(f"dockerd{str(path.resolve()).replace('/', '-')}", process.pid, mounted)
            said = docker.get("/version")
            say(f"started Docker {said['Version']} at {docker.host} (log: {log})")
            return
        if process.poll() is None:
            process.terminate()
            process.wait(STOP_TIME_LIMIT)
            break
    tail = "".join(log.read_text(errors="replace").splitlines(keepends=True)[-20:])
    raise Unready(f"dockerd did not answer at {docker.host}; {log}:\n{tail}")


FALLBACKS: list[list[str]] = [
    [],
    ["--iptables=false"],  # a kernel without netfilter
    ["--iptables=false", "--ip-forward=false", "--bridge=none"],  # /proc/sys or links are read-only
]


def launch_docker(
    path: Path, fallback: list[str], log: Path
) -> tuple[subprocess.Popen[bytes], Path]:
    """Start dockerd; its process, and the folder where it keeps everything."""
    path.parent.mkdir(parents=True, exist_ok=True)
    options: dict[str, str] = {"host": f"unix://{path}"}
    if path.resolve() == SYSTEM_SOCKET.resolve():
        settled = configured()
        pid = Path(settled.get("pidfile", "/var/run/docker.pid"))
        containerd = Path(settled.get("exec-root", "/var/run/docker")) / "containerd"
        data = Path(settled.get("data-root", "/var/lib/docker"))
    else:
        # A private daemon: everything of its own, absolute paths only (a relative data root makes
        # its containerd hang without a word), and no network that would collide with another's.
        home = path.parent.resolve()
        if len(str(home)) > 60:
            raise Unready(f"{home} is too long a folder for the sockets of a private Docker Engine")
        (home / "daemon.json").write_text("{}")
        pid, containerd, data = home / "docker.pid", home / "exec/containerd", home / "data"
        options |= {
            "config-file": str(home / "daemon.json"),
            "data-root": str(data),
            "exec-root": str(home / "exec"),
            "pidfile": str(pid),
        }
        settled = {}
        if not fallback:
            fallback = ["--bridge=none", "--iptables=false", "--ip-forward=false"]
    forget_dead(pid, "dockerd")
    forget_dead(containerd / "containerd.pid", "containerd")
    if pid.exists():
        raise Unready(
            f"dockerd runs as process {pid.read_text()} ({pid}) but does not listen at {path}: "
            "look at its log, then stop it and try again"
        )
    if "storage-driver" not in settled:
        options["storage-driver"] = os.environ.get("DOCKER_STORAGE") or storage_driver(data)
    if "hosts" in settled:  # given twice, dockerd would not start
        del options["host"]
    command = ["dockerd", *(f"--{key}={value}" for key, value in options.items()), *fallback]
    with log.open("ab") as output:
        process = subprocess.Popen(
            command,
            executable=shutil.which("dockerd", path=SEARCH),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd="/",
            env={**os.environ, "PATH": netfilter_path()},
            start_new_session=True,  # it outlives this `make` and the terminal
        )
    return process, data


def configured() -> dict[str, str]:
    """The machine's own settings for dockerd, which are left as they are."""
    file = Path("/etc/docker/daemon.json")
    try:
        settings = json.loads(file.read_text())
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise Unready(f"{file} is no JSON ({error}): dockerd would not start") from error
    return dict(settings)


def storage_driver(data: Path) -> str:
    """overlay2, if need be on a file system in memory, else vfs, which copies every image whole."""
    data.mkdir(parents=True, exist_ok=True)
    if holds_overlays(data):
        return "overlay2"
    size = available_memory() // 3
    if size >= IN_MEMORY_AT_LEAST and not any(data.iterdir()):
        mount = ["mount", "-t", "tmpfs", "-o", f"size={size},mode=711", IN_MEMORY, str(data)]
        if succeeds(mount):
            say(f"{data} cannot hold overlays: it is kept in memory, up to {size >> 20} MiB")
            return "overlay2"
    say(f"{data} cannot hold overlays: using the slow storage driver vfs")
    return "vfs"


def holds_overlays(folder: Path) -> bool:
    """Whether overlays can be stacked on the file system of `folder`; dockerd never stacks two."""
    if mount_of(folder).kind == "overlay":
        return False
    probe = folder / ".vaka-probe"
    layers = {layer: probe / layer for layer in ("lowerdir", "upperdir", "workdir")}
    merged = probe / "merged"
    try:
        for part in [*layers.values(), merged]:
            part.mkdir(parents=True, exist_ok=True)
        option = ",".join(f"{layer}={part}" for layer, part in layers.items())
        stacked = succeeds(["mount", "-t", "overlay", "overlay", "-o", option, str(merged)])
        if stacked:
            subprocess.run(["umount", str(merged)], timeout=30, check=True)
        return stacked
    finally:
        shutil.rmtree(probe, ignore_errors=True)


def available_memory() -> int:
    """Bytes that could be used without pushing anything out, by us or by the group we are in."""
    (free,) = re.findall(r"MemAvailable: +(\d+) kB", Path("/proc/meminfo").read_text())
    amounts = [int(free) << 10]
    for limit in ("memory.max", "memory/memory.limit_in_bytes"):
        file = Path("/sys/fs/cgroup", limit)
        text = file.read_text().strip() if file.exists() else "max"
        if text.isdecimal():
            amounts.append(int(text))
    return min(amounts)


@dataclass(frozen=True)
class Mount:
    """Where a file system is mounted, of which type it is, and from what it comes."""

    point: str
    kind: str
    source: str


def mount_of(path: Path) -> Mount:
    """The file system that holds `path`."""
    best = Mount("", "unknown", "")
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        left, _, right = line.partition(" - ")
        point = left.split()[4]
        # Of two at one point the later hides the earlier.
        if path.resolve().is_relative_to(point) and len(point) >= len(best.point):
            kind, source, *_ = right.split()
            best = Mount(point, kind, source)
    return best


def netfilter_path() -> str:
    """A path on which `iptables` works: Debian has two, and a kernel may know only the older."""
    works = ["iptables", "-t", "nat", "-S"]
    legacy = shutil.which("iptables-legacy", path=SEARCH)
    if legacy is None or succeeds(works) or not succeeds([legacy, *works[1:]]):
        return SEARCH
    shims = STATE / "iptables"
    shims.mkdir(parents=True, exist_ok=True)
    for name in ("iptables", "ip6tables"):
        shim = shims / name
        shim.unlink(missing_ok=True)
        shim.symlink_to(legacy.replace("iptables", name))
    return os.pathsep.join([str(shims), SEARCH])


def succeeds(command: list[str]) -> bool:
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=30,
            check=False,
            env={**os.environ, "PATH": SEARCH},
        )
    except FileNotFoundError:
        return False
    return done.returncode == 0


def mount_cgroups() -> None:
    """Mount the cgroup hierarchy where nothing did, and open the one we are nested in."""
    base = Path("/sys/fs/cgroup")
    if not base.is_mount():
        subprocess.run(["mount", "-t", "cgroup2", "none", str(base)], timeout=30, check=False)
    controllers = base / "cgroup.controllers"
    if not controllers.exists() or not (base / "cgroup.type").exists():
        return  # version 1, or version 2's true root, which may hold processes and groups
    inner = base / "init"
    inner.mkdir(exist_ok=True)
    try:
        for pid in (base / "cgroup.procs").read_text().split():
            (inner / "cgroup.procs").write_text(pid)
        wanted = " ".join(f"+{name}" for name in controllers.read_text().split())
        (base / "cgroup.subtree_control").write_text(wanted)
    except OSError as error:
        say(f"{base} cannot be opened for containers ({error.strerror}): limits may not work")


def answers(docker: Docker) -> bool:
    try:
        docker.ping()
    except DockerUnreachable:
        return False
    return True


def wait_for(
    docker: Docker, seconds: float, process: subprocess.Popen[bytes] | None = None
) -> bool:
    """Whether the daemon answers in time; False at once when its process has ended."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if answers(docker):
            return True
        if process is not None and process.poll() is not None:
            return False
        time.sleep(0.1)
    return False


# Processes, by pid


def forget_dead(file: Path, program: str) -> None:
    """Remove the pid file of a `program` that is gone: its number may be another process's now.

    With the number of a living stranger in it dockerd would refuse to start, or wait for ever for
    a containerd that is none. A containerd that outlived its dockerd is taken over by the next.
    """
    try:
        pid = int(file.read_text())
    except FileNotFoundError:
        return
    except ValueError:
        pid = 0
    if born(pid) is None or name_of(pid) != program:
        file.unlink()


def name_of(pid: int) -> str | None:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return None


def born(pid: int) -> str | None:
    """What tells process `pid` from a later one of the same number, or None when it is gone."""
    try:
        after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    if after_name[0] == "Z":
        return None
    return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()}/{after_name[19]}"


def remember(name: str, pid: int, mounted: str | None) -> None:
    PIDS.mkdir(parents=True, exist_ok=True)
    noted = {"pid": pid, "born": born(pid), "mounted": mounted}
    (PIDS / f"{name}.json").write_text(json.dumps(noted))


def down() -> None:
    """Stop what was started here and still runs."""
    for file in sorted(PIDS.glob("*.json")):
        noted = json.loads(file.read_text())
        pid, birth = noted["pid"], noted["born"]
        if born(pid) == birth:
            say(f"stopping {file.stem} (process {pid})")
            os.kill(pid, signal.SIGTERM)
            deadline = time.monotonic() + STOP_TIME_LIMIT
            while born(pid) == birth:
                if time.monotonic() > deadline:
                    raise Unready(f"{file.stem} (process {pid}) ignores SIGTERM")
                time.sleep(0.05)
            if noted["mounted"]:
                subprocess.run(["umount", noted["mounted"]], timeout=30, check=False)
        file.unlink()


def main(arguments: list[str]) -> int:
    try:
        if arguments == ["down"]:
            down()
        elif arguments and set(arguments) <= NEEDS.keys():
            ensure(arguments)
        else:
            print(__doc__, file=sys.stderr)
            return 2
    except Unready as reason:
        print(f"[machine] {reason}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
