"""What the guide on logs says is what the code does."""

from __future__ import annotations

import json
import re
from pathlib import Path

from vaka import EngineConfig, gelf
from vaka.actors.logs import SYSLOG
from vaka.models.component import DEFAULT_VERBOSITY
from vaka_server.routes import all_routes

GUIDE = (Path(__file__).resolve().parents[2] / "docs/guides/logs.md").read_text()


def test_the_default_verbosity_is_the_codes() -> None:
    (block,) = re.findall(r"```json\n(.*?)```", GUIDE, re.DOTALL)
    told = json.loads(block)["logging"]
    assert told["type"] == "standard"
    assert {int(level): word for level, word in told["verbosity"].items()} == DEFAULT_VERBOSITY


def test_the_table_of_levels_is_the_codes() -> None:
    rows = re.findall(r"^\| [a-z, ]+ \| ([\d, ]+) \| ([\d, ]+) \| (\w+) \|$", GUIDE, re.MULTILINE)
    told = {
        int(syslog): (int(number), event)
        for numbers, levels, event in rows
        for number, syslog in zip(numbers.split(","), levels.split(","), strict=True)
    }
    assert told == {level: (each.number, each.level) for level, each in SYSLOG.items()}


def test_limits_and_ports_are_the_defaults() -> None:
    config = EngineConfig()
    assert f"{config.event_line_length:,} characters" in GUIDE
    assert config.job_log_bytes == 1 << 30
    assert f"ports {config.gelf_port_min} to {config.gelf_port_max}" in GUIDE
    assert f"{gelf.MESSAGE_BYTES >> 10} KiB and {gelf.MOST_DEPTH} levels" in GUIDE


def test_the_paths_are_routes() -> None:
    rules = {route.rule.replace("<job_id>", "1") for route in all_routes()}
    paths = re.findall(r"GET (/queue/\S+?)`", GUIDE)
    assert len(paths) == 2
    assert set(paths) <= rules
