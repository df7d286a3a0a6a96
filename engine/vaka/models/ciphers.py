"""Which values of a document are secret, and whether they are encrypted.

A scalar under a key that begins with `#` is a secret. It is either a cipher, which begins with one of
`PREFIXES`, or in the clear; in the clear it is written down nowhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from vaka.errors import InvalidInput, UserError
from vaka.models.catalog import Json

PREFIXES: Final = ("KBC::", "VAKA")
"""What the values begin with that some key provider has encrypted."""


def is_cipher(value: Json) -> bool:
    """Whether a value is encrypted."""
    return isinstance(value, str) and value.startswith(PREFIXES)


def refuse_plain_secrets(document: Json, what: str) -> None:
    """Refuse to store a document with a secret in the clear; `what` is what messages call it.

    Raises:
        InvalidInput: names the key, never the value.
    """
    for path, value in _secrets(document):
        if value not in (None, "") and not is_cipher(value):
            raise InvalidInput(
                f'The value of "{path}" of {what} must be encrypted before it is stored, and there '
                "is no key ring to do it with. Give it encrypted.",
                path=path,
            )


def refuse_ciphers(document: Json, what: str) -> None:
    """Refuse a document that holds what cannot be read; `what` is what messages call it.

    Raises:
        UserError: names the key.
    """
    for path, value in _secrets(document):
        if is_cipher(value):
            raise UserError(
                f'The value of "{path}" of {what} is encrypted, and there is no key ring to read it '
                "with."
            )


def _secrets(document: Json) -> Iterator[tuple[str, Json]]:
    """(Dotted path, value) of every scalar under a marked key."""
    stack: list[tuple[str, bool, Json]] = [("", False, document)]
    while stack:
        path, is_marked, value = stack.pop()
        match value:
            case Mapping():
                stack.extend(
                    (f"{path}.{key}" if path else key, key.startswith("#"), item)
                    for key, item in value.items()
                )
            case list() | tuple():
                stack.extend((f"{path}.{n}", False, item) for n, item in enumerate(value))
            case _ if is_marked:
                yield path, value
