"""From a request to its job definitions: one a configuration, or one a row (runner.md section 6)."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from vaka.errors import NotFound, UserError
from vaka.hooks import Catalog
from vaka.models.catalog import Configuration, ConfigurationRow, Json
from vaka.models.configuration import merge
from vaka.models.job import JobSpec
from vaka.models.state import RUN_STATE


@dataclass(frozen=True, slots=True)
class DefinitionPlan:
    """One job definition as it was resolved when the job first ran; kept in the journal."""

    configuration: Any
    """Row merged over configuration, not validated yet."""
    row_id: str | None
    version: str
    """Version of the stored configuration, or empty."""
    state: Any
    state_version: int | None
    """None: the configuration does not exist, so no state is kept."""
    variables: tuple[Mapping[str, str], ...] = ()
    """`name` and `value` of the placeholders that were replaced, as the job's result lists them."""

    def to_json(self) -> dict[str, Any]:
        # no copy: a configuration may be large, and nothing changes it
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> DefinitionPlan:
        variables = tuple(document.get("variables", ()))
        return cls(**{**document, "variables": variables})


@dataclass(frozen=True, slots=True)
class Plan:
    """All definitions of a job, in the order they run, and what there is to say about them."""

    definitions: tuple[DefinitionPlan, ...]
    notes: tuple[str, ...] = ()
    parallelism: int = 1
    """How many definitions may run at a time, as job and configuration want it."""
    width: int = 1
    """How many do: what the job has the memory for."""
    is_skipped: bool = False
    """Whether there is nothing to run because the configuration is disabled."""

    def to_json(self) -> dict[str, Any]:
        return {
            "definitions": [each.to_json() for each in self.definitions],
            "width": self.width,
            "is_skipped": self.is_skipped,
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Plan:
        return cls(
            tuple(DefinitionPlan.from_json(each) for each in document["definitions"]),
            width=document["width"],
            is_skipped=document.get("is_skipped", False),
        )


async def plan_definitions(catalog: Catalog, spec: JobSpec) -> Plan:
    """Read the configuration that a job names and cut it into definitions.

    Raises:
        UserError: the configuration cannot be read, or a row that was asked for is not in it.
    """
    wanted = _wanted_rows(spec)
    if spec.image is not None or spec.config_data is not None:
        if wanted:
            raise UserError(f"Row {wanted[0]} not found.")
        state, version = await _state_to_replace(catalog, spec)
        return Plan((DefinitionPlan(spec.config_data or {}, None, "", state, version),))
    if not spec.config or spec.component is None:
        raise UserError("Specify 'config' or 'configData'.")
    try:
        stored = await catalog.configuration(
            spec.project, spec.component, spec.config, branch=spec.branch
        )
    except NotFound as error:
        raise UserError(f"Error reading configuration '{spec.config}': {error}") from error
    return await _stored_plan(catalog, spec, stored, wanted)


async def _stored_plan(
    catalog: Catalog, spec: JobSpec, stored: Configuration, wanted: tuple[str, ...]
) -> Plan:
    if stored.is_disabled and spec.skip_disabled and not wanted:
        note = f"Skipping disabled configuration: {stored.id}, version: {stored.version}"
        return Plan((), (note,), is_skipped=True)
    rows = _select(stored, wanted)
    if not stored.rows:
        return Plan((await _definition(catalog, spec, stored, None),))
    _refuse_processors_twice(stored)
    definitions: list[DefinitionPlan] = []
    notes: list[str] = []
    for row in rows:
        if row.is_disabled:
            verb = "Force running" if wanted else "Skipping"
            notes.append(
                f"{verb} disabled configuration: {stored.id}, version: {stored.version}, "
                f"row: {row.id}"
            )
            if not wanted:
                continue
        definitions.append(await _definition(catalog, spec, stored, row))
    return Plan(tuple(definitions), tuple(notes), parallelism(spec, stored.configuration))


async def _definition(
    catalog: Catalog, spec: JobSpec, stored: Configuration, row: ConfigurationRow | None
) -> DefinitionPlan:
    state = await catalog.state(
        spec.project, stored.component_id, stored.id, row.id if row else None, branch=spec.branch
    )
    configuration = stored.configuration or {}
    return DefinitionPlan(
        configuration=merge(configuration, row.configuration or {}) if row else configuration,
        row_id=row.id if row else None,
        version=str(stored.version),
        state=state.value,
        state_version=state.version,
    )


async def _state_to_replace(catalog: Catalog, spec: JobSpec) -> tuple[Json, int | None]:
    """What an inline run keeps of the state that it will replace, and that state's version.

    The run itself reads no state; what others keep under root keys of their own stays. The version is
    None when there is no such configuration.
    """
    if not spec.config or spec.component is None:
        return {}, None
    try:
        state = await catalog.state(spec.project, spec.component, spec.config, branch=spec.branch)
    except NotFound:
        return {}, None
    stored = state.value if isinstance(state.value, Mapping) else {}
    others = {key: value for key, value in stored.items() if key not in RUN_STATE}
    return others, state.version


def _wanted_rows(spec: JobSpec) -> tuple[str, ...]:
    """Ids of the rows asked for; empty is all that are enabled."""
    match spec.row:
        case None | "":
            return spec.rows
        case bool() | int() | float() | str() as row:
            return (str(row), *spec.rows)
        case other:
            raise UserError(f"Unsupported row value ({json.dumps(other)}), scalar is required.")


def _select(stored: Configuration, wanted: tuple[str, ...]) -> list[ConfigurationRow]:
    if not wanted:
        return list(stored.rows)
    rows = [row for row in stored.rows if row.id in wanted]
    if not rows and len(wanted) == 1:
        raise UserError(f"Row {wanted[0]} not found.")
    if not rows:
        raise UserError(f'None of rows "{",".join(wanted)}" was found.')
    return rows


def _refuse_processors_twice(stored: Configuration) -> None:
    if _has_processors(stored.configuration) and any(
        _has_processors(row.configuration) for row in stored.rows
    ):
        raise UserError(
            "Processors may be set either in configuration or in configuration row, "
            "but not in both places."
        )


def parallelism(spec: JobSpec, configuration: Json) -> int:
    """How many rows may run at a time: as the job says, or else `runtime` of the configuration.

    Raises:
        UserError: the configuration's is neither a whole number nor `infinity`.
    """
    wanted: Json = spec.parallelism
    if wanted is None:
        runtime = configuration.get("runtime") if isinstance(configuration, Mapping) else None
        wanted = runtime.get("parallelism") if isinstance(runtime, Mapping) else None
    if isinstance(wanted, str) and wanted.isascii() and wanted.isdigit():
        wanted = int(wanted[:9])
    match wanted:
        case None | "":
            return 1
        case "infinity":
            return sys.maxsize
        case int() if wanted >= 0 and not isinstance(wanted, bool):
            return max(1, wanted)  # 0 is how some clients say "off"
        case other:
            raise UserError(
                f"Unsupported parallelism ({json.dumps(other)}) in the configuration's runtime: "
                'use a whole number, or "infinity".'
            )


def _has_processors(configuration: Any) -> bool:
    processors = configuration.get("processors") if isinstance(configuration, Mapping) else None
    return isinstance(processors, Mapping) and any(processors.values())
