"""The kernel's own word on containers that it killed."""

from __future__ import annotations

import os
import re
from pathlib import Path

KMSG = Path("/dev/kmsg")
RECORD = 8192
"""Bytes that any record of the kernel's log fits in."""
_USAGE = re.compile(rb"memory: usage (\d+)kB, limit \d+kB")
_KILLED = re.compile(rb"oom-kill:.*\boom_memcg=[^,]*?([0-9a-f]{64})")


class KernelLog:
    """Which containers of this host were killed for passing their memory limit.

    The kernel writes the control group of such a container to its log before it kills, so what the log
    holds is certain; what it does not hold may have happened all the same, because the kernel writes
    ten such records in five seconds at most. What the group used then is told some records before, and
    nothing of another group in between. Reading needs the right to (CAP_SYSLOG); without, and on
    other systems, nothing is known.
    """

    def __init__(self, path: Path = KMSG) -> None:
        self._killed: dict[str, int | None] = {}
        self._usage: int | None = None
        try:
            self._fd: int | None = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            self._fd = None

    def has_killed(self, container_id: str) -> bool:
        """Whether the log holds the container by now."""
        self._read()
        return container_id in self._killed

    def peak(self, container_id: str) -> int | None:
        """Bytes that a container used when it was killed, which is the most it ever had."""
        return self._killed.get(container_id)

    def close(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def _read(self) -> None:
        while self._fd is not None:
            try:
                record = os.read(self._fd, RECORD)
            except BlockingIOError:
                return  # all that there is has been read
            except BrokenPipeError:
                continue  # records were overwritten before they were read: the next one follows
            except OSError:
                self.close()
                return
            if not record:
                return
            if usage := _USAGE.search(record):
                self._usage = int(usage[1]) << 10
            elif killed := _KILLED.search(record):
                self._killed[killed[1].decode()] = self._usage
                self._usage = None
