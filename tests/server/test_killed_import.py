"""A server is killed while it imports a file: the table is as before or as after, never between."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.server.test_serve import serving, until

ROWS = 2_000_000
"""Enough for an import to take much longer than noticing that it has begun."""
TABLE = "in.c-main.numbers"


@pytest.mark.docker
@pytest.mark.scenario("storage-api", 48)
@pytest.mark.parametrize("incremental", [False, True])
def test_an_import_whose_server_is_killed_is_done_once(
    tmp_path: Path, docker_host: str, incremental: bool
) -> None:
    home = tmp_path / "home"
    with serving(home) as server, client(server.url, server.said["token"]) as api:
        token = server.said["token"]
        api.post("/v2/storage/buckets", json={"name": "main", "stage": "in"}).raise_for_status()
        small = upload(api, b"id,v\nold,1\n")
        body = {"name": "numbers", "dataFileId": small}
        made = api.post("/v2/storage/buckets/in.c-main/tables-async", json=body)
        until(lambda: job(api, made.json()["id"])["status"] == "success")
        large = upload(api, b"id,v\n" + b"".join(b"%d,x\n" % n for n in range(ROWS)))
        body = {"dataFileId": large, "incremental": incremental}
        submitted = api.post(f"/v2/storage/tables/{TABLE}/import-async", json=body)
        assert submitted.status_code == 202
        job_id = submitted.json()["id"]
        until(lambda: status_now(api, job_id) != "waiting")
        before = status_now(api, job_id)
        server.end()
    assert before == "processing"

    with serving(home) as server, client(server.url, token) as api:
        until(lambda: job(api, job_id)["status"] in {"success", "error"})
        ended = job(api, job_id)
        table = api.get(f"/v2/storage/tables/{TABLE}").json()

    assert ended["status"] == "success", ended
    assert ended["results"]["importedRowsCount"] == ROWS
    assert table["rowsCount"] == ROWS + incremental


def client(url: str, token: str) -> httpx.Client:
    return httpx.Client(base_url=url, headers={"X-StorageApi-Token": token}, timeout=60)


def upload(api: httpx.Client, content: bytes) -> int:
    answer = api.post("/vaka/files?name=numbers.csv", content=content)
    assert answer.status_code == 201, answer.text
    return int(answer.json()["id"])


def job(api: httpx.Client, job_id: int) -> Any:
    answer = api.get(f"/v2/storage/jobs/{job_id}")
    assert answer.status_code == 200, answer.text
    return answer.json()


def status_now(api: httpx.Client, job_id: int) -> str:
    """A job's status without waiting for its end, as the job's own resource does for a while."""
    listed = api.get("/v2/storage/jobs").json()
    return next(str(each["status"]) for each in listed if each["id"] == job_id)
