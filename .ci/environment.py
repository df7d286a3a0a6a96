"""Make `.venv` hold what pyproject.toml asks for, at the versions of constraints.txt.

Does nothing when neither file, nor the interpreter, nor this folder changed since the last time.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import subprocess
import sys
import time
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin/python"
CONSTRAINTS = ROOT / "constraints.txt"

EXTRAS = "server,postgresql"

INSTALLERS = ["hatchling", "editables"]
"""Here rather than in an environment that pip makes for each build, so that they are pinned."""


class Failed(Exception):
    """The environment could not be made; the text says why."""


def main() -> int:
    (ROOT / ".cache").mkdir(exist_ok=True)
    with (ROOT / ".cache/venv.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        stamp = VENV / ".vaka-installed"
        try:
            version = usable()
            home, _, content = stamp.read_text().partition("\n") if stamp.exists() else ("", "", "")
            if version and home == str(ROOT) and content == digest(version):
                return 0
            if home not in ("", str(ROOT)):
                version = ""  # its scripts still point to where it was made
            started = time.monotonic()
            print(f"[venv] installing into {VENV}", flush=True)
            install(version)
            stamp.write_text(f"{ROOT}\n{digest(usable())}")
        except Failed as reason:
            print(f"[venv] {reason}", file=sys.stderr)
            return 1
    print(f"[venv] installed in {time.monotonic() - started:.0f} s", flush=True)
    return 0


def usable() -> str:
    """The version of the environment's Python, or an empty text when there is no working one."""
    try:
        done = subprocess.run(
            [str(PYTHON), "-c", "import sys, pip; print(sys.version)"],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    except OSError:
        return ""
    return done.stdout if done.returncode == 0 else ""


def digest(version: str) -> str:
    parts = [version, EXTRAS, (ROOT / "pyproject.toml").read_text()]
    return hashlib.sha256("\0".join([*parts, CONSTRAINTS.read_text()]).encode()).hexdigest()


def install(version: str) -> None:
    if not version:
        try:
            venv.create(VENV, clear=True, with_pip=True, symlinks=True)
        except subprocess.CalledProcessError as error:
            raise Failed(f"{sys.executable} could not make {VENV}: {error}") from error
    pip("install", "pip")  # groups need pip 25.1
    pip("install", *INSTALLERS)
    pip("install", "--no-build-isolation", "-e", f".[{EXTRAS}]", "--group", "dev")
    pip("check")


def pip(command: str, *arguments: str) -> None:
    options = ["--no-input", "--disable-pip-version-check", "-q"]
    if command == "install":
        options += ["--constraint", str(CONSTRAINTS), "--retries", "5"]
        options += ["--root-user-action", "ignore"]
        if arguments == ("pip",):
            options.append("--upgrade")
    full = [str(PYTHON), "-m", "pip", command, *options, *arguments]
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    try:
        done = subprocess.run(
            full,
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,  # kept back: it warns of what nobody here can change
            text=True,
            timeout=1200,
            check=False,
            env=clean,
        )
    except subprocess.TimeoutExpired:
        raise Failed(f"pip {command} took more than 20 minutes") from None
    if done.returncode != 0:
        raise Failed(f"pip {command} {' '.join(arguments)} failed:\n{done.stdout[-4000:]}")


if __name__ == "__main__":
    sys.exit(main())
