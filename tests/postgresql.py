"""A PostgreSQL that only the tests can reach, which can be stopped, killed and started again."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypedDict

import psycopg
import pytest

TIME_LIMIT = 60
SETTINGS = {"listen_addresses": "", "max_connections": "200"}


class Identity(TypedDict, total=False):
    """Who runs a process, as arguments of `subprocess.Popen`."""

    user: int
    group: int
    extra_groups: list[int]


class Cluster:
    """PostgreSQL's server, its data and its socket below one folder."""

    def __init__(self, folder: Path, identity: Identity, settings: dict[str, str]) -> None:
        self._folder = folder
        self._identity = identity
        self._settings = {**SETTINGS, "unix_socket_directories": str(folder), **settings}
        self._programs = _programs()
        self._server: subprocess.Popen[bytes] | None = None

    def url(self, database: str) -> str:
        """An SQLAlchemy URL of one of its databases."""
        return f"postgresql+psycopg://vaka@/{database}?host={self._folder}"

    def execute(self, statement: str) -> None:
        target = f"host={self._folder} user=vaka dbname=postgres connect_timeout=5"
        with psycopg.connect(target, autocommit=True) as connection:
            connection.execute(statement.encode())

    def make(self) -> None:
        made = subprocess.run(
            [
                *(str(self._programs / "initdb"), "--pgdata", str(self._folder / "data")),
                *("--username", "vaka", "--auth", "trust", "--encoding", "UTF8"),
                *("--locale", "C", "--no-sync"),
            ],
            cwd=self._folder,
            **self._identity,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIME_LIMIT,
            check=False,
        )
        if made.returncode != 0:
            pytest.fail(f"initdb failed: {made.stderr.strip()}", pytrace=False)

    def start(self) -> None:
        """Return once it answers."""
        options = [part for item in self._settings.items() for part in ("-c", "=".join(item))]
        with (self._folder / "log").open("ab") as output:
            self._server = subprocess.Popen(
                [
                    *(str(self._programs / "postgres"), "-D", str(self._folder / "data")),
                    *options,
                ],
                cwd=self._folder,
                **self._identity,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        self._wait_until_it_answers()

    def stop(self, with_signal: signal.Signals = signal.SIGINT) -> None:
        """End it: SIGINT ends all sessions, SIGQUIT is a crash of all its processes."""
        if self._server is None:
            return
        self._server.send_signal(with_signal)
        try:
            self._server.wait(TIME_LIMIT)
        except subprocess.TimeoutExpired:
            self._server.kill()
            self._server.wait()
        self._server = None

    def _wait_until_it_answers(self) -> None:
        assert self._server is not None
        deadline = time.monotonic() + TIME_LIMIT
        while True:
            try:
                self.execute("SELECT 1")
            except psycopg.OperationalError as error:
                if self._server.poll() is None and time.monotonic() < deadline:
                    time.sleep(0.02)
                    continue
                tail = (self._folder / "log").read_text(errors="replace")[-1000:]
                pytest.fail(f"PostgreSQL did not start: {error}\n{tail}", pytrace=False)
            else:
                return


@contextmanager
def postgresql_cluster(**settings: str) -> Iterator[Cluster]:
    """A new cluster that runs, with these settings of the server."""
    # Not below pytest's own temporary folder: that is closed to other users, and a socket's path
    # may have 107 bytes only.
    folder = Path(tempfile.mkdtemp(prefix="vaka-pg-", dir="/tmp"))
    try:
        cluster = Cluster(folder, _unprivileged(folder), settings)
        cluster.make()
        try:
            cluster.start()
            yield cluster
        finally:
            cluster.stop()
    finally:
        shutil.rmtree(folder)


def _programs() -> Path:
    """The folder with initdb and postgres, the newest of Debian's first."""
    folders = Path("/usr/lib/postgresql").glob("*/bin")
    newest_first = sorted(folders, key=lambda folder: int(folder.parent.name), reverse=True)
    path = os.pathsep.join([*map(str, newest_first), os.environ.get("PATH", "")])
    initdb = shutil.which("initdb", path=path)
    if initdb is None:
        pytest.fail(
            "PostgreSQL's server programs are missing: run `make test` as root, or "
            "apt-get install --no-install-recommends postgresql",
            pytrace=False,
        )
    return Path(initdb).resolve().parent


def _unprivileged(folder: Path) -> Identity:
    """Who runs PostgreSQL, which refuses to be root; `folder` becomes theirs."""
    if os.geteuid() != 0:
        return {}
    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        os.chown(folder, entry.pw_uid, entry.pw_gid)
        return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
    pytest.fail("PostgreSQL does not run as root, and there is no user nobody", pytrace=False)
