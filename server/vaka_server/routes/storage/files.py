"""Files: what is known of them (storage-api.md section 4). Their content goes by `blobs`."""

from __future__ import annotations

from collections.abc import Sequence

from vaka.errors import InvalidInput, NotFound
from vaka.models.storage import FileDetail, FileQuery, FileUpload
from vaka_server import documents
from vaka_server.access import Access
from vaka_server.fields import Fields
from vaka_server.problems import Refused
from vaka_server.route import Call, Response, Route, absent, not_implemented
from vaka_server.routes.storage import jobs

LIMIT = 100
MOST = 10_000
MOST_TAGS = 1_000
TAG_LENGTH = 255
NAME_LENGTH = 255
LARGEST_ID = (1 << 53) - 1


async def files(call: Call) -> Response:
    """`GET /files`."""
    query = call.query
    wanted = FileQuery(
        tags=_tags(query),
        query=query.text("q") or "",
        since_id=_id(query, "sinceId"),
        max_id=_id(query, "maxId"),
        run_id=query.text("runId") or None,
        creator_token_id=None if call.token.can_read_all_file_uploads else call.token.id,
        limit=query.whole("limit", LIMIT, most=MOST),
        offset=query.whole("offset", 0, most=1 << 31),
        show_expired=query.flag("showExpired"),
    )
    try:
        found = await call.engine.storage.files.list_files(call.scope, wanted)
    except InvalidInput as error:
        raise Refused(400, error.message, code="query.syntax") from error
    return call.storage([document(call, each) for each in found])


async def file(call: Call, file: int) -> Response:
    """`GET /files/{id}`."""
    found = await visible(call, file)
    return call.storage(document(call, found, credentials=call.query.flag("federationToken")))


async def prepare(call: Call) -> Response:
    """`POST /files/prepare`."""
    backend = call.engine.storage.files
    if not backend.takes_uploads:
        raise not_implemented("Sending files in blobs")
    given = await call.fields()
    wanted = FileUpload(
        name=file_name(given.text("name")),
        tags=_tags(given),
        is_public=given.flag("isPublic"),
        is_permanent=given.flag("isPermanent"),
        is_encrypted=given.flag("isEncrypted", True),
        is_sliced=given.flag("isSliced"),
        notify=given.flag("notify"),
        size_bytes=given.whole("sizeBytes", None, most=LARGEST_ID)
        if given.get("sizeBytes")
        else None,
    )
    prepared = await backend.prepare(call.scope, wanted)
    place = call.app.file_access.place(call.scope, prepared.id)
    upload = call.app.file_access.upload_parameters(place, prepared, call.base)
    return call.storage({**document(call, prepared), **upload})


async def delete(call: Call, file: int) -> Response:
    """`DELETE /files/{id}`; with `async` by a storage job."""
    await visible(call, file)
    if call.query.flag("async"):
        return await jobs.submitted(call, "fileDelete", {"fileId": file})
    await call.engine.storage.files.delete(call.scope, file)
    return Response(b"", 204)


async def add_tag(call: Call, file: int) -> Response:
    """`POST /files/{id}/tags`."""
    tag = (await call.fields()).required("tag")
    _check_tags([tag])
    await visible(call, file)
    await call.engine.storage.files.add_tags(call.scope, file, [tag])
    return Response(b"", 204)


async def remove_tag(call: Call, file: int, tag: str) -> Response:
    """`DELETE /files/{id}/tags/{tag}`."""
    await visible(call, file)
    await call.engine.storage.files.remove_tags(call.scope, file, [tag])
    return Response(b"", 204)


# -- shared with our own routes --------------------------------------------------------------------


async def visible(call: Call, file: int) -> FileDetail:
    """A file that the caller may see; `NotFound` for all others."""
    found = await call.engine.storage.files.file(call.scope, file)
    token = call.token
    if not token.can_read_all_file_uploads and found.creator_token_id != token.id:
        raise NotFound(f"File id: {file} not found", kind="file", id=str(file))
    return found


def document(call: Call, found: FileDetail, *, credentials: bool = False) -> documents.Document:
    """A file as clients read it; with `credentials` for its content when they are asked for."""
    place = call.app.file_access.place(call.scope, found.id)
    result = documents.file(found, call.app.file_access.url(place, found, call.base))
    if credentials:
        result |= call.app.file_access.read_parameters(place, found, call.base)
    return result


def file_name(text: str | None) -> str:
    """The name of a new file; `Refused` when it cannot be one."""
    if not text or len(text) > NAME_LENGTH or "/" in text or not text.isprintable():
        raise Refused(400, f"name: must be given, printable, below {NAME_LENGTH} characters.")
    return text


def _tags(given: Fields) -> tuple[str, ...]:
    """Tags, each once."""
    value = given.get("tags")
    if value is None or value == "":
        return ()
    if not isinstance(value, list):
        raise Refused(400, "tags: must be an array.", code="storage.validation")
    tags = given.texts("tags")
    _check_tags(tags)
    return tuple(dict.fromkeys(tags))


def _check_tags(tags: Sequence[str]) -> None:
    if len(tags) > MOST_TAGS:
        raise Refused(400, f"tags: there may be {MOST_TAGS} at most.", code="storage.validation")
    if any(not tag or len(tag) > TAG_LENGTH for tag in tags):
        raise Refused(
            400, f"tags: each has 1 to {TAG_LENGTH} characters.", code="storage.validation"
        )


def _id(query: Fields, name: str) -> int | None:
    return query.whole(name, None, most=LARGEST_ID) if query.get(name) else None


_FILE = "/v2/storage/files/<int:file>"

ROUTES = (
    absent("PUT", f"{_FILE}/refresh", "Refreshing credentials", branch=True),
    Route(
        "GET",
        "/v2/storage/files",
        Access.READ,
        files,
        "Files, newest first",
        query={
            "tags[]": "Files with any of these tags",
            "q": "A query, as in tags:a AND name:b*",
            "sinceId": "Ids above this",
            "maxId": "Ids below this",
            "runId": "Made by this run",
            "limit": f"How many at most, {LIMIT} unless given",
            "offset": "How many to leave out",
            "showExpired": "true shows also those that have expired",
        },
        answer="File[]",
        branch=True,
    ),
    Route(
        "POST",
        "/v2/storage/files/prepare",
        Access.ADMIN,
        prepare,
        "Announce a file, and learn where to send its content",
        body="PrepareFile",
        answer="PreparedFile",
        branch=True,
    ),
    Route(
        "GET",
        _FILE,
        Access.READ,
        file,
        "One file",
        query={"federationToken": "true adds credentials for its content"},
        answer="File",
        branch=True,
    ),
    Route(
        "DELETE",
        _FILE,
        Access.ADMIN,
        delete,
        "Delete a file",
        query={"async": "true answers 202 with a storage job"},
        status=204,
        branch=True,
    ),
    Route(
        "POST",
        f"{_FILE}/tags",
        Access.ADMIN,
        add_tag,
        "Add a tag to a file",
        body="FileTag",
        status=204,
        branch=True,
    ),
    Route(
        "DELETE",
        f"{_FILE}/tags/<tag>",
        Access.ADMIN,
        remove_tag,
        "Take a tag from a file",
        status=204,
        branch=True,
    ),
)
