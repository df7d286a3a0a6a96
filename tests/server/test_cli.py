"""The `vaka` command, on the embedded engine and against a server: alike to the letter."""

from __future__ import annotations

import gzip
import json
import math
import os
import pty
import subprocess
import sys
import threading
import unicodedata
import zipfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trio
from hypercorn.trio import serve as serve_http
from tests.server.conftest import COMPONENT, IMAGE, cli, runtime_plugin
from typer.testing import CliRunner, Result

from vaka import Engine
from vaka.models.container import ContainerSpec
from vaka.testing import FakeHost, FakeImage, Printed, Script, host_path
from vaka_keyring import ring
from vaka_server import home
from vaka_server.app import create_app
from vaka_server.bootstrap import first_token
from vaka_server.serve import address, hypercorn_config, listen
from vaka_server.settings import Settings

CSV = "id,name\n1,a\n2,b\n3,c\n"


@dataclass
class Shell:
    """Runs commands, all with the same options that say where."""

    options: list[str]
    host: FakeHost

    def run(self, *arguments: str, code: int = 0, input: str | None = None) -> Result:  # noqa: A002
        result = CliRunner().invoke(cli(), [*arguments, *self.options], input=input)
        assert result.exit_code == code, (arguments, result.stdout, result.stderr, result.exception)
        return result

    def json(self, *arguments: str, code: int = 0) -> Any:
        return json.loads(self.run(*arguments, "--json", code=code).stdout)

    def lines(self, *arguments: str, code: int = 0) -> list[str]:
        return self.run(*arguments, code=code).stdout.splitlines()


class Server:
    """A server in a thread of its own."""

    def __init__(self, settings: Settings, host: FakeHost) -> None:
        self._settings = settings
        self._host = host
        self._stop: Callable[[], None]
        self._ready = threading.Event()
        self._error: BaseException | None = None
        self.url = ""
        self.secret = ""
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Server:
        self._thread.start()
        assert self._ready.wait(30)
        if self._error is not None:
            raise self._error
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()
        self._thread.join(60)
        assert not self._thread.is_alive()
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            trio.run(self._serve)
        except BaseException as error:  # noqa: BLE001 - raised again where the test is
            self._error = error
        finally:
            self._ready.set()

    async def _serve(self) -> None:
        stop = trio.Event()
        token = trio.lowlevel.current_trio_token()
        self._stop = lambda: token.run_sync_soon(stop.set)
        listener = listen(self._settings)
        self.url = address(listener)
        config = hypercorn_config(self._settings, listener)
        listener.close()
        engine = Engine(self._settings.engine, plugins=[runtime_plugin(self._host)])
        async with engine:
            self.secret = await first_token(engine.catalog) or ""
            self._ready.set()
            await serve_http(create_app(engine, self._settings), config, shutdown_trigger=stop.wait)


@pytest.fixture(params=["embedded", "server"])
def shell(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Shell]:
    host = FakeHost({IMAGE: Script()})
    folder = tmp_path / "home"
    monkeypatch.setenv("VAKA_IDLE_POLL", "0.5")
    if request.param == "embedded":
        plugins = [runtime_plugin(host)]
        monkeypatch.setattr(
            "vaka_server.cli.embedded.Engine", lambda config: Engine(config, plugins=plugins)
        )
        made = Shell(["--home", str(folder)], host)
        made.run("init")
        yield made
        return
    folder.mkdir()
    ring.write(folder / "keys", ring.new_ring(), create=True)
    settings = Settings(home=folder, port=0, shutdown="stop", graceful_timeout=0)
    with Server(settings, host) as server:
        yield Shell(["--url", server.url, "--token", server.secret], host)


@pytest.fixture
def component(shell: Shell, tmp_path: Path) -> Path:
    """The component `C`, registered."""
    path = tmp_path / "component.json"
    path.write_text(json.dumps(COMPONENT))
    shell.run("component", "add", str(path))
    return path


def write(path: Path, value: Any) -> str:
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return str(path)


def play(shell: Shell, *output: Printed, **script: Any) -> None:
    shell.host.images[IMAGE] = FakeImage(Script(output, **script))


# -- what is configured ----------------------------------------------------------------------------


def test_components(shell: Shell, component: Path) -> None:
    assert shell.run("component", "add", str(component)).stdout == "Component C is registered.\n"
    # these hold configurations only, and are there from the start
    built_in = ["keboola.mcp-server-tool", "keboola.shared-code", "keboola.variables"]
    assert [each["id"] for each in shell.json("component", "list")] == ["C", *built_in]
    shown = shell.lines("component", "list")
    assert [line.split() for line in shown[:2]] == [
        ["ID", "TYPE", "NAME", "IMAGE"],
        ["C", "application", "Worker", "worker"],
    ]
    assert json.loads(shell.run("component", "show", "C").stdout)["data"] == COMPONENT["data"]
    missing = shell.run("component", "show", "none", code=1)
    assert missing.stderr.startswith("Error: ")
    assert "none" in missing.stderr
    added = shell.run("component", "add", "-", input=json.dumps({**COMPONENT, "id": "D"}))
    assert added.stdout == "Component D is registered.\n"
    assert "`id`" in shell.run("component", "add", "-", input="[]", code=2).stderr
    assert "not JSON" in shell.run("component", "add", "-", input="{", code=2).stderr
    assert "No such file" in shell.run("component", "add", "/none", code=1).stderr


def test_configurations_and_rows(shell: Shell, component: Path, tmp_path: Path) -> None:
    content = write(tmp_path / "content.json", {"parameters": {"a": 1}})
    made = shell.run(
        "config", "create", "C", "--id", "X", "--name", "N", "--configuration", content
    )
    assert made.stdout == "X\n"
    assert json.loads(shell.run("config", "get", "C", "X").stdout) == {"parameters": {"a": 1}}
    full = shell.json("config", "get", "C", "X")
    assert (full["name"], full["version"], full["rows"]) == ("N", 1, [])
    other = write(tmp_path / "other.json", {"parameters": {}})
    assert shell.run("config", "put", "C", "X", "--configuration", other).stdout == "Version 2.\n"
    assert shell.run("config", "put", "C", "X", "--name", "M", "--change", "why").stdout == (
        "Version 3.\n"
    )
    stale = shell.run("config", "put", "C", "X", "--name", "L", "--expected-version", "1", code=1)
    assert stale.stderr.startswith("Error: ")
    assert json.loads(shell.run("config", "get", "C", "X", "--version", "1").stdout) == {
        "parameters": {"a": 1}
    }
    versions = shell.json("config", "versions", "C", "X")
    assert [each["version"] for each in versions] == [3, 2, 1]
    assert versions[0]["changeDescription"] == "why"
    for arguments in (("config", "list"), ("config", "list", "C")):
        assert shell.lines(*arguments)[1].split() == ["C", "X", "3", "no", "M"]
    assert shell.run("row", "create", "C", "X", "--id", "R", "--configuration", content).stdout == (
        "R\n"
    )
    assert shell.run("row", "put", "C", "X", "R", "--name", "row", "--disabled").stdout == (
        "Version 2.\n"
    )
    assert json.loads(shell.run("row", "get", "C", "X", "R").stdout) == {"parameters": {"a": 1}}
    assert shell.lines("row", "list", "C", "X")[1].split() == ["R", "2", "yes", "row"]
    assert "Row none" in shell.run("row", "get", "C", "X", "none", code=1).stderr
    assert shell.json("config", "list", "C")[0]["id"] == "X"


def test_state(shell: Shell, component: Path, tmp_path: Path) -> None:
    shell.run("config", "create", "C", "--id", "X")
    assert shell.json("state", "get", "C", "X") == {"state": {}, "version": 0}
    file = write(tmp_path / "state.json", {"seen": 1})
    assert shell.run("state", "set", "C", "X", file).stdout == "Version 1.\n"
    assert json.loads(shell.run("state", "get", "C", "X").stdout) == {"seen": 1}
    shell.run("state", "set", "C", "X", file, "--expected-version", "0", code=1)
    shell.run("row", "create", "C", "X", "--id", "R")
    shell.run("state", "set", "C", "X", file, "--row", "R")
    assert shell.json("state", "get", "C", "X", "--row", "R")["version"] == 1


def test_the_features_and_limits_of_the_project(shell: Shell) -> None:
    before = shell.json("project", "show")["features"]
    assert "queuev2" in before
    change = ["--feature", "new-native-types", "--no-feature", "queuev2", "--limit", "a.b=5"]
    if shell.options[0] == "--url":
        refused = shell.run("project", "set", *change, code=1)
        assert "are its operator's" in refused.stderr
        return
    shown = shell.run("project", "set", *change).stdout
    assert shown.startswith("Project Main\n")
    assert shown.endswith("feature  new-native-types\nlimit    a.b=5\n")
    after = [*(name for name in before if name != "queuev2"), "new-native-types"]
    assert shell.json("project", "show")["features"] == after
    shell.run("project", "set", "--no-limit", "a.b", "--feature", "new-native-types")
    found = shell.json("project", "show")
    assert (found["features"], found["limits"]) == (after, {})
    shell.run("project", "set", code=2)
    shell.run("project", "set", "--limit", "a.b=x", code=2)


def test_tokens(shell: Shell) -> None:
    made = shell.json("token", "create", "--description", "for tests", "--role", "read")
    assert (made["role"], made["description"]) == ("read", "for tests")
    secret = shell.run("token", "create", "--description", "another").stdout.strip()
    listed = shell.run("token", "list").stdout
    assert "for tests" in listed
    assert made["token"] not in listed
    assert secret not in listed
    assert shell.run("token", "revoke", made["id"]).stdout == f"Token {made['id']} is revoked.\n"
    assert "for tests" not in shell.run("token", "list").stdout
    shell.run("token", "revoke", "999999", code=1)
    shell.run("token", "create", "--description", "x", "--role", "god", code=2)
    other = shell.json("token", "create", "--description", "fresh", "--role", "admin")
    fresh = shell.run("token", "refresh", other["id"]).stdout.strip()
    assert fresh.startswith(f"1-{other['id']}-")
    assert fresh != other["token"]
    shell.run("token", "revoke", other["id"])


def test_a_token_for_buckets_and_components(shell: Shell) -> None:
    shell.run("bucket", "create", "in", "limits")
    limits = ("--bucket", "in.c-limits=read", "--component", "C")
    made = shell.json("token", "create", "--description", "limited", "--role", "admin", *limits)
    assert made["bucketPermissions"] == {"in.c-limits": "read"}
    assert made["componentAccess"] == ["C"]
    assert not made["isMasterToken"]
    for wrong in ("in.c-limits", "in.c-limits=manage", "=read"):
        shell.run("token", "create", "--description", "x", "--bucket", wrong, code=2)


def test_projects(shell: Shell) -> None:
    secret = shell.run("project", "create", "Another", "--feature", "f").stdout.strip()
    listed = shell.json("project", "list")
    assert (listed[-1]["name"], listed[-1]["features"][-1]) == ("Another", "f")
    assert secret.startswith(f"{listed[-1]['id']}-")
    assert secret not in shell.run("project", "list").stdout


def test_the_audit_log(shell: Shell) -> None:
    made = shell.json("token", "create", "--description", "seen", "--role", "read")
    shell.run("token", "revoke", made["id"])
    found = shell.json("audit", "--kind", "token", "--of-token", made["id"])
    assert [each["kind"] for each in found] == ["token.revoked", "token.created"]
    shown = shell.run("audit", "--kind", "token.revoked", "--limit", "1").stdout
    assert f"token {made['id']}" in shown
    assert made["token"] not in shell.run("audit", "--all").stdout
    assert shell.json("audit", "--since", "+1 day") == []


def test_what_else_the_audit_log_tells(shell: Shell, component: Path) -> None:
    shell.run("vault", "set", "x", "swordfish")
    shell.run("vault", "delete", "x")
    branch = shell.run("branch", "create", "mine").stdout.strip()
    shell.run("branch", "delete", branch)
    found = shell.json("audit", "--limit", "5")
    told = [(each["kind"], each["subject"]) for each in found if each["kind"] != "token.used"]
    assert told[:4] == [
        ("branch.removed", {"branch": branch}),
        ("branch.created", {"branch": branch}),
        ("vault.removed", {"name": "x"}),
        ("vault.set", {"name": "x"}),
    ]
    (registered,) = shell.json("audit", "--kind", "component")
    assert registered["subject"] == {"component": "C"}
    assert "swordfish" not in shell.run("audit", "--all").stdout


def test_branches(shell: Shell, component: Path) -> None:
    (main,) = shell.json("branch", "list")
    assert (main["name"], main["isDefault"]) == ("Main", True)
    made = shell.json("branch", "create", "mine", "--description", "to try it")
    assert (made["name"], made["description"]) == ("mine", "to try it")
    assert "already" in shell.run("branch", "create", "mine", code=1).stderr
    assert shell.json("branch", "list") == [main, made]
    assert "Main" in shell.run("branch", "delete", main["id"], code=1).stderr
    other = shell.run("branch", "create", "other").stdout.strip()
    assert shell.run("branch", "delete", other).stdout == f"Branch {other} is deleted.\n"
    refused = shell.run("run", "C", "--config-data", "{}", "--branch", other, code=1)
    assert f"Branch {other} not found" in refused.stderr
    assert shell.json("branch", "list") == [main, made]


def test_the_vault(shell: Shell) -> None:
    assert shell.run("vault", "set", "x", "one").stdout == "{{ vault.x }} is set.\n"
    shell.run("vault", "set", "y", "-", input="two words\n")
    shell.run("vault", "set", "x", "other", "--branch", "7")
    assert [each["value"] for each in shell.json("vault", "list")] == ["one", "two words"]
    assert [each["value"] for each in shell.json("vault", "list", "--branch", "7")] == [
        "other",
        "two words",
    ]
    assert shell.lines("vault", "list")[0].split() == ["NAME", "BRANCH", "ENCRYPTED", "VALUE"]
    shell.run("vault", "set", "s", "hunter2", "--encrypted")
    (sealed,) = [each for each in shell.json("vault", "list") if each["name"] == "s"]
    assert sealed["value"].startswith("KBC::ProjectWideSecure::v1.")
    shell.run("vault", "set", "s", "KBC::ProjectSecure::x", "--encrypted")
    assert "letters" in shell.run("vault", "set", "a b", "1", code=1).stderr
    assert shell.run("vault", "delete", "x").stdout == "{{ vault.x }} is removed.\n"
    shell.run("vault", "delete", "x", code=1)
    assert [each["name"] for each in shell.json("vault", "list")] == ["s", "y"]


# -- data ------------------------------------------------------------------------------------------


def test_tables(shell: Shell, tmp_path: Path) -> None:
    assert shell.run("bucket", "create", "in", "c-b", "--description", "words").stdout == "in.c-b\n"
    assert shell.lines("bucket", "list")[1].split()[::2] == ["in.c-b", "words"]
    shell.run("bucket", "create", "in", "b", code=1)
    shell.run("bucket", "create", "sys", "b", code=2)
    file = write(tmp_path / "a.csv", CSV)
    loaded = shell.run("table", "load", "in.c-b.t", file, "--primary-key", "id")
    assert loaded.stdout == "Loaded 3 rows; in.c-b.t has 3.\n"
    more = tmp_path / "more.csv.gz"
    more.write_bytes(gzip.compress(b"id,name\n3,changed\n4,new\n"))
    loaded = shell.run("table", "load", "in.c-b.t", str(more), "--incremental")
    assert loaded.stdout == "Loaded 2 rows; in.c-b.t has 4.\n"
    assert shell.lines(
        "table", "preview", "in.c-b.t", "--where", "id>=3", "--columns", "name,id"
    ) == [
        "name     id",
        "changed  3",
        "new      4",
    ]
    assert shell.json("table", "preview", "in.c-b.t", "--where", "id=1|2", "--columns", "id") == [
        {"id": "1"},
        {"id": "2"},
    ]
    output = tmp_path / "out.csv"
    assert shell.run("table", "export", "in.c-b.t", "--output", str(output)).stdout == (
        f"Wrote 4 rows to {output}.\n"
    )
    assert sorted(output.read_text().splitlines()) == [
        *('"1","a"', '"2","b"', '"3","changed"', '"4","new"', '"id","name"'),
    ]
    printed = shell.run("table", "export", "in.c-b.t", "--where", "name=a", "--columns", "id")
    assert printed.stdout == '"id"\n"1"\n'
    (listed,) = shell.json("table", "list")
    assert (listed["id"], listed["rowsCount"], listed["primaryKey"]) == ("in.c-b.t", 4, ["id"])
    assert shell.lines("table", "list", "in.c-b")[1].split()[:2] == ["in.c-b.t", "4"]
    assert sorted(path.name for path in tmp_path.glob(".vaka*")) == []


def test_a_load_that_fails_says_why_and_changes_nothing(shell: Shell, tmp_path: Path) -> None:
    shell.run("bucket", "create", "in", "b")
    file = write(tmp_path / "a.csv", CSV)
    shell.run("table", "load", "in.c-b.t", file)
    broken = write(tmp_path / "broken.csv", "id,name\n1,a,more\n")
    assert shell.run("table", "load", "in.c-b.t", broken, code=1).stderr.startswith("Error: ")
    failed = shell.run("table", "load", "in.c-b.t", broken, "--json", code=1)
    assert json.loads(failed.stderr)["kind"] == "user"
    assert shell.json("table", "list")[0]["rowsCount"] == 3
    assert "No such file" in shell.run("table", "load", "in.c-b.t", "/none", code=1).stderr
    for arguments in (("export", "in.c-b.none"), ("preview", "in.c-b.none")):
        assert "none" in shell.run("table", *arguments, code=1).stderr
    kept = tmp_path / "kept.csv"
    kept.write_text("before")
    shell.run("table", "export", "in.c-b.none", "--output", str(kept), code=1)
    assert kept.read_text() == "before"
    shell.run("table", "preview", "in.c-b.t", "--where", "nonsense", code=2)


def test_files(shell: Shell, tmp_path: Path) -> None:
    file = tmp_path / "a.bin"
    file.write_bytes(bytes(range(256)))
    id_ = shell.run("file", "upload", str(file), "--tag", "t", "--tag", "u").stdout.strip()
    (listed,) = shell.json("file", "list", "--tag", "t")
    assert (str(listed["id"]), listed["name"], listed["tags"]) == (id_, "a.bin", ["t", "u"])
    assert shell.json("file", "list", "--query", "tags:none") == []
    assert shell.lines("file", "list", "--tag", "none") == ["(none)"]
    output = tmp_path / "b.bin"
    shell.run("file", "download", id_, "--output", str(output))
    assert output.read_bytes() == bytes(range(256))
    assert "999999" in shell.run("file", "download", "999999", code=1).stderr


# -- jobs ------------------------------------------------------------------------------------------


def copy_table(spec: ContainerSpec) -> None:
    """What the component does: writes its input table out again, and keeps a state."""
    data = next(mount.source for mount in spec.mounts if mount.target == "/data")
    for path in (data / "in/tables").glob("*.csv"):
        (data / "out/tables" / path.name).write_bytes(path.read_bytes())
    (data / "out/state.json").write_text('{"runs": 1}')


def test_a_stored_configuration_runs_end_to_end(
    shell: Shell, component: Path, tmp_path: Path
) -> None:
    shell.run("bucket", "create", "in", "b")
    shell.run("bucket", "create", "out", "b")
    shell.run("table", "load", "in.c-b.t", write(tmp_path / "a.csv", CSV))
    content = {
        "storage": {
            "input": {
                "tables": [
                    {
                        "source": "in.c-b.t",
                        "destination": "t.csv",
                        "columns": ["id"],
                        "where_column": "name",
                        "where_values": ["a", "b"],
                    }
                ]
            },
            "output": {"tables": [{"source": "t.csv", "destination": "out.c-b.t"}]},
        }
    }
    file = write(tmp_path / "content.json", content)
    shell.run("config", "create", "C", "--id", "X", "--configuration", file)
    play(shell, Printed(b"\x1b[31mred\x1b[0m\n"), Printed(b"done\n"), effect=copy_table)
    ran = shell.run("run", "C", "--config", "X")
    assert [line.split(" ", 1)[1].strip() for line in ran.stdout.splitlines()] == ["red", "done"]
    assert "Component processing finished." in ran.stderr
    assert sorted(shell.run("table", "export", "out.c-b.t").stdout.splitlines()) == [
        *('"1"', '"2"', '"id"'),
    ]
    assert json.loads(shell.run("state", "get", "C", "X").stdout)["component"] == {"runs": 1}
    (job,) = shell.json("jobs")
    id_ = str(job["id"])
    told = shell.run("show", id_).stdout
    assert told.startswith(f"Job {id_}: success. Component processing finished.")
    for words in ("component  C", "config     X", "in.c-b.t", "out.c-b.t", IMAGE, "collected"):
        assert words in told
    (stage,) = shell.json("show", id_)["stages"]
    assert (stage["image"], stage["exitCode"]) == (IMAGE, 0)
    assert [line.split(" ", 1)[1].strip() for line in shell.lines("logs", id_)] == ["red", "done"]
    assert len(shell.lines("logs", id_, "--all")) > 5
    events = [json.loads(line) for line in shell.lines("logs", id_, "--json")]
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))


def test_a_row_a_tag_and_an_inline_configuration(
    shell: Shell, component: Path, tmp_path: Path
) -> None:
    shell.run("config", "create", "C", "--id", "X")
    shell.run("row", "create", "C", "X", "--id", "R")
    assert shell.json("run", "C", "--config", "X", "--row", "R")["params"]["row"] == "R"
    shell.run("row", "create", "C", "X", "--id", "S")
    both = shell.json(
        *("run", "C", "--config", "X", "--row", "S", "--row", "R", "--parallel", "infinity")
    )
    assert both["params"]["configRowIds"] == ["S", "R"]
    assert both["params"]["parallelism"] == "infinity"
    assert [row["id"] for row in both["result"]["rows"]] == ["R", "S"]
    assert "rows       R (success), S (success)" in shell.run("show", str(both["id"])).stdout
    shell.host.images["worker:2"] = FakeImage(Script((Printed(b"two\n"),)))
    assert "two" in shell.run("run", "C", "--config", "X", "--tag", "2").stdout
    inline = shell.json("run", "C", "--config-data", '{"parameters": {"a": 1}}')
    assert inline["params"]["configData"] == {"parameters": {"a": 1}}
    file = write(tmp_path / "inline.json", {"parameters": {"b": 2}})
    inline = shell.json("run", "C", "--config-data", f"@{file}")
    assert inline["params"]["configData"] == {"parameters": {"b": 2}}
    assert "not JSON" in shell.run("run", "C", "--config-data", "{", code=2).stderr
    secret = shell.json("run", "C", "--config-data", '{"parameters": {"#a": "hunter-2"}}')
    stored = secret["params"]["configData"]["parameters"]["#a"]
    assert stored.startswith("KBC::ProjectSecure::")
    assert "hunter-2" not in str(secret)


def test_a_debug_job_brings_what_its_stages_were_given(
    shell: Shell, component: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shell.run("bucket", "create", "in", "b")
    shell.run("table", "load", "in.c-b.t", write(tmp_path / "a.csv", CSV))
    storage = {
        "input": {"tables": [{"source": "in.c-b.t", "destination": "t.csv"}]},
        "output": {"tables": [{"source": "t.csv", "destination": "out.c-b.t"}]},
    }
    config_data = json.dumps({"storage": storage})
    play(shell, Printed(b"done\n"), effect=copy_table)

    ran = shell.run("debug", "C", "--config-data", config_data)
    log, *fetched = ran.stdout.splitlines()
    assert log.endswith("done")
    (job,) = shell.json("jobs")
    id_ = str(job["id"])
    assert (job["params"]["mode"], job["status"]) == ("debug", "success")
    assert fetched == [f"debug-{id_}/stage_0.zip", f"debug-{id_}/stage_output.zip"]
    with zipfile.ZipFile(tmp_path / fetched[1]) as archive:
        assert "out/tables/t.csv" in archive.namelist()
    assert "out.c-b.t" not in shell.run("table", "list").stdout

    first, last = shell.json("snapshots", id_)
    assert (first["stage"], last["stage"]) == ("stage_0", "stage_output")
    assert (first["component"], first["row"], first["leftOut"]) == ("C", "", 0)
    listed = shell.lines("snapshots", "list", id_)
    assert [line.split()[0] for line in listed[1:]] == ["stage_0", "stage_output"]

    assert shell.lines("snapshots", "get", id_, "output") == [f"{id_}-stage_output"]
    assert (tmp_path / f"{id_}-stage_output/out/tables/t.csv").read_text().startswith('"id"')
    again = shell.run("snapshots", "get", id_, "output", code=2)
    assert "exists already" in again.stderr
    shell.run("snapshots", "get", id_, "stage_0.zip", "--output", "new/folder")
    assert json.loads((tmp_path / "new/folder/config.json").read_text())["storage"]
    assert (
        "it has stage_0.zip, stage_output.zip"
        in shell.run("snapshots", "get", id_, "7", code=1).stderr
    )
    assert sorted(each.name for each in tmp_path.iterdir() if each.name.startswith(".")) == []


def test_a_failed_debug_job_of_rows_in_another_format(
    shell: Shell, component: Path, tmp_path: Path
) -> None:
    shell.run("config", "create", "C", "--id", "X")
    for row in ("R", "S"):
        shell.run("row", "create", "C", "X", "--id", row)
    wanted = ("debug", "C", "--config", "X", "--format", "tar.zst", "--tag", "1")
    job = shell.json(*wanted, "--output", str(tmp_path / "all"))
    assert job["params"]["tag"] == "1"
    names = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.glob("all/*/*"))
    assert names == [f"all/{row}/stage_{n}.tar.zst" for row in "RS" for n in ("0", "output")]
    assert [each["path"] for each in job["snapshots"]] == [str(tmp_path / name) for name in names]
    id_, target = str(job["id"]), str(tmp_path / "unpacked")
    assert "--row: R, S" in shell.run("snapshots", "get", id_, "0", "-o", target, code=2).stderr
    shell.run("snapshots", "get", id_, "0", "--row", "S", "--output", target)
    assert (tmp_path / "unpacked/in/tables").is_dir()

    play(shell, exit_code=1)
    job = shell.json("debug", "C", "--config-data", "{}", "--no-download", code=1)
    assert [each["name"] for each in job["snapshots"]] == ["stage_0.zip"]
    assert "path" not in job["snapshots"][0]
    ran = shell.json("run", "C", "--config-data", "{}", code=1)
    nothing = shell.run("snapshots", "get", str(ran["id"]), "0", code=1)
    assert "only debug jobs have" in nothing.stderr
    assert (
        "zip or tar.zst"
        in shell.run("debug", "C", "--config-data", "{}", "--format", "rar", code=2).stderr
    )


@pytest.mark.parametrize(
    ("exit_code", "code", "words"),
    [
        (1, 1, "The component ended with exit code 1, a user error: the reason"),
        (2, 3, "The component failed with exit code 2; its last words: the reason."),
    ],
)
def test_a_failed_job_ends_the_command_with_its_code(
    shell: Shell, component: Path, exit_code: int, code: int, words: str
) -> None:
    play(shell, Printed(b"the reason\n", stream="stderr"), exit_code=exit_code)
    ran = shell.run("run", "C", "--config-data", "{}", code=code)
    assert words in ran.stderr
    job = shell.json("run", "C", "--config-data", "{}", code=code)
    assert job["status"] == "error"
    assert words in shell.run("show", str(job["id"])).stdout
    shell.run("wait", str(job["id"]), code=code)


def test_an_action_answers_with_what_its_container_prints(shell: Shell, tmp_path: Path) -> None:
    data = {**COMPONENT["data"], "synchronous_actions": ["look", "run"]}
    shell.run("component", "add", write(tmp_path / "c.json", {**COMPONENT, "data": data}))
    seen: list[Any] = []

    def look(spec: ContainerSpec) -> None:
        seen.append(json.loads(host_path(spec, "/data/config.json").read_text()))

    play(shell, Printed(b'{"found": ["\xc5\x99"], "component": "C"}'), effect=look)
    given = write(tmp_path / "given.json", {"parameters": {"#key": "plain"}})
    for options in ((), ("--json",)):
        answer = shell.run("action", "C", "look", "--config-data", f"@{given}", *options)
        assert json.loads(answer.stdout) == {"found": ["ř"]}
    assert seen[0]["parameters"] == {"#key": "plain"}
    assert seen[0]["action"] == "look"
    play(shell, Printed(b"no such table\n", stream="stderr"), exit_code=1)
    assert shell.run("action", "C", "look", code=1).stderr == "Error: no such table\n"
    play(shell, Printed(b"broken\n", stream="stderr"), exit_code=2)
    assert "Error: " in shell.run("action", "C", "look", code=3).stderr
    for words, message in (
        (("C", "other"), "Action 'other' not found"),
        (("C", "run"), "Action 'run' not allowed"),
        (("D", "look"), "Component 'D' not found"),
    ):
        assert shell.run("action", *words, code=1).stderr == f"Error: {message}\n"
    shell.run("action", "C", "look", "--config-data", "{", code=2)
    assert shell.host.containers == []


def test_a_job_of_a_component_that_is_not_there(shell: Shell) -> None:
    assert shell.run("run", "none", "--config", "X", code=1).stderr == (
        "Error: Component 'none' not found.\n"
    )
    for arguments in (("show", "99"), ("logs", "99"), ("wait", "99"), ("cancel", "99")):
        shell.run(*arguments, code=1)


def test_a_job_can_be_left_to_itself_and_waited_for(shell: Shell, component: Path) -> None:
    play(shell, Printed(b"ran\n"))
    id_ = shell.run("run", "C", "--config-data", "{}", "--no-wait", "--key", "k").stdout.strip()
    again = shell.run("run", "C", "--config-data", "{}", "--no-wait", "--key", "k").stdout.strip()
    assert again == id_
    assert "ran" in shell.run("wait", id_).stdout
    assert shell.json("show", id_)["status"] == "success"
    listed = shell.json("jobs", "--component", "C", "--status", "success", "--since", "-1 day")
    assert [str(job["id"]) for job in listed] == [id_]
    assert shell.json("jobs", "--status", "error") == []
    assert shell.json("jobs", "--component", "other") == []
    assert "JOB" in shell.lines("jobs")[0]


def test_a_job_is_cancelled_and_waiting_for_it_ends_with_4(shell: Shell, component: Path) -> None:
    play(shell, seconds=math.inf)
    id_ = shell.run("run", "C", "--config-data", "{}", "--no-wait").stdout.strip()
    ended = shell.run("cancel", id_).stdout
    assert ended.startswith((f"Job {id_} is cancelled.", f"Job {id_} is terminated."))
    assert shell.host.containers == []
    shell.run("wait", id_, code=4)
    shell.run("cancel", id_, code=1)


def watched(*arguments: str) -> tuple[int, str]:
    """Run the command in a terminal; its exit code and all that it wrote there."""
    controller, terminal = pty.openpty()
    try:
        process = subprocess.Popen(
            [sys.executable, "-m", "vaka_server", *arguments],
            stdin=terminal,
            stdout=terminal,
            stderr=terminal,
            env={**os.environ, "TERM": "xterm-256color"},
        )
        os.close(terminal)
        written = b""
        with suppress(OSError):  # how a terminal says that the other side is closed
            while part := os.read(controller, 65_536):
                written += part
        return process.wait(60), written.decode()
    finally:
        os.close(controller)


def test_a_person_sees_what_goes_on_and_no_escape_of_a_container(tmp_path: Path) -> None:
    host = FakeHost({IMAGE: Script((Printed(b"\x1b[35;7mred\x1b]0;title\x07\n"),))})
    settings = Settings(home=tmp_path / "home", port=0, shutdown="stop", graceful_timeout=0)
    file = tmp_path / "a.csv"
    file.write_text(CSV)
    with Server(settings, host) as server:
        where = ["--url", server.url, "--token", server.secret]
        shell = Shell(where, host)
        shell.run("component", "add", write(tmp_path / "c.json", COMPONENT))
        shell.run("bucket", "create", "in", "b")
        code, seen = watched("run", "C", "--config-data", "{}", *where)
        assert code == 0
        assert "  red\r\n" in seen
        assert "\x1b[35;7m" not in seen
        assert "title" not in seen
        assert "is success after" in seen
        assert "\x1b[?25l" in seen  # the cursor is hidden while something moves
        code, seen = watched("table", "load", "in.c-b.t", str(file), *where)
        assert (code, "sending a.csv" in seen) == (0, True)
        assert seen.endswith("Loaded 3 rows; in.c-b.t has 3.\r\n")


HOSTILE = "\x1b]52;c;aGFjaw==\x07\x1b[2J\u202egnp\u2066\x9b1m[/b]\r\x08"


@pytest.mark.parametrize("shell", ["server"], indirect=True)
def test_whoevers_text_a_command_prints_a_terminal_has_nothing_to_act_on(
    shell: Shell, tmp_path: Path
) -> None:
    def leave(spec: ContainerSpec) -> None:
        (host_path(spec, "/data/out/files") / HOSTILE.replace("/", ":")).write_text("x")
        (host_path(spec, "/data/out/tables") / "a.csv").write_text(f"a\n{HOSTILE}\n")

    document = {**COMPONENT, "name": HOSTILE}
    shell.run("component", "add", write(tmp_path / "c.json", document))
    shell.run("config", "create", "C", "--id", "X", "--name", HOSTILE, "--description", HOSTILE)
    content = write(
        tmp_path / "x.json",
        {"storage": {"output": {"tables": [{"source": "a.csv", "destination": "in.c-b.t"}]}}},
    )
    shell.run("config", "put", "C", "X", "--configuration", content, "--change", HOSTILE)
    shell.run("row", "create", "C", "X", "--id", "R", "--name", HOSTILE)
    shell.run("row", "create", "C", "X", "--id", "S", "--name", HOSTILE, "--disabled")
    shell.run("bucket", "create", "in", "b", "--description", HOSTILE)
    printed = (Printed(f"{HOSTILE}\n".encode()), Printed(HOSTILE.encode(), stream="stderr"))
    play(shell, *printed, effect=leave)
    seen = [shell.run("run", "C", "--config", "X")]
    for exit_code, code in ((1, 1), (2, 3)):
        play(shell, *printed, exit_code=exit_code)
        seen.append(shell.run("run", "C", "--config-data", "{}", code=code))
    for job in ("1", "2", "3"):
        seen += [shell.run("show", job), shell.run("logs", job)]
    file = tmp_path / HOSTILE.replace("/", ":")
    file.write_text("x")
    shell.run("file", "upload", write(tmp_path / "plain", "x"), "--tag", HOSTILE)
    for command in (
        ("jobs",),
        ("component", "list"),
        ("component", "show", "C"),
        ("config", "list"),
        ("config", "get", "C", "X"),
        ("config", "versions", "C", "X"),
        ("row", "list", "C", "X"),
        ("bucket", "list"),
        ("file", "list"),
        ("table", "list"),
        ("table", "preview", "in.c-b.t"),
    ):
        seen.append(shell.run(*command))
    for refused in (
        ("file", "upload", str(file)),
        ("component", "show", HOSTILE),
        ("run", HOSTILE, "--config-data", "{}"),
        ("config", "get", "C", HOSTILE),
        ("row", "get", "C", "X", HOSTILE),
        ("table", "preview", HOSTILE),
        ("table", "load", "in.c-b.t", str(tmp_path / f"none-{HOSTILE}")),
        ("bucket", "create", "in", HOSTILE),
    ):
        seen.append(CliRunner().invoke(cli(), [*refused, *shell.options]))
    shown = "".join(result.stdout + result.stderr for result in seen)
    assert "gnp" in shown
    assert {each for each in shown if unicodedata.category(each) in {"Cc", "Cf"}} <= {"\n", "\t"}


# -- without an installation -----------------------------------------------------------------------


def outside(*arguments: str) -> Result:
    return CliRunner().invoke(cli(), list(arguments))


def test_without_a_server_or_a_home_the_code_is_5(tmp_path: Path) -> None:
    away = outside("jobs", "--url", "http://127.0.0.1:1")
    assert away.exit_code == 5
    assert "does not answer" in away.stderr
    none = outside("jobs", "--home", str(tmp_path / "none"))
    assert none.exit_code == 5
    assert "Run `vaka init`" in none.stderr
    assert not (tmp_path / "none").exists()


def test_a_token_is_asked_for_and_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(home=tmp_path / "home", port=0, shutdown="stop", graceful_timeout=0)
    with Server(settings, FakeHost()) as server:
        missing = outside("jobs", "--url", server.url)
        assert (missing.exit_code, missing.stderr) == (
            1,
            "Error: No token was given; use --token or VAKA_TOKEN.\n",
        )
        wrong = outside("jobs", "--url", server.url, "--token", "wrong")
        assert wrong.exit_code == 1
        assert "Invalid StorageApi Token. Check --token or VAKA_TOKEN." in wrong.stderr
        secret = tmp_path / "secret"
        secret.write_text(f"{server.secret}\n")
        monkeypatch.setenv("VAKA_TOKEN_FILE", str(secret))
        monkeypatch.setenv("VAKA_URL", server.url)
        assert outside("jobs").exit_code == 0
        examined = outside("doctor")
        assert "answers at" in examined.stdout
        assert "is valid, its role is admin" in examined.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ("nonsense",),
        ("run",),
        ("run", "C"),
        ("jobs", "--limit", "0"),
        ("show", "abc"),
        ("table", "nonsense"),
        ("serve", "--port", "x"),
    ],
)
def test_a_wrong_command_line_ends_with_2(arguments: tuple[str, ...]) -> None:
    assert outside(*arguments).exit_code == 2


def test_a_setting_that_cannot_be_ends_with_2(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VAKA_CONCURRENCY", "none")
    found = outside("jobs", "--home", "/nowhere")
    assert (found.exit_code, "VAKA_CONCURRENCY" in found.stderr) == (2, True)


def test_a_home_that_is_in_use_says_by_whom(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with home.hold(tmp_path, create=True) as held:
        found = outside("jobs", "--home", str(tmp_path))
        assert (found.exit_code, "by process" in found.stderr) == (5, True)
        held.announce(url="http://127.0.0.1:1234")
        found = outside("jobs", "--home", str(tmp_path))
        assert "by the server at http://127.0.0.1:1234" in found.stderr


def test_init_makes_a_home_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "home"
    first = outside("init", "--home", str(path), "--json")
    made = json.loads(first.stdout)
    assert made["home"] == str(path)
    assert len(made["token"]) > 40
    again = json.loads(outside("init", "--home", str(path), "--json").stdout)
    assert again == {"home": str(path), "token": None, "keys": None}
    for file in path.rglob("*"):
        if file.is_file():
            assert made["token"].encode() not in file.read_bytes()
    assert path.stat().st_mode & 0o007 == 0


def test_what_runs_nothing_needs_no_daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VAKA_RUNTIME_URL", f"docker+unix://{tmp_path}/none.sock")
    home = ("--home", str(tmp_path / "home"))
    assert outside("init", *home).exit_code == 0
    component = write(tmp_path / "c.json", COMPONENT)
    assert outside("component", "add", component, *home).exit_code == 0
    stored = outside("run", "C", "--config-data", "{}", "--no-wait", *home)
    assert stored.stdout == "1\n"
    assert "waiting" in outside("jobs", *home).stdout
    ran = outside("wait", "1", *home)
    assert ran.exit_code == 3
    assert "Cannot connect to Docker Engine" in ran.stderr
    assert "waiting" in outside("show", "1", *home).stdout


def test_the_version_is_told() -> None:
    assert outside("--version").stdout.strip().count(".") == 2


@pytest.mark.scenario("runner", 243)
@pytest.mark.scenario("runner", 244)
def test_what_nobody_needs_is_shown_and_removed(shell: Shell, tmp_path: Path) -> None:
    folder = tmp_path / "home" / "jobs" / "987"
    folder.mkdir(parents=True)
    (folder / "left").write_bytes(bytes(5_000))
    told = shell.run("gc", "plan").stdout
    for words in ("folder", "987", "5.0 kB", "its job does not run", "1 to remove"):
        assert words in told
    (item,) = shell.json("gc", "plan")["items"]
    assert (item["kind"], item["name"], item["bytes"]) == ("folder", "987", 5_000)
    assert folder.exists()
    late = shell.lines("gc", "apply", "--timeout", "0")
    assert "Timeout reached, terminating" in late
    assert late[-1] == "Finished"
    assert folder.exists()
    lines = shell.lines("gc", "apply")
    assert "Removing folder 987: its job does not run" in lines
    assert lines[-1] == "Finished"
    assert not folder.exists()
    report = shell.json("gc", "apply")
    assert (report["removed"], report["failures"], report["timedOut"]) == ([], [], False)
