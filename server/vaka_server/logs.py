"""How log records are rendered: one JSON object a line, or plain lines for a person."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, Literal, TextIO

from vaka_server.cli.text import clean, clean_lines

context: ContextVar[Mapping[str, Any]] = ContextVar("vaka_server_log_context")
"""Fields of the request that is being answered; every record made meanwhile carries them."""

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def configure(
    level: str = "INFO", form: Literal["json", "text"] = "json", stream: TextIO | None = None
) -> None:
    """Render everything that is logged from here on, to standard error unless told otherwise."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    # "Running on ..." is ours to say, and httpx tells every request that the CLI makes
    for name in ("hypercorn.error", "httpx", "httpcore", "alembic"):
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))


def fields(record: logging.LogRecord) -> dict[str, Any]:
    """What a record carries beyond its name: the request's fields and its own `extra` ones."""
    own = {name: value for name, value in vars(record).items() if name not in _STANDARD}
    return {**context.get({}), **own}


class JsonFormatter(logging.Formatter):
    """One object: `time`, `level`, `event`, `logger`, the record's fields, `exception` if any."""

    def format(self, record: logging.LogRecord) -> str:
        document: dict[str, Any] = {
            "time": _moment(record).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            "logger": record.name,
        }
        document |= fields(record)
        if record.exc_info:
            document["exception"] = self.formatException(record.exc_info)
        return json.dumps(document, default=str)  # ASCII only: it may be read in a terminal


class TextFormatter(logging.Formatter):
    """`12:00:00 level event field=value ...`."""

    def format(self, record: logging.LogRecord) -> str:
        said = clean(record.getMessage())
        line = f"{_moment(record):%H:%M:%S} {record.levelname.lower():8} {said}"
        for name, value in fields(record).items():
            line += f" {name}={clean(str(value))}"
        if record.exc_info:
            line += "\n" + clean_lines(self.formatException(record.exc_info))
        return line


def _moment(record: logging.LogRecord) -> datetime:
    return datetime.fromtimestamp(record.created, UTC)
