from datetime import UTC, datetime
from typing import Any

import pytest

from vaka.errors import InvalidInput, MappingFailed
from vaka.mapping.filters import export_options, file_query, moment, rows_to_delete
from vaka.mapping.manifests import merge
from vaka.models.mapping import InputFile, InputTable
from vaka.models.state import JobState, file_key
from vaka.models.storage import DeleteWhere, ExportOptions, Filter

NOW = datetime(2024, 3, 31, 15, 30, 20, tzinfo=UTC)
NO_STATE = JobState()


def options(state: JobState = NO_STATE, **item: Any) -> ExportOptions:
    return export_options(InputTable.parse({"source": "in.c-main.t", **item}), state, NOW)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1700000000", datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)),
        ("-2 days", datetime(2024, 3, 29, 15, 30, 20, tzinfo=UTC)),
        ("2 weeks 1 hour ago", datetime(2024, 3, 17, 14, 30, 20, tzinfo=UTC)),
        ("yesterday", datetime(2024, 3, 30, tzinfo=UTC)),
        ("now", NOW),
        ("2022-06-03T03:31:43+0200", datetime(2022, 6, 3, 1, 31, 43, tzinfo=UTC)),
        ("2024-01-31", datetime(2024, 1, 31, tzinfo=UTC)),
    ],
)
def test_a_date_is_a_timestamp_an_offset_or_absolute(text: str, expected: datetime) -> None:
    assert moment(text, NOW) == expected
    assert options(changed_since=text).changed_since == expected


def test_what_is_no_date_is_told_in_the_words_of_storage() -> None:
    with pytest.raises(InvalidInput) as caught:
        options(changed_since="-1 light year")
    assert caught.value.message == (
        "changedSince has to be compatible with strtotime() or to be a unix timestamp."
    )


@pytest.mark.scenario("mapping", 9)
@pytest.mark.scenario("mapping", 11)
@pytest.mark.scenario("mapping", 76)
@pytest.mark.parametrize(
    "item",
    [
        {},
        {"days": 0},
        {"days": None},
        {"changed_since": ""},
        {"changed_since": None},
        {"where_column": "", "where_values": []},
        {"days": None, "changed_since": None},
    ],
)
def test_filters_that_say_nothing_filter_nothing(item: dict[str, Any]) -> None:
    assert options(**item) == ExportOptions()


def test_days_are_counted_back_from_now() -> None:
    assert options(days=3).changed_since == datetime(2024, 3, 28, 15, 30, 20, tzinfo=UTC)
    with pytest.raises(InvalidInput, match="changedSince"):
        options(days=10**9)


def test_an_item_becomes_export_options() -> None:
    assert options(
        columns=["b", "a"],
        where_column="status",
        where_operator="ne",
        where_values=["void", 1, True, None],
        limit=5,
        file_type="parquet",
    ) == ExportOptions(
        columns=("b", "a"),
        filters=(Filter("status", ("void", "1", "true", ""), "ne"),),
        limit=5,
        file_type="parquet",
    )


@pytest.mark.scenario("mapping", 78)
def test_column_types_select_columns() -> None:
    types = [{"source": "bar", "type": "VARCHAR"}, {"source": "foo", "destination": "x"}]
    assert options(column_types=types) == options(columns=["bar", "foo"])


def test_a_file_type_that_does_not_exist_is_refused() -> None:
    with pytest.raises(InvalidInput, match=r'Invalid file type "xls". Use "csv" or "parquet".'):
        options(file_type="xls")


def state(date: str, source: str = "in.c-main.t") -> JobState:
    entry = {"source": source, "lastImportDate": date}
    return JobState.parse({"storage": {"input": {"tables": [entry]}}})


def test_an_adaptive_read_goes_on_where_the_last_one_ended() -> None:
    since = "2024-03-01T00:00:00.250000+0000"
    adaptive = options(state(since), changed_since="adaptive")
    assert adaptive.changed_since == datetime(2024, 3, 1, 0, 0, 0, 250_000, tzinfo=UTC)
    assert options(state(since)).changed_since is None
    assert options(state(since, "in.c-main.T"), changed_since="adaptive").changed_since is None
    assert options(state(""), changed_since="adaptive").changed_since is None
    with pytest.raises(InvalidInput, match="strtotime"):
        options(state("nonsense"), changed_since="adaptive")


def query(stored: JobState | None = NO_STATE, run_id: str | None = None, **item: Any) -> Any:
    files = InputFile.parse(item)
    last = None if stored is None else stored.newest_files.get(file_key(files.state_tags))
    return file_query(files, last, run_id=run_id, now=NOW)


def tags(*names: str, match: str = "include") -> list[dict[str, str]]:
    return [{"name": name, "match": match} for name in names]


def test_tags_are_any_of_and_limits_default_to_a_hundred() -> None:
    found = query(tags=["a", "b"])
    assert (found.tags, found.query, found.limit) == (("a", "b"), "", 100)
    assert query(tags=["a"], limit=3).limit == 3


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        (
            {"source": {"tags": [*tags("a", "b"), *tags("c", match="exclude")]}},
            'tags:"a" AND tags:"b" AND NOT tags:"c"',
        ),
        ({"source": {"tags": tags('a"b\\')}}, 'tags:"a\\"b\\\\"'),
        ({"query": "name: x OR y"}, "name: x OR y"),
        (
            {"query": "name: x OR y", "source": {"tags": tags("a", "b")}},
            '(name: x OR y) AND (tags:"a" AND tags:"b")',
        ),
        ({"tags": ["a"], "changed_since": "-1 hour"}, 'created:["2024-03-31T14:30:20+00:00" TO *]'),
        (
            {"source": {"tags": tags("a")}, "changed_since": "2024-03-01"},
            '(tags:"a") AND (created:["2024-03-01T00:00:00+00:00" TO *])',
        ),
        ({"file_ids": [1, "2"]}, "id:(1 OR 2)"),
    ],
)
def test_an_item_becomes_a_query(item: dict[str, Any], expected: str) -> None:
    assert query(**item).query == expected


def test_all_files_asked_for_by_id_are_found() -> None:
    assert query(file_ids=list(range(150))).limit == 150


def test_an_adaptive_item_asks_for_what_is_newer() -> None:
    stored = JobState.parse(
        {"storage": {"input": {"files": [{"tags": tags("a", "b"), "lastImportId": 7}]}}}
    )
    both = {"tags": tags("a", "b")}
    assert query(stored, source=both, changed_since="adaptive").since_id == 7
    assert query(stored, source=both).since_id is None
    assert query(None, source=both, changed_since="adaptive").since_id is None
    swapped = {"tags": tags("b", "a")}
    assert query(stored, source=swapped, changed_since="adaptive").since_id is None
    assert query(stored, tags=["a", "b"], changed_since="adaptive").since_id is None


def test_a_stored_file_id_that_is_none_is_told() -> None:
    stored = JobState.parse(
        {"storage": {"input": {"files": [{"tags": [{"name": "a"}], "lastImportId": "x"}]}}}
    )
    with pytest.raises(InvalidInput, match='lastImportId "x" is no file id'):
        query(stored, tags=["a"], changed_since="adaptive")


@pytest.mark.parametrize(("own", "expected"), [("1.2.3", "1.2"), ("1", "1"), (None, None)])
def test_files_of_the_run_are_those_of_its_parent(own: str | None, expected: str | None) -> None:
    assert query(run_id=own, tags=["a"], filter_by_run_id=True).run_id == expected
    assert query(run_id=own, tags=["a"]).run_id is None


def deletions(**item: Any) -> tuple[DeleteWhere, ...]:
    return rows_to_delete(merge("t", {**merge("t", None, None), **item}, None), NOW)


def test_nothing_is_deleted_unless_asked() -> None:
    assert deletions() == ()
    assert deletions(delete_where=[]) == ()


def test_rows_are_deleted_by_the_old_filter() -> None:
    assert deletions(
        delete_where_column="Id", delete_where_values=["a", 1], delete_where_operator="ne"
    ) == (DeleteWhere((Filter("Id", ("a", "1"), "ne"),)),)


def test_each_element_deletes_by_itself_and_needs_all_its_conditions() -> None:
    assert deletions(
        delete_where=[
            {
                "changed_since": "-1 day",
                "changed_until": "2024-03-31",
                "where_filters": [
                    {"column": "a", "values_from_set": ["1", "2"]},
                    {"column": "b", "operator": "ne", "values_from_set": [3]},
                ],
            },
            {"changed_until": "yesterday"},
        ]
    ) == (
        DeleteWhere(
            (Filter("a", ("1", "2")), Filter("b", ("3",), "ne")),
            changed_since=datetime(2024, 3, 30, 15, 30, 20, tzinfo=UTC),
            changed_until=datetime(2024, 3, 31, tzinfo=UTC),
        ),
        DeleteWhere(changed_until=datetime(2024, 3, 30, tzinfo=UTC)),
    )


@pytest.mark.scenario("mapping", 187)
def test_values_from_elsewhere_are_refused() -> None:
    storage = {"bucket_id": "in.c-main", "table": "t"}
    with pytest.raises(MappingFailed) as caught:
        deletions(
            delete_where=[{"where_filters": [{"column": "a", "values_from_storage": storage}]}]
        )
    assert caught.value.message == 'Where filter "values_from_storage" is not yet supported'
    workspace = [{"where_filters": [{"column": "a", "values_from_workspace": {"table": "t"}}]}]
    with pytest.raises(MappingFailed, match="needs a workspace"):
        deletions(delete_where=workspace)
    with pytest.raises(MappingFailed) as caught:
        rows_to_delete({"delete_where": workspace}, NOW, in_branch=True)
    assert caught.value.message == (
        'Using "values_from_workspace" as a delete filter is not supported in development branches.'
    )
