"""What reads bytes of clients, components and the daemon; and the only errors that may come out."""

from __future__ import annotations

import gzip
import io
import itertools
import json
import struct
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trio
import zstandard
from sqlalchemy.dialects import postgresql, sqlite

from vaka import gelf, mustache
from vaka.datafolder.archives import read_archive
from vaka.docker import DockerError
from vaka.docker._frames import Demultiplexer
from vaka.encryption import cipher
from vaka.errors import InvalidInput, UserError
from vaka.hooks import CipherReader
from vaka.models.ciphers import CipherScope, Scope, cipher_scope, split_cipher
from vaka.models.document import dump_document, load_document
from vaka.models.json_text import NotJson, parse_json_text
from vaka.models.manifest import parse_file_manifest, parse_table_manifest
from vaka.models.moment import parse_moment
from vaka.store import _search
from vaka_legacy import serialized
from vaka_legacy.readers import LegacyReader, Version0Reader
from vaka_local import filequery
from vaka_server import azure
from vaka_server.fields import parse_form
from vaka_server.problems import Refused, run_id_number

SQLITE, POSTGRESQL = sqlite.dialect(), postgresql.dialect()  # type: ignore[no-untyped-call]
LIMIT = 1 << 20
"""Bytes that an archive may unpack to."""


@dataclass(frozen=True)
class Parser:
    """Something that is to be fed anything."""

    parse: Callable[[bytes], Any]
    errors: tuple[type[Exception], ...]
    """What it says about what it cannot read."""
    seeds: tuple[bytes, ...]
    """Some of what it can read."""

    def feed(self, data: bytes) -> None:
        """Let it parse; any error but its own is the caller's to see."""
        try:
            self.parse(data)
        except self.errors:
            return


def _text(data: bytes) -> str:
    return data.decode("utf-8", "ignore")


def _archive(data: bytes) -> None:
    with tempfile.TemporaryDirectory(prefix="vaka-fuzz-") as name:
        outer = Path(name)
        (outer / "canary").write_text("canary")
        source, target = outer / "archive", outer / "target"
        source.write_bytes(data)
        target.mkdir()
        try:
            read_archive(source, target, limit=LIMIT)
        finally:
            assert {path.name for path in outer.iterdir()} == {"canary", "archive", "target"}
            assert (outer / "canary").read_text() == "canary"
            assert (
                sum(path.lstat().st_size for path in target.rglob("*") if path.is_file()) <= LIMIT
            )
            assert not any(path.is_symlink() for path in target.rglob("*"))


def _gelf(data: bytes) -> None:
    for message in gelf.messages(data):
        assert isinstance(message, dict | gelf.Unreadable)
    frames, datagrams = gelf.Frames(), gelf.Datagrams()
    for begin in range(0, len(data), 17):
        for one in frames.feed(data[begin : begin + 17]):
            assert isinstance(one, gelf.Unreadable) or len(one) <= gelf.MESSAGE_BYTES
        datagrams.feed(data[begin : begin + 17], "sender", float(begin))
    datagrams.feed(data, "other", 0.0)
    frames.finish()
    datagrams.finish()


def _frames(data: bytes) -> None:
    demultiplexer = Demultiplexer()
    for begin in range(0, len(data), 13):
        demultiplexer.feed(data[begin : begin + 13])
    assert demultiplexer.missing >= 0


def _document(data: bytes) -> None:
    value = load_document(data)
    assert load_document(dump_document(value)) == value


def _yaml(data: bytes) -> None:
    load_document(data, "yaml")


def _json(data: bytes) -> None:
    json.dumps(parse_json_text(_text(data)), allow_nan=False, ensure_ascii=False).encode()


def _scope(prefix: str) -> CipherScope:
    found = cipher_scope(prefix, Scope("C", "1", "2", "default"), "stack")
    assert found is not None
    return found


SCOPE = _scope("KBC::ProjectSecure::")
READERS: tuple[CipherReader, ...] = (
    LegacyReader(bytes(16)),
    Version0Reader(bytes(32)),
)


def _cipher(data: bytes) -> None:
    split_cipher(_text(data))
    split_cipher("KBC::" + _text(data))
    cipher.parse(cipher.MARK + _text(data), SCOPE)


def _legacy(data: bytes) -> None:
    async def read() -> None:
        for reader in READERS:
            try:
                await reader.read(_text(data), SCOPE, "migrate")
            except UserError:
                continue

    trio.run(read)


def _envelope(data: bytes) -> None:
    for read in (serialized.read_array, serialized.read_pair):
        try:
            read(data)
        except serialized.Malformed:
            continue
    serialized.read_envelope(_text(data))


def _jobs_query(data: bytes) -> None:
    condition = _search.condition(_text(data))
    condition.compile(dialect=SQLITE)
    condition.compile(dialect=POSTGRESQL)


def _files_query(data: bytes) -> None:
    filequery.condition(_text(data)).compile(dialect=SQLITE)


def _range(data: bytes) -> None:
    for size in (0, 1, 10**12):
        found = azure.asked_range(_text(data), size)
        if found is not None:
            assert 0 <= found[0] < found[1] <= size


def _block_list(data: bytes) -> None:
    azure.block_list(data)


def _slices(data: bytes) -> None:
    azure.slices(data, "container", "1/a")


def _mustache(data: bytes) -> None:
    mustache.render(_text(data), {"a": "b", "_": "c"})


def _zipped() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a/b", b"c" * 100)
        archive.writestr("d/", b"")
    return file.getvalue()


def _tarred() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name, kind in itertools.product(("a", "../b"), (tarfile.REGTYPE, tarfile.SYMTYPE)):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "/etc/passwd"
            member.pax_headers = {"path": name}
            archive.addfile(member, io.BytesIO())
    return file.getvalue()


def _packed(data: bytes) -> None:
    """As `_archive`, for what would not get past the checksum."""
    _archive(zstandard.compress(data))


PARSERS: dict[str, Parser] = {
    "archive": Parser(
        _archive,
        (InvalidInput,),
        (_zipped(), gzip.compress(_tarred()), zstandard.compress(_tarred())),
    ),
    "tar": Parser(_packed, (InvalidInput,), (_tarred(),)),
    "document": Parser(_document, (InvalidInput,), (b'{"a": [1, 2.5, null, "\\u00e9"]}',)),
    "yaml": Parser(_yaml, (InvalidInput,), (b"a: &b [1, 2]\nc: *b\n? x\n: !!str y\n",)),
    "table manifest": Parser(
        lambda data: parse_table_manifest(data, path="m"),
        (InvalidInput,),
        (b'{"columns": ["a"], "primary_key": ["a"], "schema": [{"name": "a"}], "delimiter": ","}',),
    ),
    "file manifest": Parser(
        lambda data: parse_file_manifest(data, path="m"),
        (InvalidInput,),
        (b'{"tags": ["a"], "is_public": true, "is_permanent": false}',),
    ),
    "json": Parser(_json, (NotJson,), (b'{"a": [1, 1e3, "\\ud83d\\ude00"]}',)),
    "gelf": Parser(
        _gelf,
        (),
        (
            b'{"version": "1.1", "host": "h", "short_message": "m"}\0',
            zlib.compress(b'{"version": "1.1", "host": "h", "short_message": "m"}'),
            b"\x1e\x0f" + b"12345678" + b"\0\2" + b"{",
        ),
    ),
    "docker frames": Parser(_frames, (DockerError,), (struct.pack(">BxxxL", 1, 3) + b"abc",)),
    "cipher": Parser(_cipher, (UserError,), (b"AgIBA2tleQAQ" + b"A" * 64,)),
    "legacy cipher": Parser(_legacy, (), (b"A" * 128, b"def50200" + b"00" * 90)),
    "envelope": Parser(_envelope, (serialized.Malformed,), (b'a:2:{i:0;s:1:"a";i:1;s:1:"b";}',)),
    "jobs query": Parser(
        _jobs_query,
        (InvalidInput,),
        (b'status:error AND NOT (component:"a b" OR id:[1 TO 5]) createdTime:>=2024-01-01',),
    ),
    "files query": Parser(
        _files_query, (InvalidInput,), (b'tags:a AND (name:"x" OR -id:{1 TO 5]) sizeBytes:>=10',)
    ),
    "form": Parser(parse_form, (Refused,), (b"a[b][]=1&a[b][]=2&c=%20+&d[5]=x",)),
    "block list": Parser(
        _block_list,
        (Refused,),
        (b"<?xml version='1.0'?><BlockList><Latest>YQ==</Latest></BlockList>",),
    ),
    "slices": Parser(
        _slices, (Refused,), (b'{"entries": [{"url": "azure://h/container/1/a.b"}]}',)
    ),
    "range": Parser(_range, (Refused,), (b"bytes=0-5", b"bytes=-5", b"bytes=5-")),
    "moment": Parser(
        lambda data: parse_moment(_text(data)),
        (ValueError,),
        (b"-2 days", b"2024-01-31T12:00:00.5+01:00", b"1 week 3 hours ago"),
    ),
    "template": Parser(_mustache, (InvalidInput,), (b"{{a}} {{{_}}} {{#a}}x{{/a}} {{! c }}",)),
    "run id": Parser(lambda data: run_id_number(_text(data)), (), (b"123.456",)),
}
