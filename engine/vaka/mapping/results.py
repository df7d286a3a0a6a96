"""What mapping tells: lines and events while it works, small results when it is done."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from vaka.models.catalog import Json
from vaka.models.event import Level
from vaka.models.manifest import date_or_none
from vaka.models.storage import MetadataEntry, TableDetail


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
    last_import_date: datetime | None = None
    last_change_date: datetime | None = None
    column_metadata: Mapping[str, tuple[MetadataEntry, ...]] = field(default_factory=dict)
    """The table's own; of an alias that has none, those of the table that it shows."""
    source_table_id: str | None = None
    """The table that an alias shows."""

    @classmethod
    def of(cls, table: TableDetail, *, imported_rows: int | None = None) -> TableResult:
        """The result for a table as the backend describes it."""
        column_metadata = table.column_metadata
        if table.source is not None and not any(column_metadata.values()):
            column_metadata = table.source.column_metadata
        return cls(
            table.id,
            table.name,
            table.display_name or table.name,
            table.columns,
            imported_rows,
            table.last_import_date,
            table.last_change_date,
            column_metadata,
            None if table.source is None else table.source.id,
        )

    def to_json(self) -> dict[str, Json]:
        """The member of `input.tables` or `output.tables`, the first as in mapping.md section 4.7."""
        document: dict[str, Json] = {
            "id": self.id,
            "name": self.name,
            "displayName": self.display_name,
        }
        if self.imported_rows is not None:
            document["columns"] = [{"name": column} for column in self.columns]
            document["metrics"] = [{"name": "importedRowsCount", "value": self.imported_rows}]
            return document
        document["lastImportDate"] = date_or_none(self.last_import_date)
        document["lastChangeDate"] = date_or_none(self.last_change_date)
        document["columns"] = [self._column(name) for name in self.columns]
        if self.source_table_id is not None:
            document["sourceTableId"] = self.source_table_id
        return document

    def _column(self, name: str) -> dict[str, Json]:
        """A column with what is said of it, if anything is."""
        entries = self.column_metadata.get(name, ())
        document: dict[str, Json] = {"name": name}
        if entries:
            document["metadata"] = [
                {"key": entry.key, "value": entry.value, "provider": entry.provider}
                for entry in entries
            ]
        return document
