"""What buckets, tables, columns and files may be called."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

from vaka.errors import InvalidInput

LONGEST_COLUMN = 64
LONGEST_NAME = 96
_NAME = re.compile(r"[A-Za-z0-9_-]+")
_TABLE_ID = re.compile(
    r"(?P<bucket>(in|out)\.[A-Za-z0-9_-]+)\.(?P<name>[A-Za-z0-9-][A-Za-z0-9_-]*)"
)
_RESERVED = {"oid", "tableoid", "xmin", "cmin", "xmax", "cmax", "ctid"}


def bucket_id(stage: str, name: str) -> str:
    """The id of a bucket that is to be made."""
    if stage not in {"in", "out"}:
        raise InvalidInput(f'Stage "{stage}" is not one of "in" and "out".', path="stage")
    if not _NAME.fullmatch(name) or len(name) > LONGEST_NAME:
        raise InvalidInput(
            f'"{name}" cannot be a bucket\'s name: it has letters, digits, "-" and "_", '
            f"at most {LONGEST_NAME} of them.",
            path="name",
        )
    return f"{stage}.c-{name}"


def bucket_of(table_id: str) -> str:
    """The bucket of a table that is to be made."""
    found = _TABLE_ID.fullmatch(table_id)
    if found is None or len(found["name"]) > LONGEST_NAME:
        raise InvalidInput(
            f'"{table_id}" cannot be a table\'s id: it is like in.c-bucket.table, of letters, '
            f'digits, "-" and "_", and no name has more than {LONGEST_NAME}.',
            path="table_id",
        )
    return found["bucket"]


def column_names(names: Iterable[str]) -> tuple[str, ...]:
    """Names of columns as tables have them: of ASCII letters, digits and `_`, and told apart."""
    columns = tuple(map(_column_name, names))
    seen: set[str] = set()
    for column in columns:
        if column.lower() in seen:
            raise InvalidInput(
                f'There are duplicate columns in CSV file: "{column}"', path="columns"
            )
        seen.add(column.lower())
    return columns


def _column_name(name: str) -> str:
    if name.strip().lower() == "_timestamp":
        raise InvalidInput('The column "_timestamp" is ours and cannot be loaded.', path="columns")
    column = re.sub(r"[^A-Za-z0-9_]+", "_", _without_marks(name)).strip("_")
    if not column:
        raise InvalidInput(f'"{name}" has no letter or digit for a column name.', path="columns")
    if len(column) > LONGEST_COLUMN:
        raise InvalidInput(
            f"'{column}' is more than {LONGEST_COLUMN} characters long", path="columns"
        )
    return f"{column}_" if column.lower() in _RESERVED else column


def file_name(name: str) -> str:
    """The name that a file is kept by: letters, digits, `_` and dots."""
    result = re.sub(r"[^A-Za-z0-9_.]+", "_", _without_marks(name))
    if not result.strip("._"):
        raise InvalidInput(f'"{name}" has no letter or digit for a file name.', path="name")
    return result


def words(name: str) -> list[str]:
    """The parts of a file's name that a search compares."""
    return re.findall(r"[a-z0-9]+", _without_marks(name).lower())


def _without_marks(text: str) -> str:
    return "".join(
        letter
        for letter in unicodedata.normalize("NFKD", text)
        if not unicodedata.combining(letter)
    )
