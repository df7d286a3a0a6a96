"""The data of the table measures: CSV files that come out the same every time."""

from __future__ import annotations

from pathlib import Path

import duckdb

COLUMNS = ("id", "customer", "ordered_at", "city", "product", "quantity", "price")
ROWS_PER_MB = 13_460
DELTA = 0.1
"""Rows of a delta, as a part of the table's; half of them are of keys that the table has."""

_CITIES = "['Praha', 'Brno', 'Ostrava', 'Plzeň', 'Liberec', 'Olomouc', 'Hradec Králové', 'Zlín']"
_WORDS = "['chair', 'desk lamp', 'shelf, oak', 'door mat', 'mirror 60\"', 'clock', 'vase', 'rug']"


def write_table(target: Path, megabytes: int) -> int:
    """A file of about so many MB, with a header; return how many rows it has."""
    rows = ROWS_PER_MB * megabytes
    _write(target, f"range({rows}) AS numbers(i)", "i", salt=0)
    return rows


def write_delta(target: Path, rows: int) -> int:
    """New values for one key in twenty of a table of `rows`, and as many new keys; how many rows."""
    half = int(rows * DELTA / 2)
    step = rows // half
    source = f"range({2 * half}) AS numbers(i)"
    _write(target, source, f"CASE WHEN i < {half} THEN i * {step} ELSE {rows} + i END", salt=77)
    return 2 * half


def _write(target: Path, source: str, key: str, *, salt: int) -> None:
    # multiplied by large primes, so that neighbours have nothing in common; arithmetic only, because
    # a hash function may change with the version
    mixed = f"((({key}) + {salt}) * 2654435761 % 4294967311)"
    with duckdb.connect() as connection:
        connection.execute(
            f"""
            COPY (
                SELECT
                    {key} AS id,
                    'customer-' || lpad((m % 90000)::VARCHAR, 6, '0') AS customer,
                    strftime(TIMESTAMP '2021-01-01' + to_seconds(m % 126230400),
                             '%Y-%m-%d %H:%M:%S') AS ordered_at,
                    {_CITIES}[1 + m // 97 % 8] AS city,
                    {_WORDS}[1 + m // 1009 % 8] || ' ' || (m // 10007 % 400)::VARCHAR AS product,
                    1 + m // 31 % 12 AS quantity,
                    ((m // 7 % 500000) / 100)::DECIMAL(9, 2) AS price
                FROM (SELECT i, {mixed} AS m FROM {source})
            ) TO '{target}' (HEADER)
            """
        )
