"""A component shouts its secrets, in every form and in pieces; nothing that is kept or told has them."""

from __future__ import annotations

import base64
import json
import logging
import re
import shlex
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
import trio
from tests.keys import sealed
from tests.server.conftest import Site

from vaka.models.container import ContainerSpec
from vaka.testing import FakeImage, Printed, Script, host_path
from vaka_server.logs import JsonFormatter
from vaka_server.settings import Settings

SECRET = "hunter9f8e7d \"quoted\" 'single' ž/ü\\ $6c5b4a+<&>\n  and a second line: 1029384756 \n}\n"
DATA = json.dumps({"access_token": "at-0a9b8c7d6e5f-žluť", "token_type": "bearer"})
PIECE = 5
"""Bytes that are written at once."""


def forms(secret: str) -> Iterator[str]:
    """What a program may print of a secret."""
    for each in (secret, secret.strip(), *secret.split("\n")[:2]):
        yield each
        yield json.dumps(each)
        yield json.dumps(each, ensure_ascii=False)
        yield json.dumps(each).replace("/", "\\/")
        yield json.dumps({"message": json.dumps({"#secret": each})})
        yield repr(each)
        yield shlex.quote(each)
        yield "'" + each.replace("'", "'\\''") + "'"
    for each in (secret, secret.strip()):
        for encoded in (quote(each), quote(each, safe=""), quote_plus(each)):
            yield f"https://example.com/?q={encoded}&x=1"
            yield re.sub("%..", lambda found: found[0].lower(), encoded)
        for offset in range(3):
            raw = b"u:p"[:offset] + each.encode()
            yield f"Authorization: Basic {base64.b64encode(raw).decode()}"
            yield base64.urlsafe_b64encode(raw + b"; and more").decode()
            yield base64.b64encode(raw).decode().rstrip("=")


def traces(secret: str) -> set[str]:
    """Parts of a secret, as any of its forms would show them: six characters of what needs no escape.

    Of Base64 they are eight, at each alignment.
    """
    found = set()
    plain = "".join(each if each.isascii() and each.isalnum() else " " for each in secret)
    for run in plain.split():
        found |= {run[at : at + 6] for at in range(len(run) - 5)}
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        for offset in range(3):
            encoded = encode(b"\0" * offset + secret.strip().encode()).decode()[4:-4]
            found |= {encoded[at : at + 8] for at in range(len(encoded) - 7)}
    return found - {"second", "quoted", "single"}


def shouting(*secrets: str) -> tuple[Printed, ...]:
    """Every form over both streams by turns, in pieces and without an end of the line at the end."""
    streams: dict[Any, bytes] = {}
    for stream in ("stdout", "stderr"):
        told = [f"log {form} end" for secret in secrets for form in forms(secret)]
        streams[stream] = "\n".join(told).encode()
    pieces = []
    for at in range(0, max(map(len, streams.values())), PIECE):
        pieces += [
            Printed(data[at : at + PIECE], stream=stream) for stream, data in streams.items()
        ]
    return tuple(pieces)


def leave(spec: ContainerSpec) -> None:
    """Write secrets wherever the runner reads something, and fail the mapping with one."""
    out = host_path(spec, "/data/out")
    (out / "result.json").write_text(json.dumps({"variables": {"said": SECRET}}))
    (out / "usage.json").write_text(json.dumps([{"metric": SECRET.strip(), "value": 1}]))


def unpacked(home: Path) -> dict[str, str]:
    """The runner's own documents in every archive of Storage, as text."""
    found = {}
    for path in home.rglob("*"):
        if path.is_file() and zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                documents = [archive.read(name) for name in ("config.json", "in/state.json")]
            found[str(path)] = b"\n".join(documents).decode()
    return found


@pytest.mark.scenario("encryption", 80)
@pytest.mark.parametrize(("mode", "exit_code"), [("run", 0), ("run", 1), ("run", 2), ("debug", 0)])
async def test_no_form_of_a_secret_is_told_or_kept(
    site: Site,
    settings: Settings,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    mode: str,
    exit_code: int,
) -> None:
    caplog.set_level(logging.INFO)
    token = site.tokens["admin"]
    secrets = (token, SECRET, json.loads(DATA)["access_token"])
    seen: list[str] = []

    def script(spec: ContainerSpec) -> Script:
        seen.append(spec.environment["KBC_TOKEN"])
        seen.append(host_path(spec, "/data/config.json").read_text())
        return Script(
            shouting(*secrets),
            exit_code=exit_code,
            effect=leave,
        )

    site.host.images["worker:1"] = FakeImage(script)
    await site.engine.catalog.put_component(
        {
            "id": "C",
            "type": "application",
            "data": {
                "definition": {"type": "dockerhub", "uri": "worker", "tag": "1"},
                "forward_token": True,
            },
        }
    )
    credentials = {"id": "main", "#appSecret": SECRET, "#data": DATA}
    sealed_credentials = await sealed(credentials, "C")

    async def fetch(*_: Any, **__: Any) -> Any:
        return sealed_credentials

    monkeypatch.setattr("vaka.actors.definition.fetch_credentials", fetch)
    authorization = {"oauth_api": {"id": "main", "version": 3}}
    body = {"configData": {"authorization": authorization}}
    id_ = int((await site.ask("POST", f"/docker/C/{mode}", body)).value["id"])
    job = await site.finished(id_)

    assert seen[0] == token
    assert json.loads(seen[1])["authorization"]["oauth_api"]["credentials"] == credentials
    assert job["status"] == ("success" if exit_code == 0 else "error")
    kept = {
        "job": json.dumps(job, ensure_ascii=False),
        "job, escaped": json.dumps(job),
        "list": json.dumps(await site.get("/queue/job"), ensure_ascii=False),
        "events": (await site.get(f"/queue/jobs/{id_}/events")).decode(),
        "log": (await site.get(f"/queue/jobs/{id_}/log")).decode(),
        "engine's log": "\n".join(map(JsonFormatter().format, caplog.records)),
    }
    for name in ("vaka.db", "vaka.db-wal"):
        kept[name] = (Path(settings.home) / name).read_bytes().decode("utf-8", "ignore")
    snapshots = await trio.to_thread.run_sync(unpacked, settings.home)
    assert len(snapshots) == (2 if mode == "debug" else 0)
    kept |= snapshots
    # every line of both streams is there, and hides something
    lines = kept["log"].split("\n")
    told = [form for secret in secrets for form in forms(secret)]
    assert len([line for line in lines if line.startswith("log ")]) == 2 * len(told)
    assert kept["log"].count("[hidden]") >= 2 * len(told)
    wanted = {trace for secret in secrets for trace in traces(secret)}
    found = {(name, each) for name, text in kept.items() for each in wanted if each in text}
    assert found == set()
    if exit_code == 0:
        variable = {"name": "said", "value": "[hidden]"}
        assert job["result"]["output"]["variables"] == [variable]
        assert [each["metric"] for each in job["usage"]] == ["[hidden]"]


def test_the_traces_are_in_every_form() -> None:
    """Else the test above could not fail."""
    wanted = traces(SECRET)
    for form in forms(SECRET):
        assert any(each in form for each in wanted), form
