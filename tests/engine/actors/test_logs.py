"""What a stage's container says, whatever it is, becomes events and never an error."""

from __future__ import annotations

import json
from typing import Any, cast

from hypothesis import given
from hypothesis import strategies as st

from vaka.actors.events import EventLog, LogRoom, Printed
from vaka.actors.logs import StageLog
from vaka.actors.output import TRIMMED, OutputReader
from vaka.masking import Masker
from vaka.models.component import Logging
from vaka.models.event import Level

ID = "0123456789abcdef" * 4
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=10,
)


class Told:
    """Stands where the event writer is."""

    def __init__(self, *secrets: str, limit: int = 1 << 30) -> None:
        self.masker = Masker(secrets)
        self.room = LogRoom(limit)
        self.job_id = 1
        self.printed: list[Printed] = []
        self.notes: list[str] = []

    async def lines(self, printed: Printed | None, *_: object) -> None:
        if printed is not None:
            self.printed.append(printed)

    async def note(self, level: Level, message: str) -> None:
        self.notes.append(message)

    def log(self, longest: int = 1_000) -> StageLog:
        log = StageLog(
            cast("EventLog", self),
            Logging(verbosity=dict.fromkeys((100, 200, 250, 300, 400, 500, 550, 600), "verbose")),
            OutputReader(longest, {}, self.masker),
            definition=0,
            stage=0,
            component="C",
            longest=longest,
        )
        log.found(ID)
        return log


@given(st.fixed_dictionaries({}, optional=dict.fromkeys(("level", "timestamp", "_x"), JSON)), JSON)
async def test_any_message_of_the_container_is_taken(fields: dict[str, Any], text: Any) -> None:
    told = Told("secret")
    message = {"host": ID[:12], "short_message": text, **fields}
    await told.log().message(json.dumps(message).encode())
    for printed in told.printed:
        (line,) = printed.messages
        assert line.strip()
        json.dumps(printed.data, allow_nan=False)


@given(st.binary(max_size=100), JSON)
async def test_anything_else_is_taken_too(data: bytes, host: Any) -> None:
    told = Told()
    log = told.log()
    await log.message(data)
    await log.message(json.dumps({"host": host, "short_message": "x"}).encode())
    await log.close()


async def test_a_long_message_is_masked_before_it_is_cut() -> None:
    told = Told("secret")
    message = {"host": ID, "short_message": "this is secret which is hidden", "level": 6}
    await told.log(longest=13).message(json.dumps(message).encode())
    assert [printed.messages for printed in told.printed] == [["this is [hidd" + TRIMMED]]


async def test_lines_of_a_full_log_are_counted() -> None:
    told = Told(limit=10)
    log = told.log()
    await log.lines("stdout", ["four", "four", "four"], (15, 0))
    await log.lines("stderr", ["more"], (15, 5))
    await log.close()
    assert [printed.messages for printed in told.printed] == [["four", "four"]]
    (note,) = told.notes
    assert "2 lines of 12 bytes of C were left out" in note
