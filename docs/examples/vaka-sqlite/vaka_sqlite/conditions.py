"""Filters as SQL. Values are always bound; a column's name is written only when the table has it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Final

from vaka.errors import InvalidInput
from vaka.models.storage import DeleteWhere, ExportOptions, Filter, OrderBy
from vaka_sqlite.database import microseconds, number

_COMPARISONS: Final = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}
_TEXT: Final = {"", "CHAR", "STRING", "TEXT", "VARCHAR"}
_NUMBERS: Final = {"BIGINT", "DECIMAL", "DOUBLE", "FLOAT", "INTEGER", "NUMERIC", "REAL", "SMALLINT"}


def quoted(name: str) -> str:
    """A name as SQL has it."""
    return '"' + name.replace('"', '""') + '"'


def where(
    asked: ExportOptions | DeleteWhere, columns: Sequence[str]
) -> tuple[str, list[str | float | int]]:
    """The condition on rows of a table with `columns`, and what is bound in it."""
    terms = ["TRUE"]
    values: list[str | float | int] = []
    for each in asked.filters:
        term, value = _filter(each, columns)
        terms.append(term)
        values.append(value)
    if asked.changed_since is not None:
        terms.append("_timestamp >= ?")
        values.append(microseconds(asked.changed_since))
    if asked.changed_until is not None:
        terms.append("_timestamp < ?")
        values.append(microseconds(asked.changed_until))
    return " AND ".join(terms), values


def order_by(orders: Sequence[OrderBy], columns: Sequence[str]) -> str:
    """The ORDER BY of an export, or nothing."""
    terms = [
        f"{_operand(each.column, each.data_type, columns)}"
        f" {'DESC' if each.descending else 'ASC'} NULLS LAST"  # null: no number
        for each in orders
    ]
    return f" ORDER BY {', '.join(terms)}" if terms else ""


def _filter(asked: Filter, columns: Sequence[str]) -> tuple[str, str | float]:
    operand = _operand(asked.column, asked.data_type, columns)
    if not asked.values:
        raise InvalidInput(f'The filter on "{asked.column}" has no values.', path="values")
    values = [_number(value) if operand.startswith("number(") else value for value in asked.values]
    if asked.operator in {"eq", "ne"}:
        word = "IN" if asked.operator == "eq" else "NOT IN"
        # as one JSON document: the number of values that SQLite binds is limited
        return f"{operand} {word} (SELECT value FROM json_each(?))", json.dumps(values)
    if len(values) > 1:
        raise InvalidInput(f'Operator "{asked.operator}" takes one value.', path="values")
    return f"{operand} {_COMPARISONS[asked.operator]} ?", values[0]


def _operand(column: str, data_type: str | None, columns: Sequence[str]) -> str:
    if column not in columns:
        raise InvalidInput(f'There is no column "{column}".', path="columns")
    kind = (data_type or "").upper()
    if kind in _TEXT:
        return quoted(column)
    if kind not in _NUMBERS:
        raise InvalidInput(f'Comparing as "{data_type}" is not supported.', path="dataType")
    return f"number({quoted(column)})"


def _number(value: str) -> float:
    result = number(value)
    if result is None:
        raise InvalidInput(f'"{value}" is not a number.', path="values")
    return result
