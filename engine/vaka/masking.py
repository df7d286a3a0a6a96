"""Hides secret values in text.

The values are known, so hiding is one search for fixed strings (Aho-Corasick), which reads each
character once, whatever the values hold and however many they are. Among the values that begin at one
place the longest is hidden. Each is looked for in all the forms that `vaka._forms` knows.

A form of many characters is looked for in pieces, so that neither the memory of a search nor what has
to be kept of a text whose end is not known grows with it, and a text of which almost all is such a
piece is at worst read `PIECE` times over.

A line that is masked on its own hides as much as one that is masked together with what is around it.
Of a text whose ends are not known, `prefix` and `suffix` give what can be masked for certain.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from itertools import pairwise
from threading import RLock
from typing import Any, Final

from ahocorasick_rs import BytesAhoCorasick, Implementation, MatchKind

from vaka._forms import in_all_forms, in_few_forms
from vaka.errors import UserError

HIDDEN: Final = "[hidden]"
SHORTEST: Final = 4
"""Characters below which a value is in every text by chance (encryption.md section 8.2)."""
SHORTEST_NUMBER: Final = 6
"""Digits below which a number is a port, a year or a count before it is a secret."""
COMMON: Final = frozenset(
    """
    admin administrator anonymous auto default demo disabled enabled false guest localhost main
    master none null postgres production public root test true undefined user username
    """.split()  # noqa: SIM905 - words are easier to read than a list of them
)
"""Words of which every log is full; hiding one would hide what the log says, and tell the word."""
PIECE: Final = 512
"""Characters of a form that are looked for at once."""
MOST_FORMS: Final = 2 << 20
"""Characters of all forms, beyond which values are looked for in few of them. A search needs about
50 bytes for each while it is being made."""
MOST: Final = 8 << 20
"""Characters of all forms that a search is made for at most."""

_FORMS = 8  # how many times a value's characters its forms have, about
_MARK = HIDDEN.encode()
_ERRORS = "surrogatepass"  # half a surrogate pair is a text, too


class Masker:
    """Replaces what it was told to hide. Values may be added at any time.

    What it prints as says nothing of them.
    """

    def __init__(self, values: Iterable[str] = (), *, shortest: int = SHORTEST) -> None:
        self.longest = 0
        """Characters of the longest piece of any form: at most `PIECE`."""
        self._shortest = shortest
        self._lock = RLock()  # snapshots are masked by another thread
        self._values: set[str] = set()
        self._needles: dict[str, bool] = {}  # and whether it goes on with what is before it
        self._size = 0
        self._all: _Search | None = None
        self._within_lines: _Search | None = None
        self.add(values)

    def __repr__(self) -> str:
        return f"<Masker of {len(self._values)} values>"

    def hides(self, value: str) -> bool:
        """Whether a value is looked for once it was added: it is neither short nor common."""
        if len(value) < max(self._shortest, 1):
            return False
        if self._shortest < SHORTEST:
            return True  # who asks for the very short ones asks for all
        return value.lower() not in COMMON and not (
            len(value) < SHORTEST_NUMBER + (not value.isdecimal()) and _is_number(value)
        )

    def add(self, values: Iterable[str]) -> None:
        """Hide these values from now on; those that would be found in every text are ignored.

        Raises:
            UserError: they are more than can be looked for.
        """
        for value in values:
            with self._lock:  # each time anew: others are to mask meanwhile
                if value not in self._values and self.hides(value):
                    self._add(value)

    def _add(self, value: str) -> None:
        forms: set[str] | None = None
        if self._size + _FORMS * len(value) <= MOST_FORMS:
            forms = in_all_forms(value, self._shortest, self.hides)
        elif self._size + len(value) <= MOST:
            forms = in_few_forms(value, self._shortest, self.hides)
        if forms is None or self._size + sum(map(len, forms)) > MOST:
            raise UserError(
                "The values of keys that begin with # are too many or too long to be hidden: in the "
                f"ways they may be printed they have more than {MOST} characters. Make them fewer, "
                "or give the component what is large as a file."
            )
        self._values.add(value)
        self._look_for(forms)

    def _look_for(self, forms: Iterable[str]) -> None:
        for form in forms:
            for continues, piece in enumerate(_pieces(form)):
                if piece not in self._needles:
                    self._needles[piece] = bool(continues)
                    self._size += len(piece)
                    self.longest = max(self.longest, len(piece))
        self._all = self._within_lines = None

    def text(self, text: str) -> str:
        """`text` with every known value replaced by `[hidden]`."""
        return self._search().hide(text) if self._needles else text

    def lines(self, text: str) -> str:
        """`text` with each of its lines masked on its own, so that there are as many as before."""
        if not self._needles:
            return text
        with self._lock:
            if self._within_lines is None:
                within = {each: joins for each, joins in self._needles.items() if "\n" not in each}
                whole = len(within) == len(self._needles)
                self._within_lines = self._search() if whole else _Search(within)
            search = self._within_lines
        return search.hide(text)

    def prefix(self, text: str) -> str:
        """The beginning of `text` masked, when more may follow it that is not known.

        What is left out is the end that may belong to a value: less than the longest piece has.
        """
        end = len(text) - self.longest + 1
        if not self._needles or end >= len(text):
            return text
        return self._search().hide(text, end=end) if end > 0 else ""

    def suffix(self, text: str) -> str:
        """The end of `text` masked, when more may stand before it that is not known."""
        begin = self.longest - 1
        if not self._needles or begin <= 0:
            return self.text(text)
        return self._search().hide(text, begin=begin)

    def document(self, value: Any, *, numbers: bool = False) -> Any:
        """A JSON value with every string in it masked, keys included.

        With `numbers`, one whose digits hold a value becomes a masked text. Keys that are alike once
        they are masked are numbered, so that none is lost.
        """
        if not self._needles:
            return value
        masked = [value]
        todo: list[list[Any] | dict[Any, Any]] = [masked]
        while todo:  # a document may be nested more deeply than functions may
            container = todo.pop()
            items = container.items() if isinstance(container, dict) else enumerate(container)
            for place, each in list(items):
                match each:
                    case str():
                        container[place] = self.text(each)
                    case Mapping():
                        copy = self._named(each)
                        container[place] = copy
                        todo.append(copy)
                    case list() | tuple():
                        container[place] = list(each)
                        todo.append(container[place])
                    case bool() | None:
                        pass
                    case int() | float() if numbers:
                        digits = json.dumps(each)
                        hidden = self.text(digits)
                        container[place] = each if hidden == digits else hidden
        return masked[0]

    def _named(self, members: Mapping[Any, Any]) -> dict[Any, Any]:
        named: dict[Any, Any] = {}
        repeats: dict[str, int] = {}
        for key, item in members.items():
            name = self.text(key) if isinstance(key, str) else key
            if name != key:
                while name in named or name in members:
                    base = self.text(key)
                    repeats[base] = repeats.get(base, 1) + 1
                    name = f"{base} {repeats[base]}"
            named[name] = item
        return named

    def _search(self) -> _Search:
        with self._lock:
            if self._all is None:
                self._all = _Search(self._needles)
            return self._all


class _Search:
    """Finds any of some strings, the longest of those that begin at one place, in UTF-8."""

    def __init__(self, needles: Mapping[str, bool]) -> None:
        patterns = [needle.encode("utf-8", _ERRORS) for needle in needles]
        self._joins = {index for index, joins in enumerate(needles.values()) if joins}
        self._automaton = (
            # neither the smallest nor the fastest kind, but its memory grows with the needles only
            BytesAhoCorasick(patterns, MatchKind.LeftmostLongest, Implementation.ContiguousNFA)
            if patterns
            else None
        )

    def hide(self, text: str, *, begin: int = 0, end: int | None = None) -> str:
        """`text` from its character `begin` to `end`, every string in it replaced.

        One that reaches over these borders is replaced too, and what is beyond them of it left out.
        """
        data = text.encode("utf-8", _ERRORS)
        found = self._automaton.find_matches_as_indexes(data) if self._automaton else []
        if not found:
            return text[begin:end]
        at = len(text[:begin].encode("utf-8", _ERRORS))
        stop = len(data) if end is None else len(text[:end].encode("utf-8", _ERRORS))
        kept: list[bytes] = []
        for which, start, over in found:
            if start >= stop:
                break
            if over <= at:
                continue
            if not (kept and start == at and which in self._joins):
                kept += (data[at:start], _MARK)
            at = over
        kept.append(data[at:stop])
        return b"".join(kept).decode("utf-8", _ERRORS)


def _pieces(form: str) -> list[str]:
    """`form` in pieces of about the same length, so that none of them is found by chance."""
    count = -(-len(form) // PIECE)
    borders = [len(form) * index // count for index in range(count + 1)]
    return [form[begin:end] for begin, end in pairwise(borders)]


def _is_number(value: str) -> bool:
    try:
        float(value)
    except ValueError:
        return False
    return True
