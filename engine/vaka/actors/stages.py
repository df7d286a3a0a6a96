"""The chain of containers of one job definition, and what each of them is given.

A stage is a plan: the component it runs, the configuration document it gets, its environment, limits
and name. Everything here is computed from documents; nothing is started.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import SecretStr

from vaka.actors.limits import ResourceLimits
from vaka.actors.reconciler import (
    LABEL_ATTEMPT,
    LABEL_DEFINITION,
    LABEL_INSTANCE,
    LABEL_JOB,
    LABEL_STAGE,
    jobs_folder,
)
from vaka.actors.services import Services
from vaka.config import EngineConfig
from vaka.datafolder import JobFolder
from vaka.encryption import replace_secrets
from vaka.mapping.branches import PRODUCTION, JobBranch
from vaka.masking import HIDDEN
from vaka.models.catalog import Project
from vaka.models.component import ComponentDefinition
from vaka.models.configuration import JobConfiguration
from vaka.models.container import ContainerSpec, ImageInfo, Mount
from vaka.models.job import JobRecord, JobSpec, Mode

Kind = Literal["before", "main", "after", "action"]
LABEL_PREFIX = "com.keboola.docker-runner."
FEATURE_TYPES = "new-native-types"
KEEPALIVE = {"net.ipv4.tcp_keepalive_time": "60"}
"""Seconds after which an idle connection is probed, for networks that forget idle connections."""


@dataclass(frozen=True, slots=True)
class Stage:
    """One container of a chain, before its image is on the host."""

    index: int
    kind: Kind
    definition: ComponentDefinition
    reference: str
    document: Mapping[str, Any]
    """What its configuration file says."""
    timeout: float
    """Seconds; 0 is no limit."""
    timeout_setting: str
    """What set the timeout, for the error that names it."""

    @property
    def extension(self) -> str:
        """Of the files that the runner and the component exchange."""
        return "yml" if self.definition.configuration_format == "yaml" else "json"


@dataclass(frozen=True, slots=True)
class JobContext:
    """What the stages of a job have in common."""

    config: EngineConfig
    record: JobRecord
    spec: JobSpec
    project: Project
    branch: JobBranch = PRODUCTION


@dataclass(frozen=True, slots=True)
class DefinitionContext:
    """What the stages of one job definition have in common."""

    index: int
    configuration: JobConfiguration
    config_id: str | None
    config_version: str
    row_id: str | None
    data_types_support: str = "none"
    """The main component's; its processors are told the same."""


def shared_environment(
    config: EngineConfig, project: Project, stage: Stage, token: SecretStr | None
) -> dict[str, str]:
    """Environment variables that jobs and actions give alike (runner.md section 4.5)."""
    definition = stage.definition
    variables = {
        "KBC_PROJECTID": project.id,
        "KBC_DATADIR": "/data/",
        "KBC_CONFIGID": _fingerprint(stage.document.get("parameters")),
        "KBC_CONFIGVERSION": "",
        "KBC_COMPONENTID": definition.id,
        "KBC_STACKID": config.stack_id,
        "KBC_STAGING_FILE_PROVIDER": "local",
        "KBC_PROJECT_FEATURE_GATES": ",".join(project.features),
    }
    if FEATURE_TYPES in project.features:
        variables["KBC_DATA_TYPE_SUPPORT"] = definition.data_types_support
    if definition.forward_token and token is not None:
        variables["KBC_TOKEN"] = token.get_secret_value()
        variables["KBC_URL"] = config.storage_api_url
    return variables


def environment(job: JobContext, unit: DefinitionContext, stage: Stage) -> dict[str, str]:
    """Environment variables of one stage of a job."""
    spec = job.spec
    variables = shared_environment(job.config, job.project, stage, spec.token)
    variables |= {
        "KBC_RUNID": job.record.run_id,
        "KBC_CONFIGVERSION": unit.config_version,
        "KBC_COMPONENT_RUN_MODE": job.record.mode.value,
    }
    if "KBC_DATA_TYPE_SUPPORT" in variables:
        variables["KBC_DATA_TYPE_SUPPORT"] = unit.data_types_support
    if unit.config_id:
        variables["KBC_CONFIGID"] = unit.config_id
    if unit.row_id:
        variables["KBC_CONFIGROWID"] = unit.row_id
    if spec.branch:
        variables["KBC_BRANCHID"] = spec.branch
    if stage.definition.forward_token_details:
        variables["KBC_PROJECTNAME"] = job.project.name
        variables["KBC_TOKENID"] = spec.token_id or ""
        variables["KBC_TOKENDESC"] = spec.token_description or ""
    return variables


def container_name(config: EngineConfig, record: JobRecord, definition: int, stage: int) -> str:
    """The one name of a stage's container: an engine finds it again by nothing else."""
    return f"vaka-{config.instance}-{record.id}-{record.attempt}-{definition}-{stage}"


def container_spec(
    job: JobContext,
    unit: DefinitionContext,
    stage: Stage,
    image: ImageInfo,
    folder: JobFolder,
    limits: ResourceLimits,
) -> ContainerSpec:
    """The container of a job's stage (runner.md section 4.6)."""
    record, definition = job.record, stage.definition
    return profile(
        job.config,
        stage,
        limits,
        name=container_name(job.config, record, unit.index, stage.index),
        image=image,
        mounts=mounts(folder),
        environment=environment(job, unit, stage),
        labels={
            LABEL_INSTANCE: job.config.instance,
            LABEL_JOB: str(record.id),
            LABEL_ATTEMPT: str(record.attempt),
            LABEL_DEFINITION: str(unit.index),
            LABEL_STAGE: str(stage.index),
            LABEL_PREFIX + "jobId": str(record.id),
            LABEL_PREFIX + "runId": record.run_id,
            LABEL_PREFIX + "rowId": unit.row_id or "",
            LABEL_PREFIX + "containerName": (
                f"{definition.sanitised_id}-{record.id}-{record.run_id}-{stage.index}"
            ),
            LABEL_PREFIX + "projectId": job.project.id,
        },
    )


def profile(
    config: EngineConfig,
    stage: Stage,
    limits: ResourceLimits,
    *,
    name: str,
    image: ImageInfo,
    mounts: tuple[Mount, ...],
    environment: Mapping[str, str],
    labels: Mapping[str, str],
) -> ContainerSpec:
    """A container with the limits of its component and the rights that every container has."""
    definition = stage.definition
    return ContainerSpec(
        name=name,
        image=image.id,
        command=definition.command,
        environment=environment,
        labels=labels,
        mounts=mounts,
        user=None if definition.runs_as_root else config.effective_user,
        network=definition.network,
        memory_bytes=limits.memory_bytes,
        memory_swap_bytes=limits.memory_bytes if definition.no_swap else None,
        cpus=limits.cpus,
        log_bytes=config.container_log_bytes,
        # an image that needs root reads and writes what others own: that takes root's capabilities
        drop_capabilities=not definition.runs_as_root,
        sysctls=KEEPALIVE if definition.keeps_connections_alive else {},
    )


def mounts(folder: JobFolder) -> tuple[Mount, ...]:
    """All that a container sees of the host."""
    return (Mount(folder.data, "/data"), Mount(folder.tmp, "/tmp"))  # noqa: S108


def job_folder(services: Services, job_id: int) -> JobFolder:
    """The folder of a job, there or not."""
    root = jobs_folder(services.config.home) / str(job_id)
    return JobFolder(root, owner=services.folder_owner)


def image_definition(spec: JobSpec) -> ComponentDefinition:
    """The definition of a job that names an image and no component."""
    return ComponentDefinition.for_image(
        spec.image or "",
        command=spec.command,
        timeout=spec.timeout,
        memory=spec.memory,
        network=spec.network,
    )


def is_debug(record: JobRecord) -> bool:
    """Whether outputs are photographed instead of stored."""
    return record.mode is Mode.DEBUG


def _fingerprint(parameters: object) -> str:
    """A stable stand-in for the id of a configuration that is not stored.

    Of its secrets it says nothing: a weak one could be guessed from it.
    """
    public = replace_secrets(parameters or {}, HIDDEN)
    text = json.dumps(public, sort_keys=True, separators=(",", ":"))
    return hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
