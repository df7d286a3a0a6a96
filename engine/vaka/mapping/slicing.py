"""What the feature `output-mapping-slice` asks of outputs (mapping.md section 6.15).

Nothing is cut: a backend gets the files as they are, and reads them as it likes. Projects with it
still have its rules, so that a configuration means the same everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from vaka.datafolder import Source, printable
from vaka.errors import MappingFailed
from vaka.models.mapping import TABLE_MANIFEST_DEFAULTS, OutputTable

FEATURE: Final = "output-mapping-slice"
"""Feature of a project whose output tables are sliced."""


def check_slicing(source: str, items: Sequence[OutputTable | None]) -> None:
    """Refuse what sliced outputs cannot have.

    Args:
        source: name of the data.
        items: the mapping's items for it.

    Raises:
        MappingFailed: there are several, or one says what only a manifest may say.
    """
    if len(items) > 1:
        raise MappingFailed(f'Source "{printable(source)}" has multiple destinations set.')
    for item in items:
        if item is None:
            continue
        differs = any(
            item.data[key] != TABLE_MANIFEST_DEFAULTS[key] for key in ("delimiter", "enclosure")
        )
        if differs or item.data["columns"]:
            raise MappingFailed(
                'Params "delimiter", "enclosure" or "columns" specified in mapping are not longer '
                f'supported. Skipping file "{printable(source)}".'
            )


def not_sliced(source: Source, *, has_manifest: bool, size: int) -> str | None:
    """A warning about a source of `size` bytes that could not be sliced; it is loaded as it is."""
    name = printable(source.name)
    if source.is_folder and not has_manifest:
        return f'Sliced files without manifest are not supported. Skipping file "{name}"'
    if not source.is_folder and not size:
        return f'Empty files cannot be sliced. Skipping file "{name}".'
    return None
