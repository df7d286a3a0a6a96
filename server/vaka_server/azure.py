"""The documents of the blob protocol, read and written (storage-api.md section 4.5)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from hashlib import sha256
from xml.parsers import expat
from xml.sax.saxutils import escape, quoteattr

from vaka.models.json_text import NotJson, parse_json_text
from vaka.models.storage import Blob, BlockRef, FileDetail
from vaka_server.documents import plain_json
from vaka_server.problems import Refused

DECLARATION = '<?xml version="1.0" encoding="utf-8"?>'
MOST_XML = 16 << 20
"""Bytes of a list of blocks: 50,000 of them, with room."""
MOST_MANIFEST = 32 << 20
"""Bytes of a manifest: 100,000 slices, with room."""
_AMONG = {"Latest": "latest", "Uncommitted": "staged", "Committed": "committed"}
_RANGE = re.compile(r"bytes=([0-9]{0,19})-([0-9]{0,19})")


def error(code: str, message: str) -> bytes:
    """The body of a refusal."""
    return (
        f"{DECLARATION}<Error><Code>{escape(code)}</Code><Message>{escape(message)}</Message></Error>"
    ).encode()


def block_list(document: bytes) -> list[BlockRef]:
    """The blocks that a blob is to be made of.

    A document type, and so any entity of the sender's own, is refused; the parser keeps nothing of the
    document but the list.

    Raises:
        Refused: 400 `InvalidXmlDocument`.
    """
    found: list[BlockRef] = []
    path: list[str] = []
    text: list[str] = []

    def start(name: str, _: object) -> None:
        path.append(name)
        is_known = path == ["BlockList"] or (
            len(path) == 2 and path[0] == "BlockList" and name in _AMONG
        )
        if not is_known:
            raise _bad_xml(f"there is no place for <{name}>")
        text.clear()

    def end(name: str) -> None:
        path.pop()
        if path:
            found.append(BlockRef("".join(text).strip(), _AMONG[name]))  # type: ignore[arg-type]
        text.clear()

    def refuse(*_: object) -> None:
        raise _bad_xml("a document type is not allowed")

    parser = expat.ParserCreate()
    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = text.append
    parser.StartDoctypeDeclHandler = refuse
    try:
        parser.Parse(document, True)
    except (expat.ExpatError, LookupError, ValueError) as problem:
        raise _bad_xml(str(problem)) from problem
    return found


def slices(document: bytes, container: str, blob_name: str) -> list[str]:
    """The names of the slices that a manifest lists, in order.

    What it lists outside of the container, or of other files, stays as it is written: nothing of the
    file is called so.

    Raises:
        Refused: 400 when it is not a manifest.
    """
    try:
        value = parse_json_text(document.decode())
        urls = [entry["url"] for entry in value["entries"]]
    except (NotJson, UnicodeDecodeError, KeyError, TypeError) as problem:
        raise _bad_manifest() from problem
    if not all(isinstance(url, str) for url in urls):
        raise _bad_manifest()
    names = []
    for url in urls:
        path = url.partition(f"/{container}/")[2]
        is_ours = path.startswith(blob_name) and path != blob_name
        names.append(path.removeprefix(blob_name) if is_ours else url)
    return names


def manifest(entries: Iterable[tuple[str, int | None]]) -> bytes:
    """The list of slices, by address and size where that is known."""
    return plain_json(
        {
            "entries": [
                {"url": url, "mandatory": True}
                | ({} if size is None else {"meta": {"content_length": size}})
                for url, size in entries
            ]
        }
    )


def manifest_blob(document: bytes, detail: FileDetail) -> Blob:
    """A manifest as one of the blobs of its file."""
    return Blob("manifest", len(document), detail.created, sha256(document).hexdigest()[:16])


def listing(
    endpoint: str, container: str, prefix: str, blobs: Iterable[tuple[str, Blob]], marker: str
) -> bytes:
    """What is in a container; `marker` is where the next part begins, empty after the last."""
    parts = [
        DECLARATION,
        f"<EnumerationResults ServiceEndpoint={quoteattr(endpoint)} "
        f"ContainerName={quoteattr(container)}><Prefix>{escape(prefix)}</Prefix><Blobs>",
    ]
    parts += [
        f"<Blob><Name>{escape(name)}</Name><Properties>"
        f"<Last-Modified>{http_date(blob)}</Last-Modified><Etag>{escape(etag(blob))}</Etag>"
        f"<Content-Length>{blob.size_bytes}</Content-Length>"
        "<Content-Type>application/octet-stream</Content-Type><BlobType>BlockBlob</BlobType>"
        "</Properties></Blob>"
        for name, blob in blobs
    ]
    parts.append(f"</Blobs><NextMarker>{escape(marker)}</NextMarker></EnumerationResults>")
    return "".join(parts).encode()


def asked_range(header: str | None, size: int) -> tuple[int, int] | None:
    """The first byte and the one after the last that a range header asks for; None is all of it.

    A header that is not understood asks for all, as HTTP wants it.

    Raises:
        Refused: 416, there is nothing at that place.
    """
    found = _RANGE.fullmatch((header or "").strip())
    if found is None or found[0] == "bytes=-":
        return None
    first, last = found[1], found[2]
    if first and last and int(last) < int(first):
        return None
    start = int(first) if first else max(0, size - int(last))
    end = min(int(last) + 1, size) if first and last else size
    if start >= size:
        raise Refused(
            416,
            "The range specified is invalid for the current size of the resource.",
            code="InvalidRange",
            headers={"Content-Range": f"bytes */{size}"},
        )
    return start, end


def etag(blob: Blob) -> str:
    return f'"0x{blob.etag.upper()}"'


def http_date(blob: Blob) -> str:
    return blob.modified.strftime("%a, %d %b %Y %H:%M:%S GMT")


def _bad_xml(reason: str) -> Refused:
    return Refused(400, f"The list of blocks is not valid: {reason}.", code="InvalidXmlDocument")


def _bad_manifest() -> Refused:
    return Refused(
        400,
        'A manifest is JSON of the form {"entries": [{"url": "azure://…"}]}.',
        code="InvalidInput",
    )
