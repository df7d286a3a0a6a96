"""The plugin surface: hooks, and the interfaces that plugins implement.

A hook is synchronous and answers one question, *who handles this?* It returns an object whose async
methods do the work, or None to pass. Hooks are called by name, so a plugin takes only the arguments
it needs. A plugin is a module or object with `@hookimpl` functions; it registers through the entry
point group `vaka`, or is handed to `Engine(plugins=[...])`.

The hook API is versioned by the distribution's major version.
"""

# ruff: noqa: ARG002 - a default needs less than what others do

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Collection,
    Mapping,
    Sequence,
)
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, TypeVar

import pluggy

from vaka.errors import InvalidInput, NotFound
from vaka.models.catalog import (
    Branch,
    Component,
    Configuration,
    ConfigurationMetadata,
    ConfigurationRow,
    ConfigurationVersion,
    Project,
    Role,
    State,
    Token,
    VaultVariable,
    Workspace,
)
from vaka.models.ciphers import CipherScope, Scope
from vaka.models.container import (
    ContainerExit,
    ContainerSpec,
    ContainerStatus,
    HostImage,
    ImageInfo,
    OutputChunk,
    RegistryAuth,
    RuntimeInfo,
    StreamName,
)
from vaka.models.event import Event
from vaka.models.storage import (
    Blob,
    BlockRef,
    BucketDetail,
    ColumnDefinition,
    DeleteWhere,
    ExportOptions,
    ExportResult,
    FileDetail,
    FileQuery,
    FileUpload,
    LoadResult,
    MetadataEntry,
    SnapshotDetail,
    StorageScope,
    TableDetail,
    TableLoad,
)

if TYPE_CHECKING:
    from datetime import datetime

__all__ = [
    "BlobBackend",
    "Catalog",
    "CipherReader",
    "ContainerRuntime",
    "EncryptionPurpose",
    "Encryptor",
    "FileBackend",
    "LocalEncryptor",
    "Login",
    "MappingBackend",
    "Purpose",
    "Resource",
    "SpecContext",
    "TableBackend",
    "hookimpl",
    "hookspec",
]

Login = Callable[[ImageInfo | None], Awaitable[RegistryAuth | None]]
"""Takes what the host has of an image, and gives credentials for its registry, or None."""

Purpose = Literal["run", "migrate"]
"""What a cipher is read for: to be used, or to be turned into another one."""
EncryptionPurpose = Literal["state", "job-config", "token"]
"""What the engine itself encrypts: state that a component leaves, a job's own configuration, tokens."""

PROJECT = "vaka"
_F = TypeVar("_F", bound=Callable[..., Any])
hookspec = pluggy.HookspecMarker(PROJECT)
_hookimpl = pluggy.HookimplMarker(PROJECT)


def hookimpl(function: _F) -> _F:
    """Mark a function as the implementation of the hook it is named after."""
    return _hookimpl(function)


class Resource(ABC):  # noqa: B024 - both methods have a useful default
    """Something the engine opens before use and closes when it ends. Both are called once."""

    async def open(self) -> None:  # noqa: B027 - most need nothing
        """Connect, create what is missing. Raise `ApplicationError` when it cannot work."""

    async def aclose(self) -> None:  # noqa: B027
        """Let go of everything. Must not fail; called also after a failed `open`."""


class TableBackend(ABC):
    """Tables of a project, addressed by `<stage>.<bucket>.<table>`.

    Every method raises `NotFound` for a table or bucket that is not there, `InvalidInput` for a
    column, name or option that cannot be, and `MappingFailed` for data that does not fit. A method
    that changes something has made it durable when it returns, and changed nothing when it raises,
    is cancelled, or the process dies in it.
    """

    @abstractmethod
    async def list_buckets(self, scope: StorageScope) -> list[BucketDetail]:
        """All buckets, sorted by id."""

    @abstractmethod
    async def bucket(self, scope: StorageScope, bucket_id: str) -> BucketDetail:
        """One bucket."""

    @abstractmethod
    async def create_bucket(
        self,
        scope: StorageScope,
        stage: str,
        name: str,
        *,
        description: str = "",
        display_name: str | None = None,
        color: str | None = None,
    ) -> BucketDetail:
        """A new bucket `<stage>.c-<name>`; `Conflict` when it is there, or its display name is taken.

        A display name or a colour is given only to a backend that `has_display_names`.
        """

    async def update_bucket(
        self,
        scope: StorageScope,
        bucket_id: str,
        *,
        display_name: str | None = None,
        color: str | None = None,
    ) -> BucketDetail:
        """Change what is not None; an empty colour is none.

        `Conflict` when another bucket of the stage has the display name. `InvalidInput` where buckets
        have neither (`MappingBackend.has_display_names`).
        """
        raise InvalidInput("Buckets here have no display names and no colours.", path="displayName")

    @abstractmethod
    async def drop_bucket(
        self, scope: StorageScope, bucket_id: str, *, force: bool = False
    ) -> None:
        """Remove a bucket; with tables in it only when `force`, else `Conflict`."""

    @abstractmethod
    async def list_tables(
        self, scope: StorageScope, bucket_id: str | None = None
    ) -> list[TableDetail]:
        """All tables, or those of one bucket, sorted by id."""

    @abstractmethod
    async def table(self, scope: StorageScope, table_id: str) -> TableDetail:
        """One table with its columns, key, counts, dates and metadata."""

    @abstractmethod
    async def create_table(
        self,
        scope: StorageScope,
        table_id: str,
        columns: Sequence[str],
        *,
        primary_key: Sequence[str] = (),
        definitions: Sequence[ColumnDefinition] = (),
        distribution_key: Sequence[str] = (),
        display_name: str | None = None,
    ) -> TableDetail:
        """A new empty table in an existing bucket; `Conflict` when it is there.

        With `definitions` it is a typed one, and its columns that they do not name take text. A display
        name is given only to a backend that `has_display_names`.
        """

    async def update_table(
        self, scope: StorageScope, table_id: str, *, display_name: str
    ) -> TableDetail:
        """Give a table another display name.

        `Conflict` when another table of the bucket has it. `InvalidInput` where tables have none
        (`MappingBackend.has_display_names`).
        """
        raise InvalidInput("Tables here have no display names.", path="displayName")

    async def swap_tables(
        self,
        scope: StorageScope,
        table_id: str,
        other_id: str,
        *,
        import_key: str | None = None,
    ) -> None:
        """Exchange two tables: each has the other's rows, columns, key, dates and metadata.

        Names stay where they are, and an alias shows what now has its table's name. An `import_key`
        that the first table remembers makes it a no-op. `InvalidInput` where it cannot be.
        """
        raise InvalidInput("Tables here cannot be swapped.", path="targetTableId")

    async def create_alias(self, scope: StorageScope, table_id: str, source_id: str) -> TableDetail:
        """A new table in an existing bucket that shows another one and can only be read.

        `Conflict` when it is there. A table cannot be dropped while an alias shows it. `InvalidInput`
        where there are no aliases.
        """
        raise InvalidInput("Tables here have no aliases.", path="source_id")

    @abstractmethod
    async def drop_table(self, scope: StorageScope, table_id: str) -> None:
        """Remove a table with its data."""

    @abstractmethod
    async def export(
        self, scope: StorageScope, table_id: str, options: ExportOptions, target: Path
    ) -> ExportResult:
        """Write the rows asked for to the new file `target`, from one consistent moment.

        CSV is RFC 4180 in UTF-8, every field quoted, lines ended by LF (mapping.md section 10.5).
        Parquet goes into the new folder `target`, as one file or several; `InvalidInput` where there is
        none. CSV may do so where `options.slice_bytes` is given: in files of whole rows.
        """

    @abstractmethod
    async def preview(
        self, scope: StorageScope, table_id: str, options: ExportOptions
    ) -> tuple[tuple[str, ...], list[tuple[str | None, ...]]]:
        """Column names and rows as text, at most `options.limit` (100 when None)."""

    @abstractmethod
    async def load(self, scope: StorageScope, loads: Sequence[TableLoad]) -> list[LoadResult]:
        """Load one table or several: all of them land, or none (see `TableLoad`)."""

    @abstractmethod
    async def delete_rows(
        self, scope: StorageScope, table_id: str, where: DeleteWhere | None
    ) -> int:
        """Delete the rows that match, all with None; return how many."""

    @abstractmethod
    async def add_columns(
        self,
        scope: StorageScope,
        table_id: str,
        columns: Sequence[str],
        *,
        definitions: Sequence[ColumnDefinition] = (),
    ) -> TableDetail:
        """Add columns at the end; existing rows get empty values, in a typed table the default."""

    @abstractmethod
    async def drop_column(self, scope: StorageScope, table_id: str, column: str) -> TableDetail:
        """Remove a column that is not part of the key."""

    @abstractmethod
    async def set_primary_key(
        self, scope: StorageScope, table_id: str, columns: Sequence[str]
    ) -> TableDetail:
        """Replace the key, by none when empty; `MappingFailed` when values are not unique."""

    @abstractmethod
    async def write_metadata(
        self,
        scope: StorageScope,
        object_id: str,
        provider: str,
        metadata: Mapping[str, str],
        columns: Mapping[str, Mapping[str, str]] | None = None,
    ) -> None:
        """Set metadata keys of a bucket or table, and of a table's columns.

        A key that the provider has said before keeps its entry's id.
        """

    async def delete_metadata(
        self, scope: StorageScope, object_id: str, entry_id: str, *, column: str | None = None
    ) -> None:
        """Remove one entry of what is said of a bucket or table, or of a table's column.

        `NotFound` when that has no such entry. `InvalidInput` where entries stay.
        """
        raise InvalidInput("Metadata here cannot be deleted, only replaced.", path="id")

    async def update_column(
        self, scope: StorageScope, table_id: str, definition: ColumnDefinition
    ) -> TableDetail:
        """Change a typed column's length, and whether it must have values; its type stays.

        `MappingFailed` when there are values that do not fit. `InvalidInput` for a column without a
        type, or where there are none.
        """
        raise InvalidInput("Tables here have no types.", path="definition")

    async def create_snapshot(
        self,
        scope: StorageScope,
        table_id: str,
        *,
        description: str = "",
        import_key: str | None = None,
    ) -> SnapshotDetail:
        """Keep a copy of a table as it is, until it is deleted.

        A second call with the same `import_key` makes none, and returns the first one's. `InvalidInput`
        where there are no snapshots (`MappingBackend.has_snapshots`).
        """
        raise InvalidInput("There are no snapshots here.", path="snapshot")

    async def list_snapshots(
        self, scope: StorageScope, table_id: str, *, limit: int = 20, offset: int = 0
    ) -> list[SnapshotDetail]:
        """Snapshots that were made of a table, newest first."""
        await self.table(scope, table_id)
        return []

    async def snapshot(self, scope: StorageScope, snapshot_id: str) -> SnapshotDetail:
        """One snapshot."""
        raise _no_snapshot(snapshot_id)

    async def delete_snapshot(self, scope: StorageScope, snapshot_id: str) -> None:
        """Remove a snapshot. Tables that were made from it stay."""
        raise _no_snapshot(snapshot_id)

    async def restore_snapshot(
        self,
        scope: StorageScope,
        snapshot_id: str,
        table_id: str,
        *,
        display_name: str | None = None,
    ) -> TableDetail:
        """A new table of a snapshot, in an existing bucket; `Conflict` when it is there.

        It has all that the snapshot has. To who asks what has changed, its rows are new.
        """
        raise _no_snapshot(snapshot_id)

    def typed(self, definition: ColumnDefinition) -> ColumnDefinition:
        """The definition as this backend keeps it: its own word for the type, and the base type of it.

        Two definitions of the same type have the same words; a length that was not given stays so.

        Raises:
            InvalidInput: there is no such type, or no types at all, which is what the default says.
        """
        raise InvalidInput(
            f'The column "{definition.name}" cannot have a type: this Storage has tables without '
            "types only.",
            path="definitions",
        )


def _no_snapshot(snapshot_id: str) -> NotFound:
    return NotFound(f"Snapshot {snapshot_id} not found", kind="snapshot", id=snapshot_id)


class BlobBackend(ABC):
    """The content of files as clients send and fetch it: in blobs, addressed by file and name.

    A file that is not sliced is one blob, whose name is empty. A slice is a blob with a name of its own;
    which blobs are slices, and in which order, `arrange` says. Each method raises `NotFound` of the kind
    `file` for a file that is not there, and of the kind `blob` for such a blob.

    A blob is never half there: it appears, and is replaced, as a whole and durably. An open one stays
    readable whatever becomes of it.
    """

    @abstractmethod
    async def list_blobs(self, scope: StorageScope, file_id: int) -> list[Blob]:
        """All blobs of a file, by name."""

    @abstractmethod
    async def blob(self, scope: StorageScope, file_id: int, name: str) -> Blob:
        """What is known of one."""

    @abstractmethod
    async def open(self, scope: StorageScope, file_id: int, name: str) -> tuple[Blob, BinaryIO]:
        """One, and its content, unbuffered, which the caller closes."""

    @abstractmethod
    async def put(
        self,
        scope: StorageScope,
        file_id: int,
        name: str,
        source: Path,
        *,
        overwrite: bool = True,
    ) -> Blob:
        """Make `source`, which may be taken away, a blob; `Conflict` when there is one already.

        The empty blob of a file that is not sliced completes it. Blocks that were staged for the blob
        are forgotten. `InvalidInput` for a name that a file's blob cannot have.
        """

    @abstractmethod
    async def stage(
        self, scope: StorageScope, file_id: int, name: str, block: str, source: Path
    ) -> None:
        """Keep `source`, which may be taken away, as a block, in place of an earlier one of that id.

        Blocks survive a restart. Those that nobody commits go after a day at the earliest.
        """

    @abstractmethod
    async def commit(
        self,
        scope: StorageScope,
        file_id: int,
        name: str,
        blocks: Sequence[BlockRef],
        *,
        overwrite: bool = True,
    ) -> Blob:
        """Make a blob of blocks, in this order; what else was staged for it is forgotten.

        To commit the same once more changes nothing. `InvalidInput` whose path is `blocks` for a block
        that is not there: then nothing has changed.
        """

    @abstractmethod
    async def remove(self, scope: StorageScope, file_id: int, name: str) -> None:
        """Remove one. A file that was complete by it is not uploaded any more."""

    @abstractmethod
    async def arrange(self, scope: StorageScope, file_id: int, slices: Sequence[str]) -> FileDetail:
        """Say which blobs, in which order, are the slices of a sliced file, which completes it.

        Names are taken as they are. One that is no blob of the file is told who reads the file
        (`InvalidInput`), and nothing of it is read then.
        """


class FileBackend(ABC):
    """Files of a project, addressed by a growing integer id."""

    @property
    def takes_uploads(self) -> bool:
        """Whether `prepare` and the writing half of `blobs` work; else they are refused."""
        return False

    @property
    def blobs(self) -> BlobBackend:
        """The content of files in parts. The default reads by `reading`, and refuses to write."""
        from vaka._blobs import WholeFiles  # noqa: PLC0415 - needs this module

        return WholeFiles(self)

    @abstractmethod
    async def list_files(self, scope: StorageScope, query: FileQuery) -> list[FileDetail]:
        """Files that match, newest first. `InvalidInput` for a query that cannot be parsed."""

    @abstractmethod
    async def file(self, scope: StorageScope, file_id: int) -> FileDetail:
        """One file; `NotFound` when it is not there or has expired."""

    @abstractmethod
    async def upload(
        self,
        scope: StorageScope,
        upload: FileUpload,
        source: Path | Sequence[Path],
        *,
        import_key: str | None = None,
        move: bool = False,
    ) -> FileDetail:
        """Store a file, or the slices of one. Durable and listed when it returns.

        A second upload with the same `import_key` stores nothing and returns the first one's file.
        `move`: the sources are nobody else's, and may be taken away instead of copied, also by an
        upload that fails later.
        """

    async def prepare(self, scope: StorageScope, upload: FileUpload) -> FileDetail:
        """A new file whose content comes by `blobs`; listed at once."""
        raise InvalidInput("This Storage takes files only together with their content.")

    @abstractmethod
    async def download(self, scope: StorageScope, file_id: int, target: Path) -> FileDetail:
        """Write a file's bytes to the new file `target`, a sliced one's to the new folder `target`.

        `InvalidInput` with the code `storage.fileNotUploaded` when its content has not come yet.
        """

    @asynccontextmanager
    async def reading(self, scope: StorageScope, file_id: int) -> AsyncGenerator[list[Path], None]:
        """A file's content to be read in place: one path, or its slices' in order.

        Nobody may change what is there, and it is there until the block is left, whatever becomes of
        the file. The default downloads to a temporary folder; errors are those of `download`.
        """
        with TemporaryDirectory(prefix="vaka-reading-") as folder:
            target = Path(folder) / "content"
            detail = await self.download(scope, file_id, target)
            yield [target / name for name in detail.slices] if detail.is_sliced else [target]

    @abstractmethod
    async def delete(self, scope: StorageScope, file_id: int) -> None:
        """Remove a file."""

    @abstractmethod
    async def add_tags(self, scope: StorageScope, file_id: int, tags: Sequence[str]) -> None:
        """Add tags; those it has already are no error."""

    @abstractmethod
    async def remove_tags(self, scope: StorageScope, file_id: int, tags: Sequence[str]) -> None:
        """Remove tags; those it does not have are no error."""


class MappingBackend(Resource):
    """What input mapping reads from and output mapping writes to.

    It knows projects by their id only: nothing of tokens, components or configurations.
    """

    @property
    @abstractmethod
    def tables(self) -> TableBackend: ...

    @property
    @abstractmethod
    def files(self) -> FileBackend: ...

    @property
    def backend_name(self) -> str:
        """Word for the table backend in bucket and table documents, and for its types in manifests."""
        return "snowflake"

    @property
    def has_types(self) -> bool:
        """Whether tables can be typed; else `definitions` are refused."""
        return False

    @property
    def has_display_names(self) -> bool:
        """Whether buckets and tables can be shown by other names than they have, and in a colour."""
        return False

    @property
    def has_snapshots(self) -> bool:
        """Whether copies of tables can be kept, and tables be made from them."""
        return False

    @property
    def loads_together(self) -> bool:
        """Whether `tables.load` can load several tables in one transaction."""
        return True

    @property
    def says_with_loads(self) -> bool:
        """Whether `tables.load` writes `TableLoad.metadata`; else `tables.write_metadata` is called."""
        return False

    @property
    def keeps_branches_apart(self) -> bool:
        """Whether each branch in a `StorageScope` has tables and files of its own.

        Names and file ids are then looked up in that branch only. Projects with the feature
        `storage-branches` need it; for all others, and when False, no scope has a branch.
        """
        return False

    async def drop_branch(self, project: str, branch: str) -> None:
        """Remove all tables and files of a branch; nothing when there are none."""


class Catalog(Resource):
    """Projects, tokens, components, configurations with rows and versions, and state.

    `NotFound` for what is not there, `Conflict` for what is there already, durable on return.

    What takes a `branch` means the default one by None. A development branch shows the configurations
    of the default branch until they are changed in it; from then on it has its own. A catalog without
    development branches is never asked for one, and can leave it at the default one's.

    The methods that are not abstract say that a catalog does without, or do it by the others.
    """

    @abstractmethod
    async def projects(self) -> list[Project]: ...

    @abstractmethod
    async def project(self, project: str) -> Project: ...

    @abstractmethod
    async def create_project(
        self, name: str, *, features: Sequence[str] = (), limits: Mapping[str, Any] | None = None
    ) -> Project: ...

    @abstractmethod
    async def update_project(
        self,
        project: str,
        *,
        name: str | None = None,
        features: Sequence[str] | None = None,
        limits: Mapping[str, Any] | None = None,
    ) -> Project:
        """Replace what is given: all of the features, or all of the limits. Jobs see it at once."""

    async def branches(self, project: str) -> list[Branch]:
        """The default branch, and then the development branches by id.

        A catalog without development branches has the default one only, called `default`.
        """
        found = await self.project(project)
        return [Branch("default", "Main", is_default=True, created=found.created)]

    async def create_branch(
        self, project: str, name: str, *, description: str = "", token: Token | None = None
    ) -> Branch:
        """A new development branch; `Conflict` when the project has one of this name."""
        raise InvalidInput("This catalog has no development branches.", path="branch")

    async def update_branch(
        self,
        project: str,
        branch: str,
        *,
        name: str | None = None,
        description: str | None = None,
    ) -> Branch:
        """Change the name or the description of a branch; `Conflict` when another has this name."""
        raise InvalidInput("This catalog has no development branches.", path="branch")

    async def delete_branch(self, project: str, branch: str) -> None:
        """Remove a development branch with its configurations, states and variables of the vault.

        `InvalidInput` for the default one. What the branch has in Storage is the caller's business
        (`MappingBackend.drop_branch`).
        """
        raise InvalidInput("This catalog has no development branches.", path="branch")

    @abstractmethod
    async def verify_token(self, secret: str) -> Token:
        """The token of this secret; `AuthenticationFailed` when unknown, expired or revoked."""

    @abstractmethod
    async def create_token(
        self,
        project: str,
        description: str,
        role: Role,
        *,
        expires: datetime | None = None,
        component_access: Sequence[str] | None = None,
        bucket_permissions: Mapping[str, str] | None = None,
        can_manage_tokens: bool = True,
        can_read_all_file_uploads: bool = True,
        can_purge_trash: bool = True,
        creator: Token | None = None,
    ) -> tuple[Token, str]:
        """A new token and its secret, which is kept nowhere and shown only now."""

    @abstractmethod
    async def tokens(self, project: str) -> list[Token]: ...

    @abstractmethod
    async def token(self, project: str, token_id: str) -> Token:
        """One token, also when it has expired; `NotFound` when the project has none of this id."""

    @abstractmethod
    async def update_token(self, project: str, token_id: str, changes: Mapping[str, Any]) -> Token:
        """Change some of `description`, `expires` and the limits, by the names of `create_token`."""

    @abstractmethod
    async def refresh_token(self, project: str, token_id: str) -> tuple[Token, str]:
        """The token and a new secret; the one that it had is refused from now on."""

    @abstractmethod
    async def revoke_token(self, project: str, token_id: str) -> None: ...

    @abstractmethod
    async def put_component(self, document: Mapping[str, Any]) -> Component:
        """Register a component, or replace it: a document with `id`, `type`, `name`, `data`, ..."""

    @abstractmethod
    async def component(self, component_id: str) -> Component: ...

    @abstractmethod
    async def components(self) -> list[Component]: ...

    @abstractmethod
    async def delete_component(self, component_id: str) -> None: ...

    @abstractmethod
    async def configuration(
        self,
        project: str,
        component_id: str,
        config_id: str,
        *,
        version: int | None = None,
        branch: str | None = None,
    ) -> Configuration:
        """One configuration with its rows, the current version or an older one."""

    @abstractmethod
    async def configurations(
        self, project: str, component_id: str | None = None, *, branch: str | None = None
    ) -> list[Configuration]: ...

    @abstractmethod
    async def create_configuration(
        self,
        project: str,
        component_id: str,
        name: str,
        *,
        config_id: str | None = None,
        description: str = "",
        configuration: Any = None,
        is_disabled: bool = False,
        state: Any = None,
        change_description: str = "",
        token: Token | None = None,
        branch: str | None = None,
    ) -> Configuration:
        """A new configuration, or one of that id out of the trash: its next version, without rows."""

    @abstractmethod
    async def update_configuration(
        self,
        project: str,
        component_id: str,
        config_id: str,
        changes: Mapping[str, Any],
        *,
        change_description: str = "",
        expected_version: int | None = None,
        token: Token | None = None,
        branch: str | None = None,
    ) -> Configuration:
        """Set any of `name`, `description`, `configuration`, `is_disabled`, `rows_sort_order`.

        A new version only when something really changed; `Conflict` when the current version is not
        `expected_version`.
        """

    @abstractmethod
    async def delete_configuration(
        self,
        project: str,
        component_id: str,
        config_id: str,
        *,
        token: Token | None = None,
        branch: str | None = None,
    ) -> None:
        """Move to the trash; a second time: remove for good."""

    @abstractmethod
    async def configuration_versions(
        self,
        project: str,
        component_id: str,
        config_id: str,
        *,
        limit: int | None = None,
        offset: int = 0,
        branch: str | None = None,
    ) -> list[ConfigurationVersion]:
        """Versions, newest first: all, or `limit` of them after the `offset` newest."""

    @abstractmethod
    async def rollback_configuration(
        self,
        project: str,
        component_id: str,
        config_id: str,
        version: int,
        *,
        change_description: str = "",
        token: Token | None = None,
        branch: str | None = None,
    ) -> Configuration:
        """A new version with the content and rows of an older one; state stays."""

    async def copy_configuration(
        self,
        project: str,
        component_id: str,
        config_id: str,
        version: int,
        *,
        name: str | None = None,
        description: str | None = None,
        change_description: str = "",
        token: Token | None = None,
        branch: str | None = None,
    ) -> Configuration:
        """A new configuration with the content and the rows that a version of another one has.

        Name and description are that version's, unless they are given. The copy has no state. Here it is
        made in steps; a catalog that can do it at once makes it version 1.
        """
        source = await self.configuration(
            project, component_id, config_id, version=version, branch=branch
        )
        change = change_description or f"Copied from configuration {config_id}, version {version}"
        made = await self.create_configuration(
            project,
            component_id,
            source.name if name is None else name,
            description=source.description if description is None else description,
            configuration=source.configuration,
            is_disabled=source.is_disabled,
            change_description=change,
            token=token,
            branch=branch,
        )
        for row in source.rows:
            await self.create_row(
                project,
                component_id,
                made.id,
                row_id=row.id,
                name=row.name,
                description=row.description,
                configuration=row.configuration,
                is_disabled=row.is_disabled,
                change_description=change,
                token=token,
                branch=branch,
            )
        return await self.configuration(project, component_id, made.id, branch=branch)

    async def deleted_configurations(
        self, project: str, component_id: str | None = None, *, branch: str | None = None
    ) -> list[Configuration]:
        """What is in the trash. A catalog that deletes for good at once has none, as here."""
        await self.configurations(project, component_id, branch=branch)
        return []

    async def restore_configuration(
        self,
        project: str,
        component_id: str,
        config_id: str,
        *,
        token: Token | None = None,
        branch: str | None = None,
    ) -> Configuration:
        """Take a configuration out of the trash: a new version, with the rows and state it had.

        `NotFound` when it is not in the trash.
        """
        raise NotFound(
            f"Configuration {config_id} not found in the trash", kind="configuration", id=config_id
        )

    @abstractmethod
    async def create_row(
        self,
        project: str,
        component_id: str,
        config_id: str,
        *,
        row_id: str | None = None,
        name: str = "",
        description: str = "",
        configuration: Any = None,
        is_disabled: bool = False,
        state: Any = None,
        change_description: str = "",
        token: Token | None = None,
        branch: str | None = None,
    ) -> ConfigurationRow: ...

    @abstractmethod
    async def update_row(
        self,
        project: str,
        component_id: str,
        config_id: str,
        row_id: str,
        changes: Mapping[str, Any],
        *,
        change_description: str = "",
        expected_version: int | None = None,
        token: Token | None = None,
        branch: str | None = None,
    ) -> ConfigurationRow:
        """Set any of `name`, `description`, `configuration`, `is_disabled`.

        A new version only when something really changed; `Conflict` when the row's current version
        is not `expected_version`.
        """

    @abstractmethod
    async def delete_row(
        self,
        project: str,
        component_id: str,
        config_id: str,
        row_id: str,
        *,
        change_description: str = "",
        token: Token | None = None,
        branch: str | None = None,
    ) -> None: ...

    async def row_versions(
        self,
        project: str,
        component_id: str,
        config_id: str,
        row_id: str,
        *,
        limit: int | None = None,
        offset: int = 0,
        branch: str | None = None,
    ) -> list[ConfigurationVersion]:
        """Versions of a row, newest first: all, or `limit` of them after the `offset` newest.

        Here they are looked up in the versions of the configuration.
        """
        found: dict[int, ConfigurationVersion] = {}
        versions = await self.configuration_versions(
            project, component_id, config_id, branch=branch
        )
        for each in versions:
            for row in each.rows:
                if row.id == row_id:
                    found[row.version] = ConfigurationVersion(
                        version=row.version,
                        created=each.created,  # in the end that of the oldest one that has it
                        change_description=row.change_description,
                        name=row.name,
                        description=row.description,
                        is_disabled=row.is_disabled,
                        creator_token_id=each.creator_token_id,
                        creator_token_description=each.creator_token_description,
                        configuration=row.configuration,
                        version_identifier=row.version_identifier,
                    )
        if not versions or all(row.id != row_id for row in versions[0].rows):
            raise NotFound(f"Row {row_id} not found", kind="row", id=row_id)
        newest_first = [found[number] for number in sorted(found, reverse=True)]
        return newest_first[offset : None if limit is None else offset + limit]

    async def row_version(
        self,
        project: str,
        component_id: str,
        config_id: str,
        row_id: str,
        version: int,
        *,
        branch: str | None = None,
    ) -> ConfigurationVersion:
        """One version of a row. Here it is looked up in all of them."""
        for each in await self.row_versions(
            project, component_id, config_id, row_id, branch=branch
        ):
            if each.version == version:
                return each
        raise NotFound(
            f"Version {version} of row {row_id} not found", kind="version", id=str(version)
        )

    async def rollback_row(
        self,
        project: str,
        component_id: str,
        config_id: str,
        row_id: str,
        version: int,
        *,
        change_description: str = "",
        token: Token | None = None,
        branch: str | None = None,
    ) -> ConfigurationRow:
        """Give a row the content of an older version; state stays. Here it is an ordinary change."""
        target = await self.row_version(
            project, component_id, config_id, row_id, version, branch=branch
        )
        return await self.update_row(
            project,
            component_id,
            config_id,
            row_id,
            {
                "name": target.name,
                "description": target.description,
                "configuration": target.configuration,
                "is_disabled": target.is_disabled,
            },
            change_description=change_description or f"Rollback to version {version}",
            token=token,
            branch=branch,
        )

    async def copy_row(
        self,
        project: str,
        component_id: str,
        config_id: str,
        row_id: str,
        version: int,
        *,
        target: str | None = None,
        change_description: str = "",
        token: Token | None = None,
        branch: str | None = None,
    ) -> ConfigurationRow:
        """A new row with the content of a version of another one, without a state.

        `target` is another configuration of the component to have it.
        """
        source = await self.row_version(
            project, component_id, config_id, row_id, version, branch=branch
        )
        return await self.create_row(
            project,
            component_id,
            target or config_id,
            name=source.name,
            description=source.description,
            configuration=source.configuration,
            is_disabled=source.is_disabled,
            change_description=(
                change_description
                or f"Copied from row {row_id} of configuration {config_id}, version {version}"
            ),
            token=token,
            branch=branch,
        )

    @abstractmethod
    async def state(
        self,
        project: str,
        component_id: str,
        config_id: str,
        row_id: str | None = None,
        *,
        branch: str | None = None,
    ) -> State:
        """The stored state of a configuration, or of one of its rows; an empty one has version 0.

        Each development branch has states of its own, empty at first; None is the default branch.
        """

    @abstractmethod
    async def put_state(
        self,
        project: str,
        component_id: str,
        config_id: str,
        row_id: str | None,
        value: Any,
        *,
        expected_version: int | None = None,
        key: str | None = None,
        branch: str | None = None,
    ) -> State:
        """Replace a state.

        `Conflict` when its version is not `expected_version`. A second call with the same `key`
        changes nothing and returns what is there.
        """

    async def states(
        self,
        project: str,
        configurations: Sequence[Configuration],
        *,
        branch: str | None = None,
    ) -> dict[tuple[str, str, str | None], State]:
        """States of configurations and their rows, by component, configuration and row.

        What is no longer there is left out. Here each of them is asked for.
        """
        found: dict[tuple[str, str, str | None], State] = {}
        for each in configurations:
            for row in (None, *(row.id for row in each.rows)):
                with suppress(NotFound):
                    found[each.component_id, each.id, row] = await self.state(
                        project, each.component_id, each.id, row, branch=branch
                    )
        return found

    async def metadata(
        self,
        project: str,
        *,
        component_id: str | None = None,
        config_id: str | None = None,
        branch: str | None = None,
    ) -> list[MetadataEntry]:
        """What is said of a configuration, or without one of a branch, in the order it was said.

        A catalog that keeps no metadata has none, as here.
        """
        if component_id is not None and config_id is not None:
            await self.configuration(project, component_id, config_id, branch=branch)
        return []

    async def put_metadata(
        self,
        project: str,
        values: Mapping[str, str],
        *,
        component_id: str | None = None,
        config_id: str | None = None,
        branch: str | None = None,
    ) -> list[MetadataEntry]:
        """Set keys of the metadata of a configuration or branch; return all there is then.

        A key that is there keeps its id.
        """
        raise InvalidInput("This catalog keeps no metadata.", path="metadata")

    async def delete_metadata(
        self,
        project: str,
        entry_id: str,
        *,
        component_id: str | None = None,
        config_id: str | None = None,
        branch: str | None = None,
    ) -> None:
        """Take an entry from the metadata of a configuration or branch; `NotFound` when it has none."""
        raise NotFound("The supplied metadata ID was not found", kind="metadata", id=entry_id)

    async def find_metadata(
        self,
        project: str,
        *,
        component_id: str | None = None,
        config_id: str | None = None,
        keys: Collection[str] | None = None,
        branch: str | None = None,
    ) -> list[ConfigurationMetadata]:
        """Configurations that have metadata, of these `keys` if any are given, and what they have of it.

        Here every configuration is asked.
        """
        found: list[ConfigurationMetadata] = []
        for each in await self.configurations(project, component_id, branch=branch):
            if config_id in {None, each.id}:
                entries = await self.metadata(
                    project, component_id=each.component_id, config_id=each.id, branch=branch
                )
                wanted = tuple(entry for entry in entries if keys is None or entry.key in keys)
                if wanted:
                    found.append(ConfigurationMetadata(each.component_id, each.id, wanted))
        return found

    async def workspaces(self, project: str, *, branch: str | None = None) -> list[Workspace]:
        """The workspaces that are on record, by id. A catalog that keeps none has none, as here."""
        await self.project(project)
        return []

    async def create_workspace(
        self,
        project: str,
        component_id: str,
        config_id: str,
        *,
        is_read_only: bool = True,
        key: str | None = None,
        token: Token | None = None,
        branch: str | None = None,
    ) -> Workspace:
        """Put a workspace of a configuration on record. There is no warehouse behind it.

        A second call with the same `key` returns the first one's workspace.
        """
        raise InvalidInput("This catalog keeps no workspaces.", path="workspace")

    async def delete_workspace(
        self, project: str, workspace_id: int, *, branch: str | None = None
    ) -> None:
        """Strike a workspace off the record; so does deleting its configuration for good."""
        raise NotFound(
            f"Workspace {workspace_id} not found", kind="workspace", id=str(workspace_id)
        )

    @abstractmethod
    async def vault_variables(
        self, project: str, *, branch: str | None = None
    ) -> list[VaultVariable]:
        """The variables that jobs in a branch see, sorted by name, values as they are kept.

        A branch's own take the place of the project's; None is the default branch.
        """

    @abstractmethod
    async def put_vault_variable(
        self,
        project: str,
        name: str,
        value: str,
        *,
        is_encrypted: bool = False,
        branch: str | None = None,
        expected_value: str | None = None,
    ) -> VaultVariable:
        """Set a variable. `InvalidInput` for a name that is not letters, digits, `_` and `-`.

        `Conflict` when there is an `expected_value`, and the variable has another one or none.

        Nothing keeps a secret in the clear: `InvalidInput` as well when `is_encrypted` and `value` is
        no cipher.
        """

    @abstractmethod
    async def delete_vault_variable(
        self, project: str, name: str, *, branch: str | None = None
    ) -> None:
        """Remove a variable of the project, or of one branch."""

    @abstractmethod
    async def oauth_credentials(
        self, project: str, component_id: str, credentials_id: str
    ) -> Mapping[str, Any]:
        """Credentials that somebody granted a component, as they are kept: secrets are ciphers."""

    @abstractmethod
    async def put_oauth_credentials(
        self,
        project: str,
        component_id: str,
        credentials_id: str,
        credentials: Mapping[str, Any],
        *,
        expected: Mapping[str, Any] | None = None,
    ) -> None:
        """Keep credentials, in place of any with this id.

        `Conflict` when there are `expected` ones, and others or none are there.

        Nothing keeps a secret in the clear: `InvalidInput` when a value under a `#` key is no cipher.
        """

    async def oauth_credentials_ids(self, project: str) -> list[tuple[str, str]]:
        """Component and id of all credentials of a project. A catalog that cannot tell has none."""
        return []

    @abstractmethod
    async def delete_oauth_credentials(
        self, project: str, component_id: str, credentials_id: str
    ) -> None:
        """Forget credentials."""


class ContainerRuntime(Resource):
    """Runs containers. Names are the identity: the engine can ask for one after a restart."""

    @abstractmethod
    async def info(self) -> RuntimeInfo:
        """What answers; `RuntimeUnavailable` when nothing does."""

    @abstractmethod
    async def prepare_image(
        self,
        reference: str,
        *,
        digest: str | None = None,
        login: Login | None = None,
        progress: Callable[[Mapping[str, Any]], None] | None = None,
    ) -> ImageInfo:
        """Make sure that an image is on the host, by one try; `ImageUnavailable` when it is not.

        With the `digest` it already has, nothing is pulled; without, the registry is asked whether
        the tag has moved. Of a digest the hex part is enough. An image that only the host knows is
        used as it is. `login` is called before a registry is asked, and not otherwise; what it
        raises comes out.
        """

    async def images(
        self,
        ids: Collection[str],
        labels: Mapping[str, str],
    ) -> list[HostImage]:
        """What is on the host of the images with these ids, and all that carry these labels.

        A runtime that keeps no images says so by an empty list, as here.
        """
        return []

    async def remove_image(self, name: str) -> bool:
        """Take a reference from an image, or a nameless one by its id, never by force.

        The image goes with its last reference. False when it is in use or not there.
        """
        return False

    @abstractmethod
    async def create(self, spec: ContainerSpec) -> ContainerStatus:
        """Create a container without starting it.

        Idempotent by name: what an earlier, unanswered try has made is returned. `ApplicationError`
        with the runtime's words when it refuses; `ImageUnavailable` when its image is not on the host
        any more, and then the image is prepared and the container created once more.
        """

    @abstractmethod
    async def start(self, name: str) -> None:
        """Start a created container; nothing when it runs. `ApplicationError` when it cannot be.

        `ContainerLost` when it is gone, with `never_started` where it certainly did not run: it is
        created again, then.
        """

    @abstractmethod
    async def find(self, name: str) -> ContainerStatus | None:
        """The container of this name, or None."""

    @abstractmethod
    async def list_containers(self, labels: Mapping[str, str]) -> list[ContainerStatus]:
        """All containers, in any phase, that carry all these labels."""

    @abstractmethod
    def output(
        self, name: str, *, skip: Mapping[StreamName, int] | None = None
    ) -> AbstractAsyncContextManager[AsyncIterator[OutputChunk]]:
        """What a container prints, from its first byte to its end, less `skip` bytes a stream.

        May be entered before `start`, and then nothing is missed; on a running or ended container it
        tells what was printed so far and goes on. Reading slowly slows the container, and loses
        nothing. Raises `RuntimeUnavailable` when the connection breaks.
        """

    async def host_address(self, network: str) -> str | None:
        """Address at which a container in `network` reaches the engine; None when it cannot.

        A component that logs over the network is told it. Without one, the log is what it prints.
        """
        return None

    def host_owner(self, user: int, group: int) -> tuple[int, int]:
        """Who a container's `user` and `group` are on the host, in numbers: the owner of its folders.

        Asked after `open`. The same ones, unless the runtime gives containers a namespace of users.
        """
        return user, group

    @abstractmethod
    async def wait(self, name: str) -> ContainerExit:
        """Wait for a container's end. `ContainerLost` when there is no such container."""

    @abstractmethod
    async def stop(self, name: str, *, grace: float) -> None:
        """Ask a container to end, kill it after `grace` seconds. Nothing when it is not running."""

    @abstractmethod
    async def remove(self, name: str) -> None:
        """Kill if needed and remove, and return when it is verified gone."""

    async def tidy(self) -> None:
        """Let go of what is kept for containers to come and was not used lately.

        Called at every `EngineConfig.reconcile_interval`. `RuntimeUnavailable` when nothing answers.
        """


class Encryptor(ABC):
    """A key provider: wraps and unwraps data keys in a scope (encryption.md section 10.6).

    It sees data keys, so installing one is a matter of trust. `Resource` it is not: what it needs it
    opens when it is first used.
    """

    @property
    @abstractmethod
    def name(self) -> str:
        """What settings and messages call it; unique."""

    @property
    @abstractmethod
    def code(self) -> int:
        """The byte that stands for it in ciphers; unique. 0xF0 to 0xFF are for third parties."""

    @abstractmethod
    async def wrap(self, data_key: bytes, scope: CipherScope, header: bytes) -> tuple[str, bytes]:
        """The id of the key used, and the data key wrapped with it: 1 to 4096 bytes.

        A key id has 1 to 64 of `A-Z a-z 0-9 . _ -`. `header` is the first four bytes of the cipher,
        `scope.encoded` all it is bound to; a provider that can authenticates both, and the key id.
        """

    @abstractmethod
    async def unwrap(self, key_id: str, wrapped: bytes, scope: CipherScope, header: bytes) -> bytes:
        """The data key, 32 bytes.

        Raises:
            CipherRefused: no such key (`unknown_key`), or not wrapped in this scope (`scope`).
            ApplicationError: the provider does not answer, or is set up wrongly.
        """

    @abstractmethod
    async def check(self) -> None:
        """Raise `ApplicationError` when keys cannot be used now."""

    async def aclose(self) -> None:  # noqa: B027 - most need nothing
        """Let go of everything. Must not fail."""


class LocalEncryptor(Encryptor):
    """A key provider that answers at once, from memory: it is asked without any task switch."""

    @abstractmethod
    def wrap_now(self, data_key: bytes, scope: CipherScope, header: bytes) -> tuple[str, bytes]:
        """As `wrap`."""

    @abstractmethod
    def unwrap_now(self, key_id: str, wrapped: bytes, scope: CipherScope, header: bytes) -> bytes:
        """As `unwrap`."""

    def wrap_all(
        self, data_keys: Sequence[bytes], scope: CipherScope, header: bytes
    ) -> list[tuple[str, bytes]]:
        """As `wrap`, for each of several data keys. Worth having where the scope costs something."""
        return [self.wrap_now(each, scope, header) for each in data_keys]

    def unwrapper(self, key_id: str, scope: CipherScope, header: bytes) -> Callable[[bytes], bytes]:
        """What does as `unwrap` for all wrapped keys of one document that have all this in common."""
        return lambda wrapped: self.unwrap_now(key_id, wrapped, scope, header)

    async def wrap(self, data_key: bytes, scope: CipherScope, header: bytes) -> tuple[str, bytes]:
        return self.wrap_now(data_key, scope, header)

    async def unwrap(self, key_id: str, wrapped: bytes, scope: CipherScope, header: bytes) -> bytes:
        return self.unwrap_now(key_id, wrapped, scope, header)


class CipherReader(ABC):
    """Reads ciphers that the engine does not make: old ones, or those of a key service."""

    @property
    @abstractmethod
    def name(self) -> str:
        """What messages call it; unique."""

    @property
    @abstractmethod
    def claims(self) -> Mapping[str, str]:
        """What it reads: for each prefix, what the bodies begin with (nothing: all of them).

        The prefix is one of `vaka.models.ciphers.PREFIXES`, or empty for values without any. No two
        readers may claim the same.
        """

    @abstractmethod
    async def read(self, body: str, scope: CipherScope, purpose: Purpose) -> bytes:
        """What a cipher holds; `body` is what comes after the prefix, `scope.prefix`.

        Raises:
            CipherRefused: the body is broken, of another scope, or may not be read for `purpose`.
            ApplicationError: a key service does not answer, or is set up wrongly.
        """

    async def check(self) -> None:  # noqa: B027 - most need nothing
        """Raise `ApplicationError` when ciphers cannot be read now."""

    async def aclose(self) -> None:  # noqa: B027 - most need nothing
        """Let go of everything. Must not fail."""


@dataclass(frozen=True, slots=True)
class SpecContext:
    """What a container is for, as `vaka_container_spec` is told."""

    job_id: int
    project: str
    component: str
    kind: Literal["before", "main", "after", "action"]
    features: tuple[str, ...]


@hookspec(firstresult=True)
def vaka_mapping_backend(url: str) -> MappingBackend | None:
    """The mapping backend for this URL, not opened yet, or None to pass.

    Called once an engine, while it opens. The first plugin that answers has it.
    """


@hookspec(firstresult=True)
def vaka_catalog(url: str) -> Catalog | None:
    """The catalog for this URL, not opened yet, or None to pass. Called once an engine."""


@hookspec(firstresult=True)
def vaka_container_runtime(url: str) -> ContainerRuntime | None:
    """The container runtime for this URL, not opened yet, or None to pass. Called once an engine.

    Plugins are asked before the engine's own runtime for `docker://`.
    """


@hookspec
def vaka_encryptors(settings: Mapping[str, Any]) -> list[Encryptor]:  # type: ignore[empty-body]
    """Key providers, none or several. Called once an engine, while it opens, and then checked.

    Names and codes must be unique. `settings` are those of the engine, by name.
    """


@hookspec
def vaka_cipher_readers(settings: Mapping[str, Any]) -> list[CipherReader]:  # type: ignore[empty-body]
    """Readers of foreign ciphers, none or several. Called once an engine, while it opens.

    Names and claims must be unique. `settings` are those of the engine, by name.
    """


@hookspec
def vaka_secret_known(value: str) -> list[str]:  # type: ignore[empty-body]
    """More texts that would give this secret away, to be hidden like it.

    Called for each secret of a document that was decrypted. It must not keep the value.
    """


@hookspec(firstresult=True)
def vaka_scope_for(purpose: EncryptionPurpose, scope: Scope) -> str | None:
    """The family of `vaka.models.ciphers.FAMILIES` to encrypt in for a purpose, or None to pass.

    Called each time the engine itself encrypts. A family that binds an id which `scope` lacks is an
    error.
    """


@hookspec(firstresult=True)
def vaka_registry_auth(reference: str) -> RegistryAuth | None:
    """Credentials for one pull of this image reference, or None to pass. Called before each pull."""


@hookspec
def vaka_container_spec(spec: ContainerSpec, context: SpecContext) -> ContainerSpec | None:
    """The spec, changed, or None to leave it. Raise `UserError` to refuse the container.

    Called for each container before it is created: plugins handed to the engine first, the last of
    them before the others, each with what the one before it returned.
    """


@hookspec
def vaka_job_event(job_id: int, event: Event) -> None:
    """Observe an event. Runs in a worker thread after the event is stored.

    What it raises is logged and goes no further. It is given a few seconds; a thread that takes
    longer is left to itself, and the job goes on.
    """


@hookspec
def vaka_server_routes(app: Any) -> None:
    """Add routes to the server's application (a Quart app). Called once, before it serves."""


@hookspec
def vaka_cli(app: Any) -> None:
    """Add commands to the `vaka` command (a Typer app). Called once, before it parses."""
