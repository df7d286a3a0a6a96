"""Which values of a document are secrets, in a copy of the document that they can be replaced in.

A scalar or null under a key that begins with `#` is one; so is a document that is nothing but a scalar.
What stands in a list has no key and stays (encryption.md section 6).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

from vaka.encryption.numerals import Numeral
from vaka.errors import ApplicationError, InvalidInput
from vaka.models.catalog import Json
from vaka.models.ciphers import LEGACY_PREFIXES, split_cipher

MAX_VALUES: Final = 10_000
"""Secrets in one document."""
_PLACEHOLDER: Final = re.compile(r"\{\{\s*[A-Za-z0-9_.-]+\s*\}\}")
_SCALARS: Final = frozenset({int, float, bool, Numeral, type(None)})
_CONTAINERS: Final = (dict, list, tuple, Mapping)
"""In this order: what most are is told at once."""
_MOST_DIGITS: Final = 14
_SMALLEST_EXPONENT: Final = 4

Path = tuple[Any, ...] | None
"""A linked list: what is above, and the key or index. None is the document itself."""


class Slot(NamedTuple):
    """A secret of a document, in the copy it may be replaced in."""

    container: Any
    key: Any
    value: Json
    above: Path

    @property
    def is_root(self) -> bool:
        """Whether it is the whole document."""
        return isinstance(self.container, list)  # of the items of lists none is a secret

    @property
    def name(self) -> str:
        """The bare key."""
        return "" if self.is_root else str(self.key)

    @property
    def path(self) -> str:
        """Where it is, such as `parameters.list[0].#password`."""
        return "" if self.is_root else _spelled((self.above, self.key))

    def put(self, value: Json) -> None:
        """Replace it."""
        self.container[self.key] = value


class Copy:
    """A copy of a document, and its secrets in the order in which they stand in it.

    Raises:
        InvalidInput: there are more than `MAX_VALUES`.
        ApplicationError: the document holds what is not JSON.
    """

    def __init__(self, document: Json) -> None:
        self._root: list[Json] = [document]
        self.slots: list[Slot] = []
        self.unnamed: list[str] = []
        """Paths of texts in lists under marked keys: they look like secrets, and stay as they are."""
        if isinstance(document, Mapping):
            self._root[0] = top = dict(document)
            self._walk(top)
        elif isinstance(document, list | tuple):
            self._root[0] = items = list(document)
            self._walk(items)
        elif document is not None and not isinstance(document, str | int | float | Numeral):
            raise ApplicationError(
                "Only stdClass, array and string are supported types for encryption."
            )
        elif document is not None:
            self.slots.append(Slot(self._root, 0, document, None))

    @property
    def document(self) -> Json:
        """The copy."""
        return self._root[0]

    def _walk(self, top: dict[str, Any] | list[Any]) -> None:
        slots, new = self.slots, tuple.__new__  # a call of the class costs twice as much
        # one iterator a level, so that secrets come in order and no depth brings it down
        levels: list[tuple[Any, Iterator[tuple[Any, Any]], Path, bool]] = [
            (top, _members(top), None, False)
        ]
        while levels:
            container, members, above, is_marked = levels[-1]
            is_list = isinstance(container, list)
            for key, value in members:
                if type(value) is str:  # nearly all of them
                    if is_list:
                        if is_marked:
                            self.unnamed.append(_spelled((above, key)))
                    elif key[:1] == "#":
                        slots.append(new(Slot, (container, key, value, above)))
                    continue
                if is_list and type(value) in _SCALARS:
                    continue
                if isinstance(value, _CONTAINERS):
                    child: Any = list(value) if isinstance(value, list | tuple) else dict(value)
                    container[key] = child
                    marked = is_marked if is_list else key.startswith("#")
                    levels.append((child, _members(child), (above, key), marked))
                    break
                if value is not None and not isinstance(value, str | int | float | Numeral):
                    raise ApplicationError(
                        "Invalid item $key - only stdClass, array and scalar can be encrypted."
                    )
                if not is_list and key[:1] == "#":
                    slots.append(Slot(container, key, value, above))
            else:
                levels.pop()
            if len(slots) > MAX_VALUES:
                raise InvalidInput(
                    f"The document has more than {MAX_VALUES} values to encrypt or decrypt."
                )


def _members(container: Any) -> Iterator[tuple[Any, Any]]:
    # replacing the value of a key that is there does not disturb what walks over them
    return iter(enumerate(container) if isinstance(container, list) else container.items())


def _spelled(path: Path) -> str:
    parts: list[str] = []
    while path is not None:
        path, key = path
        parts.append(f"[{key}]" if isinstance(key, int) else f".{key}")
    return "".join(reversed(parts)).removeprefix(".")


def is_placeholder(value: Json) -> bool:
    """Whether a value is one variable placeholder and nothing else."""
    return (
        isinstance(value, str) and value[:2] == "{{" and _PLACEHOLDER.fullmatch(value) is not None
    )


def as_text(value: Json) -> str:
    """The text that is encrypted for a scalar; the type is lost.

    Short decimals lose zeros at their end, as ever. All other numbers are as they were written, so that
    no digit is lost.
    """
    match value:
        case str():
            return value
        case None | False:
            return ""
        case True:
            return "1"
        case Numeral():
            return _short(value.text)
        case _:
            return _short(str(value))


def _short(literal: str) -> str:
    sign = "-" if literal.startswith("-") else ""
    whole, point, fraction = literal.removeprefix("-").partition(".")
    digits = f"{whole}{fraction}"
    if not point or not digits.isdecimal():
        return literal
    shown = fraction.rstrip("0")
    significant = f"{whole}{shown}".lstrip("0")
    zeros = len(shown) - len(shown.lstrip("0"))
    if len(significant) > _MOST_DIGITS or (whole == "0" and zeros >= _SMALLEST_EXPONENT):
        return literal
    return f"{sign}{whole}.{shown}" if shown else f"{sign}{whole}"


def secret_count(document: Json) -> int:
    """How many secrets a document has; `InvalidInput` when there are more than `MAX_VALUES`."""
    return len(Copy(document).slots)


def plain_secrets(document: Json) -> list[str]:
    """Paths of the secrets that are in the clear: neither cipher nor placeholder, nor empty."""
    return [
        slot.path
        for slot in Copy(document).slots
        if slot.value not in (None, "")
        and not (isinstance(slot.value, str) and split_cipher(slot.value))
        and not is_placeholder(slot.value)
    ]


def legacy_secrets(document: Json) -> list[str]:
    """Paths of the secrets that are ciphers of the kinds that are read and never written."""
    found = []
    for slot in Copy(document).slots:
        parts = split_cipher(slot.value) if isinstance(slot.value, str) else None
        if parts is not None and parts[0] in LEGACY_PREFIXES:
            found.append(slot.path)
    return found


def replace_secrets(document: Json, value: str) -> Json:
    """A copy of a document with `value` in place of each secret that is not empty."""
    copy = Copy(document)
    for slot in copy.slots:
        if slot.value not in (None, ""):
            slot.put(value)
    return copy.document


def unnamed_secrets(document: Json) -> list[str]:
    """Paths of texts in lists under marked keys: `#list[0]`. They are not encrypted, by contract."""
    return Copy(document).unnamed
