"""What a mapping's filters mean to a backend (mapping.md sections 4.3 to 4.5, 5.2 and 6.13).

Moments that are relative are counted from `now`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any, Literal, cast

from vaka.errors import InvalidInput, MappingFailed
from vaka.models.mapping import EqualOperator, InputFile, InputTable, TagRule
from vaka.models.moment import parse_moment
from vaka.models.state import JobState
from vaka.models.storage import DeleteWhere, ExportOptions, FileQuery, Filter
from vaka.models.tree import is_blank, text

NOT_A_MOMENT = "changedSince has to be compatible with strtotime() or to be a unix timestamp."
FILES_LIMIT = 100
"""Files that one mapping item finds when it sets no limit."""


def moment(value: str, now: datetime) -> datetime:
    """The moment that a filter names.

    Raises:
        InvalidInput: it names none.
    """
    try:
        return parse_moment(value, now=now)
    except ValueError as error:
        raise InvalidInput(NOT_A_MOMENT) from error


def where(column: str | None, operator: EqualOperator, values: Iterable[str]) -> tuple[Filter, ...]:
    """The one filter of the old style, or none when it is not set."""
    values = tuple(values)
    return (Filter(column, values, operator),) if column and values else ()


def export_options(item: InputTable, state: JobState, now: datetime) -> ExportOptions:
    """Which part of a table an item asks for.

    Raises:
        InvalidInput: a date or the file type is not one.
    """
    file_type = item.file_type or "csv"
    if file_type not in {"csv", "parquet"}:
        raise InvalidInput(f'Invalid file type "{file_type}". Use "csv" or "parquet".')
    return ExportOptions(
        columns=item.columns,
        filters=where(item.where_column, item.where_operator, item.where_values),
        changed_since=_changed_since(item, state, now),
        limit=item.limit,
        file_type=cast(Literal["csv", "parquet"], file_type),
    )


def _changed_since(item: InputTable, state: JobState, now: datetime) -> datetime | None:
    if item.days:
        try:
            return now - timedelta(days=item.days)
        except OverflowError as error:
            raise InvalidInput(NOT_A_MOMENT) from error
    since = state.last_import_date(item.source) if item.is_adaptive else item.changed_since
    return moment(since, now) if since else None


def file_query(
    item: InputFile, last: str | None, *, run_id: str | None, now: datetime
) -> FileQuery:
    """Which files an item asks for; an adaptive one for those newer than the id `last`, if it is given.

    Raises:
        InvalidInput: a date, or the stored file id, is not one.
    """
    terms: list[str] = []
    if item.query:
        terms.append(item.query)
    if item.source_tags:
        terms.append(tag_query(item.source_tags))
    if item.file_ids:
        terms.append(f"id:({' OR '.join(item.file_ids)})")
    since_id: int | None = None
    if item.is_adaptive:
        since_id = _file_id(last) if last else None
    elif item.changed_since:
        since = moment(item.changed_since, now).isoformat(timespec="seconds")
        terms.append(f'created:["{since}" TO *]')
    return FileQuery(
        tags=item.tags,
        # each term stands alone, whatever operators a query of the author's has
        query=terms[0] if len(terms) == 1 else " AND ".join(f"({term})" for term in terms),
        since_id=since_id,
        run_id=_parent_run(run_id) if item.filter_by_run_id else None,
        limit=item.limit or max(FILES_LIMIT, len(item.file_ids)),
    )


def tag_query(rules: Iterable[TagRule]) -> str:
    """The query for files that carry all tags to be included, and none to be excluded."""
    return " AND ".join(
        f"{'NOT ' if rule.match == 'exclude' else ''}tags:{_quoted(rule.name)}" for rule in rules
    )


def _quoted(tag: str) -> str:
    escaped = tag.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _file_id(value: str) -> int:
    try:
        return int(value)
    except ValueError as error:
        raise InvalidInput(f'The stored lastImportId "{value}" is no file id.') from error


def _parent_run(run_id: str | None) -> str | None:
    return None if run_id is None else run_id.rpartition(".")[0] or run_id


def rows_to_delete(
    data: Mapping[str, Any], now: datetime, *, in_branch: bool = False
) -> tuple[DeleteWhere, ...]:
    """What a merged output table wants deleted before its load, each element on its own.

    `in_branch`: the job runs in a development branch that is told by prefixes.

    Raises:
        InvalidInput: a date is none.
        MappingFailed: values are to come from somewhere else than the filter.
    """
    if "delete_where" in data:
        return tuple(_delete_where(item, now, in_branch) for item in data["delete_where"])
    column = text(data.get("delete_where_column"))
    filters = where(column, data["delete_where_operator"], map(text, data["delete_where_values"]))
    return (DeleteWhere(filters),) if filters else ()


def _delete_where(item: Mapping[str, Any], now: datetime, in_branch: bool) -> DeleteWhere:
    dates = {
        key: moment(text(item[key]), now)
        for key in ("changed_since", "changed_until")
        if not is_blank(item.get(key))
    }
    filters = tuple(_delete_filter(each, in_branch) for each in item.get("where_filters", ()))
    return DeleteWhere(filters, **dates)


def _delete_filter(item: Mapping[str, Any], in_branch: bool) -> Filter:
    if "values_from_storage" in item:
        raise MappingFailed('Where filter "values_from_storage" is not yet supported')
    if "values_from_workspace" in item and in_branch:
        raise MappingFailed(
            'Using "values_from_workspace" as a delete filter is not supported in development '
            "branches."
        )
    if "values_from_workspace" in item:
        raise MappingFailed(
            'Where filter "values_from_workspace" needs a workspace, and there is none. '
            'Use "values_from_set".'
        )
    values = tuple(map(text, item["values_from_set"]))
    return Filter(text(item["column"]), values, item["operator"])
