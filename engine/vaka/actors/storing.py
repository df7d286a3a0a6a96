"""How a definition's outputs are stored: what project, component, configuration and engine say of it."""

from __future__ import annotations

from typing import Final, TypedDict

from vaka.actors.stages import DefinitionContext, JobContext
from vaka.config import EngineConfig
from vaka.mapping import slicing, types
from vaka.mapping.preparing import OutputContext
from vaka.models.component import ComponentDefinition
from vaka.models.mapping import FileOptions

FEATURE_FILES_ONLY: Final = "allow-use-file-storage-only"
"""Feature of a component whose tables may be stored as files."""
FEATURE_TAGS: Final = "tag-staging-files"
"""Feature of a project where the files that tables travel in carry the system tags."""


class StoringOptions(TypedDict):
    """Arguments of `vaka.mapping.store`."""

    context: OutputContext
    atomic: bool
    table_files: FileOptions | None


def storing_options(
    config: EngineConfig, job: JobContext, unit: DefinitionContext, main: ComponentDefinition
) -> StoringOptions:
    """What holds for the outputs of one definition.

    Raises:
        UserError: the component's default bucket needs the id of a configuration, and there is none.
    """
    configuration, features = unit.configuration, job.project.features
    files_only = configuration.runtime.use_file_storage_only and FEATURE_FILES_ONLY in main.features
    return StoringOptions(
        context=OutputContext(
            component_id=main.id,
            config_id=unit.config_id,
            row_id=unit.row_id,
            run_id=job.record.run_id,
            default_bucket=configuration.default_bucket or main.default_bucket_id(unit.config_id),
            treat_values_as_null=configuration.treat_values_as_null,
            format=main.configuration_format,
            data_types=types.effective_support(
                features, configuration.data_type_support, main.data_types_support
            ),
            types_in_metadata=types.FEATURE_METADATA in features,
            tags_staging=FEATURE_TAGS in features,
            slices=slicing.FEATURE in features,
        ),
        atomic=is_atomic(config, unit),
        table_files=configuration.table_files if files_only else None,
    )


def is_atomic(config: EngineConfig, unit: DefinitionContext) -> bool:
    """Whether all tables of a definition are to land together: the configuration says, or the engine."""
    wanted = unit.configuration.runtime.atomic_output
    return config.atomic_output if wanted is None else wanted
