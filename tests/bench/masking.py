"""Hiding secrets in ordinary lines of a log: `masker`.

There is no other side: the limit is that hiding 200 secrets may not be what a log waits for. Text comes
in parts as large as a read of the daemon's is, and a few of its lines hold a secret.
"""

from __future__ import annotations

import base64
import os
import time

from tests.bench.measuring import Measure, median, spread

from vaka.masking import HIDDEN, Masker

SECRETS = 200
LINE = "2026-01-02 03:04:05 INFO  a row of table out.c-main.orders was written in 17 ms\n"
READ = 1 << 16
"""Bytes of text that are masked at once."""
HOLD_ONE = 100
"""Of how many lines one holds a secret."""
ROUNDS = 7
READS = 400
RATE = 50.0
"""MB a second of one core."""


async def measure() -> list[Measure]:
    """`masker`: MB of text a second of CPU, with 200 secrets."""
    secrets = [base64.b64encode(os.urandom(24)).decode() for _ in range(SECRETS)]
    began = time.process_time()
    masker = Masker(secrets)
    masker.lines(LINE)
    ready = time.process_time() - began
    lines = [LINE] * (READ // len(LINE))
    lines[::HOLD_ONE] = [
        f"{LINE[:-1]} {secrets[index % SECRETS]}\n" for index in range(len(lines[::HOLD_ONE]))
    ]
    text = "".join(lines)
    if masker.lines(text).count(HIDDEN) != len(lines[::HOLD_ONE]):
        raise SystemExit("not all secrets were hidden")
    rates = [_rate(masker, text) for _ in range(ROUNDS)]
    rate = median(rates)
    return [
        Measure(
            "masker",
            rate,
            None,
            "MB/s",
            rate / RATE,
            f">= {RATE:g} MB/s",
            rate >= RATE,
            (
                f"{SECRETS} secrets, one in every {HOLD_ONE} lines of {len(LINE)} bytes; "
                f"n = {ROUNDS}: {spread(rates)}; {ready * 1e3:.3g} ms until it is ready",
            ),
        )
    ]


def _rate(masker: Masker, text: str) -> float:
    began = time.process_time()
    for _ in range(READS):
        masker.lines(text)
    return READS * len(text) / 1e6 / (time.process_time() - began)
