"""Blobs over real connections, and what signatures and lists of blocks mean whatever they hold."""

from __future__ import annotations

import re
import signal
import socket
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self
from urllib.parse import parse_qsl, urlencode, urlsplit

import httpx
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from tests.server.conftest import Site
from tests.server.test_bodies import answer, served, until
from tests.server.test_files import FILES, Blobs, left, prepare
from tests.server.test_serve import Process, serving

from vaka.errors import InvalidInput
from vaka.models.storage import BlockRef, FileDetail, StorageScope
from vaka_server import azure
from vaka_server.file_access import FileAccess, Permission
from vaka_server.problems import Refused

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
DETAIL = FileDetail(7, "a", NOW, 1)
IDS = st.one_of(st.integers(0, 10**12).map(str), st.text("abcXYZ_-019", min_size=1, max_size=8))


# -- on the wire -----------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["length", "chunked", "expecting"])
async def test_content_comes_with_a_length_in_chunks_or_after_a_question(
    site: Site, how: str
) -> None:
    blobs = Blobs(site, await prepare(site))
    async with trio.open_nursery() as nursery:
        server = await served(site.app, nursery)
        head = f"PUT {blobs.path()} HTTP/1.1\r\nHost: a\r\nx-ms-blob-type: BlockBlob\r\n"
        async with server.connection() as stream:
            if how == "chunked":
                await stream.send_all(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode())
                await stream.send_all(b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")
            else:
                await stream.send_all(f"{head}Content-Length: 5\r\n".encode())
                if how == "expecting":
                    await stream.send_all(b"Expect: 100-continue\r\n\r\n")
                    assert (await stream.receive_some()).startswith(b"HTTP/1.1 100 ")
                    await stream.send_all(b"abcde")
                else:
                    await stream.send_all(b"\r\nabcde")
            assert (await stream.receive_some()).startswith(b"HTTP/1.1 201 ")
        nursery.cancel_scope.cancel()
    assert (await blobs.ask("GET")).value == b"abcde"


async def test_the_head_of_a_blob_has_its_length_and_no_body(site: Site) -> None:
    plain = Blobs(site, await prepare(site))
    await plain.put(b"abcde")
    sliced = Blobs(site, await prepare(site, "name=a&isSliced=1"))
    await sliced.put(b'{"entries":[]}', sliced.name + "manifest")
    manifest = (await sliced.ask("GET", sliced.name + "manifest")).value
    async with trio.open_nursery() as nursery:
        server = await served(site.app, nursery)
        for path, length in (
            (plain.path(), 5),
            (sliced.path(sliced.name + "manifest"), len(manifest)),
        ):
            async with server.connection() as stream:
                await stream.send_all(
                    f"HEAD {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode()
                )
                said = await answer(stream)
            assert said.startswith(b"HTTP/1.1 200 ")
            assert re.search(rb"\r\ncontent-length: (\d+)\r\n", said, re.IGNORECASE)[1] == (  # type: ignore[index]
                b"%d" % length
            )
            assert said.endswith(b"\r\n\r\n")
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("query", [{}, {"comp": "block", "blockid": "YQ=="}])
async def test_content_that_breaks_off_is_not_there(site: Site, query: dict[str, str]) -> None:
    blobs = Blobs(site, await prepare(site))
    path = blobs.path(**query)
    async with trio.open_nursery() as nursery:
        server = await served(site.app, nursery)
        async with server.connection() as stream:
            head = f"PUT {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n"
            await stream.send_all(head.encode() + bytes(500_000))
            await until(lambda: left(site))
        await until(lambda: not left(site))
        nursery.cancel_scope.cancel()
    assert (await blobs.ask("GET")).status == 404
    assert (await blobs.commit("YQ==")).status == 400


class Remote:
    """A server process, and the container of one of its files."""

    def __init__(self, process: Process, token: str) -> None:
        self.client = httpx.Client(
            base_url=process.url, headers={"X-StorageApi-Token": token}, timeout=60
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()

    def prepare(self) -> dict[str, Any]:
        document: dict[str, Any] = self.client.post(
            f"{FILES}/prepare", json={"name": "a.bin"}
        ).json()
        return document

    def url(self, document: dict[str, Any], **query: str) -> str:
        """The address of the file's blob at this server, whichever gave the signature out."""
        given = document["absUploadParams"]
        _, endpoint, signature = re.split(
            "BlobEndpoint=|;SharedAccessSignature=", given["absCredentials"]["SASConnectionString"]
        )
        path = f"{urlsplit(endpoint).path}/{given['container']}/{given['blobName']}"
        return f"{path}?{urlencode({**dict(parse_qsl(signature)), **query})}"


def content(home: Path) -> list[bytes]:
    """All that is kept of files, complete or not."""
    return [path.read_bytes() for path in home.glob("storage/files/**/*") if path.is_file()]


def test_a_server_that_is_killed_leaves_no_blob_half_and_its_blocks_whole(tmp_path: Path) -> None:
    home = tmp_path / "home"
    block = {"comp": "block", "blockid": "YQ=="}
    with serving(home) as process, Remote(process, process.said["token"]) as remote:
        token = process.said["token"]
        whole, half = remote.prepare(), remote.prepare()
        assert remote.client.put(remote.url(whole, **block), content=b"block").status_code == 201
        address = urlsplit(process.url)
        with socket.create_connection((address.hostname, address.port)) as connection:
            head = f"PUT {remote.url(half)} HTTP/1.1\r\nHost: a\r\nContent-Length: 9000000\r\n\r\n"
            connection.sendall(head.encode() + bytes(4_000_000))
            assert remote.client.get("/healthz").status_code == 200
            process.signal(signal.SIGKILL)
            process.wait()
    assert content(home) == []

    with serving(home) as process, Remote(process, token) as remote:
        assert list(home.glob("uploads/*")) == []
        for document in (whole, half):
            assert remote.client.get(remote.url(document)).status_code == 404
        listed = b"<BlockList><Latest>YQ==</Latest></BlockList>"
        done = remote.client.put(remote.url(whole, comp="blocklist"), content=listed)
        assert done.status_code == 201
        assert remote.client.get(remote.url(whole)).content == b"block"
        assert remote.client.get(f"{FILES}/{whole['id']}").json()["sizeBytes"] == 5
    assert content(home) == [b"block"]


# -- signatures ------------------------------------------------------------------------------------


def signed(given: dict[str, object], name: str = "absCredentials") -> dict[str, str]:
    """The parameters of a signature that was given out."""
    connection = str(given[name]["SASConnectionString"])  # type: ignore[index]
    return dict(parse_qsl(connection.partition(";SharedAccessSignature=")[2]))


@given(project=IDS, branch=st.none() | IDS, file=st.integers(1, 10**9))
def test_a_container_is_found_by_its_name_only(project: str, branch: str | None, file: int) -> None:
    access = FileAccess(b"k" * 32, timedelta(hours=1), lambda: NOW)
    place = access.place(StorageScope(project, branch, run_id="1"), file)

    assert re.fullmatch(r"[a-z0-9][a-z0-9-]{1,61}[a-z0-9]", place.container)
    assert "--" not in place.container
    found = access.find(place.container)
    assert found == place
    assert (place.scope, place.file_id) == (StorageScope(project, branch), file)
    assert FileAccess(b"x" * 32, timedelta(hours=1)).find(place.container) is None


def test_ids_that_do_not_fit_into_the_name_of_a_container_are_refused() -> None:
    access = FileAccess(b"k" * 32, timedelta(hours=1), lambda: NOW)
    with pytest.raises(InvalidInput, match="too long"):
        access.place(StorageScope("a" * 64), 1)


@given(
    changed=st.sampled_from(["sv", "sr", "st", "se", "sp", "sig", "container", "blob"]),
    value=st.text(max_size=40),
)
def test_a_signature_covers_all_that_it_says(changed: str, value: str) -> None:
    access = FileAccess(b"k" * 32, timedelta(hours=1), lambda: NOW)
    place = access.place(StorageScope("1"), 7)
    detail = DETAIL
    query = dict(parse_qsl(urlsplit(access.url(place, detail, "http://a")).query))
    request = {"container": place.container, "blob": place.blob_name(detail), **query}
    assert access.check(place.container, request["blob"], query, "r") == place
    if request[changed] == value:
        return
    request[changed] = value

    with pytest.raises(Refused) as refused:
        access.check(request.pop("container"), request.pop("blob"), request, "r")

    assert (refused.value.status, refused.value.code) == (403, "AuthenticationFailed")


@given(minutes=st.integers(-600, 600), permission=st.sampled_from(["r", "w", "l"]))
def test_a_signature_is_valid_for_its_time_and_purpose(
    minutes: int, permission: Permission
) -> None:
    place = FileAccess(b"k" * 32, timedelta(hours=1), lambda: NOW).place(StorageScope("1"), 7)
    given_out = FileAccess(b"k" * 32, timedelta(hours=1), lambda: NOW)
    query = signed(given_out.read_parameters(place, DETAIL, "http://a"))
    then = NOW + timedelta(minutes=minutes)
    later = FileAccess(b"k" * 32, timedelta(hours=1), lambda: then)

    try:
        later.check(place.container, "7.a", query, permission)
        is_allowed = True
    except Refused:
        is_allowed = False

    # from the hour in which it was made, to an hour at least after it
    assert is_allowed == (-4 <= minutes <= 115 and permission in "rl")


# -- lists of blocks -------------------------------------------------------------------------------

BLOCK_IDS = st.text("abcXYZ019+/=", min_size=1, max_size=88)
WORDS = {"Latest": "latest", "Uncommitted": "staged", "Committed": "committed"}


@given(blocks=st.lists(st.tuples(st.sampled_from(sorted(WORDS)), BLOCK_IDS), max_size=30))
def test_a_list_of_blocks_is_read_in_its_order(blocks: list[tuple[str, str]]) -> None:
    items = "\n  ".join(f"<{word}> {block}\n</{word}>" for word, block in blocks)
    document = f'<?xml version="1.0" encoding="utf-8"?>\n<BlockList>\n{items}</BlockList>\n'

    assert azure.block_list(document.encode()) == [
        BlockRef(block, WORDS[word])  # type: ignore[arg-type]
        for word, block in blocks
    ]


@given(
    document=st.binary(max_size=200)
    | st.text("<>/!&;[]\"' BlockListLatest", max_size=200).map(str.encode)
)
def test_whatever_is_sent_as_a_list_is_one_or_is_refused(document: bytes) -> None:
    try:
        found = azure.block_list(document)
    except Refused as error:
        refused = error
    else:
        assert all(isinstance(block, BlockRef) for block in found)
        return
    assert (refused.status, refused.code) == (400, "InvalidXmlDocument")


@given(document=st.binary(max_size=200))
def test_whatever_is_sent_as_a_manifest_is_one_or_is_refused(document: bytes) -> None:
    with pytest.raises(Refused) as refused:
        azure.slices(document, "container", "7.")
    assert refused.value.status == 400


@given(
    header=st.from_regex(r"bytes=[0-9]{0,6}-[0-9]{0,6}", fullmatch=True) | st.text(max_size=20),
    size=st.integers(0, 2000),
)
def test_a_range_is_within_the_blob(header: str, size: int) -> None:
    try:
        asked = azure.asked_range(header, size)
    except Refused as error:
        refused = error
    else:
        assert asked is None or 0 <= asked[0] < asked[1] <= size
        return
    assert refused.status == 416
