"""ULIDs: ids that sort by the moment they were made at."""

from __future__ import annotations

import secrets
from datetime import datetime
from typing import Final

_ALPHABET: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_LETTERS: Final = 26
_CHANCE_BITS: Final = 80


def new_ulid(moment: datetime) -> str:
    """An id of 26 letters and digits: the milliseconds of `moment`, and 80 bits of chance."""
    number = int(moment.timestamp() * 1000) << _CHANCE_BITS | secrets.randbits(_CHANCE_BITS)
    return "".join(_ALPHABET[number >> 5 * place & 31] for place in reversed(range(_LETTERS)))
