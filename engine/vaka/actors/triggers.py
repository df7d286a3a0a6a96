"""Triggers: a configuration runs when one of the tables it waits for was loaded.

A load is told here before whoever made it says that it has ended. So a load that is repeated after a
crash is told again, and the job that it starts has a key that the moment of the run before is a part
of: however often and from wherever a trigger is set off in between, it starts one job.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from vaka.errors import EngineError, InvalidInput, StoreUnavailable, UserError
from vaka.hooks import Catalog
from vaka.models.catalog import Token
from vaka.models.job import JobSpec
from vaka.models.trigger import NewTrigger, Trigger, TriggerChanges
from vaka.store import JobStore

log = logging.getLogger(__name__)

MOST_TABLES = 1_000


class Triggers:
    """The triggers of all projects of one store."""

    def __init__(
        self,
        store: JobStore,
        catalog: Catalog,
        submit: Callable[[JobSpec], Awaitable[object]],
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """Start jobs by `submit`."""
        self._store = store
        self._catalog = catalog
        self._submit = submit
        self._now = now

    async def create(self, new: NewTrigger) -> Trigger:
        """Keep a trigger.

        Raises:
            InvalidInput: the project has no such token, or a number is not what it may be.
        """
        await self._check(new.project, new.run_with_token_id, new.cool_down_minutes, new.tables)
        return await self._store.add_trigger(new)

    async def list(self, project: str) -> list[Trigger]:
        """All triggers of a project, oldest first."""
        return await self._store.triggers(project)

    async def get(self, project: str, trigger_id: int) -> Trigger:
        """One trigger; `NotFound` when the project has none such."""
        return await self._store.trigger(trigger_id, project)

    async def update(self, project: str, trigger_id: int, changes: TriggerChanges) -> Trigger:
        """Change what is given.

        Raises:
            NotFound: the project has no such trigger.
            InvalidInput: as `create`.
        """
        await self._check(
            project, changes.run_with_token_id, changes.cool_down_minutes, changes.tables
        )
        return await self._store.change_trigger(trigger_id, project, changes)

    async def delete(self, project: str, trigger_id: int) -> None:
        """Forget a trigger; `NotFound` when the project has no such one."""
        await self._store.remove_trigger(trigger_id, project)

    async def imported(self, project: str, table_ids: Sequence[str]) -> None:
        """Start a job for each trigger that waits for one of these tables and has cooled down.

        What keeps a job from being started is logged: whoever has loaded the table is not to blame.

        Raises:
            StoreUnavailable: it does not answer; call again.
        """
        loaded = set(table_ids)
        if not loaded:
            return
        for trigger in await self._store.triggers(project):
            now = self._now()
            if loaded & set(trigger.wanted.tables) and _has_cooled_down(trigger, now):
                try:
                    await self._fire(trigger)
                except StoreUnavailable:
                    raise
                except EngineError as error:
                    log.warning(
                        "trigger.failed", extra={"trigger_id": trigger.id, "error": error.message}
                    )
                await self._store.mark_trigger(trigger, now)

    async def _fire(self, trigger: Trigger) -> None:
        wanted = trigger.wanted
        token = await self._token(wanted.project, wanted.run_with_token_id)
        if token is None or not token.may_run:
            raise UserError(f"Token {wanted.run_with_token_id} is gone, or may not run jobs.")
        if token.component_access is not None and wanted.component not in token.component_access:
            raise UserError(f"Token {token.id} has no access to component {wanted.component}.")
        permissions = token.bucket_permissions
        buckets: Any = None if permissions is None else dict(permissions)
        before = "" if trigger.last_run is None else trigger.last_run.isoformat()
        await self._submit(
            JobSpec(
                component=wanted.component,
                config=wanted.config,
                skip_disabled=True,
                project=wanted.project,
                token_id=token.id,
                token_description=token.description,
                buckets=buckets,
                reads_all_files=token.can_read_all_file_uploads,
                idempotency_key=f"trigger-{trigger.id}-{before}",
            )
        )
        log.info("trigger.fired", extra={"trigger_id": trigger.id})

    async def _token(self, project: str, token_id: str) -> Token | None:
        """A token of the project that can be used now."""
        for token in await self._catalog.tokens(project):
            if token.id == token_id:
                is_over = token.expires is not None and token.expires <= self._now()
                return None if is_over else token
        return None

    async def _check(
        self,
        project: str,
        token_id: str | None,
        cool_down: int | None,
        tables: Sequence[str] | None,
    ) -> None:
        if cool_down is not None and cool_down < 1:
            raise InvalidInput("Minimal cool down period is 1 minute", path="coolDownPeriodMinutes")
        if tables is not None and not 1 <= len(tables) <= MOST_TABLES:
            raise InvalidInput(
                f"tableIds: must be a list of 1 to {MOST_TABLES} tables.", path="tableIds"
            )
        if token_id is not None and await self._token(project, token_id) is None:
            raise InvalidInput(
                f"runWithTokenId: the project has no token {token_id}.", path="runWithTokenId"
            )


def _has_cooled_down(trigger: Trigger, now: datetime) -> bool:
    pause = timedelta(minutes=trigger.wanted.cool_down_minutes)
    return trigger.last_run is None or trigger.last_run + pause <= now
