"""Child processes: started here, ended here by pid, and what the kernel says of them."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.bench.measuring import ROOT, environment

STOP_TIMEOUT = 20.0
START_TIMEOUT = 30.0


@contextmanager
def started(
    *arguments: str, settings: dict[str, str] | None = None, log: Path
) -> Iterator[subprocess.Popen[str]]:
    """A Python process with `arguments`, its standard output readable; terminated afterwards."""
    with log.open("wb") as errors:
        process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=ROOT,
            env=environment() | (settings or {}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
        assert process.stdout is not None
        process.stdout.close()


@contextmanager
def served(home: Path, log: Path, **settings: str) -> Iterator[tuple[int, int]]:
    """`vaka serve` on a home: its pid and port, once it is ready. Settings are as in `VAKA_…`."""
    port = free_port()
    variables = {f"VAKA_{name.upper()}": value for name, value in settings.items()}
    command = ("-m", "vaka_server", "serve", "--home", str(home), "--port", str(port))
    with started(*command, settings=variables, log=log) as process:
        wait_until_ready(process, port, log)
        yield process.pid, port


def first_line(process: subprocess.Popen[str], log: Path) -> str:
    """What a process printed first; the end of its log when it ended instead."""
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise SystemExit(f"{process.args!r} ended:\n{log.read_text(errors='replace')[-2000:]}")
    return line


def program(*arguments: str, given: bytes = b"") -> Any:
    """What a Python program of this folder printed, parsed as JSON.

    Raises:
        SystemExit: it failed; with its words.
    """
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=environment(),
        input=given,
        capture_output=True,
        timeout=300,
        check=False,
    )
    if done.returncode != 0:
        raise SystemExit(f"{arguments} failed:\n{done.stderr.decode(errors='replace')[-2000:]}")
    return json.loads(done.stdout)


def free_port() -> int:
    """A port of the loopback that nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def wait_until_ready(process: subprocess.Popen[str], port: int, log: Path) -> None:
    """Return once `/readyz` is answered 200; asks again every 5 ms."""
    request = b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    deadline = time.monotonic() + START_TIMEOUT
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with socket.create_connection(("127.0.0.1", port), 5) as connection:
                connection.sendall(request)
                if b" 200 " in connection.recv(4096).partition(b"\r\n")[0]:
                    return
        except OSError:
            pass
        time.sleep(0.005)
    raise SystemExit(f"the server is not ready:\n{log.read_text(errors='replace')[-2000:]}")


def cpu_seconds(pid: int) -> float:
    """CPU that a process has taken since its start, all threads, ended ones too."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def proportional_bytes(pid: int) -> int:
    """Proportional set size of a process: its own memory and its share of what it shares."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    raise SystemExit(f"the kernel does not tell the memory of process {pid}")
