"""Print, per document of docs/spec, how many acceptance scenarios are shown, deviated from, open.

A test shows a scenario by `@pytest.mark.scenario("runner", 57)`; a deviation is a line
`- runner 12: reason` of docs/spec/deviations.md, and counts as such even when a test shows what
happens instead. A mark or a line that names no scenario is an error.
"""

from __future__ import annotations

import contextlib
import io
import re
import sys
from collections import defaultdict
from pathlib import Path

import pytest

SPEC = Path(__file__).resolve().parent.parent / "docs/spec"


class Marks:
    """Collects the marks of all tests that would run."""

    def __init__(self) -> None:
        self.shown: dict[str, set[int]] = defaultdict(set)
        self.wrong: list[str] = []

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        for item in session.items:
            for mark in item.iter_markers("scenario"):
                match mark.args:
                    case (str(document), int(number)) if not mark.kwargs:
                        self.shown[document].add(number)
                    case _:
                        self.wrong.append(f"{item.nodeid}: scenario{mark.args} is no such mark")


def scenarios(document: Path) -> list[int]:
    """The numbers in the chapter "Acceptance scenarios" of `document`."""
    numbers, inside = [], False
    for line in document.read_text(encoding="utf-8").splitlines():
        if line.startswith("## "):
            inside = line.endswith("Acceptance scenarios")
        elif inside and (numbered := re.match(r"(\d+)\. ", line)):
            numbers.append(int(numbered[1]))
    return numbers


def deviations(file: Path) -> dict[str, set[int]]:
    """The numbers in the lines of deviations.md, by document."""
    found: dict[str, set[int]] = defaultdict(set)
    text = file.read_text(encoding="utf-8") if file.exists() else ""
    for document, number in re.findall(r"^- ([a-z-]+) (\d+): \S", text, re.MULTILINE):
        found[document].add(int(number))
    return found


def main() -> int:
    marks = Marks()
    with contextlib.redirect_stdout(io.StringIO()) as said:
        code = pytest.main(["--collect-only", "-qq"], plugins=[marks])
    if code not in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
        print(said.getvalue(), "scenarios: collecting the tests failed", file=sys.stderr)
        return 1
    known = {file.stem: set(scenarios(file)) for file in sorted(SPEC.glob("*.md"))}
    known = {document: numbers for document, numbers in known.items() if numbers}
    deviated = deviations(SPEC / "deviations.md")
    for where, claims in (("a test", marks.shown), ("deviations.md", deviated)):
        for document, numbers in claims.items():
            for number in sorted(numbers - known.get(document, set())):
                marks.wrong.append(f"{where} names {document} {number}, which does not exist")
    for document, numbers in known.items():
        aside = deviated.get(document, set())
        shown = marks.shown.get(document, set()) - aside
        left = len(numbers) - len(shown) - len(aside)
        print(f"{document}: {len(shown)} shown, {len(aside)} deviated, {left} open, {len(numbers)}")
    print("\n".join(marks.wrong), file=sys.stderr, end="\n" if marks.wrong else "")
    return 1 if marks.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
