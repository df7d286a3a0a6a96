"""What mapping tells: lines and events while it works, small results when it is done."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from vaka.models.catalog import Json
from vaka.models.event import Level
from vaka.models.storage import TableDetail


class Report(Protocol):
    """Takes what happened.

    The kind of event (`note`, `input.table`, ...), how much it matters, the line that the job's author
    reads, and the facts in it.
    """

    async def __call__(
        self, kind: str, level: Level, message: str, data: Mapping[str, Any]
    ) -> None: ...


@dataclass(frozen=True, slots=True)
class TableResult:
    """A table that was read or written, as the job's result lists it (runner.md section 2.6.2)."""

    id: str
    name: str
    display_name: str
    columns: tuple[str, ...]
    imported_rows: int | None = None
    """Rows that were loaded; None for a table that was read."""

    @classmethod
    def of(cls, table: TableDetail, *, imported_rows: int | None = None) -> TableResult:
        """The result for a table as the backend describes it."""
        return cls(
            table.id, table.name, table.display_name or table.name, table.columns, imported_rows
        )

    def to_json(self) -> dict[str, Json]:
        """The member of `input.tables` or `output.tables`."""
        document: dict[str, Json] = {
            "id": self.id,
            "name": self.name,
            "displayName": self.display_name,
            "columns": [{"name": column} for column in self.columns],
        }
        if self.imported_rows is not None:
            document["metrics"] = [{"name": "importedRowsCount", "value": self.imported_rows}]
        return document
