"""The query language of file lists: from text to a condition in SQL (mapping.md section 10.7).

Terms side by side mean "any of", as `OR` does; `AND` binds more tightly, `NOT` most. As in Lucene a term
with `NOT`, `-` or `+` that stands beside others, joined by no word, is a condition on all of them:
`a b NOT c` is `(a OR b) AND NOT c`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import sqlalchemy as sa

from vaka.models.query import (
    AND,
    CLOSE,
    COMPARE,
    KEYWORD,
    OPEN,
    OR,
    PLUS,
    RANGE,
    VALUE,
    Operator,
    QueryError,
    QueryReader,
    operator_of,
)
from vaka_local.database import file_tags, files
from vaka_local.names import words

Condition = sa.ColumnElement[bool]

_MOST_TERMS: Final = 500
_DEEPEST: Final = 50
_LARGEST: Final = 2**63 - 1

_FIELD: Final = re.compile(r"([A-Za-z_][A-Za-z0-9_]*):\s*")
_NOT: Final = re.compile(r'NOT(?![^\s()"])|!(?=\S)|-(?=[^\s)])')


def condition(query: str) -> Condition:
    """The condition on the table of files that `query` stands for; all files when it is blank.

    Raises:
        InvalidInput: the query cannot be understood.
    """
    if not query.strip():
        return sa.true()
    return _Parser(query).parse()


@dataclass(slots=True)
class _Clauses:
    """The terms at one level of parentheses, as far as they have been read."""

    optional: list[Condition] = field(default_factory=list)
    required: list[Condition] = field(default_factory=list)
    has_plus: bool = False

    def result(self) -> Condition:
        # what is optional does not decide beside something that must be there
        needed = self.optional and not self.has_plus
        return sa.and_(*self.required, *([sa.or_(*self.optional)] if needed else []))


class _Parser(QueryReader[Condition]):
    """Reads a query from left to right."""

    def __init__(self, query: str) -> None:
        super().__init__(query, "query")
        self._terms = 0

    def _read(self) -> Condition:
        return self._clauses("name", 0)

    def _clauses(self, name: str, depth: int) -> Condition:
        """All terms up to a closing parenthesis or the end; bare values are of the field `name`."""
        if depth > _DEEPEST:
            raise QueryError(f"parentheses are nested more than {_DEEPEST} deep")
        clauses = _Clauses()
        by_or = False
        while not self._at_end():
            sign, group = self._conjunction(name, depth)
            joined = self._take(OR) is not None
            alone = not by_or and not joined
            if sign == "+" and alone:
                clauses.required.append(group)
                clauses.has_plus = True
            elif sign == "-" and alone:
                clauses.required.append(group)
            else:
                clauses.optional.append(group)
            by_or = joined
        if by_or or not (clauses.optional or clauses.required):
            raise QueryError("a term is missing")
        return clauses.result()

    def _conjunction(self, name: str, depth: int) -> tuple[str, Condition]:
        """Terms joined by AND. A single one comes with its sign, a negation's being `-`."""
        sign, first = self._signed(name, depth)
        terms = [first]
        while self._take(AND) is not None:
            terms.append(self._signed(name, depth)[1])
        return ("", sa.and_(*terms)) if len(terms) > 1 else (sign, first)

    def _signed(self, name: str, depth: int) -> tuple[str, Condition]:
        if self._take(PLUS):
            return "+", self._term(name, depth)
        negations = 0
        while self._take(_NOT):
            negations += 1
        term = self._term(name, depth)
        return ("-", sa.not_(term)) if negations % 2 else ("", term)

    def _term(self, name: str, depth: int) -> Condition:
        if found := self._take(_FIELD):
            name = found[1]
            if name not in _FIELDS:
                raise QueryError(f'there is no field "{name}": there are {", ".join(_FIELDS)}')
        self._count(1)
        compare = _FIELDS[name]
        if self._take(OPEN):
            inner = self._clauses(name, depth + 1)
            if not self._take(CLOSE):
                raise QueryError("a parenthesis is not closed")
            return inner
        if found := self._take(RANGE):
            low = _Value.read(found[2], found[3])
            high = _Value.read(found[4], found[5])
            parts = []
            if not low.is_everything:
                parts.append(compare(low, ">=" if found[1] == "[" else ">"))
            if not high.is_everything:
                parts.append(compare(high, "<=" if found[6] == "]" else "<"))
            return sa.and_(sa.true(), *parts)
        if found := self._take(COMPARE):
            return compare(_Value.read(found[2], found[3]), operator_of(found[1]))
        if KEYWORD.match(self._query, self._position):
            raise QueryError("a term is missing")
        if found := self._take(VALUE):
            value = _Value.read(found[1], found[2])
            if name == "name":
                self._count(len(words(value.text)))
            return compare(value, "=")
        raise QueryError("a term is missing or not understood")

    def _count(self, terms: int) -> None:
        """Note so many more terms; SQLite bounds how deep an expression may be."""
        self._terms += terms
        if self._terms > _MOST_TERMS:
            raise QueryError(f"it has more than {_MOST_TERMS} terms")


@dataclass(frozen=True, slots=True)
class _Value:
    """A value in a query, and what it looks like as a pattern when it has `*` or `?`."""

    text: str
    pattern: tuple[str, ...] | None = None
    """Characters; `*` and `?` are wildcards, others have a backslash before them."""

    @classmethod
    def read(cls, quoted: str | None, word: str | None) -> _Value:
        if quoted is not None:
            return cls(re.sub(r"\\(.)", r"\1", quoted, flags=re.DOTALL))
        parts = re.findall(r"\\.|.", word or "", flags=re.DOTALL)
        text = "".join(part[-1] for part in parts)
        if not any(part in {"*", "?"} for part in parts):
            return cls(text)
        return cls(text, tuple(part if part in {"*", "?"} else "\\" + part[-1] for part in parts))

    @property
    def is_everything(self) -> bool:
        return self.pattern == ("*",)

    def like(self, change: Callable[[str], str] = str) -> str:
        """A pattern for `LIKE` with a backslash as the escape, each character changed."""
        wild = {"*": "%", "?": "_"}
        return "".join(
            wild.get(part) or re.sub(r"([%_\\])", r"\\\1", change(part[1]))
            for part in self.pattern or ()
        )


def _compared(column: sa.ColumnElement[Any], operator: Operator, value: object) -> Condition:
    match operator:
        case "<":
            return column < value
        case "<=":
            return column <= value
        case ">":
            return column > value
        case ">=":
            return column >= value
        case "=":
            return column == value


def _no_order(operator: Operator, name: str) -> None:
    if operator != "=":
        raise QueryError(f'the field "{name}" cannot be compared with {operator}')


def _name(value: _Value, operator: Operator) -> Condition:
    _no_order(operator, "name")
    if value.pattern is not None:
        like = value.like(lambda letter: re.sub(r"[^._a-z0-9]", "_", letter.lower()))
        return files.c.name_lower.like(like, escape="\\")
    wanted = words(value.text)
    if not wanted:
        return sa.false()
    return sa.and_(*(files.c.name_words.contains(f" {word} ") for word in wanted))


def _tags(value: _Value, operator: Operator) -> Condition:
    _no_order(operator, "tags")
    tag = file_tags.c.tag
    matches = tag == value.text if value.pattern is None else tag.like(value.like(), escape="\\")
    return sa.exists().where(file_tags.c.file_id == files.c.id, matches)


def _run_id(value: _Value, operator: Operator) -> Condition:
    _no_order(operator, "runId")
    if value.pattern is None:
        return sa.and_(files.c.run_id.is_not(None), files.c.run_id == value.text)
    return sa.and_(files.c.run_id.is_not(None), files.c.run_id.like(value.like(), escape="\\"))


def _is_public(value: _Value, operator: Operator) -> Condition:
    _no_order(operator, "isPublic")
    wanted = {"true": True, "1": True, "false": False, "0": False}.get(value.text.lower())
    if wanted is None:
        raise QueryError(f'"{value.text}" is neither true nor false')
    return files.c.is_public.is_(wanted)


def _number(column: sa.Column[int]) -> Callable[[_Value, Operator], Condition]:
    def compare(value: _Value, operator: Operator) -> Condition:
        if value.is_everything and operator == "=":
            return sa.true()
        if not re.fullmatch(r"[-+]?[0-9]{1,20}", value.text) or abs(int(value.text)) > _LARGEST:
            raise QueryError(f'"{value.text}" is not a number that "{column.name}" can have')
        return _compared(column, operator, int(value.text))

    return compare


def _created(value: _Value, operator: Operator) -> Condition:
    if value.is_everything and operator == "=":
        return sa.true()
    start, end = _period(value.text)
    column = files.c.created
    match operator:
        case "=":
            return sa.and_(column >= start, column < end)
        case ">":
            return column >= end
        case ">=":
            return column >= start
        case "<":
            return column < start
        case "<=":
            return column < end


def _period(text: str) -> tuple[datetime, datetime]:
    """The day, second or microsecond that a date or time names, and the moment after it."""
    try:
        start = datetime.fromisoformat(text)
        start = start if start.tzinfo else start.replace(tzinfo=UTC)
        if ":" not in text:
            length = timedelta(days=1)
        else:
            length = timedelta(microseconds=1) if "." in text else timedelta(seconds=1)
        return start.astimezone(UTC), start.astimezone(UTC) + length
    except (ValueError, OverflowError) as error:
        raise QueryError(
            f'"{text}" is not a date or time such as 2024-01-31T10:20:30+00:00'
        ) from error


_FIELDS: Final[dict[str, Callable[[_Value, Operator], Condition]]] = {
    "id": _number(files.c.id),
    "name": _name,
    "tags": _tags,
    "created": _created,
    "sizeBytes": _number(files.c.size_bytes),
    "runId": _run_id,
    "isPublic": _is_public,
}
