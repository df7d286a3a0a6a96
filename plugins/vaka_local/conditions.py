"""Filters and orders as SQL. Values are always parameters, names always from the table."""

# ruff: noqa: S608 - names are quoted where they come from, values are parameters

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Context, Decimal, InvalidOperation
from types import MappingProxyType
from typing import Final

from vaka.errors import InvalidInput
from vaka.models.storage import DeleteWhere, ExportOptions, Filter, OrderBy
from vaka_local.duck import quote
from vaka_local.names import TIMESTAMP

NO_COLUMN: Final = "storage.tables.validation.columnNotExists"
"""Storage's word for a column that a filter, an order or a selection names and the table lacks."""
_SOURCE: Final = "t"
_EXACT: Final = "DECIMAL(38, 10)"  # 28 digits before the point: no integer of 64 bits loses one
_DIGITS: Final = Context(prec=38)
_TYPES: Final = {
    **dict.fromkeys(("STRING", "VARCHAR", "TEXT", "CHAR", "CHARACTER"), ""),
    **dict.fromkeys(("INTEGER", "INT", "BIGINT", "SMALLINT", "TINYINT"), _EXACT),
    **dict.fromkeys(("NUMERIC", "DECIMAL", "NUMBER"), _EXACT),
    **dict.fromkeys(("DOUBLE", "FLOAT", "REAL"), "DOUBLE"),
    **dict.fromkeys(("DATE",), "DATE"),
    **dict.fromkeys(("TIMESTAMP", "DATETIME"), "TIMESTAMP"),
    **dict.fromkeys(("BOOLEAN",), "BOOLEAN"),
}
_TRUTH: Final = {
    **dict.fromkeys(("true", "t", "yes", "y", "1"), True),
    **dict.fromkeys(("false", "f", "no", "n", "0"), False),
}
_OPERATORS: Final = {"eq": "=", "ne": "<>", "gt": ">", "ge": ">=", "lt": "<", "le": "<="}


def naive(moment: datetime) -> datetime:
    """A moment as DuckDB keeps it: in UTC, without a zone."""
    return moment.astimezone(UTC).replace(tzinfo=None)


def where(
    condition: ExportOptions | DeleteWhere,
    columns: Sequence[str],
    comparable: Mapping[str, str] = MappingProxyType({}),
) -> tuple[str, list[object]]:
    """A `WHERE` clause with its parameters, or nothing when all rows match.

    `comparable` says what columns are compared as that are not text.

    Raises:
        InvalidInput: a filter names a column that is not there, or compares what cannot be compared.
    """
    parts: list[str] = []
    parameters: list[object] = []
    for each in condition.filters:
        part, values = _filter(each, columns, comparable.get(each.column, ""))
        parts.append(part)
        parameters += values
    if condition.changed_since is not None:
        parts.append(f"{quote(TIMESTAMP)} >= ?")
        parameters.append(naive(condition.changed_since))
    if condition.changed_until is not None:
        parts.append(f"{quote(TIMESTAMP)} < ?")
        parameters.append(naive(condition.changed_until))
    return (f" WHERE {' AND '.join(parts)}" if parts else ""), parameters


def _filter(each: Filter, columns: Sequence[str], own: str) -> tuple[str, list[object]]:
    if each.column not in columns:
        raise InvalidInput(
            f'Cannot filter by column "{each.column}", column does not exist',
            path="filters",
            code=NO_COLUMN,
        )
    operator = _OPERATORS.get(each.operator)
    if operator is None:
        raise InvalidInput(
            f'"{each.operator}" is not an operator. There are: {", ".join(_OPERATORS)}.',
            path="filters",
        )
    if each.data_type is None and own:
        each = replace(each, data_type=own)
    kind = _type(each.data_type)
    if len(each.values) != 1 and each.operator not in {"eq", "ne"}:
        raise InvalidInput(
            f'The filter on column "{each.column}" has {len(each.values)} values, the operator '
            f'"{each.operator}" takes one.',
            path="filters",
        )
    if not each.values:
        raise InvalidInput(f'The filter on column "{each.column}" has no values.', path="filters")
    # a typed column is no text, also when it is to be compared as one
    column = (
        f"CAST({quote(each.column)} AS VARCHAR)"
        if own and not kind
        else _typed(quote(each.column), kind)
    )
    values: list[object] = [_value(value, kind, each) for value in each.values]
    parameter = f"CAST(? AS {kind or 'VARCHAR'})"
    if len(values) == 1:
        return f"{column} {operator} {parameter}", values
    # one parameter however many values there are
    negation = "NOT " if each.operator == "ne" else ""
    members = f"SELECT unnest(CAST(? AS {kind or 'VARCHAR'}[]))"
    return f"{column} {negation}IN ({members})", [values]


def _type(name: str | None) -> str:
    """The type to compare as, empty for text."""
    kind = _TYPES.get((name or "STRING").upper())
    if kind is None:
        raise InvalidInput(
            f'"{name}" is not a data type to compare by. There are: {", ".join(_TYPES)}.',
            path="dataType",
        )
    return kind


def _typed(column: str, kind: str) -> str:
    return f"TRY_CAST({column} AS {kind})" if kind else column


def _value(value: str, kind: str, each: Filter) -> object:
    try:
        if kind == _EXACT:
            return format(Decimal(value).quantize(Decimal("1e-10"), context=_DIGITS), "f")
        if kind == "DOUBLE":
            return float(value)
        if kind == "BOOLEAN":
            return _TRUTH[value.strip().lower()]
        if kind:
            return naive(_moment(value)).isoformat(sep=" ")
    except (ValueError, KeyError, InvalidOperation, OverflowError) as error:
        raise InvalidInput(
            f'"{value}" cannot be compared with column "{each.column}" as {each.data_type}.',
            path="filters",
        ) from error
    return value


def _moment(value: str) -> datetime:
    moment = datetime.fromisoformat(value)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def order(orders: Sequence[OrderBy], columns: Sequence[str]) -> str:
    """An `ORDER BY` clause, or nothing.

    Raises:
        InvalidInput: a column is not there.
    """
    parts = []
    for each in orders:
        if each.column not in columns:
            raise InvalidInput(
                f'Cannot order by column "{each.column}", column does not exist',
                path="orderBy",
                code=NO_COLUMN,
            )
        direction = "DESC" if each.descending else "ASC"
        # not what the selection calls by this name: that may be the text of it
        value = _typed(f"{_SOURCE}.{quote(each.column)}", _type(each.data_type))
        parts.append(f"{value} {direction} NULLS LAST")
    return f" ORDER BY {', '.join(parts)}" if parts else ""


def selection(
    options: ExportOptions,
    columns: Sequence[str],
    source: str,
    comparable: Mapping[str, str] = MappingProxyType({}),
    text: Callable[[str], str] = quote,
) -> tuple[str, list[object]]:
    """A `SELECT` of the part of the table `source` that is asked for, with its parameters.

    `comparable` is as for `where`; `text` makes the SQL of a column's value.

    Raises:
        InvalidInput: the options do not fit the table.
    """
    unknown = [name for name in options.columns if name not in columns]
    if unknown:
        raise InvalidInput(
            f'The table has no column "{unknown[0]}": it has {", ".join(columns)}.',
            path="columns",
            code=NO_COLUMN,
        )
    if len(set(options.columns)) != len(options.columns):
        raise InvalidInput("A column is asked for more than once.", path="columns")
    if options.limit is not None and options.limit < 0:
        raise InvalidInput("The limit is negative.", path="limit")
    clause, parameters = where(options, columns, comparable)
    names = [f"{text(name)} AS {quote(name)}" for name in options.columns or columns]
    if options.include_internal_timestamp:
        moment = f"strftime({quote(TIMESTAMP)}, '%Y-%m-%d %H:%M:%S.%f')"
        names.append(f"{moment} AS {quote(TIMESTAMP)}")
    limit = "" if options.limit is None else f" LIMIT {options.limit}"
    ordered = order(options.order_by, columns)
    statement = f"SELECT {', '.join(names)} FROM {source} AS {_SOURCE}{clause}{ordered}{limit}"
    return statement, parameters
