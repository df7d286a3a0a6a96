"""Operations on Storage: done in order, at once where they may be, and again after a crash."""

from __future__ import annotations

import gzip
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trio
from tests.engine.conftest import MakeEngine
from trio.testing import MockClock

from vaka import Engine, operations
from vaka.actors.operations import INTERNAL, MOST_ATTEMPTS
from vaka.errors import Conflict, NotFound, UnderMaintenance
from vaka.models.operation import (
    Done,
    NewOperation,
    Operation,
    OperationQuery,
    OperationStatus,
    Transfer,
)
from vaka.models.storage import ExportOptions, FileUpload, StorageScope
from vaka.operations import Work
from vaka.store import JobStore, Owner

TABLE = "in.c-main.users"
USERS = '"id","name"\n"1","a"\n"2","b"\n'
SCOPE = StorageScope("1", run_id="7", token_id="44", token_description="me")


class Bench:
    """An engine with one bucket, and how operations are asked of it."""

    def __init__(self, engine: Engine, folder: Path) -> None:
        self.engine = engine
        self.tables = engine.storage.tables
        self.files = engine.storage.files
        self._folder = folder
        self._count = 0

    async def file(self, *contents: str | bytes, name: str = "users.csv") -> int:
        """The id of a new file; of several contents, a sliced one."""
        paths = []
        for content in contents:
            self._count += 1
            path = self._folder / f"content-{self._count}"
            path.write_bytes(content.encode() if isinstance(content, str) else content)
            paths.append(path)
        upload = FileUpload(name=name, is_sliced=len(paths) != 1)
        stored = await self.files.upload(SCOPE, upload, paths if upload.is_sliced else paths[0])
        return stored.id

    async def submit(self, kind: str, params: Any, **options: Any) -> Operation:
        options.setdefault("table_id", TABLE)
        return await self.engine.operations.submit(
            NewOperation(
                "1",
                kind,
                params,
                run_id=SCOPE.run_id,
                token_id=SCOPE.token_id,
                token_description=SCOPE.token_description,
                **options,
            )
        )

    async def done(self, kind: str, params: Any, **options: Any) -> Operation:
        """An operation that has ended."""
        submitted = await self.submit(kind, params, **options)
        return await self.engine.operations.wait(submitted.id)

    async def load(
        self, *contents: str | bytes, kind: str = "tableImport", **params: Any
    ) -> Operation:
        source = {"type": "file", "fileId": await self.file(*contents)}
        return await self.done(kind, {"source": source, "params": params})

    async def create(self, *contents: str | bytes, **params: Any) -> Operation:
        return await self.load(*contents, kind="tableCreate", **params)

    async def rows(self, table_id: str = TABLE) -> tuple[tuple[str, ...], list[Any]]:
        columns, rows = await self.tables.preview(SCOPE, table_id, ExportOptions())
        return columns, sorted(rows)


@pytest.fixture
async def bench(make_engine: MakeEngine, tmp_path: Path) -> AsyncIterator[Bench]:
    async with make_engine() as engine:
        bench = Bench(engine, tmp_path)
        await bench.tables.create_bucket(SCOPE, "in", "main")
        yield bench


def failed(operation: Operation) -> tuple[str, str]:
    """Code and message of a failed operation."""
    assert operation.status is OperationStatus.ERROR, operation
    assert operation.results is None
    assert operation.error is not None
    assert operation.error.exception_id
    return operation.error.code, operation.error.message


def value(operation: Operation) -> Any:
    """What a successful operation shows."""
    assert operation.status is OperationStatus.SUCCESS, operation
    assert operation.error is None
    assert operation.results is not None
    return operation.results.value


# -- what they do --------------------------------------------------------------------------------


async def test_a_table_is_made_of_a_file(bench: Bench) -> None:
    made = await bench.create(USERS, primaryKey="id")

    assert made.status is OperationStatus.SUCCESS
    assert made.results is not None
    table, bucket = made.results.table, made.results.bucket
    assert table is not None
    assert bucket is not None
    assert (table.id, table.columns, table.primary_key) == (TABLE, ("id", "name"), ("id",))
    assert (table.rows_count, bucket.id) == (2, "in.c-main")
    assert table == await bench.tables.table(SCOPE, TABLE)
    assert made.results.transfer == Transfer(in_bytes=len(USERS))
    assert await bench.rows() == (("id", "name"), [("1", "a"), ("2", "b")])
    assert (made.run_id, made.token_id, made.token_description) == ("7", "44", "me")


async def test_a_table_that_is_there_is_not_made_again(bench: Bench) -> None:
    await bench.create(USERS)

    code, message = failed(await bench.create("x\n1\n"))

    assert code == "storage.tables.alreadyExists"
    assert TABLE in message
    assert (await bench.rows())[0] == ("id", "name")


async def test_a_table_whose_rows_cannot_be_loaded_does_not_remain(bench: Bench) -> None:
    failed(await bench.create("id,name\n1\n1,2,3\n"))

    assert await bench.tables.list_tables(SCOPE) == []


async def test_a_table_is_not_made_in_a_bucket_that_is_gone(bench: Bench) -> None:
    submitted = await bench.submit(
        "tableCreate",
        {"source": {"type": "file", "fileId": await bench.file(USERS)}, "params": {}},
        table_id="in.c-gone.users",
    )

    code, _ = failed(await bench.engine.operations.wait(submitted.id))
    assert code == "storage.buckets.notFound"
    assert [each.id for each in await bench.tables.list_buckets(SCOPE)] == ["in.c-main"]


async def test_an_import_tells_what_it_did(bench: Bench) -> None:
    await bench.create(USERS, primaryKey=["id"])

    added = await bench.load("id,name,x\n2,c,1\n3,d,2\n", incremental=True)

    assert value(added) == {
        "transaction": None,
        "warnings": [],
        "importedColumns": ["id", "name", "x"],
        "newColumns": ["x"],
        "totalRowsCount": 3,
        "importedRowsCount": 2,
        "totalDataSizeBytes": (await bench.tables.table(SCOPE, TABLE)).data_size_bytes,
        "timers": [],
    }
    assert await bench.rows() == (
        ("id", "name", "x"),
        [("1", "a", ""), ("2", "c", "1"), ("3", "d", "2")],
    )
    replaced = await bench.load("id,name,x\n9,z,\n")
    assert value(replaced)["totalRowsCount"] == 1


@pytest.mark.parametrize(
    ("contents", "params"),
    [
        ((USERS,), {}),
        ((gzip.compress(USERS.encode()),), {}),
        (("1,a\n2,b\n",), {"withoutHeaders": True}),
        (("a,1\nb,2\n",), {"columns": ["name", "id"]}),
        (("a,1\nb,2\n",), {"columns": "name,id"}),
        (("#\nid,name\n1,a\n2,b\n",), {"ignoredLinesCount": 1}),
        (("id;name\n1;a\n2;b\n",), {"delimiter": ";"}),
        (("id\tname\n1\ta\n2\tb\n",), {"delimiter": "\\t"}),
        (("id,name\n1,'a'\n2,b\n",), {"enclosure": "'"}),
        (("id,name\n1,\\a\n2,b\n",), {"escapedBy": "\\"}),
        (("1,a\n", "2,b\n"), {}),
        ((gzip.compress(b"1,a\n"), gzip.compress(b"2,b\n")), {}),
        (("b,2\n", "a,1\n"), {"columns": ["name", "id"]}),
    ],
)
async def test_a_file_comes_in_many_forms(bench: Bench, contents: Any, params: Any) -> None:
    await bench.create("id,name\n8,y\n")

    imported = await bench.load(*contents, **params)

    assert value(imported)["importedRowsCount"] == 2
    assert await bench.rows() == (("id", "name"), [("1", "a"), ("2", "b")])
    packed = isinstance(contents[0], bytes)
    assert imported.results is not None
    assert imported.results.transfer.in_compressed is packed


async def test_a_new_table_of_slices_has_the_columns_that_are_named(bench: Bench) -> None:
    code, _ = failed(await bench.create("1,a\n", "2,b\n"))
    assert code == "storage.tables.validation.noColumns"

    await bench.create("1,a\n", "2,b\n", columns=["id", "name"])

    assert await bench.rows() == (("id", "name"), [("1", "a"), ("2", "b")])


async def test_a_failed_import_says_why_and_changes_nothing(bench: Bench) -> None:
    await bench.create(USERS)

    _, message = failed(await bench.load("id,other\n1,2\n"))

    assert message == (
        "Some columns are missing in the csv file. Missing columns: name. Expected columns: "
        'id,name,other. Please check if the expected delimiter "," is used in the csv file.'
    )
    missing = {"source": {"type": "file", "fileId": 4711}, "params": {}}
    assert failed(await bench.done("tableImport", missing))[0] == "storage.files.notFound"
    assert await bench.rows() == (("id", "name"), [("1", "a"), ("2", "b")])
    await bench.done("tableDrop", {})
    assert failed(await bench.load(USERS))[0] == "storage.tables.notFound"


async def exported(bench: Bench, operation: Operation, folder: Path) -> str:
    """The slices of an export, one after the other."""
    detail = await bench.files.download(SCOPE, value(operation)["file"]["id"], folder)
    return b"".join((folder / name).read_bytes() for name in detail.slices).decode()


async def test_an_export_is_slices_without_a_header(bench: Bench, tmp_path: Path) -> None:
    await bench.create('id,name\n1,a\n2,"b ""x"""\n3,c\n')

    made = await bench.done(
        "tableExport",
        {
            "columns": ["name", "id"],
            "whereColumn": "id",
            "whereValues": ["1"],
            "whereOperator": "neq",
            "whereFilters": [{"column": "name", "operator": "ne", "values": ["c", "d"]}],
            "format": "rfc",
        },
    )

    assert value(made)["cacheHit"] is False
    assert await exported(bench, made, tmp_path / "one") == '"b ""x""","2"\n'
    file = await bench.files.file(SCOPE, value(made)["file"]["id"])
    assert (file.name, file.is_sliced, file.tags) == ("in.c-main.users.csv", True, ())
    assert (file.run_id, file.creator_token_id) == ("7", "44")
    packed = await bench.done(
        "tableExport", {"gzip": True, "orderBy": [{"column": "id", "order": "desc"}]}
    )
    file = await bench.files.download(SCOPE, value(packed)["file"]["id"], tmp_path / "two")
    assert file.name == "in.c-main.users.csv.gz"
    assert [name.endswith(".csv.gz") for name in file.slices] == [True]
    text = gzip.decompress(b"".join((tmp_path / "two" / name).read_bytes() for name in file.slices))
    assert text == b'"3","c"\n"2","b ""x"""\n"1","a"\n'
    assert packed.results is not None
    assert packed.results.transfer == Transfer(out_compressed=True, out_bytes=file.size_bytes)


async def test_a_large_export_has_slices_of_whole_rows(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operations.tables, "SLICE_BYTES", 1 << 20)
    rows = [f'"{number}","word {number}\nand more"\n' for number in range(200_000)]
    await bench.create('"id","name"\n' + "".join(rows))

    made = await bench.done("tableExport", {})

    file = await bench.files.download(SCOPE, value(made)["file"]["id"], tmp_path / "down")
    assert len(file.slices) > 3
    found: list[str] = []
    for name in file.slices:
        text = (tmp_path / "down" / name).read_text()
        assert len(text) < 4 << 20
        found += [f'{row}"\n' for row in text.split('more"\n')[:-1]]
    assert sorted(found) == sorted(row.replace('more"', '"') for row in rows)
    nothing = {"whereColumn": "id", "whereValues": ["none"]}
    assert await exported(bench, await bench.done("tableExport", nothing), tmp_path / "no") == ""


async def test_an_empty_table_exports_one_empty_slice(bench: Bench, tmp_path: Path) -> None:
    await bench.create("id,name\n")

    made = await bench.done("tableExport", {})

    assert await exported(bench, made, tmp_path / "one") == ""
    assert len((await bench.files.file(SCOPE, value(made)["file"]["id"])).slices) == 1


async def test_an_export_of_what_has_not_changed_is_the_file_that_is_there(bench: Bench) -> None:
    await bench.create(USERS)
    first = value(await bench.done("tableExport", {"gzip": True}))["file"]["id"]

    async def again(params: Any) -> Any:
        return value(await bench.done("tableExport", params))

    assert await again({"gzip": True}) == {"file": {"id": first}, "cacheHit": True}
    assert await again({"gzip": True}) == {"file": {"id": first}, "cacheHit": True}
    for other in ({"gzip": False}, {"gzip": True, "limit": 1}, {"gzip": True, "columns": "id"}):
        assert (await again(other))["cacheHit"] is False
    await bench.load(USERS)
    second = await again({"gzip": True})
    assert second["cacheHit"] is False
    await bench.files.delete(SCOPE, second["file"]["id"])
    assert (await again({"gzip": True}))["cacheHit"] is False


async def test_tables_and_buckets_are_dropped(bench: Bench) -> None:
    await bench.create(USERS)
    bucket: dict[str, Any] = {"table_id": None, "bucket_id": "in.c-main"}

    code, message = failed(await bench.done("bucketDelete", {"bucketId": "in.c-main"}, **bucket))
    assert code == "buckets.deleteNotEmpty"
    assert "There are 1 tables" in message
    assert value(await bench.done("tableDrop", {})) is None
    assert failed(await bench.done("tableDrop", {}))[0] == "storage.tables.notFound"
    await bench.create(USERS)
    forced = {"bucketId": "in.c-main", "force": True}
    assert value(await bench.done("bucketDelete", forced, **bucket)) is None
    assert await bench.tables.list_buckets(SCOPE) == []
    assert (
        failed(await bench.done("bucketDelete", forced, **bucket))[0] == "storage.buckets.notFound"
    )


# -- when they do it -----------------------------------------------------------------------------


class Gate:
    """A handler that tells when it begins, and ends when it may."""

    def __init__(self) -> None:
        self.begun: list[int] = []
        self.open = trio.Event()
        self.act: Callable[[Work], Awaitable[Done]] | None = None

    async def __call__(self, work: Work) -> Done:
        self.begun.append(work.operation.id)
        await self.open.wait()
        return await self.act(work) if self.act else Done()


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Gate:
    gate = Gate()
    monkeypatch.setattr("vaka.actors.operations.HANDLERS", {**operations.HANDLERS, "gated": gate})
    return gate


async def until_blocked() -> None:
    """Let everything happen that happens by itself."""
    await trio.sleep(1)


async def test_a_small_operation_has_ended_when_its_submitter_is_answered(
    clock: MockClock, bench: Bench, gate: Gate
) -> None:
    gate.open.set()

    made = await bench.submit("gated", {})

    assert made.status is OperationStatus.SUCCESS


@pytest.mark.scenario("storage-api", 44)
async def test_a_long_one_is_answered_for_while_it_goes_on(
    clock: MockClock, bench: Bench, gate: Gate
) -> None:
    submitted = await bench.submit("gated", {})

    assert submitted.status in {OperationStatus.WAITING, OperationStatus.PROCESSING}
    gate.open.set()
    ended = await bench.engine.operations.wait(submitted.id)
    assert ended.status is OperationStatus.SUCCESS
    with pytest.raises(NotFound):
        await bench.engine.operations.operation(submitted.id, project="2")
    listed = await bench.engine.operations.operations(OperationQuery("1"))
    assert [each.id for each in listed] == [submitted.id]


@pytest.mark.scenario("storage-api", 47)
async def test_one_table_is_loaded_in_order_and_ten_at_once(
    clock: MockClock, bench: Bench, gate: Gate
) -> None:
    same = [(await bench.submit("gated", {})).id for _ in range(10)]
    await until_blocked()
    assert gate.begun == same[:1]
    gate.open.set()
    for each in same:
        await bench.engine.operations.wait(each)
    assert gate.begun == same

    gate.open = trio.Event()
    gate.begun.clear()
    count = bench.engine.config.operation_concurrency
    others = [
        (await bench.submit("gated", {}, table_id=f"in.c-main.t{number}")).id
        for number in range(count + 2)
    ]
    await until_blocked()
    assert gate.begun == others[:count]
    gate.open.set()
    for each in others:
        await bench.engine.operations.wait(each)
    assert sorted(gate.begun) == others


async def test_no_more_than_a_projects_limit_are_done_at_a_time(
    clock: MockClock, bench: Bench, gate: Gate
) -> None:
    catalog = bench.engine.catalog
    (project,) = await catalog.projects()
    await catalog.update_project(project.id, limits={"storage.jobsParallelism": 2})
    made = [
        (await bench.submit("gated", {}, table_id=f"in.c-main.t{number}")).id for number in range(5)
    ]
    await until_blocked()
    assert gate.begun == made[:2]
    gate.open.set()
    for each in made:
        await bench.engine.operations.wait(each)
    assert sorted(gate.begun) == made  # those that are claimed together begin in any order


async def test_imports_into_one_table_leave_the_last_one(bench: Bench) -> None:
    await bench.create(USERS)
    files = [await bench.file(f"id,name\n{number},x\n") for number in range(10)]
    submitted = [
        await bench.submit("tableImport", {"source": {"fileId": file}, "params": {}})
        for file in files
    ]

    for each in submitted:
        value(await bench.engine.operations.wait(each.id))

    assert await bench.rows() == (("id", "name"), [("9", "x")])


async def test_a_bug_is_told_to_the_log_only(
    clock: MockClock, bench: Bench, gate: Gate, caplog: pytest.LogCaptureFixture
) -> None:
    async def break_down(work: Work) -> Done:
        raise RuntimeError("secret words")

    gate.act = break_down
    gate.open.set()

    ended = await bench.done("gated", {})

    assert failed(ended) == ("internal", INTERNAL)
    (record,) = (each for each in caplog.records if each.getMessage() == "operation.failed")
    assert ended.error is not None
    assert record.exception_id == ended.error.exception_id  # type: ignore[attr-defined]
    assert "secret words" in caplog.text


async def test_an_operation_without_end_fails_at_its_deadline(
    clock: MockClock, make_engine: MakeEngine, tmp_path: Path, gate: Gate
) -> None:
    async with make_engine(operation_timeout=100) as engine:
        bench = Bench(engine, tmp_path)
        begun = trio.current_time()

        code, message = failed(await bench.done("gated", {}))

        assert code == "storage.timeout"
        assert "100 seconds" in message
        assert trio.current_time() - begun >= 100
        assert list((tmp_path / "home" / "operations").iterdir()) == []


async def test_while_storage_is_closed_operations_wait(
    clock: MockClock, bench: Bench, gate: Gate
) -> None:
    closed = [True]

    async def maybe(work: Work) -> Done:
        if closed[0]:
            raise UnderMaintenance("back soon", retry_after=60)
        return Done("done")

    gate.act = maybe
    gate.open.set()
    submitted = await bench.submit("gated", {})
    await trio.sleep(200)
    assert (await bench.engine.operations.operation(submitted.id)).status is OperationStatus.WAITING
    assert 2 <= len(gate.begun) <= 4
    closed[0] = False

    assert value(await bench.engine.operations.wait(submitted.id)) == "done"


# -- engines come and go -------------------------------------------------------------------------


async def test_an_engine_that_drains_ends_what_is_under_way(
    clock: MockClock, make_engine: MakeEngine, tmp_path: Path, gate: Gate
) -> None:
    async with trio.open_nursery() as nursery:
        async with make_engine(shutdown="drain") as engine:
            bench = Bench(engine, tmp_path)
            first = await bench.submit("gated", {})
            second = await bench.submit("gated", {})

            async def open_later() -> None:
                await trio.sleep(500)
                gate.open.set()

            nursery.start_soon(open_later)
        assert gate.open.is_set()
    async with make_engine() as engine:
        found = await engine.operations.operation(first.id)
        assert (found.status, found.attempt) == (OperationStatus.SUCCESS, 1)
        assert (await engine.operations.wait(second.id)).status is OperationStatus.SUCCESS


@pytest.mark.parametrize("shutdown", ["stop", "adopt"])
async def test_an_engine_that_stops_leaves_the_rest_to_the_next(
    clock: MockClock, make_engine: MakeEngine, tmp_path: Path, gate: Gate, shutdown: str
) -> None:
    async with make_engine(shutdown=shutdown) as engine:
        submitted = await Bench(engine, tmp_path).submit("gated", {})
        await until_blocked()
    gate.open.set()

    async with make_engine() as engine:
        ended = await engine.operations.wait(submitted.id)

    assert (ended.status, ended.attempt) == (OperationStatus.SUCCESS, 1)
    assert gate.begun == [submitted.id] * 2


async def test_a_cancelled_engine_leaves_the_rest_to_the_next(
    clock: MockClock, make_engine: MakeEngine, tmp_path: Path, gate: Gate
) -> None:
    submitted = None
    with trio.CancelScope() as scope:
        async with make_engine() as engine:
            submitted = await Bench(engine, tmp_path).submit("gated", {})
            await until_blocked()
            scope.cancel()
            await trio.sleep_forever()
    gate.open.set()
    assert submitted is not None

    async with make_engine() as engine:
        assert (await engine.operations.wait(submitted.id)).status is OperationStatus.SUCCESS


async def interrupted(bench: Bench, gate: Gate, kind: str, **params: Any) -> Operation:
    """An operation that was done by an engine that then died before it could say so."""
    source = {"type": "file", "fileId": await bench.file(USERS)}
    operation = await bench.submit("gated", {"source": source, "params": params})
    await until_blocked()
    store, owner = bench.engine.services.store, bench.engine.services.owner
    engine = bench.engine
    work = Work(operation, engine.storage, engine.catalog, store, bench._folder / "work")
    work.folder.mkdir()
    await operations.HANDLERS[kind](work)
    gate.act = operations.HANDLERS[kind]
    # what another engine does to the lease of a dead one; this one's own try is dropped
    await store.expire_owner(owner.id)
    (taken,) = await store.claim_operations(
        Owner("another", "vaka", "host", 1), lease=0.001, limit=1
    )
    assert taken.attempt == 2
    return operation


@pytest.mark.parametrize(
    ("kind", "params"),
    [
        ("tableCreate", {}),
        ("tableImport", {"incremental": True}),
        ("tableDrop", {}),
    ],
)
async def test_what_was_done_before_a_crash_is_not_done_twice(
    clock: MockClock, bench: Bench, gate: Gate, kind: str, params: Any
) -> None:
    if kind != "tableCreate":
        await bench.create(USERS)
    operation = await interrupted(bench, gate, kind, **params)
    before = await bench.tables.list_tables(SCOPE)
    gate.open.set()

    ended = await bench.engine.operations.wait(operation.id)

    assert ended.status is OperationStatus.SUCCESS
    assert ended.attempt == 3
    assert await bench.tables.list_tables(SCOPE) == before
    if kind == "tableImport":
        assert before[0].rows_count == 4
        assert value(ended)["importedRowsCount"] == 2


async def test_an_operation_that_ends_its_engine_each_time_is_given_up(
    clock: MockClock, make_engine: MakeEngine, gate: Gate
) -> None:
    engine = make_engine()
    engine.config.home.mkdir()
    async with JobStore(engine.config.effective_store_url) as store:
        submitted = await store.submit_operation(NewOperation("1", "gated", {}))
        for attempt in range(MOST_ATTEMPTS):
            owner = Owner(f"engine {attempt}", "vaka", "host", 1)
            assert await store.claim_operations(owner, lease=30, limit=1)
            await store.expire_owner(owner.id)

    async with engine:
        code, message = failed(await engine.operations.wait(submitted.id))

    assert code == "storage.operationLost"
    assert "is not begun again" in message
    assert gate.begun == []


async def test_old_operations_are_forgotten(
    clock: MockClock, make_engine: MakeEngine, tmp_path: Path, gate: Gate
) -> None:
    gate.open.set()
    async with make_engine(operation_age=0) as engine:
        submitted = await Bench(engine, tmp_path).done("gated", {})
        await trio.sleep(3_700)
        with pytest.raises(NotFound):
            await engine.operations.operation(submitted.id)


async def test_an_unknown_kind_is_a_bug_of_the_caller(bench: Bench) -> None:
    with pytest.raises(ValueError, match="no handler"):
        await bench.submit("tableDance", {})


async def test_a_branch_or_workspace_that_was_made_before_a_crash_is_the_one(
    bench: Bench,
) -> None:
    engine = bench.engine
    project = (await engine.catalog.projects() or [await engine.catalog.create_project("p")])[0]
    await engine.catalog.put_component({"id": "c", "type": "other"})
    await engine.catalog.create_configuration(project.id, "c", "x", config_id="x")
    begun = datetime.now(UTC) - timedelta(seconds=60)

    def again(kind: str, attempt: int, **params: Any) -> Work:
        operation = Operation(
            id=1,
            project=project.id,
            branch=None,
            kind=kind,
            params=params,
            table_id=None,
            run_id=None,
            status=OperationStatus.PROCESSING,
            created=begun,
            attempt=attempt,
        )
        return Work(operation, engine.storage, engine.catalog, engine.services.store, bench._folder)

    async def do(kind: str, attempt: int, **params: Any) -> Any:
        return (await operations.HANDLERS[kind](again(kind, attempt, **params))).value

    made = await do("devBranchCreate", 1, name="dev")
    assert await do("devBranchCreate", 2, name="dev") == made
    with pytest.raises(Conflict):
        await do("devBranchCreate", 1, name="dev")
    workspace = await do("workspaceCreate", 1, componentId="c", configurationId="x")
    assert await do("workspaceCreate", 2, componentId="c", configurationId="x") == workspace
    assert len(await engine.catalog.workspaces(project.id)) == 1
    assert await do("devBranchDelete", 1, branchId=made["id"]) is None
    assert await do("devBranchDelete", 2, branchId=made["id"]) is None
    with pytest.raises(NotFound):
        await do("devBranchDelete", 1, branchId=made["id"])
