"""The query language of job lists: from text to a condition in SQL (runner.md section 1.11.2).

Terms side by side must all hold, as with `AND`; `OR` binds less tightly, `NOT` most. A term is a word,
a `"phrase"`, `field:value`, `field:(…)` for several values, `field:>1`, `field:[1 TO 2]` (braces leave
an end out, `*` leaves it open), or `_exists_:field`. `*` and `?` stand for any characters, but not at
the beginning of a value. `-`, `!` and `+` before a term are `NOT`, `NOT` and nothing.

What a value is compared with decides how: numbers and moments by their order, names exactly, and texts
by what they contain, whatever its case. A moment that is a day is that whole day, in UTC.

Nothing of a query reaches the database but as a bound value. Its length, terms, depth and wildcards are
bounded, so that no query costs more than reading the project's jobs.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

from vaka.models.job import Status
from vaka.models.moment import parse_moment
from vaka.models.query import (
    AND,
    CLOSE,
    COMPARE,
    KEYWORD,
    OPEN,
    OR,
    PLUS,
    RANGE,
    SHOWN,
    VALUE,
    Operator,
    QueryError,
    QueryReader,
    operator_of,
)
from vaka.store.schema import job_specs, jobs

Condition = sa.ColumnElement[bool]

MOST_TERMS: Final = 200
DEEPEST: Final = 20
MOST_STARS: Final = 2
"""Wildcards before the last character of a value: matching takes time to the power of them."""
_LARGEST: Final = 2**63 - 1
_SECOND: Final = 1_000_000

_FIELD: Final = re.compile(r"([A-Za-z_][A-Za-z0-9_.]*):\s*")
_NOT: Final = re.compile(r'NOT(?![^\s()"])|!(?=[^\s)])|-(?=[^\s)])')
_UNSUPPORTED: Final = re.compile(r'(?:\^|~)(?:\d+(?:\.\d+)?)?(?=$|[\s()])|(?<=")[~^]')
_UNPRINTABLE: Final = re.compile("[\x00\ud800-\udfff]")
_DAY: Final = re.compile(r"\d{4}-\d{1,2}-\d{1,2}")
_MINUTE: Final = re.compile(r"\d{4}-\d{1,2}-\d{1,2}[T ]\d{1,2}:\d{2}(?!:)(?:[zZ]|[-+][\d:]+)?")


def condition(query: str, *, now: datetime | None = None) -> Condition:
    """The condition on `jobs` joined with `job_specs` that `query` stands for; all when it is blank.

    Raises:
        InvalidInput: the query cannot be understood; the message says where and why.
    """
    return _Parser(query, now or datetime.now(UTC)).parse()


class _Parser(QueryReader[Condition]):
    """Reads a query from left to right."""

    def __init__(self, query: str, now: datetime) -> None:
        super().__init__(query, "q")
        self._now = now
        self._terms = 0

    def _read(self) -> Condition:
        if found := _UNPRINTABLE.search(self._query):
            self._position = found.start()
            raise QueryError("this character cannot be part of a query")
        if self._at_end() and self._position == len(self._query):
            return sa.true()
        return self._any(None, 0)

    def _any(self, field: _Field | None, depth: int) -> Condition:
        """Alternatives joined by OR, up to a closing parenthesis or the end."""
        if depth > DEEPEST:
            raise QueryError(f"parentheses are nested more than {DEEPEST} deep")
        found = [self._all(field, depth)]
        while self._take(OR):
            found.append(self._all(field, depth))
        return sa.or_(*found)

    def _all(self, field: _Field | None, depth: int) -> Condition:
        """Terms that must all hold: side by side, or joined by AND."""
        found = [self._signed(field, depth)]
        while not self._at_end():
            if self._take(AND) is None and OR.match(self._query, self._position):
                break
            found.append(self._signed(field, depth))
        return sa.and_(*found)

    def _signed(self, field: _Field | None, depth: int) -> Condition:
        if self._take(PLUS):
            return self._term(field, depth)
        negations = 0
        while self._take(_NOT):
            negations += 1
        term = self._term(field, depth)
        return sa.not_(term) if negations % 2 else term

    def _term(self, field: _Field | None, depth: int) -> Condition:
        self._terms += 1
        if self._terms > MOST_TERMS:
            raise QueryError(f"it has more than {MOST_TERMS} terms")
        self._skip()
        if found := _FIELD.match(self._query, self._position):
            if field is not None:
                raise QueryError("a field stands within the values of another one")
            name = found[1]
            if name not in _FIELDS and name not in {"_exists_", "_missing_"}:
                raise QueryError(f'there is no field "{name}"; there are {", ".join(_FIELDS)}')
            self._position = found.end()
            if name in _FIELDS:
                field = _FIELDS[name]
            else:
                return self._existence(name)
        if self._take(OPEN):
            inner = self._any(field, depth + 1)
            if not self._take(CLOSE):
                raise QueryError("a parenthesis is not closed")
            return inner
        if found := self._take(RANGE):
            return self._range(_named(field), found)
        if found := self._take(COMPARE):
            value = _Value.read(found[2], found[3])
            return _named(field).compare(value, operator_of(found[1]), self._now)
        if KEYWORD.match(self._query, self._position):
            raise QueryError("a term is missing")
        if not (found := self._take(VALUE)):
            raise QueryError("a term is missing or not understood")
        if found[2] is not None and _UNSUPPORTED.search(found[2]):
            raise QueryError("boosts and similarity (^ and ~) are not supported; quote the value")
        if _UNSUPPORTED.match(self._query, self._position):
            raise QueryError("boosts and similarity (^ and ~) are not supported")
        value = _Value.read(found[1], found[2])
        if field is not None:
            return field.compare(value, "=", self._now)
        if value.is_everything:
            return sa.true()
        return sa.or_(*(each.compare(value, "=", self._now) for each in _ANYWHERE))

    def _range(self, field: _Field, found: re.Match[str]) -> Condition:
        low, high = _Value.read(found[2], found[3]), _Value.read(found[4], found[5])
        parts = [field.exists()]
        if not low.is_everything:
            parts.append(field.compare(low, ">=" if found[1] == "[" else ">", self._now))
        if not high.is_everything:
            parts.append(field.compare(high, "<=" if found[6] == "]" else "<", self._now))
        return sa.and_(*parts)

    def _existence(self, name: str) -> Condition:
        found = self._take(VALUE)
        named = None if found is None else (found[1] or found[2])
        if named not in _FIELDS:
            raise QueryError(f'"{name}" is asked of a field; there are {", ".join(_FIELDS)}')
        exists = _FIELDS[named].exists()
        return exists if name == "_exists_" else sa.not_(exists)


def _named(field: _Field | None) -> _Field:
    if field is None:
        raise QueryError("a range or a comparison needs a field, as in durationSeconds:>120")
    return field


@dataclass(frozen=True, slots=True)
class _Value:
    """A value in a query: its text, and its characters where `*` and `?` are wildcards."""

    text: str
    pattern: tuple[str, ...] = ()
    """Characters and the wildcards `*` and `?`; others that look like these have a backslash. Empty
    when there is no wildcard."""

    @classmethod
    def read(cls, quoted: str | None, word: str | None) -> _Value:
        if quoted is not None:
            return cls(re.sub(r"\\(.)", r"\1", quoted, flags=re.DOTALL))
        characters = re.findall(r"\\.|[^\\]", word or "", re.DOTALL)
        text = "".join(each[-1] for each in characters)
        if not {"*", "?"} & set(characters):
            return cls(text)
        if characters == ["*"]:
            return cls(text, ("*",))
        if characters[0] in "*?":
            raise QueryError("a value may not begin with a wildcard")
        if characters[:-1].count("*") > MOST_STARS:
            raise QueryError(f"a value has more than {MOST_STARS} wildcards '*' before its end")
        return cls(text, tuple(characters))

    @property
    def is_everything(self) -> bool:
        return self.pattern == ("*",)

    @property
    def prefix(self) -> str | None:
        """The value less a `*` at its end, when that is its only wildcard."""
        if self.pattern[-1:] != ("*",) or {"*", "?"} & set(self.pattern[:-1]):
            return None
        return "".join(each[-1] for each in self.pattern[:-1])

    @property
    def like(self) -> str:
        """The value as a pattern of LIKE, escaped with a backslash."""
        wild = {"*": "%", "?": "_"}
        characters = self.pattern or [f"\\{each}" if each in "*?" else each for each in self.text]
        return "".join(
            wild.get(each) or re.sub(r"([\\%_])", r"\\\1", each[-1]) for each in characters
        )


# -- what is asked of the database -----------------------------------------------------------------


class _Member(FunctionElement[str]):
    """A member of a JSON object that is stored as text, as text; NULL when it is not there."""

    inherit_cache = True
    name = "json_member"
    type = sa.Text()


@compiles(_Member, "sqlite")
def _member_sqlite(element: _Member, compiler: SQLCompiler, **options: Any) -> str:
    column, member = (compiler.process(each, **options) for each in element.clauses)
    # functions of texts end at a NUL
    plain = rf"replace(replace({column}, '\\', '\u005c'), '\u0000', '\ufffd')"
    value = f"CAST(json_extract({plain}, '$.' || {member}) AS TEXT)"
    return f"CASE WHEN json_valid({column}) THEN {value} END"


@compiles(_Member, "postgresql")
def _member_postgresql(element: _Member, compiler: SQLCompiler, **options: Any) -> str:
    column, member = (compiler.process(each, **options) for each in element.clauses)
    # What no text of PostgreSQL can hold is escaped in the stored one, and would make reading a member
    # an error: NUL, and halves of characters. First every backslash that stands for itself goes out of
    # the way. The words that JSON does not have stand outside of strings only after a colon or comma.
    plain = rf"replace({column}, '\\', '\u005c')"
    for pattern, replacement in (
        (r"\\u0000", r"\\ufffd"),
        (r"\\ud[89ab][0-9a-f]{2}(?!\\ud[c-f])", r"\\ufffd"),
        (r"(?<!\\ud[89ab][0-9a-f]{2})\\ud[c-f][0-9a-f]{2}", r"\\ufffd"),
        (r"(?<=[:,[])(?:NaN|-?Infinity)(?=[],}])", "null"),
    ):
        plain = f"regexp_replace({plain}, '{pattern}', '{replacement}', 'g')"
    return f"(CAST({plain} AS json) ->> {member})"


class _Matches(FunctionElement[bool]):
    """Whether a text is like a pattern, in the same case. Arguments: text, LIKE and GLOB pattern."""

    inherit_cache = True
    name = "matches"
    type = sa.Boolean()


@compiles(_Matches, "sqlite")
def _matches_sqlite(element: _Matches, compiler: SQLCompiler, **options: Any) -> str:
    text, _, glob = (compiler.process(each, **options) for each in element.clauses)
    return f"({text} GLOB {glob})"


@compiles(_Matches, "postgresql")
def _matches_postgresql(element: _Matches, compiler: SQLCompiler, **options: Any) -> str:
    text, like, _ = (compiler.process(each, **options) for each in element.clauses)
    return f"({text} LIKE {like})"


def _glob(value: _Value) -> str:
    """A value as a pattern of GLOB, where only a bracket can take a character's meaning away."""
    return "".join(
        each if each in {"*", "?"} else f"[{each[-1]}]" if each[-1] in "*?[" else each[-1]
        for each in value.pattern
    )


# -- fields ----------------------------------------------------------------------------------------


class _Field:
    """How values of a field are compared."""

    def exists(self) -> Condition:
        raise NotImplementedError

    def compare(self, value: _Value, operator: Operator, now: datetime) -> Condition:
        """Whether the field is so; false, never unknown, where it has no value."""
        raise NotImplementedError


@dataclass(frozen=True)
class _Column(_Field):
    """A field with an expression."""

    column: sa.ColumnElement[Any]

    def exists(self) -> Condition:
        return self.column.is_not(None)

    def compare(self, value: _Value, operator: Operator, now: datetime) -> Condition:
        if operator == "=" and value.is_everything:
            return self.exists()
        return sa.and_(self.exists(), self._compare(value, operator, now))

    def _compare(self, value: _Value, operator: Operator, now: datetime) -> Condition:
        raise NotImplementedError


_ORDER: dict[Operator, Callable[[Any, Any], Condition]] = {
    "=": lambda column, value: column == value,
    "<": lambda column, value: column < value,
    "<=": lambda column, value: column <= value,
    ">": lambda column, value: column > value,
    ">=": lambda column, value: column >= value,
}


class _Name(_Column):
    """Compared exactly."""

    def _compare(self, value: _Value, operator: Operator, now: datetime) -> Condition:  # noqa: ARG002
        if not value.pattern:
            return _ORDER[operator](self.column, value.text)
        if operator != "=":
            raise QueryError("a value in a comparison or a range has a wildcard")
        prefix = value.prefix
        if prefix is not None:
            return sa.func.substr(self.column, 1, len(prefix)) == prefix
        return _Matches(self.column, sa.literal(value.like), sa.literal(_glob(value)))


class _Words(_Column):
    """Compared by what it contains, in any case."""

    def _compare(self, value: _Value, operator: Operator, now: datetime) -> Condition:  # noqa: ARG002
        if operator != "=":
            raise QueryError("a text has no order; compare it with a word or a quoted phrase")
        return self.column.ilike(f"%{value.like}%", escape="\\")


class _Number(_Column):
    """Compared as whole numbers."""

    def _compare(self, value: _Value, operator: Operator, now: datetime) -> Condition:  # noqa: ARG002
        if not re.fullmatch(r"[-+]?[0-9]{1,19}", value.text):
            raise QueryError(f'"{value.text[:SHOWN]}" is not a whole number')
        number = max(-_LARGEST, min(int(value.text), _LARGEST))
        return _ORDER[operator](self.column, number)


class _When(_Column):
    """Compared as moments; a value that is not exact stands for all of its day, minute or second."""

    def _compare(self, value: _Value, operator: Operator, now: datetime) -> Condition:
        first, beyond = _interval(value.text, now)
        column = self.column
        match operator:
            case "=":
                return sa.and_(column >= first, column < beyond)
            case "<":
                return column < first
            case "<=":
                return column < beyond
            case ">":
                return column >= beyond
            case ">=":
                return column >= first


def _interval(text: str, now: datetime) -> tuple[datetime, datetime]:
    """The first moment of what `text` names, and the first after it."""
    try:
        first = parse_moment(text, now=now)
        if _DAY.fullmatch(text):
            return first, first + timedelta(days=1)
        if _MINUTE.fullmatch(text):
            return first, first + timedelta(minutes=1)
        if first.microsecond == 0:
            return first, first + timedelta(seconds=1)
        return first, first + timedelta(microseconds=1)
    except (ValueError, OverflowError) as error:
        raise QueryError(
            f'"{text[:SHOWN]}" is not a moment such as 2026-01-31, "2026-01-31T12:00:00Z" or "-1 day"'
        ) from error


@dataclass(frozen=True)
class _Constant(_Field):
    """The same for every job."""

    value: str

    def exists(self) -> Condition:
        return sa.true()

    def compare(self, value: _Value, operator: Operator, now: datetime) -> Condition:  # noqa: ARG002
        if operator != "=":
            raise QueryError("this field has no order")
        if value.prefix is not None:
            return _truth(self.value.startswith(value.prefix))
        return _truth(self.value == value.text)


@dataclass(frozen=True)
class _Flag(_Field):
    """Yes or no."""

    condition: Condition

    def exists(self) -> Condition:
        return sa.true()

    def compare(self, value: _Value, operator: Operator, now: datetime) -> Condition:  # noqa: ARG002
        if operator != "=" or value.text not in {"true", "false"}:
            raise QueryError("this field is true or false")
        return self.condition if value.text == "true" else sa.not_(self.condition)


def _truth(value: bool) -> Condition:
    return sa.true() if value else sa.false()


def member(column: sa.Column[Any], name: str) -> sa.ColumnElement[str]:
    """A member of a JSON object as text, of a list or an object as JSON."""
    return _Member(sa.type_coerce(column, sa.Text), sa.literal_column(f"'{name}'"))


def _seconds(since: sa.Column[Any], until: sa.Column[Any]) -> sa.ColumnElement[int]:
    """Whole seconds between two moments."""
    return (
        sa.type_coerce(until, sa.BigInteger) - sa.type_coerce(since, sa.BigInteger)
    ) // sa.literal_column(str(_SECOND), sa.BigInteger)


_MESSAGE = _Words(member(jobs.c.result, "message"))
_FIELDS: Final[dict[str, _Field]] = {
    "id": _Number(jobs.c.id),
    "runId": _Name(jobs.c.run_id),
    "parentRunId": _Name(jobs.c.parent_run_id),
    "nestingLevel": _Number(
        sa.func.length(jobs.c.run_id) - sa.func.length(sa.func.replace(jobs.c.run_id, ".", ""))
    ),
    "lockName": _Name(jobs.c.lock_name),
    "project.id": _Name(jobs.c.project),
    "token.id": _Name(jobs.c.token_id),
    "token.description": _Words(jobs.c.token_description),
    "component": _Constant("docker"),
    "command": _Constant("run"),
    "params.component": _Name(jobs.c.component),
    "params.config": _Name(jobs.c.config),
    "params.row": _Name(member(job_specs.c.spec, "row")),
    "params.tag": _Name(member(job_specs.c.spec, "tag")),
    "params.mode": _Name(jobs.c.mode),
    "status": _Name(jobs.c.status),
    "isFinished": _Flag(
        jobs.c.status.not_in([status.value for status in Status if not status.is_finished])
    ),
    "process.host": _Name(jobs.c.host),
    "process.pid": _Number(jobs.c.pid),
    "createdTime": _When(jobs.c.created),
    "startTime": _When(jobs.c.started),
    "endTime": _When(jobs.c.ended),
    "durationSeconds": _Number(_seconds(jobs.c.started, jobs.c.ended)),
    "waitSeconds": _Number(
        sa.case(
            (
                jobs.c.ended.is_not(None) & (jobs.c.status != Status.TERMINATED.value),
                _seconds(jobs.c.created, jobs.c.started),
            )
        )
    ),
    "error": _Name(jobs.c.error),
    "errorNote": _Words(jobs.c.error_note),
    "result.message": _MESSAGE,
    "terminatedBy.id": _Name(member(jobs.c.terminated_by, "id")),
    "terminatedBy.description": _Words(member(jobs.c.terminated_by, "description")),
}
_ANYWHERE: Final = tuple(
    _FIELDS[name]
    for name in (
        "runId",
        "token.description",
        "params.component",
        "params.config",
        "status",
        "error",
        "errorNote",
        "result.message",
    )
)
"""Where a word without a field is looked for."""
FIELDS: Final = tuple(_FIELDS)
"""What can be asked for by name."""
