"""Tables and files of Vaka in one SQLite file.

The URL is `sqlite-tables://` and the absolute path of the database. Files lie in a folder beside it.
"""

from __future__ import annotations

from pathlib import Path

from vaka.errors import InvalidInput
from vaka.hooks import MappingBackend, hookimpl
from vaka_sqlite.backend import SqliteBackend

__all__ = ["SqliteBackend", "vaka_mapping_backend"]

SCHEME = "sqlite-tables://"


@hookimpl
def vaka_mapping_backend(url: str) -> MappingBackend | None:
    """The backend for a URL of ours; None passes any other on to the next plugin."""
    if not url.startswith(SCHEME):
        return None
    path = Path(url.removeprefix(SCHEME))
    if not path.is_absolute() or not path.name:
        raise InvalidInput(
            f'"{url}" has no absolute path: write it as {SCHEME}/folder/storage.db.', path="url"
        )
    return SqliteBackend(path)
