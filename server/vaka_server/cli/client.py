"""What the command line needs of an installation, whichever way it is reached.

Answers are the documents of the API (`vaka_server.documents`) and errors those of `vaka.errors`, so that
a command behaves alike on a server and on the embedded engine.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from vaka.models.event import Event

Document = dict[str, Any]
Owner = tuple[str, str]
"""Component and configuration that metadata is of."""
Progress = Callable[[int, int | None], None]
"""Told how many bytes were moved, and of how many where that is known."""


@dataclass(frozen=True, slots=True)
class Run:
    """What is to run."""

    component: str
    body: Document
    """The request's body (runner.md section 1.6.1)."""
    tag: str | None = None
    key: str | None = None
    """A second try with the same key gets the first one's job."""
    mode: Literal["run", "debug"] = "run"


@dataclass(frozen=True, slots=True)
class Act:
    """Which synchronous action is to run."""

    component: str
    action: str
    body: Document
    """The request's body (runner.md section 1.10)."""


@dataclass(frozen=True, slots=True)
class Load:
    """How a CSV file goes into a table."""

    table: str
    path: Path
    incremental: bool = False
    primary_key: tuple[str, ...] | None = None
    columns: tuple[str, ...] = ()
    delimiter: str = ","
    enclosure: str = '"'


@dataclass(frozen=True, slots=True)
class Select:
    """Which rows and columns of a table."""

    table: str
    columns: tuple[str, ...] = ()
    where_column: str | None = None
    where_values: tuple[str, ...] = ()
    where_operator: str = "eq"
    changed_since: str | None = None
    changed_until: str | None = None
    limit: int | None = None
    gzip: bool = False


@dataclass(frozen=True, slots=True)
class JobFilter:
    """Which jobs to list."""

    component: str | None = None
    config: str | None = None
    statuses: tuple[str, ...] = ()
    since: str | None = None
    limit: int = 20
    offset: int = 0
    query: str | None = None
    """In the query language of the queue."""


@dataclass(frozen=True, slots=True)
class NewToken:
    description: str
    role: str
    expires_in: int | None = None
    component_access: tuple[str, ...] | None = None
    bucket_permissions: Mapping[str, str] | None = None
    """Bucket id to `read` or `write`."""


@dataclass(frozen=True, slots=True)
class AuditFilter:
    """Which entries of the audit log to show."""

    kind: str | None = None
    token: str | None = None
    since: str | None = None
    everything: bool = False
    """Of all projects."""
    limit: int = 100


@dataclass(frozen=True, slots=True)
class Upload:
    path: Path
    name: str
    tags: tuple[str, ...] = ()
    is_permanent: bool = False


@dataclass(frozen=True, slots=True)
class Sealing:
    """What is to be encrypted or migrated, and for where."""

    ids: Mapping[str, str]
    """By the names of the request's parameters."""
    body: bytes
    form: Literal["text", "json"]


@dataclass(frozen=True, slots=True)
class ProjectChange:
    """What is to be different about a project."""

    features: tuple[str, ...] = ()
    """To be added."""
    without: tuple[str, ...] = ()
    """Features to be taken away."""
    limits: Mapping[str, Any] = field(default_factory=dict)
    """To be set, or with None to be taken away."""


class Client(ABC):
    """An installation. Use it with `async with`."""

    @property
    @abstractmethod
    def is_embedded(self) -> bool:
        """Whether jobs run in this very process, and end with it."""

    # jobs
    @abstractmethod
    async def run(self, wanted: Run) -> Document: ...
    @abstractmethod
    async def act(self, wanted: Act) -> Any:
        """What a synchronous action answers, once nothing of it is left."""

    @abstractmethod
    async def job(self, job_id: int) -> Document:
        """A job with its stages and cause."""

    @abstractmethod
    async def jobs(self, wanted: JobFilter) -> list[Document]: ...
    @abstractmethod
    def events(
        self, job_id: int, *, after: int = 0, follow: bool, kinds: tuple[str, ...] = ()
    ) -> AsyncGenerator[Event, None]:
        """What happened, all or only of these kinds.

        With `follow`, until the job has ended, also over a server's restart.
        """

    @abstractmethod
    async def cancel(self, job_id: int) -> None: ...

    # what nobody needs any more
    @abstractmethod
    async def gc_plan(self) -> Document: ...
    @abstractmethod
    async def gc_apply(self, timeout: float | None, say: Callable[[str], None]) -> Document:
        """Remove what a plan of this moment names; `say` is given a line for each step."""

    # catalog
    @abstractmethod
    async def components(self) -> list[Document]: ...
    @abstractmethod
    async def component(self, component: str) -> Document: ...
    @abstractmethod
    async def put_component(self, document: Mapping[str, Any]) -> Document: ...
    @abstractmethod
    async def configs(self, component: str | None) -> list[Document]:
        """Configurations, each with the member `componentId`."""

    @abstractmethod
    async def config(self, component: str, config: str, version: int | None = None) -> Document: ...
    @abstractmethod
    async def config_versions(self, component: str, config: str) -> list[Document]: ...
    @abstractmethod
    async def create_config(self, component: str, body: Mapping[str, Any]) -> Document: ...
    @abstractmethod
    async def update_config(
        self, component: str, config: str, body: Mapping[str, Any]
    ) -> Document: ...
    @abstractmethod
    async def create_row(
        self, component: str, config: str, body: Mapping[str, Any]
    ) -> Document: ...
    @abstractmethod
    async def update_row(
        self, component: str, config: str, row: str, body: Mapping[str, Any]
    ) -> Document: ...
    @abstractmethod
    async def delete_config(self, component: str, config: str) -> None:
        """To the trash; what is in the trash: for good."""

    @abstractmethod
    async def trash(self, component: str | None) -> list[Document]:
        """Configurations in the trash, each with the member `componentId`."""

    @abstractmethod
    async def restore_config(self, component: str, config: str) -> Document: ...
    @abstractmethod
    async def rollback_config(
        self, component: str, config: str, version: int, body: Mapping[str, Any]
    ) -> Document:
        """`version`, the new one."""

    @abstractmethod
    async def copy_config(
        self, component: str, config: str, version: int, body: Mapping[str, Any]
    ) -> Document:
        """`id` of the new configuration."""

    @abstractmethod
    async def delete_row(
        self, component: str, config: str, row: str, body: Mapping[str, Any]
    ) -> None: ...
    @abstractmethod
    async def row_versions(self, component: str, config: str, row: str) -> list[Document]: ...
    @abstractmethod
    async def rollback_row(
        self, component: str, config: str, row: str, version: int, body: Mapping[str, Any]
    ) -> Document: ...
    @abstractmethod
    async def copy_row(
        self, component: str, config: str, row: str, version: int, body: Mapping[str, Any]
    ) -> Document: ...
    @abstractmethod
    async def metadata(self, of: Owner | None) -> list[Document]:
        """What is said of a configuration, or with None of the project."""

    @abstractmethod
    async def all_metadata(self) -> list[Document]:
        """`idComponent`, `configurationId` and `metadata` of all configurations that have some."""

    @abstractmethod
    async def put_metadata(self, of: Owner | None, values: Mapping[str, str]) -> list[Document]: ...
    @abstractmethod
    async def delete_metadata(self, of: Owner | None, entry: str) -> None: ...
    @abstractmethod
    async def state(self, component: str, config: str, row: str | None) -> Document:
        """`state` and `version`."""

    @abstractmethod
    async def put_state(
        self, component: str, config: str, row: str | None, body: Mapping[str, Any]
    ) -> None: ...
    @abstractmethod
    async def project(self) -> Document: ...
    @abstractmethod
    async def update_project(self, wanted: ProjectChange) -> Document: ...
    @abstractmethod
    async def projects(self) -> list[Document]: ...
    @abstractmethod
    async def create_project(self, name: str, features: Sequence[str]) -> Document:
        """The project, with the secret of its first admin token as `token`."""

    @abstractmethod
    async def audit(self, wanted: AuditFilter) -> list[Document]: ...
    @abstractmethod
    async def tokens(self) -> list[Document]: ...
    @abstractmethod
    async def create_token(self, wanted: NewToken) -> Document: ...
    @abstractmethod
    async def refresh_token(self, token_id: str) -> Document: ...
    @abstractmethod
    async def revoke_token(self, token_id: str) -> None: ...
    @abstractmethod
    async def branches(self) -> list[Document]: ...
    @abstractmethod
    async def create_branch(self, name: str, description: str) -> Document: ...
    @abstractmethod
    async def delete_branch(self, branch: str) -> None: ...
    @abstractmethod
    async def vault(self, branch: str | None) -> list[Document]: ...
    @abstractmethod
    async def put_vault_variable(
        self, name: str, value: str, branch: str | None, *, is_encrypted: bool
    ) -> Document: ...
    @abstractmethod
    async def delete_vault_variable(self, name: str, branch: str | None) -> None: ...
    @abstractmethod
    async def credentials(self, component: str, credentials: str) -> Document: ...
    @abstractmethod
    async def put_credentials(
        self, component: str, credentials: str, document: Mapping[str, Any]
    ) -> None: ...
    @abstractmethod
    async def delete_credentials(self, component: str, credentials: str) -> None: ...

    # secrets
    @abstractmethod
    async def can_encrypt(self) -> bool:
        """Whether there are keys."""

    @abstractmethod
    async def encrypt(self, wanted: Sealing) -> bytes: ...
    @abstractmethod
    async def migrate(self, wanted: Sealing) -> bytes: ...

    # storage
    @abstractmethod
    async def buckets(self) -> list[Document]: ...
    @abstractmethod
    async def create_bucket(self, stage: str, name: str, description: str) -> Document: ...
    @abstractmethod
    async def tables(self, bucket: str | None) -> list[Document]: ...
    @abstractmethod
    async def load(self, wanted: Load, progress: Progress) -> Document: ...
    @abstractmethod
    async def export(self, wanted: Select, target: Path, progress: Progress) -> int:
        """Write the rows to the new file `target`; return how many there are."""

    @abstractmethod
    async def preview(self, wanted: Select) -> Document:
        """`columns` and `rows`, as storage-api.md section 7.7 has them."""

    @abstractmethod
    async def files(self, tags: tuple[str, ...], query: str, limit: int) -> list[Document]: ...
    @abstractmethod
    async def upload(self, wanted: Upload, progress: Progress) -> Document: ...
    @abstractmethod
    async def download(self, file_id: int, target: Path, progress: Progress) -> Document: ...
