"""Operations on development branches."""

from __future__ import annotations

from vaka.errors import Conflict, NotFound
from vaka.models.catalog import Branch
from vaka.models.operation import Done
from vaka.operations._work import Work, created, creator, number


async def create(work: Work) -> Done:
    """`devBranchCreate`: `name` and `description`. The result is the branch."""
    operation = work.operation
    name = str(operation.params["name"])
    try:
        made = await work.catalog.create_branch(
            operation.project,
            name,
            description=str(operation.params.get("description") or ""),
            token=await work.token(),
        )
    except Conflict as error:
        before = await _made_before(work, name)
        if before is None:
            raise Conflict(error.message, code=error.code or "devBranch.duplicateName") from error
        made = before
    return Done(
        {
            "id": number(made.id),
            "name": made.name,
            "description": made.description,
            "isDefault": False,
            "created": created(made.created),
            "creatorToken": creator(operation),
        }
    )


async def _made_before(work: Work, name: str) -> Branch | None:
    """The branch that an earlier beginning of the operation has made."""
    operation = work.operation
    if work.is_repeated:
        for each in await work.catalog.branches(operation.project):
            is_ours = each.creator_token_id == operation.token_id
            if each.name == name and is_ours and each.created >= operation.created:
                return each
    return None


async def delete(work: Work) -> Done:
    """`devBranchDelete`: `branchId`, with all that only the branch has."""
    project, branch = work.operation.project, str(work.operation.params["branchId"])
    try:
        await work.catalog.delete_branch(project, branch)
    except NotFound:
        if not work.is_repeated:
            raise
    if work.storage.keeps_branches_apart:
        await work.storage.drop_branch(project, branch)
    return Done()


HANDLERS = {"devBranchCreate": create, "devBranchDelete": delete}
