"""A real server for the clients: its home, projects and components, and the process itself."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trio
from tests.acceptance.images import Images
from tests.clients.authority import Certificate
from tests.clients.network import ADDRESS, Network

from vaka import Engine, EngineConfig
from vaka.models.catalog import Role

TIME_LIMIT = 60.0
"""Seconds within which a server starts and stops: a bound, no measure."""

SUFFIX = "vaka.keboola-testing.com"
"""What the names of services end with. Newer MCP servers take no other than a few, of which this is one;
here it leads to `ADDRESS`, in a network that has no way out."""
SERVICES = (
    *("connection", "queue", "encryption", "sync-actions", "scheduler", "ai", "data-science"),
    *("metastore", "query", "notification", "billing", "editor", "import"),
)
HOSTS = tuple(f"{service}.{SUFFIX}" for service in SERVICES)


@dataclass(frozen=True)
class Account:
    """A project, and the secret of its admin token."""

    project: str
    name: str
    token: str


@dataclass(frozen=True)
class Site:
    """A running server, as a client is told of it."""

    url: str
    accounts: Mapping[str, Account]
    environment: Mapping[str, str]
    """What a client's process needs to trust it."""
    log: Path


def make_home(
    home: Path, projects: Sequence[str], components: Sequence[Mapping[str, Any]]
) -> dict[str, Account]:
    """A new home with a key ring, these projects and components."""
    # As an operator would: the command makes the ring, the rest is in the catalog.
    done = subprocess.run(
        [sys.executable, "-m", "vaka_server", "init", "--home", str(home), "--json"],
        env=_server_environment({}),
        capture_output=True,
        text=True,
        timeout=TIME_LIMIT,
        check=False,
    )
    assert done.returncode == 0, done.stderr

    async def fill() -> dict[str, Account]:
        accounts = {}
        async with Engine(EngineConfig(home=home, worker=False)) as engine:
            for component in components:
                await engine.catalog.put_component(component)
            for name in projects:
                project = await engine.catalog.create_project(name)
                _, secret = await engine.catalog.create_token(project.id, "admin", Role.ADMIN)
                accounts[name] = Account(project.id, name, secret)
        return accounts

    return trio.run(fill)


@contextmanager
def serving_plainly(home: Path, accounts: Mapping[str, Account], **settings: str) -> Iterator[Site]:
    """`vaka serve` on the loopback, by HTTP: every service below its own path."""
    command = [sys.executable, "-m", "vaka_server", "serve", "--port", "0", "--json"]
    with _running(command, home, settings) as url:
        yield Site(url, accounts, {}, home / "server.log")


@contextmanager
def serving_securely(
    home: Path,
    accounts: Mapping[str, Account],
    network: Network,
    certificate: Certificate,
    **settings: str,
) -> Iterator[Site]:
    """`vaka serve` in a network of its own, by HTTPS: every service at its own host."""
    command = network.inside(sys.executable, "-m", "vaka_server", "serve", "--json")
    secure = {
        "VAKA_ADDRESS": ADDRESS,
        "VAKA_PORT": "443",
        "VAKA_HOST_SUFFIX": SUFFIX,
        "VAKA_TLS_CERTIFICATE": str(certificate.certificate),
        "VAKA_TLS_KEY": str(certificate.key),
    }
    trust = str(certificate.authority)
    environment = {"SSL_CERT_FILE": trust, "REQUESTS_CA_BUNDLE": trust}
    with _running(command, home, secure | settings):
        yield Site(f"https://connection.{SUFFIX}", accounts, environment, home / "server.log")


def _server_environment(settings: Mapping[str, str]) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("VAKA_")}
    return {**kept, **settings}


@contextmanager
def _running(command: Sequence[str], home: Path, settings: Mapping[str, str]) -> Iterator[str]:
    """The server's process; where it answers. It is ended by its id, whatever happens."""
    own = {
        "VAKA_HOME": str(home),
        "VAKA_INSTANCE": f"test-{secrets.token_hex(4)}",
        "VAKA_PULL_ATTEMPTS": "1",
        "VAKA_SHUTDOWN": "stop",
    }
    log = home / "server.log"
    with log.open("ab") as errors:
        process = subprocess.Popen(
            command,
            env=_server_environment({**own, **settings}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
    assert process.stdout is not None
    try:
        told = ""
        while not told.endswith("}\n"):
            line = process.stdout.readline()
            if not line:
                pytest.fail(f"the server ended at once: {log.read_text()[-4000:]}", pytrace=False)
            told += line
        yield json.loads(told)["url"]
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(TIME_LIMIT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()


def worker_components(images: Images) -> list[dict[str, Any]]:
    """Components that the clients run: each is a shell script in a real image."""
    return [
        images.component(
            "vaka-test.tables",
            "mkdir -p /data/out/tables; printf 'id,word\\n1,one\\n2,two\\n' "
            "> /data/out/tables/words.csv; echo tables were written",
        ),
        images.component(
            "vaka-test.fails", "echo looking for it; echo 'The source is not there.' >&2; exit 1"
        ),
        images.component("vaka-test.sleeps", "echo asleep; sleep 600"),
        images.component(
            "vaka-test.actions",
            """
            case "$(cat /data/config.json)" in
            *refuse*) echo 'No such account.' >&2; exit 1 ;;
            *) echo '{"status":"ok","empty":{},"list":[]}' ;;
            esac
            """,
            synchronous_actions=["testConnection", "refuse"],
        ),
    ]


def plain_component(id_: str, type_: str = "application", **more: Any) -> dict[str, Any]:
    """A component that no test runs: clients keep configurations of it."""
    return {
        "id": id_,
        "type": type_,
        "name": id_,
        "data": {"definition": {"type": "dockerhub", "uri": "vaka/busybox", "tag": "1"}},
        **more,
    }


STORED_COMPONENTS = (
    plain_component("keboola.runner-config-test"),
    plain_component("ex-generic-v2", "extractor"),
    plain_component("keboola.variables", "other"),
    plain_component("keboola.orchestrator", "other"),
    plain_component("keboola.flow", "other", configurationSchema={"type": "object"}),
    plain_component("keboola.mcp-server-tool", "other"),
    plain_component("keboola.snowflake-transformation", "transformation"),
)


def tail(log: Path) -> str:
    """The end of a server's log, for a failure to show."""
    return log.read_text(errors="replace")[-3000:]
