"""Staging kinds: where a component finds its input tables.

Only the data folder is there: no Storage hands out credentials of an object store, or a workspace. A job
that needs one of those is refused before anything of it runs.

Source: mapping.md sections 4.5, 4.6 and 8.
"""

from __future__ import annotations

from collections.abc import Sequence

from vaka.errors import MappingFailed
from vaka.models.component import WORKSPACE
from vaka.models.mapping import InputTable
from vaka.models.moment import parse_moment
from vaka.models.state import JobState


def check_input_staging(kind: str, items: Sequence[InputTable], state: JobState) -> None:
    """Refuse what cannot be staged: what is wrong with the mapping first, and then the kind itself.

    Object stores matter to tables only: files come to the data folder whatever the kind is.

    Raises:
        MappingFailed: there is no such staging, or the items are none for it.
    """
    if kind in {"s3", "abs"} and items:
        raise MappingFailed(f"This project does not have {kind.upper()} backend.")
    if kind.startswith(WORKSPACE):
        for item in items:
            _check_workspace_item(item, state)
        raise MappingFailed(f'The project does not support "{kind}" staging.')


def _check_workspace_item(item: InputTable, state: JobState) -> None:
    if item.days:
        raise MappingFailed("Days option is not supported on workspace, use changed_since instead.")
    since = state.last_import_date(item.source) if item.is_adaptive else None
    if since:
        try:
            parse_moment(since)
        except ValueError as error:
            raise MappingFailed(
                f'Invalid lastImportDate value "{since}" for table "{item.source}". '
                "This value cannot be converted to a valid timestamp."
            ) from error
