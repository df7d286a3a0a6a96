"""Memory of a server that a table goes through, in and out: `storage API memory`."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import trio
from tests.bench.measuring import Measure, temporary_folder
from tests.bench.processes import served
from tests.bench.rows import write_table

from vaka import Engine, EngineConfig
from vaka.models.catalog import Role

SMALL, LARGE = 20, 200
MEMORY_BYTES = 128 << 20
"""What DuckDB is allowed: less than the large file."""
ROOT = "/v2/storage"
CHUNK = 1 << 20
JOB_TIMEOUT = 120.0


async def measure() -> list[Measure]:
    """`storage API memory`: peak growth of `vaka serve` while 200 MB go in and out, in MB.

    As Storage's clients do it: the file is prepared and sent as a blob, a table is made of it, exported
    to a file, and its slices are fetched; all rows must be there. Growth is the highest resident size
    less that of the server before the first request. The reference is the growth with 20 MB plus
    DuckDB's limit of 128 MiB, as in `memory`.
    """
    grown = {}
    with temporary_folder() as folder:
        for megabytes in (SMALL, LARGE):
            home = folder / str(megabytes)
            await trio.Path(home).mkdir()
            rows = await trio.to_thread.run_sync(write_table, home / "table.csv", megabytes)
            token = await _token(home)
            grown[megabytes] = await trio.to_thread.run_sync(partial(_grow, home, token, rows))
    ours, reference = grown[LARGE] / 1e6, (grown[SMALL] + MEMORY_BYTES) / 1e6
    return [
        Measure(
            "storage API memory",
            ours,
            reference,
            "MB",
            ours / reference,
            "<= growth with a tenth of the file + DuckDB's limit",
            ours <= reference,
            (f"growth with {SMALL} MB: {grown[SMALL] / 1e6:.0f} MB",),
        )
    ]


async def _token(home: Path) -> str:
    """The secret of a token of a new home."""
    async with Engine(EngineConfig(home=home, worker=False)) as engine:
        project = (await engine.catalog.create_project("Bench")).id
        _, secret = await engine.catalog.create_token(project, "bench", Role.ADMIN)
    return secret


def _grow(home: Path, token: str, rows: int) -> int:
    """Bytes by which a server grew at most over a table of so many rows."""
    storage = f"local://{home}/storage?memory_bytes={MEMORY_BYTES}"
    with served(home, home / "log", storage_url=storage) as (pid, port):
        headers = {"X-StorageApi-Token": token}
        base = f"http://127.0.0.1:{port}"
        before = _resident(pid, "VmRSS")
        with httpx.Client(base_url=base, headers=headers, timeout=JOB_TIMEOUT) as client:
            file = _upload(client, home / "table.csv")
            _json(client.post(f"{ROOT}/buckets", json={"name": "bench"}))
            made = client.post(
                f"{ROOT}/buckets/in.c-bench/tables-async", json={"name": "t", "dataFileId": file}
            )
            loaded = _results(client, made)["rowsCount"]
            exported = _results(
                client, client.post(f"{ROOT}/tables/in.c-bench.t/export-async", json={})
            )
            fetched = _lines(client, exported["file"]["id"])
        if not loaded == fetched == rows:
            raise SystemExit(f"{rows} rows were sent, {loaded} loaded, and {fetched} came back")
        return _resident(pid, "VmHWM") - before


def _upload(client: httpx.Client, path: Path) -> int:
    """The id of a file that was sent as clients send it."""
    fields = {"name": path.name, "sizeBytes": path.stat().st_size, "federationToken": True}
    file = _json(client.post(f"{ROOT}/files/prepare", json=fields))
    params = file["absUploadParams"]
    endpoint, query = _access(params["absCredentials"]["SASConnectionString"])
    sent = client.put(
        f"{endpoint}/{params['container']}/{params['blobName']}?{query}",
        content=_chunks(path),
        headers={"x-ms-blob-type": "BlockBlob", "Content-Length": str(path.stat().st_size)},
    )
    sent.raise_for_status()
    return int(file["id"])


def _lines(client: httpx.Client, file_id: int) -> int:
    """How many lines the slices of a file have."""
    file = _json(client.get(f"{ROOT}/files/{file_id}?federationToken=1"))
    _, query = _access(file["absCredentials"]["SASConnectionString"])
    manifest = _json(client.get(file["url"]))
    count = 0
    for entry in manifest["entries"]:
        url = entry["url"].replace("azure://", "http://", 1)
        with client.stream("GET", f"{url}?{query}") as answer:
            answer.raise_for_status()
            count += sum(part.count(b"\n") for part in answer.iter_bytes(CHUNK))
    return count


def _access(text: str) -> tuple[str, str]:
    """The address and the signature of a connection string."""
    parts = dict(part.split("=", 1) for part in text.split(";"))
    return parts["BlobEndpoint"].rstrip("/"), parts["SharedAccessSignature"]


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as source:
        while chunk := source.read(CHUNK):
            yield chunk


def _results(client: httpx.Client, accepted: httpx.Response) -> Any:
    """The results of a storage job that has to succeed."""
    job = _json(accepted)
    deadline = time.monotonic() + JOB_TIMEOUT
    while job["status"] not in {"success", "error"}:
        if time.monotonic() > deadline:
            raise SystemExit(f"a storage job does not end: {job}")
        time.sleep(0.1)
        job = _json(client.get(f"{ROOT}/jobs/{job['id']}"))
    if job["status"] == "error":
        raise SystemExit(f"a storage job failed: {json.dumps(job['error'])}")
    return job["results"]


def _json(answer: httpx.Response) -> Any:
    if answer.is_error:
        raise SystemExit(f"{answer.request.url}: {answer.status_code} {answer.text[:500]}")
    return answer.json()


def _resident(pid: int, name: str) -> int:
    """Bytes of memory of a process: `VmRSS` now, `VmHWM` at its peak."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise SystemExit(f"the kernel does not tell {name} of process {pid}")
