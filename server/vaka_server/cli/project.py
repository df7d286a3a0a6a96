"""`vaka project export` and `vaka project import`: a project as a folder, and what would change."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import trio

from vaka.errors import EngineError, InvalidInput
from vaka_server.cli import folder, text
from vaka_server.cli.client import Client, Document, Owner
from vaka_server.cli.folder import Config, Content, Row, Variable
from vaka_server.cli.session import Session, remark, say

Action = Literal["create", "update", "delete"]


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that an import does."""

    action: Action
    kind: Literal["configuration", "row", "row order", "metadata", "variable"]
    what: str
    do: Callable[[], Awaitable[object]]

    @property
    def document(self) -> Document:
        return {"action": self.action, "kind": self.kind, "what": self.what}


async def export(session: Session, target: Path) -> None:
    """Write a project to a folder."""
    async with session.client() as client:
        content = _exported(await _present(client))
    written, same, gone = await trio.to_thread.run_sync(folder.write, target, content)
    session.show(
        {"written": written, "unchanged": same, "removed": gone},
        lambda: f"{written} files written, {same} unchanged, {gone} removed.",
    )


async def import_(
    session: Session, source: Path, *, dry_run: bool, delete: bool, change: str
) -> None:
    """Say what has to be done so that the project is what a folder says, and do it."""
    wanted = await trio.to_thread.run_sync(folder.read, source)
    async with session.client() as client:
        present = await _present(client)
        await _check_components(client, wanted)
        planned = Import(client, wanted, present, change, deletes=delete)
        steps = list(planned.steps())
        if not session.json:
            for step in steps:
                say(f"{step.action:6}  {step.kind:13}  {text.clean(step.what)}")
            if planned.left:
                remark(f"{planned.left} things that the folder does not have stay (--delete).")
        if not dry_run:
            await _apply(steps)
    session.show(
        {
            "steps": [step.document for step in steps],
            "left": planned.left,
            "applied": not dry_run,
        },
        lambda: _summary(len(steps), dry_run),
    )


async def _apply(steps: list[Step]) -> None:
    """Do the steps; what fails names its step, and a second import goes on from there."""
    for step in steps:
        try:
            await step.do()
        except EngineError:
            remark(f"Failed: {step.action} {step.kind} {text.clean(step.what)}")
            raise


def _summary(count: int, dry_run: bool) -> str:
    if not count:
        return "Nothing to do."
    return f"{count} to be done." if dry_run else f"{count} done."


@dataclass(frozen=True, slots=True)
class Present:
    """What a project has now."""

    configs: dict[Owner, Document]
    metadata: dict[Owner | None, dict[str, tuple[str, str]]]
    """Key to value and id, of configurations, and by None of the project."""
    variables: dict[str, Variable]


async def _present(client: Client) -> Present:
    configs = {(each["componentId"], each["id"]): each for each in await client.configs(None)}
    metadata: dict[Owner | None, dict[str, tuple[str, str]]] = {None: {}}
    said = [(None, await client.metadata(None))] + [
        ((each["idComponent"], each["configurationId"]), each["metadata"])
        for each in await client.all_metadata()
    ]
    for owner, entries in said:
        metadata[owner] = {each["key"]: (each["value"], each["id"]) for each in entries}
    variables = {
        each["name"]: Variable(each["name"], each["value"], each["isEncrypted"])
        for each in await client.vault(None)
    }
    return Present(configs, metadata, variables)


def _exported(present: Present) -> Content:
    configs = {
        owner: Config(
            owner[0],
            owner[1],
            document["name"],
            document["description"],
            document["isDisabled"],
            document["configuration"],
            tuple(_row(row) for row in document["rows"]),
            {key: value for key, (value, _) in present.metadata.get(owner, {}).items()},
        )
        for owner, document in sorted(present.configs.items())
    }
    said = {key: value for key, (value, _) in present.metadata[None].items()}
    return Content(configs, present.variables, said)


def _row(document: Document) -> Row:
    return Row(
        document["id"],
        document["name"],
        document["description"],
        document["isDisabled"],
        document["configuration"],
    )


async def _check_components(client: Client, wanted: Content) -> None:
    known = {each["id"] for each in await client.components()}
    unknown = sorted({component for component, _ in wanted.configs} - known)
    if unknown:
        raise InvalidInput(
            f"These components are not registered: {', '.join(unknown)}. Add them with "
            "`vaka component add`; nothing was imported."
        )


class Import:
    """What has to be done so that a project is as a folder says."""

    def __init__(
        self, client: Client, wanted: Content, present: Present, change: str, *, deletes: bool
    ) -> None:
        self._client = client
        self._wanted = wanted
        self._present = present
        self._change = change
        self._deletes = deletes
        self.left = 0
        """Things that the folder does not have and that stay; known once all steps are."""

    def steps(self) -> Iterator[Step]:
        """Every step, in the order in which they are to be done."""
        yield from self._variables()
        yield from self._metadata(None, self._wanted.metadata)
        for owner, config in self._wanted.configs.items():
            yield from self._config(owner, config)
        for owner in self._present.configs:
            if owner not in self._wanted.configs:
                yield from self._gone(
                    "configuration",
                    "/".join(owner),
                    partial(self._client.delete_config, *owner),
                )

    def _variables(self) -> Iterator[Step]:
        before = self._present.variables
        for name, variable in self._wanted.variables.items():
            if before.get(name) != variable:
                yield Step(
                    "update" if name in before else "create",
                    "variable",
                    name,
                    partial(
                        self._client.put_vault_variable,
                        name,
                        variable.value,
                        None,
                        is_encrypted=variable.is_encrypted,
                    ),
                )
        for name in before:
            if name not in self._wanted.variables:
                yield from self._gone(
                    "variable",
                    name,
                    partial(self._client.delete_vault_variable, name, None),
                )

    def _config(self, owner: Owner, wanted: Config) -> Iterator[Step]:
        where, before = "/".join(owner), self._present.configs.get(owner)
        if before is None:
            body = {
                "configurationId": wanted.id,
                **_body(wanted),
                "changeDescription": self._change,
            }
            yield Step(
                "create",
                "configuration",
                where,
                partial(self._client.create_config, wanted.component, body),
            )
        else:
            changes = _changes(before, wanted)
            if changes:
                given = changes | {"changeDescription": self._change}
                yield Step(
                    "update",
                    "configuration",
                    where,
                    partial(self._client.update_config, *owner, given),
                )
        yield from self._rows(owner, wanted, before)
        yield from self._metadata(owner, wanted.metadata)

    def _rows(self, owner: Owner, wanted: Config, before: Document | None) -> Iterator[Step]:
        present = {row["id"]: row for row in before["rows"]} if before is not None else {}
        names = {row.id for row in wanted.rows}
        for row in wanted.rows:
            where = "/".join((*owner, row.id))
            if row.id not in present:
                body = {"rowId": row.id, **_body(row), "changeDescription": self._change}
                yield Step(
                    "create",
                    "row",
                    where,
                    partial(self._client.create_row, *owner, body),
                )
            elif changes := _changes(present[row.id], row):
                given = changes | {"changeDescription": self._change}
                yield Step(
                    "update",
                    "row",
                    where,
                    partial(self._client.update_row, *owner, row.id, given),
                )
        reason = {"changeDescription": self._change}
        kept: list[str] = []
        for row_id in present:
            if row_id not in names:
                if not self._deletes:
                    kept.append(row_id)
                yield from self._gone(
                    "row",
                    "/".join((*owner, row_id)),
                    partial(self._client.delete_row, *owner, row_id, reason),
                )
        yield from self._order(owner, wanted, before, kept)

    def _order(
        self, owner: Owner, wanted: Config, before: Document | None, kept: list[str]
    ) -> Iterator[Step]:
        """Rows in the folder's order, and behind them those that only the project has."""
        order = [*(row.id for row in wanted.rows), *kept]
        present = [row["id"] for row in before["rows"]] if before is not None else []
        new = [row_id for row_id in order if row_id not in present]
        left = [row_id for row_id in present if row_id in order]
        may_jump = bool(before and before["rowsSortOrder"] and new)
        if [*left, *new] != order or may_jump:
            body = {"rowsSortOrder": order, "changeDescription": self._change}
            yield Step(
                "update",
                "row order",
                "/".join(owner),
                partial(self._client.update_config, *owner, body),
            )

    def _metadata(self, owner: Owner | None, wanted: Any) -> Iterator[Step]:
        before = self._present.metadata.get(owner, {})
        where = "project" if owner is None else "/".join(owner)
        changes = {
            key: value
            for key, value in wanted.items()
            if key not in before or before[key][0] != value
        }
        if changes:
            yield Step(
                "update",
                "metadata",
                f"{where}: {', '.join(changes)}",
                partial(self._client.put_metadata, owner, changes),
            )
        for key, (_, entry) in before.items():
            if key not in wanted:
                yield from self._gone(
                    "metadata",
                    f"{where}: {key}",
                    partial(self._client.delete_metadata, owner, entry),
                )

    def _gone(
        self,
        kind: Literal["configuration", "row", "metadata", "variable"],
        what: str,
        do: Callable[[], Awaitable[object]],
    ) -> Iterator[Step]:
        """The step that deletes what the folder does not have, if that is wanted."""
        if self._deletes:
            yield Step("delete", kind, what, do)
        else:
            self.left += 1


def _body(wanted: Config | Row) -> Document:
    return {
        "name": wanted.name,
        "description": wanted.description,
        "isDisabled": wanted.is_disabled,
        "configuration": wanted.configuration,
    }


def _changes(before: Document, wanted: Config | Row) -> Document:
    """The members that are written differently."""
    return {
        name: value
        for name, value in _body(wanted).items()
        if json.dumps(before[name]) != json.dumps(value)
    }
