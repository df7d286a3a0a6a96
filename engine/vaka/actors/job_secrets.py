"""The secrets of one job or action: opened on their way to a container, sealed on their way back.

What is stored of a job has ciphers only. They are opened in memory, each bound to the ids of the job
that is at hand, and what they hold is hidden in everything that is told from that moment on.

Source: encryption.md sections 7.2 to 7.4.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from typing import Final

from pydantic import SecretStr

from vaka.actors.branch import FEATURE_PROTECTED
from vaka.actors.events import EventLog
from vaka.audit import AuditLog
from vaka.encryption import Encryption, KeyMemory, legacy_secrets, plain_secrets
from vaka.errors import CipherRefused, UserError
from vaka.masking import Masker
from vaka.models.audit import AuditEntry
from vaka.models.catalog import Json, Project
from vaka.models.ciphers import BranchType, Scope, is_cipher
from vaka.models.component import ComponentDefinition
from vaka.models.configuration import secrets_with_paths
from vaka.models.job import JobRecord
from vaka.turns import beside

log = logging.getLogger(__name__)

MAKE_KEYS: Final = "Make a key ring with `vaka keys init`, and start the service again."
MOST_NAMED: Final = 20
"""Paths that one message names."""
MOST_WRITTEN: Final = 100
"""Paths that one entry of the audit log names."""


class JobSecrets:
    """Opens and seals what one job or action may read and write."""

    def __init__(
        self,
        encryption: Encryption,
        masker: Masker,
        *,
        project: Project,
        component: str,
        config: str | None = None,
        branch_type: BranchType,
    ) -> None:
        """Take where it is: the ids that ciphers are bound to.

        Raises:
            InvalidInput: one of the ids is none.
        """
        self._encryption = encryption
        self._masker = masker
        self._project = project
        self._scope = Scope(component, project.id, config or None, branch_type)
        self._memory = KeyMemory()
        self._legacy: dict[str, bool] = {}  # path, and whether it was told
        self._used: dict[str, bool] = {}  # path, and whether it was written down

    def hide(self, values: Iterable[str]) -> None:
        """Hide these values from now on, and what plugins know of them besides."""
        known = list(values)
        self._masker.add(known)  # first: a plugin that fails may say what it was given
        self._masker.add(self._encryption.secret_forms(known))

    async def opened(self, document: Json, where: str = "") -> Json:
        """A document of the job with its secrets in the clear, hidden; `where` it stands.

        Raises:
            CipherRefused: something in it is no cipher that the job may read; names all such paths.
            ApplicationError: a key provider does not answer.
        """
        return await self._opened(document, where, self._scope)

    async def given(self, document: Json) -> Json:
        """The same of a document that came with a request, where secrets may be in the clear."""
        opened = await self._encryption.decrypt_given(document, self._scope, memory=self._memory)
        return await beside(document, partial(self._noted, document, "", opened))

    async def image_parameters(self, definition: ComponentDefinition) -> Json:
        """A component's own parameters, opened as that component's, whichever the job runs."""
        scope = Scope(definition.id, self._project.id)
        where = f"{definition.id}:image_parameters"
        return await self._opened(definition.image_parameters, where, scope)

    async def sealed_state(self, state: Json, *, is_kept: bool) -> Json:
        """What a component wants to find again, with its secrets as ciphers.

        Without a key provider a state with secrets is none, unless it `is_kept`.

        Raises:
            UserError: it is to be kept, has secrets, and nothing can encrypt them.
            ApplicationError: the key provider does not answer.
        """
        if not self._encryption.can_encrypt:
            paths = await beside(state, partial(plain_secrets, state))
            if not paths:
                return state
            if not is_kept:
                return {}
            raise UserError(
                f"The component's state cannot be stored: the value of {named(paths)} must be "
                f"encrypted, and this installation has no keys. {MAKE_KEYS}"
            )
        scope = sealing_scope(self._project, self._scope)
        return await self._encryption.encrypt_for("state", state, scope)

    async def hide_ciphers(self, document: Json) -> None:
        """Hide what the ciphers of a document hold, as far as the job may read them."""
        for _, value in secrets_with_paths(document):
            if is_cipher(value):
                try:
                    opened = await self._encryption.decrypt(value, self._scope, memory=self._memory)
                except CipherRefused:
                    continue  # copied from elsewhere: what nobody here can read, nobody tells
                self.hide([str(opened)])

    def untold_legacy(self) -> list[str]:
        """Where old ciphers were read since this was asked before."""
        paths = [path for path, is_told in list(self._legacy.items()) if not is_told]
        self._legacy |= dict.fromkeys(paths, True)
        return paths

    def unwritten_uses(self) -> list[str]:
        """Where ciphers were opened since this was asked before."""
        paths = [path for path, is_written in list(self._used.items()) if not is_written]
        self._used |= dict.fromkeys(paths, True)
        return paths

    async def _opened(self, document: Json, where: str, scope: Scope) -> Json:
        try:
            opened = await self._encryption.decrypt(document, scope, memory=self._memory)
        except CipherRefused as refusal:
            raise CipherRefused(
                refusal.message,
                reason=refusal.reason,
                paths=tuple(_joined(where, path) for path in refusal.paths),
            ) from None
        return await beside(document, partial(self._noted, document, where, opened))

    def _noted(self, document: Json, where: str, opened: Json) -> Json:
        self.hide(value for _, value in secrets_with_paths(opened))
        for path, value in secrets_with_paths(document):
            if is_cipher(value):
                self._used.setdefault(_joined(where, path), False)
        for path in legacy_secrets(document):
            self._legacy.setdefault(_joined(where, path), False)
        return opened


def sealing_scope(project: Project, scope: Scope) -> Scope:
    """Where what a job stores is encrypted (encryption.md section 7.4).

    Never bound to a configuration; to the type of the branch where projects protect the default one.
    """
    is_protected = FEATURE_PROTECTED in project.features
    return Scope(
        scope.component, scope.project, branch_type=scope.branch_type if is_protected else None
    )


async def opened_token(
    encryption: Encryption, cipher: str, project: str, component: str
) -> SecretStr | None:
    """The token of a job; None when its cipher cannot be read any more.

    Raises:
        ApplicationError: a key provider does not answer.
    """
    try:
        data = await encryption.decrypt_bytes(cipher, token_scope(project, component))
    except CipherRefused:
        log.warning("token.unreadable", extra={"project": project})
        return None
    return SecretStr(data.decode())


def token_scope(project: str, component: str) -> Scope:
    """Where the token of a job is encrypted: in the whole project, unless a plugin wants more."""
    return Scope(component, project)


async def tell_legacy(secrets: JobSecrets, events: EventLog) -> None:
    """Warn of the old ciphers that were read since it was done before (encryption.md section 10.8)."""
    paths = secrets.untold_legacy()
    if paths:
        await events.note(
            "warn",
            f"These secrets are ciphers of an old kind, which is read only for a time: "
            f"{named(paths)}. Encrypt them anew with `vaka migrate`.",
        )


def job_entry(record: JobRecord, component: str) -> AuditEntry:
    """An entry of the audit log about what a job does."""
    return AuditEntry(
        "secrets.decrypted",
        record.project,
        record.token_id,
        record.token_description,
        subject={"job": str(record.id), "component": component},
        detail={"config": record.config},
    )


async def write_uses(secrets: JobSecrets, audit: AuditLog, entry: AuditEntry) -> None:
    """Have the audit log say which secrets were opened since it was told before, by their paths."""
    paths = secrets.unwritten_uses()
    if paths:
        detail = {**entry.detail, "count": len(paths), "paths": paths[:MOST_WRITTEN]}
        await audit.record(replace(entry, detail=detail))


def named(paths: list[str]) -> str:
    """Some paths in words, the first of them when they are many."""
    more = f" and {len(paths) - MOST_NAMED} more" if len(paths) > MOST_NAMED else ""
    return f"{', '.join(paths[:MOST_NAMED])}{more}"


def _joined(where: str, path: str) -> str:
    return f"{where}.{path}" if where and path else where or path
