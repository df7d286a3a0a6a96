"""JSON values as text, and back as they were."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from vaka.errors import InvalidInput


def to_text(value: Any, what: str) -> str:
    """A JSON value as text; order of keys and numbers are kept.

    Raises:
        InvalidInput: `value` cannot be written as JSON; `what` is what the message calls it.
    """
    try:
        # escapes, because not every string of JSON can be written in UTF-8
        return json.dumps(value, allow_nan=False, separators=(",", ":"), default=_plain)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidInput(f'"{what}" cannot be stored as JSON: {error}.', path=what) from error


def from_text(text: str) -> Any:
    """The value that was written."""
    return json.loads(text)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} is not a type of JSON")
