"""Operations on workspaces, which are records and no more."""

from __future__ import annotations

from vaka.models.operation import Done
from vaka.operations._work import Work


async def create(work: Work) -> Done:
    """`workspaceCreate`: `componentId`, `configurationId`, `branchId`, `readOnlyStorageAccess`."""
    operation = work.operation
    params = operation.params
    branch = params.get("branchId")
    made = await work.catalog.create_workspace(
        operation.project,
        str(params["componentId"]),
        str(params["configurationId"]),
        is_read_only=bool(params.get("readOnlyStorageAccess")),
        key=work.import_key,
        token=await work.token(),
        branch=None if branch is None else str(branch),
    )
    return Done(
        {
            "id": made.id,
            "component": made.component_id,
            "configurationId": made.config_id,
            "readOnlyStorageAccess": made.is_read_only,
        }
    )


HANDLERS = {"workspaceCreate": create}
