"""A network of the test's own: a namespace with an address, host names and nothing else.

Some clients of Storage drop ports and refuse the loopback. In here a private address is the machine's
own, port 443 is free, and names lead where the test wants: nothing that runs in it reaches anything
outside, whatever a name would mean elsewhere.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

ADDRESS = "10.88.0.1"
"""Private, and no loopback address: clients accept it. It exists within the namespace only."""

TIME_LIMIT = 30


@dataclass(frozen=True)
class Network:
    """A network namespace; its processes see host names of their own."""

    name: str
    hosts: Path
    """What they see as /etc/hosts."""

    @contextmanager
    def leading(self, host: str, address: str) -> Iterator[None]:
        """Let a host lead somewhere else for a while."""
        usual = self.hosts.read_text()
        lines = [line for line in usual.splitlines() if line.split()[1] != host]
        self.hosts.write_text("\n".join([*lines, f"{address} {host}", ""]))
        try:
            yield
        finally:
            self.hosts.write_text(usual)

    def inside(self, *command: str) -> list[str]:
        """The command that runs `command` in here, under the same process id."""
        return ["ip", "netns", "exec", self.name, *command]


@contextmanager
def private_network(hosts: Sequence[str]) -> Iterator[Network]:
    """A network in which `hosts` lead to `ADDRESS`; removed afterwards, whatever happens."""
    if os.geteuid() != 0:
        pytest.fail("These tests make a network namespace, which needs root.", pytrace=False)
    if shutil.which("ip") is None:
        pytest.fail(
            "There is no program `ip`: run `make test` as root, or apt-get install iproute2",
            pytrace=False,
        )
    name = f"vaka-test-{secrets.token_hex(4)}"
    files = Path("/etc/netns") / name  # where `ip netns exec` looks for files to put over /etc
    files.mkdir(parents=True)
    try:
        lines = [f"{ADDRESS} {host}\n" for host in hosts]
        (files / "hosts").write_text("".join(["127.0.0.1 localhost\n", *lines]))
        (files / "resolv.conf").write_text("")
        _ip("netns", "add", name)
        try:
            _ip("-n", name, "link", "set", "lo", "up")
            _ip("-n", name, "address", "add", f"{ADDRESS}/32", "dev", "lo")
            yield Network(name, files / "hosts")
        finally:
            _ip("netns", "delete", name)
    finally:
        shutil.rmtree(files)
        with contextlib.suppress(OSError):  # others have theirs in it
            files.parent.rmdir()


def _ip(*words: str) -> None:
    done = subprocess.run(
        ["ip", *words], capture_output=True, text=True, timeout=TIME_LIMIT, check=False
    )
    if done.returncode != 0:
        pytest.fail(f"ip {' '.join(words)}: {done.stderr.strip()}", pytrace=False)
