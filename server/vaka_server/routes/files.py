"""Files (storage-api.md section 4), sent and fetched as one stream each."""

from __future__ import annotations

from urllib.parse import quote
from uuid import uuid4

from vaka.errors import InvalidInput, NotFound
from vaka.models.storage import FileQuery, FileUpload
from vaka_server import documents
from vaka_server.access import Access
from vaka_server.body import TemporaryFile, spool
from vaka_server.problems import Refused
from vaka_server.route import Call, Response, Route

LIMIT = 100
MOST = 10_000
NAME_LENGTH = 255


async def files(call: Call) -> Response:
    """`GET /v2/storage/files`."""
    since, before = call.text("sinceId"), call.text("maxId")
    query = FileQuery(
        tags=tuple(call.request.args.getlist("tags[]") or call.request.args.getlist("tags")),
        query=call.text("q") or "",
        since_id=None if since is None else call.whole("sinceId", 0, most=1 << 53),
        max_id=None if before is None else call.whole("maxId", 0, most=1 << 53),
        run_id=call.text("runId"),
        limit=call.whole("limit", LIMIT, most=MOST),
        offset=call.whole("offset", 0, most=1 << 31),
        show_expired=call.flag("showExpired"),
    )
    try:
        found = await call.engine.storage.files.list_files(call.scope, query)
    except InvalidInput as error:
        raise Refused(400, error.message, code="query.syntax") from error
    return call.storage([documents.file(each, call.base) for each in found])


async def file(call: Call, file: int) -> Response:
    """`GET /v2/storage/files/{id}`."""
    try:
        found = await call.engine.storage.files.file(call.scope, file)
    except NotFound as error:
        raise _missing(file) from error
    return call.storage(documents.file(found, call.base))


async def upload(call: Call) -> Response:
    """`POST /vaka/files`: the body is the file. Our own.

    With an `Idempotency-Key`, a second try stores nothing and answers with the first one's file.
    """
    name = call.text("name")
    if name is None or len(name) > NAME_LENGTH or "/" in name or not name.isprintable():
        raise Refused(400, f"name: must be given, printable, below {NAME_LENGTH} characters.")
    wanted = FileUpload(
        name=name,
        tags=tuple(
            dict.fromkeys(call.request.args.getlist("tags[]") + call.request.args.getlist("tags"))
        ),
        is_public=call.flag("isPublic"),
        is_permanent=call.flag("isPermanent"),
    )
    key = call.request.headers.get("Idempotency-Key") or None
    async with spool(call.body, call.spool_folder, limit=call.settings.max_upload_bytes) as path:
        stored = await call.engine.storage.files.upload(call.scope, wanted, path, import_key=key)
    return call.storage(documents.file(stored, call.base), 201)


async def download(call: Call, file: int) -> Response:
    """`GET /vaka/files/{id}`: the file's bytes. Our own."""
    backend = call.engine.storage.files
    try:
        found = await backend.file(call.scope, file)
        if found.is_sliced:
            raise Refused(400, f"File {file} is sliced and cannot be sent as one stream.")
        call.spool_folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        target = call.spool_folder / uuid4().hex
        try:
            await backend.download(call.scope, file, target)
            content = TemporaryFile(target)
        finally:
            target.unlink(missing_ok=True)
    except NotFound as error:
        raise _missing(file) from error
    headers = {
        "Content-Length": str(content.size),
        "Content-Disposition": f"attachment; filename*=UTF-8''{quote(found.name)}",
    }
    return Response(content, 200, headers, content_type="application/octet-stream")


def _missing(file: int) -> NotFound:
    return NotFound(f"File id: {file} not found", kind="file", id=str(file))


ROUTES = (
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
    ),
    Route("GET", "/v2/storage/files/<int:file>", Access.READ, file, "One file", answer="File"),
    Route(
        "POST",
        "/vaka/files",
        Access.ADMIN,
        upload,
        "Store a file",
        query={
            "name": "Its name",
            "tags[]": "Its tags",
            "isPublic": "true or false",
            "isPermanent": "true keeps it for ever",
        },
        body="application/octet-stream",
        answer="File",
        status=201,
    ),
    Route(
        "GET",
        "/vaka/files/<int:file>",
        Access.READ,
        download,
        "A file's bytes",
        answer="application/octet-stream",
    ),
)
