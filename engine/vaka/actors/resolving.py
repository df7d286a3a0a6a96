"""Puts shared code, vault variables and variables into the definitions of a job, in this order.

It happens once a job, after rows are merged and before anything is staged, and what comes out is kept
in the journal: a value that changes meanwhile does not change a job half-way. So nothing is decrypted
here. A cipher that takes a placeholder's place stays one in the journal, and is decrypted with the rest
of the configuration on its way to a container (runner.md section 9.5, encryption.md section 7.2).
What is listed of it is that it was there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial

from vaka.actors.plan import DefinitionPlan, Plan
from vaka.errors import NotFound, UserError
from vaka.hooks import Catalog
from vaka.masking import HIDDEN
from vaka.models.catalog import Configuration, Json, VaultVariable
from vaka.models.ciphers import is_cipher
from vaka.models.configuration import JobConfiguration
from vaka.models.job import JobSpec
from vaka.models.tree import text
from vaka.turns import beside
from vaka.variables import (
    SHARED_CODE,
    VARIABLES,
    VAULT,
    check_declared,
    code_content,
    declared_names,
    given_values,
    insert_shared_code,
    needs_vault,
)
from vaka.variables import replace as replace_placeholders


async def resolve_plan(catalog: Catalog, spec: JobSpec, plan: Plan, *, strict: bool) -> Plan:
    """`plan` with every placeholder replaced, and with notes on what was.

    Args:
        catalog: where variables, their values and shared code are read, each configuration once.
        spec: the job; it may bring values of its own.
        plan: definitions with rows merged.
        strict: whether a placeholder that no value is given for is an error; else it becomes empty.

    Raises:
        UserError: something cannot be read, is malformed, or has no value (runner.md section 9.3).
    """
    if spec.variable_values_id and _inline_values(spec):
        raise UserError("Only one of variables_id and variableValuesId can be entered")
    resolver = _Resolver(catalog, spec, strict=strict)
    definitions = [await resolver.resolve(definition) for definition in plan.definitions]
    return replace(plan, definitions=tuple(definitions), notes=(*plan.notes, *resolver.notes))


class _Resolver:
    def __init__(self, catalog: Catalog, spec: JobSpec, *, strict: bool) -> None:
        self.notes: list[str] = []
        self._catalog = catalog
        self._spec = spec
        self._strict = strict
        self._read: dict[tuple[str, str], Configuration] = {}
        self._vault: dict[str, VaultVariable] | None = None

    async def resolve(self, definition: DefinitionPlan) -> DefinitionPlan:
        """`definition` with its placeholders replaced; itself when it has none."""
        document = definition.configuration
        given = (await beside(document, partial(JobConfiguration.parse, document))).data
        configuration = await self._with_shared_code(given)
        vault = await self._vault_for(configuration)
        variables_id = configuration.get("variables_id")
        names: tuple[str, ...] = ()
        values: Mapping[str, str] | None = None
        if variables_id is not None:
            names, values = await self._variables(configuration, variables_id, definition)
        elif configuration is given and vault is None:
            return definition
        resolved = replace_placeholders(configuration, values=values, vault=vault or {})
        missing = [name for name in resolved.missing if self._strict or name.startswith(VAULT)]
        if missing:
            raise UserError(f"Missing values for placeholders: {', '.join(missing)}")
        if values is not None:
            listed = ", ".join(names)
            self.notes.append(f'Replaced values for variables: "{listed}".')
        return replace(
            definition,
            configuration=resolved.configuration,
            variables=tuple(
                {"name": name, "value": HIDDEN if is_cipher(value) else value}
                for name, value in resolved.used.items()
            ),
        )

    # -- shared code -----------------------------------------------------------------------------

    async def _with_shared_code(self, configuration: Mapping[str, Json]) -> Mapping[str, Json]:
        """`configuration` with shared code inserted; itself when it asks for none."""
        library = configuration.get("shared_code_id")
        wanted = [text(each) for each in configuration.get("shared_code_row_ids") or ()]
        if library is None or not wanted:
            return configuration
        snippets: dict[str, tuple[Json, ...]] = {}
        problem = "Shared code configuration cannot be read"
        stored = await self._configuration(SHARED_CODE, text(library), problem)
        rows = {row.id: row.configuration for row in stored.rows}
        for row_id in wanted:
            if row_id not in rows:
                raise UserError(f"{problem}: Row {row_id} not found")
            snippets[row_id] = code_content(rows[row_id])
        listed = ", ".join(snippets)
        self.notes.append(f'Loaded shared code snippets with ids: "{listed}".')
        inserted: Mapping[str, Json] = insert_shared_code(configuration, snippets)
        return inserted

    # -- the vault -------------------------------------------------------------------------------

    async def _vault_for(self, configuration: Mapping[str, Json]) -> Mapping[str, str] | None:
        """The vault's variables; None when nothing asks for one, and then nobody is asked."""
        if not needs_vault(configuration):
            return None
        if self._vault is None:
            found = await self._catalog.vault_variables(
                self._spec.project, branch=self._spec.branch
            )
            self._vault = {variable.name: variable for variable in found}
        return {name: variable.value for name, variable in self._vault.items()}

    # -- variables -------------------------------------------------------------------------------

    async def _variables(
        self, configuration: Mapping[str, Json], variables_id: str, definition: DefinitionPlan
    ) -> tuple[tuple[str, ...], Mapping[str, str]]:
        """The names that are declared, and a value for each of them at least."""
        declaration = await self._configuration(
            VARIABLES, variables_id, "Variable configuration cannot be read"
        )
        names = declared_names(declaration.configuration)
        where = f'configuration "{self._spec.config or ""}", row "{definition.row_id or ""}"'
        default_id = configuration.get("variables_values_id")
        if _inline_values(self._spec):
            self.notes.append("Replacing variables using inline values.")
            values = given_values(self._spec.variable_values_data)
        elif self._spec.variable_values_id:
            row_id = self._spec.variable_values_id
            self.notes.append(f'Replacing variables using values with ID: "{row_id}".')
            values = given_values(
                _row(
                    declaration,
                    row_id,
                    f'Cannot read requested variable values "{row_id}" for {where}.',
                )
            )
        elif default_id is not None:
            self.notes.append(f'Replacing variables using default values with ID: "{default_id}"')
            values = given_values(
                _row(
                    declaration,
                    default_id,
                    f'Cannot read default variable values "{default_id}" for {where}.',
                )
            )
        else:
            raise UserError(
                f'No variable values provided for {where}, referencing variables "{variables_id}".'
            )
        check_declared(names, values)
        return names, values

    async def _configuration(self, component: str, config_id: str, problem: str) -> Configuration:
        key = (component, config_id)
        if key not in self._read:
            try:
                self._read[key] = await self._catalog.configuration(
                    self._spec.project, component, config_id, branch=self._spec.branch
                )
            except NotFound as error:
                raise UserError(f"{problem}: {error}") from error
        return self._read[key]


def _inline_values(spec: JobSpec) -> bool:
    """Whether the job brings values; an empty list of them counts as none."""
    given = spec.variable_values_data
    return bool(given) and given != {"values": []}


def _row(declaration: Configuration, row_id: str, problem: str) -> Json:
    for row in declaration.rows:
        if row.id == row_id:
            return row.configuration
    raise UserError(problem)
