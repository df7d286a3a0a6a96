"""A client's process that is asked and answers by lines, within a time limit."""

from __future__ import annotations

import contextlib
import os
import queue
import subprocess
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

STOP_TIME_LIMIT = 20.0

LEFT = ("PATH", "LANG", "LC_ALL", "TMPDIR")
"""What clients see of the test's environment: nothing that would set them up differently."""


def client_environment(home: Path, *more: Mapping[str, str]) -> dict[str, str]:
    """The environment of a client whose user's home is an empty folder."""
    found = {name: os.environ[name] for name in LEFT if name in os.environ}
    found |= {"HOME": str(home), "PYTHONUNBUFFERED": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    for each in more:
        found |= each
    return found


class Conversation:
    """A process whose standard input and output are a conversation.

    What it says is read as it comes, so that waiting for it can end when the time is over: clients try
    again for half an hour what a test must not wait for.
    """

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str], folder: Path, name: str
    ) -> None:
        self._name = name
        self._log = folder / f"{name}.log"
        with self._log.open("ab") as errors:
            self._process = subprocess.Popen(
                command,
                env=dict(environment),
                cwd=folder,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
            )
        self._said: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        while chunk := self._process.stdout.read1():  # type: ignore[attr-defined]
            self._said.put(chunk)
        self._said.put(b"")

    def say(self, text: str) -> None:
        """Write to the process."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(text.encode())
            self._process.stdin.flush()
        except BrokenPipeError:
            pytest.fail(f"{self._name} has ended: {self.log}", pytrace=False)

    def hear(self, within: float) -> bytes:
        """What the process said next; empty when it said nothing within this many seconds."""
        try:
            chunk = self._said.get(timeout=max(within, 0))
        except queue.Empty:
            return b""
        if not chunk:
            pytest.fail(f"{self._name} has ended: {self.log}", pytrace=False)
        return chunk

    @property
    def log(self) -> str:
        """The end of what it wrote to its standard error."""
        return self._log.read_text(errors="replace")[-3000:]

    def kill(self) -> None:
        """End the process at once."""
        self._process.kill()
        self.close()

    def close(self) -> None:
        """End the process: politely, then by force."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(STOP_TIME_LIMIT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join(STOP_TIME_LIMIT)
        self._process.stdout.close()
