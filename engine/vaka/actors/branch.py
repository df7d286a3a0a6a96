"""Which branch a job runs in, how its Storage keeps branches, and what may run in which."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vaka.errors import ApplicationError, NotFound, UserError
from vaka.hooks import Catalog, MappingBackend
from vaka.mapping.branches import PRODUCTION, JobBranch
from vaka.models.catalog import Project
from vaka.models.ciphers import BranchType
from vaka.models.component import ComponentDefinition
from vaka.models.job import JobSpec

FEATURE_STORAGE_BRANCHES = "storage-branches"
"""Feature of projects whose Storage keeps branches apart; in others their objects carry prefixes."""

FEATURE_PROTECTED = "protected-default-branch"
SANDBOXES = "keboola.sandboxes"


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


async def branch_type(catalog: Catalog, project: str, branch: str | None) -> BranchType:
    """What kind of branch this id is of; None is the default one.

    Raises:
        NotFound: the project has no such branch.
    """
    if branch is None:
        return "default"
    for each in await catalog.branches(project):
        if each.id == branch:
            return "default" if each.is_default else "dev"
    raise NotFound(f"Branch {branch} not found", kind="branch", id=branch)


async def refuse_in_branch(
    catalog: Catalog,
    definition: ComponentDefinition,
    spec: JobSpec,
    project: Project,
    branch: JobBranch,
) -> None:
    """Do nothing when a component may run in a branch (runner.md section 3.3).

    Raises:
        UserError: it may not, or not with this configuration.
    """
    if branch.id is None:
        if definition.id == SANDBOXES and FEATURE_PROTECTED in project.features:
            raise UserError(f'Component "{SANDBOXES}" is not allowed to run on default branch.')
        return
    if "dev-branch-job-blocked" in definition.features:
        raise UserError("This component cannot be run in a development branch.")
    if (
        "dev-branch-configuration-unsafe" in definition.features
        and not branch.is_kept_apart
        and not _is_safe(await _root(catalog, spec))
    ):
        raise UserError(
            "It is not safe to run this configuration in a development branch. Please review the "
            "configuration."
        )


async def _root(catalog: Catalog, spec: JobSpec) -> Any:
    """The configuration of a job without its rows; what is not there is told when it is planned."""
    if spec.config_data is not None or not spec.config or spec.component is None:
        return spec.config_data
    try:
        stored = await catalog.configuration(
            spec.project, spec.component, spec.config, branch=spec.branch
        )
    except NotFound:
        return None
    return stored.configuration


def _is_safe(configuration: Any) -> bool:
    runtime = configuration.get("runtime") if isinstance(configuration, Mapping) else None
    return isinstance(runtime, Mapping) and bool(runtime.get("safe"))
