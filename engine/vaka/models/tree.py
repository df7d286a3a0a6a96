"""A tree of typed nodes that checks a JSON document and fills in its defaults (mapping.md section 0.3).

A document goes through its tree twice. *Normalising* renames hyphenated keys, checks types and refuses
unknown keys; *finalising* adds defaults, demands what is required, and applies each node's own rules,
children before parents. So a wrong type or an unknown key is told before anything that is missing.
The given document is never changed. Any JSON value either passes or raises `InvalidInput`.
"""

from __future__ import annotations

import copy
import enum
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from vaka.errors import InvalidInput
from vaka.models.catalog import Json
from vaka.models.document import check_json

__all__ = [
    "ABSENT",
    "Absent",
    "Anything",
    "Bool",
    "Choice",
    "Int",
    "ListOf",
    "MapOf",
    "Node",
    "Object",
    "Rule",
    "Scalar",
    "absent_when_empty",
    "empty_as",
    "invalid",
    "is_blank",
    "null_as",
    "quoted",
    "text",
    "wrong_type",
]


class Absent(enum.Enum):
    """The one value that no document can hold."""

    ABSENT = "absent"


ABSENT: Final = Absent.ABSENT
Rule = Callable[[Any, str], Any]
"""Takes a finished value and its path, returns what it shall be; raises `InvalidInput`."""
Prepare = Callable[[Any], Any]
"""Takes a value as given, returns what is checked in its place; `ABSENT` drops it."""

_SHOWN = 200
"""Characters of a key or value that a message quotes."""
_SHOWN_KEYS = 10
_NEAR = 3
"""Edit distance from which on two names are strangers."""


def invalid(path: str, rule: str) -> InvalidInput:
    """The error of a rule that is not a matter of types."""
    return InvalidInput(f'Invalid configuration for path "{path}": {rule}', path=path)


def wrong_type(path: str, expected: str, value: Json) -> InvalidInput:
    """The error of a value that is of another type than it must be."""
    match value:
        case None:
            got = "null"
        case bool():
            got = "bool"
        case int():
            got = "int"
        case float():
            got = "float"
        case str():
            got = "string"
        case _:
            got = "array"
    return InvalidInput(
        f'Invalid type for path "{path}". Expected "{expected}", but got "{got}".', path=path
    )


def quoted(value: Json) -> str:
    """A value as messages show it: JSON, cut when it is long."""
    shown = value[: _SHOWN + 1] if isinstance(value, str) else value
    result = _clip(json.dumps(shown, ensure_ascii=False))
    return result.encode("utf-8", "backslashreplace").decode()


def text(value: Json) -> str:
    """A scalar as text: `true` and `false`, numbers as JSON writes them, nothing for null."""
    if isinstance(value, str):
        return value
    return "" if value is None else json.dumps(value)


def is_blank(value: Json) -> bool:
    """Whether a scalar counts as not given: null or the empty string."""
    return value is None or value == ""


def null_as(replacement: Json | Absent) -> Prepare:
    """Reads null as `replacement`."""
    return lambda value: replacement if value is None else value


def empty_as(replacement: Json | Absent) -> Prepare:
    """Reads null and the empty string as `replacement`."""
    return lambda value: replacement if is_blank(value) else value


absent_when_empty: Final = empty_as(ABSENT)


@dataclass(frozen=True, kw_only=True)
class Node:
    """What every node has in common; the base accepts nothing by itself."""

    required: bool = False
    default: Json | Absent = ABSENT
    """Value of a missing node."""
    prepare: Prepare | None = None
    rules: tuple[Rule, ...] = ()

    def parse(self, value: Json, path: str) -> Any:
        """The checked value with defaults filled in; `path` is what messages call it.

        Raises:
            InvalidInput: the value does not fit.
        """
        check_json(value, path=path)
        return self.finalise(self.normalise(value, path), path)

    def normalise(self, value: Json, path: str) -> Json | Absent:
        """First pass: types and names."""
        if self.prepare is not None:
            value = self.prepare(value)
        return ABSENT if value is ABSENT else self._typed(value, path)

    def finalise(self, value: Json, path: str) -> Json | Absent:
        """Second pass: defaults and rules."""
        value = self._finished(value, path)
        for rule in self.rules:
            if value is ABSENT:
                break
            value = rule(value, path)
        return value

    def missing(self) -> Json | Absent:
        """What stands for a node that is not given."""
        return copy.deepcopy(self.default)

    def _typed(self, value: Json, path: str) -> Json | Absent:
        raise NotImplementedError

    def _finished(self, value: Json, path: str) -> Json | Absent:  # noqa: ARG002
        return value


@dataclass(frozen=True, kw_only=True)
class Anything(Node):
    """Free form: kept as it is."""

    def _typed(self, value: Json, path: str) -> Json | Absent:  # noqa: ARG002
        return value


@dataclass(frozen=True, kw_only=True)
class Scalar(Node):
    """A string, number, boolean or null."""

    non_empty: bool = False

    def _typed(self, value: Json, path: str) -> Json | Absent:
        if isinstance(value, list | dict):
            raise wrong_type(path, "scalar", value)
        return value

    def _finished(self, value: Json, path: str) -> Json | Absent:
        if self.non_empty and is_blank(value):
            raise InvalidInput(
                f'The path "{path}" cannot contain an empty value, but got {quoted(value)}.',
                path=path,
            )
        return value


@dataclass(frozen=True, kw_only=True)
class Bool(Node):
    """A boolean, never coerced; null counts as not given."""

    def _typed(self, value: Json, path: str) -> Json | Absent:
        if value is None:
            return ABSENT
        if not isinstance(value, bool):
            raise wrong_type(path, "bool", value)
        return value


@dataclass(frozen=True, kw_only=True)
class Int(Node):
    """An integer, never coerced."""

    minimum: int | None = None

    def _typed(self, value: Json, path: str) -> Json | Absent:
        if isinstance(value, bool) or not isinstance(value, int):
            raise wrong_type(path, "int", value)
        return value

    def _finished(self, value: Json, path: str) -> Json | Absent:
        if self.minimum is not None and value < self.minimum:
            raise InvalidInput(
                f'The value {value} is too small for path "{path}". '
                f"Should be greater than or equal to {self.minimum}",
                path=path,
            )
        return value


@dataclass(frozen=True, kw_only=True)
class Choice(Node):
    """One of a closed list of words; null counts as not given."""

    words: tuple[str, ...]

    def _typed(self, value: Json, path: str) -> Json | Absent:
        if isinstance(value, list | dict):
            raise wrong_type(path, "scalar", value)
        return ABSENT if value is None else value

    def _finished(self, value: Json, path: str) -> Json | Absent:
        if value not in self.words:
            words = ", ".join(map(quoted, self.words))
            raise InvalidInput(
                f'The value {quoted(value)} is not allowed for path "{path}". '
                f"Permissible values: {words}.",
                path=path,
            )
        return value


@dataclass(frozen=True, kw_only=True)
class ListOf(Node):
    """A list. Missing, it is empty, unless `optional`; null is the empty list.

    An object is read as the list of its values: it is how lists with gaps arrive from some writers.
    """

    item: Node
    optional: bool = False
    """A missing list stays missing."""
    remove_empty: bool = False
    """An empty list counts as missing."""
    minimum: int = 0

    def missing(self) -> Json | Absent:
        return ABSENT if self.optional or self.remove_empty else []

    def _typed(self, value: Json, path: str) -> Json | Absent:
        if value is None:
            value = []
        elif isinstance(value, dict):
            value = list(value.values())
        elif not isinstance(value, list):
            raise wrong_type(path, "array", value)
        items = (self.item.normalise(item, f"{path}.{n}") for n, item in enumerate(value))
        return [item for item in items if item is not ABSENT]

    def _finished(self, value: Json, path: str) -> Json | Absent:
        if len(value) < self.minimum:
            raise InvalidInput(
                f'The path "{path}" should have at least {self.minimum} element(s) defined.',
                path=path,
            )
        items = [self.item.finalise(item, f"{path}.{n}") for n, item in enumerate(value)]
        return ABSENT if self.remove_empty and not items else items


@dataclass(frozen=True, kw_only=True)
class MapOf(Node):
    """An object with any keys, its values all alike; keys are kept as they are."""

    item: Node
    optional: bool = False

    def missing(self) -> Json | Absent:
        return ABSENT if self.optional else {}

    def _typed(self, value: Json, path: str) -> Json | Absent:
        items = (
            (key, self.item.normalise(item, _child(path, key)))
            for key, item in _mapping(value, path).items()
        )
        return {key: item for key, item in items if item is not ABSENT}

    def _finished(self, value: Json, path: str) -> Json | Absent:
        return {key: self.item.finalise(item, _child(path, key)) for key, item in value.items()}


@dataclass(frozen=True, kw_only=True)
class Object(Node):
    """An object with known keys. Missing, it stays missing; null and `[]` are the empty object."""

    children: Mapping[str, Node] = field(default_factory=dict)
    extra: Literal["refuse", "keep", "drop"] = "refuse"

    def _typed(self, value: Json, path: str) -> Json | Absent:
        result: dict[str, Json] = {}
        unknown: list[str] = []
        for key, item in _underscored(_mapping(value, path)).items():
            child = self.children.get(key)
            if child is not None:
                normalised = child.normalise(item, f"{path}.{key}")
                if normalised is not ABSENT:
                    result[key] = normalised
            elif self.extra == "keep":
                result[key] = item
            elif self.extra == "refuse":
                unknown.append(key)
        if unknown:
            raise _unknown_keys(unknown, self.children, path)
        return result

    def _finished(self, value: Json, path: str) -> Json | Absent:
        result = dict(value)
        for key, child in self.children.items():
            if key not in result and child.required:
                raise InvalidInput(
                    f'The child config "{key}" under "{path}" must be configured.',
                    path=f"{path}.{key}",
                )
            final = (
                child.finalise(result[key], f"{path}.{key}") if key in result else child.missing()
            )
            if final is not ABSENT:
                result[key] = final
            else:
                result.pop(key, None)
        return result


def _mapping(value: Json, path: str) -> dict[str, Json]:
    """`value` as an object; a list is one with its indexes as keys, as it is for PHP."""
    if value is None:
        return {}
    if isinstance(value, list):
        return {str(index): item for index, item in enumerate(value)}
    if not isinstance(value, dict):
        raise wrong_type(path, "array", value)
    return value


def _underscored(value: dict[str, Json]) -> dict[str, Json]:
    """`value` with `some-key` called `some_key`, unless a key of that name is there."""
    return {
        name if "-" in key and "_" not in key and (name := key.replace("-", "_")) not in value
        else key: item
        for key, item in value.items()
    }  # fmt: skip


def _unknown_keys(unknown: list[str], known: Iterable[str], path: str) -> InvalidInput:
    shown = ", ".join(map(_plain, unknown[:_SHOWN_KEYS]))
    if len(unknown) > _SHOWN_KEYS:
        shown += ", …"
    plural = "s" if len(unknown) > 1 else ""
    near = sorted(
        (distance, name)
        for name in known
        if (distance := min(_distance(key, name) for key in unknown[:_SHOWN_KEYS])) < _NEAR
    )
    if near:
        names = ", ".join(f'"{name}"' for _, name in near)
        hint = f" Did you mean {names}?"
    else:
        names = ", ".join(f'"{name}"' for name in sorted(known))
        hint = f" Available option{' is' if names.count(',') == 0 else 's are'} {names}."
        if not names:
            hint = ""
    return InvalidInput(f'Unrecognized option{plural} "{shown}" under "{path}".{hint}', path=path)


def _distance(one: str, other: str) -> int:
    """Levenshtein distance, or `_NEAR` when it is at least that."""
    if abs(len(one) - len(other)) >= _NEAR:
        return _NEAR
    row = list(range(len(other) + 1))
    for i, letter in enumerate(one, 1):
        before, row[0] = row[0], i
        for j, wanted in enumerate(other, 1):
            cost = min(row[j] + 1, row[j - 1] + 1, before + (letter != wanted))
            before, row[j] = row[j], cost
    return min(row[-1], _NEAR)


def _child(path: str, key: str) -> str:
    return f"{path}.{_plain(key)}"


def _plain(key: str) -> str:
    """A key as messages show it: as it is, but bounded and writable."""
    return _clip(key).encode("utf-8", "backslashreplace").decode()


def _clip(shown: str) -> str:
    return shown if len(shown) <= _SHOWN else shown[:_SHOWN] + "…"
