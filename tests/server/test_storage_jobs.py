"""Storage jobs over HTTP."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest
import trio
from tests.server.conftest import Site

from vaka.models.operation import Done, NewOperation, Operation
from vaka.models.storage import FileUpload, StorageScope
from vaka.operations import HANDLERS, Handler, Work
from vaka_server.routes import storage as routes

TABLE = "in.c-main.users"
SCOPE = StorageScope("1")
KEYS = [
    *("id", "status", "url", "tableId", "operationName", "operationParams", "createdTime"),
    *("startTime", "endTime", "runId", "results", "creatorToken", "metrics"),
]


class Jobs:
    def __init__(self, site: Site, folder: Path) -> None:
        self.site = site
        self._file = folder / "users.csv"

    async def submit(self, content: str, kind: str = "tableImport", **options: Any) -> Operation:
        self._file.write_text(content)
        upload = FileUpload("users.csv")
        stored = await self.site.engine.storage.files.upload(SCOPE, upload, self._file)
        params = {
            "source": {"type": "file", "fileId": stored.id},
            "params": {"incremental": False, "delimiter": ","},
        }
        new = NewOperation("1", kind, params, table_id=TABLE, **options)
        return await self.site.engine.operations.submit(new)

    async def done(self, content: str, kind: str = "tableImport", **options: Any) -> Any:
        """The document of a job that has ended."""
        submitted = await self.submit(content, kind, **options)
        await self.site.engine.operations.wait(submitted.id)
        return await self.site.get(f"/v2/storage/jobs/{submitted.id}")


@pytest.fixture
async def jobs(site: Site, tmp_path: Path) -> Jobs:
    await site.engine.storage.tables.create_bucket(SCOPE, "in", "main")
    return Jobs(site, tmp_path)


@pytest.mark.scenario("storage-api", 44)
async def test_a_job_has_these_members(jobs: Jobs) -> None:
    document = await jobs.done(
        "id,name\n1,a\n", "tableCreate", token_id="44", token_description="me", run_id="7.8"
    )

    assert list(document) == KEYS
    assert isinstance(document["id"], int)
    path = f"/v2/storage/jobs/{document['id']}"
    assert document["url"].endswith(path)
    assert await jobs.site.get(f"{path}/") == document
    assert document["status"] == "success"
    assert document["tableId"] == TABLE
    assert document["operationName"] == "tableCreate"
    assert document["operationParams"]["source"]["type"] == "file"
    assert document["creatorToken"] == {"id": "44", "description": "me"}
    assert document["runId"] == "7.8"
    assert document["metrics"] == {
        "inCompressed": False,
        "inBytes": 12,
        "inBytesUncompressed": 12,
        "outCompressed": False,
        "outBytes": 0,
        "outBytesUncompressed": 0,
    }
    table = await jobs.site.get(f"/v2/storage/tables/{TABLE}")
    assert document["results"]["id"] == TABLE
    assert document["results"]["rowsCount"] == 1
    assert document["results"].keys() >= table.keys() - {"metadata"}


@pytest.mark.scenario("storage-api", 45)
async def test_a_failed_job_says_why(jobs: Jobs) -> None:
    document = await jobs.done("id,name\n1,a\n")

    assert list(document) == [*KEYS, "error"]
    assert (document["status"], document["results"]) == ("error", None)
    error = document["error"]
    assert error["code"] == "storage.tables.notFound"
    assert "users" in error["message"]
    assert isinstance(error["exceptionId"], str)


@pytest.mark.scenario("storage-api", 46)
@pytest.mark.parametrize("job_id", ["4711", "nothing", "1e3", "99999999999999999999", "-1"])
async def test_an_unknown_job_is_not_found(site: Site, job_id: str) -> None:
    answer = await site.ask("GET", f"/v2/storage/jobs/{job_id}")

    assert answer.status == 404
    assert answer.value["code"] == "storage.jobs.notFound"
    assert answer.value["error"] == f"Job {job_id} not found"


async def test_a_job_of_another_project_is_not_found(jobs: Jobs) -> None:
    document = await jobs.done("id\n1\n")

    answer = await jobs.site.ask("GET", f"/v2/storage/jobs/{document['id']}", token="other")

    assert answer.status == 404
    assert await jobs.site.get("/v2/storage/jobs", token="other") == []


@pytest.mark.scenario("storage-api", 49)
async def test_the_list_is_newest_first_and_its_pages_do_not_overlap(jobs: Jobs) -> None:
    made = [(await jobs.done("id\n1\n"))["id"] for _ in range(5)]

    async def listed(query: str) -> list[int]:
        return [each["id"] for each in await jobs.site.get(f"/v2/storage/jobs?{query}")]

    assert await listed("") == made[::-1]
    pages = [await listed(f"limit=2&offset={offset}") for offset in (0, 2, 4, 6)]
    assert pages == [made[:2:-1], made[2:0:-1], made[:1], []]
    assert await listed("storage_job_status=error&limit=1") == made[-1:]
    assert await listed("storage_job_status=success") == []
    assert await listed("storage_job_status=nonsense") == []
    assert await listed(f"tableId={TABLE}&operationName=tableImport") == made[::-1]
    assert await listed("tableId=in.c-main.other") == []
    assert await listed("created_time_from=-1%20hour") == made[::-1]
    assert await listed("created_time_to=-1%20hour") == []


async def test_a_token_of_some_buckets_sees_its_own_jobs(jobs: Jobs) -> None:
    catalog = jobs.site.engine.catalog
    role = type((await catalog.tokens("1"))[0].role).ADMIN
    token, secret = await catalog.create_token(
        "1", "limited", role, bucket_permissions={"in.c-main": "read"}
    )
    theirs = await jobs.done("id\n1\n")
    own = await jobs.done("id\n1\n", token_id=token.id)

    listed = await jobs.site.get("/v2/storage/jobs", token=secret)

    assert [each["id"] for each in listed] == [own["id"]]
    assert (
        await jobs.site.ask("GET", f"/v2/storage/jobs/{theirs['id']}", token=secret)
    ).status == 404
    assert await jobs.site.get(f"/v2/storage/jobs/{own['id']}", token=secret) == own


async def test_who_asks_for_a_job_under_way_is_answered_at_its_end(
    jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_end = trio.Event()

    async def held(_: Work) -> Done:
        await may_end.wait()
        return Done({"deletedRows": 3})

    monkeypatch.setitem(cast("dict[str, Handler]", HANDLERS), "tableRowsDelete", held)
    submitted = await jobs.submit("id\n1\n", "tableRowsDelete")
    assert not submitted.status.is_finished
    path = f"/v2/storage/jobs/{submitted.id}"
    operations, waiting, answers = jobs.site.engine.operations, trio.Event(), list[Any]()
    wait = operations.wait

    async def waits(operation_id: int) -> Operation:
        waiting.set()
        return await wait(operation_id)

    async def ask() -> None:
        answers.append(await jobs.site.get(path))

    monkeypatch.setattr(routes.jobs, "PATIENCE", 0.0)
    assert (await jobs.site.get(path))["status"] == "processing"
    monkeypatch.setattr(operations, "wait", waits)
    monkeypatch.setattr(routes.jobs, "PATIENCE", 60.0)
    with trio.fail_after(50):  # below that, so it was the job's end that was waited for
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await waiting.wait()
            may_end.set()
    assert (answers[0]["status"], answers[0]["results"]) == ("success", {"deletedRows": 3})
