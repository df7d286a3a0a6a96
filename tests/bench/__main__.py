"""`python -m tests.bench`: one line a measure, exit code 1 when one falls short.

    measure | ours | reference | ratio | target | met (or short)

Lines that begin with # say more about the measure above them.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from collections.abc import Awaitable, Callable

import trio
from tests.bench import (
    actions,
    archives,
    claims,
    clients,
    encryption,
    jobs,
    logs,
    mapping,
    masking,
    memory,
    server,
    storage_api,
    tables,
)
from tests.bench.measuring import Measure

MEASURES: dict[tuple[str, ...], Callable[[], Awaitable[list[Measure]]]] = {
    ("job overhead", "submit to start"): jobs.measure_sequential,
    ("8 at a time",): jobs.measure_concurrent,
    ("action overhead",): actions.measure_one,
    ("50 actions at a time",): actions.measure_many,
    ("claim 10000",): claims.measure,
    ("log lines", "log CPU"): logs.measure,
    ("masker",): masking.measure,
    ("load", "export", "incremental"): tables.measure,
    ("memory",): memory.measure,
    ("storage API memory",): storage_api.measure,
    ("large table", "large table memory"): mapping.measure_large,
    ("200 input tables", "2,000 input files"): mapping.measure_many,
    ("zip snapshot", "tar.zst snapshot"): archives.measure,
    ("run requests",): server.measure_requests,
    ("idle CPU", "idle memory"): server.measure_idle,
    ("encryption",): encryption.measure,
    ("kbcstorage up and in", "kbcstorage out and down"): clients.measure_table,
    ("50 clients",): clients.measure_crowd,
    ("cold start",): server.measure_cold_start,
}
"""What measures each, by the names of its lines: those that come out of one run are together."""
TIME_LIMIT = 300.0
"""Seconds for one of them: on two cores that do other work as well they take up to 150."""


def main(arguments: list[str]) -> int:
    names = [name for group in MEASURES for name in group]
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument(
        "--only",
        metavar="NAME",
        action="append",
        choices=names,
        help=f"measure this alone; may be given again: {', '.join(names)}",
    )
    options = parser.parse_args(arguments)
    wanted = options.only or names
    found: list[Measure] = []
    began = time.monotonic()
    for group, measure in MEASURES.items():
        if not set(group) & set(wanted):
            continue
        results = [each for each in trio.run(_in_time, measure) if each.name in wanted]
        found.extend(results)
        if not options.json:
            for each in results:
                print(each.line)
                for note in each.notes:
                    print(f"#   {note}")
            sys.stdout.flush()
    met = all(each.met for each in found)
    seconds = time.monotonic() - began
    if options.json:
        document = {
            "met": met,
            "seconds": round(seconds, 1),
            "measures": [each.document for each in found],
        }
        print(json.dumps(document, indent=2))
    else:
        print(f"# {sum(each.met for each in found)} of {len(found)} met, in {seconds:.0f} s")
    return 0 if met else 1


async def _in_time(measure: Callable[[], Awaitable[list[Measure]]]) -> list[Measure]:
    """What is measured; `SystemExit` when it takes too long or the process is told to end."""
    found: list[Measure] | None = None

    async def end_when_told() -> None:
        async for _ in signals:
            limit.cancel()

    # open until everything is cleaned up: the signal may come twice
    with trio.open_signal_receiver(signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(end_when_told)
            with trio.move_on_after(TIME_LIMIT) as limit:
                found = await measure()
            nursery.cancel_scope.cancel()
    if found is None:
        raise SystemExit(f"ended by a signal, or because it took more than {TIME_LIMIT:g} s")
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
