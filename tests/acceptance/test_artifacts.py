"""Artifacts, variables and the vault, with real containers and the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.acceptance.conftest import Server
from tests.acceptance.images import Images

pytestmark = pytest.mark.docker

SCRIPT = r"""
set -e
sed -n 's/^ *"greeting": //p' /data/config.json
find /data/artifacts -type f 2>/dev/null | while read -r file; do echo "$file: $(cat "$file")"; done
mkdir -p /data/artifacts/out/current/sub
echo "left by a run" > /data/artifacts/out/current/sub/file
ln -s /etc/passwd /data/artifacts/out/current/link
"""


@pytest.mark.scenario("runner", 218)
@pytest.mark.scenario("runner", 228)
@pytest.mark.scenario("runner", 238)
@pytest.mark.scenario("runner", 239)
def test_a_run_finds_what_an_earlier_one_left(
    server: Server, images: Images, tmp_path: Path
) -> None:
    server.start()
    definition = tmp_path / "component.json"
    definition.write_text(json.dumps(images.component("test.artifacts", SCRIPT)))
    server.vaka("component", "add", str(definition))
    server.vaka("vault", "set", "who", 'the "vault"')
    storage = "/v2/storage/components"
    declared = {"variables": [{"name": "word", "type": "string"}]}
    values = {"values": [{"name": "word", "value": "Hello"}]}
    configuration = {
        "parameters": {"greeting": "{{ word }} from {{ vault.who }}"},
        "variables_id": "v",
        "artifacts": {"runs": {"enabled": True, "filter": {"limit": 1}}},
    }
    for path, id_, content in (
        ("keboola.variables/configs", {"configurationId": "v"}, declared),
        ("keboola.variables/configs/v/rows", {"rowId": "a"}, values),
        ("test.artifacts/configs", {"configurationId": "c"}, configuration),
    ):
        made = server.post(f"{storage}/{path}", {"name": "N", "configuration": content, **id_})
        assert made.status_code == 201, made.text

    def run() -> tuple[str, dict[str, Any], list[str]]:
        body = {"config": "c", "variableValuesId": "a"}
        job = str(server.post("/docker/test.artifacts/run", body).json()["id"])
        resource = server.wait(job)
        assert resource["status"] == "success", resource
        return job, resource["result"], server.logged(job)

    first, result, logged = run()
    assert logged == [r'"Hello from the \"vault\""']
    assert result["variables"] == [
        {"name": "vault.who", "value": 'the "vault"'},
        {"name": "word", "value": "Hello"},
    ]
    (uploaded,) = result["artifacts"]["uploaded"]
    warned = [event["message"] for event in server.events(first) if event["level"] == "warn"]
    assert any('"link"' in message for message in warned)

    _, result, logged = run()
    assert logged[1:] == [f"/data/artifacts/in/runs/jobId-{first}/sub/file: left by a run"]
    assert result["artifacts"]["downloaded"] == [uploaded]
    stored = server.get(f"/v2/storage/files/{uploaded['storageFileId']}").json()
    assert stored["name"] == "artifacts.tar.gz"
    assert f"jobId-{first}" in stored["tags"]
    assert images.containers(server.instance) == []
