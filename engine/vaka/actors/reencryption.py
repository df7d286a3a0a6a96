"""Makes the ciphers of stored documents anew: with the active key, in the scope and family they had.

A document is written as a whole or not at all, and only in place of what was read: who edits it
meanwhile wins, and it is looked at again. So it may be interrupted at any moment, and done again: what
is as it should be stays.

Every text that begins with a known prefix counts, wherever it stands: a variable's value is a secret
only where a configuration names it. What such a text is bound to is not always where it stands, so
each scope is tried that the document can have.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import Any, Final, Literal

from vaka.actors.services import Services
from vaka.encryption import key_of
from vaka.errors import ApplicationError, CipherRefused, Conflict, NotFound
from vaka.hooks import Catalog
from vaka.models.catalog import Configuration, ConfigurationRow, Json, VaultVariable
from vaka.models.ciphers import Scope, is_cipher
from vaka.models.job import JobQuery, JobRecord, Status
from vaka.models.reencryption import (
    CipherCount,
    CipherOrigin,
    Cursor,
    LeftCipher,
    ReencryptionReport,
)
from vaka.variables import SHARED_CODE, VARIABLES

LegacyFamily = Literal["ProjectSecure", "ConfigSecure"]
TRIES: Final = 5
"""How often a document is looked at that somebody else keeps changing."""
PAGE: Final = 500
"""Jobs that are read at a time."""
CHANGE: Final = "Secrets encrypted again"
"""What the versions that are written say of themselves."""
_SHARED: Final = frozenset({VARIABLES, SHARED_CODE})
"""Their configurations hold what those of other components use."""
_TRASH: Final = "it is in the trash; restore it, or delete it for good"
_RUNS: Final = "the job is running, and ends by itself"
_COMPONENT: Final = "it is part of a component's definition; register the component again"
_UNREADABLE: Final = "it cannot be read here"
_BUSY: Final = "the document is being changed all the time; try again"


@dataclass(frozen=True, slots=True)
class _Document:
    """One stored document with ciphers in it."""

    cursor: Cursor
    name: str
    """What reports call it."""
    value: Json
    scopes: tuple[Scope, ...]
    """Where its ciphers may be from; what is from elsewhere cannot be read."""
    again: Callable[[], Awaitable[_Document | None]] | None = None
    """Reads it again; None when it is gone."""
    write: Callable[[Json], Awaitable[object]] | None = None
    """Puts a value in its place; raises `Conflict` when it was changed, `NotFound` when it is gone."""
    kept: str = ""
    """Why it is not written, when it cannot be."""


@dataclass(frozen=True, slots=True)
class _Found:
    """What is in one document."""

    value: Json
    """With its ciphers made anew."""
    ciphers: tuple[tuple[CipherOrigin, bool], ...]
    """Each one, and whether it is outdated."""
    left: tuple[LeftCipher, ...]

    @property
    def is_outdated(self) -> bool:
        return any(outdated for _, outdated in self.ciphers)


class Reencryption:
    """One pass over everything that is stored."""

    def __init__(
        self,
        services: Services,
        *,
        dry_run: bool,
        legacy_family: LegacyFamily = "ProjectSecure",
        on_document: Callable[[Cursor], None] = lambda cursor: None,  # noqa: ARG005
    ) -> None:
        """Prepare a pass. `on_document` is told how far it is, after each document."""
        self._services = services
        self._dry_run = dry_run
        self._legacy_family = legacy_family
        self._on_document = on_document
        self._active: tuple[int, str] | None = None

    async def run(self, after: Cursor = ()) -> ReencryptionReport:
        """Look at every document, or those after a cursor, and change what is outdated.

        Raises:
            ApplicationError: there is no key to encrypt with, or a provider does not answer.
        """
        self._active = await self._services.encryption.active_key()
        if self._active is None:
            raise ApplicationError("There is no key to encrypt with.")
        counts: Counter[CipherOrigin] = Counter()
        outdated: Counter[CipherOrigin] = Counter()
        left: list[LeftCipher] = []
        documents = old = changed = 0
        async with aclosing(self._documents()) as walk:
            async for document in walk:
                if document.cursor <= after:
                    continue
                found, is_written = await self._visit(document)
                documents += 1
                if found is not None:
                    for origin, is_old in found.ciphers:
                        counts[origin] += 1
                        outdated[origin] += is_old
                    left += found.left
                    old += found.is_outdated and not found.left
                    changed += is_written
                self._on_document(document.cursor)
        ordered = sorted(counts, key=lambda each: (each.prefix, each.provider, each.key_id or ""))
        return ReencryptionReport(
            is_dry_run=self._dry_run,
            documents=documents,
            outdated=old,
            changed=changed,
            counts=tuple(CipherCount(each, counts[each], outdated[each]) for each in ordered),
            left=tuple(left),
        )

    async def _visit(self, document: _Document | None) -> tuple[_Found | None, bool]:
        """What one document holds, and whether it was written; None when it is gone."""
        found: _Found | None = None
        for _ in range(TRIES):
            if document is None:
                return None, False
            found = await self._found(document)
            if self._dry_run or found.left or not found.is_outdated or document.write is None:
                return found, False
            try:
                await document.write(found.value)
            except Conflict:
                document = await document.again() if document.again is not None else None
            except NotFound:
                return None, False
            else:
                return found, True
        assert found is not None and document is not None  # noqa: S101, PT018 - it was tried
        place = next(origin for origin, is_old in found.ciphers if is_old)
        busy = LeftCipher(document.name, "", place, _BUSY)
        return _Found(found.value, found.ciphers, (*found.left, busy)), False

    async def _found(self, document: _Document) -> _Found:
        encryption = self._services.encryption
        ciphers: list[tuple[CipherOrigin, bool]] = []
        left: list[LeftCipher] = []
        root = [_copied(document.value)]
        for container, key, path, is_secret in _texts(root):
            text = container[key]
            if not is_cipher(text) and not (is_secret and encryption.reads_bare):
                continue
            origin = encryption.origin(text)
            if key_of(text) == self._active:
                ciphers.append((origin, False))
                continue
            try:
                fresh = await self._fresh(text, document)
            except CipherRefused as refusal:
                if not is_cipher(text) or (not is_secret and key_of(text) is None):
                    continue  # a text that only looks like a cipher
                reason = refusal.message if refusal.reason == "no_reader" else ""
                left.append(LeftCipher(document.name, path, origin, reason or _UNREADABLE))
                ciphers.append((origin, True))
                continue
            container[key] = fresh
            ciphers.append((origin, True))
            if document.kept:
                left.append(LeftCipher(document.name, path, origin, document.kept))
        return _Found(root[0], tuple(ciphers), tuple(left))

    async def _fresh(self, text: str, document: _Document) -> str:
        """A cipher of the same, with the active key."""
        refused = CipherRefused(reason="scope")
        for scope in document.scopes:
            try:
                return await self._services.encryption.reencrypt(text, scope, self._legacy(scope))
            except CipherRefused as refusal:
                # the reason of the scope that came furthest says most
                if refusal.reason != "scope":
                    refused = refusal
        raise refused

    def _legacy(self, scope: Scope) -> str:
        """The family of what had none of today's."""
        if scope.component is None:
            return "ProjectWideSecure"
        return self._legacy_family if scope.configuration is not None else "ProjectSecure"

    # -- what there is -------------------------------------------------------------------------

    async def _documents(self) -> AsyncGenerator[_Document, None]:
        """Everything that holds secrets, in the order of its cursors."""
        catalog = self._services.catalog
        for component in sorted(await catalog.components(), key=lambda each: each.id):
            yield _Document(
                ("1-component", component.id),
                f"component {component.id}",
                {"data": component.data, **component.extra},
                (Scope(component.id),),
                kept=_COMPONENT,
            )
        for project in sorted(await catalog.projects(), key=lambda each: each.id):
            async with aclosing(_Project(catalog, project.id).documents()) as walk:
                async for document in walk:
                    yield document
        # jobs come last: what they are given was stored before, and one that begins meanwhile has
        # what it needs
        last = 0
        while True:
            query = JobQuery(statuses=_OPEN, descending=False, limit=PAGE, search=f"id:>{last}")
            page = await self._services.store.jobs(query)
            for record in page:
                last = record.id
                yield self._job(record)
                token = await self._token(record)
                if token is not None:
                    yield token
            if len(page) < PAGE:
                return

    async def _token(self, record: JobRecord) -> _Document | None:
        """The token of an open job; None when it has none."""
        store = self._services.store
        found = await store.token(record.id)
        if found is None:
            return None

        async def write(value: Json) -> None:
            await store.replace_token(record.id, found, value)

        return _Document(
            ("3-job", f"{record.id:020}", "token"),
            f"token of job {record.id}",
            found,
            _scopes(record.project, record.component),
            lambda: self._token(record),
            write,
        )

    def _job(self, record: JobRecord) -> _Document:
        store = self._services.store

        async def again() -> _Document | None:
            found = await store.job(record.id)
            return None if found.status.is_finished else self._job(found)

        async def write(value: Json) -> None:
            await store.replace_spec(record.id, record.spec, value)

        waits = record.status is Status.WAITING
        return _Document(
            ("3-job", f"{record.id:020}"),
            f"job {record.id}",
            record.spec,
            _scopes(record.project, record.component, record.config),
            again,
            write if waits else None,
            "" if waits else _RUNS,
        )


@dataclass(frozen=True, slots=True)
class _Place:
    """A configuration's place."""

    component: str
    config: str
    branch: str | None


class _Project:
    """The documents of one project."""

    def __init__(self, catalog: Catalog, project: str) -> None:
        self._catalog = catalog
        self._project = project
        self._users: list[str] = []
        """Components with configurations, which may use what is shared."""
        self._seen: set[str] = set()
        """Names of versions that a branch shows as the default one has them."""

    async def documents(self) -> AsyncGenerator[_Document, None]:
        catalog, project = self._catalog, self._project
        branches = [each.id for each in await catalog.branches(project) if not each.is_default]
        everything = await catalog.configurations(project)
        self._users = sorted({each.component_id for each in everything} - _SHARED)
        for branch in ("", *sorted(branches)):
            for variable in await catalog.vault_variables(project, branch=branch or None):
                if (variable.branch or "") == branch:
                    yield self._variable(variable)
        for component, credentials in sorted(await catalog.oauth_credentials_ids(project)):
            with suppress(NotFound):
                yield await self._credentials(component, credentials)
        for list_all in (self._configurations, self._trash):
            for branch in ("", *sorted(branches)):
                async with aclosing(list_all(branch or None)) as walk:
                    async for document in walk:
                        yield document

    def _cursor(self, *parts: str) -> Cursor:
        return ("2-project", self._project, *parts)

    def _variable(self, variable: VaultVariable) -> _Document:
        catalog, project = self._catalog, self._project

        async def again() -> _Document | None:
            for each in await catalog.vault_variables(project, branch=variable.branch):
                if (each.name, each.branch) == (variable.name, variable.branch):
                    return self._variable(each)
            return None

        async def write(value: Json) -> None:
            await catalog.put_vault_variable(
                project,
                variable.name,
                value,
                is_encrypted=variable.is_encrypted,
                branch=variable.branch,
                expected_value=variable.value,
            )

        where = "" if variable.branch is None else f" of branch {variable.branch}"
        return _Document(
            self._cursor("1-vault", variable.branch or "", variable.name),
            f"project {project}, variable {variable.name}{where} of the vault",
            variable.value,
            self._shared_scopes(self._users),
            again,
            write,
        )

    async def _credentials(self, component: str, credentials: str) -> _Document:
        catalog, project = self._catalog, self._project
        found = await catalog.oauth_credentials(project, component, credentials)

        async def again() -> _Document | None:
            with suppress(NotFound):
                return await self._credentials(component, credentials)
            return None

        async def write(value: Json) -> None:
            await catalog.put_oauth_credentials(
                project, component, credentials, value, expected=found
            )

        return _Document(
            self._cursor("2-oauth", component, credentials),
            f"project {project}, credentials {credentials} of {component}",
            found,
            _scopes(project, component),
            again,
            write,
        )

    async def _configurations(self, branch: str | None) -> AsyncGenerator[_Document, None]:
        catalog, project = self._catalog, self._project
        here = await catalog.configurations(project, branch=branch)
        for listed in sorted(here, key=lambda each: (each.component_id, each.id)):
            place = _Place(listed.component_id, listed.id, branch)
            # where a variable is used is known only when it is: its cipher may be of any component
            others = self._users if listed.component_id in _SHARED else ()
            try:
                found = await self._current(place)
            except NotFound:
                continue
            if branch is None or not self._is_seen(found):
                yield self._configuration(place, found, others)
            for row in sorted(found.rows, key=lambda each: each.id):
                if branch is None or not self._is_seen(row):
                    yield self._row(place, row, others)
            if branch is None:
                with suppress(NotFound):
                    after = await self._current(place)
                    self._seen.add(after.version_identifier)
                    self._seen |= {row.version_identifier for row in after.rows}
            for row_id in (None, *sorted(row.id for row in found.rows)):
                with suppress(NotFound):
                    yield await self._state(place, row_id)

    async def _trash(self, branch: str | None) -> AsyncGenerator[_Document, None]:
        for each in sorted(
            await self._catalog.deleted_configurations(self._project, branch=branch),
            key=lambda each: (each.component_id, each.id),
        ):
            place = _Place(each.component_id, each.id, branch)
            yield _Document(
                self._cursor("4-trash", branch or "", each.component_id, each.id),
                self._name(place, None) + " in the trash",
                [each.configuration, *(row.configuration for row in each.rows)],
                self._scopes_of(place, ()),
                kept=_TRASH,
            )

    def _is_seen(self, version: Configuration | ConfigurationRow) -> bool:
        return version.version_identifier != "" and version.version_identifier in self._seen

    async def _current(self, place: _Place) -> Configuration:
        return await self._catalog.configuration(
            self._project, place.component, place.config, branch=place.branch
        )

    def _configuration(
        self, place: _Place, found: Configuration, others: Sequence[str]
    ) -> _Document:
        async def again() -> _Document | None:
            with suppress(NotFound):
                return self._configuration(place, await self._current(place), others)
            return None

        async def write(value: Json) -> None:
            await self._catalog.update_configuration(
                self._project,
                place.component,
                place.config,
                {"configuration": value},
                change_description=CHANGE,
                expected_version=found.version,
                branch=place.branch,
            )

        return _Document(
            self._cursor("3-config", place.branch or "", place.component, place.config, "1"),
            self._name(place, None),
            found.configuration,
            self._scopes_of(place, others),
            again,
            write,
        )

    def _row(self, place: _Place, row: ConfigurationRow, others: Sequence[str]) -> _Document:
        async def again() -> _Document | None:
            with suppress(NotFound):
                for each in (await self._current(place)).rows:
                    if each.id == row.id:
                        return self._row(place, each, others)
            return None

        async def write(value: Json) -> None:
            await self._catalog.update_row(
                self._project,
                place.component,
                place.config,
                row.id,
                {"configuration": value},
                change_description=CHANGE,
                expected_version=row.version,
                branch=place.branch,
            )

        return _Document(
            self._cursor(
                "3-config", place.branch or "", place.component, place.config, "2", row.id
            ),
            self._name(place, row.id),
            row.configuration,
            self._scopes_of(place, others),
            again,
            write,
        )

    async def _state(self, place: _Place, row_id: str | None) -> _Document:
        here = (self._project, place.component, place.config, row_id)
        found = await self._catalog.state(*here, branch=place.branch)

        async def again() -> _Document | None:
            with suppress(NotFound):
                return await self._state(place, row_id)
            return None

        async def write(value: Json) -> None:
            await self._catalog.put_state(
                *here, value, expected_version=found.version, branch=place.branch
            )

        return _Document(
            self._cursor(
                "3-config", place.branch or "", place.component, place.config, "3", row_id or ""
            ),
            f"state of {self._name(place, row_id)}",
            found.value,
            # a state is never bound to its configuration: copies of that use it
            _scopes(self._project, place.component),
            again,
            write,
        )

    def _scopes_of(self, place: _Place, others: Sequence[str]) -> tuple[Scope, ...]:
        own = _scopes(self._project, place.component, place.config)
        return self._shared_scopes((place.component, *others)) if others else own

    def _shared_scopes(self, components: Sequence[str]) -> tuple[Scope, ...]:
        found = [*_scopes(self._project)]  # first what all components may read
        for each in components:
            found += _scopes(self._project, each)
        return tuple(found)

    def _name(self, place: _Place, row: str | None) -> str:
        branch = "" if place.branch is None else f", branch {place.branch}"
        of_row = "" if row is None else f", row {row}"
        return (
            f"project {self._project}{branch}, configuration {place.config} of "
            f"{place.component}{of_row}"
        )


_OPEN: Final = tuple(each for each in Status if not each.is_finished)


def _scopes(
    project: str, component: str | None = None, config: str | None = None
) -> tuple[Scope, ...]:
    """All that ciphers at a place may be bound to: of which kind of branch, a document does not say."""
    return (
        Scope(component, project, config, "default"),
        Scope(component, project, config, "dev"),
    )


def _copied(value: Json) -> Json:
    """A copy in which every object and list may be changed."""
    root = [value]
    stack: list[tuple[Any, Any]] = [(root, 0)]
    while stack:
        container, key = stack.pop()
        match container[key]:
            case str():
                pass
            case list() | tuple() as items:
                container[key] = copied = list(items)
                stack.extend((copied, n) for n in range(len(copied)))
            case Mapping() as members:
                container[key] = made = dict(members)
                stack.extend((made, name) for name in made)
    return root[0]


def _texts(root: list[Json]) -> Iterator[tuple[Any, Any, str, bool]]:
    """Every text below `root[0]`: where it can be replaced, its path, and whether it is a secret."""
    stack: list[tuple[Any, Any, str, bool]] = [(root, 0, "", True)]
    while stack:
        container, key, path, is_secret = stack.pop()
        match container[key]:
            case str():
                yield container, key, path, is_secret
            case list() as items:
                stack.extend((items, n, f"{path}[{n}]", False) for n in reversed(range(len(items))))
            case dict() as members:
                stack.extend(
                    (members, name, f"{path}.{name}" if path else str(name), str(name)[:1] == "#")
                    for name in reversed(members)
                )
