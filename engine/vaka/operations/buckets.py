"""Operations on buckets."""

from __future__ import annotations

from vaka.errors import Conflict, NotFound
from vaka.models.operation import Done
from vaka.operations._work import Work


async def delete(work: Work) -> Done:
    """`bucketDelete`: `bucketId`, and `force` to delete the tables with it."""
    params = work.operation.params
    try:
        await work.storage.tables.drop_bucket(
            work.scope, str(params["bucketId"]), force=bool(params.get("force"))
        )
    except NotFound:
        if not work.is_repeated:
            raise
    except Conflict as error:
        raise Conflict(error.message, code=error.code or "buckets.deleteNotEmpty") from error
    return Done()


async def update(work: Work) -> Done:
    """`bucketUpdate`: `bucketId`, and how it is to be shown: `displayName`, `color`."""
    params = work.operation.params
    changed = await work.storage.tables.update_bucket(
        work.scope,
        str(params["bucketId"]),
        display_name=params.get("displayName"),
        color=params.get("color"),
    )
    return Done(bucket=changed)


HANDLERS = {"bucketDelete": delete, "bucketUpdate": update}
