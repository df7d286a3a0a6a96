"""Mustache over a JSON text, with text for values (runner.md section 9.4).

Known are `{{ name }}`, raw `{{{ name }}}` and `{{& name }}`, sections, inverted sections, comments and
`{{=<< >>=}}`. There are no lists, so a section is kept once or dropped, and there are no partials. What
is inserted is not looked at again.

A tag stands within one string of the JSON text, so that braces of the text itself are never taken for
one; a section may reach over several strings.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from vaka.errors import InvalidInput

LONGEST: Final = 16 << 20
"""Characters that a rendered text may have."""
_QUOTE: Final = re.compile(r'\\.|"', re.DOTALL)
_MARKS: Final = ("&", "#", "^", "/", "!", ">")
_FALSE: Final = ("", "0")
"""Values that close a section."""


@dataclass(slots=True)
class Rendered:
    """A rendered text, and what became of its placeholders, in the order they were met."""

    text: str
    used: dict[str, str] = field(default_factory=dict)
    """Name to value of what was inserted."""
    missing: list[str] = field(default_factory=list)
    """Names that have no value; nothing was inserted for them."""


def render(template: str, values: Mapping[str, str]) -> Rendered:
    """The JSON text `template` with its placeholders replaced, values escaped as JSON strings are.

    Raises:
        InvalidInput: a section is not closed or closes another one, delimiters are not two words, or
            the result has more than `LONGEST` characters.
    """
    return _Renderer(template, values).render()


def escaped(value: str) -> str:
    """`value` as it stands inside the quotes of a JSON string."""
    return json.dumps(value, ensure_ascii=False)[1:-1]


class _Renderer:
    """Goes through a template from left to right, once."""

    def __init__(self, template: str, values: Mapping[str, str]) -> None:
        self._template = template
        self._values = values
        self._open, self._close = "{{", "}}"
        self._parts: list[str] = []
        self._length = 0
        self._sections: list[tuple[str, bool, str | None]] = []
        """Name, whether what is in it is kept, and its value."""
        self._used: dict[str, str] = {}
        self._missing: dict[str, None] = {}
        self._quotes = _Next(lambda start: _next_quote(template, start))
        self._closers: dict[str, _Next] = {}

    def render(self) -> Rendered:
        """The rendered template."""
        position = 0
        while (start := self._template.find(self._open, position)) >= 0:
            self._write(self._template[position:start])
            position = self._tag(start)
        self._write(self._template[position:])
        if self._sections:
            raise broken(f'the section "{self._sections[-1][0]}" is not closed')
        return Rendered("".join(self._parts), self._used, list(self._missing))

    def _tag(self, start: int) -> int:
        """Do what the tag at `start` says; return where the text goes on."""
        inner = start + len(self._open)
        kind, close = self._template[inner : inner + 1], self._close
        if kind == "{" and self._open == "{{":
            close = "}}}"
        elif kind == "=":
            close = "=" + self._close
        elif kind not in _MARKS:
            kind = ""
        body = inner + len(kind)
        end = self._closer(close).after(body)
        if end < 0 or 0 <= self._quotes.after(inner) < end:
            self._write(self._template[start:body])
            return body
        content = self._template[body:end]
        match kind:
            case "":
                self._insert(_name(content), raw=False)
            case "{" | "&":
                self._insert(_name(content), raw=True)
            case "#" | "^" as opening:
                self._begin(_name(content), kept_when=opening == "#")
            case "/":
                self._end(_name(content))
            case "=":
                self._change_delimiters(content)
            case _:
                pass  # a comment, or a partial, of which there are none
        return end + len(close)

    def _insert(self, name: str, *, raw: bool) -> None:
        if not self._is_kept:
            return
        value = self._lookup(name)
        if value is None:
            self._missing[name] = None
            return
        if name != ".":
            self._used[name] = value
        self._write(value if raw else escaped(value))

    def _lookup(self, name: str) -> str | None:
        if name != ".":
            return self._values.get(name)
        return self._sections[-1][2] if self._sections else None

    def _begin(self, name: str, *, kept_when: bool) -> None:
        value = self._lookup(name)
        is_true = value is not None and value not in _FALSE
        self._sections.append((name, self._is_kept and is_true is kept_when, value))

    def _end(self, name: str) -> None:
        if not self._sections or self._sections[-1][0] != name:
            raise broken(f'"/{name}" closes no section')
        self._sections.pop()

    def _change_delimiters(self, content: str) -> None:
        words = content.split()
        if len(words) != 2 or any("=" in word for word in words):
            raise broken("delimiters are changed by two words, such as {{=<< >>=}}")
        self._open, self._close = words

    @property
    def _is_kept(self) -> bool:
        return not self._sections or self._sections[-1][1]

    def _write(self, text: str) -> None:
        if self._is_kept:
            self._length += len(text)
            if self._length > LONGEST:
                raise broken(f"it has more than {LONGEST} characters")
            self._parts.append(text)

    def _closer(self, close: str) -> _Next:
        if close not in self._closers:
            self._closers[close] = _Next(lambda start: self._template.find(close, start))
        return self._closers[close]


class _Next:
    """Where something is next; looks at each part of the text once, however often it is asked."""

    def __init__(self, find: Callable[[int], int]) -> None:
        self._find = find
        self._found: int | None = None

    def after(self, start: int) -> int:
        """The first position from `start` on, or -1. `start` only grows."""
        if self._found is None or 0 <= self._found < start:
            self._found = self._find(start)
        return self._found


def _next_quote(text: str, start: int) -> int:
    """Where the string ends that `start` is in."""
    return next((match.start() for match in _QUOTE.finditer(text, start) if match[0] == '"'), -1)


def _name(content: str) -> str:
    """A name as it stands in a tag, read as the JSON string that the tag is part of."""
    try:
        return str(json.loads(f'"{content}"')).strip()
    except ValueError:  # a tag that begins in the middle of an escape
        return content.strip()


def broken(reason: str) -> InvalidInput:
    """The error of a replacement that cannot be done, or that leaves no configuration."""
    return InvalidInput(f"Variable replacement resulted in invalid configuration, error: {reason}")
