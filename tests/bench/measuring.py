"""What a measure says, and how two things are timed beside each other."""

from __future__ import annotations

import os
import shutil
import statistics
import tempfile
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent


@dataclass(frozen=True, slots=True)
class Measure:
    """One line of the report."""

    name: str
    ours: float
    reference: float | None
    """What the same work takes without us; None where the target is a fixed limit."""
    unit: str
    ratio: float
    """Ours to the reference, or to the limit."""
    target: str
    met: bool
    notes: tuple[str, ...] = ()

    @property
    def line(self) -> str:
        reference = "-" if self.reference is None else f"{self.reference:,.4g} {self.unit}"
        word = "met" if self.met else "short"
        return (
            f"{self.name} | {self.ours:,.4g} {self.unit} | {reference} | {self.ratio:.2f} | "
            f"{self.target} | {word}"
        )

    @property
    def document(self) -> dict[str, Any]:
        return asdict(self)


def at_most(
    name: str, ours: float, reference: float, unit: str, ratio: float, *notes: str
) -> Measure:
    """Met when ours is at most `ratio` of the reference."""
    found = ours / reference
    return Measure(name, ours, reference, unit, found, f"ratio <= {ratio:g}", found <= ratio, notes)


def at_least(
    name: str, ours: float, reference: float, unit: str, ratio: float, *notes: str
) -> Measure:
    """Met when ours is at least `ratio` of the reference."""
    found = ours / reference
    return Measure(name, ours, reference, unit, found, f"ratio >= {ratio:g}", found >= ratio, notes)


def within(name: str, ours: float, limit: float, unit: str, *notes: str) -> Measure:
    """Met when ours is at most `limit`; there is no reference."""
    target = f"<= {limit:g} {unit}"
    return Measure(name, ours, None, unit, ours / limit, target, ours <= limit, notes)


async def interleave(rounds: int, *sides: Callable[[int], Awaitable[Any]]) -> list[list[Any]]:
    """What each side returned, round by round: A B A B …, or A B C A B C …

    Every second round goes the other way round (B A), so that no side profits from what the one
    before it left behind. The argument is the round, from 0.
    """
    results: list[list[Any]] = [[] for _ in sides]
    for index in range(rounds):
        order = range(len(sides)) if index % 2 == 0 else reversed(range(len(sides)))
        for side in order:
            results[side].append(await sides[side](index))
    return results


def median(values: Sequence[float]) -> float:
    return statistics.median(values)


def spread(values: Sequence[float], scale: float = 1.0) -> str:
    """Smallest and largest, for notes."""
    return f"{min(values) * scale:,.4g} to {max(values) * scale:,.4g}"


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """A folder on the disk of `TMPDIR`, which containers can be shown; gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="vaka-bench-")).resolve()
    try:
        folder.chmod(0o755)  # containers run as another user
        yield folder
    finally:
        shutil.rmtree(folder)


def environment() -> dict[str, str]:
    """Environment of a child: ours, less what would set a server up differently."""
    return {name: value for name, value in os.environ.items() if not name.startswith("VAKA_")}
