"""How long the project's jobs ran (runner.md section 1.11.5)."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta

from vaka.errors import InvalidInput
from vaka_server.access import Access
from vaka_server.route import Call, Response, Route

MOST_DAYS = 3_660
USUAL_DAYS = 30
"""Up to the last one, when the first is not given."""
_OFFSET = re.compile(r"([-+ ])([01][0-9]|2[0-3]):([0-5][0-9])")


async def project(call: Call) -> Response:
    """`GET /docker/stats/project`."""
    seconds = await call.engine.run_seconds(call.project.id)
    return call.runner({"jobs": {"durationSum": seconds}})


async def daily(call: Call) -> Response:
    """`GET /docker/stats/project/daily`."""
    offset = _offset(call)
    today = (datetime.now(UTC) + offset).date()
    last = _day(call, "toDate") or today
    first = _day(call, "fromDate") or last - timedelta(days=USUAL_DAYS - 1)
    if last < first:
        raise InvalidInput("Parameter 'toDate' must not be before 'fromDate'.")
    if (last - first).days >= MOST_DAYS:
        raise InvalidInput(f"The range must not have more than {MOST_DAYS} days.")
    days = await call.engine.daily_run_seconds(call.project.id, first, last, offset=offset)
    return call.runner(
        {"jobs": [{"date": day.isoformat(), "durationSum": seconds} for day, seconds in days]}
    )


def _day(call: Call, name: str) -> date | None:
    given = call.text(name)
    if given is None:
        return None
    try:
        if re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", given):
            found = date.fromisoformat(given)
            if 1970 <= found.year < 9000:
                return found
    except ValueError:
        pass  # said below
    raise InvalidInput(f"Parameter '{name}' must be a date such as 2024-01-31.")


def _offset(call: Call) -> timedelta:
    given = call.text("timezoneOffset") or "+00:00"
    found = _OFFSET.fullmatch(given)
    if found is None:
        raise InvalidInput("Parameter 'timezoneOffset' must be an offset such as +02:00.")
    offset = timedelta(hours=int(found[2]), minutes=int(found[3]))
    return -offset if found[1] == "-" else offset  # an unescaped + arrives as a space


ROUTES = (
    Route(
        "GET",
        "/docker/stats/project",
        Access.READ,
        project,
        "Seconds that the project's finished jobs ran",
        answer="ProjectStatistics",
    ),
    Route(
        "GET",
        "/docker/stats/project/daily",
        Access.READ,
        daily,
        "The same, by the day on which jobs ended",
        query={
            "fromDate": "First day, such as 2024-01-01; 30 days up to the last one unless given",
            "toDate": "Last day; today unless given",
            "timezoneOffset": "Where days begin, such as +02:00; UTC unless given",
        },
        answer="DailyStatistics",
    ),
)
