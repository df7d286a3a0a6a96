"""How the command line writes for people."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

_TERMINAL = re.compile(
    r"""
      \x1b \[ [0-?]* [ -/]* [@-~]           # CSI: colours, cursor, erasing
    | \x1b [\]PX^_] .*? (?: \x07 | \x1b\\ | \x9c | $ )   # OSC and the like: titles, links
    | \x1b [ -/]* [0-~]                     # any other escape
    | \x9b [0-?]* [ -/]* [@-~]
    | [\x9d\x90\x98\x9e\x9f] .*? (?: \x07 | \x1b\\ | \x9c | $ )
    """,
    re.VERBOSE | re.DOTALL,
)
_HIDDEN = {"Cc", "Cf", "Zl", "Zp"}
"""Categories of characters that move, hide or reorder what is shown."""


def clean(text: str) -> str:
    """`text` without anything that a terminal would act on; tabs stay, everything is one line."""
    if text.isascii() and text.isprintable():
        return text
    text = _TERMINAL.sub("", text)
    return "".join(
        character
        for character in text.replace("\r\n", " ").replace("\n", " ")
        if character == "\t" or unicodedata.category(character) not in _HIDDEN
    )


def clean_lines(text: str) -> str:
    """Several lines, each as `clean` has it."""
    return "\n".join(map(clean, text.split("\n")))


def table(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str]) -> str:
    """Rows as aligned columns; `columns` maps a member to its title."""
    lines = [list(columns.values())]
    lines += [[cell(row.get(name)) for name in columns] for row in rows]
    widths = [max(len(line[index]) for line in lines) for index in range(len(columns))]
    return "\n".join(
        "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def cell(value: Any) -> str:
    """One value, as short as it can be told."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return clean(", ".join(map(str, value)))
    return clean(str(value))


def to_json(value: Any) -> str:
    """JSON for programs: ASCII only, so that no terminal acts on it either."""
    return json.dumps(value, indent=2)


def size(count: int | None) -> str:
    """A number of bytes."""
    if count is None:
        return "-"
    number, unit = float(count), "B"
    for bigger in ("kB", "MB", "GB", "TB"):
        if number < 1000:
            break
        number, unit = number / 1000, bigger
    return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"


def duration(seconds: float | None) -> str:
    """A length of time."""
    if seconds is None:
        return "-"
    if seconds < 60:
        return f"{seconds} s" if isinstance(seconds, int) else f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"


def clock(text: str | None, form: str = "%Y-%m-%d %H:%M:%S") -> str:
    """A moment of a document, in this machine's zone."""
    return "-" if text is None else datetime.fromisoformat(text).astimezone().strftime(form)


# -- why a job ended -------------------------------------------------------------------------------


def explain(job: Mapping[str, Any]) -> str:
    """One sentence on where a job is, or why it ended as it did."""
    status, cause = job["status"], job.get("cause") or {}
    evidence: Mapping[str, Any] = cause.get("evidence") or {}
    message = clean(str((job.get("result") or {}).get("message") or "")).strip()
    match status:
        case "waiting":
            return "It waits for a free slot, or for another job of the same configuration to end."
        case "processing":
            progress = job.get("progress") or {}
            return f"It runs ({_phase(progress)})."
        case "terminating":
            return f"It is being stopped{_by(job)}; it ends when nothing of it lives."
        case "success" | "warning":
            return message or "It succeeded."
        case "cancelled":
            return f"It was cancelled{_by(job)} before it started."
        case "terminated":
            return f"It was stopped{_by(job)} while it ran."
    reason = _reason(str(cause.get("kind") or ""), evidence)
    if reason is None:
        return message or "It failed; nothing more is known."
    if job.get("error") == "application":
        # the message is canned then, and says nothing
        return f"{reason}. The log has it as {(job.get('result') or {}).get('exceptionId')}."
    if not message or message.rstrip(".") in reason:
        return f"{reason}."
    return f"{reason}: {message}"


def _reason(kind: str, evidence: Mapping[str, Any]) -> str | None:
    detail = clean(str(evidence.get("detail") or evidence.get("error") or "")).strip().rstrip(".")
    code = evidence.get("exit_code")
    match kind:
        case "user_error" if code is not None:
            return f"The component ended with exit code {code}, a user error"
        case "application_error" if code is not None:
            words = str(evidence.get("stderr_tail") or "").strip().splitlines()
            said = f"; its last words: {clean(words[-1])}" if words else ""
            return f"The component failed with exit code {code}{said}"
        case "out_of_memory":
            peak = evidence.get("peak_bytes")
            used = f" (it had used {size(peak)})" if peak else ""
            return (
                f"The component was ended because it needed more memory than its limit of "
                f"{size(evidence.get('limit_bytes'))}{used}; raise `memory` in its definition"
            )
        case "timeout":
            setting = evidence.get("setting")
            return (
                f"It ran longer than the {duration(evidence.get('seconds'))} that "
                f"{setting or 'its definition'} allows"
            )
        case "killed":
            event = clean(str(evidence.get("daemon_event") or ""))
            told = f"; the daemon tells: {event}" if event else ""
            signal = clean(str(evidence.get("signal") or "a signal"))
            return f"The container was killed by {signal} (exit code {code}{told})"
        case "container_lost":
            return f"The container {evidence.get('container')} vanished before its end was seen"
        case "runtime_lost":
            return f"The container runtime did not answer: {detail}"
        case "image_unavailable":
            reference = evidence.get("reference")
            return f"The image {reference} is not on the host and cannot be pulled: {detail}"
        case "configuration":
            return f"The configuration cannot be used: {detail}"
        case "storage":
            return f"Storage could not do what was asked: {detail}"
        case "internal":
            return f"The engine itself failed ({detail})" if detail else "The engine itself failed"
        case _:
            return detail or None


def _by(job: Mapping[str, Any]) -> str:
    by = job.get("terminatedBy") or {}
    name = by.get("description") or by.get("id")
    return f" by {clean(str(name))}" if name else ""


def _phase(progress: Mapping[str, Any]) -> str:
    words = {
        "claimed": "it is about to begin",
        "staging_in": "inputs are being laid out",
        "stage": "a container is at work",
        "staging_out": "outputs are being stored",
        "state": "state is being stored",
        "result": "the result is being stored",
    }
    return words.get(str(progress.get("phase")), "it is being prepared")
