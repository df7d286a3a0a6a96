"""The short form of `make hostile`: images that try to break out, choke the engine, or lie to it."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass

import pytest
from tests.acceptance.conftest import Server
from tests.acceptance.images import Images
from tests.hostile.images import SHORT, SIZES_SHORT, Case
from tests.hostile.site import Ending, Site, Watch

pytestmark = pytest.mark.docker

GROWTH = 400 << 20
"""Bytes by which the server may grow while all of them run: DuckDB's buffers, mostly."""


@dataclass
class Aftermath:
    """What is to be seen when all jobs have ended."""

    site: Site
    endings: dict[str, Ending]
    watch: Watch


@pytest.fixture(scope="module")
def aftermath(
    tmp_path_factory: pytest.TempPathFactory,
    docker_host: str,
    busybox_image: str,
    pybase_image: str,
) -> Iterator[Aftermath]:
    folder = tmp_path_factory.mktemp("hostile")
    (folder / "home").mkdir()
    server = Server(folder / "home", f"test-{secrets.token_hex(4)}")
    with (
        closing(Images(docker_host, busybox_image)) as images,
        closing(Site(folder, images, pybase_image, server)) as site,
    ):
        site.open()
        with site.watch() as watch:
            endings = site.run(SHORT, **SIZES_SHORT)
        yield Aftermath(site, endings, watch)


@pytest.mark.parametrize("case", SHORT, ids=lambda case: case.name)
def test_a_hostile_image_ends_as_it_should(aftermath: Aftermath, case: Case) -> None:
    ending = aftermath.endings[case.name]
    assert ending.how in case.ends, ending.resource
    assert re.search(case.says, ending.message), ending.message
    if case.prints is not None:
        assert case.prints in ending.lines


def test_nothing_outside_was_read_or_changed(aftermath: Aftermath) -> None:
    assert aftermath.site.disturbed() == []


def test_the_server_answered_all_the_while(aftermath: Aftermath) -> None:
    assert aftermath.watch.failures == []
    assert aftermath.watch.growth < GROWTH


def test_no_container_and_no_folder_is_left(aftermath: Aftermath) -> None:
    site = aftermath.site
    assert len(site.images.containers(site.server.instance)) == 1
    assert [path.name for path in (site.server.home / "jobs").iterdir()] == [str(site.neighbour)]
