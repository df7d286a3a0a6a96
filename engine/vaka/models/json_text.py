"""JSON texts from clients and components, refused with the words that clients of the runner know."""

from __future__ import annotations

import json
import re
from typing import Any, Final

MAX_LEVELS: Final = 512
"""Levels of arrays and objects that a text may have. Python's own limit depends on its stack."""
_TOKENS = re.compile(r'"(?:[^"\\]|\\.)*"|[\[{]|[\]}]', re.DOTALL)


class NotJson(ValueError):
    """The text is no JSON; the message is the short reason."""


def parse_json_text(text: str) -> Any:
    """The value of a JSON text.

    What comes out can be written as JSON again: it has neither NaN nor infinity nor half a character.

    Raises:
        NotJson: `Syntax error` and the like (runner.md section 1.5).
    """
    try:
        if text.count("[") + text.count("{") > MAX_LEVELS:
            _check_levels(text)
        value = json.loads(text, parse_constant=_no_constant, parse_float=_finite)
        if "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise NotJson("Single unpaired high surrogate in Unicode escape") from error
    except json.JSONDecodeError as error:
        if error.msg.startswith("Invalid control character"):
            raise NotJson("Control character error, possibly incorrectly encoded") from error
        raise NotJson("Syntax error") from error
    except NotJson:
        raise
    except ValueError as error:  # a number with more digits than Python converts
        raise NotJson("Syntax error") from error
    return value


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _finite(digits: str) -> float:
    number = float(digits)
    if number in {float("inf"), float("-inf")}:
        raise NotJson("Inf and NaN cannot be JSON encoded")
    return number


def _check_levels(text: str) -> None:
    levels = 0
    for match in _TOKENS.finditer(text):
        if match[0] in "[{":
            levels += 1
            if levels > MAX_LEVELS:
                raise NotJson("Maximum stack depth exceeded")
        elif match[0] in "]}":
            levels -= 1
