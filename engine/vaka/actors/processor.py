"""The processor actor's part: a container that a processor's definition feeds.

A processor is a component like any other. It runs before or after the main one on the same data
folder, sees only its own parameters, and its failure is the job's.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Literal

from vaka.actors.stages import Stage
from vaka.errors import NotFound, UserError
from vaka.hooks import Catalog
from vaka.models.catalog import Json
from vaka.models.component import ComponentDefinition
from vaka.models.configuration import JobConfiguration, ProcessorDefinition


async def processor_stages(
    catalog: Catalog,
    processors: Sequence[ProcessorDefinition],
    kind: Literal["before", "after"],
    configuration: JobConfiguration,
    first_index: int,
    *,
    image_parameters: Callable[[ComponentDefinition], Awaitable[Json]],
    replica: str | None = None,
) -> list[Stage]:
    """The stages of one side of a chain, numbered from `first_index`.

    `image_parameters` gives those of a component, decrypted; `replica` is the registry that stands in
    for Amazon's, or None.

    Raises:
        UserError: a processor is not registered.
    """
    stages: list[Stage] = []
    for index, processor in enumerate(processors, first_index):
        try:
            component = await catalog.component(processor.component)
        except NotFound as error:
            raise UserError(f"Component '{processor.component}' not found.") from error
        definition = ComponentDefinition.parse(component)
        stages.append(
            Stage(
                index=index,
                kind=kind,
                definition=definition,
                reference=definition.image_reference(processor.tag or None, replica=replica),
                document=configuration.processor_file(
                    processor.parameters,
                    image_parameters=await image_parameters(definition),
                    format=definition.configuration_format,
                ),
                timeout=definition.process_timeout,
                timeout_setting=f"process_timeout of component {definition.id}",
            )
        )
    return stages
