"""The embedded Storage: `local://` and the absolute path of the folder that holds everything.

Tables are in DuckDB, one file a project; files in a folder; their metadata, and the catalog, in SQLite.
The URL may end in `?memory_bytes=…&threads=…`, the bounds on what DuckDB takes for all projects.
"""

from __future__ import annotations

from pathlib import Path
from urllib.parse import parse_qsl

from vaka.errors import InvalidInput
from vaka.hooks import Catalog, MappingBackend, hookimpl

_SCHEME = "local://"


@hookimpl
def vaka_mapping_backend(url: str) -> MappingBackend | None:
    """The embedded Storage's tables and files."""
    if not url.startswith(_SCHEME):
        return None
    from vaka_local.storage import LocalStorage  # noqa: PLC0415 - a start without it is faster

    home, settings = _parse(url)
    return LocalStorage(
        home, memory_bytes=settings.get("memory_bytes"), threads=settings.get("threads")
    )


@hookimpl
def vaka_catalog(url: str) -> Catalog | None:
    """The embedded Storage's catalog."""
    if not url.startswith(_SCHEME):
        return None
    from vaka_local.catalog import LocalCatalog  # noqa: PLC0415 - a start without it is faster

    home, _ = _parse(url)
    return LocalCatalog(home)


def _parse(url: str) -> tuple[Path, dict[str, int]]:
    """The folder and the settings of a `local://` URL. The path is taken as it is, not decoded."""
    path, _, query = url.removeprefix(_SCHEME).partition("?")
    if not Path(path).is_absolute():
        raise InvalidInput(
            f'"{url}" has no absolute path: write it as local:///path/of/the/folder.', path="url"
        )
    settings: dict[str, int] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name not in {"memory_bytes", "threads"} or not value.isdecimal() or int(value) < 1:
            raise InvalidInput(
                f'"{url}": "{name}={value}" is not a setting. There are memory_bytes and threads, '
                "with numbers of 1 or more.",
                path="url",
            )
        settings[name] = int(value)
    return Path(path), settings
