"""Tables over HTTP (storage-api.md sections 7, 11.5 and 11.6)."""

from __future__ import annotations

import csv
import gzip
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import trio
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from tests.server.conftest import Site, make_site, runtime_plugin
from tests.server.warehouse import SCOPE, TABLE, Warehouse, refused

from vaka import Engine
from vaka.testing import FakeHost
from vaka_server.settings import Settings

CSV = "id,name\n1,a\n2,b\n"
DETAIL = {
    *("uri", "id", "name", "displayName", "transactional", "primaryKey", "indexType", "indexKey"),
    *("distributionType", "distributionKey", "syntheticPrimaryKeyEnabled", "indexedColumns"),
    *("created", "lastImportDate", "lastChangeDate", "rowsCount", "dataSizeBytes", "isAlias"),
    *("isAliasable", "isTyped", "timestampType", "tableType", "path", "attributes", "columns"),
    *("metadata", "columnMetadata", "bucket"),
}


@pytest.fixture
def store(site: Site, tmp_path: Path) -> Warehouse:
    return Warehouse(site, tmp_path)


def query(**fields: Any) -> str:
    return "&".join(f"{name}={quote(str(value))}" for name, value in fields.items())


# -- creating --------------------------------------------------------------------------------------


async def test_a_table_is_made_of_a_file_as_clients_do_it(store: Warehouse) -> None:
    await store.bucket()
    fields = {
        "name": "some-table",
        "delimiter": ",",
        "enclosure": '"',
        "escapedBy": "",
        "dataFileId": await store.file(CSV),
        "primaryKey[]": "",
    }

    made = await store.done(await store.form("POST", "/buckets/in.c-b/tables-async", fields))

    detail = await store.get("/tables/in.c-b.some-table")
    assert set(detail) == DETAIL
    assert "in.c-b.some-table" in detail["uri"]
    assert (detail["columns"], detail["primaryKey"], detail["rowsCount"]) == (["id", "name"], [], 2)
    assert detail["dataSizeBytes"] > 0
    assert detail["lastImportDate"] == detail["lastChangeDate"]
    assert (detail["metadata"], detail["columnMetadata"]) == ([], {})
    assert (detail["bucket"]["id"], detail["bucket"]["tablesCount"]) == ("in.c-b", 1)
    assert (detail["bucket"]["metadata"], "tables" in detail["bucket"]) == ([], False)
    assert (made["id"], made["rowsCount"]) == (detail["id"], 2)
    (listed,) = await store.get("/buckets/in.c-b/tables")
    assert listed["id"] == "in.c-b.some-table"
    assert listed["bucket"]["id"] == "in.c-b"
    assert not {"columns", "columnMetadata"} & set(listed)
    (short,) = await store.get("/tables?include=columns,columnMetadata")
    assert (short["columns"], short["columnMetadata"]) == (["id", "name"], {})
    assert not {"attributes", "metadata", "bucket"} & set(short)
    (bare,) = await store.get("/tables?include=")
    assert bare["rowsCount"] == 2
    assert not {"attributes", "metadata", "bucket", "columns"} & set(bare)


@pytest.mark.parametrize("key", ["id,name", ["id", "name"], ["name"]])
async def test_a_table_has_the_key_it_is_given(store: Warehouse, key: Any) -> None:
    made = await store.table(CSV, primaryKey=key)
    expected = key.split(",") if isinstance(key, str) else key
    assert made["primaryKey"] == made["indexedColumns"] == expected


@pytest.mark.scenario("storage-api", 78)
async def test_a_table_that_cannot_be_is_refused_at_once(store: Warehouse) -> None:
    await store.table(CSV)
    file = await store.file(CSV)
    refusals: list[tuple[dict[str, Any], tuple[int, str]]] = [
        ({"name": "t"}, (400, "storage.tables.alreadyExists")),
        ({"name": "a.b"}, (400, "storage.tables.validation")),
        ({"name": "_a"}, (400, "storage.tables.validation")),
        ({"name": "a" * 97}, (400, "storage.tables.validation")),
        ({}, (400, "storage.tables.validation")),
        ({"name": "n", "displayName": "$"}, (400, "storage.tables.validation")),
        ({"name": "n", "dataFileId": None}, (400, "storage.tables.validation")),
        ({"name": "n", "snapshotId": "1"}, (400, "storage.tables.validation")),
        ({"name": "n", "dataFileId": 987654}, (404, "storage.files.notFound")),
        ({"name": "n", "dataFileId": "x"}, (404, "storage.files.notFound")),
        ({"name": "n", "delimiter": "/t"}, (400, "invalidCsv")),
        ({"name": "n", "dataUrl": "http://x"}, (501, "notImplemented")),
        ({"name": "n", "sourceTableId": "in.c-b.t"}, (501, "notImplemented")),
    ]
    for fields, expected in refusals:
        body = {"dataFileId": file, **fields}
        answer = await store.ask("POST", "/buckets/in.c-b/tables-async", body)
        assert refused(answer) == expected, fields
    missing = await store.ask("POST", "/buckets/in.c-none/tables-async", {"name": "n"})
    assert refused(missing) == (404, "storage.buckets.notFound")
    snapshot = {"name": "n", "snapshotId": "77"}
    gone = await store.ask("POST", "/buckets/in.c-b/tables-async", snapshot)
    assert refused(gone) == (404, "storage.snapshots.notFound")
    assert len(await store.get("/tables")) == 1


@pytest.mark.scenario("storage-api", 76)
@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("", "noColumns"),
        ("a,,c\n1,2,3\n", "invalidColumnName"),
        (f"a,{'x' * 65}\n1,2\n", "invalidColumnName"),
        ("a,_\n1,2\n", "invalidColumnName"),
        ("a,A\n1,2\n", "invalidColumnName"),
    ],
)
async def test_a_file_that_makes_no_table(store: Warehouse, content: str, expected: str) -> None:
    await store.bucket()
    code, _ = await store.failed(await store.create(content))
    assert code == f"storage.tables.validation.{expected}"
    assert (await store.ask("GET", f"/tables/{TABLE}")).status == 404


async def test_a_key_of_other_columns_makes_no_table(store: Warehouse) -> None:
    await store.bucket()
    code, _ = await store.failed(await store.create(CSV, primaryKey="id,other"))
    assert code == "storage.tables.validation.invalidPrimaryKeyColumns"
    assert (await store.ask("GET", f"/tables/{TABLE}")).status == 404


@pytest.mark.scenario("storage-api", 73)
async def test_names_of_a_header_are_made_plain(store: Warehouse) -> None:
    header = '_abc-def----ghi_,"žluťoučký    kůň",lot__of_____underscores____,Id'
    plain = ["abc_def_ghi", "zlutoucky_kun", "lot__of_____underscores", "Id"]

    made = await store.table(f"{header}\n1,2,3,4\n", primaryKey=["Id"])

    assert made["columns"] == plain
    again = await store.done(await store.load(f"{header}\n5,6,7,8\n"))
    assert (again["importedColumns"], again["newColumns"]) == (plain, [])
    names = next(csv.reader([header]))
    webalized = await store.ask("POST", "/webalize/column-names", {"columnNames": names})
    assert (webalized.status, webalized.value) == (200, {"columnNames": plain})
    shown = await store.ask("POST", "/webalize/display-name", {"displayName": "Můj kbelík!"})
    assert shown.value == {"displayName": "Muj-kbelik"}


async def test_a_table_is_made_and_loaded_by_one_request(store: Warehouse) -> None:
    await store.bucket()
    path = "/buckets/in.c-b/tables"

    made = await store.multipart(path, {"name": "t", "primaryKey": "id"}, CSV.encode())
    assert (made.status, made.value["rowsCount"], made.value["primaryKey"]) == (201, 2, ["id"])
    text = await store.form(
        "POST", path, {"name": "u", "dataString": "a;b\n1;2\n", "delimiter": ";"}
    )
    assert (text.status, text.value["columns"]) == (201, ["a", "b"])
    again = await store.multipart(path, {"name": "t"}, CSV.encode())
    assert refused(again) == (400, "storage.tables.alreadyExists")
    empty = await store.form("POST", path, {"name": "v", "dataString": ""})
    assert refused(empty) == (400, "storage.tables.validation.noColumns")
    nothing = await store.form("POST", path, {"name": "v"})
    assert refused(nothing) == (400, "storage.tables.validation")

    done = await store.multipart(
        f"/tables/{TABLE}/import", {"incremental": "1"}, b"id,name,new\n2,c,d\n3,e,f\n"
    )
    assert done.status == 200
    size = done.value.pop("totalDataSizeBytes")
    assert size > 0
    assert done.value == {
        "transaction": None,
        "warnings": [],
        "importedColumns": ["id", "name", "new"],
        "newColumns": ["new"],
        "totalRowsCount": 3,
        "importedRowsCount": 2,
        "timers": [],
    }
    plain = {"dataString": "9,x,y\n", "withoutHeaders": "1"}
    await store.form("POST", f"/tables/{TABLE}/import", plain)
    assert await store.rows() == ['"id","name","new"', '"9","x","y"']
    ragged = {"dataString": "id,name,new\n1\n"}
    assert refused(await store.form("POST", f"/tables/{TABLE}/import", ragged)) == (
        400,
        "invalidCsv",
    )
    assert await store.rows() == ['"id","name","new"', '"9","x","y"']


async def test_a_definition_makes_a_table(store: Warehouse) -> None:
    await store.bucket()
    path = "/buckets/in.c-b/tables-definition"
    columns = [
        {"name": "id", "definition": {"type": "INTEGER", "nullable": False}, "basetype": "INTEGER"},
        {"name": "text", "definition": {"type": "VARCHAR", "length": 10}},
        {"name": "plain"},
    ]

    body = {"name": "t", "primaryKeysNames": ["id"], "columns": columns, "displayName": "T"}
    made = await store.done(await store.ask("POST", path, body))

    assert (made["id"], made["isTyped"], made["columns"]) == (TABLE, True, ["id", "text", "plain"])
    assert (made["primaryKey"], made["displayName"], made["rowsCount"]) == (["id"], "T", 0)
    (first, second, _) = made["definition"]["columns"]
    assert (first["basetype"], first["definition"]["nullable"]) == ("INTEGER", False)
    assert (second["definition"]["type"], second["definition"]["length"]) == ("VARCHAR", "10")
    await store.done(await store.load("id,text,plain\n1,x,y\n"))
    code, message = await store.failed(await store.load("id,text,plain\nno,x,y\n"))
    assert 'Column "id" takes INTEGER' in message
    untyped = {"name": "u", "columns": [{"name": "a"}, {"name": "b c"}]}
    assert (await store.done(await store.ask("POST", path, untyped)))["columns"] == ["a", "b_c"]
    assert (await store.get("/tables/in.c-b.u"))["isTyped"] is False
    refusals: list[tuple[dict[str, Any], tuple[int, str]]] = [
        ({"columns": []}, (400, "storage.tables.validation.noColumns")),
        ({"columns": [{"name": ""}]}, (400, "storage.tables.validation")),
        ({"columns": ["a"]}, (400, "storage.tables.validation")),
        (
            {"columns": [{"name": "a", "definition": {"type": "CUBE"}}]},
            (400, "storage.tables.validation"),
        ),
        (
            {"columns": [{"name": "a", "definition": "x"}]},
            (400, "storage.tables.validation"),
        ),
        ({"columns": [{"name": "a"}], "source": {}}, (501, "notImplemented")),
        ({"columns": [{"name": "a"}], "name": "t"}, (400, "storage.tables.alreadyExists")),
    ]
    for fields, expected in refusals:
        assert refused(await store.ask("POST", path, {"name": "n", **fields})) == expected, fields
    unknown = {"name": "n", "columns": [{"name": "a"}], "primaryKeysNames": ["z"]}
    code, _ = await store.failed(await store.ask("POST", path, unknown))
    assert code == "storage.tables.validation.invalidPrimaryKeyColumns"
    same = {"name": "n", "columns": [{"name": "a"}], "displayName": "T"}
    code, message = await store.failed(await store.ask("POST", path, same))
    assert code == "storage.buckets.tableAlreadyExists"
    assert message == 'The table "t" in the bucket already has the same display name "T".'


# -- importing -------------------------------------------------------------------------------------


async def test_imports_add_replace_and_update(store: Warehouse) -> None:
    await store.table("id,name\n1,a\n")
    await store.done(await store.load("id,name\n1,a\n", incremental=True))
    assert (await store.get(f"/tables/{TABLE}"))["rowsCount"] == 2
    full = await store.done(await store.load("id,name\n1,b\n"))
    assert (full["totalRowsCount"], full["importedRowsCount"]) == (1, 1)
    keyed = await store.table("id,name\n1,a\n2,b\n", "k", primaryKey="id")
    await store.done(await store.load("id,name\n2,c\n3,d\n", keyed["id"], incremental="1"))
    assert await store.rows(keyed["id"]) == ['"id","name"', '"1","a"', '"2","c"', '"3","d"']
    detail = await store.get(f"/tables/{keyed['id']}")
    assert (detail["rowsCount"], detail["lastImportDate"] >= keyed["lastImportDate"]) == (3, True)


@pytest.mark.scenario("storage-api", 64)
async def test_of_rows_with_one_key_the_last_is_kept(store: Warehouse) -> None:
    await store.table("id,name\n1,old\n", primaryKey="id")
    await store.done(await store.load("id,name\n1,first\n2,x\n1,second\n1,last\n"))
    assert await store.rows() == ['"id","name"', '"1","last"', '"2","x"']


async def test_a_row_that_stays_as_it_is_keeps_its_time(store: Warehouse) -> None:
    await store.table("id,name\n1,a\n2,b\n", primaryKey="id")
    before = await store.rows(query="includeInternalTimestamp=1")
    await store.done(await store.load("id,name\n1,a\n2,c\n", incremental=True))
    after = await store.rows(query="includeInternalTimestamp=1")
    assert (after[1], after[2] != before[2]) == (before[1], True)


@pytest.mark.scenario("storage-api", 71)
async def test_values_come_out_as_they_went_in(store: Warehouse) -> None:
    values = [
        "a,b",
        'he said "no"',
        "line\nbreak",
        "carriage\r\nreturn",
        "😀 ž \u2028",
        "\x01\x02\x7f\x1b[0m",
        " blank ",
        "",
        "NULL",
        "\\N",
    ]
    text = io.StringIO()
    writer = csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator="\n")
    writer.writerows([["id", "value"], *([str(i), value] for i, value in enumerate(values))])
    await store.table(text.getvalue())

    exported = await store.done(await store.ask("POST", f"/tables/{TABLE}/export-async", {}))

    target = store.folder / "exported"
    files = store.site.engine.storage.files
    detail = await files.download(SCOPE, exported["file"]["id"], target)
    content = b"".join((target / name).read_bytes() for name in detail.slices)
    lines = text.getvalue().encode().removeprefix(b'"id","value"\n')
    assert sorted(csv.reader(io.StringIO(content.decode(), newline=""))) == sorted(
        csv.reader(io.StringIO(lines.decode(), newline=""))
    )
    assert len(content) == len(lines)


FORMS: dict[str, bytes] = {
    "bom": b"\xef\xbb\xbfid,name\n1,a\n2,\xc5\xbe\n",
    "crlf": b"id,name\r\n1,a\r\n2,\xc5\xbe\r\n",
    "cr": b"id,name\r1,a\r2,\xc5\xbe\r",
    "no final newline": b"id,name\n1,a\n2,\xc5\xbe",
    "quoted": b'"id","name"\n"1","a"\n"2","\xc5\xbe"\n',
    "gzip": gzip.compress(b"id,name\n1,a\n2,\xc5\xbe\n"),
    "bom and crlf in gzip": gzip.compress(b"\xef\xbb\xbfid,name\r\n1,a\r\n2,\xc5\xbe"),
}


@pytest.mark.scenario("storage-api", 72)
async def test_files_of_all_forms_import_alike(store: Warehouse) -> None:
    await store.table("id,name\n")
    expected = ['"id","name"', '"1","a"', '"2","ž"']
    for form, content in FORMS.items():
        await store.done(await store.load(content))
        assert await store.rows() == expected, form
    slices = (b"1,a\n", "2,ž\n".encode())
    for parts in (slices, tuple(map(gzip.compress, slices))):
        file = await store.file(*parts, sliced=True)
        body = {"dataFileId": file, "columns": ["id", "name"]}
        await store.done(await store.ask("POST", f"/tables/{TABLE}/import-async", body))
        assert await store.rows() == expected
        await store.done(
            await store.ask("POST", f"/tables/{TABLE}/import-async", {"dataFileId": file})
        )
        assert await store.rows() == expected


@pytest.mark.scenario("storage-api", 74)
async def test_columns_that_are_missing_or_more(store: Warehouse) -> None:
    await store.table("a,b\n1,2\n")
    code, message = await store.failed(await store.load("c\n3\n"))
    assert code == "csvImport.columnsNotMatch"
    assert message == (
        "Some columns are missing in the csv file. Missing columns: a,b. Expected columns: a,b,c. "
        'Please check if the expected delimiter "," is used in the csv file.'
    )
    assert (await store.get(f"/tables/{TABLE}"))["columns"] == ["a", "b"]
    done = await store.done(await store.load("c,b,a\n3,2,1\n", incremental=True))
    assert done["newColumns"] == ["c"]
    assert await store.rows() == ['"a","b","c"', '"1","2",""', '"1","2","3"']


@pytest.mark.scenario("storage-api", 75)
async def test_files_without_a_header_and_with_other_delimiters(store: Warehouse) -> None:
    await store.table("a,b\n")
    head, one = '"a","b"', '"1","2"'
    for content, fields in (
        ("2,1\n", {"columns": ["b", "a"]}),
        ("1,2\n", {"withoutHeaders": True}),
        ("a;b\n1;2\n", {"delimiter": ";"}),
        ("a\tb\n1\t2\n", {"delimiter": "\\t"}),
        ("a\tb\n1\t2\n", {"delimiter": "\t"}),
        ("x\ny\n1,2\n", {"columns": ["a", "b"], "ignoredLinesCount": "2"}),
        ("a,b\n1,\\2\n", {"escapedBy": "\\", "enclosure": ""}),
        ("a,b\n1,\\2\n", {"escapedBy": "\\"}),
    ):
        await store.done(await store.load(content, **fields))
        assert await store.rows() == [head, one], fields
    for fields in (
        {"delimiter": "/t"},
        {"delimiter": "ab"},
        {"enclosure": "''"},
        {"escapedBy": "\\", "enclosure": '"'},
    ):
        assert refused(await store.load("a,b\n1,2\n", **fields)) == (400, "invalidCsv"), fields
    assert await store.rows() == [head, one]


@pytest.mark.scenario("storage-api", 77)
@pytest.mark.parametrize(
    "content",
    [
        "id,name\n1\n",
        "id,name\n1,2,3\n",
        b"id,name\n1,\xff\xfe\n",
        'id,name\n1,"open\n',
        gzip.compress(b"id,name\n1,2\n", mtime=0)[:-4],
    ],
)
async def test_rows_that_cannot_be_read_change_nothing(
    store: Warehouse, content: str | bytes
) -> None:
    await store.table(CSV)
    before = await store.get(f"/tables/{TABLE}")
    for incremental in (False, True):
        code, message = await store.failed(await store.load(content, incremental=incremental))
        assert code == "invalidCsv"
        assert message
    assert await store.get(f"/tables/{TABLE}") == before
    assert await store.rows() == ['"id","name"', '"1","a"', '"2","b"']


async def test_an_import_that_cannot_be_is_refused_at_once(store: Warehouse) -> None:
    await store.table(CSV)
    file = await store.file(CSV)
    for path, fields, expected in (
        ("in.c-b.none", {}, (404, "storage.tables.notFound")),
        ("nonsense", {}, (404, "storage.tables.notFound")),
        (TABLE, {"dataFileId": 98765}, (404, "storage.files.notFound")),
        (TABLE, {"dataFileId": None}, (400, "storage.validation")),
        (TABLE, {"incremental": "maybe"}, (400, "storage.validation")),
        (TABLE, {"dataWorkspaceId": 1}, (501, "notImplemented")),
    ):
        body = {"dataFileId": file, **fields}
        answer = await store.ask("POST", f"/tables/{path}/import-async", body)
        assert refused(answer) == expected, fields
    stray = await store.form(
        "POST",
        f"/tables/{TABLE}/import-async",
        {"dataFileId": file, "primaryKey[]": "id", "incremental": "False"},
    )
    job = await store.job(stray)
    assert job["status"] == "success"
    assert job["operationParams"] == {
        "source": {"type": "file", "fileId": file},
        "params": {
            "delimiter": ",",
            "enclosure": '"',
            "escapedBy": "",
            "incremental": False,
            "columns": [],
            "withoutHeaders": False,
        },
    }
    assert job["tableId"] == TABLE


async def test_ten_imports_of_one_table_run_in_their_order(store: Warehouse) -> None:
    await store.table("id,value\n", primaryKey="id")
    loads = [f"id,value\n1,{number}\n" for number in range(10)]
    answers = [await store.load(each, incremental=True) for each in loads]

    jobs = [await store.job(each) for each in answers]

    assert {each["status"] for each in jobs} == {"success"}
    assert await store.rows() == ['"id","value"', '"1","9"']


async def test_ten_tables_are_imported_at_once(store: Warehouse) -> None:
    await store.bucket()
    done: list[str] = []

    async def one(number: int) -> None:
        made = await store.done(await store.create(f"id\n{number}\n", f"t{number}"))
        done.append(made["id"])

    async with trio.open_nursery() as nursery:
        for number in range(10):
            nursery.start_soon(one, number)

    assert sorted(done) == [f"in.c-b.t{number}" for number in range(10)]
    for number in range(10):
        assert await store.rows(f"in.c-b.t{number}") == ['"id"', f'"{number}"']


FIELD = st.text(
    st.characters(codec="utf-8", exclude_characters="\0", exclude_categories=["Cs"]), max_size=20
)


@dataclass(frozen=True)
class Form:
    """A CSV file as somebody may write it."""

    rows: list[tuple[str, str]]
    line_end: str
    delimiter: str
    packed: bool
    bom: bool
    final: bool
    """Whether its last line ends."""

    @property
    def content(self) -> bytes:
        text = io.StringIO()
        writer = csv.writer(
            text,
            quoting=csv.QUOTE_ALL,
            lineterminator=self.line_end,
            delimiter=self.delimiter,
        )
        writer.writerows([("a", "b"), *self.rows])
        written = text.getvalue()
        whole = written if self.final else written.removesuffix(self.line_end)
        raw = (("\ufeff" if self.bom else "") + whole).encode()
        return gzip.compress(raw) if self.packed else raw


FORM = st.builds(
    Form,
    rows=st.lists(st.tuples(FIELD, FIELD), max_size=8),
    line_end=st.sampled_from(["\n", "\r\n"]),
    delimiter=st.sampled_from([",", ";", "\t", "|"]),
    packed=st.booleans(),
    bom=st.booleans(),
    final=st.booleans(),
)


@settings(
    max_examples=2,
    deadline=None,
    phases=[Phase.generate],  # to make an example smaller takes a server each time
    suppress_health_check=[HealthCheck.too_slow],
)
@given(forms=st.lists(FORM, min_size=12, max_size=12))
def test_files_of_any_form_have_the_rows_they_have(
    tmp_path_factory: pytest.TempPathFactory, forms: list[Form]
) -> None:
    """Many of them with one server: that is what takes the time."""

    async def run() -> None:
        folder = tmp_path_factory.mktemp("forms")
        host, given = FakeHost({}), Settings(home=folder / "home", shutdown="stop")
        async with Engine(given.engine, plugins=[runtime_plugin(host)]) as engine:
            store = Warehouse(await make_site(engine, given, host), folder)
            await store.table("a,b\n")
            for form in forms:
                delimiter = form.delimiter.replace("\t", "\\t")
                await store.done(await store.load(form.content, delimiter=delimiter))
                answer = await store.ask("GET", f"/tables/{TABLE}/data-preview?format=json")
                found = [tuple(cell["value"] for cell in row) for row in answer.value["rows"]]
                assert sorted(found) == sorted(form.rows)

    trio.run(run)


# -- reading ---------------------------------------------------------------------------------------


async def test_a_preview_shows_rows_as_clients_ask_for_them(store: Warehouse) -> None:
    await store.table('col1,col2\n1,"x ""y"""\n2,b\n3,\n')
    path = f"/tables/{TABLE}/data-preview"
    answer = await store.ask("GET", path)
    assert answer.headers["Content-Type"] == "text/csv; charset=UTF-8"
    assert answer.value.startswith(b'"col1","col2"\n')
    assert await store.rows() == ['"col1","col2"', '"1","x ""y"""', '"2","b"', '"3",""']
    for fields, expected in (
        ("columns=col2", ['"col2"', '""', '"b"', '"x ""y"""']),
        ("columns[]=col2&columns[]=col1&limit=1&whereColumn=col1&whereValues[]=2",
         ['"col2","col1"', '"b","2"']),
        ("whereColumn=col1&whereValues[]=1&whereValues[]=3&columns=col1", ['"col1"', '"1"', '"3"']),
        ("whereColumn=col1&whereValues[]=1&whereOperator=neq&columns=col1",
         ['"col1"', '"2"', '"3"']),
        ("whereColumn=col2&whereValues[]=&columns=col1", ['"col1"', '"3"']),
        ("whereFilters[0][column]=col1&whereFilters[0][operator]=gt&whereFilters[0][values][0]=1"
         "&whereFilters[0][dataType]=INTEGER&whereFilters[1][column]=col2"
         "&whereFilters[1][operator]=ne&whereFilters[1][values][]=b&columns=col1",
         ['"col1"', '"3"']),
        ("changedSince=-1+hour&columns=col1", ['"col1"', '"1"', '"2"', '"3"']),
        ("changedUntil=-1+hour&columns=col1", ['"col1"']),
    ):  # fmt: skip
        assert await store.rows(query=fields) == expected, fields
    ordered = await store.ask("GET", f"{path}?orderBy[0][column]=col1&orderBy[0][order]=DESC")
    assert ordered.value.decode().split("\n")[1:4] == ['"3",""', '"2","b"', '"1","x ""y"""']


@pytest.mark.scenario("storage-api", 66)
async def test_a_preview_is_bounded(store: Warehouse) -> None:
    long = "ž" * 16_385
    await store.table("n,text\n" + "".join(f"{number},{long}\n" for number in range(1_001)))
    path = f"/tables/{TABLE}/data-preview"
    for fields, count in (("", 100), ("?limit=1000", 1_000), ("?limit=0", 0)):
        answer = await store.ask("GET", f"{path}{fields}{'&' if fields else '?'}columns=n")
        assert answer.value.count(b"\n") == count + 1
    for fields, expected in (
        ("limit=1001", "storage.tables.validation"),
        ("limit=x", "storage.tables.validation"),
        ("format=csv", "storage.tables.validation.invalidFormat"),
        ("columns=none", "storage.tables.validation.columnNotExists"),
        ("whereColumn=none&whereValues[]=1", "storage.tables.validation.columnNotExists"),
        ("whereColumn=n", "validation.failed"),
    ):
        answer = await store.ask("GET", f"{path}?{fields}")
        assert refused(answer) == (400, expected), fields
        if "1001" in fields:
            assert "1000" in answer.value["error"]
    shown = await store.ask("GET", f"{path}?format=json&limit=1&orderBy[0][column]=n")
    assert shown.value == {
        "columns": ["n", "text"],
        "rows": [
            [
                {"columnName": "n", "value": "0", "isTruncated": False},
                {"columnName": "text", "value": "ž" * 16_384, "isTruncated": True},
            ]
        ],
    }


async def test_an_export_that_cannot_be_is_refused_at_once(store: Warehouse) -> None:
    await store.table(CSV)
    path = f"/tables/{TABLE}/export-async"
    for fields, expected in (
        ({"whereColumn": "id"}, (400, "validation.failed")),
        ({"whereFilters": [{"column": "id"}]}, (400, "storage.validation")),
        ({"changedSince": "nonsense"}, (400, "storage.validation")),
        ({"format": "xml"}, (400, "storage.validation")),
        ({"limit": "x"}, (400, "storage.validation")),
        ({"fileType": "parquet"}, (501, "notImplemented")),
    ):
        assert refused(await store.ask("POST", path, fields)) == expected, fields
    missing = await store.ask("POST", "/tables/in.c-b.none/export-async", {})
    assert refused(missing) == (404, "storage.tables.notFound")
    code, message = await store.failed(
        await store.ask("POST", path, {"whereColumn": "x", "whereValues": ["1"]})
    )
    assert code == "storage.tables.validation.columnNotExists"
    assert message == 'Cannot filter by column "x", column does not exist'


# -- rows, columns, keys ---------------------------------------------------------------------------


@pytest.mark.scenario("storage-api", 79)
async def test_rows_are_deleted(store: Warehouse) -> None:
    rows = "id,kind\n1,a\n2,a\n3,b\n4,c\n5,c\n"
    path = f"/tables/{TABLE}/rows"
    await store.table(rows)

    async def left(method_body: Any = None, fields: str = "") -> tuple[int, list[str]]:
        await store.done(await store.load(rows))
        done = await store.done(await store.ask("DELETE", f"{path}?{fields}", method_body))
        return done["deletedRows"], await store.rows(query="columns=id")

    two = [
        {"column": "kind", "operator": "eq", "values": ["a", "b"]},
        {"column": "id", "operator": "ge", "values": ["2"], "dataType": "INTEGER"},
    ]
    expected = (2, ['"id"', '"1"', '"4"', '"5"'])
    assert await left({"whereFilters": two}) == expected
    in_query = "&".join(
        f"whereFilters[{i}][{key}]{f'[{n}]' if key == 'values' else ''}={value}"
        for i, each in enumerate(two)
        for key, values in each.items()
        for n, value in enumerate(values if isinstance(values, list) else [values])
    )
    assert await left(None, in_query) == expected
    assert await left({"whereColumn": "kind", "whereValues": ["a"]}) == (
        2,
        ['"id"', '"3"', '"4"', '"5"'],
    )
    assert await left(None, "whereColumn=kind&whereValues[]=a&whereOperator=ne") == (
        3,
        ['"id"', '"1"', '"2"'],
    )
    assert await left(None, "changedSince=-1+hour") == (5, ['"id"'])
    assert await left(None, "changedSince=tomorrow") == (0, (await store.rows(query="columns=id")))
    for fields in ("", "allowTruncate=0"):
        answer = await store.ask("DELETE", f"{path}?{fields}")
        assert refused(answer) == (400, "storage.tables.validation.unintendedTruncation")
        assert answer.value["error"] == (
            "No filters have been specified, which will truncate the table, but the "
            "`allowTruncate` parameter was not set."
        )
    assert await left(None, "allowTruncate=1") == (5, ['"id"'])
    assert await left({"allowTruncate": True}) == (5, ['"id"'])
    assert (await store.get(f"/tables/{TABLE}"))["rowsCount"] == 0
    unknown = {"whereColumn": "none", "whereValues": ["1"]}
    code, _ = await store.failed(await store.ask("DELETE", path, unknown))
    assert code == "storage.tables.validation.columnNotExists"


@pytest.mark.scenario("storage-api", 80)
async def test_columns_come_and_go(store: Warehouse) -> None:
    await store.table("id,name\n1,a\n", primaryKey="id")
    path = f"/tables/{TABLE}/columns"
    await store.done(await store.form("POST", path, {"name": "Žlutý kůň"}))
    assert await store.rows() == ['"id","name","Zluty_kun"', '"1","a",""']
    for name, expected in (
        ("name", "storage.tables.columnAlreadyExists"),
        ("NAME", "storage.tables.columnAlreadyExists"),
        ("", "storage.tables.invalidColumnName"),
        ("$$", "storage.tables.invalidColumnName"),
        ("x" * 65, "storage.tables.invalidColumnName"),
    ):
        assert refused(await store.ask("POST", path, {"name": name})) == (400, expected), name
    typed = await store.ask("POST", path, {"name": "n", "basetype": "INTEGER"})
    assert refused(typed) == (400, "storage.validation")
    for column, refusal in (
        ("id", (400, "storage.tables.cannotDeletePrimaryKeyColumn")),
        ("none", (404, "storage.tables.columnNotExists")),
    ):
        assert refused(await store.ask("DELETE", f"{path}/{column}?force=1")) == refusal
    for column in ("name", "Zluty_kun"):
        assert await store.done(await store.ask("DELETE", f"{path}/{column}")) is None
    await store.done(await store.ask("DELETE", f"/tables/{TABLE}/primary-key"))
    last = await store.ask("DELETE", f"{path}/id")
    assert refused(last) == (400, "storage.tables.cannotDeleteLastColumn")
    assert await store.rows() == ['"id"', '"1"']


@pytest.mark.scenario("storage-api", 81)
async def test_a_key_comes_and_goes(store: Warehouse) -> None:
    await store.table("id,name\n1,a\n1,b\n")
    path = f"/tables/{TABLE}/primary-key"
    code, message = await store.failed(await store.form("POST", path, {"columns[]": "id"}))
    assert code == "storage.tables.primaryKeyDuplicateValues"
    assert "duplicate values" in message
    for columns in ([], ["none"], ["id", "none"]):
        answer = await store.ask("POST", path, {"columns": columns})
        assert refused(answer) == (400, "storage.validation.primaryKey")
    await store.done(await store.ask("POST", path, {"columns": ["id", "name"]}))
    assert (await store.get(f"/tables/{TABLE}"))["primaryKey"] == ["id", "name"]
    for _ in range(2):  # the second time there is none
        await store.done(await store.ask("DELETE", path))
        assert (await store.get(f"/tables/{TABLE}"))["primaryKey"] == []


async def test_a_typed_column_is_changed(store: Warehouse) -> None:
    await store.bucket()
    columns = [{"name": "a", "definition": {"type": "VARCHAR", "length": "3"}}]
    body = {"name": "t", "columns": columns}
    await store.done(await store.ask("POST", "/buckets/in.c-b/tables-definition", body))
    path = f"/tables/{TABLE}/columns/a/definition"
    changed = await store.done(await store.ask("PUT", path, {"definition": {"length": 5}}))
    assert changed["definition"]["columns"][0]["definition"]["length"] == "5"
    await store.done(await store.load("a\nabcde\n"))
    code, _ = await store.failed(await store.ask("PUT", path, {"length": "4"}))
    assert code == "storage.validation"
    added = {"name": "n", "definition": {"type": "INTEGER"}, "basetype": "INTEGER"}
    table = await store.done(await store.ask("POST", f"/tables/{TABLE}/columns", added))
    assert table["definition"]["columns"][1]["basetype"] == "INTEGER"


# -- the rest --------------------------------------------------------------------------------------


async def test_a_table_is_dropped_now_or_later(store: Warehouse) -> None:
    path = f"/tables/{TABLE}"
    await store.table(CSV)
    deleted = await store.ask("DELETE", path)
    assert (deleted.status, deleted.value) == (204, b"")
    for method, suffix in (("GET", ""), ("DELETE", ""), ("DELETE", "?async=1&force=1")):
        assert refused(await store.ask(method, path + suffix)) == (404, "storage.tables.notFound")
    await store.table(CSV)
    assert await store.done(await store.ask("DELETE", f"{path}?async=true")) is None
    missing = await store.ask("GET", path)
    assert missing.value["error"] == (
        'The table "t" was not found in the bucket "in.c-b" in the project "1"'
    )
    odd = await store.ask("GET", "/tables/some-totally-non-existent-table")
    assert refused(odd) == (404, "storage.tables.notFound")


async def test_a_table_gets_another_display_name(store: Warehouse) -> None:
    await store.table(CSV, displayName="Shown")
    await store.table(CSV, "u")
    path = f"/tables/{TABLE}"
    changed = await store.ask("PUT", path, {"displayName": "Other"})
    assert (changed.status, changed.value["displayName"], changed.value["id"]) == (
        200,
        "Other",
        TABLE,
    )
    later = await store.done(await store.ask("PUT", path, {"displayName": "Later", "async": True}))
    assert later["displayName"] == "Later"
    taken = await store.ask("PUT", "/tables/in.c-b.u", {"displayName": "Later"})
    assert refused(taken) == (400, "storage.buckets.tableAlreadyExists")
    assert refused(await store.ask("PUT", path, {"displayName": "$"})) == (
        400,
        "storage.tables.validation",
    )


async def test_a_table_and_its_columns_are_described(store: Warehouse) -> None:
    await store.table(CSV)
    path = f"/branch/default/tables/{TABLE}/definition"
    columns = [{"name": "id", "description": "the number"}, {"name": "name", "description": "who"}]
    body = {"description": "people", "columns": columns, "isDescriptionSystemManaged": False}

    async def described(given: Any) -> tuple[list[str], dict[str, list[str]]]:
        table = await store.done(await store.ask("PUT", path, given))
        assert table["metadata"] == (await store.get(f"/tables/{TABLE}"))["metadata"]
        own = [each["value"] for each in table["metadata"] if each["key"] == "KBC.description"]
        of_columns = {
            name: [each["value"] for each in entries if each["provider"] == "user"]
            for name, entries in table["columnMetadata"].items()
        }
        return own, of_columns

    assert await described(body) == (["people"], {"id": ["the number"], "name": ["who"]})
    cleared = {"columns": [{"name": "id", "description": None}]}
    assert await described(cleared) == (["people"], {"name": ["who"]})
    assert await described({"description": ""}) == ([], {"name": ["who"]})
    unknown = await store.ask("PUT", path, {"columns": [{"name": "x", "description": "y"}]})
    assert refused(unknown) == (404, "storage.tables.columnNotExists")


async def test_two_tables_are_swapped(store: Warehouse) -> None:
    await store.table(CSV)
    await store.table("other\nx\n", "u")
    path = f"/tables/{TABLE}/swap"
    assert await store.done(await store.ask("POST", path, {"targetTableId": "in.c-b.u"})) is None
    assert await store.rows() == ['"other"', '"x"']
    assert await store.rows("in.c-b.u") == ['"id","name"', '"1","a"', '"2","b"']
    for target, expected in (
        ("in.c-b.none", (404, "storage.tables.notFound")),
        (TABLE, (400, "storage.tables.validation")),
        ("", (400, "storage.tables.validation")),
    ):
        assert refused(await store.ask("POST", path, {"targetTableId": target})) == expected


async def test_a_snapshot_is_made_and_a_table_of_it(store: Warehouse) -> None:
    await store.table(CSV, primaryKey="id")
    path = f"/tables/{TABLE}/snapshots"
    made = await store.done(await store.ask("POST", path, {"description": "before"}))
    later = await store.done(await store.ask("POST", path))
    assert (made["id"].isdigit(), made["description"]) == (True, "before")
    assert [each["id"] for each in await store.get(path)] == [later["id"], made["id"]]
    assert [each["id"] for each in await store.get(f"{path}?limit=1&offset=1")] == [made["id"]]
    detail = await store.get(f"/snapshots/{made['id']}")
    assert (detail["table"]["id"], detail["table"]["columns"]) == (TABLE, ["id", "name"])
    assert detail["creatorToken"]["description"] == "the admin"
    await store.ask("DELETE", f"/tables/{TABLE}")

    body = {"name": "back", "snapshotId": made["id"], "displayName": "Back"}
    table = await store.done(await store.ask("POST", "/buckets/in.c-b/tables-async", body))

    assert (table["id"], table["primaryKey"], table["rowsCount"]) == ("in.c-b.back", ["id"], 2)
    assert table["displayName"] == "Back"
    assert await store.rows("in.c-b.back") == ['"id","name"', '"1","a"', '"2","b"']
    assert (await store.ask("DELETE", f"/snapshots/{made['id']}")).status == 204
    for method in ("GET", "DELETE"):
        gone = await store.ask(method, f"/snapshots/{made['id']}")
        assert refused(gone) == (404, "storage.snapshots.notFound")
    other = await store.ask("GET", f"/snapshots/{later['id']}", token="other")
    assert refused(other) == (404, "storage.snapshots.notFound")


async def test_tables_are_found_by_their_metadata(store: Warehouse) -> None:
    await store.table(CSV)
    await store.table(CSV, "u")
    for table, provider, key, value in (
        (TABLE, "user", "KBC.name", "one"),
        ("in.c-b.u", "system", "KBC.name", "two"),
    ):
        said = {"provider": provider, "metadata": [{"key": key, "value": value}]}
        await store.ask("POST", f"/tables/{table}/metadata", said)

    for fields, expected in (
        ({"metadataKey": "KBC.name"}, [TABLE, "in.c-b.u"]),
        ({"metadataKey": "KBC.name", "metadataValue": "two"}, ["in.c-b.u"]),
        ({"metadataProvider": "user"}, [TABLE]),
        ({"metadataProvider": "user", "metadataValue": "two"}, []),
    ):
        found = await store.get(f"/branch/default/search/tables?{query(**fields)}")
        assert [each["id"] for each in found] == expected, fields
    assert refused(await store.ask("GET", "/search/tables")) == (400, "storage.tables.validation")


async def test_what_is_knowingly_not_there(store: Warehouse) -> None:
    await store.table(CSV)
    for path in ("pull", "optimize", "profile", "alias-filter"):
        answer = await store.ask("POST", f"/tables/{TABLE}/{path}")
        assert refused(answer) == (501, "notImplemented")
    alias = await store.ask("POST", "/buckets/in.c-b/table-aliases", {"name": "a"})
    assert refused(alias) == (501, "notImplemented")


async def test_bodies_of_all_encodings_mean_the_same(store: Warehouse) -> None:
    await store.table(CSV)
    filters = [{"column": "id", "operator": "eq", "values": ["1"]}]
    as_json = await store.ask("POST", f"/tables/{TABLE}/export-async", {"whereFilters": filters})
    as_form = await store.form(
        "POST",
        f"/tables/{TABLE}/export-async",
        {
            "whereFilters[0][column]": "id",
            "whereFilters[0][operator]": "eq",
            "whereFilters[0][values][0]": "1",
        },
    )
    assert as_json.value["operationParams"] == as_form.value["operationParams"]
    assert json.loads(json.dumps(as_json.value["operationParams"])) == {
        "whereFilters": filters,
        "gzip": False,
    }
