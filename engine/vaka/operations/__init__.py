"""What operations on Storage do: one handler for each kind (storage-api.md section 5.2).

A handler is given a `Work` and returns what is to be shown. It calls only what every mapping backend and
every catalog has, so it knows nothing of how tables are kept, and it may be called again after a crash:
what it did then counts once, by its import key, or is found done.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from vaka.models.operation import Done
from vaka.operations import branches, buckets, files, structure, tables, workspaces
from vaka.operations._work import Work
from vaka.operations.selection import export_options

__all__ = ["HANDLERS", "IMPORTS", "Handler", "Work", "export_options"]

Handler = Callable[[Work], Awaitable[Done]]

HANDLERS: Mapping[str, Handler] = {
    **tables.HANDLERS,
    **structure.HANDLERS,
    **buckets.HANDLERS,
    **files.HANDLERS,
    **branches.HANDLERS,
    **workspaces.HANDLERS,
}
"""By kind."""
IMPORTS = frozenset({"tableImport", "tableCreate"})
"""Kinds that bring rows into a table."""
