"""What columns are called once they are in a table, whatever a file or a manifest calls them."""

from __future__ import annotations

import re
import unicodedata
from typing import Final

_RESERVED: Final = {"oid", "tableoid", "xmin", "cmin", "xmax", "cmax", "ctid"}
_LETTERS: Final = str.maketrans(
    "đĐðÐħĦ\u0131ĸłŁŋŊøØŧŦəƏƒ",
    "dDdDhHiklLnNoOtTeEf",
) | str.maketrans({"ß": "ss", "æ": "ae", "Æ": "AE", "œ": "oe", "Œ": "OE", "þ": "th", "Þ": "TH"})
"""Latin letters that Unicode does not take apart into a letter and a mark."""


def plain_letters(text: str) -> str:
    """Letters without their marks; other alphabets are left as they are."""
    taken_apart = unicodedata.normalize("NFKD", text.translate(_LETTERS))
    return "".join(letter for letter in taken_apart if not unicodedata.combining(letter))


def webalize(name: str) -> str:
    """A column name of ASCII letters, digits and `_`, or nothing when no such character is left.

    `_abc-def----ghi_` becomes `abc_def_ghi`, `žluťoučký    kůň` becomes `zlutoucky_kun`. Letter case
    is kept. Names that databases keep for themselves get a `_` behind.

    Source: storage-api.md section 7.3, mapping.md section 6.8.
    """
    result = re.sub(r"[^_A-Za-z0-9]+", "_", plain_letters(name)).strip("_")
    return result + "_" if result.lower() in _RESERVED else result


def webalize_display_name(name: str) -> str:
    """A display name of ASCII letters, digits, `_` and `-`, or nothing when none is left.

    Source: storage-api.md section 7.10.
    """
    return re.sub(r"[^-_A-Za-z0-9]+", "-", plain_letters(name)).strip("-_")
