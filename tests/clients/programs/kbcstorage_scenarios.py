"""Scenarios of Storage's contract, through the published client kbcstorage.

Runs in the client's own environment: `python kbcstorage_scenarios.py URL TOKEN FOLDER`. It reads names
of scenarios with their arguments, one a line, runs each and answers with a line of JSON: what it
returned, and how it failed.
"""

from __future__ import annotations

import gzip
import json
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import requests
from kbcstorage.client import Client

COMPONENT = "keboola.runner-config-test"


class Project:
    """A project as this client sees it, and a folder of the scenario's own to work in."""

    def __init__(self, url: str, token: str, folder: Path) -> None:
        self.url = url
        self.client = Client(url, token)
        self.folder = folder
        self._headers = {"X-StorageApi-Token": token}

    def file(self, name: str, content: str | bytes) -> str:
        """The path of a new file."""
        path = self.folder / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return str(path)

    @contextmanager
    def bucket(self) -> Iterator[str]:
        """The id of a new bucket, which is gone afterwards."""
        made = self.client.buckets.create(f"scenario-{uuid4().hex[:8]}")
        try:
            yield made["id"]
        finally:
            self.client.buckets.delete(made["id"], force=True)

    @contextmanager
    def table(self, content: str, primary_key: list[str] | None = None) -> Iterator[str]:
        """The id of a new table."""
        with self.bucket() as bucket:
            path = self.file("table.csv", content)
            yield self.client.tables.create(bucket, "some-table", path, primary_key=primary_key)

    @contextmanager
    def configuration(self, **options: Any) -> Iterator[str]:
        """The id of a new configuration."""
        made = self.client.configurations.create(COMPONENT, "Scenario", **options)
        try:
            yield made["id"]
        finally:
            for _ in range(2):  # the second time out of the trash
                self.client.configurations.delete(COMPONENT, made["id"])

    def code(self, path: str) -> tuple[int, str]:
        """Status and Storage's code of a path that the client has no word for."""
        answer = requests.get(f"{self.url}/v2/storage/{path}", headers=self._headers, timeout=30)
        return answer.status_code, answer.json().get("code", "")


def refused(call: Callable[[], Any]) -> tuple[int, str]:
    """Status and Storage's code of a call that must fail."""
    try:
        value = call()
    except requests.HTTPError as error:
        answer: Any = error.response
        return answer.status_code, answer.json()["code"]
    raise AssertionError(f"this should have failed and was {value!r}")


def has(document: dict[str, Any], *names: str) -> None:
    missing = [name for name in names if name not in document]
    assert not missing, f"{missing} not in {sorted(document)}"


# Tokens, index


def token_is_verified(project: Project) -> None:
    token = project.client.tokens.verify()

    has(token, "id", "description", "canManageBuckets", "owner")
    assert isinstance(token["id"], str)
    assert token["canManageBuckets"] is True
    assert token["owner"]["defaultBackend"] == "snowflake"


def workspaces_are_refused_without_a_second_try(project: Project) -> None:
    assert project.client.workspaces.list() == []
    started = time.monotonic()

    assert refused(project.client.workspaces.create) == (501, "notImplemented")
    assert refused(lambda: project.client.workspaces.reset_password(1))[0] == 501
    assert refused(lambda: project.client.tables.optimize("in.c-any.any"))[0] == 501

    # Of one that is tried again the first pause alone is a second, and there are ten.
    assert time.monotonic() - started < 60


# Files


def file_is_uploaded_with_tags(project: Project) -> None:
    files = project.client.files
    id_ = files.upload_file(project.file("six.txt", "foobar"), tags=["py-test", "file1"])
    detail = files.detail(id_)

    assert isinstance(id_, int)
    assert detail["id"] == id_
    assert detail["name"] == "six.txt"
    assert detail["sizeBytes"] == 6
    assert detail["tags"] == ["py-test", "file1"]
    assert detail["isEncrypted"] is True
    assert detail["isSliced"] is False
    assert detail["isPublic"] is False
    assert not {"credentials", "absCredentials", "s3Path", "absPath", "gcsPath"} & set(detail)


def federation_token_brings_credentials(project: Project) -> None:
    files = project.client.files
    id_ = files.upload_file(project.file("six.txt", "foobar"))

    detail = files.detail(id_, federation_token=True)

    wanted = {
        "aws": ("credentials", "s3Path"),
        "azure": ("absCredentials", "absPath"),
        "gcp": ("gcsCredentials", "gcsPath"),
    }
    has(detail, *wanted[detail["provider"]])
    assert detail["absCredentials"]["SASConnectionString"].startswith("BlobEndpoint=")
    verified = project.client.tokens.verify()
    assert verified["owner"]["fileStorageProvider"] == detail["provider"]


def file_comes_back_as_it_was(project: Project) -> None:
    files = project.client.files
    content = bytes(range(256)) * 10
    id_ = files.upload_file(project.file("some_bytes.bin", content))

    local = Path(files.download(id_, str(project.folder / "down")))

    assert local.name == "some_bytes.bin"
    assert local.read_bytes() == content


def file_is_compressed(project: Project) -> None:
    files = project.client.files
    id_ = files.upload_file(project.file("words.txt", "foobar" * 100), compress=True)

    assert files.detail(id_)["name"] == "words.txt.gz"
    local = Path(files.download(id_, str(project.folder / "down")))
    assert gzip.decompress(local.read_bytes()) == b"foobar" * 100


def empty_file_comes_back(project: Project) -> None:
    files = project.client.files
    id_ = files.upload_file(project.file("empty.txt", ""))

    assert files.detail(id_)["sizeBytes"] == 0
    local = Path(files.download(id_, str(project.folder / "down")))
    assert local.read_bytes() == b""


def large_file_goes_in_blocks(project: Project) -> None:
    files = project.client.files
    content = os.urandom(1 << 20) * 70  # above 64 MiB the client sends blocks
    id_ = files.upload_file(project.file("large.bin", content))

    assert files.detail(id_)["sizeBytes"] == 70 << 20
    local = Path(files.download(id_, str(project.folder / "down")))
    assert local.read_bytes() == content
    files.delete(id_)


def deleted_file_is_gone(project: Project) -> None:
    files = project.client.files
    id_ = files.upload_file(project.file("six.txt", "foobar"))
    url = files.detail(id_)["url"]
    assert requests.get(url, timeout=30).content == b"foobar"

    files.delete(id_)

    assert refused(lambda: files.detail(id_)) == (404, "storage.files.notFound")
    assert requests.get(url, timeout=30).status_code == 404


def files_are_listed(project: Project) -> None:
    files = project.client.files
    mark = uuid4().hex
    one, two = f"{mark}a", f"{mark}b"
    first = files.upload_file(project.file("first.txt", "1"), tags=[one])
    second = files.upload_file(project.file("second.txt", "2"), tags=[two])
    third = files.upload_file(project.file("third.txt", "3"), tags=[one, two])

    def ids(**options: Any) -> list[int]:
        return [each["id"] for each in files.list(**options)]

    assert ids(tags=[one, two]) == [third, second, first]
    assert ids(tags=[one]) == [third, first]
    assert ids(tags=[one, two], limit=1) == [third]
    assert ids(tags=[one, two], limit=1, offset=1) == [second]
    assert ids(tags=[one, two], max_id=third) == [second, first]
    assert ids(q=f'tags:"{one}" AND NOT tags:"{two}"') == [first]
    assert ids(tags=[one, two], run_id="any", since_id=first) == [third, second]
    assert ids()[:3] == [third, second, first]


# Storage jobs


def jobs_are_listed(project: Project) -> None:
    with project.table("a,b\n1,2\n") as table:
        project.client.tables.load(table, project.file("more.csv", "a,b\n3,4\n"))
        project.client.tables.export(table)

        listed = project.client.jobs.list()

        assert isinstance(listed, list)
        assert len(listed) > 2
        ids = [each["id"] for each in listed]
        assert all(isinstance(id_, int) for id_ in ids)
        assert ids == sorted(ids, reverse=True)
        newest = project.client.jobs.detail(ids[0])
        assert newest["id"] == ids[0]
        assert newest["status"] == "success"
        assert newest["operationName"] == "tableExport"
        assert newest["tableId"] == table
        assert project.client.jobs.status(ids[0]) == "success"
        assert project.client.jobs.completed(ids[0]) is True
        assert project.client.jobs.block_for_success(ids[0]) is True


# Buckets


def bucket_is_created(project: Project) -> None:
    buckets = project.client.buckets
    made = buckets.create("py-test", stage="in", description="Test bucket")
    try:
        assert (made["id"], made["name"], made["displayName"]) == (
            "in.c-py-test",
            "c-py-test",
            "py-test",
        )
        assert made["stage"] == "in"
        detail = buckets.detail("in.c-py-test")
        assert detail["id"] == "in.c-py-test"
        assert detail["description"] == "Test bucket"
        assert detail["displayName"] == "py-test"
        assert detail["tables"] == []
        assert detail["attributes"] == []
        assert detail["backend"] == "snowflake"
        assert "in.c-py-test" in [each["id"] for each in buckets.list()]
    finally:
        buckets.delete("in.c-py-test")
    assert refused(lambda: buckets.detail("in.c-py-test")) == (404, "storage.buckets.notFound")


def missing_bucket_is_told_at_once(project: Project) -> None:
    buckets = project.client.buckets

    wanted = (404, "storage.buckets.notFound")
    assert refused(lambda: buckets.delete("in.c-none", asynchronous=True)) == wanted
    assert refused(lambda: buckets.delete("in.c-none", asynchronous=False)) == wanted
    assert refused(lambda: buckets.detail("no-bucket-at-all")) == wanted


def bucket_is_dropped_with_its_tables(project: Project) -> None:
    buckets, tables = project.client.buckets, project.client.tables
    path = project.file("table.csv", "a\n1\n")
    for asynchronous in (True, False):
        bucket = buckets.create(f"force-{uuid4().hex[:8]}")["id"]
        table = tables.create(bucket, "some-table", path)
        assert refused(lambda: buckets.delete(bucket, asynchronous=asynchronous)) == (  # noqa: B023
            400,
            "buckets.deleteNotEmpty",
        )
        assert tables.detail(table)["id"] == table

        buckets.delete(bucket, force=True, asynchronous=asynchronous)

        assert bucket not in [each["id"] for each in buckets.list()]
        assert refused(lambda: tables.detail(table)) == (404, "storage.tables.notFound")  # noqa: B023


def tables_of_a_bucket_are_listed(project: Project) -> None:
    buckets = project.client.buckets
    buckets.create("py-list-test")
    try:
        path = project.file("table.csv", "a,b\n1,2\n")
        project.client.tables.create("in.c-py-list-test", "some-table", path)
        listed = buckets.list_tables("in.c-py-list-test")
        assert [each["id"] for each in listed] == ["in.c-py-list-test.some-table"]
        (wide,) = buckets.list_tables("in.c-py-list-test", include=["columns"])
        assert wide["columns"] == ["a", "b"]
    finally:
        buckets.delete("in.c-py-list-test", force=True)


# Tables


def table_is_created(project: Project) -> None:
    with project.table("col1,col2\nping,pong\n") as table:
        detail = project.client.tables.detail(table)

        assert detail["id"] == table
        assert detail["name"] == "some-table"
        assert detail["columns"] == ["col1", "col2"]
        assert detail["primaryKey"] == []
        assert table in detail["uri"]
        has(detail, "created", "lastImportDate", "lastChangeDate", "metadata", "columnMetadata")
        assert detail["rowsCount"] == 1
        assert detail["dataSizeBytes"] > 0
        assert detail["bucket"]["id"] == table.rpartition(".")[0]
        assert table in [each["id"] for each in project.client.tables.list()]
        (row,) = [
            each for each in project.client.tables.list(include=["columns"]) if each["id"] == table
        ]
        assert row["columns"] == ["col1", "col2"]


def table_is_created_with_a_key(project: Project) -> None:
    with project.table("col1,col2,col3\na,b,c\n", ["col1", "col2"]) as table:
        assert project.client.tables.detail(table)["primaryKey"] == ["col1", "col2"]


def table_is_loaded(project: Project) -> None:
    tables = project.client.tables
    with project.table("col1,col2\nping,pong\n") as table:
        more = project.file("more.csv", "col1,col2\nking,kong\n")

        result = tables.load(table, more, is_incremental=True)
        assert tables.detail(table)["rowsCount"] == 2
        assert result["importedColumns"] == ["col1", "col2"]
        assert result["totalRowsCount"] == 2
        assert result["warnings"] == []

        tables.load(table, more, is_incremental=False)
        assert tables.detail(table)["rowsCount"] == 1
        assert tables.preview(table) == '"col1","col2"\n"king","kong"\n'


def rows_of_a_known_key_are_replaced(project: Project) -> None:
    tables = project.client.tables
    with project.table("id,word\n1,one\n2,two\n", ["id"]) as table:
        tables.load(table, project.file("more.csv", "id,word\n2,zwei\n3,drei\n"), True)

        lines = tables.preview(table).splitlines()
        assert lines[0] == '"id","word"'
        assert sorted(lines[1:]) == ['"1","one"', '"2","zwei"', '"3","drei"']
        assert tables.detail(table)["rowsCount"] == 3


def table_is_previewed(project: Project) -> None:
    tables = project.client.tables
    with project.table("col1,col2\nping,pong\nking,kong\n") as table:
        whole = tables.preview(table)
        assert sorted(whole.splitlines()) == ['"col1","col2"', '"king","kong"', '"ping","pong"']
        assert whole.startswith('"col1","col2"\n')
        assert whole.endswith("\n")
        narrow = tables.preview(table, columns=["col2"])
        assert sorted(narrow.splitlines()) == ['"col2"', '"kong"', '"pong"']
        equal = tables.preview(table, where_column="col1", where_values=["ping"])
        assert equal == '"col1","col2"\n"ping","pong"\n'
        other = tables.preview(
            table, where_column="col1", where_values=["ping"], where_operator="neq"
        )
        assert other == '"col1","col2"\n"king","kong"\n'
        assert tables.preview(table, changed_since="-1 hour") == whole
        assert tables.preview(table, changed_until="-1 hour") == '"col1","col2"\n'


def table_is_exported_to_a_file(project: Project) -> None:
    tables = project.client.tables
    with project.table("col1,col2,col3\nping,pong,a\nking,kong,b\n") as table:
        for is_gzip in (False, True):
            target = project.folder / f"out-{is_gzip}"
            target.mkdir()
            path = Path(tables.export_to_file(table, str(target), is_gzip=is_gzip))
            assert path == target / "some-table"
            lines = path.read_text().splitlines()
            assert lines[0] == '"col1","col2","col3"'
            assert sorted(lines[1:]) == ['"king","kong","b"', '"ping","pong","a"']

        path = Path(tables.export_to_file(table, str(project.folder), columns=["col3", "col2"]))
        assert sorted(path.read_text().splitlines()) == [
            '"a","pong"',
            '"b","kong"',
            '"col3","col2"',
        ]
        some = tables.export_to_file(
            table, str(project.folder), where_column="col3", where_values=["b", "none"]
        )
        assert Path(some).read_text().splitlines()[1:] == ['"king","kong","b"']


def table_is_exported_into_storage(project: Project) -> None:
    with project.table("col1,col2\nping,pong\nking,kong\n") as table:
        id_ = project.client.tables.export(table)
        detail = project.client.files.detail(id_)

        assert isinstance(id_, int)
        assert detail["isSliced"] is True
        assert detail["fileType"] == "csv"
        local = Path(project.client.files.download(id_, str(project.folder / "down")))
        assert sorted(local.read_text().splitlines()) == ['"king","kong"', '"ping","pong"']
        manifest = requests.get(detail["url"], timeout=30).json()
        assert len(manifest["entries"]) >= 1


def empty_table_is_exported(project: Project) -> None:
    tables = project.client.tables
    with project.table("col1,col2\n") as table:
        assert tables.detail(table)["rowsCount"] == 0
        id_ = tables.export(table)
        local = Path(project.client.files.download(id_, str(project.folder / "down")))
        assert local.read_bytes() == b""
        for is_gzip in (False, True):
            path = tables.export_to_file(table, str(project.folder), is_gzip=is_gzip)
            assert Path(path).read_text() == '"col1","col2"\n'


def repeated_export_is_the_same_file(project: Project) -> None:
    tables, jobs = project.client.tables, project.client.jobs

    def export(**options: Any) -> dict[str, Any]:
        job = jobs.block_until_completed(tables.export_raw(table, **options)["id"])
        assert job["status"] == "success", job
        results: dict[str, Any] = job["results"]
        return results

    with project.table("a,b\n1,2\n") as table:
        first = export()
        again = export()
        assert first["cacheHit"] is False
        assert again == {"file": {"id": first["file"]["id"]}, "cacheHit": True}
        assert export(is_gzip=True)["cacheHit"] is False
        tables.load(table, project.file("more.csv", "a,b\n3,4\n"))
        assert export()["cacheHit"] is False


def table_is_deleted(project: Project) -> None:
    tables = project.client.tables
    with project.table("a\n1\n") as table:
        assert tables.delete(table) is None
        assert refused(lambda: tables.detail(table)) == (404, "storage.tables.notFound")
        assert refused(lambda: tables.detail("some-totally-non-existent-table")) == (
            404,
            "storage.tables.notFound",
        )


def failing_import_tells_why(project: Project) -> None:
    tables = project.client.tables
    with project.table("a,b\n1,2\n") as table:
        try:
            tables.load(table, project.file("bad.csv", "a;b\n1;2\n"))
        except RuntimeError as error:
            assert "Some columns are missing in the csv file" in str(error), error  # noqa: PT017
            assert "Expected columns: a,b" in str(error), error  # noqa: PT017
        else:
            raise AssertionError("the import should have failed")
        assert tables.preview(table) == '"a","b"\n"1","2"\n'
        bucket = table.rpartition(".")[0]
        path = project.file("table.csv", "a\n1\n")
        assert refused(lambda: tables.create(bucket, "some-table", path)) == (
            400,
            "storage.tables.alreadyExists",
        )


def other_csv_is_read(project: Project) -> None:
    tables = project.client.tables
    with project.bucket() as bucket:
        path = project.file("semicolons.csv", "a;b\n'x;y';2\n")
        table = tables.create(bucket, "semicolons", path, delimiter=";", enclosure="'")
        assert tables.preview(table) == '"a","b"\n"x;y","2"\n'
        path = project.file("bare.csv", "3;4\n")
        tables.load(table, path, delimiter=";", enclosure="'", without_headers=True)
        assert tables.preview(table) == '"a","b"\n"3","4"\n'


# Metadata


def table_metadata_is_upserted(project: Project) -> None:
    metadata = project.client.tables.metadata
    with project.table("col1,col2\nping,pong\n") as table:
        entries = [{"key": "test.key", "value": "one"}]
        columns = [[{"columnName": "col1", "key": "column.key", "value": "deep"}]]
        metadata.create(table, "tests", entries, columns)
        entries[0]["value"] = "two"
        made = metadata.create(table, "tests", entries, columns)

        has(made, "metadata", "columnsMetadata")
        (entry,) = metadata.list(table)
        assert isinstance(entry["id"], str)
        assert (entry["key"], entry["value"], entry["provider"]) == ("test.key", "two", "tests")
        has(entry, "timestamp")
        detail = project.client.tables.detail(table)
        assert detail["metadata"] == [entry]
        (column,) = detail["columnMetadata"]["col1"]
        assert isinstance(column["id"], str)
        assert (column["key"], column["value"]) == ("column.key", "deep")

        metadata.delete(table, entry["id"])

        assert metadata.list(table) == []
        assert project.client.tables.detail(table)["metadata"] == []
        assert refused(lambda: metadata.delete(table, entry["id"]))[0] == 404


def branch_metadata_is_a_list(project: Project) -> None:
    assert isinstance(project.client.branches.metadata("default"), list)
    branch = project.client.branches.branch_detail("default")
    assert branch["isDefault"] is True
    assert isinstance(branch["id"], int)
    assert project.client.branches.metadata(str(branch["id"])) == project.client.branches.metadata()


def configuration_metadata_is_kept(project: Project) -> None:
    metadata = project.client.configurations.metadata
    with project.configuration() as id_:
        made = metadata.create(COMPONENT, id_, "ignored", [{"key": "some.key", "value": "one"}])
        assert [(each["key"], each["value"]) for each in made] == [("some.key", "one")]
        made = metadata.create(COMPONENT, id_, "ignored", [{"key": "other.key", "value": "two"}])
        assert len(made) == 2

        listed = metadata.list(COMPONENT, id_)
        assert listed == made
        assert all(isinstance(each["id"], str) for each in listed)
        metadata.delete(COMPONENT, id_, listed[0]["id"])
        assert metadata.list(COMPONENT, id_) == listed[1:]


# Components and configurations


def components_are_listed(project: Project) -> None:
    components = project.client.components
    with project.configuration(configuration={"a": {}}, state={"b": []}) as id_:
        plain = {each["id"]: each for each in components.list()}[COMPONENT]
        has(plain, "id", "name", "type", "uri", "configurations")
        (bare,) = [each for each in plain["configurations"] if each["id"] == id_]
        assert not {"configuration", "rows", "state"} & set(bare)

        included = components.list(include=["configuration", "rows", "state"])
        whole = {each["id"]: each for each in included}[COMPONENT]
        (full,) = [each for each in whole["configurations"] if each["id"] == id_]
        assert full["configuration"] == {"a": {}}
        assert full["rows"] == []
        assert full["state"] == {"b": []}


def configuration_lives_and_dies(project: Project) -> None:
    configurations = project.client.configurations
    made = configurations.create(
        COMPONENT, "Some configuration", "Said", {"param": [1, 2.5, "x", {}]}, {"last": 1}, "First"
    )
    assert isinstance(made["id"], str)
    detail = configurations.detail(COMPONENT, made["id"])
    assert detail["name"] == "Some configuration"
    assert detail["description"] == "Said"
    assert detail["configuration"] == {"param": [1, 2.5, "x", {}]}
    assert detail["state"] == {"last": 1}
    assert detail["changeDescription"] == "First"
    assert detail["isDisabled"] is False
    assert detail["version"] == 1
    assert made["id"] in [each["id"] for each in configurations.list(COMPONENT)]
    assert configurations.list_config_workspaces(COMPONENT, made["id"]) == []

    configurations.delete(COMPONENT, made["id"])

    assert refused(lambda: configurations.detail(COMPONENT, made["id"]))[0] == 404
    assert made["id"] not in [each["id"] for each in configurations.list(COMPONENT)]
    assert refused(lambda: configurations.list("no.such-component")) == (
        404,
        "storage.components.notFound",
    )


def configuration_comes_back_from_the_trash(project: Project) -> None:
    configurations = project.client.configurations
    id_ = f"fixed-{uuid4().hex[:8]}"
    made = configurations.create(COMPONENT, "Fixed", configuration_id=id_)
    assert made["id"] == id_
    assert refused(lambda: configurations.create(COMPONENT, "Fixed", configuration_id=id_)) == (
        400,
        "configurationAlreadyExists",
    )

    configurations.delete(COMPONENT, id_)
    again = configurations.create(COMPONENT, "Again", configuration_id=id_)

    assert again["id"] == id_
    assert again["name"] == "Again"
    assert again["version"] == made["version"] + 2  # going into the trash is a version, too
    assert again["rows"] == []
    for _ in range(2):
        configurations.delete(COMPONENT, id_)


# Triggers


def trigger_lives_and_dies(project: Project) -> None:
    triggers = project.client.triggers
    token = project.client.tokens.verify()["id"]
    with (
        project.table("a\n1\n") as one,
        project.table("a\n1\n") as two,
        project.configuration() as configuration,
    ):
        made = triggers.create(token, COMPONENT, configuration, 10, [one, two])
        detail = triggers.detail(made["id"])
        assert isinstance(detail["id"], str)
        assert detail["runWithTokenId"] == int(token)
        assert isinstance(detail["runWithTokenId"], int)
        assert detail["component"] == COMPONENT
        assert detail["configurationId"] == configuration
        assert detail["coolDownPeriodMinutes"] == 10
        assert [each["tableId"] for each in detail["tables"]] == [one, two]
        assert detail["creatorToken"]["id"] == token
        assert made["id"] in [each["id"] for each in triggers.list()]

        triggers.update(made["id"], coolDownPeriodMinutes=20, tableIds=[two, one])
        changed = triggers.detail(made["id"])
        assert changed["coolDownPeriodMinutes"] == 20
        assert sorted(each["tableId"] for each in changed["tables"]) == sorted([one, two])
        triggers.update(made["id"], tableIds=[two])
        changed = triggers.detail(made["id"])
        assert [each["tableId"] for each in changed["tables"]] == [two]
        assert changed["component"] == COMPONENT
        assert changed["coolDownPeriodMinutes"] == 20

        triggers.delete(made["id"])
        assert refused(lambda: triggers.detail(made["id"]))[0] == 404
        assert made["id"] not in [each["id"] for each in triggers.list()]


# Side by side with others


def side_by_side(project: Project, name: str, turn: str) -> list[str]:
    """Names of all configurations, and the rows of a table, that this client sees of its project."""
    client = project.client
    client.configurations.create(COMPONENT, f"{name} {turn}")
    if not client.buckets.list():
        client.buckets.create("side")
        client.tables.create("in.c-side", "words", project.file("side.csv", f"who\n{name}\n"))
    assert [each["id"] for each in client.buckets.list()] == ["in.c-side"]
    assert [each["id"] for each in client.tables.list()] == ["in.c-side.words"]
    rows: list[str] = client.tables.preview("in.c-side.words").replace('"', "").split()[1:]
    jobs = client.jobs.list()
    assert {each["creatorToken"]["id"] for each in jobs} == {client.tokens.verify()["id"]}
    return [each["name"] for each in client.configurations.list(COMPONENT)] + rows


# The reader of names


def main(url: str, token: str, folder: str) -> None:
    for line in sys.stdin:
        own = Path(tempfile.mkdtemp(dir=folder))
        os.chdir(own)  # the client leaves slices in the working folder while it puts them together
        name, *arguments = line.split()
        failed, returned = None, None
        try:
            returned = globals()[name](Project(url, token, own), *arguments)
        except BaseException as error:  # noqa: BLE001 - told to the test, also a SystemExit
            told = traceback.TracebackException.from_exception(error, capture_locals=True)
            failed = "".join(told.format())
        print(json.dumps({"returned": returned, "failed": failed}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
