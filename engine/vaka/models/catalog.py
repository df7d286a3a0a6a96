"""What a catalog keeps: projects, tokens, components, configurations with rows, and state."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from vaka.models.storage import MetadataEntry

Json = Any
"""A JSON value as decoded: dict, list, str, int, float, bool or None, key order kept."""


class Role(StrEnum):
    """What a token may do."""

    ADMIN = "admin"
    """Everything in its project, tokens included."""
    READ = "read"
    """Read data, configurations and jobs; change nothing."""
    RUN = "run"
    """What `read` may, and run and cancel jobs."""


@dataclass(frozen=True, slots=True)
class Project:
    id: str
    name: str
    created: datetime
    features: tuple[str, ...] = ()
    limits: Mapping[str, Json] = field(default_factory=dict)
    """Name to value, for example `components.jobsParallelism`."""


@dataclass(frozen=True, slots=True)
class Branch:
    """The default branch of a project, or a development branch."""

    id: str
    name: str
    is_default: bool
    created: datetime
    description: str = ""
    creator_token_id: str | None = None
    creator_token_description: str | None = None


@dataclass(frozen=True, slots=True)
class Token:
    """A verified token; the secret itself is not in it."""

    id: str
    description: str
    project: Project
    role: Role
    created: datetime
    expires: datetime | None = None
    component_access: tuple[str, ...] | None = None
    """Only these components; None: all."""
    bucket_permissions: Mapping[str, str] | None = None
    """Bucket id to `read` or `write`; None: all buckets, also those that are made later."""
    can_manage_tokens: bool = True
    """With the role `admin` and no limits: whether it is a master token."""
    can_read_all_file_uploads: bool = True
    """Whether it sees files that other tokens have made."""
    can_purge_trash: bool = True
    """Whether it may delete for good what is in the trash, if it may change things at all."""
    refreshed: datetime | None = None
    """When its secret was made."""
    creator_token_id: str | None = None
    creator_token_description: str | None = None

    @property
    def may_run(self) -> bool:
        return self.role in {Role.ADMIN, Role.RUN}

    @property
    def may_write(self) -> bool:
        return self.role is Role.ADMIN

    @property
    def is_limited(self) -> bool:
        """Whether there are buckets or components that it may not use."""
        return self.component_access is not None or self.bucket_permissions is not None

    @property
    def is_master(self) -> bool:
        """Whether it may do everything in its project, and make other tokens."""
        return self.may_write and self.can_manage_tokens and not self.is_limited

    @property
    def can_manage_buckets(self) -> bool:
        """Whether it may change every bucket, and make new ones."""
        return self.may_write and self.bucket_permissions is None


@dataclass(frozen=True, slots=True)
class Component:
    """A registered component, its `data` as given (runner.md section 3)."""

    id: str
    name: str
    type: str
    data: Mapping[str, Json]
    features: tuple[str, ...] = ()
    description: str = ""
    extra: Mapping[str, Json] = field(default_factory=dict)
    """Every other member of the registered document, such as `flags` or `configurationSchema`."""


@dataclass(frozen=True, slots=True)
class ConfigurationRow:
    id: str
    name: str
    description: str
    configuration: Json
    is_disabled: bool
    version: int
    created: datetime
    change_description: str
    creator_token_id: str | None = None
    creator_token_description: str | None = None
    version_identifier: str = ""
    """Names this version wherever it is; see `Configuration`."""


@dataclass(frozen=True, slots=True)
class Configuration:
    component_id: str
    id: str
    name: str
    description: str
    configuration: Json
    is_disabled: bool
    version: int
    created: datetime
    change_description: str
    rows: tuple[ConfigurationRow, ...] = ()
    """In the configuration's row order."""
    creator_token_id: str | None = None
    creator_token_description: str | None = None
    updated: datetime | None = None
    """When the current version was written."""
    updated_token_id: str | None = None
    """Token that wrote it."""
    updated_token_description: str | None = None
    version_identifier: str = ""
    """Names this version wherever it is: no other one of any configuration has the same. A ULID."""
    rows_sort_order: tuple[str, ...] = ()
    """As it was given; `rows` are in it already."""
    is_deleted: bool = False
    """Whether it is in the trash."""


@dataclass(frozen=True, slots=True)
class ConfigurationVersion:
    """A version of a configuration, or of a row, which has no rows."""

    version: int
    created: datetime
    change_description: str
    name: str
    description: str
    is_disabled: bool
    creator_token_id: str | None = None
    creator_token_description: str | None = None
    configuration: Json = None
    rows: tuple[ConfigurationRow, ...] = ()
    version_identifier: str = ""


@dataclass(frozen=True, slots=True)
class ConfigurationMetadata:
    """What is said of a configuration."""

    component_id: str
    config_id: str
    entries: tuple[MetadataEntry, ...]
    """All of it, or what was asked for; the provider of each is `user`."""


@dataclass(frozen=True, slots=True)
class Workspace:
    """A workspace that exists as a record only: there is no warehouse behind it."""

    id: int
    component_id: str
    config_id: str
    is_read_only: bool
    created: datetime
    creator_token_id: str | None = None
    creator_token_description: str | None = None


@dataclass(frozen=True, slots=True)
class VaultVariable:
    """A variable that every configuration of a project can name as `{{ vault.<name> }}`."""

    name: str
    value: str
    """A cipher when `is_encrypted`."""
    is_encrypted: bool = False
    branch: str | None = None
    """The development branch that it is of; None: of every one that has none of this name."""


@dataclass(frozen=True, slots=True)
class State:
    """The stored state of a configuration or row; `version` 0 means that none was stored yet."""

    value: Json
    version: int
