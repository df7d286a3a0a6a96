"""What the command line prints: nothing that a terminal acts on, and why a job ended."""

import ast
import io
import logging
import sys
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from vaka.models.event import Event
from vaka_server.cli import text
from vaka_server.cli.data import parse_where, print_file
from vaka_server.cli.jobs import _Display, event_line
from vaka_server.cli.session import Session, Usage, remark, say
from vaka_server.logs import JsonFormatter, TextFormatter


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("plain", "plain"),
        ("žluťoučký\tkůň 😀", "žluťoučký\tkůň 😀"),
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b[2J\x1b[1;1Hcleared", "cleared"),
        ("\x1b]0;new title\x07after", "after"),
        ("\x1b]8;;http://evil\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x1b]52;c;aGFjaw==\x07clipboard", "clipboard"),
        ("\x1bPdevice\x1b\\control", "control"),
        ("\x9b31mred", "red"),
        ("\x9dtitle\x9cafter", "after"),
        ("unfinished \x1b]0;title", "unfinished "),
        ("over\rwritten\x08\x7f\x00", "overwritten"),
        ("\u202egnp.exe", "gnp.exe"),
        ("zero\u200bwidth\u2066x\u2069", "zerowidthx"),
        ("two\r\nlines\nhere", "two lines here"),
        ("\x1b", ""),
        ("\x1b[", ""),
        ("\x1bc reset", " reset"),
    ],
)
def test_a_terminal_has_nothing_to_act_on(raw: str, shown: str) -> None:
    assert text.clean(raw) == shown


def test_all_that_is_said_is_clean_and_its_lines_stay(capsys: pytest.CaptureFixture[str]) -> None:
    say("one \x1b[2J\u202e\ntwo\r\x9b1m")
    remark("three\x1b]0;title\x07")
    assert capsys.readouterr() == ("one \ntwo\n", "three\n")


def test_nothing_is_printed_past_what_makes_it_clean() -> None:
    known = {
        "main.py": 1,  # our own version
        "session.py": 6,  # `say` and `remark`; who reads, and a pipe that nobody does
        "data.py": 4,  # `print_file`
        "jobs.py": 3,  # who reads, and lines of `event_line`, below which something moves
    }
    found: Counter[str] = Counter()
    for path in Path(text.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Attribute(ast.Name("sys"), "stdout" | "stderr") | ast.Attribute(
                    ast.Name("typer"), "echo" | "secho"
                ):
                    found[path.name] += 1
                case ast.Call(ast.Name("print")) | ast.Call(ast.Attribute(attr="print")):
                    found[path.name] += 1
    assert found == known


def test_a_file_is_printed_as_it_is_and_clean_to_a_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "a.csv"
    content = b'"id"\n"\x1b]52;c;aGFjaw==\x07\xe2\x80\xae1\xff\r"\n'
    file.write_bytes(content)
    for is_terminal, shown in ((False, content), (True, '"id"\n"1\ufffd"\n'.encode())):
        out = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
        monkeypatch.setattr(out, "isatty", lambda is_terminal=is_terminal: is_terminal)
        monkeypatch.setattr(sys, "stdout", out)
        print_file(file)
        assert out.buffer.getvalue() == shown


def test_what_goes_on_is_no_markup_whatever_it_looks_like() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=200)
    note = Event(
        1, datetime(2026, 1, 2, tzinfo=UTC), "note", "info", "[link=http://evil]a[/b]\x1b[2J"
    )
    with console.status("waiting") as status:
        _Display(Session(None, None, Path(), json=False), status, console).event(note)
        shown = "".join(segment.text for segment in console.render(status.renderable))
    assert "[link=http://evil]a[/b]" in shown


@pytest.mark.parametrize("formatter", [JsonFormatter(), TextFormatter()])
def test_a_log_that_is_read_in_a_terminal_has_nothing_it_acts_on(
    formatter: logging.Formatter,
) -> None:
    record = logging.makeLogRecord({"msg": "job.failed", "error": "\x1b[2J\x9b1m\u202ewords\r\n"})
    shown = formatter.format(record)
    assert "words" in shown
    assert shown.isascii()
    assert shown.isprintable()


def test_json_for_programs_is_ascii() -> None:
    assert text.to_json({"a": "\x9b1m\u202e"}).isascii()


def test_a_table_is_aligned_and_clean() -> None:
    rows: list[dict[str, Any]] = [
        {"a": "x", "b": None, "c": ["k", "l"]},
        {"a": "\x1b[31mlonger", "b": True, "c": []},
    ]
    assert text.table(rows, {"a": "A", "b": "BEE", "c": "C"}) == (
        "A       BEE  C\nx       -    k, l\nlonger  yes"
    )


@pytest.mark.parametrize(
    ("count", "shown"),
    [(None, "-"), (0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (2.5e9, "2.5 GB")],
)
def test_sizes(count: Any, shown: str) -> None:
    assert text.size(count) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(None, "-"), (1.25, "1.2 s"), (61, "1 min 01 s"), (3 * 3600 + 60, "3 h 01 min")],
)
def test_durations(seconds: float | None, shown: str) -> None:
    assert text.duration(seconds) == shown


def job(status: str, cause: Any = None, **members: Any) -> dict[str, Any]:
    return {
        "status": status,
        "cause": cause,
        "error": None,
        "result": {},
        "terminatedBy": {"id": None, "description": None},
        "progress": {"phase": None},
        **members,
    }


def failed(kind: str, whose: str, message: str, **evidence: Any) -> dict[str, Any]:
    result = {"message": message, "exceptionId": "docker-1"}
    return job("error", {"kind": kind, "evidence": evidence}, error=whose, result=result)


CANNED = "Internal error occurred, please contact support@keboola.com"


@pytest.mark.parametrize(
    ("document", "sentence"),
    [
        (
            job("waiting"),
            "It waits for a free slot, or for another job of the same configuration to end.",
        ),
        (job("processing", progress={"phase": "stage"}), "It runs (a container is at work)."),
        (
            job("terminating", terminatedBy={"id": "1", "description": "me"}),
            "It is being stopped by me; it ends when nothing of it lives.",
        ),
        (
            job("success", result={"message": "Component processing finished."}),
            "Component processing finished.",
        ),
        (job("cancelled"), "It was cancelled before it started."),
        (
            job("terminated", terminatedBy={"id": "7", "description": None}),
            "It was stopped by 7 while it ran.",
        ),
        (
            failed("user_error", "user", "The password is wrong.\x1b[2J", exit_code=1),
            "The component ended with exit code 1, a user error: The password is wrong.",
        ),
        (
            failed(
                "application_error",
                "application",
                CANNED,
                exit_code=2,
                stderr_tail="a\nKeyError: b",
            ),
            "The component failed with exit code 2; its last words: KeyError: b. "
            "The log has it as docker-1.",
        ),
        (
            failed("application_error", "application", CANNED, exit_code=2, stderr_tail=""),
            "The component failed with exit code 2. The log has it as docker-1.",
        ),
        (
            failed(
                "out_of_memory",
                "user",
                "Component out of memory",
                limit_bytes=256_000_000,
                peak_bytes=255_000_000,
            ),
            "The component was ended because it needed more memory than its limit of 256.0 MB (it "
            "had used 255.0 MB); raise `memory` in its definition: Component out of memory",
        ),
        (
            failed("timeout", "user", "Too long", seconds=3600, setting="process_timeout"),
            "It ran longer than the 1 h 00 min that process_timeout allows: Too long",
        ),
        (
            failed(
                "killed",
                "application",
                CANNED,
                exit_code=137,
                signal="SIGKILL",
                daemon_event="kill signal=9 at 2026-01-31T12:00:00Z",
            ),
            "The container was killed by SIGKILL (exit code 137; the daemon tells: kill signal=9 at "
            "2026-01-31T12:00:00Z). The log has it as docker-1.",
        ),
        (
            failed("killed", "application", CANNED, exit_code=139),
            "The container was killed by a signal (exit code 139). The log has it as docker-1.",
        ),
        (
            failed("container_lost", "application", CANNED, container="vaka-1"),
            "The container vaka-1 vanished before its end was seen. The log has it as docker-1.",
        ),
        (
            failed("image_unavailable", "application", CANNED, reference="a:1", detail="no route."),
            "The image a:1 is not on the host and cannot be pulled: no route. "
            "The log has it as docker-1.",
        ),
        (
            failed("configuration", "user", "Row r not found.", detail="Row r not found."),
            "The configuration cannot be used: Row r not found.",
        ),
        (
            failed("internal", "application", CANNED, error="KeyError"),
            "The engine itself failed (KeyError). The log has it as docker-1.",
        ),
        (job("error", error="user", result={"message": "Just words."}), "Just words."),
        (job("error"), "It failed; nothing more is known."),
    ],
)
def test_one_sentence_says_where_a_job_is_or_why_it_ended(
    document: dict[str, Any], sentence: str
) -> None:
    assert text.explain(document) == sentence


@pytest.mark.parametrize(
    ("condition", "parsed"),
    [
        (None, (None, (), "eq")),
        ("a=b", ("a", ("b",), "eq")),
        ("a = b c ", ("a", ("b c",), "eq")),
        ("a=", ("a", ("",), "eq")),
        ("a=b|c", ("a", ("b", "c"), "eq")),
        ("a!=b", ("a", ("b",), "ne")),
        ("a<=5", ("a", ("5",), "le")),
        ("a<5", ("a", ("5",), "lt")),
        ("a>=x=y", ("a", ("x=y",), "ge")),
        ("a=b<c", ("a", ("b<c",), "eq")),
    ],
)
def test_conditions(condition: str | None, parsed: Any) -> None:
    assert parse_where(condition) == parsed


def test_a_condition_needs_an_operator() -> None:
    with pytest.raises(Usage):
        parse_where("a")


@pytest.mark.parametrize(
    ("event", "mark"),
    [
        ({"kind": "log", "level": "info", "stream": "stdout"}, " "),
        ({"kind": "log", "level": "error", "stream": "stderr"}, "!"),
        ({"kind": "log", "level": "info"}, " "),
        ({"kind": "log", "level": "warn"}, "!"),
        ({"kind": "note", "level": "warn"}, "·"),
    ],
)
def test_a_line_is_marked_by_who_says_it_and_how_bad_it_is(event: Any, mark: str) -> None:
    moment = datetime(2026, 1, 2, tzinfo=UTC)
    line = event_line(Event(1, moment, event.pop("kind"), event.pop("level"), "said", **event))
    assert line.split(" ", 1)[1] == f"{mark} said"
