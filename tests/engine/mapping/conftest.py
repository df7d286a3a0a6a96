import csv
import gzip
import inspect
import io
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import vaka_local
from vaka.datafolder import JobFolder
from vaka.errors import NotFound
from vaka.hooks import FileBackend, MappingBackend, TableBackend
from vaka.mapping import InputFiles, InputTables, OutputContext, Outputs, store
from vaka.mapping.inputs import stage_files, stage_tables
from vaka.models.event import Level
from vaka.models.mapping import InputFile, InputTable, OutputFile, OutputTable
from vaka.models.state import JobState
from vaka.models.storage import ExportOptions, FileUpload, MetadataEntry, StorageScope, TableLoad

SCOPE = StorageScope(project="1", run_id="7.8")
CONTEXT = OutputContext("keboola.demo", "42", run_id="7.8")


@dataclass
class Reports:
    """Everything that mapping has told."""

    told: list[tuple[str, Level, str, Mapping[str, Any]]] = field(default_factory=list)

    async def __call__(
        self, kind: str, level: Level, message: str, data: Mapping[str, Any]
    ) -> None:
        self.told.append((kind, level, message, data))

    @property
    def lines(self) -> list[str]:
        return [message for _, _, message, _ in self.told]

    @property
    def warnings(self) -> list[str]:
        return [message for _, level, message, _ in self.told if level == "warn"]

    def events(self, kind: str) -> list[Mapping[str, Any]]:
        return [data for each, _, _, data in self.told if each == kind]


@dataclass
class Desk:
    """A job folder, a Storage, and what a test does with them in one line each."""

    backend: MappingBackend
    folder: JobFolder
    scratch: Path
    reports: Reports = field(default_factory=Reports)

    # -- Storage -----------------------------------------------------------------------------------

    async def table(
        self,
        table_id: str,
        rows: Sequence[Sequence[str]],
        *,
        columns: Sequence[str] = ("Id", "Name"),
        key: Sequence[str] = (),
        incremental: bool = False,
        scope: StorageScope = SCOPE,
    ) -> None:
        """Load a table."""
        path = self.scratch / "seed.csv"
        path.write_text(csv_of(rows))
        load = TableLoad(
            table_id, (path,), tuple(columns), primary_key=tuple(key), incremental=incremental
        )
        await self.backend.tables.load(scope, [load])

    async def rows(
        self, table_id: str, scope: StorageScope = SCOPE
    ) -> list[tuple[str | None, ...]]:
        """All rows of a table, sorted."""
        _, rows = await self.backend.tables.preview(scope, table_id, ExportOptions(limit=1000))
        return sorted(rows, key=str)

    async def has_table(self, table_id: str, scope: StorageScope = SCOPE) -> bool:
        try:
            await self.backend.tables.table(scope, table_id)
        except NotFound:
            return False
        return True

    async def file(
        self, name: str, content: str, *tags: str, scope: StorageScope = SCOPE, **options: Any
    ) -> int:
        """Store a file; return its id."""
        path = self.scratch / "seed"
        path.write_text(content)
        upload = FileUpload(name=name, tags=tags, **options)
        return (await self.backend.files.upload(scope, upload, path)).id

    # -- input mapping -----------------------------------------------------------------------------

    async def stage_tables(
        self, *items: Mapping[str, Any], state: JobState | None = None, **options: Any
    ) -> InputTables:
        return await stage_tables(
            [InputTable.parse(dict(item)) for item in items],
            backend=self.backend,
            scope=options.pop("scope", SCOPE),
            folder=self.folder,
            state=state or JobState(),
            format=options.pop("format", "json"),
            report=self.reports,
            **options,
        )

    async def stage_files(
        self, *items: Mapping[str, Any], state: JobState | None = None, **options: Any
    ) -> InputFiles:
        return await stage_files(
            [InputFile.parse(dict(item)) for item in items],
            backend=self.backend,
            scope=options.pop("scope", SCOPE),
            folder=self.folder,
            state=state or JobState(),
            format=options.pop("format", "json"),
            report=self.reports,
            **options,
        )

    def read(self, name: str) -> str:
        """Content of a file in `in`."""
        return (self.folder.data / "in" / name).read_text()

    @property
    def inputs(self) -> list[str]:
        """Names of everything in `in/tables` and `in/files`."""
        base = self.folder.data / "in"
        return sorted(
            str(path.relative_to(base))
            for kind in ("tables", "files")
            for path in (base / kind).rglob("*")
        )

    # -- output mapping ----------------------------------------------------------------------------

    def write(self, name: str, content: str | bytes) -> None:
        """Leave a file in `out`."""
        path = self.folder.data / "out" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)

    async def store(
        self,
        *tables: Mapping[str, Any],
        files: Sequence[Mapping[str, Any]] = (),
        context: OutputContext = CONTEXT,
        key: str = "job-1-0",
        **options: Any,
    ) -> Outputs:
        return await store(
            [OutputTable.parse(dict(item)) for item in tables],
            [OutputFile.parse(dict(item)) for item in files],
            backend=options.pop("backend", self.backend),
            scope=SCOPE,
            folder=self.folder,
            context=context,
            key=key,
            report=self.reports,
            **options,
        )

    def clear(self) -> None:
        """A fresh folder and nothing told, as for a new job."""
        self.folder.create()
        self.reports.told.clear()


class Watched(MappingBackend):
    """A backend that counts calls, and does something before or after one of them."""

    def __init__(self, backend: MappingBackend) -> None:
        self._backend = backend
        self.calls: list[tuple[str, tuple[Any, ...], Any]] = []
        self.before: dict[str, Any] = {}
        self.after: dict[str, Any] = {}
        self.together = True
        self.running = 0
        self.most = 0

    @property
    def loads_together(self) -> bool:
        return self.together

    @property
    def tables(self) -> TableBackend:
        return _Watch(self, self._backend.tables)  # type: ignore[return-value]

    @property
    def files(self) -> FileBackend:
        return _Watch(self, self._backend.files)  # type: ignore[return-value]


class _Watch:
    def __init__(self, owner: Watched, target: Any) -> None:
        self._owner = owner
        self._target = target

    def __getattr__(self, name: str) -> Any:
        if not inspect.iscoroutinefunction(getattr(self._target, name)):
            return getattr(self._target, name)

        async def call(*args: Any, **kwargs: Any) -> Any:
            owner = self._owner
            if name in owner.before:
                await owner.before[name](*args)
            owner.running += 1
            owner.most = max(owner.most, owner.running)
            try:
                result = await getattr(self._target, name)(*args, **kwargs)
            finally:
                owner.running -= 1
            owner.calls.append((name, args[1:], result))
            if name in owner.after:
                await owner.after[name](*args)
            return result

        return call


def csv_of(rows: Sequence[Sequence[str]]) -> str:
    text = io.StringIO()
    csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator="\n").writerows(rows)
    return text.getvalue()


def zipped(text: str) -> bytes:
    return gzip.compress(text.encode())


def values(metadata: Sequence[MetadataEntry], provider: str) -> dict[str, str]:
    """Metadata of one provider."""
    return {entry.key: entry.value for entry in metadata if entry.provider == provider}


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    backend = vaka_local.vaka_mapping_backend(f"local://{tmp_path}/storage")
    assert backend is not None
    folder = JobFolder(tmp_path / "job", owner=None)
    folder.create()
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    await backend.open()
    try:
        yield Desk(backend, folder, scratch)
    finally:
        await backend.aclose()
