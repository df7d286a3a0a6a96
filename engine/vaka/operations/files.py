"""Operations on files."""

from __future__ import annotations

from vaka.errors import NotFound
from vaka.models.operation import Done
from vaka.operations._work import Work


async def delete(work: Work) -> Done:
    """`fileDelete`: `fileId`."""
    try:
        await work.storage.files.delete(work.scope, int(str(work.operation.params["fileId"])))
    except NotFound:
        if not work.is_repeated:
            raise
    return Done()


HANDLERS = {"fileDelete": delete}
