"""Which branch a job runs in, and how its Storage keeps branches."""

from __future__ import annotations

from vaka.errors import ApplicationError, UserError
from vaka.hooks import Catalog, MappingBackend
from vaka.mapping.branches import PRODUCTION, JobBranch
from vaka.models.catalog import Project

FEATURE_STORAGE_BRANCHES = "storage-branches"
"""Feature of projects whose Storage keeps branches apart; in others their objects carry prefixes."""


async def job_branch(
    catalog: Catalog, storage: MappingBackend, project: Project, branch: str | None
) -> JobBranch:
    """The branch with this id, the default one when it is None.

    Raises:
        UserError: the project has no such branch.
        ApplicationError: the project wants its branches kept apart, and Storage cannot.
    """
    is_kept_apart = FEATURE_STORAGE_BRANCHES in project.features
    if branch is None and not is_kept_apart:
        return PRODUCTION
    if is_kept_apart and not storage.keeps_branches_apart:
        raise ApplicationError(
            f"Project {project.id} has the feature {FEATURE_STORAGE_BRANCHES}, but its Storage does "
            "not keep branches apart. Take the feature away, or use another Storage."
        )
    found = await catalog.branches(project.id)
    default = next(each.id for each in found if each.is_default)
    others = {each.id: each.name for each in found if not each.is_default}
    if branch is None or branch == default:
        return JobBranch(is_kept_apart=is_kept_apart, default=default, others=others)
    if branch not in others:
        raise UserError(f'Branch "{branch}" not found in project {project.id}.')
    return JobBranch(branch, others[branch], is_kept_apart, default, others)
