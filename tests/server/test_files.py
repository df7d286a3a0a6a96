"""Files and their content as clients of Storage send and fetch them, on disk."""

from __future__ import annotations

import gzip
import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode, urlsplit
from xml.etree import ElementTree as ET

import pytest
from tests.server.conftest import Answer, Site
from tests.server.test_storage import code, fits

from vaka.models.catalog import Role
from vaka.models.operation import NewOperation
from vaka.models.storage import FileUpload, StorageScope
from vaka_server import schemas
from vaka_server.file_access import ACCOUNT, FileAccess, signing_key

FILES = "/v2/storage/files"
AZURE = {"x-ms-blob-type": "BlockBlob"}


class Blobs:
    """A container, and credentials for it, in the hands of a test."""

    def __init__(self, site: Site, document: dict[str, Any]) -> None:
        given = document.get("absUploadParams") or {
            "container": document["absPath"]["container"],
            "blobName": document["absPath"]["name"],
            "absCredentials": document["absCredentials"],
        }
        self.site = site
        self.container: str = given["container"]
        self.name: str = given["blobName"]
        connection = given["absCredentials"]["SASConnectionString"]
        words = dict(part.split("=", 1) for part in connection.split(";"))
        self.endpoint = words["BlobEndpoint"]
        self.signature = dict(parse_qsl(words["SharedAccessSignature"]))

    def path(self, name: str | None = None, **query: str) -> str:
        blob = quote(self.name if name is None else name)
        return f"/{ACCOUNT}/{self.container}/{blob}?{urlencode({**self.signature, **query})}"

    async def ask(
        self,
        method: str,
        name: str | None = None,
        data: bytes | None = None,
        headers: dict[str, str] | None = None,
        **query: str,
    ) -> Answer:
        path = self.path(name, **query)
        return await self.site.ask(method, path, token=None, headers=headers, data=data)

    async def put(self, data: bytes, name: str | None = None) -> None:
        answer = await self.ask("PUT", name, data, AZURE)
        assert answer.status == 201, answer

    async def stage(self, block: str, data: bytes) -> Answer:
        return await self.ask("PUT", data=data, comp="block", blockid=block)

    async def commit(self, *blocks: str, word: str = "Latest") -> Answer:
        items = "".join(f"<{word}>{block}</{word}>" for block in blocks)
        document = f"<?xml version='1.0' encoding='utf-8'?>\n<BlockList>{items}</BlockList>"
        return await self.ask("PUT", data=document.encode(), comp="blocklist")


async def prepare(site: Site, form: str = "name=a.csv", **options: Any) -> dict[str, Any]:
    headers = {"Content-Type": "application/x-www-form-urlencoded", **options.pop("headers", {})}
    answer = await site.ask(
        "POST",
        f"{FILES}/prepare",
        data=form.encode(),
        headers=headers,
        **options,
    )
    assert answer.status == 200, answer
    fits(schemas.PreparedFile, answer.value)
    document: dict[str, Any] = answer.value
    return document


async def uploaded(site: Site, data: bytes, form: str = "name=a.csv", **options: Any) -> Any:
    """The document of a file with this content."""
    prepared = await prepare(site, form, **options)
    await Blobs(site, prepared).put(data)
    return await site.get(f"{FILES}/{prepared['id']}", **options)


async def finished(site: Site, job: dict[str, Any]) -> dict[str, Any]:
    """A storage job once it has ended."""
    await site.engine.operations.wait(job["id"])
    ended: dict[str, Any] = await site.get(f"/v2/storage/jobs/{job['id']}")
    return ended


async def imported(site: Site, file_id: int) -> dict[str, Any]:
    """The storage job that makes a table of a file, once it has ended."""
    project = (await site.engine.catalog.projects())[0]
    scope = StorageScope(project.id)
    if not await site.engine.storage.tables.list_buckets(scope):
        await site.engine.storage.tables.create_bucket(scope, "in", "b")
    operation = await site.engine.operations.submit(
        NewOperation(
            project=project.id,
            kind="tableCreate",
            params={"source": {"type": "file", "fileId": file_id}, "params": {"columns": ["id"]}},
            table_id="in.c-b.t",
        )
    )
    return await finished(site, await site.get(f"/v2/storage/jobs/{operation.id}"))


async def ids(site: Site, query: str = "", **options: Any) -> list[int]:
    return [file["id"] for file in await site.get(f"{FILES}?{query}", **options)]


def local(url: str) -> str:
    """The path and query of an absolute URL of the server."""
    parts = urlsplit(url)
    return f"{parts.path}?{parts.query}"


def azure_code(answer: Answer) -> tuple[int, str]:
    """Status and word of a refusal, which are the same in header and document."""
    word = answer.headers["x-ms-error-code"]
    assert answer.headers["Content-Type"] == "application/xml"
    assert ET.fromstring(answer.value).findtext("Code") == word
    return answer.status, word


def left(site: Site) -> list[Path]:
    """What is neither the content of a file nor known otherwise."""
    home = site.engine.config.home
    found = [*home.glob("uploads/*"), *home.glob("storage/blocks/**/*")]
    found += [*home.glob("storage/reading/*"), *home.glob("storage/files/**/*.part")]
    return [path for path in found if path.is_file()]


def kept(site: Site) -> list[Path]:
    """The content of files."""
    home = site.engine.config.home
    return [path for path in home.glob("storage/files/**/*") if path.is_file()]


@pytest.fixture
async def limited(site: Site) -> str:
    """The secret of a token that sees its own files only."""
    project = (await site.engine.catalog.projects())[0]
    _, secret = await site.engine.catalog.create_token(
        project.id,
        "limited",
        Role.ADMIN,
        can_read_all_file_uploads=False,
    )
    return secret


# -- documents -------------------------------------------------------------------------------------


@pytest.mark.scenario("storage-api", 22)
async def test_a_file_is_prepared_filled_and_described(site: Site) -> None:
    form = "name=my-file.csv&sizeBytes=3&tags[]=one&tags[]=two&isEncrypted=1&isPermanent=0"
    prepared = await prepare(site, form)
    assert re.fullmatch(r"[a-z0-9][a-z0-9-]{2,62}", Blobs(site, prepared).container)
    assert prepared["absUploadParams"]["accountName"] == "kbc"
    assert (prepared["sizeBytes"], prepared["provider"]) == (3, "azure")
    await Blobs(site, prepared).put(b"a,b\n1,2"[:6])

    found = await site.get(f"{FILES}/{prepared['id']}")

    fits(schemas.File, found)
    assert (found["sizeBytes"], found["tags"]) == (6, ["one", "two"])
    assert (found["isEncrypted"], found["isSliced"], found["isPublic"]) == (True, False, False)
    assert (found["fileType"], found["maxAgeDays"]) == ("csv", 15)
    secrets = {"credentials", "absCredentials", "gcsCredentials", "s3Path", "absPath", "gcsPath"}
    assert not secrets & found.keys()
    assert found["creatorToken"]["description"] == "the admin"
    assert isinstance(found["id"], int)
    assert left(site) == []


@pytest.mark.scenario("storage-api", 23)
@pytest.mark.parametrize("word", ["1", "true", "True"])
async def test_credentials_are_given_to_those_who_ask(site: Site, word: str) -> None:
    file = await uploaded(site, b"abc")

    found = await site.get(f"{FILES}/{file['id']}?federationToken={word}")

    assert found["provider"] == "azure"
    blobs = Blobs(site, found)
    assert blobs.endpoint == f"http://localhost/{ACCOUNT}"
    assert blobs.signature["sp"] == "rl"
    expires = datetime.strptime(found["absCredentials"]["expiration"], "%Y-%m-%dT%H:%M:%S%z")
    assert expires - datetime.now(UTC) > timedelta(hours=1)
    assert (await blobs.ask("GET")).value == b"abc"
    assert "absPath" not in await site.get(f"{FILES}/{file['id']}?federationToken=0")


async def test_a_file_can_be_prepared_in_all_three_encodings(site: Site) -> None:
    body = {"name": "a.txt", "tags": ["x", "y"], "isPermanent": True, "sizeBytes": "5"}
    made = await site.ask("POST", f"{FILES}/prepare", body)
    form = await prepare(site, "name=a.txt&tags[1]=y&tags[0]=x&isPermanent=True&sizeBytes=5")
    parts = [
        ("name", "a.txt"),
        ("tags[]", "x"),
        ("tags[]", "y"),
        ("isPermanent", "1"),
        ("sizeBytes", "5"),
    ]
    multipart = "".join(
        f'--b\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in parts
    )
    sent = await site.ask(
        "POST",
        f"{FILES}/prepare",
        data=f"{multipart}--b--\r\n".encode(),
        headers={"Content-Type": "multipart/form-data; boundary=b"},
    )

    for each in (made.value, form, sent.value):
        assert (each["name"], each["tags"], each["sizeBytes"]) == ("a.txt", ["x", "y"], 5)
        assert each["maxAgeDays"] is None


@pytest.mark.scenario("storage-api", 32)
async def test_tags_are_listed_once_and_gaps_are_closed(site: Site) -> None:
    file = await prepare(site, "name=a&tags[]=b&tags[]=a&tags[]=b")
    assert file["tags"] == ["b", "a"]
    file = await prepare(site, "name=a&tags[0]=x&tags[12]=y")
    assert file["tags"] == ["x", "y"]


@pytest.mark.scenario("storage-api", 30)
async def test_tags_that_are_no_list_and_queries_that_mean_nothing_are_refused(site: Site) -> None:
    assert code(await site.ask("GET", f"{FILES}?tags=tag")) == (400, "storage.validation")
    assert code(await site.ask("GET", f"{FILES}?q=tags[]:sd")) == (400, "query.syntax")
    for body in (
        {"name": "a", "tags": "b"},
        {"name": "a", "tags": [""]},
        {"name": "a", "tags": {}},
    ):
        answer = await site.ask("POST", f"{FILES}/prepare", body)
        assert code(answer) == (400, "storage.validation")
    for body in (
        {},
        {"name": ""},
        {"name": "a/b"},
        {"name": "x" * 256},
        {"name": "a", "isSliced": "x"},
    ):
        assert (await site.ask("POST", f"{FILES}/prepare", body)).status == 400
    for query in ("limit=x", "limit=-1", "offset=-1", "sinceId=x", "limit=100000", "showExpired=x"):
        assert code(await site.ask("GET", f"{FILES}?{query}")) == (400, "storage.validation")
    assert await ids(site) == []


@pytest.mark.scenario("storage-api", 29)
async def test_files_are_listed_by_either_tag_newest_first(site: Site) -> None:
    a = (await prepare(site, "name=1&tags[]=a"))["id"]
    b = (await prepare(site, "name=2&tags[]=b"))["id"]
    c = (await prepare(site, "name=3&tags[]=c"))["id"]

    assert await ids(site) == [c, b, a]
    assert await ids(site, "tags[]=a&tags[]=b") == [b, a]
    assert await ids(site, "limit=1") == [c]
    assert await ids(site, "limit=1&offset=1") == [b]
    assert await ids(site, f"maxId={c}") == [b, a]
    assert await ids(site, f"sinceId={a}") == [c, b]
    assert await ids(site, f"q={quote('tags:b')}") == [b]
    assert await ids(site, f"branch=ignored&q={quote('tags:b')}") == [b]
    assert [file["id"] for file in await site.get("/v2/storage/branch/default/files")] == [c, b, a]
    assert (await site.ask("GET", "/v2/storage/branch/999999/files")).status == 404


@pytest.mark.scenario("storage-api", 31)
async def test_files_are_found_by_queries(site: Site) -> None:
    a = (await prepare(site, "name=users.csv&tags[]=a"))["id"]
    ab = (await prepare(site, "name=orders.csv&tags[]=a&tags[]=b"))["id"]

    for query, expected in (
        ('tags:"a" AND NOT tags:"b"', [a]),
        ('(tags:"a") AND created:["2024-01-01T00:00:00+00:00" TO *]', [ab, a]),
        ('(tags:"a") AND created:["2999-01-01T00:00:00+00:00" TO *]', []),
        ("users", [a]),
        ("name:orders", [ab]),
        (f"id:{a}", [a]),
    ):
        assert await ids(site, f"q={quote(query)}") == expected, query


@pytest.mark.scenario("storage-api", 41)
async def test_a_file_remembers_the_run_that_made_it(site: Site) -> None:
    file = await prepare(site, headers={"X-KBC-RunId": "55"})
    await prepare(site)

    assert (file["runId"], file["runIds"]) == ("55", ["55"])
    assert await ids(site, "runId=55") == [file["id"]]
    assert await ids(site, "runId=56") == []


@pytest.mark.scenario("storage-api", 39)
async def test_a_file_may_be_kept_for_ever(site: Site) -> None:
    assert (await prepare(site, "name=a&isPermanent=1"))["maxAgeDays"] is None
    assert (await prepare(site, "name=a&isPermanent=0"))["maxAgeDays"] == 15
    assert len(await ids(site, "showExpired=1")) == 2


@pytest.mark.scenario("storage-api", 42)
async def test_a_limited_token_sees_only_its_own_files(site: Site, limited: str) -> None:
    theirs = await uploaded(site, b"theirs")
    own = await uploaded(site, b"own", token=limited)

    assert await ids(site, token=limited) == [own["id"]]
    assert await ids(site, "showExpired=1", token=limited) == [own["id"]]
    assert await ids(site) == [own["id"], theirs["id"]]
    path = f"{FILES}/{theirs['id']}"
    for method, where in (
        ("GET", path),
        ("GET", f"{path}?federationToken=1"),
        ("DELETE", path),
        ("POST", f"{path}/tags"),
        ("DELETE", f"{path}/tags/a"),
        ("GET", f"/vaka/files/{theirs['id']}"),
    ):
        answer = await site.ask(method, where, {"tag": "a"}, token=limited)
        assert code(answer) == (404, "storage.files.notFound"), where
    assert (await site.ask("GET", local(theirs["url"]), token=None)).value == b"theirs"


async def test_what_no_client_needs_is_said_to_be_missing(site: Site) -> None:
    file = await prepare(site)
    answer = await site.ask("PUT", f"{FILES}/{file['id']}/refresh")
    assert code(answer) == (501, "notImplemented")


async def test_files_of_another_project_are_not_there(site: Site) -> None:
    file = await uploaded(site, b"mine")
    for method in ("GET", "DELETE"):
        answer = await site.ask(method, f"{FILES}/{file['id']}", token="other")
        assert code(answer) == (404, "storage.files.notFound")
    assert await ids(site, token="other") == []


async def test_only_who_may_change_things_sends_and_deletes_files(site: Site) -> None:
    file = await uploaded(site, b"x")
    for method, path in (
        ("POST", f"{FILES}/prepare"),
        ("DELETE", f"{FILES}/{file['id']}"),
        ("POST", f"{FILES}/{file['id']}/tags"),
        ("DELETE", f"{FILES}/{file['id']}/tags/a"),
    ):
        answer = await site.ask(method, path, {"name": "a", "tag": "a"}, token="read")
        assert code(answer) == (403, "accessDenied")


async def test_tags_are_added_and_removed(site: Site) -> None:
    file = await prepare(site, "name=a&tags[]=a")
    path = f"{FILES}/{file['id']}"

    for tag in ("b", "a", "with / and ä"):
        assert (await site.ask("POST", f"{path}/tags", {"tag": tag})).status == 204
    assert (await site.get(path))["tags"] == ["a", "b", "with / and ä"]
    assert (await site.ask("DELETE", f"{path}/tags/{quote('with / and ä', safe='')}")).status == 204
    assert (await site.ask("DELETE", f"{path}/tags/a")).status == 204
    assert (await site.get(path))["tags"] == ["b"]
    assert code(await site.ask("POST", f"{path}/tags", {})) == (400, "storage.validation")
    assert code(await site.ask("POST", f"{FILES}/999/tags", {"tag": "a"}))[0] == 404


@pytest.mark.scenario("storage-api", 28)
async def test_a_deleted_file_is_gone_and_so_is_its_content(site: Site) -> None:
    prepared = await prepare(site)
    blobs = Blobs(site, prepared)
    await blobs.stage("YQ==", b"left over")
    await blobs.put(b"abc")
    await blobs.stage("YQ==", b"left over")
    assert (await site.ask("GET", local(prepared["url"]), token=None)).value == b"abc"

    assert (await site.ask("DELETE", f"{FILES}/{prepared['id']}")).status == 204

    answer = await site.ask("GET", f"{FILES}/{prepared['id']}")
    assert code(answer) == (404, "storage.files.notFound")
    assert answer.value["error"] == f"File id: {prepared['id']} not found"
    assert azure_code(await site.ask("GET", local(prepared["url"]), token=None)) == (
        404,
        "BlobNotFound",
    )
    assert azure_code(await blobs.ask("PUT", data=b"again", headers=AZURE))[0] == 404
    assert kept(site) == left(site) == []


async def test_a_file_can_be_deleted_by_a_job(site: Site) -> None:
    file = await uploaded(site, b"abc")
    assert code(await site.ask("DELETE", f"{FILES}/999?async=true")) == (
        404,
        "storage.files.notFound",
    )

    answer = await site.ask("DELETE", f"{FILES}/{file['id']}?async=true")

    assert answer.status == 202
    assert answer.value["operationName"] == "fileDelete"
    assert answer.value["operationParams"] == {"fileId": file["id"]}
    job = await finished(site, answer.value)
    assert (job["status"], job["results"]) == ("success", None)
    assert (await site.ask("GET", f"{FILES}/{file['id']}")).status == 404


@pytest.mark.scenario("storage-api", 40)
async def test_a_file_whose_content_never_came_cannot_be_imported(site: Site) -> None:
    file = await prepare(site)
    assert (await site.get(f"{FILES}/{file['id']}"))["sizeBytes"] == 0
    job = await imported(site, file["id"])
    assert (job["status"], job["error"]["code"]) == ("error", "storage.fileNotUploaded")


# -- content ---------------------------------------------------------------------------------------


@pytest.mark.scenario("storage-api", 24)
@pytest.mark.scenario("storage-api", 36)
async def test_the_url_of_a_file_needs_no_header(site: Site) -> None:
    file = await uploaded(site, b"abcdef", "name=my data.csv")
    path = local(file["url"])

    whole = await site.ask("GET", path, token=None)
    assert (whole.status, whole.value) == (200, b"abcdef")
    assert whole.headers["Content-Disposition"].startswith('attachment; filename="my_data.csv"')
    assert whole.headers["Content-Length"] == "6"
    part = await site.ask("GET", path, token=None, headers={"Range": "bytes=1-2"})
    assert (part.status, part.value) == (206, b"bc")
    assert part.headers["Content-Range"] == "bytes 1-2/6"
    end = datetime.fromisoformat(dict(parse_qsl(path))["se"])
    assert end - datetime.now(UTC) > timedelta(hours=1)
    put = await site.ask("PUT", path, token=None, data=b"x", headers=AZURE)
    assert azure_code(put) == (403, "AuthorizationPermissionMismatch")
    for other in (
        path.replace(f"{file['id']}.my", f"{file['id']}.your"),
        path.replace("sp=r", "sp=rw"),
    ):
        answer = await site.ask("GET", other, token=None)
        assert azure_code(answer) == (403, "AuthenticationFailed")


async def test_a_blob_tells_what_it_is(site: Site) -> None:
    prepared = await prepare(site)
    blobs = Blobs(site, prepared)
    made = await blobs.ask("PUT", data=b"abc", headers=AZURE)
    got = await blobs.ask("GET")
    head = await blobs.ask("HEAD")

    assert made.status == 201
    assert made.headers["x-ms-request-server-encrypted"] == "true"
    for name in ("ETag", "Last-Modified", "x-ms-request-id", "x-ms-version"):
        assert made.headers[name]
    for name in ("ETag", "Last-Modified", "x-ms-blob-type", "Accept-Ranges"):
        assert head.headers[name] == got.headers[name]
    assert (head.status, head.value) == (200, b"")
    assert made.headers["ETag"] == got.headers["ETag"]
    assert (got.headers["x-ms-blob-type"], got.headers["Accept-Ranges"]) == ("BlockBlob", "bytes")
    same = {"If-Match": got.headers["ETag"]}
    assert (await blobs.ask("GET", headers=same)).value == b"abc"
    await blobs.put(b"other")
    assert azure_code(await blobs.ask("GET", headers=same)) == (412, "ConditionNotMet")
    known = {"If-None-Match": (await blobs.ask("HEAD")).headers["ETag"]}
    assert (await blobs.ask("GET", headers=known)).status == 304
    assert len(kept(site)) == 1


@pytest.mark.parametrize(
    ("asked", "status", "content"),
    [
        ("bytes=0-3", 206, b"0123"),
        ("bytes=0-99", 206, b"0123456789"),
        ("bytes=8-", 206, b"89"),
        ("bytes=-3", 206, b"789"),
        ("bytes=9-9", 206, b"9"),
        ("bytes=10-11", 416, None),
        ("bytes=-0", 416, None),
        ("bytes=5-4", 200, b"0123456789"),
        ("bytes=0-1,3-4", 200, b"0123456789"),
        ("words=1-2", 200, b"0123456789"),
        ("bytes=-", 200, b"0123456789"),
        (f"bytes=0-{10**18}", 206, b"0123456789"),
        (f"bytes={10**18}-", 416, None),
    ],
)
async def test_parts_of_a_blob_are_served(
    site: Site,
    asked: str,
    status: int,
    content: bytes | None,
) -> None:
    blobs = Blobs(site, await prepare(site))
    await blobs.put(b"0123456789")
    for header in ("Range", "x-ms-range"):
        answer = await blobs.ask("GET", headers={header: asked})
        assert answer.status == status
        if content is None:
            assert azure_code(answer) == (416, "InvalidRange")
            assert answer.headers["Content-Range"] == "bytes */10"
        else:
            assert answer.value == content
            assert answer.headers["Content-Length"] == str(len(content))


@pytest.mark.scenario("storage-api", 26)
async def test_an_empty_file_goes_round(site: Site) -> None:
    prepared = await prepare(site)
    blobs = Blobs(site, prepared)
    await blobs.put(b"")

    answer = await blobs.ask("GET", headers={"x-ms-range": "bytes=0-33554431"})
    assert azure_code(answer) == (416, "InvalidRange")
    whole = await blobs.ask("GET")
    assert (whole.status, whole.value, whole.headers["Content-Length"]) == (200, b"", "0")
    assert (await site.get(f"{FILES}/{prepared['id']}"))["sizeBytes"] == 0


async def test_a_blob_that_is_not_there(site: Site) -> None:
    blobs = Blobs(site, await prepare(site))
    for method in ("GET", "DELETE"):
        answer = await blobs.ask(method)
        assert azure_code(answer) == (404, "BlobNotFound")
        assert b"The specified blob does not exist." in answer.value
    head = await blobs.ask("HEAD")
    assert (head.status, head.headers["x-ms-error-code"]) == (404, "BlobNotFound")
    assert azure_code(await blobs.ask("GET", "other"))[0] == 404
    assert azure_code(await blobs.ask("PUT", "other", b"x", AZURE)) == (400, "InvalidResourceName")
    assert azure_code(await blobs.ask("PUT", blobs.name + "x", b"x", AZURE)) == (
        400,
        "InvalidResourceName",
    )
    odd = {"x-ms-blob-type": "PageBlob"}
    assert azure_code(await blobs.ask("PUT", data=b"", headers=odd)) == (400, "InvalidHeaderValue")
    assert azure_code(await blobs.ask("PUT", comp="lease")) == (501, "NotImplemented")


async def test_what_is_there_is_kept_when_the_client_asks_for_that(site: Site) -> None:
    blobs = Blobs(site, await prepare(site))
    first = {**AZURE, "If-None-Match": "*"}
    assert (await blobs.ask("PUT", data=b"first", headers=first)).status == 201

    again = await blobs.ask("PUT", data=b"second", headers=first)
    assert azure_code(again) == (409, "BlobAlreadyExists")
    await blobs.stage("YQ==", b"third")
    document = b"<BlockList><Latest>YQ==</Latest></BlockList>"
    answer = await blobs.ask("PUT", data=document, headers=first, comp="blocklist")
    assert azure_code(answer) == (409, "BlobAlreadyExists")

    assert (await blobs.ask("GET")).value == b"first"
    assert (await blobs.ask("DELETE")).status == 202
    assert (await blobs.ask("GET")).status == 404


@pytest.mark.scenario("storage-api", 27)
async def test_a_file_is_sent_in_blocks(site: Site) -> None:
    prepared = await prepare(site)
    blobs = Blobs(site, prepared)
    names = ["YS8rPQ==", "Yi8r/w==", "YyA+/g=="]
    parts = [bytes([number]) * 100_000 for number in range(3)]
    for name, part in list(zip(names, parts, strict=True))[::-1]:
        made = await blobs.stage(name, part)
        assert (made.status, made.headers["x-ms-request-server-encrypted"]) == (201, "true")
    assert (await blobs.ask("GET")).status == 404

    assert (await blobs.commit(*names)).status == 201

    assert (await blobs.ask("GET")).value == b"".join(parts)
    assert (await site.get(f"{FILES}/{prepared['id']}"))["sizeBytes"] == 300_000
    assert (await blobs.commit(*names)).status == 201  # as when the first answer was lost
    assert (await blobs.commit(*names[:2], word="Committed")).status == 201
    assert (await blobs.ask("GET")).value == b"".join(parts[:2])
    assert left(site) == []


@pytest.mark.scenario("storage-api", 37)
async def test_a_list_with_an_unknown_block_changes_nothing(site: Site) -> None:
    blobs = Blobs(site, await prepare(site))
    await blobs.put(b"before")
    await blobs.stage("YQ==", b"a")

    for word in ("Latest", "Uncommitted", "Committed"):
        answer = await blobs.commit("YQ==", "Yg==", word=word)
        assert azure_code(answer) == (400, "InvalidBlockList")

    assert (await blobs.ask("GET")).value == b"before"
    assert (await blobs.commit("YQ==")).status == 201
    assert (await blobs.ask("GET")).value == b"a"


async def test_a_list_of_blocks_that_is_none_is_refused(site: Site) -> None:
    blobs = Blobs(site, await prepare(site))
    for document in (
        b"",
        b"<BlockList>",
        b"<Other/>",
        b"<BlockList><Latest><Latest/></Latest></BlockList>",
        b'<!DOCTYPE a [<!ENTITY b "c">]><BlockList><Latest>&b;</Latest></BlockList>',
        b'<!DOCTYPE a SYSTEM "file:///etc/passwd"><BlockList/>',
        b"\xff\xfe\x00",
        b'<?xml version="1.0" encoding="none"?><BlockList/>',
    ):
        answer = await blobs.ask("PUT", data=document, comp="blocklist")
        assert azure_code(answer) == (400, "InvalidXmlDocument"), document
    assert azure_code(await blobs.ask("PUT", data=b"x", comp="block"))[0] == 400


async def test_a_body_that_is_too_large_leaves_nothing(site: Site) -> None:
    site.app.settings = site.app.settings.model_copy(update={"max_upload_bytes": 10})
    prepared = await prepare(site)
    blobs = Blobs(site, prepared)

    for query in ({}, {"comp": "block", "blockid": "YQ=="}):
        answer = await blobs.ask("PUT", data=b"x" * 11, headers=AZURE, **query)
        assert azure_code(answer) == (413, "RequestBodyTooLarge")

    assert left(site) == []
    assert (await blobs.ask("GET")).status == 404


# -- signatures ------------------------------------------------------------------------------------


@pytest.mark.scenario("storage-api", 34)
async def test_a_blob_is_written_only_with_a_signature_for_that(site: Site) -> None:
    prepared = await prepare(site)
    writer = Blobs(site, prepared)
    await writer.put(b"before")
    reader = Blobs(site, await site.get(f"{FILES}/{prepared['id']}?federationToken=1"))

    for query in ({}, {"comp": "block", "blockid": "YQ=="}, {"comp": "blocklist"}):
        answer = await reader.ask("PUT", data=b"after", headers=AZURE, **query)
        assert azure_code(answer) == (403, "AuthorizationPermissionMismatch")
    assert azure_code(await reader.ask("DELETE")) == (403, "AuthorizationPermissionMismatch")
    for name, value in (
        ("sp", "rwl"),
        ("sig", "A" + reader.signature["sig"][1:]),
        ("sig", ""),
        ("se", "2999-01-01T00:00:00Z"),
        ("sr", "b"),
        ("sig", "ž"),
    ):
        if reader.signature[name] == value:
            continue
        answer = await reader.ask("PUT", data=b"after", headers=AZURE, **{name: value})
        assert azure_code(answer) == (403, "AuthenticationFailed"), name
    key = signing_key(site.engine.config.home)
    now = site.app.file_access
    hours_ago = datetime.now(UTC) - timedelta(hours=14)
    site.app.file_access = FileAccess(key, timedelta(hours=12), lambda: hours_ago)
    old = Blobs(site, await prepare(site))
    site.app.file_access = now
    answer = await old.ask("PUT", data=b"after", headers=AZURE)
    assert azure_code(answer) == (403, "AuthenticationFailed")
    assert b"expired" in answer.value

    assert (await writer.ask("GET")).value == b"before"
    assert left(site) == []


@pytest.mark.scenario("storage-api", 35)
async def test_a_signature_is_for_one_container(site: Site) -> None:
    mine = Blobs(site, await prepare(site))
    await mine.put(b"mine")
    theirs = Blobs(site, await prepare(site, token="other"))
    await theirs.put(b"theirs")

    mine.signature = theirs.signature

    for method in ("GET", "HEAD", "PUT", "DELETE"):
        answer = await mine.ask(method, data=b"x")
        assert (answer.status, answer.headers["x-ms-error-code"]) == (403, "AuthenticationFailed")
    listed = await site.ask("GET", f"/{ACCOUNT}/{mine.container}?{urlencode(theirs.signature)}")
    assert azure_code(listed) == (403, "AuthenticationFailed")


async def test_a_signature_is_read_whatever_its_encoding(site: Site) -> None:
    blobs = Blobs(site, await prepare(site))
    await blobs.put(b"abc")
    for encoded in (
        "&".join(f"{name}={value}" for name, value in blobs.signature.items()),
        "&".join(
            f"{name}=" + "".join(f"%{byte:02x}" for byte in value.encode())
            for name, value in reversed(blobs.signature.items())
        ),
    ):
        path = f"/{ACCOUNT}/{blobs.container}/{blobs.name}?{encoded}"
        assert (await site.ask("GET", path, token=None)).value == b"abc"


async def test_content_is_closed_during_maintenance(site: Site) -> None:
    blobs = Blobs(site, await prepare(site))
    await blobs.put(b"abc")
    site.app.settings = site.app.settings.model_copy(update={"maintenance": "Moving."})
    assert azure_code(await blobs.ask("GET")) == (503, "ServerBusy")


def test_the_signing_key_is_made_once_and_is_its_owners(tmp_path: Path) -> None:
    key = signing_key(tmp_path / "home")
    assert signing_key(tmp_path / "home") == key
    assert len(key) == 32
    assert (tmp_path / "home" / "signing.key").stat().st_mode & 0o777 == 0o600
    assert [path.name for path in (tmp_path / "home").iterdir()] == ["signing.key"]


# -- slices ----------------------------------------------------------------------------------------


async def test_slices_are_sent_and_fetched_by_their_manifest(site: Site) -> None:
    prepared = await prepare(site, "name=t.csv&isSliced=1&sizeBytes=99")
    blobs = Blobs(site, prepared)
    assert "manifest" not in blobs.name
    names = [f"{blobs.name}_1.csv", f"{blobs.name}_0 ž.csv.gz"]
    await blobs.put(b"1\n", names[0])
    packed = gzip.compress(b"22\n")
    await blobs.put(packed, names[1])
    where = blobs.endpoint.partition("://")[2]
    entries = [{"url": f"azure://{where}/{blobs.container}/{name}"} for name in names]
    assert (await blobs.ask("GET", blobs.name + "manifest")).status == 404
    assert (await site.ask("GET", local(prepared["url"]), token=None)).status == 404
    await blobs.put(json.dumps({"entries": entries}).encode(), blobs.name + "manifest")

    found = await site.get(f"{FILES}/{prepared['id']}?federationToken=1")

    assert (found["isSliced"], found["sizeBytes"]) == (True, 2 + len(packed))
    manifest = await Blobs(site, found).ask("GET", found["absPath"]["name"] + "manifest")
    from_url = await site.ask("GET", local(found["url"]), token=None)
    assert manifest.value == from_url.value
    head = await blobs.ask("HEAD", blobs.name + "manifest")
    assert head.headers["ETag"] == manifest.headers["ETag"]
    listed = json.loads(manifest.value)["entries"]
    assert [entry["url"] for entry in listed] == [entry["url"] for entry in entries]
    assert [entry["meta"]["content_length"] for entry in listed] == [2, len(packed)]
    assert all(entry["mandatory"] for entry in listed)
    for entry, content in zip(listed, (b"1\n", packed), strict=True):
        key = entry["url"].split(f"blob.core.windows.net/{blobs.container}/")[1]
        assert (await Blobs(site, found).ask("GET", key)).value == content


async def test_what_the_server_stores_in_slices_has_a_manifest(site: Site, tmp_path: Path) -> None:
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "packed").write_bytes(gzip.compress(b"1\n"))
    project = (await site.engine.catalog.projects())[0]
    upload = FileUpload("export.csv", is_sliced=True)
    for source, ending in (("empty", ".csv"), ("packed", ".csv.gz")):
        stored = await site.engine.storage.files.upload(
            StorageScope(project.id),
            upload,
            [tmp_path / source],
        )
        found = await site.get(f"{FILES}/{stored.id}?federationToken=1")
        assert (found["isSliced"], found["fileType"]) == (True, "csv")
        manifest = await site.ask("GET", local(found["url"]), token=None)
        (entry,) = json.loads(manifest.value)["entries"]
        assert entry["url"].endswith(ending)
        blobs = Blobs(site, found)
        key = entry["url"].split(f"/{blobs.container}/")[1]
        assert key.startswith(blobs.name)
        assert (await blobs.ask("GET", key)).value == (tmp_path / source).read_bytes()


@pytest.mark.scenario("storage-api", 38)
async def test_a_manifest_cannot_name_what_lies_elsewhere(site: Site) -> None:
    other = await uploaded(site, b"secret", token="other")
    place = Blobs(site, await site.get(f"{FILES}/{other['id']}?federationToken=1", token="other"))
    prepared = await prepare(site, "name=t.csv&isSliced=1")
    blobs = Blobs(site, prepared)
    await blobs.put(b"1\n", blobs.name + "0")
    where = blobs.endpoint.partition("://")[2]
    for url in (
        f"azure://{where}/{place.container}/{place.name}",
        f"azure://{where}/{blobs.container}/{blobs.name}../../{place.container}/{place.name}",
        f"azure://{where}/{blobs.container}/../{place.container}/{place.name}",
        f"azure://{where}/{blobs.container}/{blobs.name}missing",
        f"azure://{where}/{blobs.container}/{blobs.name}",
        "file:///etc/passwd",
        "",
    ):
        entries = [{"url": f"azure://{where}/{blobs.container}/{blobs.name}0"}, {"url": url}]
        await blobs.put(json.dumps({"entries": entries}).encode(), blobs.name + "manifest")
        job = await imported(site, prepared["id"])
        assert job["status"] == "error", url
        assert "is not a slice of it" in job["error"]["message"]
    assert await site.get("/v2/storage/tables") == []
    for document in (b"", b"{}", b"[]", b'{"entries":[1]}', b'{"entries":[{"url":1}]}', b"\xff"):
        answer = await blobs.ask("PUT", blobs.name + "manifest", document, AZURE)
        assert azure_code(answer) == (400, "InvalidInput")


async def test_a_manifest_may_come_in_blocks(site: Site) -> None:
    prepared = await prepare(site, "name=t.csv&isSliced=1")
    blobs = Blobs(site, prepared)
    prefix, blobs.name = blobs.name, blobs.name + "manifest"
    await blobs.put(b"1", prefix + "0")
    document = json.dumps({"entries": [{"url": f"azure://x/{blobs.container}/{prefix}0"}]}).encode()
    await blobs.stage("YQ==", document[:9])
    await blobs.stage("Yg==", document[9:])
    assert (await blobs.commit("YQ==", "Yg==")).status == 201
    assert (await site.get(f"{FILES}/{prepared['id']}"))["sizeBytes"] == 1


async def test_a_container_is_listed(site: Site) -> None:
    prepared = await prepare(site, "name=t.csv&isSliced=1")
    blobs = Blobs(site, prepared)
    for name in ("b", "a<&", "c"):
        await blobs.put(name.encode(), blobs.name + name)
    await blobs.put(b'{"entries":[]}', blobs.name + "manifest")

    async def listed(**query: str) -> tuple[list[str | None], str | None]:
        where = {**blobs.signature, "restype": "container", "comp": "list", **query}
        answer = await site.ask("GET", f"/{ACCOUNT}/{blobs.container}?{urlencode(where)}")
        assert answer.headers["Content-Type"] == "application/xml"
        root = ET.fromstring(answer.value)
        assert root.tag == "EnumerationResults"
        return [each.text for each in root.iter("Name")], root.findtext("NextMarker")

    names = [blobs.name + each for each in ("a<&", "b", "c", "manifest")]
    assert await listed() == (names, "")
    assert await listed(prefix=blobs.name + "b") == (names[1:2], "")
    first, marker = await listed(maxresults="3")
    assert (first, marker) == (names[:3], names[2])
    assert await listed(maxresults="3", marker=str(marker)) == (names[3:], "")
    url = dict(parse_qsl(urlsplit(prepared["url"]).query))
    answer = await site.ask("GET", f"/{ACCOUNT}/{blobs.container}?{urlencode(url)}")
    assert answer.status == 403
    other = await site.ask("GET", f"/{ACCOUNT}/{blobs.container}?{urlencode(blobs.signature)}")
    assert azure_code(other) == (501, "NotImplemented")


# -- our own routes --------------------------------------------------------------------------------


async def test_the_streams_of_the_command_carry_the_same_files(site: Site) -> None:
    file = await uploaded(site, b"abc", "name=a.bin")
    answer = await site.ask("GET", f"/vaka/files/{file['id']}")
    assert (answer.value, answer.headers["Content-Length"]) == (b"abc", "3")
    stored = (await site.ask("POST", "/vaka/files?name=b.bin", data=b"def")).value
    assert (await site.ask("GET", local(stored["url"]), token=None)).value == b"def"
    empty = await prepare(site)
    assert (await site.ask("GET", f"/vaka/files/{empty['id']}")).status == 404
