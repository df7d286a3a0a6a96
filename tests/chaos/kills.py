"""Kills an engine at every step of a job, and looks at what became of the job.

`make chaos` runs the long form. The job has two processors, two tables and a file in, three tables, a
file and a state out. Whatever is killed, and how often, all of it is to be there once.
A Docker Engine of its own is killed as well (`daemons.py`).
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from operator import mul
from pathlib import Path
from uuid import uuid4

import trio
from tests.acceptance.images import Images
from tests.bench.daemon import BASE_IMAGE
from tests.chaos import daemons
from tests.chaos.engine_process import PROGRAMS, Plan, expected, set_up

DEFAULT_HOST = "unix:///var/run/docker.sock"
TIME_LIMIT = 180.0
"""Seconds for one engine to bring the job to its end: a bound, no measure."""
LONGEST = 2.0
"""Seconds within which the first random kill falls; an undisturbed job takes about as long."""
GROWTH = 1.5
"""So much later each next one may fall, so that the job ends on any machine."""
MOST_KILLS = 60
"""Of one job: more mean that it does not get on."""


@dataclass
class Findings:
    """What was not as it had to be."""

    kills: int = 0
    jobs: int = 0
    wrong: list[str] = field(default_factory=list)

    def add(self, label: str, wrong: Sequence[str], kills: int) -> None:
        self.kills += kills
        self.jobs += 1
        self.wrong += [f"{label}: {each}" for each in wrong]


class Harness:
    """Runs the job in engines that die."""

    def __init__(self, folder: Path, docker_host: str, images: Images) -> None:
        self._folder = folder
        self._docker_host = docker_host
        self._images = images
        self._template = folder / "template"
        trio.run(set_up, self._plan(self._template), self._references())
        self.writes, self._shape = self._undisturbed()

    def run(self, deaths: Iterator[Plan] | Sequence[Plan]) -> tuple[list[str], int]:
        """What is wrong after a job whose engines die as `deaths` say, and how many really died."""
        with self._home() as plan:
            began, kills = time.time(), 0
            starts: set[tuple[str, int]] = set()
            for death in deaths:
                ended = self._engine(
                    replace(plan, write=death.write, after=death.after, seconds=death.seconds)
                )
                starts |= self._images.starts(plan.instance, since=began)
                if ended.returncode != -signal.SIGKILL:
                    if ended.returncode != 0:
                        return [f"an engine failed: {ended.stderr[-2000:]}"], kills
                    break
                kills += 1
                if kills == MOST_KILLS:
                    return [f"after {kills} kills the job has not ended"], kills
            return self._judge(plan, began, starts), kills

    def _undisturbed(self) -> tuple[int, Counter[str]]:
        with self._home() as plan:
            ended = self._engine(plan)
            assert ended.returncode == 0, ended.stderr
            report = json.loads(ended.stdout)
            assert report["seen"] == expected(), report["seen"]
            return report["writes"], _shape(Path(plan.home))

    def _judge(self, plan: Plan, began: float, starts: set[tuple[str, int]]) -> list[str]:
        ended = self._engine(plan)
        if ended.returncode != 0:
            return [f"the last engine failed: {ended.stderr[-2000:]}"]
        seen, wrong = json.loads(ended.stdout)["seen"], []
        for name, value in expected().items():
            if seen[name] != value:
                wrong.append(f"{name} is {seen[name]!r}, not {value!r}")
        starts |= self._images.starts(plan.instance, since=began)
        times = Counter(name for name, _ in starts)
        wrong += [
            f"{name} was started {often} times" for name, often in times.items() if often != 1
        ]
        if len(times) != len(PROGRAMS):
            wrong.append(f"{len(times)} containers were started: {sorted(times)}")
        if left := self._images.containers(plan.instance):
            wrong.append(f"containers are left: {left}")
        with closing(sqlite3.connect(Path(plan.home) / "vaka.db")) as store:
            if left := store.execute("SELECT * FROM leases").fetchall():
                wrong.append(f"leases are left: {left}")
        shape = _shape(Path(plan.home))
        if shape != self._shape:
            wrong.append(f"files too many {shape - self._shape}, too few {self._shape - shape}")
        return wrong

    def _engine(self, plan: Plan) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "tests.chaos.engine_process", plan.text],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIME_LIMIT,
            check=False,
        )

    @contextmanager
    def _home(self) -> Iterator[Plan]:
        home = self._folder / uuid4().hex
        shutil.copytree(self._template, home)
        plan = self._plan(home)
        try:
            yield plan
        finally:
            self._images.remove_all(plan.instance)
            shutil.rmtree(home)

    def _plan(self, home: Path) -> Plan:
        return Plan(str(home), f"chaos-{uuid4().hex[:8]}", f"docker+{self._docker_host}")

    def _references(self) -> dict[str, str]:
        return {component: self._images.script(text) for component, text in PROGRAMS.items()}


def _shape(home: Path) -> Counter[str]:
    """How many files there are in each folder of a home, whatever they are called."""
    found: Counter[str] = Counter()
    for path in home.rglob("*"):
        if path.is_file() and not path.name.endswith(("-wal", "-shm", ".wal", ".lock")):
            parent = path.parent.relative_to(home)
            found[str(parent)] += 1
    return found


# -- when to die -----------------------------------------------------------------------------------


def at_write(number: int, *, after: bool) -> Plan:
    return Plan("", "", "", write=number, after=after)


def again_and_again(chance: random.Random, least: int = 2, most: int = 7) -> Iterator[Plan]:
    """Deaths without end, each so many writes after the start, so that the job gets on."""
    while True:
        yield at_write(chance.randint(least, most), after=True)


def at_any_time(chance: random.Random) -> Iterator[Plan]:
    """Deaths without end, each at a random moment, later and later until the job gets on."""
    for longest in itertools.accumulate(itertools.repeat(GROWTH), mul, initial=LONGEST):
        yield Plan("", "", "", seconds=chance.uniform(0.0, longest))


def long_form(harness: Harness, kills: int, chance: random.Random) -> Findings:
    """Each write before and after, then jobs that die again and again, until there were enough."""
    findings = Findings()
    singles = [
        (number, after) for number in range(1, harness.writes + 1) for after in (False, True)
    ]
    for number, after in singles:
        label = f"killed {'after' if after else 'before'} write {number}"
        findings.add(label, *harness.run([at_write(number, after=after)]))
        _tell(findings, label)
    ways = {"again and again": again_and_again, "at any time": at_any_time}
    while findings.kills < kills:
        for label, way in ways.items():
            findings.add(label, *harness.run(way(chance)))
            _tell(findings, label)
    return findings


def _tell(findings: Findings, label: str) -> None:
    print(
        f"{findings.kills} kills, {findings.jobs} jobs, {len(findings.wrong)} wrong: {label}",
        flush=True,
    )


def main() -> int:
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__)
    parser.add_argument("--kills", type=int, default=200, help="how many at least")
    parser.add_argument("--daemons", type=int, default=20, help="how often a Docker Engine")
    parser.add_argument("--seed", type=int, default=1, help="of the random ones")
    options = parser.parse_args()
    docker_host = os.environ.get("DOCKER_HOST") or DEFAULT_HOST
    images = Images(docker_host, BASE_IMAGE)
    with closing(images), tempfile.TemporaryDirectory(prefix="vaka-chaos-") as folder:
        harness = Harness(Path(folder), docker_host, images)
        chance = random.Random(options.seed)
        findings = long_form(harness, options.kills, chance)

    def tell(label: str, wrong: list[str]) -> None:
        findings.add(label, wrong, 1)
        _tell(findings, label)

    daemons.long_form(BASE_IMAGE, docker_host, options.daemons, chance, tell)
    print("\n".join(findings.wrong))
    print(f"{findings.kills} kills of {findings.jobs} jobs; wrong: {len(findings.wrong)}")
    return 1 if findings.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
