"""The words that our query languages share with Lucene's, and reading them from left to right.

What fields there are, what terms side by side mean and which conditions come out is each language's own.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from typing import Final, Generic, Literal, TypeVar

from vaka.errors import InvalidInput

T = TypeVar("T")
Operator = Literal["=", "<", "<=", ">", ">="]

LONGEST: Final = 10_000
"""Characters of a query."""
SHOWN: Final = 200
"""Characters of a query or a value that an error repeats."""

_WORD: Final = r'(?:[^\s()\[\]{}"\\]|\\.)+'
_QUOTED: Final = r'"((?:[^"\\]|\\.)*)"'
AND: Final = re.compile(r'AND(?![^\s()"])|&&')
OR: Final = re.compile(r'OR(?![^\s()"])|\|\|')
KEYWORD: Final = re.compile(r'(?:AND|OR|NOT)(?![^\s()"])|&&|\|\|')
PLUS: Final = re.compile(r"\+(?=[^\s)])")
OPEN: Final = re.compile(r"\(")
CLOSE: Final = re.compile(r"\)")
VALUE: Final = re.compile(rf"{_QUOTED}|({_WORD})", re.DOTALL)
"""Groups: what stands in quotes, or the word."""
COMPARE: Final = re.compile(rf"([<>]=?)\s*(?:{_QUOTED}|({_WORD}))", re.DOTALL)
"""Groups: the operator, then those of the value."""
RANGE: Final = re.compile(
    rf"([\[{{])\s*(?:{_QUOTED}|({_WORD}))\s+TO\s+(?:{_QUOTED}|({_WORD}))\s*([\]}}])", re.DOTALL
)
"""Groups: the opening bracket, those of both values, the closing bracket."""
_OPERATORS: Final[dict[str, Operator]] = {"<": "<", "<=": "<=", ">": ">", ">=": ">="}


class QueryError(Exception):
    """What is wrong with a query, in words that follow a colon."""


class QueryReader(ABC, Generic[T]):
    """Reads a query from left to right."""

    def __init__(self, query: str, path: str) -> None:
        """`path` is what errors call the query's place in the request."""
        self._query = query
        self._path = path
        self._position = 0

    def parse(self) -> T:
        """What the query stands for.

        Raises:
            InvalidInput: it cannot be understood; the message says where and why.
        """
        try:
            return self._whole()
        except QueryError as error:
            shown = self._query[:SHOWN]
            raise InvalidInput(
                f'Failed to parse query "{shown}" at character {self._position + 1}: {error}.',
                path=self._path,
            ) from error

    def _whole(self) -> T:
        if len(self._query) > LONGEST:
            raise QueryError(f"it has more than {LONGEST} characters")
        result = self._read()
        if self._position < len(self._query):
            raise QueryError("a closing parenthesis has no opening one")
        return result

    @abstractmethod
    def _read(self) -> T:
        """Read up to the end, or to a closing parenthesis that nothing has opened."""

    def _at_end(self) -> bool:
        self._skip()
        return self._position >= len(self._query) or self._query[self._position] == ")"

    def _take(self, token: re.Pattern[str]) -> re.Match[str] | None:
        self._skip()
        found = token.match(self._query, self._position)
        if found:
            self._position = found.end()
        return found

    def _skip(self) -> None:
        while self._query[self._position : self._position + 1].isspace():
            self._position += 1


def operator_of(text: str) -> Operator:
    """The operator that group 1 of `COMPARE` names."""
    return _OPERATORS[text]
