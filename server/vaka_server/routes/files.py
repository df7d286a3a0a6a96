"""Files sent and fetched as one stream each. Our own: what the `vaka` command uses."""

from __future__ import annotations

from vaka.models.storage import FileUpload
from vaka_server import documents
from vaka_server.access import Access
from vaka_server.body import FileContent, spool
from vaka_server.problems import Refused
from vaka_server.route import Call, Response, Route
from vaka_server.routes.storage.files import document, file_name, visible

BINARY = "application/octet-stream"


async def upload(call: Call) -> Response:
    """`POST /vaka/files`: the body is the file.

    With an `Idempotency-Key`, a second try stores nothing and answers with the first one's file.
    """
    args = call.request.args
    wanted = FileUpload(
        name=file_name(call.text("name")),
        tags=tuple(dict.fromkeys(args.getlist("tags[]") + args.getlist("tags"))),
        is_public=call.flag("isPublic"),
        is_permanent=call.flag("isPermanent"),
    )
    key = call.request.headers.get("Idempotency-Key") or None
    async with spool(call.body, call.spool_folder, limit=call.settings.max_upload_bytes) as path:
        stored = await call.engine.storage.files.upload(
            call.scope, wanted, path, import_key=key, move=True
        )
    return call.storage(document(call, stored), 201)


async def download(call: Call, file: int) -> Response:
    """`GET /vaka/files/{id}`: the file's bytes."""
    found = await visible(call, file)
    if found.is_sliced:
        raise Refused(400, f"File {file} is sliced and cannot be sent as one stream.")
    blob, stream = await call.engine.storage.files.blobs.open(call.scope, file, "")
    headers = {
        "Content-Length": str(blob.size_bytes),
        "Content-Disposition": documents.attachment(found.name),
    }
    return Response(FileContent(stream), 200, headers, content_type=BINARY)


ROUTES = (
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
        body=BINARY,
        answer="File",
        status=201,
    ),
    Route("GET", "/vaka/files/<int:file>", Access.READ, download, "A file's bytes", answer=BINARY),
)
