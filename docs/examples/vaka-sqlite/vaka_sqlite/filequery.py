"""The query language of files, as SQL: `tags:"x" AND NOT (name:report.csv OR id:>7)`.

Terms are `field:value` with the fields in `FIELDS`, or bare words, which are looked for in the name.
Values are words, quoted texts, `>`, `>=`, `<`, `<=` and a value, ranges `[a TO b]`, and groups in
parentheses. In names `*` and `?` stand for anything. Terms that only stand beside each other are
alternatives, as in Lucene.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from vaka.errors import InvalidInput
from vaka_sqlite.database import bounded, microseconds
from vaka_sqlite.names import words

FIELDS: Final = ("id", "name", "tags", "created", "sizeBytes", "runId", "isPublic")
DEEPEST: Final = 50
MOST_TERMS: Final = 500
_TOKEN: Final = re.compile(
    r"""\s*(?:
        (?P<text>"(?:[^"\\]|\\.)*")
      | (?P<sign>[()\[\]:]|[<>]=?|-(?=\S))
      | (?P<word>[^\s()\[\]:"<>]+)
    )""",
    re.VERBOSE,
)


@dataclass(frozen=True, slots=True)
class Condition:
    """A condition on rows of `file`, and what is bound in it."""

    sql: str
    values: tuple[str | int, ...] = ()


def parse(query: str) -> Condition:
    """The condition that a query is.

    Raises:
        InvalidInput: it is none.
    """
    return _Parser(query).whole()


class _Parser:
    def __init__(self, query: str) -> None:
        self._query = query
        self._tokens: list[tuple[str, str]] = []
        position = 0
        end = len(query.rstrip())
        while position < end:
            found = _TOKEN.match(query, position)
            if found is None or found.lastgroup is None:
                raise self._wrong(f"at character {position + 1}")
            self._tokens.append((found.lastgroup, found[found.lastgroup]))
            position = found.end()
        self._next = 0
        self._depth = 0
        self._terms = 0

    def whole(self) -> Condition:
        result = self._alternatives("")
        if self._next < len(self._tokens):
            raise self._wrong(f'at "{self._tokens[self._next][1]}"')
        return result

    # -- what a query is made of -------------------------------------------------------------------

    def _alternatives(self, field: str) -> Condition:
        self._depth += 1
        if self._depth > DEEPEST:
            raise self._wrong(f"there are more than {DEEPEST} parentheses in each other")
        result = self._conjunction(field)
        while self._next < len(self._tokens) and self._tokens[self._next] != ("sign", ")"):
            self._take("word", "OR")
            result = _joined("OR", result, self._conjunction(field))
        self._depth -= 1
        return result

    def _conjunction(self, field: str) -> Condition:
        result = self._negation(field)
        while self._take("word", "AND") or self._is_negation():
            result = _joined("AND", result, self._negation(field))
        return result

    def _is_negation(self) -> bool:
        return self._tokens[self._next : self._next + 1] in ([("word", "NOT")], [("sign", "-")])

    def _negation(self, field: str) -> Condition:
        if self._is_negation():
            self._next += 1
            inner = self._term(field)
            return Condition(f"NOT {inner.sql}", inner.values)
        return self._term(field)

    def _term(self, field: str) -> Condition:
        self._terms += 1
        if self._terms > MOST_TERMS:
            raise self._wrong(f"it has more than {MOST_TERMS} terms")
        if self._take("sign", "("):
            result = self._alternatives(field)
            self._expect(")")
            return Condition(f"({result.sql})", result.values)
        if self._take("sign", "["):
            low = self._value()
            if not self._take("word", "TO"):
                raise self._wrong('a range is like "[1 TO 5]"')
            high = self._value()
            self._expect("]")
            return _joined("AND", self._bound(field, ">=", low), self._bound(field, "<=", high))
        for comparison in (">=", "<=", ">", "<"):
            if self._take("sign", comparison):
                return self._bound(field, comparison, self._value())
        value = self._value()
        if not field and value in FIELDS and self._take("sign", ":"):
            return self._term(value)
        return self._matches(field or "name", value)

    def _matches(self, field: str, value: str) -> Condition:
        if "*" in value or "?" in value:
            if field != "name":
                raise self._wrong(f'"{field}" has no wildcards')
            return Condition("lower(name) GLOB ?", (value.lower().replace("[", "[[]"),))
        match field:
            case "name":
                parts = words(value)
                if not parts:
                    raise self._wrong(f'"{value}" has no letter or digit')
                sql = " AND ".join(["instr(words, ?) > 0"] * len(parts))
                return Condition(f"({sql})", tuple(f" {part} " for part in parts))
            case "tags":
                return Condition(
                    "EXISTS (SELECT 1 FROM tag WHERE tag.file = file.id AND tag = ?)", (value,)
                )
            case "runId":
                return Condition("run_id IS ?", (value,))
            case "isPublic":
                if value not in {"true", "false"}:
                    raise self._wrong("isPublic is true or false")
                return Condition("is_public = ?", (int(value == "true"),))
        return self._bound(field, "=", value)

    def _bound(self, field: str, comparison: str, value: str) -> Condition:
        readers: dict[str, tuple[str, Callable[[str], int]]] = {
            "id": ("id", int),
            "sizeBytes": ("bytes", int),
            "created": ("created", _moment),
        }
        if field not in readers:
            raise self._wrong(f'"{field or "name"}" cannot be compared')
        if value == "*":
            return Condition("TRUE")
        column, read = readers[field]
        try:
            return Condition(f"{column} {comparison} ?", (bounded(read(value)),))
        except ValueError as error:
            raise self._wrong(f'"{value}" is no value of "{field}"') from error

    # -- tokens ------------------------------------------------------------------------------------

    def _take(self, kind: str, text: str) -> bool:
        if self._tokens[self._next : self._next + 1] != [(kind, text)]:
            return False
        self._next += 1
        return True

    def _expect(self, sign: str) -> None:
        if not self._take("sign", sign):
            raise self._wrong(f'a "{sign}" is missing')

    def _value(self) -> str:
        if self._next == len(self._tokens):
            raise self._wrong("it ends too early")
        kind, text = self._tokens[self._next]
        if kind == "sign" or text in {"AND", "OR", "NOT", "TO"}:
            raise self._wrong(f'at "{text}"')
        self._next += 1
        return re.sub(r"\\(.)", r"\1", text[1:-1]) if kind == "text" else text

    def _wrong(self, what: str) -> InvalidInput:
        return InvalidInput(f'The query "{self._query}" cannot be parsed: {what}.', path="q")


def _joined(word: str, left: Condition, right: Condition) -> Condition:
    return Condition(f"({left.sql} {word} {right.sql})", (*left.values, *right.values))


def _moment(value: str) -> int:
    moment = datetime.fromisoformat(value)
    return microseconds(moment if moment.tzinfo else moment.replace(tzinfo=UTC))
