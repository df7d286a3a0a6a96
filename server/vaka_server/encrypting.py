"""Encrypting and migrating what is sent: the rules that the HTTP API and the command line share.

Source: encryption.md section 9, runner.md sections 1.8 and 1.9.
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Literal
from urllib.parse import parse_qsl

from vaka.encryption import (
    Encryption,
    dump_json,
    is_placeholder,
    load_json,
    secret_count,
    unnamed_secrets,
)
from vaka.errors import InvalidInput
from vaka.models.ciphers import Scope, is_cipher
from vaka.turns import beside

MAX_BYTES: Final = 10 << 20
"""Of a body."""
NAMES: Final = ("componentId", "projectId", "configId", "branchType")
"""Parameters that say what a cipher is bound to."""
_MOST_PARAMETERS: Final = 100

Form = Literal["text", "json"]


# -- what is asked for -------------------------------------------------------------------------------


def parameters(query: bytes) -> list[tuple[str, str]]:
    """The names and values of a query string, in its order.

    Raises:
        InvalidInput: it is not UTF-8, and so names no id, or has very many of them.
    """
    try:
        return parse_qsl(
            query.decode("ascii"),
            keep_blank_values=True,
            errors="strict",
            max_num_fields=_MOST_PARAMETERS,
        )
    except UnicodeDecodeError:
        raise InvalidInput("The parameters are not UTF-8.") from None
    except ValueError:
        raise InvalidInput(f"There are more than {_MOST_PARAMETERS} parameters.") from None


def refuse_unknown(given: list[tuple[str, str]]) -> None:
    """Refuse parameters that nobody knows: a misspelt id would make a cipher of a wider scope.

    Raises:
        InvalidInput: names all of them.
    """
    unknown = dict.fromkeys(name for name, _ in given if name not in NAMES)
    if unknown:
        raise InvalidInput(f"Unknown parameter: '{','.join(unknown)}'.")


def ids_of(given: list[tuple[str, str]]) -> dict[str, str]:
    """The ids among parameters; what else is there does not count.

    Raises:
        InvalidInput: one is there twice or as a list, or is empty.
    """
    found: dict[str, str] = {}
    for name, value in given:
        known = name.partition("[")[0]
        if known not in NAMES:
            continue
        if known != name or known in found:
            raise InvalidInput(f'Parameter "{known}" must be given once, as a text.', path=known)
        if value == "":
            raise InvalidInput(f'Parameter "{known}" must not be empty.', path=known)
        found[known] = value
    return found


def scope_to_encrypt(ids: Mapping[str, str]) -> Scope:
    """What new ciphers are to be bound to.

    Raises:
        InvalidInput: the ids go together in no family.
    """
    if "componentId" not in ids and "projectId" not in ids:
        raise InvalidInput("Component Id is required.", path="componentId")
    return _scope(ids)


def scope_to_migrate(ids: Mapping[str, str]) -> Scope:
    """What migrated ciphers are to be bound to: always to a component.

    Raises:
        InvalidInput: there is none, or the ids go together in no family.
    """
    if "componentId" not in ids:
        raise InvalidInput("Stack id and component id must be entered.", path="componentId")
    return _scope(ids)


def _scope(ids: Mapping[str, str]) -> Scope:
    branch_type: Any = ids.get("branchType")
    bound = {
        "component": ids.get("componentId"),
        "project": ids.get("projectId"),
        "configuration": ids.get("configId"),
    }
    # which ids go together is told before what a branch type may be
    _ = Scope(**bound, branch_type=None if branch_type is None else "default").family
    return Scope(**bound, branch_type=branch_type)


def form_of(content_type: str | None) -> Form:
    """How a body is to be read.

    Raises:
        InvalidInput: its type says neither text nor JSON.
    """
    named = (content_type or "").lower()
    if "text/plain" in named:
        return "text"
    if "application/json" in named:
        return "json"
    raise InvalidInput("Incorrect Content-Type.")


# -- what is done with it ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Submitted:
    """A body, read."""

    form: Form
    raw: bytes
    document: Any
    """Of JSON, what it holds; of text, the text, or None when it is none."""

    @property
    def cost(self) -> int:
        """How much is to be done: one for each secret, and for each kilobyte."""
        secrets = 1 if self.form == "text" else secret_count(self.document)
        return secrets + len(self.raw) // 1_024

    @property
    def left_plain(self) -> list[str]:
        """Paths of what looks like a secret and is none: texts in lists have no key."""
        return [] if self.form == "text" else unnamed_secrets(self.document)


async def read_submitted(raw: bytes, form: Form) -> Submitted:
    """A body, read.

    Raises:
        InvalidInput: `Bad JSON format of request body: …`, or too many secrets.
    """
    if form == "json":
        return Submitted(form, raw, await beside(raw, partial(load_json, raw)))
    try:
        return Submitted(form, raw, raw.decode())
    except UnicodeDecodeError:
        return Submitted(form, raw, None)


async def encrypted(encryption: Encryption, given: Submitted, scope: Scope) -> bytes:
    """The same with its secrets encrypted, of text all of it.

    Raises:
        InvalidInput: too many secrets, or too large ones.
        ApplicationError: no key provider, or it does not answer.
    """
    if given.document is None and given.form == "text":
        return (await encryption.encrypt_bytes(given.raw, scope)).encode()
    return await _written(given, encryption.encrypt(given.document, scope))


async def migrated(encryption: Encryption, given: Submitted, scope: Scope) -> bytes:
    """The same with each cipher made anew, all or nothing.

    Raises:
        CipherRefused: a secret is no cipher that can be read in this scope.
        ApplicationError: no key provider, or it does not answer.
    """
    if given.form == "json":
        return await _written(given, encryption.migrate(given.document, scope))
    text = given.raw.decode(errors="replace")  # no cipher has what is replaced
    if text == "" or is_placeholder(text):
        return given.raw
    # what a text holds need not be text
    return (await encryption.reencrypt_value(text, scope, scope.family)).encode()


# -- on the way in ---------------------------------------------------------------------------------


async def vault_value(encryption: Encryption, value: str, project: str) -> str:
    """A secret of the vault as it is kept: for all components of the project.

    Without keys it stays as it is, and the catalog refuses it unless it is a cipher.
    """
    if is_cipher(value) or not encryption.can_encrypt:
        return value
    return await encryption.encrypt_bytes(
        value.encode(), Scope(project=project), family="ProjectWideSecure"
    )


async def credentials(
    encryption: Encryption, document: Mapping[str, Any], project: str, component: str
) -> Mapping[str, Any]:
    """Granted credentials as they are kept: for their component in the project.

    Without keys they stay as they are, and the catalog refuses secrets in the clear.
    """
    if not encryption.can_encrypt:
        return document
    found: Mapping[str, Any] = await encryption.encrypt(document, Scope(component, project))
    return found


async def _written(given: Submitted, changed: Awaitable[Any]) -> bytes:
    document = await changed
    if given.form == "text":
        return str(document).encode()
    return (await beside(given.raw, partial(dump_json, document))).encode()
