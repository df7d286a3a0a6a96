"""A real component tells its secret in every form, everywhere it can; nobody keeps or passes it on."""

from __future__ import annotations

import inspect
import json
import signal
import textwrap
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.acceptance.conftest import PATIENCE, Server
from tests.acceptance.images import Images
from tests.server.test_canary import SECRET, forms, traces

pytestmark = pytest.mark.docker

PROGRAM = """
import base64, json, os, re, shlex, sys, time
from collections.abc import Iterator
from urllib.parse import quote, quote_plus

{forms}

config = json.load(open("/data/config.json"))
given = config["parameters"]
secret = given["#secret"]
is_action = config["action"] != "run"
told = "\\n".join("log " + form + " end" for form in forms(secret)).encode()
for stream in (2,) if is_action else (1, 2):
    for at in range(0, len(told), 7):  # no form is written at once
        os.write(stream, told[at : at + 7])
while given.get("waits") and not os.path.exists("/data/go"):
    time.sleep(0.02)
if is_action:
    print("no JSON: " + secret if given["exit"] == 9 else "{{}}")
    sys.exit(given["exit"] % 9)
out = "/data/out/"
json.dump({{"#kept": secret, "note": "kept"}}, open(out + "state.json", "w"))
json.dump({{"variables": {{"said": secret}}}}, open(out + "result.json", "w"))
json.dump([{{"metric": secret, "value": 1}}], open(out + "usage.json", "w"))
if given.get("breaks"):
    json.dump({{"columns": [secret]}}, open(out + "tables/t.csv.manifest", "w"))
    open(out + "tables/t.csv", "w").write("1,2\\n")
sys.exit(given["exit"])
"""


@pytest.fixture
def shouting(server: Server, images: Images, pybase_image: str) -> Server:
    """A server with keys, and with a component that tells all it knows."""
    server.settings = {"VAKA_LOG_LEVEL": "DEBUG"}
    server.start()
    program = PROGRAM.format(forms=textwrap.dedent(inspect.getsource(forms)))
    uri, _, tag = images.python(pybase_image, program).partition(":")
    component = {
        "id": "test.shouting",
        "type": "application",
        "name": "Shouting",
        "data": {
            "definition": {"type": "dockerhub", "uri": uri, "tag": tag},
            "network": "none",
            "synchronous_actions": ["look"],
        },
    }
    path = server.home.parent / "component.json"
    path.write_text(json.dumps(component))
    server.vaka("component", "add", str(path))
    server.vaka("config", "create", "test.shouting", "--id", "c", "--name", "C")
    return server


@pytest.mark.scenario("encryption", 95)
def test_a_secret_that_a_component_tells_in_every_form_is_nowhere(
    shouting: Server, images: Images
) -> None:
    kept: dict[str, str] = {}
    ids = []
    for mode, more in (
        ("run", {"exit": 0, "waits": True}),
        ("run", {"exit": 1}),
        ("run", {"exit": 2}),
        ("run", {"exit": 0, "breaks": True}),
        ("debug", {"exit": 0}),
    ):
        parameters = {"#secret": SECRET, "plain": "value", **more}
        body = {"config": "c", "configData": {"parameters": parameters}}
        answer = shouting.post(f"/docker/test.shouting/{mode}", body)
        assert answer.status_code == 202, answer.text
        id_ = str(answer.json()["id"])
        ids.append(id_)
        kept[f"{id_}: accepted"] = answer.text
        if more.get("waits"):
            kept |= while_it_runs(shouting, images, id_)
        job = shouting.wait(id_)
        expected = "error" if more["exit"] or more.get("breaks") else "success"
        assert job["status"] == expected, job["result"]
        kept[f"{id_}: job"] = json.dumps(job, ensure_ascii=False)
        log = shouting.get(f"/queue/jobs/{id_}/log").text
        kept[f"{id_}: log"] = log
        told = len(list(forms(SECRET)))
        assert len([line for line in log.split("\n") if line.startswith("log ")]) == 2 * told
        assert log.count("[hidden]") >= 2 * told
        kept[f"{id_}: events"] = shouting.get(f"/queue/jobs/{id_}/events").text
        kept[f"{id_}: newer job"] = shouting.get(f"/queue/jobs/{id_}").text
    kept["list"] = shouting.get("/queue/jobs").text
    for code in (0, 1, 2, 9):
        parameters = {"#secret": SECRET, "exit": code}
        body = {"configData": {"parameters": parameters}}
        answer = shouting.post("/docker/test.shouting/action/look", body)
        assert answer.status_code == {0: 200, 1: 400, 2: 500, 9: 400}[code], answer.text
        kept[f"action {code}"] = answer.text
    state = shouting.vaka("state", "get", "test.shouting", "c")
    assert state["state"]["component"]["#kept"].startswith("KBC::ProjectSecure::v1.")
    assert shouting.kill(signal.SIGTERM) == 0
    kept |= files(shouting.home)
    snapshots = {name: text for name, text in kept.items() if ".zip!" in name}
    assert any(name.endswith("!config.json") for name in snapshots)
    assert any(name.endswith("!in/state.json") for name in snapshots)
    assert found(kept) == set()
    # the search finds what is there: the state that was told is, as a cipher
    assert any(state["state"]["component"]["#kept"] in text for text in kept.values())


def while_it_runs(server: Server, images: Images, job: str) -> dict[str, str]:
    """What can be seen of a job while its container lives, which it does until this has looked."""
    deadline = time.monotonic() + PATIENCE
    folder = server.home / "jobs" / job
    told = len(list(forms(SECRET)))
    while server.get(f"/queue/jobs/{job}/log").text.count("\nlog ") < 2 * told - 3:
        assert time.monotonic() < deadline, "the component does not tell all of it"
        time.sleep(0.05)
    (name,) = images.containers(server.instance)
    seen = {
        "inspected": json.dumps(images.inspect(name)),
        "processes of the container": json.dumps(images.processes(name)),
        "processes": "\n".join(command_lines()),
    }
    assert SECRET.split("\n")[0][:7] in (folder / "data/config.json").read_text()
    seen |= {
        f"{path} while it runs": text
        for path, text in files(server.home).items()
        if not path.startswith(str(folder))
    }
    (folder / "data/go").touch()
    return seen


def command_lines() -> Iterator[str]:
    """Of every process of this machine."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            yield path.read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
        except OSError:
            continue  # it has ended


def files(home: Path) -> dict[str, str]:
    """Every file below a folder as text; of archives, what is in them as well."""
    contents: dict[str, str] = {}
    for path in home.rglob("*"):
        if not path.is_file() or path.is_symlink():
            continue
        contents[str(path)] = path.read_bytes().decode("utf-8", "replace")
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                for name in archive.namelist():
                    text = archive.read(name).decode("utf-8", "replace")
                    contents[f"{path}.zip!{name}"] = text
    return contents


def found(kept: dict[str, str]) -> set[tuple[str, Any]]:
    """Where a part of the secret stands, in any of its forms."""
    wanted = traces(SECRET)
    return {(name, part) for name, text in kept.items() for part in wanted if part in text}
