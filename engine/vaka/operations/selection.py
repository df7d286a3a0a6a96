"""Which rows and columns a request asks for (storage-api.md section 7.8)."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, cast, get_args

from vaka.errors import InvalidInput
from vaka.models.catalog import Json
from vaka.models.moment import parse_moment
from vaka.models.storage import ExportOptions, Filter, Operator, OrderBy

OPERATORS: Mapping[str, Operator] = {
    **{word: word for word in get_args(Operator)},
    "neq": "ne",
}
"""Operators of filters as clients write them, and our word for each."""
FORMATS = ("rfc", "raw", "escaped")
"""What clients may ask for; all of them are RFC 4180."""


def export_options(
    params: Mapping[str, Json], *, now: datetime | None = None, header: bool = False
) -> ExportOptions:
    """The options of an export whose parameters a client gave.

    `now` is what relative times count from; None is this moment. Flags are booleans already, and what
    may be a list or a text with commas is either.

    Raises:
        InvalidInput: `path` names the parameter that cannot be.
    """
    if params.get("format") not in (None, *FORMATS):
        raise InvalidInput(f"format: must be one of {', '.join(FORMATS)}.", path="format")
    limit = params.get("limit")
    return ExportOptions(
        columns=words(params.get("columns"), "columns"),
        filters=filters(params),
        changed_since=moment(params, "changedSince", now),
        changed_until=moment(params, "changedUntil", now),
        limit=None if limit in (None, "") else _count(limit, "limit"),
        order_by=tuple(_order(each) for each in _objects(params.get("orderBy"), "orderBy")),
        header=header,
        gzip=bool(params.get("gzip")),
        file_type="parquet" if params.get("fileType") == "parquet" else "csv",
        include_internal_timestamp=bool(params.get("includeInternalTimestamp")),
    )


def filters(params: Mapping[str, Json]) -> tuple[Filter, ...]:
    """The conditions on columns, all of which must hold: `whereColumn` and `whereFilters`."""
    found = []
    column = params.get("whereColumn")
    values = texts(params.get("whereValues"), "whereValues")
    if column:
        if not values:
            raise InvalidInput(
                'Invalid request:\n - whereColumn: "To use "whereColumn" specify "whereValues"."',
                path="whereColumn",
                code="validation.failed",
            )
        operator = _operator(params.get("whereOperator") or "eq", "whereOperator")
        found.append(Filter(str(column), values, operator))
    for index, each in enumerate(_objects(params.get("whereFilters"), "whereFilters")):
        path = f"whereFilters.{index}"
        given = texts(each.get("values"), f"{path}.values")
        if not each.get("column") or not given:
            raise InvalidInput(f"{path}: must have a column and values.", path=path)
        kind = each.get("dataType")
        found.append(
            Filter(
                str(each["column"]),
                given,
                _operator(each.get("operator") or "eq", f"{path}.operator"),
                None if not kind else str(kind),
            )
        )
    return tuple(found)


def moment(params: Mapping[str, Json], name: str, now: datetime | None = None) -> datetime | None:
    """A time as Unix seconds, an ISO date or words such as `-2 days`."""
    value = params.get(name)
    if value in (None, ""):
        return None
    try:
        return parse_moment(str(value), now=now)
    except ValueError as error:
        raise InvalidInput(
            f"{name}: must be a time such as '-1 day' or '2024-01-31T12:00:00Z'.", path=name
        ) from error


def words(value: Json, name: str) -> tuple[str, ...]:
    """A list of names, or a text with commas between them."""
    if isinstance(value, str):
        return tuple(word for word in value.split(",") if word)
    return tuple(word for word in texts(value, name) if word)


def texts(value: Json, name: str) -> tuple[str, ...]:
    """A list of scalars as texts; one value is a list of one."""
    if value is None:
        return ()
    given = value if isinstance(value, list) else [value]
    for each in given:
        if isinstance(each, bool) or not isinstance(each, str | int | float):
            raise InvalidInput(f"{name}: must be a list of texts.", path=name)
    return tuple(map(str, given))


def _operator(value: Json, name: str) -> Operator:
    found = OPERATORS.get(str(value))
    if found is None:
        raise InvalidInput(f"{name}: must be one of {', '.join(OPERATORS)}.", path=name)
    return found


def _order(each: Mapping[str, Any]) -> OrderBy:
    direction = str(each.get("order") or "asc").lower()
    if not each.get("column") or direction not in {"asc", "desc"}:
        raise InvalidInput("orderBy: must have a column, and an order asc or desc.", path="orderBy")
    kind = each.get("dataType")
    return OrderBy(str(each["column"]), direction == "desc", None if not kind else str(kind))


def _objects(value: Json, name: str) -> list[dict[str, Any]]:
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
        raise InvalidInput(f"{name}: must be a list of objects.", path=name)
    return cast("list[dict[str, Any]]", value)


def _count(value: Json, name: str) -> int:
    text = str(value)
    if isinstance(value, bool) or not (text.isascii() and text.isdigit() and len(text) < 19):
        raise InvalidInput(f"{name}: must be a whole number from 0 on.", path=name)
    return int(text)
