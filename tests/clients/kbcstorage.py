"""kbcstorage: a program in its environment that plays scenarios by name."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any, Self

import pytest
from tests.clients.network import Network
from tests.clients.process import Conversation, client_environment
from tests.clients.site import Account, Site, tail

PROGRAM = Path(__file__).parent / "programs/kbcstorage_scenarios.py"
TIME_LIMIT = 60.0
"""Seconds for one scenario."""


class Kbcstorage:
    """The client's process, with one project."""

    def __init__(
        self,
        environment: Path,
        site: Site,
        account: Account,
        folder: Path,
        network: Network | None = None,
    ) -> None:
        self._site = site
        self._folder = folder
        python = str(environment / "bin/python")
        command = [python, str(PROGRAM), site.url, account.token, str(folder)]
        self._command = network.inside(*command) if network else command
        self._environment = client_environment(folder, site.environment)
        self._conversation: Conversation | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._conversation is not None:
            self._conversation.close()

    def play(self, scenario: str) -> Any:
        """What one scenario, named with its arguments, returned.

        Fails the test as the scenario failed, or when it takes too long.
        """
        if self._conversation is None:
            self._conversation = Conversation(
                self._command, self._environment, self._folder, "kbcstorage"
            )
        self._conversation.say(f"{scenario}\n")
        heard, until = b"", time.monotonic() + TIME_LIMIT
        while not heard.endswith(b"\n"):
            heard += self._conversation.hear(until - time.monotonic())
            if time.monotonic() > until:
                self._conversation.kill()
                self._conversation = None
                pytest.fail(
                    f"{scenario} took more than {TIME_LIMIT:g} s. The server's log:\n"
                    f"{tail(self._site.log)}",
                    pytrace=False,
                )
        answer = json.loads(heard)
        if answer["failed"]:
            log = tail(self._site.log)
            pytest.fail(f"{answer['failed']}\nThe server's log:\n{log}", pytrace=False)
        return answer["returned"]
