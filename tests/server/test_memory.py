"""What goes through a server, in and out, is never in its memory as a whole."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.server.test_serve import serving, until

LINE = b'"%09d","' + b"x" * 385 + b'"\n'
SMALL, LARGE = 5_120, 524_288
"""Rows of 400 bytes each: 2 MB to begin with, then 200 MiB."""
STEP = 1_024
DUCKDB = 128 << 20
"""Bytes that DuckDB may take."""
ENOUGH = 192 << 20
"""Bytes by which the server may have grown then, DuckDB's among them: less than it was given."""


@pytest.mark.docker
@pytest.mark.scenario("storage-api", 86)
def test_200_mib_go_in_and_out_in_bounded_memory(tmp_path: Path, docker_host: str) -> None:
    home = tmp_path / "home"
    url = f"local://{home}/storage?memory_bytes={DUCKDB}"
    with serving(home, VAKA_STORAGE_URL=url) as server:
        headers = {"X-StorageApi-Token": server.said["token"]}
        with httpx.Client(base_url=server.url, headers=headers, timeout=60) as api:
            answered(api.post("/v2/storage/buckets", json={"name": "b"}))
            there_and_back(api, "small", SMALL)
            before = peak(server.pid)
            there_and_back(api, "large", LARGE)
            assert peak(server.pid) - before < ENOUGH


def there_and_back(api: httpx.Client, name: str, count: int) -> None:
    """Upload a file, make a table of it, export that, and download what was exported."""
    table = f"in.c-b.{name}"
    body = {"name": name, "dataFileId": upload(api, count)}
    made = ended(api, api.post("/v2/storage/buckets/in.c-b/tables-async", json=body))
    assert made["rowsCount"] == count
    exported = ended(api, api.post(f"/v2/storage/tables/{table}/export-async", json={}))
    assert download(api, exported["file"]["id"]) == count * len(LINE % 0)


def rows(count: int) -> Iterator[bytes]:
    for start in range(0, count, STEP):
        yield b"".join(LINE % number for number in range(start, start + STEP))


def upload(api: httpx.Client, count: int) -> int:
    header = b"id,text\n"
    size = len(header) + count * len(LINE % 0)
    file = answered(
        api.post(
            "/v2/storage/files/prepare",
            json={"name": "rows.csv", "sizeBytes": size, "federationToken": True},
        )
    )
    params = file["absUploadParams"]
    endpoint, query = access(params["absCredentials"])

    def content() -> Iterator[bytes]:
        yield header
        yield from rows(count)

    answered(
        api.put(
            f"{endpoint}/{params['container']}/{params['blobName']}?{query}",
            content=content(),
            headers={"x-ms-blob-type": "BlockBlob", "Content-Length": str(size)},
        )
    )
    return int(file["id"])


def download(api: httpx.Client, file_id: int) -> int:
    """How many bytes the slices of a file have."""
    file = answered(api.get(f"/v2/storage/files/{file_id}?federationToken=1"))
    _, query = access(file["absCredentials"])
    size = 0
    for entry in answered(api.get(file["url"]))["entries"]:
        url = entry["url"].replace("azure://", "http://", 1)
        with api.stream("GET", f"{url}?{query}") as answer:
            assert answer.status_code == 200
            size += sum(map(len, answer.iter_bytes()))
    return size


def access(credentials: dict[str, str]) -> tuple[str, str]:
    """The address and the signature of a connection string."""
    parts = dict(part.split("=", 1) for part in credentials["SASConnectionString"].split(";"))
    return parts["BlobEndpoint"].rstrip("/"), parts["SharedAccessSignature"]


def ended(api: httpx.Client, accepted: httpx.Response) -> Any:
    """The results of a storage job that has to succeed."""
    path = f"/v2/storage/jobs/{answered(accepted)['id']}"
    until(lambda: answered(api.get(path))["status"] in {"success", "error"})
    job = answered(api.get(path))
    assert job["status"] == "success", job["error"]
    return job["results"]


def answered(answer: httpx.Response) -> Any:
    assert answer.is_success, f"{answer.request.url}: {answer.status_code} {answer.text[:500]}"
    return answer.json() if answer.content else None


def peak(pid: int) -> int:
    """Bytes that a process has had in memory at most."""
    status = Path(f"/proc/{pid}/status").read_text()
    return 1024 * int(status.partition("VmHWM:")[2].split()[0])
