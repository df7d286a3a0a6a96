"""The short form of `make chaos`: engines that are killed, and what becomes of their job."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import closing

import pytest
from tests.acceptance.images import Images
from tests.chaos.kills import Harness, again_and_again, at_any_time, at_write

pytestmark = pytest.mark.docker

FEW = 4
"""Writes of the store, spread over the job, at which the short form kills."""


@pytest.fixture(scope="module")
def harness(
    tmp_path_factory: pytest.TempPathFactory, docker_host: str, busybox_image: str
) -> Iterator[Harness]:
    with closing(Images(docker_host, busybox_image)) as images:
        yield Harness(tmp_path_factory.mktemp("chaos"), docker_host, images)


@pytest.mark.parametrize("part", range(FEW))
def test_a_job_ends_as_if_nothing_had_happened(harness: Harness, part: int) -> None:
    number = 2 + part * (harness.writes - 2) // FEW

    wrong, kills = harness.run([at_write(number, after=part % 2 == 0)])

    assert wrong == []
    assert kills == 1


def test_a_job_gets_on_however_often_its_engine_is_killed(harness: Harness) -> None:
    wrong, kills = harness.run(again_and_again(random.Random(7), 6, 12))

    assert wrong == []
    assert kills > 1


def test_a_job_survives_deaths_at_any_moment(harness: Harness) -> None:
    wrong, _ = harness.run(at_any_time(random.Random(7)))

    assert wrong == []
