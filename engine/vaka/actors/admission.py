"""Whether an engine may start jobs now: its disk has room, and what jobs need is not closed.

Jobs that run are not touched by it: they end, and jobs of a dead engine are taken over. Only what waits
goes on waiting, with the reason.
"""

from __future__ import annotations

import logging
import math
import shutil
from dataclasses import dataclass
from pathlib import Path

import trio

from vaka.config import EngineConfig

log = logging.getLogger(__name__)

LOOK_AGAIN = 1.0
"""Seconds that a look at the disk is good for."""


@dataclass(frozen=True, slots=True)
class DiskState:
    """How full the disk is; None is fine, else the reason."""

    stops: str | None = None
    """There is too little space to start jobs."""
    warns: str | None = None
    """There is little space."""


def free_bytes(folder: Path) -> int:
    """Bytes that may be written to the file system of a folder."""
    return shutil.disk_usage(folder).free


class Admission:
    """What keeps one engine from starting jobs."""

    def __init__(self, config: EngineConfig) -> None:
        self._config = config
        self._looked = -math.inf
        self._disk = DiskState()
        self._paused_until = -math.inf
        self._pause_reason = ""
        self._told: str | None = None

    def pause(self, reason: str, seconds: float) -> None:
        """Start no jobs for so long."""
        self._paused_until = max(self._paused_until, trio.current_time() + seconds)
        self._pause_reason = reason

    async def reason(self) -> str | None:
        """Why no job may start now, or None."""
        if trio.current_time() < self._paused_until:
            reason: str | None = self._pause_reason
        else:
            reason = (await self.disk()).stops
        if reason != self._told and (reason is None or self._told is None):
            # said once: the figures in a reason change with every look
            if reason is not None:
                log.error("admission.stopped", extra={"reason": reason})
            else:
                log.info("admission.resumed")
            self._told = reason
        return reason

    async def disk(self) -> DiskState:
        """How full the disk is, as of a moment ago."""
        now = trio.current_time()
        if now - self._looked >= LOOK_AGAIN:
            before = self._disk.warns
            self._disk = await trio.to_thread.run_sync(self._look, abandon_on_cancel=True)
            self._looked = now
            if self._disk.warns is not None and before is None:
                log.warning("disk.filling", extra={"reason": self._disk.warns})
        return self._disk

    def _look(self) -> DiskState:
        config = self._config
        home = config.home.absolute()
        # parts of a home may be on disks of their own
        folders = [each for each in (home, home / "jobs", home / "storage") if each.is_dir()]
        try:
            free, folder = min((free_bytes(each), each) for each in folders or [home])
        except OSError as error:
            return DiskState(stops=f"the disk of {home} cannot be read: {error.strerror}")
        text = f"only {_size(free)} are free on the disk of {folder}"
        if free < config.disk_stop_bytes:
            stop = f"{text}, and jobs start at {_size(config.disk_stop_bytes)} (disk_stop_bytes)"
            return DiskState(stop, stop)
        if free < config.disk_warn_bytes:
            stop = _size(config.disk_stop_bytes)
            return DiskState(warns=f"{text}; below {stop} no job starts (disk_stop_bytes)")
        return DiskState()


def _size(number: int) -> str:
    return f"{number / (1 << 30):.1f} GiB" if number >= 1 << 30 else f"{number >> 20} MiB"
