"""Types of columns: what they are called here, how DuckDB keeps them, and how text becomes a value.

The words are Snowflake's, which is what `backend_name` says. A number is a decimal of up to 38 digits, a
time has microseconds and no zone: one with an offset is kept in UTC. What has no base type of its own
(`VARIANT`, `TIME`, ...) is kept as text.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from vaka.errors import InvalidInput, MappingFailed
from vaka.models.storage import BASE_TYPES, ColumnDefinition
from vaka_local.duck import quote

_TEXT: Final = "VARCHAR"
_NUMBER: Final = "NUMBER"
_DIGITS: Final = 38
_LONGEST_TEXT: Final = 16_777_216
_ALIASES: Final = {
    "DECIMAL": _NUMBER,
    "DEC": _NUMBER,
    "NUMERIC": _NUMBER,
    "INT": _NUMBER,
    "INTEGER": _NUMBER,
    "BIGINT": _NUMBER,
    "SMALLINT": _NUMBER,
    "TINYINT": _NUMBER,
    "BYTEINT": _NUMBER,
    "STRING": _TEXT,
    "TEXT": _TEXT,
    "CHAR": _TEXT,
    "CHARACTER": _TEXT,
    "NCHAR": _TEXT,
    "NVARCHAR": _TEXT,
    "NVARCHAR2": _TEXT,
    "CHAR VARYING": _TEXT,
    "NCHAR VARYING": _TEXT,
    "FLOAT4": "FLOAT",
    "FLOAT8": "FLOAT",
    "DOUBLE": "FLOAT",
    "DOUBLE PRECISION": "FLOAT",
    "REAL": "FLOAT",
    "DATETIME": "TIMESTAMP_NTZ",
    "TIMESTAMP": "TIMESTAMP_NTZ",
    "TIMESTAMPNTZ": "TIMESTAMP_NTZ",
    "TIMESTAMP WITHOUT TIME ZONE": "TIMESTAMP_NTZ",
    "TIMESTAMPLTZ": "TIMESTAMP_LTZ",
    "TIMESTAMP WITH LOCAL TIME ZONE": "TIMESTAMP_LTZ",
    "TIMESTAMPTZ": "TIMESTAMP_TZ",
    "TIMESTAMP WITH TIME ZONE": "TIMESTAMP_TZ",
    "VARBINARY": "BINARY",
}
_INTEGERS: Final = {"INT", "INTEGER", "BIGINT", "SMALLINT", "TINYINT", "BYTEINT"}
_BASE: Final = {
    _TEXT: "STRING",
    "FLOAT": "FLOAT",
    "BOOLEAN": "BOOLEAN",
    "DATE": "DATE",
    "TIMESTAMP_NTZ": "TIMESTAMP",
    "TIMESTAMP_LTZ": "TIMESTAMP",
    "TIMESTAMP_TZ": "TIMESTAMP",
    "TIME": "STRING",
    "BINARY": "STRING",
    "VARIANT": "STRING",
    "OBJECT": "STRING",
    "ARRAY": "STRING",
}
_OF_BASE: Final = {
    "STRING": _TEXT,
    "INTEGER": _NUMBER,
    "NUMERIC": _NUMBER,
    "FLOAT": "FLOAT",
    "BOOLEAN": "BOOLEAN",
    "DATE": "DATE",
    "TIMESTAMP": "TIMESTAMP_NTZ",
}
_SCALE: Final = {"INTEGER": 0, "NUMERIC": 9}
"""Digits after the point of a number whose length nobody gives."""

_MARK: Final = "vaka value"
_SHOWN: Final = 50
"""Characters of a refused value that its error shows."""
_ZONE: Final = r".*:[0-9.]+\s*(Z|[+-][0-9]{2}(:?[0-9]{2})?)\s*"
_MIDNIGHT: Final = r"([ T]00:00(:00(\.0*)?)?(Z|[+-]00:?00)?)?"
_SHAPES: Final = {
    "INTEGER": r"\s*[+-]?[0-9]+(\.0*)?\s*",
    "NUMERIC": r"\s*[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?\s*",
    "FLOAT": r"(?i)\s*[+-]?(([0-9]+\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]+)?|inf|infinity|nan)\s*",
    "BOOLEAN": r"(?i)\s*(true|false|t|f|yes|no|y|n|1|0)\s*",
    "DATE": rf"\s*[0-9]{{1,4}}-[0-9]{{1,2}}-[0-9]{{1,2}}{_MIDNIGHT}\s*",
    "TIMESTAMP": r"\s*[0-9]{1,4}-[0-9]{1,2}-[0-9]{1,2}.*",
}
"""What text must look like, beside what DuckDB takes: that rounds, and knows more than we would say."""
_CALLED: Final = {"INTEGER": "Numeric", "NUMERIC": "Numeric", "FLOAT": "Numeric"}


# -- definitions -----------------------------------------------------------------------------------


def typed(definition: ColumnDefinition) -> ColumnDefinition:
    """The definition in our words: a type, its base type, and a length that it can have.

    Raises:
        InvalidInput: it cannot be.
    """
    base = (definition.base_type or "").strip().upper() or None
    if base is not None and base not in BASE_TYPES:
        raise _refused(
            definition, f'"{definition.base_type}" is not one of {", ".join(BASE_TYPES)}.'
        )
    given = " ".join((definition.type or "").upper().split())
    if not given:
        if base is None:
            return replace(definition, base_type=None, type=None, length=None)
        kind = _OF_BASE[base]
    else:
        kind = _ALIASES.get(given, given)
        if kind == _NUMBER:
            if given in _INTEGERS or base not in {"INTEGER", "NUMERIC"}:
                base = "INTEGER"
        elif kind in _BASE:
            base = _BASE[kind]
        else:
            raise _refused(definition, f'"{definition.type}" is not a type of this Storage.')
    length = (definition.length or "").replace(" ", "") or None
    if kind == _NUMBER:
        if length is not None:
            precision, scale = _number(definition, length)
            length = f"{precision},{scale}"
            base = "NUMERIC" if scale else "INTEGER"
    elif kind == _TEXT:
        if length is not None and not _is_between(length, 1, _LONGEST_TEXT):
            raise _refused(definition, f'"{length}" is not a length of {_TEXT}.')
    else:
        length = None
    return replace(definition, base_type=base, type=kind, length=length)


def kept(
    columns: Sequence[str], given: Sequence[ColumnDefinition], key: Sequence[str]
) -> tuple[ColumnDefinition, ...]:
    """Definitions of all columns of a new typed table, whose key is never empty."""
    by_name = {each.name: each for each in given}
    return tuple(_complete(by_name.get(name, ColumnDefinition(name)), key) for name in columns)


def _complete(definition: ColumnDefinition, key: Sequence[str]) -> ColumnDefinition:
    known = typed(definition)
    if known.type == _NUMBER and known.length is None:
        known = replace(known, length=f"{_DIGITS},{_SCALE[known.base_type or 'INTEGER']}")
    return replace(known, nullable=known.nullable and known.name not in key)


def changed(old: ColumnDefinition, new: ColumnDefinition, key: Sequence[str]) -> ColumnDefinition:
    """A column's definition once it is nullable and as long as `new` says; its type stays."""
    wanted = typed(new)
    nullable = wanted.nullable and old.name not in key
    if wanted.length is None or wanted.type != old.type:
        return replace(old, nullable=nullable)
    return replace(old, nullable=nullable, length=wanted.length, base_type=wanted.base_type)


def stored(definition: ColumnDefinition) -> str:
    """DuckDB's type."""
    match definition.base_type:
        case "INTEGER" | "NUMERIC":
            return f"DECIMAL({definition.length or f'{_DIGITS},0'})"
        case "FLOAT":
            return "DOUBLE"
        case "BOOLEAN" | "DATE" | "TIMESTAMP":
            return definition.base_type
        case _:
            return _TEXT


def _number(definition: ColumnDefinition, length: str) -> tuple[int, int]:
    precision, _, scale = length.partition(",")
    scale = scale or "0"
    if not _is_between(precision, 1, _DIGITS) or not _is_between(scale, 0, int(precision)):
        raise _refused(definition, f'"{length}" is not a length of {_NUMBER}: "38,0" is the most.')
    return int(precision), int(scale)


def _is_between(text: str, least: int, most: int) -> bool:
    return re.fullmatch(r"[0-9]{1,9}", text) is not None and least <= int(text) <= most


def _refused(definition: ColumnDefinition, why: str) -> InvalidInput:
    return InvalidInput(f'The type of column "{definition.name}": {why}', path="definitions")


# -- values ----------------------------------------------------------------------------------------


def value_of(text: str, index: int, definition: ColumnDefinition) -> str:
    """SQL that makes a value of what the SQL `text` gives; it fails with a mark that `failure` reads."""
    kind, base = stored(definition), definition.base_type
    wrong = f"error('{_MARK} {index} ' || left({text}, {_SHOWN + 1}))"
    if base == "STRING" or base is None:
        value = text
        if definition.length is not None:
            value = (
                f"CASE WHEN length({text}) > {int(definition.length)} THEN {wrong} ELSE {text} END"
            )
    else:
        cast = f"TRY_CAST({text} AS {kind})"
        if base == "TIMESTAMP":
            zoned = f"TRY_CAST({text} AS TIMESTAMPTZ) AT TIME ZONE 'UTC'"
            cast = f"CASE WHEN regexp_full_match({text}, '{_ZONE}') THEN {zoned} ELSE {cast} END"
        value = (
            f"CASE WHEN {text} IS NULL THEN NULL WHEN regexp_full_match({text}, '{_SHAPES[base]}') "
            f"AND {cast} IS NOT NULL THEN {cast} ELSE {wrong} END"
        )
    if definition.nullable:
        return value
    # it has to depend on the row, or DuckDB computes it before there is one
    missing = f"error('{_MARK} {index}' || coalesce({text}, ''))"
    return f"CASE WHEN {text} IS NULL THEN {missing} ELSE {value} END"


def failure(message: str, definitions: Sequence[ColumnDefinition]) -> MappingFailed | None:
    """What DuckDB's error means when it is about a value, else None."""
    # at its beginning: a reader's own error may quote a row that looks like ours
    found = re.match(rf"(?:Invalid Input Error: )?{_MARK} (\d+)(?: (.*))?$", message, re.DOTALL)
    if found is None:
        return None
    definition = definitions[int(found[1])]
    if found[2] is None:
        return empty(definition)
    value = found[2][:_SHOWN] + ("…" if len(found[2]) > _SHOWN else "")
    base = definition.base_type or "STRING"
    if base == "STRING":
        return MappingFailed(
            f"String '{value}' is too long for column \"{definition.name}\", which takes "
            f"{definition.length} characters."
        )
    called = _CALLED.get(base, base.capitalize())
    return MappingFailed(
        f"{called} value '{value}' is not recognized. Column \"{definition.name}\" takes {base}."
    )


def empty(definition: ColumnDefinition) -> MappingFailed:
    """A column has no value where it must have one."""
    return MappingFailed(
        f'Column "{definition.name}" has to have a value in every row, and there is one without.'
    )


def as_text(column: str) -> str:
    """A column's value as text, with nothing where there is none."""
    return f"coalesce(CAST({quote(column)} AS VARCHAR), '')"


def as_optional_text(column: str) -> str:
    """A column's value as text, null where there is none."""
    return f"CAST({quote(column)} AS VARCHAR)"


def comparable(definition: ColumnDefinition) -> str:
    """The word that filters compare a column by, empty for text."""
    base = definition.base_type
    return "" if base in {None, "STRING"} else str(base)
