"""Synchronous actions beside raw containers: `action overhead` and `50 actions at a time`.

Our side is `Engine.act` on a fresh home: an action whose container prints one line of JSON. The other
side is what `tests.bench.jobs` has, a container of the same image with the same options: create, attach,
start, read, wait and remove.
"""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing

import trio
from tests.bench.daemon import made_image
from tests.bench.jobs import Raw, Seen
from tests.bench.measuring import (
    Measure,
    interleave,
    median,
    paired_ratio,
    spread,
    temporary_folder,
)

from vaka import ActionSpec, Engine, EngineConfig
from vaka.errors import EngineError

COMPONENT = "bench.action"
ACTION = "look"
SCRIPT = """echo '{"found": true}'"""
PAIRS = 24
ALLOWANCE = 0.030
"""Seconds that an action may take longer than a raw container."""
TOGETHER = 50


@asynccontextmanager
async def open_bench() -> AsyncIterator[tuple[Engine, Seen, Raw]]:
    """An engine on a fresh home that has run one action, and the raw side with the same options."""
    tag, seen = str(os.getpid()), Seen()
    with temporary_folder() as folder, made_image("vaka/bench-action", tag, SCRIPT) as image:
        config = EngineConfig(home=folder / "home", instance=f"bench-{tag}", shutdown="stop")
        with closing(Raw(folder / "raw", config.owner, b"")) as raw:
            async with Engine(config, plugins=[seen]) as engine:
                await engine.catalog.put_component(
                    {
                        "id": COMPONENT,
                        "type": "application",
                        "name": "Answers",
                        "data": {
                            "definition": {"type": "dockerhub", "uri": image, "tag": tag},
                            "network": "none",
                            "memory": "64m",
                            "synchronous_actions": [ACTION],
                        },
                    }
                )
                await act(engine)  # everything is loaded, connected and compiled
                await raw.run_one(seen.spec)
                yield engine, seen, raw


async def act(engine: Engine) -> float:
    """Run one action; seconds until its answer, when nothing of it is left."""
    clock = time.perf_counter()
    answer = await engine.act(ActionSpec(component=COMPONENT, action=ACTION, config_data={}))
    seconds = time.perf_counter() - clock
    if answer.value != {"found": True}:
        raise SystemExit(f"the action answered {answer.value!r}")
    return seconds


async def measure_one() -> list[Measure]:
    """`action overhead`: one action after the other, in milliseconds; `PAIRS` interleaved pairs."""
    async with open_bench() as (engine, seen, raw):
        seconds, raws = await interleave(
            PAIRS, lambda _: act(engine), lambda _: raw.run_one(seen.spec)
        )
    ours = [each * 1000 for each in seconds]
    theirs = [each.seconds * 1000 for each in raws]
    later = median([mine - other for mine, other in zip(ours, theirs, strict=True)])
    allowance = ALLOWANCE * 1000
    return [
        Measure(
            "action overhead",
            median(ours),
            median(theirs),
            "ms",
            paired_ratio(ours, theirs),
            f"<= reference + {allowance:g} ms",
            later <= allowance,
            (
                f"{later:+.0f} ms (median of n = {PAIRS} differences)",
                f"ours {spread(ours)}, reference {spread(theirs)}",
            ),
        )
    ]


async def measure_many() -> list[Measure]:
    """`50 actions at a time`: all asked for at once, with the settings as they come; none may fail."""
    answered: list[float] = []
    errors: list[str] = []

    async def ask(engine: Engine) -> None:
        try:
            answered.append(await act(engine))
        except EngineError as error:
            errors.append(error.message)

    async with open_bench() as (engine, _, _):
        clock = time.perf_counter()
        async with trio.open_nursery() as nursery:
            for _ in range(TOGETHER):
                nursery.start_soon(ask, engine)
        seconds = time.perf_counter() - clock
    notes = [f"all of them after {seconds:.1f} s, the first after {min(answered, default=0):.1f} s"]
    return [
        Measure(
            f"{TOGETHER} actions at a time",
            len(answered),
            None,
            "answers",
            len(answered) / TOGETHER,
            f">= {TOGETHER} answers",
            not errors,
            (*notes, *sorted(set(errors))),
        )
    ]
