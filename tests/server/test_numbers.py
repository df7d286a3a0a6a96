"""Numbers that nothing can hold, where clients write one: refused, and never a failure."""

from __future__ import annotations

import pytest
from tests.server.conftest import Site

NUMBERS = ("9" * 19, "9" * 30, "0" * 5_000, "9" * 5_000)
PLACES = (
    "/v2/storage/files/{}",
    "/v2/storage/jobs/{}",
    "/v2/storage/dev-branches/{}",
    "/v2/storage/branch/{}/components",
    "/v2/storage/tokens/{}",
    "/v2/storage/components/C/configs/X/versions/{}",
    "/vaka/files/{}",
    "/vaka/branches/{}",
    "/queue/job/{}",
    "/queue/jobs/{}",
)
PARAMETERS = (
    "/v2/storage/files?limit={}",
    "/v2/storage/files?offset={}",
    "/v2/storage/events?limit={}",
    "/v2/storage/events?maxId={}",
    "/v2/storage/jobs?limit={}",
    "/queue/job?limit={}",
    "/queue/job?offset={}",
    "/queue/search/jobs?limit={}",
)


@pytest.mark.parametrize("number", NUMBERS, ids=lambda number: f"{number[0]}x{len(number)}")
async def test_a_number_that_cannot_be_is_refused(site: Site, number: str) -> None:
    for place in PLACES:
        answer = await site.ask("GET", place.format(number))
        assert answer.status == 404, (place, answer)
    for place in PARAMETERS:
        answer = await site.ask("GET", place.format(number))
        assert answer.status < 500, (place, answer)


@pytest.mark.parametrize("sent", ["\u00b2", "9" * 5_000, "-1", "x"])
async def test_the_last_event_may_be_called_anything(site: Site, sent: str) -> None:
    job = await site.run()
    await site.finished(job)
    headers = {"Accept": "text/event-stream", "Last-Event-ID": sent}
    answer = await site.ask("GET", f"/queue/jobs/{job}/events?follow=false", headers=headers)
    assert answer.status == 200


@pytest.mark.parametrize("seconds", [10**400, 1e308, -1, True, "1"])
async def test_a_time_that_no_clock_can_hold_is_refused(site: Site, seconds: object) -> None:
    answer = await site.ask("POST", "/vaka/gc", {"timeout": seconds})
    assert answer.status == 400, answer
