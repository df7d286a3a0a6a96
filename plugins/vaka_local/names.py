"""Names: what buckets, tables, columns and files may be called (mapping.md sections 6.8, 10.1, 10.8)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from vaka.errors import InvalidInput, NotFound
from vaka.models.naming import plain_letters, webalize
from vaka.models.storage import StorageScope

INVALID_COLUMN: Final = "storage.tables.validation.invalidColumnName"
_INVALID_BUCKET: Final = "storage.buckets.validation"
_INVALID_TABLE: Final = "storage.tables.validation"
"""Storage's words for names that cannot be (storage-api.md section 1.5)."""
TIMESTAMP: Final = "_timestamp"
"""The hidden column of every table. No user's column can have this name: theirs never begin with `_`."""
LONGEST_COLUMN: Final = 64
MOST_COLUMNS: Final = 10_000
"""Of one table. What DuckDB needs for a load grows faster than they do: 4,000 take some seconds."""
LONGEST_TABLE: Final = 96
_NAME: Final = re.compile(r"[A-Za-z0-9_-]+")
_PROJECT: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")


def file_name(name: str, *, of_table: bool = False) -> str:
    """A file name of letters, digits, `_` and dots; one `of_table` keeps its `-`, too."""
    others = r"[^._A-Za-z0-9-]+" if of_table else r"[^._A-Za-z0-9]+"
    result = re.sub(others, "_", plain_letters(name))
    if not result.strip("._"):
        raise InvalidInput("A file needs a name with letters or digits.", path="name")
    return result


def words(name: str) -> list[str]:
    """The parts of a file name that a search compares, in lower case."""
    return re.findall(r"[a-z0-9]+", plain_letters(name).lower())


def column_names(names: Iterable[str]) -> tuple[str, ...]:
    """Column names as tables keep them: webalized, valid, and told apart without letter case.

    Raises:
        InvalidInput: a name cannot be a column's, or there are more than `MOST_COLUMNS`.
    """
    result: list[str] = []
    for name in names:
        check_count(len(result) + 1)
        if name.strip().lower() == TIMESTAMP:
            raise _invalid_column(f'System columns "{TIMESTAMP}" cannot be imported to the table.')
        column = webalize(name)
        if not column:
            raise _invalid_column(
                f'"{name}" is not valid column name: it has no letters or digits.'
            )
        if len(column) > LONGEST_COLUMN:
            raise _invalid_column(f"'{column}' is more than {LONGEST_COLUMN} characters long")
        result.append(column)
    if repeated := repeated_names(result):
        raise _invalid_column(f"There are duplicate columns in CSV file: {quoted(repeated)}")
    return tuple(result)


def check_count(columns: int) -> None:
    """`InvalidInput` when a table cannot have so many columns."""
    if columns > MOST_COLUMNS:
        raise _invalid_column(
            f"A table has at most {MOST_COLUMNS} columns. Store fewer, or as rows."
        )


def _invalid_column(message: str) -> InvalidInput:
    return InvalidInput(message, path="columns", code=INVALID_COLUMN)


def repeated_names(names: Sequence[str]) -> list[str]:
    """The names that stand more than once, letter case apart, each as it is first written."""
    seen: dict[str, str] = {}
    repeated: dict[str, None] = {}
    for name in names:
        if name.lower() in seen:
            repeated[seen[name.lower()]] = None
        seen.setdefault(name.lower(), name)
    return list(repeated)


def quoted(names: Iterable[str]) -> str:
    return ", ".join(f'"{name}"' for name in names)


class TableId(NamedTuple):
    """A table id taken apart."""

    bucket: str
    name: str

    @property
    def whole(self) -> str:
        return f"{self.bucket}.{self.name}"


def bucket_id(stage: str, name: str) -> str:
    """The id of a new bucket.

    Raises:
        InvalidInput: there is no such stage, or `name` cannot be a bucket's.
    """
    if stage not in {"in", "out"}:
        raise InvalidInput(
            f'Stage "{stage}" is not one of "in" and "out".', path="stage", code=_INVALID_BUCKET
        )
    if not _NAME.fullmatch(name) or len(name) > LONGEST_TABLE:
        raise InvalidInput(
            f'Invalid data - name "{name}": Only alphanumeric characters dash and underscores are '
            f"allowed, at most {LONGEST_TABLE} of them.",
            path="name",
            code=_INVALID_BUCKET,
        )
    return f"{stage}.c-{name}"


def shown_name(name: str, *, of_bucket: bool) -> str:
    """A name to be shown, as it is.

    Raises:
        InvalidInput: it cannot be one.
    """
    if not _NAME.fullmatch(name) or len(name) > LONGEST_TABLE:
        raise InvalidInput(
            "Invalid data - displayName: Only alphanumeric characters dash and underscores are "
            "allowed.",
            path="displayName",
            code=_INVALID_BUCKET if of_bucket else _INVALID_TABLE,
        )
    return name


def table_id(text: str) -> TableId:
    """The parts of the id of a table that is to be made.

    Raises:
        InvalidInput: `text` has not the shape `<stage>.<bucket>.<table>`, or a part is not allowed.
    """
    stage, _, rest = text.partition(".")
    bucket, _, name = rest.partition(".")
    if stage not in {"in", "out"} or not _NAME.fullmatch(bucket) or not name:
        raise InvalidInput(
            f'"{text}" is not a table id: it has the form in.c-bucket.table or out.c-bucket.table.',
            path="table_id",
            code=_INVALID_TABLE,
        )
    if not _NAME.fullmatch(name) or name.startswith("_") or len(name) > LONGEST_TABLE:
        raise InvalidInput(
            f'Invalid table name "{name}": Only alphanumeric characters dash and underscores are '
            f"allowed, no underscore at the beginning, and at most {LONGEST_TABLE} characters.",
            path="table_id",
            code=_INVALID_TABLE,
        )
    return TableId(f"{stage}.{bucket}", name)


def no_table(text: str, project: str) -> NotFound:
    bucket, _, name = text.rpartition(".")
    return NotFound(
        f'The table "{name}" was not found in the bucket "{bucket}" in the project "{project}"',
        kind="table",
        id=text,
    )


def no_bucket(text: str) -> NotFound:
    return NotFound(f"Bucket {text} not found", kind="bucket", id=text)


def project_folder(project: str) -> str:
    """A project's id as part of a path.

    Raises:
        NotFound: no project can have this id.
    """
    if not _PROJECT.fullmatch(project):
        raise NotFound(f"Project {project} not found", kind="project", id=project)
    return project


def space(scope: StorageScope) -> str:
    """What the tables of a project's branch are kept under; part of a path.

    Raises:
        NotFound: no project, or no branch, can have this id.
    """
    project = project_folder(scope.project)
    if scope.branch is None:
        return project
    if not _PROJECT.fullmatch(scope.branch):
        raise NotFound(f"Branch {scope.branch} not found", kind="branch", id=scope.branch)
    return f"{project}~{scope.branch}"
