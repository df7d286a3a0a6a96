"""The published client keboola-cli, unmodified, over TLS with hosts that it derives itself.

Commands are given to the shell that the program offers (`kbagent repl`), because starting it takes
longer than what it does; where an exit code matters it is run by itself.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.clients.kbagent import PROJECT, Kbagent
from tests.clients.network import Network
from tests.clients.site import SUFFIX

pytestmark = pytest.mark.docker

CSV = 'id,word\n1,one\n2,"two, too"\n'
ROWS = ['"1","one"', '"2","two, too"']
CIPHER = "KBC::ProjectSecure::"


def file(kbagent: Kbagent, name: str, content: str) -> str:
    path = kbagent.folder / name
    path.write_text(content)
    return str(path)


def new_configuration(kbagent: Kbagent, component: str, content: Any, name: str = "Made") -> str:
    """The id of a new configuration."""
    made = kbagent.ask(
        *("config", "new", *PROJECT, "--component-id", component, "--name", name),
        *("--push", "--no-files", "--configuration", json.dumps(content)),
    )
    return str(made["id"])


@pytest.mark.scenario("storage-api", 14)
def test_a_project_is_added_and_shown(kbagent: Kbagent) -> None:
    added = kbagent.added
    assert (added.code, added.document["status"]) == (0, "ok"), added
    assert added.document["data"]["project_name"] == "Alpha"

    status = kbagent.run("project", "status")

    assert status.code == 0
    (project,) = status.document["data"]
    assert project["status"] == "ok"
    assert project["project_id"] == int(kbagent.account.project)
    assert project["project_name"] == "Alpha"


def test_a_wrong_token_is_told_as_one(kbagent: Kbagent) -> None:
    words = ("--url", kbagent.site.url, "--token", "1-2-nobodyknowsthis")

    done = kbagent.run("project", "add", "--project", "wrong", *words)

    assert done.code == 3  # what the program ends with when it is not let in
    assert done.document["error"]["code"] == "INVALID_TOKEN"
    assert "nobodyknowsthis" not in json.dumps(done.document)


@pytest.mark.scenario("storage-api", 33)
def test_files_go_up_and_come_down(kbagent: Kbagent) -> None:
    path = file(kbagent, "words.txt", "hello")

    id_ = str(kbagent.ask("storage", "file-upload", *PROJECT, "--file", path, "--tag", "t33")["id"])
    listed = kbagent.ask("storage", "files", *PROJECT, "--tag", "t33")
    assert [str(each["id"]) for each in listed["files"]] == [id_]
    detail = kbagent.ask("storage", "file-detail", *PROJECT, "--file-id", id_)
    assert (detail["name"], detail["sizeBytes"], detail["tags"]) == ("words.txt", 5, ["t33"])

    target = kbagent.folder / "down.txt"
    kbagent.ask("storage", "file-download", *PROJECT, "--file-id", id_, "--output", str(target))
    assert target.read_text() == "hello"

    tags = ("--add", "more", "--remove", "t33")
    changed = kbagent.ask("storage", "file-tag", *PROJECT, "--file-id", id_, *tags)
    assert changed["errors"] == []
    detail = kbagent.ask("storage", "file-detail", *PROJECT, "--file-id", id_)
    assert detail["tags"] == ["more"]

    deleted = kbagent.ask("storage", "file-delete", *PROJECT, "--file-id", id_, "--yes")
    assert (deleted["deleted"], deleted["failed"]) == ([int(id_)], [])
    assert kbagent.refused("storage", "file-detail", *PROJECT, "--file-id", id_)["code"] == (
        "NOT_FOUND"
    )


@pytest.mark.scenario("storage-api", 82)
def test_a_table_is_defined(kbagent: Kbagent) -> None:
    made = kbagent.ask("storage", "create-bucket", *PROJECT, "--stage", "in", "--name", "typed")
    assert made["id"] == "in.c-typed"
    columns = ("--column", "id:INTEGER", "--column", "name:STRING", "--primary-key", "id")

    words = ("storage", "create-table", *PROJECT, "--bucket-id", "in.c-typed", "--name", "t")
    kbagent.ask(*words, *columns)

    detail = kbagent.ask("storage", "table-detail", *PROJECT, "--table-id", "in.c-typed.t")
    assert detail["primary_key"] == ["id"]
    assert [each["name"] for each in detail["column_details"]] == ["id", "name"]


@pytest.mark.scenario("storage-api", 83)
@pytest.mark.scenario("storage-api", 84)
@pytest.mark.scenario("storage-api", 89)
def test_a_table_lives_and_dies(kbagent: Kbagent) -> None:
    table = ("--table-id", "out.c-auto.words")
    path = file(kbagent, "words.csv", CSV)

    loaded = kbagent.ask("storage", "upload-table", *PROJECT, *table, "--file", path)
    assert loaded["auto_created_bucket"] is True
    assert loaded["auto_created_table"] is True
    assert (loaded["job_status"], loaded["imported_rows"]) == ("success", 2)

    target = kbagent.folder / "table.csv"
    kbagent.ask("storage", "download-table", *PROJECT, *table, "--output", str(target))
    lines = target.read_text().splitlines()
    assert (lines[0], sorted(lines[1:])) == ('"id","word"', ROWS)
    some = ("--columns", "word", "--where-column", "id", "--where-value", "1")
    kbagent.ask("storage", "download-table", *PROJECT, *table, "--output", str(target), *some)
    assert target.read_text() == '"word"\n"one"\n'

    bucket = ("--bucket-id", "out.c-auto")
    kbagent.ask("storage", "describe-bucket", *PROJECT, *bucket, "--text", "A bucket")
    kbagent.ask("storage", "describe-table", *PROJECT, *table, "--text", "A table")
    kbagent.ask("storage", "describe-column", *PROJECT, *table, "--column", "id=A column")
    detail = kbagent.ask("storage", "table-detail", *PROJECT, *table)
    assert (detail["description"], detail["rows_count"]) == ("A table", 2)
    assert detail["column_details"] == [
        {"name": "id", "description": "A column"},
        {"name": "word"},
    ]
    found = kbagent.ask("storage", "bucket-detail", *PROJECT, *bucket)
    assert (found["description"], found["table_count"]) == ("A bucket", 1)

    kbagent.ask("storage", "add-column", *PROJECT, *table, "--column", "more")
    detail = kbagent.ask("storage", "table-detail", *PROJECT, *table)
    assert detail["columns"] == ["id", "word", "more"]
    gone = kbagent.ask("storage", "delete-column", *PROJECT, *table, "--column", "more", "--yes")
    assert (gone["deleted"], gone["failed"]) == (["more"], [])

    kept = kbagent.ask("storage", "unload-table", *PROJECT, *table, "--tag", "unloaded")
    assert kept["tags"] == ["unloaded"]
    emptied = kbagent.ask("storage", "truncate-table", *PROJECT, *table, "--yes")
    ((rows,), failed) = (emptied["truncated"], emptied["failed"])
    assert (rows["rows_before"], rows["rows_after"], failed) == (2, 0, [])

    deleted = kbagent.ask("storage", "delete-table", *PROJECT, *table, "--yes")
    assert (deleted["deleted"], deleted["failed"]) == (["out.c-auto.words"], [])
    deleted = kbagent.ask("storage", "delete-bucket", *PROJECT, *bucket, "--yes")
    assert (deleted["deleted"], deleted["failed"]) == (["out.c-auto"], [])
    error = kbagent.refused("storage", "table-detail", *PROJECT, *table)
    assert error["code"] == "NOT_FOUND"


@pytest.mark.scenario("storage-api", 103)
@pytest.mark.scenario("storage-api", 98)
def test_a_configuration_lives_and_dies(kbagent: Kbagent) -> None:
    component = ("--component-id", "ex-generic-v2")
    content = {"parameters": {"deep": {"list": [], "object": {}, "numbers": [1, 2.5]}}}
    id_ = new_configuration(kbagent, "ex-generic-v2", content)
    config = (*PROJECT, *component, "--config-id", id_)

    def detail() -> Any:
        return kbagent.ask("config", "detail", *config)

    listed = kbagent.ask("config", "list", *PROJECT, *component)
    assert (listed["errors"], [each["config_id"] for each in listed["configs"]]) == ([], [id_])
    assert detail()["configuration"] == content

    kbagent.ask("config", "update", *config, "--set", "parameters.deep.more=5")
    more = json.dumps({"parameters": {"other": {}}})
    kbagent.ask("config", "update", *config, "--configuration", more, "--merge")
    changed = detail()
    deep = {**content["parameters"]["deep"], "more": 5}
    assert changed["configuration"] == {"parameters": {"deep": deep, "other": {}}}
    assert changed["version"] == 3

    body = json.dumps({"parameters": {"row": 1}})
    words = ("config", "row-create", *config, "--name", "Row", "--configuration", body)
    row = str(kbagent.ask(*words)["id"])
    kbagent.ask("config", "row-update", *config, "--row-id", row, "--set", "parameters.row=2")
    (stored,) = detail()["rows"]
    assert (stored["id"], stored["configuration"]) == (row, {"parameters": {"row": 2}})
    assert stored["version"] == 2
    kbagent.ask("config", "row-delete", *config, "--row-id", row, "--yes")
    assert detail()["rows"] == []

    kbagent.ask("config", "state-set", *config, "--state", '{"last": {"id": 7}}', "--yes")
    assert kbagent.ask("config", "state-get", *config)["state"] == {"last": {"id": 7}}

    kbagent.ask("config", "set-folder", *config, "--name", "Folder")
    (entry,) = kbagent.ask("config", "metadata-list", *config)["metadata"]
    assert (entry["key"], entry["value"]) == ("KBC.configuration.folderName", "Folder")
    (shown,) = kbagent.ask("config", "list", *PROJECT, *component)["configs"]
    assert shown["folder"] == "Folder"

    kbagent.ask("config", "rename", *config, "--name", "Renamed")
    kbagent.ask("config", "delete", *config)
    assert kbagent.ask("config", "list", *PROJECT, *component)["configs"] == []
    (gone,) = kbagent.ask("config", "trash-list", *PROJECT, *component)["trash"]
    assert (gone["config_id"], gone["name"]) == (id_, "Renamed")
    restored = kbagent.ask("config", "restore", *config)
    assert (restored["status"], restored["version"]) == ("restored", gone["version"] + 1)
    assert detail()["configuration"] == changed["configuration"]


@pytest.mark.scenario("storage-api", 105)
@pytest.mark.scenario("storage-api", 117)
def test_secrets_are_encrypted_before_they_are_stored(kbagent: Kbagent) -> None:
    component = ("--component-id", "vaka-test.tables")
    plain = {"#token": "plain secret", "deep": [{"#more": "another"}], "open": "#no"}
    id_ = new_configuration(kbagent, "vaka-test.tables", {"parameters": plain}, "Secret")
    stored = kbagent.ask("config", "detail", *PROJECT, *component, "--config-id", id_)
    parameters = stored["configuration"]["parameters"]
    assert parameters["#token"].startswith(CIPHER)
    assert parameters["deep"][0]["#more"].startswith(CIPHER)
    assert parameters["open"] == "#no"
    assert "plain secret" not in json.dumps(stored)

    given = json.dumps({"#a": "secret", "#b": ""})
    once = kbagent.ask("encrypt", "values", *PROJECT, *component, "--input", given)
    assert set(once) == {"#a", "#b"}
    assert all(value.startswith(CIPHER) for value in once.values())
    words = ("encrypt", "values", *PROJECT, *component, "--input")
    assert kbagent.ask(*words, json.dumps(once)) == once
    assert kbagent.ask(*words, given)["#a"] != once["#a"]


@pytest.mark.scenario("storage-api", 105)
def test_nothing_is_stored_while_secrets_cannot_be_encrypted(
    kbagent: Kbagent, network: Network
) -> None:
    words = ("config", "new", *PROJECT, "--component-id", "vaka-test.fails", "--name", "Plain")
    content = ("--push", "--no-files", "--configuration", '{"parameters": {"#token": "plain"}}')

    with network.leading(f"encryption.{SUFFIX}", "127.0.0.1"):  # where nobody listens in there
        done = kbagent.run(*words, *content)

    assert done.code != 0
    assert "encrypt" in done.document["error"]["message"].lower()
    listed = kbagent.ask("config", "list", *PROJECT, "--component-id", "vaka-test.fails")
    assert "Plain" not in [each["config_name"] for each in listed["configs"]]


def test_branches_and_their_metadata(kbagent: Kbagent) -> None:
    (branch,) = kbagent.ask("branch", "list", *PROJECT)["branches"]
    assert branch["isDefault"] is True
    key = ("--key", "KBC.projectDescription")
    kbagent.ask("branch", "metadata-set", *PROJECT, *key, "--text", "What it is for")
    (entry,) = kbagent.ask("branch", "metadata-list", *PROJECT)["metadata"]
    assert (entry["key"], entry["value"]) == ("KBC.projectDescription", "What it is for")


def test_an_action_answers_while_the_caller_waits(kbagent: Kbagent) -> None:
    words = ("component", "sync-action", "testConnection", *PROJECT)
    component = ("--component-id", "vaka-test.actions")
    done = kbagent.ask(*words, *component, "--config-data", "{}")
    assert done["result"] == {"status": "ok", "empty": {}, "list": []}

    unknown = ("component", "sync-action", "unknown", *PROJECT, *component)
    error = kbagent.refused(*unknown, "--config-data", "{}")
    assert 'Action "unknown" not defined for component "vaka-test.actions"' in error["message"]

    refuses = ("component", "sync-action", "refuse", *PROJECT, *component)
    error = kbagent.refused(*refuses, "--config-data", '{"parameters": {"refuse": true}}')
    assert "No such account." in error["message"]


@pytest.mark.scenario("storage-api", 107)
def test_a_job_writes_a_table(kbagent: Kbagent) -> None:
    outputs = [{"source": "words.csv", "destination": "out.c-job.words", "primary_key": ["id"]}]
    content = {"storage": {"output": {"tables": outputs}}}
    id_ = new_configuration(kbagent, "vaka-test.tables", content, "Job")
    config = ("--component-id", "vaka-test.tables", "--config-id", id_)

    job = kbagent.ask("job", "run", *PROJECT, *config, "--wait", "--log-tail-lines", "20")

    assert (job["status"], job["isFinished"]) == ("success", True)
    table = kbagent.ask("storage", "table-detail", *PROJECT, "--table-id", "out.c-job.words")
    assert table["rows_count"] == 2
    shown = kbagent.ask("job", "detail", *PROJECT, "--job-id", job["id"], "--log-tail-lines", "20")
    assert shown["result"]["output"]["tables"][0]["id"] == "out.c-job.words"
    assert "tables were written" in json.dumps(shown["logTail"])
    listed = kbagent.ask("job", "list", *PROJECT, *config)
    assert [each["id"] for each in listed["jobs"]] == [job["id"]]


@pytest.mark.scenario("storage-api", 108)
def test_a_failed_job_says_what_its_component_said(kbagent: Kbagent) -> None:
    id_ = new_configuration(kbagent, "vaka-test.fails", {}, "Fails")
    config = ("--component-id", "vaka-test.fails", "--config-id", id_)

    done = kbagent.run("job", "run", *PROJECT, *config, "--wait", "--log-tail-lines", "20")

    assert done.code != 0
    assert "The source is not there." in done.document["error"]["message"]
    (job,) = kbagent.ask("job", "list", *PROJECT, *config)["jobs"]
    shown = kbagent.ask("job", "detail", *PROJECT, "--job-id", job["id"], "--log-tail-lines", "20")
    assert shown["status"] == "error"
    assert "looking for it" in json.dumps(shown["logTail"])


@pytest.mark.scenario("storage-api", 111)
def test_a_running_job_is_terminated(kbagent: Kbagent) -> None:
    id_ = new_configuration(kbagent, "vaka-test.sleeps", {}, "Sleeps")
    config = ("--component-id", "vaka-test.sleeps", "--config-id", id_)
    job = kbagent.ask("job", "run", *PROJECT, *config)["id"]
    kbagent.until_job(job, {"processing"})

    killed = kbagent.ask("job", "terminate", *PROJECT, "--job-id", job, "--yes")

    assert ([each["id"] for each in killed["killed"]], killed["failed"]) == ([job], [])
    assert kbagent.until_job(job, {"terminated"})["isFinished"] is True
    again = kbagent.ask("job", "terminate", *PROJECT, "--job-id", job, "--yes")
    assert again["killed"] == []
    assert job in json.dumps(again["already_finished"])
