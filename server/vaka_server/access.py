"""Who may call what. Every route carries its rule; a route without one answers nobody."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from enum import StrEnum
from hashlib import sha256
from typing import Any, Generic, TypeVar

import trio

from vaka.errors import AccessDenied, AuthenticationFailed
from vaka.hooks import Catalog
from vaka.models.catalog import Component, Token
from vaka.models.storage import EVERYTHING, StorageRights

F = TypeVar("F", bound=Callable[..., Any])
V = TypeVar("V")

CACHE_SECONDS = 1.0
"""How long an answer of the catalog is used again: what another process on the same catalog changes
is noticed after this time at the latest, what this server changes at once."""
CACHE_SIZE = 1024


class Access(StrEnum):
    """What a caller must be to use a route."""

    PUBLIC = "public"
    """Anybody, without a token."""
    READ = "read"
    """Any valid token."""
    RUN = "run"
    """A token that may run jobs."""
    ADMIN = "admin"
    """A token that may change things: those that its limits leave it, which the handler checks."""
    MASTER = "master"
    """A token that may change everything in its project, tokens included."""

    def allows(self, token: Token) -> bool:
        """Whether `token` has the right."""
        match self:
            case Access.PUBLIC | Access.READ:
                return True
            case Access.RUN:
                return token.may_run
            case Access.ADMIN:
                return token.may_write
            case Access.MASTER:
                return token.is_master


def requires(access: Access) -> Callable[[F], F]:
    """Say who may call a view. For plugins' routes: without it a view answers 403 to everybody."""

    def mark(view: F) -> F:
        view.access = access  # type: ignore[attr-defined]
        return view

    return mark


class Recent(Generic[V]):
    """Answers that are used again for a short while, the most recently used ones."""

    def __init__(self, seconds: float = CACHE_SECONDS, size: int = CACHE_SIZE) -> None:
        self._seconds = seconds
        self._size = size
        self._kept: OrderedDict[str, tuple[float, V]] = OrderedDict()
        self._generation = 0

    async def get(self, key: str, load: Callable[[], Awaitable[V]]) -> V:
        """The answer for `key`, asked for with `load` when there is no recent one."""
        now = trio.current_time()
        kept = self._kept.get(key)
        if kept is not None and kept[0] > now:
            return kept[1]
        generation = self._generation
        value = await load()
        if generation == self._generation:  # else it may be older than the change
            self._kept[key] = (now + self._seconds, value)
            self._kept.move_to_end(key)
            if len(self._kept) > self._size:
                self._kept.popitem(last=False)
        return value

    def forget(self) -> None:
        """Ask again from now on, also where an answer is under way."""
        self._generation += 1
        self._kept.clear()


class Gate:
    """Verifies tokens and knows components, asking the catalog as rarely as it can."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._tokens = Recent[Token]()
        self._components = Recent[Component]()

    async def token(self, secret: str) -> Token:
        """The token of this secret; `AuthenticationFailed` when it is none, or no longer."""
        key = sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()
        token = await self._tokens.get(key, lambda: self._catalog.verify_token(secret))
        if token.expires is not None and token.expires <= datetime.now(UTC):
            raise AuthenticationFailed("The token has expired; ask for a new one.")
        return token

    async def component(self, component_id: str) -> Component:
        """A registered component; `NotFound` when it is none."""
        return await self._components.get(
            component_id, lambda: self._catalog.component(component_id)
        )

    def tokens_changed(self) -> None:
        """A token was made or revoked."""
        self._tokens.forget()

    def components_changed(self) -> None:
        """A component was registered or removed."""
        self._components.forget()


def may_use_component(token: Token, component_id: str) -> bool:
    """Whether `token` is not limited to components, or this is one of them."""
    return token.component_access is None or component_id in token.component_access


def check_component(token: Token, component_id: str) -> None:
    """`AccessDenied` when `token` is limited to components, and this is none of them."""
    if not may_use_component(token, component_id):
        raise AccessDenied(f"Token {token.id} has no access to component {component_id}.")


def storage_rights(token: Token) -> StorageRights:
    """What `token` may in Storage, its role aside."""
    if token.bucket_permissions is None and token.can_read_all_file_uploads:
        return EVERYTHING
    return StorageRights(token.bucket_permissions, token.can_read_all_file_uploads)


def may_use_bucket(token: Token, bucket_id: str, *, write: bool = False) -> bool:
    """Whether `token` may read a bucket, or change it."""
    return (token.may_write or not write) and storage_rights(token).may_use(bucket_id, write=write)


def check_bucket(token: Token, bucket_id: str, *, write: bool = False) -> None:
    """`AccessDenied` when `token` may not read a bucket, or not change it."""
    if not may_use_bucket(token, bucket_id, write=write):
        raise AccessDenied(f"Token {token.id} has no access to bucket {bucket_id}.")
