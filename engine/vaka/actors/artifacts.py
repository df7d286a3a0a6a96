"""Artifacts: files that a component leaves for its next runs, and for others (runner.md section 10.4).

Before the main container, those of earlier jobs are laid out in `/data/artifacts/in`; after it, what is
in `/data/artifacts/out` is stored, and that is never a reason for the job to fail.
"""

from __future__ import annotations

import re
import stat
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal

import trio

from vaka.actors.services import Services
from vaka.actors.stages import JobContext
from vaka.datafolder import JobFolder, printable
from vaka.datafolder.archives import read_tar
from vaka.errors import EngineError, InvalidInput
from vaka.mapping.preparing import import_key
from vaka.mapping.results import Report
from vaka.models.moment import parse_moment
from vaka.models.storage import FileDetail, FileQuery, FileUpload, StorageScope
from vaka.models.tree import is_blank, text

FEATURE: Final = "artifacts"
"""Of a project that has artifacts."""
TAG: Final = "artifact"
"""Of every artifact."""
ARCHIVE: Final = "artifacts.tar.gz"
LARGEST: Final = 1 << 30
"""Bytes of artifacts of one job, before they are packed, and of one archive once it is unpacked."""
MOST_FILES: Final = 1_000
"""Files that are laid out when no limit is configured."""
_JOB: Final = re.compile(r"jobId-[A-Za-z0-9_.-]{1,100}")

Source = Literal["runs", "custom", "shared"]


class Artifacts:
    """The artifacts of one definition of a job."""

    def __init__(
        self,
        services: Services,
        folder: JobFolder,
        scope: StorageScope,
        report: Report,
        *,
        settings: Mapping[str, Any],
        component: str,
        config: str,
        job: JobContext,
        key: str,
    ) -> None:
        """`settings` are those of the configuration; import keys begin with `key`."""
        self._services = services
        self._folder = folder
        self._scope = scope
        self._report = report
        self._settings = settings
        self._is_packed = bool(settings.get("options", {}).get("zip", True))
        self._component = component
        self._config = config
        self._job = job
        self._key = key
        self._orchestration = job.spec.orchestration
        self._known_branch = job.spec.branch

    # -- before the container --------------------------------------------------------------------

    async def download(self) -> list[str]:
        """Lay out what the configuration asks for; return the ids of the files.

        Raises:
            UserError: the files cannot be looked for as asked, or one of them is not what it must be.
        """
        ids: list[str] = []
        sources: tuple[Source, ...] = ("runs", "custom", "shared")
        for source in sources:
            settings = self._settings.get(source, {})
            if settings.get("enabled"):
                query = await self._query(source, settings.get("filter", {}))
                if query is not None:
                    ids += await self._lay_out(source, query)
        return ids

    async def _branch(self) -> str:
        """The id of the job's branch."""
        if self._known_branch is None:
            found = await self._services.catalog.branches(self._job.project.id)
            self._known_branch = next(each.id for each in found if each.is_default)
        return self._known_branch

    async def _query(self, source: Source, wanted: Mapping[str, Any]) -> FileQuery | None:
        """Which files `source` stands for; None when there can be none."""
        terms: dict[str, Any] = {}
        match source:
            case "runs":
                terms = {
                    "branchId": await self._branch(),
                    "componentId": self._component,
                    "configId": self._config,
                }
            case "custom":
                terms = {
                    "branchId": wanted.get("branch_id"),
                    "componentId": wanted.get("component_id"),
                    "configId": wanted.get("config_id"),
                }
            case "shared":
                if self._orchestration is None:
                    return None
                terms = {"orchestrationId": self._orchestration}
        tags = [TAG, *(f"{k}-{text(v)}" for k, v in terms.items() if not is_blank(v))]
        ending = "AND shared" if source == "shared" else "NOT shared"
        query = f"tags:({' AND '.join(map(_quoted, tags))} {ending})"
        since = wanted.get("date_since")
        if not is_blank(since):
            query += f' AND created:["{_moment(text(since), self._services.now())}" TO *]'
        limit = wanted.get("limit")
        return FileQuery(query=query, limit=MOST_FILES if limit is None else limit)

    async def _lay_out(self, source: Source, query: FileQuery) -> list[str]:
        files = self._services.storage.files
        found = await files.list_files(self._scope, query)
        laid_out = await trio.to_thread.run_sync(self._folder.incoming, f"artifacts-{source}")
        await trio.to_thread.run_sync(laid_out.mkdir)
        ids: list[str] = []
        for detail in reversed(found):  # the oldest first: what is newer takes its place
            job = next((tag for tag in detail.tags if _JOB.fullmatch(tag)), None)
            if job is None:
                await self._warn(f"The artifact {detail.id} is of no job, and is left out.")
                continue
            incoming = await trio.to_thread.run_sync(self._folder.incoming, "artifact")
            await files.download(self._scope, detail.id, incoming)
            place = partial(self._place, detail, incoming, laid_out / job)
            await trio.to_thread.run_sync(place)
            ids.append(str(detail.id))
        await trio.to_thread.run_sync(self._folder.place_artifacts, laid_out, source)
        return ids

    def _place(self, detail: FileDetail, incoming: Path, target: Path) -> None:
        """Put a file where the component finds it: what is in it, or under its own name."""
        target.mkdir(exist_ok=True)
        if not (self._is_packed and detail.name == ARCHIVE):
            if "/" in detail.name or detail.name in {"", ".", ".."}:
                raise InvalidInput(f'The artifact {detail.id} has the name "{detail.name}".')
            try:
                incoming.rename(target / detail.name)
            except OSError as error:
                raise InvalidInput(
                    f'The artifact {detail.id} cannot take the place of "{detail.name}".'
                ) from error
            return
        if not stat.S_ISREG(incoming.lstat().st_mode):
            raise InvalidInput(f"The artifact {detail.id} is sliced, and must be one archive.")
        try:
            read_tar(incoming, target, limit=LARGEST)
        except InvalidInput as error:
            raise InvalidInput(
                f"The artifact {detail.id} cannot be unpacked. {error.message}"
            ) from error
        incoming.unlink()

    # -- after the container ---------------------------------------------------------------------

    async def upload(self) -> list[str]:
        """Store what the component left; return the ids of the files. Raises nothing of that."""
        ids: list[str] = []
        if not await trio.to_thread.run_sync(self._folder.has_artifacts):
            return ids
        for kind in ("current", "shared"):
            if kind == "shared" and self._orchestration is None:
                continue  # there is nobody to share with
            try:
                if self._is_packed:
                    await self._upload_archive(kind, ids)
                else:
                    await self._upload_files(kind, ids)
            except (EngineError, OSError) as error:
                await self._warn(f'Error uploading artifacts "{error}"')
        return ids

    async def _upload_archive(self, kind: str, ids: list[str]) -> None:
        async with self._temporary(ARCHIVE) as target:
            count, left_out = await trio.to_thread.run_sync(
                partial(self._folder.pack_artifacts, kind, target, limit=LARGEST)
            )
            await self._tell_left_out(left_out)
            if count:
                ids.append(await self._store(kind, ARCHIVE, target))

    async def _upload_files(self, kind: str, ids: list[str]) -> None:
        found, left_out = await trio.to_thread.run_sync(
            partial(self._folder.artifacts, kind, limit=LARGEST)
        )
        await self._tell_left_out(left_out)
        for path in found:
            with self._folder.opened_artifact(kind, path) as source:
                ids.append(await self._store(kind, path, source))

    async def _store(self, kind: str, path: str, source: Path) -> str:
        tags = [
            TAG,
            f"branchId-{await self._branch()}",
            f"componentId-{self._component}",
            f"configId-{self._config}",
            f"jobId-{self._job.record.id}",
        ]
        if kind == "shared":
            tags.append("shared")
        if self._orchestration is not None:
            tags.append(f"orchestrationId-{self._orchestration}")
        stored = await self._services.storage.files.upload(
            self._scope,
            FileUpload(name=path.rpartition("/")[2], tags=tuple(tags)),
            source,
            import_key=import_key(self._key, kind, path),
        )
        return str(stored.id)

    async def _tell_left_out(self, left_out: list[str]) -> None:
        if left_out:
            shown = ", ".join(f'"{printable(path)}"' for path in left_out[:10])
            await self._warn(
                f"{len(left_out)} artifacts are neither files nor folders with plain names, and are "
                f"left out: {shown}"
            )

    async def _warn(self, message: str) -> None:
        await self._report("note", "warn", message, {})

    @asynccontextmanager
    async def _temporary(self, name: str) -> AsyncIterator[Path]:
        """A path in the engine's area, free again afterwards."""
        path = await trio.to_thread.run_sync(self._folder.incoming, name)
        try:
            yield path
        finally:
            path.unlink(missing_ok=True)


def _quoted(tag: str) -> str:
    escaped = tag.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _moment(given: str, now: datetime) -> str:
    try:
        return parse_moment(given, now=now).astimezone(UTC).isoformat(timespec="seconds")
    except ValueError as error:
        raise InvalidInput(
            f'"{given}" is no date that artifacts can be looked for from.', path="date_since"
        ) from error
