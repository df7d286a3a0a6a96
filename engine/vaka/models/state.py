"""What a component remembers from one run to the next, and the other files it leaves in `out`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Self

from vaka.errors import InvalidInput
from vaka.models.catalog import Json
from vaka.models.document import Format, load_document
from vaka.models.tree import Anything, ListOf, Object, Scalar, text, wrong_type

RUN_STATE: Final = frozenset({"component", "storage"})
"""Root keys of a stored state that every run replaces."""


def _no_scalar(value: Json, path: str) -> Json:
    if not isinstance(value, list | dict) and value is not None:
        raise wrong_type(path, "array", value)
    return value


_STATE: Final = Object(
    children={
        "component": Anything(rules=(_no_scalar,)),
        "storage": Object(
            children={
                "input": Object(
                    children={
                        "tables": ListOf(
                            item=Object(
                                children={
                                    "source": Scalar(required=True),
                                    "lastImportDate": Scalar(required=True),
                                }
                            )
                        ),
                        "files": ListOf(
                            item=Object(
                                children={
                                    "tags": ListOf(
                                        required=True,
                                        item=Object(
                                            children={
                                                "name": Scalar(required=True),
                                                "match": Scalar(),
                                            }
                                        ),
                                    ),
                                    "lastImportId": Scalar(required=True),
                                }
                            )
                        ),
                    }
                )
            }
        ),
        "data_app": Anything(),
    }
)


@dataclass(frozen=True, slots=True)
class TableState:
    source: str
    last_import_date: str
    """As the table had it when it was read; empty when it never was imported."""


@dataclass(frozen=True, slots=True)
class FileState:
    tags: tuple[Mapping[str, str], ...]
    """What identifies the mapping item: `{"name": …}`, with `match` where the item has it."""
    last_import_id: str


FileKey = tuple[frozenset[tuple[str, str]], ...]


def file_key(tags: Iterable[Mapping[str, str]]) -> FileKey:
    """The same for tags that identify the same mapping item; their order counts."""
    return tuple(frozenset(tag.items()) for tag in tags)


@dataclass(frozen=True, slots=True)
class JobState:
    """The state of a configuration or row."""

    component: Json = field(default_factory=dict)
    """What the component wrote; it finds it again in `in/state.json`."""
    input_tables: tuple[TableState, ...] = ()
    input_files: tuple[FileState, ...] = ()
    extra: Mapping[str, Json] = field(default_factory=dict)
    """Root keys that belong to others, such as `data_app`; kept as they are."""

    @classmethod
    def parse(cls, value: Json) -> Self:
        """The state as stored; null, `[]` and `{}` are no state.

        Raises:
            InvalidInput: it does not have the shape of a state; the text begins `Invalid state: `.
        """
        try:
            data = _STATE.parse(value, "state")
        except InvalidInput as error:
            raise InvalidInput(f"Invalid state: {error.message}", path=error.path) from error
        stored = data.get("storage", {}).get("input", {})
        return cls(
            component=data.get("component") or {},
            input_tables=tuple(
                TableState(text(each["source"]), text(each["lastImportDate"]))
                for each in stored.get("tables", ())
            ),
            input_files=tuple(
                FileState(
                    tuple({key: text(part) for key, part in tag.items()} for tag in each["tags"]),
                    text(each["lastImportId"]),
                )
                for each in stored.get("files", ())
            ),
            extra={key: item for key, item in data.items() if key not in RUN_STATE},
        )

    def to_json(self) -> dict[str, Json]:
        """The state as it is stored."""
        return {
            "component": self.component,
            "storage": {
                "input": {
                    "tables": [
                        {"source": each.source, "lastImportDate": each.last_import_date}
                        for each in self.input_tables
                    ],
                    "files": [
                        {
                            "tags": [dict(tag) for tag in each.tags],
                            "lastImportId": each.last_import_id,
                        }
                        for each in self.input_files
                    ],
                }
            },
            **self.extra,
        }

    def last_import_date(self, source: str) -> str | None:
        """Where reading `source` adaptively begins, or None when it never was read."""
        return next(
            (each.last_import_date for each in self.input_tables if each.source == source), None
        )

    @property
    def newest_files(self) -> dict[FileKey, str]:
        """The newest file that was read, by the `file_key` of the item that found it."""
        newest: dict[FileKey, str] = {}
        for each in self.input_files:
            newest.setdefault(file_key(each.tags), each.last_import_id)
        return newest


def parse_state_file(data: bytes, *, format: Format = "json", path: str) -> dict[str, Json]:  # noqa: A002
    """What a component wants to remember; an empty file clears it.

    Raises:
        InvalidInput: the file cannot be read, or holds something else than an object.
    """
    if not data.strip():
        return {}
    try:
        value = load_document(data, format)
    except InvalidInput as error:
        raise InvalidInput(
            f'Failed to parse state file "{path}" as "{format}": {error.message}', path=path
        ) from error
    if value is None or value == []:
        return {}
    if not isinstance(value, dict):
        raise InvalidInput(
            f'State file "{path}" must hold an object; a {type(value).__name__} cannot be kept.',
            path=path,
        )
    return value


_USAGE: Final = ListOf(
    item=Object(
        children={
            "metric": Scalar(required=True, non_empty=True),
            "value": Scalar(required=True, non_empty=True),
        }
    )
)


def parse_usage(data: bytes, *, format: Format = "json") -> list[dict[str, Json]]:  # noqa: A002
    """The `{"metric": …, "value": …}` items of a usage file.

    Raises:
        InvalidInput: the file breaks a rule of mapping.md section 2.7.
    """
    try:
        items: list[dict[str, Json]] = _USAGE.parse(load_document(data, format), "usage")
    except InvalidInput as error:
        raise InvalidInput(
            f"Failed to store Job usage: {error.message}", path=error.path
        ) from error
    return items


def parse_result(data: bytes, *, path: str) -> dict[str, Any]:
    """The variables of a `result.json`; those that are not scalars are left out.

    Raises:
        InvalidInput: the file is of another shape; worth a warning, never a failure of the job.
    """
    broken = InvalidInput(f'Failed to parse result.json file "{path}".', path=path)
    try:
        document = load_document(data)
    except InvalidInput as error:
        raise broken from error
    variables = _object(document, broken).get("variables", {})
    return {
        name: value
        for name, value in _object(variables, broken).items()
        if not isinstance(value, list | dict)
    }


def _object(value: Json, broken: InvalidInput) -> dict[str, Json]:
    if value == []:  # what PHP writes for an empty object
        return {}
    if not isinstance(value, dict):
        raise broken
    return value
