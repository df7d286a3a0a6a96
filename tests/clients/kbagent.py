"""keboola-cli: its executable `kbagent`, run once a command, or as the shell that it offers."""

from __future__ import annotations

import json
import shlex
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import pytest
from tests.clients.network import Network
from tests.clients.process import Conversation, client_environment
from tests.clients.site import Account, Site, tail

TIME_LIMIT = 90.0
"""Seconds for one command: starting takes the program longer than most commands."""
PROMPT = b"kbagent > "
ALIAS = "alpha"
PROJECT = ("--project", ALIAS)
"""What each command is told."""
SETTINGS = {
    "KBAGENT_AUTO_UPDATE": "false",
    "KBAGENT_SKIP_UPDATE": "1",
    "KBAGENT_DISABLE_TELEMETRY": "1",
    "TERM": "dumb",
    "NO_COLOR": "1",
    "COLUMNS": "200",
}
"""What a user may set: where the program runs here it could not reach its updates anyway."""


@dataclass(frozen=True)
class Done:
    """A command that was run by itself."""

    code: int
    document: Any
    """What it printed in JSON."""
    errors: str


class Kbagent:
    """The client with a configuration folder of its own, and a project to work with."""

    def __init__(
        self, environment: Path, site: Site, account: Account, folder: Path, network: Network
    ) -> None:
        self.account = account
        self.folder = folder
        self.site = site
        self._command = network.inside(str(environment / "bin/kbagent"))
        own = {"KBAGENT_CONFIG_DIR": str(folder / "settings")}
        self._environment = client_environment(folder, SETTINGS, own, site.environment)
        self._shell: Conversation | None = None

    def __enter__(self) -> Self:
        return self

    @cached_property
    def added(self) -> Done:
        """How adding the project went; it is done once, before anything else is asked."""
        words = ("project", "add", *PROJECT, "--url", self.site.url, "--token", self.account.token)
        return self.run(*words, settings={"KBAGENT_DISABLE_TELEMETRY": ""})

    def __exit__(self, *_: object) -> None:
        if self._shell is not None:
            self._shell.close()

    def run(self, *words: str, settings: Mapping[str, str] | None = None) -> Done:
        """Run one command as a process of its own, in JSON."""
        done = subprocess.run(
            [*self._command, "--json", *words],
            env=self._environment | dict(settings or {}),
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIME_LIMIT,
            check=False,
        )
        try:
            document = json.loads(done.stdout)
        except ValueError:
            pytest.fail(f"kbagent {words}: {done.stdout}\n{done.stderr}", pytrace=False)
        return Done(done.returncode, document, done.stderr)

    def ask(self, *words: str) -> Any:
        """What one command of the shell answers; fails the test when the command fails."""
        document = self._answer(words)
        if document["status"] != "ok":
            pytest.fail(
                f"kbagent {shlex.join(words)}: {json.dumps(document, indent=1)}\n"
                f"The server's log:\n{tail(self.site.log)}",
                pytrace=False,
            )
        return document["data"]

    def refused(self, *words: str) -> dict[str, Any]:
        """The error of a command of the shell that must fail."""
        document = self._answer(words)
        assert document["status"] == "error", document
        error: dict[str, Any] = document["error"]
        return error

    def until_job(self, job: str, statuses: set[str]) -> dict[str, Any]:
        """A job once it has one of these states."""
        until = time.monotonic() + TIME_LIMIT
        while True:
            found: dict[str, Any] = self.ask("job", "detail", *PROJECT, "--job-id", job)
            if found["status"] in statuses:
                return found
            assert time.monotonic() < until, found

    def _answer(self, words: tuple[str, ...]) -> dict[str, Any]:
        if self.added.code != 0:
            pytest.fail(f"the project could not be added: {self.added}", pytrace=False)
        if self._shell is None:
            self._shell = Conversation(
                [*self._command, "repl"], self._environment, self.folder, "kbagent"
            )
            self._heard_until_prompt("its shell")
        line = shlex.join(["--json", *words])
        self._shell.say(f"{line}\n")
        said = self._heard_until_prompt(line)
        # It repeats the line, and then comes the answer.
        answer = said.partition("\r\n")[2]
        start = answer.find("{")
        if start < 0:
            pytest.fail(f"kbagent {line}: {said}\n{self._shell.log}", pytrace=False)
        document: dict[str, Any] = json.loads(answer[start:])
        return document

    def _heard_until_prompt(self, what: str) -> str:
        assert self._shell is not None
        heard, until = b"", time.monotonic() + TIME_LIMIT
        while not heard.endswith(PROMPT):
            heard += self._shell.hear(until - time.monotonic())
            if time.monotonic() > until:
                self._shell.kill()
                self._shell = None
                pytest.fail(
                    f"kbagent: {what} took more than {TIME_LIMIT:g} s and said {heard!r}. "
                    f"The server's log:\n{tail(self.site.log)}",
                    pytrace=False,
                )
        return heard.removesuffix(PROMPT).decode()
