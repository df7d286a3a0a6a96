"""Buckets and tables in the hands of a test that speaks plain HTTP."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from uuid import uuid4

from tests.server.conftest import Answer, Site

from vaka.models.storage import FileUpload, StorageScope
from vaka_server import documents

ROOT = "/v2/storage"
SCOPE = StorageScope("1")
TABLE = "in.c-b.t"


@dataclass
class Warehouse:
    """A site's Storage, asked as clients ask: forms, JSON, and jobs that are waited for."""

    site: Site
    folder: Path

    async def ask(self, method: str, path: str, body: Any = None, **options: Any) -> Answer:
        """One request with a JSON body, or none."""
        return await self.site.ask(method, ROOT + path, body, **options)

    async def form(
        self,
        method: str,
        path: str,
        fields: Mapping[str, Any] | Sequence[tuple[str, Any]],
        **options: Any,
    ) -> Answer:
        """One request with a form as its body."""
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        data = urlencode(fields).encode()
        return await self.ask(method, path, data=data, headers=headers, **options)

    async def multipart(self, path: str, fields: Mapping[str, str], file: bytes) -> Answer:
        """One request with a file named `data`."""
        edge = uuid4().hex
        parts = [
            f'--{edge}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
            for name, value in fields.items()
        ]
        head = f'--{edge}\r\nContent-Disposition: form-data; name="data"; filename="t.csv"\r\n\r\n'
        body = b"".join([*parts, head.encode(), file, f"\r\n--{edge}--\r\n".encode()])
        headers = {"Content-Type": f"multipart/form-data; boundary={edge}"}
        return await self.ask("POST", path, data=body, headers=headers)

    async def get(self, path: str) -> Any:
        """The document at a path; fails unless it is there."""
        return await self.site.get(ROOT + path)

    async def job(self, answer: Answer) -> Any:
        """The storage job that an answer is about, once it has ended."""
        assert answer.status == 202, answer
        record = await self.site.engine.operations.wait(answer.value["id"])
        backend = self.site.engine.storage.backend_name
        return documents.storage_job(record, "http://localhost", backend=backend)

    async def done(self, answer: Answer) -> Any:
        """The results of a job that has to succeed."""
        job = await self.job(answer)
        assert job["status"] == "success", job
        return job["results"]

    async def failed(self, answer: Answer) -> tuple[str, str]:
        """The code and the message of a job that has to fail."""
        job = await self.job(answer)
        assert (job["status"], job["results"]) == ("error", None), job
        return job["error"]["code"], job["error"]["message"]

    # -- what tests do again and again -----------------------------------------------------------

    async def bucket(self, name: str = "b") -> None:
        """A new bucket of the stage `in`."""
        made = await self.ask("POST", "/buckets", {"name": name})
        assert made.status == 201, made

    async def file(self, *contents: str | bytes, sliced: bool = False) -> int:
        """The id of a new file of this content."""
        paths = []
        for content in contents:
            path = self.folder / uuid4().hex
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
            paths.append(path)
        files = self.site.engine.storage.files
        upload = FileUpload("t.csv", is_sliced=sliced)
        return (await files.upload(SCOPE, upload, paths if sliced else paths[0])).id

    async def create(self, content: str | bytes, name: str = "t", **fields: Any) -> Answer:
        """The answer to the creation of a table in `in.c-b` from a file of this content."""
        body = {"name": name, "dataFileId": await self.file(content), **fields}
        return await self.ask("POST", "/buckets/in.c-b/tables-async", body)

    async def table(self, content: str | bytes, name: str = "t", **fields: Any) -> Any:
        """A new table in `in.c-b`, which is made when it is missing."""
        if (await self.ask("GET", "/buckets/in.c-b")).status == 404:
            await self.bucket()
        return await self.done(await self.create(content, name, **fields))

    async def load(self, content: str | bytes, table: str = TABLE, **fields: Any) -> Answer:
        """The answer to an import of a file of this content."""
        body = {"dataFileId": await self.file(content), **fields}
        return await self.ask("POST", f"/tables/{table}/import-async", body)

    async def rows(self, table: str = TABLE, query: str = "") -> list[str]:
        """The lines of a preview: the header, and the others sorted."""
        answer = await self.ask("GET", f"/tables/{table}/data-preview?limit=1000&{query}")
        assert answer.status == 200, answer
        header, *rows = answer.value.decode().removesuffix("\n").split("\n")
        return [header, *sorted(rows)]


def refused(answer: Answer) -> tuple[int, str]:
    """Status and code of an error."""
    return answer.status, answer.value["code"]
