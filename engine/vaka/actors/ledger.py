"""Which images this engine has pulled, so that they can be removed one day, and no others."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import trio

from vaka.models.container import ImageInfo

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Pulled:
    """An image that was not on the host before this engine pulled it."""

    id: str
    reference: str
    pulled: datetime


class ImageLedger:
    """Pulled images in a file of the home. One process writes it: who holds the home.

    An image is written down once it is there, so after a crash in between it is nobody's and stays.
    """

    def __init__(self, home: Path) -> None:
        self._path = home.absolute() / "images.json"
        self._lock = trio.Lock()
        self._used: dict[str, datetime] = {}

    async def note(self, image: ImageInfo, now: datetime) -> None:
        """An image is going to be used; write it down if it was pulled just now."""
        self._used[image.id] = now
        if image.pulled:
            async with self._lock:
                await trio.to_thread.run_sync(
                    self._add, Pulled(image.id, _short(image.reference), now)
                )

    def last_use(self, image_id: str) -> datetime | None:
        """When this process used an image last."""
        return self._used.get(image_id)

    async def read(self) -> list[Pulled]:
        """What is written down."""
        async with self._lock:
            return await trio.to_thread.run_sync(self._load)

    async def forget(self, pulled: Pulled) -> None:
        """An image is gone, or somebody else's now."""
        async with self._lock:
            await trio.to_thread.run_sync(self._drop, pulled)

    def _add(self, pulled: Pulled) -> None:
        kept = [
            each
            for each in self._load()
            if (each.id, each.reference) != (pulled.id, pulled.reference)
        ]
        self._save([*kept, pulled])

    def _drop(self, pulled: Pulled) -> None:
        self._save([each for each in self._load() if each != pulled])

    def _load(self) -> list[Pulled]:
        try:
            document: Any = json.loads(self._path.read_text())
            return [_parse(each) for each in document["images"]]
        except FileNotFoundError:
            return []
        except (ValueError, KeyError, TypeError) as error:
            # what was pulled is not known any more, and stays on the host
            log.warning("ledger.unreadable", extra={"path": str(self._path), "error": str(error)})
            return []

    def _save(self, entries: list[Pulled]) -> None:
        document = [
            {"id": each.id, "reference": each.reference, "pulled": each.pulled.isoformat()}
            for each in entries
        ]
        temporary = self._path.with_suffix(".new")
        temporary.write_text(json.dumps({"images": document}, indent=1))
        os.replace(temporary, self._path)  # noqa: PTH105 - Path.replace is the same


def _short(reference: str) -> str:
    """A reference as Docker lists it."""
    return reference.removeprefix("docker.io/library/").removeprefix("docker.io/")


def _parse(entry: Mapping[str, Any]) -> Pulled:
    return Pulled(
        str(entry["id"]), str(entry["reference"]), datetime.fromisoformat(entry["pulled"])
    )
