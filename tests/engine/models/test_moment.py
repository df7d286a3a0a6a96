"""Moments as configurations name them."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vaka.models.moment import parse_moment

NOW = datetime(2024, 1, 31, 12, 30, 15, 500, UTC)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("now", NOW),
        ("-2 days", datetime(2024, 1, 29, 12, 30, 15, 500, UTC)),
        ("-5 minutes", NOW - timedelta(minutes=5)),
        ("+1 week 2 days", NOW + timedelta(days=9)),
        ("1week2days", NOW + timedelta(days=9)),
        ("- 1 fortnight", NOW - timedelta(days=14)),
        ("2 hours 3 min ago", NOW - timedelta(hours=2, minutes=3)),
        ("10 sec", NOW + timedelta(seconds=10)),
        ("-1 MONTH", datetime(2023, 12, 31, 12, 30, 15, 500, UTC)),
        ("+1 month", datetime(2024, 3, 2, 12, 30, 15, 500, UTC)),
        ("-1 year", datetime(2023, 1, 31, 12, 30, 15, 500, UTC)),
        ("today", datetime(2024, 1, 31, tzinfo=UTC)),
        ("midnight", datetime(2024, 1, 31, tzinfo=UTC)),
        ("yesterday", datetime(2024, 1, 30, tzinfo=UTC)),
        ("tomorrow +1 hour", datetime(2024, 2, 1, 1, tzinfo=UTC)),
        ("627332400", datetime(1989, 11, 17, 19, 0, tzinfo=UTC)),
        ("@-1", datetime(1969, 12, 31, 23, 59, 59, tzinfo=UTC)),
        ("2013-02-12T15:19:21+00:00", datetime(2013, 2, 12, 15, 19, 21, tzinfo=UTC)),
        ("2022-06-03T03:31:43+0200", datetime(2022, 6, 3, 1, 31, 43, tzinfo=UTC)),
        ("2022-06-03 03:31:43.25Z", datetime(2022, 6, 3, 3, 31, 43, 250_000, UTC)),
        ("2022-06-03 03:31 -01:30", datetime(2022, 6, 3, 5, 1, tzinfo=UTC)),
        ("2024-01-31", datetime(2024, 1, 31, tzinfo=UTC)),
    ],
)
def test_a_moment_is_understood(text: str, expected: datetime) -> None:
    assert parse_moment(text, now=NOW) == expected


def test_a_date_without_a_zone_is_in_the_zone_of_now() -> None:
    prague = timezone(timedelta(hours=1))

    moment = parse_moment("2024-01-31", now=NOW.astimezone(prague))

    assert moment == datetime(2024, 1, 30, 23, tzinfo=UTC)


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", "-1 light year", "nonsense", "2024-13-01", "2024-02-30", "2024-01-01T25:00"),
        *("1 dayss", "999999999 years", "-999999999 months", "-99999999999", "1 day " * 99),
        *("2024-01-01T00:00+99:00", "\uff11 day"),
    ],
)
def test_what_is_no_moment_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        parse_moment(text, now=NOW)


@settings(deadline=None)
@given(st.text() | st.from_regex(r"([-+]?[0-9]{1,9} (day|month|year|sec)s? ?(ago|today)?)+"))
def test_any_text_is_a_moment_or_refused(text: str) -> None:
    with suppress(ValueError):
        assert parse_moment(text).tzinfo is not None
