"""keboola-mcp-server: its executable, spoken to over its standard input and output."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any, Self

import pytest
from tests.clients.network import Network
from tests.clients.process import Conversation, client_environment
from tests.clients.site import Account, Site, tail

TIME_LIMIT = 90.0
"""Seconds for one call, the program's start included."""
PROTOCOL = "2025-06-18"


class Mcp:
    """The server's process, in one project."""

    def __init__(
        self, environment: Path, site: Site, account: Account, network: Network, folder: Path
    ) -> None:
        self.account = account
        self._site = site
        self._folder = folder
        self._command = network.inside(str(environment / "bin/keboola_mcp_server"))
        own = {"KBC_STORAGE_API_URL": site.url, "KBC_STORAGE_TOKEN": account.token}
        self._environment = client_environment(folder, own, site.environment)
        self._conversation: Conversation | None = None
        self._heard = b""
        self._number = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._conversation is not None:
            self._conversation.close()

    def tools(self) -> set[str]:
        """Names of the tools that it offers."""
        return {tool["name"] for tool in self._ask("tools/list", {})["tools"]}

    def call(self, tool: str, **arguments: Any) -> Any:
        """What a tool answers; fails the test when the tool fails."""
        result = self._ask("tools/call", {"name": tool, "arguments": arguments})
        if result.get("isError"):
            self._fail(tool, result)
        return result.get("structuredContent", result)

    def refused(self, tool: str, **arguments: Any) -> str:
        """The words of a tool that must fail."""
        result = self._ask("tools/call", {"name": tool, "arguments": arguments})
        assert result.get("isError"), result
        return "\n".join(part.get("text", "") for part in result["content"])

    def until_job(self, job: str) -> dict[str, Any]:
        """A job once it has ended."""
        until = time.monotonic() + TIME_LIMIT
        while True:
            answer = self.call("get_jobs", job_ids=[job])
            (found,) = answer.get("result", answer)["jobs"]
            if found["is_finished"]:
                return dict(found)
            assert time.monotonic() < until, found

    def _ask(self, method: str, parameters: dict[str, Any]) -> dict[str, Any]:
        if self._conversation is None:
            self._conversation = Conversation(
                self._command, self._environment, self._folder, "keboola-mcp-server"
            )
            client = {"name": "vaka-tests", "version": "1"}
            hello = {"protocolVersion": PROTOCOL, "capabilities": {}, "clientInfo": client}
            self._exchange("initialize", hello)
            self._send({"method": "notifications/initialized"})
        answer = self._exchange(method, parameters)
        if "error" in answer:
            self._fail(method, answer["error"])
        result: dict[str, Any] = answer["result"]
        return result

    def _exchange(self, method: str, parameters: dict[str, Any]) -> dict[str, Any]:
        self._number += 1
        self._send({"id": self._number, "method": method, "params": parameters})
        until = time.monotonic() + TIME_LIMIT
        while True:
            document = self._next(until, method)
            if document.get("id") == self._number and "method" not in document:
                return document

    def _send(self, message: dict[str, Any]) -> None:
        assert self._conversation is not None
        self._conversation.say(json.dumps({"jsonrpc": "2.0", **message}) + "\n")

    def _next(self, until: float, what: str) -> dict[str, Any]:
        """The next message: an answer, or a notification."""
        assert self._conversation is not None
        while b"\n" not in self._heard:
            self._heard += self._conversation.hear(until - time.monotonic())
            if time.monotonic() > until:
                log = self._conversation.log
                self._conversation.kill()
                self._conversation = None
                pytest.fail(
                    f"{what} took more than {TIME_LIMIT:g} s: {log}\nThe server's log:\n"
                    f"{tail(self._site.log)}",
                    pytrace=False,
                )
        line, _, self._heard = self._heard.partition(b"\n")
        document: dict[str, Any] = json.loads(line)
        return document

    def _fail(self, what: str, answer: Any) -> None:
        assert self._conversation is not None
        pytest.fail(
            f"{what}: {json.dumps(answer, indent=1)}\n{self._conversation.log}\n"
            f"The server's log:\n{tail(self._site.log)}",
            pytrace=False,
        )
