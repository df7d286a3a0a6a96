"""Points in time as configurations name them (mapping.md section 4.4)."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone

_TIMESTAMP = re.compile(r"@?(-?\d{1,11})(?:\.\d+)?")
_ABSOLUTE = re.compile(
    r"(?P<year>\d{4})-(?P<month>\d{1,2})-(?P<day>\d{1,2})"
    r"(?:(?:T|\s+)(?P<hour>\d{1,2}):(?P<minute>\d{2})(?::(?P<second>\d{2})(?P<fraction>[.,]\d+)?)?"
    r"\s*(?P<zone>z|utc|gmt|[-+]\d{2}(?::?\d{2})?)?)?",
    re.IGNORECASE,
)
_TERM = re.compile(
    r"\s*(?:(?P<word>now|today|midnight|yesterday|tomorrow|ago)(?![a-z])"
    r"|(?P<amount>[-+]?\s*\d{1,9})\s*"
    r"(?P<unit>seconds?|secs?|minutes?|mins?|hours?|days?|weeks?|fortnights?|months?|years?)(?![a-z]))",
    re.IGNORECASE,
)
_SECONDS = {
    "sec": 1,
    "second": 1,
    "min": 60,
    "minute": 60,
    "hour": 3_600,
    "day": 86_400,
    "week": 604_800,
    "fortnight": 1_209_600,
}
_MIDNIGHTS = {"today": 0, "midnight": 0, "yesterday": -1, "tomorrow": 1}
_LONGEST = 100
"""Characters; no moment needs as many."""


def parse_moment(text: str, *, now: datetime | None = None) -> datetime:
    """The moment that `text` names, with a time zone.

    Understands Unix timestamps, dates with or without time and zone, and English offsets such as
    `-2 days`, `1 week 3 hours ago` or `yesterday`. What is relative counts from `now`, and a date
    without a zone is in the zone of `now`; without it both are UTC. A month later than January 31st
    is March 2nd or 3rd.

    Raises:
        ValueError: `text` names no moment, or none between the years 1 and 9999.
    """
    now = now or datetime.now(UTC)
    text = text.strip()
    if len(text) > _LONGEST or not text.isascii():
        raise ValueError("not a moment")
    try:
        if stamp := _TIMESTAMP.fullmatch(text):
            return datetime.fromtimestamp(int(stamp[1]), UTC)
        if absolute := _ABSOLUTE.fullmatch(text):
            return _absolute(absolute, now)
        return _relative(text, now)
    except OverflowError as error:
        raise ValueError("not a moment between the years 1 and 9999") from error


def _absolute(found: re.Match[str], now: datetime) -> datetime:
    number = {name: int(found[name] or 0) for name in ("hour", "minute", "second")}
    fraction = (found["fraction"] or ".0")[1:7].ljust(6, "0")
    zone = (found["zone"] or "").lower()
    if not zone:
        tzinfo = now.tzinfo or UTC
    elif zone in {"z", "utc", "gmt"}:
        tzinfo = UTC
    else:
        digits = zone[1:].replace(":", "").ljust(4, "0")
        offset = timedelta(hours=int(digits[:2]), minutes=int(digits[2:]))
        tzinfo = timezone(-offset if zone[0] == "-" else offset)
    year, month, day = int(found["year"]), int(found["month"]), int(found["day"])
    return datetime(year, month, day, **number, microsecond=int(fraction), tzinfo=tzinfo)


def _relative(text: str, now: datetime) -> datetime:
    day, months, seconds = None, 0, 0
    position = 0
    while position < len(text):
        term = _TERM.match(text, position)
        if term is None:
            raise ValueError("not a moment")
        position = term.end()
        word = (term["word"] or "").lower()
        if word == "ago":
            months, seconds = -months, -seconds
        elif word in _MIDNIGHTS:
            day = _MIDNIGHTS[word]
        elif not word:
            amount = int(re.sub(r"\s", "", term["amount"]))
            unit = term["unit"].lower().removesuffix("s")
            if unit in _SECONDS:
                seconds += amount * _SECONDS[unit]
            else:
                months += amount * (12 if unit == "year" else 1)
    if not text:
        raise ValueError("not a moment")
    moment = now
    if day is not None:
        moment = now.replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=day)
    if months:
        count = moment.year * 12 + moment.month - 1 + months
        # from the first of the month on, so that days beyond its end run over into the next
        moment = moment.replace(year=count // 12, month=count % 12 + 1, day=1) + timedelta(
            days=moment.day - 1
        )
    return moment + timedelta(seconds=seconds)
