"""The content of files: the blob protocol that clients of Storage speak (storage-api.md section 4.5).

Who may do what is in the signature of the request, not in a token. Errors have the protocol's form.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Any

from werkzeug.exceptions import RequestEntityTooLarge

from vaka.errors import Conflict, InvalidInput, NotFound
from vaka.models.storage import Blob, FileDetail
from vaka_server import azure, documents, problems
from vaka_server.access import Access
from vaka_server.azure import etag, http_date
from vaka_server.body import FileContent, spool
from vaka_server.file_access import ACCOUNT, MANIFEST, Permission, Place, endpoint
from vaka_server.problems import Maintenance, Refused
from vaka_server.route import Call, Response, Route

XML = "application/xml"
BINARY = "application/octet-stream"
LISTED = 5_000
"""Blobs that one list shows at most."""
Handler = Callable[..., Awaitable[Response]]


def _protocol(handler: Handler) -> Handler:
    """Answer in the protocol's form, also when the request is refused."""

    @wraps(handler)
    async def answer(call: Call, **arguments: Any) -> Response:
        try:
            _check_open(call)
            response = await handler(call, **arguments)
        except Exception as error:  # noqa: BLE001 - the protocol's boundary
            response = _refusal(call, error)
        response.headers.setdefault("x-ms-request-id", problems.new_exception_id())
        response.headers["x-ms-version"] = "2017-11-09"
        response.headers["X-Content-Type-Options"] = "nosniff"
        return response

    return answer


def _check_open(call: Call) -> None:
    if call.settings.maintenance is not None:
        raise Maintenance(call.settings.maintenance)


def _refusal(call: Call, error: Exception) -> Response:
    document, status, headers = problems.body(error, call.request)
    message = problems.describe(error).message
    match error:
        case Refused(code=code) if code:
            pass
        case NotFound():
            code, message = "BlobNotFound", "The specified blob does not exist."
        case Conflict():
            code, message = "BlobAlreadyExists", "The specified blob already exists."
        case InvalidInput(path="blocks"):
            code = "InvalidBlockList"
        case InvalidInput(path="name"):
            code = "InvalidResourceName"
        case RequestEntityTooLarge():
            code = "RequestBodyTooLarge"
        case _:
            code = {507: "InsufficientStorage", 503: "ServerBusy"}.get(status) or (
                "InvalidInput" if status < 500 else "InternalError"
            )
    headers |= {"x-ms-error-code": code, "x-ms-request-id": document["exceptionId"]}
    return Response(azure.error(code, message), status, headers, content_type=XML)


# -- one blob --------------------------------------------------------------------------------------


@_protocol
async def read(call: Call, container: str, blob: str) -> Response:
    """`GET` and `HEAD`."""
    place, detail, name = await _opened(call, container, blob, "r")
    if name is None:
        raise _no_blob(blob)
    if detail.is_sliced and name == MANIFEST:
        if not detail.is_uploaded:
            raise _no_blob(blob)
        return await _manifest(call, place, detail)
    blobs = call.engine.storage.files.blobs
    if call.request.method == "HEAD":
        found = await blobs.blob(place.scope, place.file_id, name)
        content = None
    else:
        found, stream = await blobs.open(place.scope, place.file_id, name)
        content = FileContent(stream)
    try:
        return _content(call, found, content, detail.name if not detail.is_sliced else blob)
    except BaseException:
        if content is not None:
            content.close()
        raise


def _content(call: Call, found: Blob, content: FileContent | bytes | None, name: str) -> Response:
    """A blob, or the part of it that is asked for; `content` is None when only its headers are."""
    headers = {
        **_identity(found),
        "x-ms-blob-type": "BlockBlob",
        "Accept-Ranges": "bytes",
        "Content-Disposition": documents.attachment(name),
    }
    wanted = call.request.headers
    if "If-Match" in wanted and not _matches(wanted["If-Match"], found):
        raise Refused(412, "The content has changed.", code="ConditionNotMet")
    if "If-None-Match" in wanted and _matches(wanted["If-None-Match"], found):
        if isinstance(content, FileContent):
            content.close()
        return Response(b"", 304, headers)
    asked = azure.asked_range(wanted.get("x-ms-range") or wanted.get("Range"), found.size_bytes)
    start, end = asked or (0, found.size_bytes)
    status = 200
    if asked is not None:
        status = 206
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{found.size_bytes}"
    if isinstance(content, FileContent):
        content.limit(start, end)
        response = Response(content, status, headers, content_type=BINARY)
    else:
        response = Response((content or b"")[start:end], status, headers, content_type=BINARY)
    response.headers["Content-Length"] = str(end - start)
    return response


async def _manifest(call: Call, place: Place, detail: FileDetail) -> Response:
    """The list of slices, with the addresses under which the server is reached now."""
    blobs = await call.engine.storage.files.blobs.list_blobs(place.scope, place.file_id)
    document = _manifest_document(call, place, detail, blobs)
    found = azure.manifest_blob(document, detail)
    is_head = call.request.method == "HEAD"
    return _content(call, found, None if is_head else document, f"{detail.name}.{MANIFEST}")


def _manifest_document(call: Call, place: Place, detail: FileDetail, blobs: list[Blob]) -> bytes:
    where = f"{endpoint(call.base).partition('://')[2]}/{place.container}"
    sizes = {blob.name: blob.size_bytes for blob in blobs}
    prefix = place.blob_name(detail)
    entries = [(f"azure://{where}/{prefix}{name}", sizes.get(name)) for name in detail.slices]
    return azure.manifest(entries)


@_protocol
async def write(call: Call, container: str, blob: str) -> Response:
    """`PUT`: a whole blob, one of its blocks (`comp=block`), or the list of them (`comp=blocklist`)."""
    files = call.engine.storage.files
    place = call.app.file_access.check(container, blob, call.request.args, "w")
    prefix = await call.app.file_access.blob_name(place, files.file)
    if not blob.startswith(prefix):
        raise Refused(
            400,
            f'Blobs of this container have names that begin with "{prefix}".',
            code="InvalidResourceName",
        )
    name = blob.removeprefix(prefix)
    match call.request.args.get("comp"):
        case None:
            stored = await _put(call, place, name)
        case "block":
            return await _stage(call, place, name)
        case "blocklist":
            stored = await _commit(call, place, name)
        case other:
            raise Refused(501, f"comp={other} is not supported.", code="NotImplemented")
    if name == MANIFEST:  # no other blob of a file that is not sliced has such a name
        await _arrange(call, place, prefix)
    headers = {**_identity(stored), "x-ms-request-server-encrypted": "true"}
    return Response(b"", 201, headers)


async def _put(call: Call, place: Place, name: str) -> Blob:
    kind = call.request.headers.get("x-ms-blob-type", "BlockBlob")
    if kind != "BlockBlob":
        raise Refused(400, f"There are no blobs of type {kind}.", code="InvalidHeaderValue")
    overwrite = _may_overwrite(call)
    blobs = call.engine.storage.files.blobs
    async with spool(call.body, call.spool_folder, limit=call.settings.max_upload_bytes) as path:
        return await blobs.put(place.scope, place.file_id, name, path, overwrite=overwrite)


async def _stage(call: Call, place: Place, name: str) -> Response:
    # a plus that a client has not escaped was read as a blank, which no such id has
    block = (call.request.args.get("blockid") or "").replace(" ", "+")
    blobs = call.engine.storage.files.blobs
    async with spool(call.body, call.spool_folder, limit=call.settings.max_upload_bytes) as path:
        await blobs.stage(place.scope, place.file_id, name, block, path)
    return Response(b"", 201, {"x-ms-request-server-encrypted": "true"})


async def _commit(call: Call, place: Place, name: str) -> Blob:
    blocks = azure.block_list(await call.body.read(azure.MOST_XML))
    return await call.engine.storage.files.blobs.commit(
        place.scope, place.file_id, name, blocks, overwrite=_may_overwrite(call)
    )


async def _arrange(call: Call, place: Place, prefix: str) -> None:
    """Read the manifest that a client has sent."""
    blobs = call.engine.storage.files.blobs
    found, stream = await blobs.open(place.scope, place.file_id, MANIFEST)
    with stream:
        if found.size_bytes > azure.MOST_MANIFEST:
            raise RequestEntityTooLarge(f"A manifest has at most {azure.MOST_MANIFEST} bytes.")
        document = stream.read()
    names = azure.slices(document, place.container, prefix)
    await blobs.arrange(place.scope, place.file_id, names)


@_protocol
async def remove(call: Call, container: str, blob: str) -> Response:
    """`DELETE`."""
    place, _, name = await _opened(call, container, blob, "w")
    if name is None:
        raise _no_blob(blob)
    await call.engine.storage.files.blobs.remove(place.scope, place.file_id, name)
    return Response(b"", 202)


# -- a container -----------------------------------------------------------------------------------


@_protocol
async def listing(call: Call, container: str) -> Response:
    """`GET ?restype=container&comp=list`."""
    args = call.request.args
    place = call.app.file_access.check(container, None, args, "l")
    if (args.get("restype"), args.get("comp")) != ("container", "list"):
        raise Refused(501, "Of a container only the list is supported.", code="NotImplemented")
    files = call.engine.storage.files
    detail = await files.file(place.scope, place.file_id)
    found = {blob.name: blob for blob in await files.blobs.list_blobs(place.scope, place.file_id)}
    if detail.is_sliced and detail.is_uploaded:
        document = _manifest_document(call, place, detail, list(found.values()))
        found[MANIFEST] = azure.manifest_blob(document, detail)
    prefix, after = args.get("prefix", ""), args.get("marker", "")
    most = min(LISTED, call.whole("maxresults", LISTED, least=1, most=1 << 31))
    names = {place.blob_name(detail) + name: blob for name, blob in found.items()}
    wanted = [name for name in sorted(names) if name.startswith(prefix) and name > after]
    shown = wanted[:most]
    marker = shown[-1] if len(wanted) > most else ""
    body = azure.listing(
        endpoint(call.base), container, prefix, [(name, names[name]) for name in shown], marker
    )
    return Response(body, 200, content_type=XML)


# -- helpers ---------------------------------------------------------------------------------------


async def _opened(
    call: Call, container: str, blob: str, permission: Permission
) -> tuple[Place, FileDetail, str | None]:
    """The file that a request may use in this way, and the backend's name of the blob."""
    place = call.app.file_access.check(container, blob, call.request.args, permission)
    detail = await call.engine.storage.files.file(place.scope, place.file_id)
    prefix = place.blob_name(detail)
    return place, detail, blob.removeprefix(prefix) if blob.startswith(prefix) else None


def _may_overwrite(call: Call) -> bool:
    return call.request.headers.get("If-None-Match", "").strip() != "*"


def _matches(header: str, found: Blob) -> bool:
    tags = [tag.strip() for tag in header.split(",")]
    return "*" in tags or etag(found) in tags


def _identity(found: Blob) -> dict[str, str]:
    return {"ETag": etag(found), "Last-Modified": http_date(found)}


def _no_blob(blob: str) -> NotFound:
    return NotFound(f"There is no blob {blob}.", kind="blob", id=blob)


_BLOB = f"/{ACCOUNT}/<container>/<path:blob>"
_SIGNATURE = {"sig": "The signature, with sv, sr, st, se and sp: what it is for"}

ROUTES = (
    Route("GET", _BLOB, Access.PUBLIC, read, "Content of a file", query=_SIGNATURE, answer=BINARY),
    Route(
        "PUT",
        _BLOB,
        Access.PUBLIC,
        write,
        "Send a file's content, whole or in blocks",
        query={**_SIGNATURE, "comp": "block or blocklist", "blockid": "The block's id"},
        body=BINARY,
        status=201,
    ),
    Route("DELETE", _BLOB, Access.PUBLIC, remove, "Remove content", query=_SIGNATURE, status=202),
    Route(
        "GET",
        f"/{ACCOUNT}/<container>",
        Access.PUBLIC,
        listing,
        "What is in the container of a file",
        query={**_SIGNATURE, "prefix": "What names begin with"},
        answer=XML,
    ),
)
