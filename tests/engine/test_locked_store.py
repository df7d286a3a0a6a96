"""SQLite's lock is held by somebody else, for longer than the engine waits for it."""

from __future__ import annotations

import math
import sqlite3
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest
import trio
from tests.engine.conftest import MakeEngine
from tests.engine.jobs.project import Project
from trio.testing import MockClock

from vaka import JobQuery, JobSpec, Status
from vaka import engine as engine_module
from vaka.errors import StoreUnavailable
from vaka.models.job import CauseKind
from vaka.store import JobStore
from vaka.testing import FakeHost, FakeImage, Printed, Script
from vaka_local import database

PATIENCE = 0.1
"""Seconds that the engine waits for a lock here."""


async def test_a_job_goes_on_once_its_store_is_free_again(
    host: FakeHost, make_engine: MakeEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_module, "JobStore", partial(JobStore, patience=PATIENCE))
    host.images["worker:1"] = FakeImage(Script([Printed(b"one\n")], seconds=math.inf))
    async with make_engine() as engine:
        job = await engine.submit(JobSpec(image="worker:1"))
        async for event in job.events():
            if event.kind == "log":
                break
        with closing(sqlite3.connect(tmp_path / "home/vaka.db")) as somebody:
            somebody.execute("BEGIN IMMEDIATE")
            (name,) = host.containers
            host.print(name, b"two\n")
            host.finish(name)  # which cannot be written down
            await trio.sleep(10 * PATIENCE)
            assert not (await job.refresh()).status.is_finished
            somebody.rollback()
        assert (await job.wait()).status is Status.SUCCESS
        lines = [each.message async for each in job.events() if each.kind == "log"]
    assert lines == ["one", "two"]
    assert len(host.created) == 1
    assert host.containers == []


async def test_what_a_locked_store_refuses_is_not_stored(
    clock: MockClock,
    host: FakeHost,
    make_engine: MakeEngine,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(engine_module, "JobStore", partial(JobStore, patience=PATIENCE))
    host.images["worker:1"] = FakeImage(Script(seconds=1))
    async with make_engine() as engine:
        kept = await engine.submit(JobSpec(image="worker:1"))
        with closing(sqlite3.connect(tmp_path / "home/vaka.db")) as somebody:
            somebody.execute("BEGIN IMMEDIATE")
            with pytest.raises(StoreUnavailable, match="find and end it"):
                await engine.submit(JobSpec(image="worker:1"))
            (shown,) = await engine.jobs(JobQuery(project="1"))  # it is read all the while
            assert shown.id == kept.id
            somebody.rollback()
        assert (await kept.wait()).status is Status.SUCCESS
        assert len(await engine.jobs(JobQuery(project="1"))) == 1


async def test_a_job_that_finds_the_catalog_locked_says_so(
    clock: MockClock,
    host: FakeHost,
    make_engine: MakeEngine,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(database, "_BUSY_SECONDS", PATIENCE)
    async with make_engine() as engine:
        project = Project(engine, host, tmp_path)
        await project.component("x", {"out/state.json": "{}"})
        await project.configuration("x")
        with closing(sqlite3.connect(tmp_path / "home/storage/catalog.db")) as somebody:
            somebody.execute("BEGIN IMMEDIATE")
            ran = await project.run("x", config="c")
            somebody.rollback()
        assert ran.outcome.cause is not None
        assert ran.outcome.cause.kind is CauseKind.STORAGE
        assert "find and end it" in ran.outcome.cause.evidence["detail"]
        assert (await project.state("x")).version == 0

        assert (await project.run("x", config="c")).outcome.status is Status.SUCCESS
