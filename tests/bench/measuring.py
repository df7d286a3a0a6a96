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
from typing import Any, TypeVar

A = TypeVar("A")
B = TypeVar("B")
ROOT = Path(__file__).resolve().parent.parent.parent


@dataclass(frozen=True, slots=True)
class Measure:
    """One line of the report."""

    name: str
    ours: float
    """The median, as the reference is one."""
    reference: float | None
    """What the same work takes without us; None where the target is a fixed limit."""
    unit: str
    ratio: float
    """Ours to the reference, as `paired_ratio` has it; or to the limit."""
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
    name: str,
    ours: Sequence[float],
    reference: Sequence[float],
    unit: str,
    ratio: float,
    *notes: str,
) -> Measure:
    """Met when ours is at most `ratio` of the reference; one value of each a round."""
    found = paired_ratio(ours, reference)
    return Measure(
        name,
        median(ours),
        median(reference),
        unit,
        found,
        f"ratio <= {ratio:g}",
        found <= ratio,
        (*notes, _spreads(ours, reference)),
    )


def at_least(
    name: str,
    ours: Sequence[float],
    reference: Sequence[float],
    unit: str,
    ratio: float,
    *notes: str,
) -> Measure:
    """Met when ours is at least `ratio` of the reference; one value of each a round."""
    found = paired_ratio(ours, reference)
    return Measure(
        name,
        median(ours),
        median(reference),
        unit,
        found,
        f"ratio >= {ratio:g}",
        found >= ratio,
        (*notes, _spreads(ours, reference)),
    )


def within(name: str, ours: float, limit: float, unit: str, *notes: str) -> Measure:
    """Met when ours is at most `limit`; there is no reference."""
    target = f"<= {limit:g} {unit}"
    return Measure(name, ours, None, unit, ours / limit, target, ours <= limit, notes)


async def interleave(
    rounds: int, ours: Callable[[int], Awaitable[A]], reference: Callable[[int], Awaitable[B]]
) -> tuple[list[A], list[B]]:
    """What each side returned, round by round: A B B A A B …

    The order turns, so that no side profits from what the one before it left behind. The argument is
    the round, from 0.
    """
    mine: list[A] = []
    others: list[B] = []
    for index in range(rounds):
        if index % 2 == 0:
            mine.append(await ours(index))
        others.append(await reference(index))
        if index % 2 == 1:
            mine.append(await ours(index))
    return mine, others


def paired_ratio(ours: Sequence[float], reference: Sequence[float]) -> float:
    """The median of the ratios of each round.

    Two sides of one round are neighbours in time. What else the machine does changes more from one
    round to the next than within one, and so matters less here than for a ratio of two medians.
    """
    return median([mine / other for mine, other in zip(ours, reference, strict=True)])


def median(values: Sequence[float]) -> float:
    return statistics.median(values)


def spread(values: Sequence[float]) -> str:
    """Smallest and largest, for notes."""
    return f"{min(values):,.4g} to {max(values):,.4g}"


def _spreads(ours: Sequence[float], reference: Sequence[float]) -> str:
    return f"n = {len(ours)}: ours {spread(ours)}, reference {spread(reference)}"


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
