"""Work of the published client kbcstorage, timed by who starts this.

Runs in the client's own environment: `python kbcstorage_bench.py URL TOKEN FOLDER`. Each line that it
reads is JSON, the name of a function here and its arguments; each line that it answers is what that
returned, and what failed.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any

from kbcstorage.client import Client

WORDS = "id,word\n" + "".join(f"{number},word {number}\n" for number in range(100))


class Work:
    """What is measured, in one project."""

    def __init__(self, url: str, token: str, folder: Path) -> None:
        self._url = url
        self._token = token
        self._folder = folder
        self._client = Client(url, token)

    def bucket(self, name: str) -> None:
        self._client.buckets.create(name)

    def up_and_in(self, table: str, path: str) -> dict[str, Any]:
        """Upload a file and make a table of it."""
        bucket, _, name = table.rpartition(".")
        started = time.perf_counter()
        made = self._client.tables.create(bucket, name, path)
        seconds = time.perf_counter() - started
        return {"seconds": seconds, "rows": self._client.tables.detail(made)["rowsCount"]}

    def out_and_down(self, table: str) -> dict[str, Any]:
        """Export a table into a file of Storage and download that."""
        started = time.perf_counter()
        file = self._client.tables.export(table)
        path = Path(self._client.files.download(file, str(self._folder / "down")))
        seconds = time.perf_counter() - started
        size = path.stat().st_size
        path.unlink()
        self._client.files.delete(file)
        return {"seconds": seconds, "bytes": size}

    def drop(self, table: str) -> None:
        self._client.tables.delete(table)

    def crowd(self, clients: int, name: str) -> dict[str, Any]:
        """So many clients at a time, each with a bucket of its own; what each failed with."""
        failed: list[str] = []
        begin = threading.Barrier(clients + 1)

        def one(number: int) -> None:
            client = Client(self._url, self._token)  # as if by itself: it shares no connection
            begin.wait()
            try:
                walk(client, f"{name}-{number}", self._folder)
            except Exception:  # noqa: BLE001 - counted and told
                failed.append(traceback.format_exc()[-2000:])

        threads = [threading.Thread(target=one, args=(number,)) for number in range(clients)]
        for thread in threads:
            thread.start()
        begin.wait()
        started = time.perf_counter()
        for thread in threads:
            thread.join()
        return {"seconds": time.perf_counter() - started, "failed": failed}


def walk(client: Client, name: str, folder: Path) -> None:
    """What one client does: a table made, read, loaded again, exported and dropped."""
    bucket = client.buckets.create(name)["id"]
    path = folder / f"{name}.csv"
    path.write_text(WORDS)
    table = client.tables.create(bucket, "words", str(path), primary_key=["id"])
    assert client.tables.detail(table)["rowsCount"] == 100
    assert len(client.tables.preview(table).splitlines()) == 101
    client.tables.load(table, str(path), is_incremental=True)
    job = client.jobs.block_until_completed(client.tables.export_raw(table)["id"])
    assert job["status"] == "success", job
    file = client.files.detail(job["results"]["file"]["id"], federation_token=True)
    assert file["isSliced"] is True
    client.buckets.delete(bucket, force=True)


def main(url: str, token: str, folder: str) -> None:
    os.chdir(folder)  # the client leaves slices in the working folder while it puts them together
    work = Work(url, token, Path(folder))
    for line in sys.stdin:
        name, *arguments = json.loads(line)
        answer: dict[str, Any] = {"answer": None, "failed": None}
        try:
            answer["answer"] = getattr(work, name)(*arguments)
        except Exception:  # noqa: BLE001 - told to who asked
            answer["failed"] = traceback.format_exc()
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
