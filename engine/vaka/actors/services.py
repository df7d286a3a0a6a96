"""What every actor of one engine shares."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import trio
from pydantic import SecretStr

from vaka._plugins import Plugins
from vaka.actors.admission import Admission
from vaka.actors.ledger import ImageLedger
from vaka.audit import AuditLog
from vaka.config import EngineConfig
from vaka.encryption import Encryption
from vaka.hooks import Catalog, ContainerRuntime, MappingBackend
from vaka.models.container import ImageInfo, RegistryAuth
from vaka.store import JobStore, Owner


def utcnow() -> datetime:
    """This moment, aware, in UTC."""
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Services:
    """The parts of an engine that actors work with; owned by the engine, closed after them."""

    config: EngineConfig
    plugins: Plugins
    store: JobStore
    runtime: ContainerRuntime
    storage: MappingBackend
    catalog: Catalog
    owner: Owner
    admission: Admission
    images: ImageLedger
    starting: trio.CapacityLimiter
    """The gate of containers that are being created or started."""
    tokens: dict[int, SecretStr]
    """Tokens of open jobs that were submitted here, where no key provider can encrypt them: then they
    are in memory only, because nothing may write them down in the clear."""
    encryption: Encryption
    audit: AuditLog
    imported: Callable[[str, Sequence[str]], Awaitable[None]]
    """To be called with a project and ids of tables that were loaded, before that is said anywhere."""
    registry_tokens: dict[str, tuple[float, RegistryAuth]] = field(default_factory=dict)
    """By registry: when a token was given, on Trio's clock, and what to log in with."""
    seen_images: dict[tuple[str, str], tuple[float, ImageInfo]] = field(default_factory=dict)
    """By reference and wanted digest: when an image was seen on the host, on Trio's clock."""
    now: Callable[[], datetime] = utcnow
    acting: set[str] = field(default_factory=set)
    """Names of the actions under way here, as their containers and folders have them."""

    @property
    def folder_owner(self) -> tuple[int, int]:
        """Numeric user and group on the host that own what containers may write."""
        return self.runtime.host_owner(*self.config.owner)
