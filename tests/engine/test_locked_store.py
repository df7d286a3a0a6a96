"""The job store is locked by somebody else, for longer than the engine waits for it."""

from __future__ import annotations

import math
import sqlite3
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest
import trio
from tests.engine.conftest import MakeEngine

from vaka import JobSpec, Status
from vaka import engine as engine_module
from vaka.store import JobStore
from vaka.testing import FakeHost, FakeImage, Printed, Script

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
