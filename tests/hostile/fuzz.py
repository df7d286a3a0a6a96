"""`python -m tests.hostile.fuzz PARSER FOLDER SECONDS`: feed one parser by atheris, guided by coverage.

It ends with 0 unless an error came out that is not the parser's own. What is said last is of the fuzzer:
`stat::number_of_executed_units` among others.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

CODE = ["vaka", "vaka_local", "vaka_legacy", "vaka_server", "tarfile", "zipfile"]
LONGEST = 8_192
"""Bytes of an input."""


def main(name: str, folder: str, seconds: str) -> None:
    atheris: Any = importlib.import_module("atheris")  # only where the long form has installed it
    with atheris.instrument_imports(include=CODE):
        parsers = importlib.import_module("tests.hostile.parsers")
    parser = parsers.PARSERS[name]
    for number, seed in enumerate(parser.seeds):
        Path(folder, str(number)).write_bytes(seed)
    options = (f"-max_total_time={seconds}", f"-max_len={LONGEST}", "-print_final_stats=1")
    limits = ("-timeout=25", "-rss_limit_mb=2048", f"-artifact_prefix={folder}/")
    atheris.Setup([sys.argv[0], *options, *limits, folder], parser.feed)
    atheris.Fuzz()


if __name__ == "__main__":
    main(*sys.argv[1:])
