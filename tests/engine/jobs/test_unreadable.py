"""Documents that a component has left and nobody can read: its author's fault, and told so."""

from __future__ import annotations

import logging

import pytest
from tests.engine.jobs.project import Project
from trio.testing import MockClock

from vaka import Status
from vaka.models.job import CauseKind

CONTENTS = {
    "of another encoding": b'{"name": "\xe9t\xe9"}',
    "of no text": bytes(range(256)),
    "broken off": b'{"name": "x',
    "of nothing": b"",
    "deep": b"[" * 200_000 + b"]" * 200_000,
    "deep and legal": b'{"a": ' * 300 + b"1" + b"}" * 300,
    "huge": b'{"name": "' + b"x" * (17 << 20) + b'"}',
    "of half a character": b'{"name": "\\ud800"}',
    "of what is no number": b'{"name": NaN}',
    "of a number too long": b'{"name": ' + b"9" * 10_000 + b"}",
    "of another shape": b'"text"',
}
OUTPUTS = {"out/tables/t.csv": "id\n1\n", "out/files/f": "content"}
PLACES = {
    "out/state.json": "state.json",
    "out/usage.json": "usage",
    "out/tables/t.csv.manifest": "t.csv.manifest",
    "out/files/f.manifest": "f.manifest",
}
"""Where the document is, and what the message calls it."""
CONFIGURATION = {
    "storage": {"output": {"tables": [{"source": "t.csv", "destination": "out.c-main.t"}]}}
}


@pytest.mark.parametrize("place", PLACES)
async def test_what_nobody_can_read_is_a_user_error_with_its_text(
    project: Project, clock: MockClock, caplog: pytest.LogCaptureFixture, place: str
) -> None:
    written: dict[str, str | bytes] = {}
    await project.component("x", lambda _: written)
    for content, data in CONTENTS.items():
        if place == "out/state.json" and content == "of nothing":
            continue  # it clears the state
        caplog.clear()
        written.clear()
        written.update({**OUTPUTS, place: data})

        ran = await project.run("x", config_data=CONFIGURATION)

        assert ran.outcome.status is Status.ERROR, content
        assert ran.outcome.error == "user", (content, ran.outcome.cause)
        assert ran.outcome.cause is not None
        assert ran.outcome.cause.kind in {CauseKind.CONFIGURATION, CauseKind.STORAGE}, content
        assert PLACES[place] in ran.outcome.message, (content, ran.outcome.message)
        assert len(ran.outcome.message) < 4_000
        errors = [each for each in caplog.records if each.levelno >= logging.ERROR]
        assert errors == [], content
    assert await project.tables() == []


async def test_variables_that_nobody_can_read_are_left_out_and_told(
    project: Project, clock: MockClock
) -> None:
    written: dict[str, str | bytes] = {}
    await project.component("x", lambda _: written)
    for content, data in CONTENTS.items():
        written["out/result.json"] = data

        ran = await project.run("x", config_data={})

        assert ran.outcome.status is Status.SUCCESS, content
        assert "variables" not in ran.result["output"]
        assert any("result.json" in text for text in ran.told), content
