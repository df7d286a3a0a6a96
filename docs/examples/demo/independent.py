"""Compute the demo's output another way and compare: `independent.py FLIGHTS CARRIERS EXPORTED`.

Straight from the source files with SQLite and whole numbers; it shares no code with the component,
the processors or the engine. Exits 1 and shows the first differences when EXPORTED is not equal.
"""

import csv
import hashlib
import json
import sqlite3
import sys
from fractions import Fraction
from pathlib import Path

COLUMNS = [
    "origin",
    "carrier",
    "month",
    "carrier_name",
    "flights",
    "late_flights",
    "mean_dep_delay",
    "mean_arr_delay",
    "max_arr_delay",
    "row_hash",
]

STATISTICS = """
    SELECT origin, carrier, CAST(month AS INTEGER), COUNT(*), SUM(arr > :late), SUM(dep), SUM(arr),
        MAX(arr)
    FROM (
        SELECT origin, carrier, month,
            CAST(dep_delay AS INTEGER) AS dep, CAST(arr_delay AS INTEGER) AS arr
        FROM flights
        WHERE origin = :origin AND dep_delay != 'NA' AND arr_delay != 'NA'
    )
    GROUP BY 1, 2, 3
"""


def expected(flights: Path, carriers: Path, *, origin: str, late: int) -> set[tuple[str, ...]]:
    """The rows that the output table must hold, as texts in the order of COLUMNS."""
    names = json.loads(carriers.read_text())
    database = sqlite3.connect(":memory:")
    with flights.open(newline="") as file:
        rows = csv.reader(file)
        columns = next(rows)
        database.execute(f"CREATE TABLE flights ({', '.join(f'{name} TEXT' for name in columns)})")
        marks = ", ".join("?" * len(columns))
        database.executemany(f"INSERT INTO flights VALUES ({marks})", rows)
    found = set()
    for airport, carrier, month, count, late_ones, departure, arrival, worst in database.execute(
        STATISTICS, {"origin": origin, "late": late}
    ):
        means = [hundredths(departure, count), hundredths(arrival, count)]
        figures = [airport, carrier, month, names[carrier], count, late_ones, *means, worst]
        row = [str(figure) for figure in figures]
        digest = hashlib.sha256("\x1f".join(row).encode()).hexdigest()[:16]
        found.add((*row, digest))
    database.close()
    return found


def hundredths(total: int, count: int) -> str:
    """The mean with two decimals, ties to even, without a floating-point number."""
    whole = round(Fraction(100 * total, count))
    sign = "-" if whole < 0 else ""
    return f"{sign}{abs(whole) // 100}.{abs(whole) % 100:02}"


def compare(flights: Path, carriers: Path, exported: Path, *, origin: str, late: int) -> list[str]:
    """What differs between `exported` and our own computation, one line each; empty when nothing."""
    with exported.open(newline="") as file:
        rows = csv.reader(file)
        header = next(rows, [])
        got = [tuple(row) for row in rows]
    if sorted(header) != sorted(COLUMNS):
        return [f"columns {header} instead of {COLUMNS}"]
    if ragged := [row for row in got if len(row) != len(header)]:
        return [f"not {len(header)} fields: {','.join(row)}" for row in ragged]
    order = [header.index(column) for column in COLUMNS]
    ordered = [tuple(row[index] for index in order) for row in got]
    wanted = expected(flights, carriers, origin=origin, late=late)
    differences = [f"missing: {','.join(row)}" for row in sorted(wanted - set(ordered))]
    differences += [f"too much: {','.join(row)}" for row in sorted(set(ordered) - wanted)]
    if len(ordered) != len(set(ordered)):
        differences.append(f"{len(ordered) - len(set(ordered))} rows are there twice")
    return differences


if __name__ == "__main__":
    flights_file, carriers_file, exported_file = map(Path, sys.argv[1:4])
    different = compare(flights_file, carriers_file, exported_file, origin="JFK", late=15)
    print("\n".join(different[:20]) or "equal")
    sys.exit(1 if different else 0)
