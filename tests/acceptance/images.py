"""Images and containers of acceptance tests, through the daemon's own API."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import time
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

import httpx

PATIENCE = 120.0
REPOSITORY = "vaka-test/script"
Program = tuple[str, tuple[str, ...]]
"""An image and the command that another one, made from it, has."""


class Images:
    """Makes images that run a script, from one that has a shell or Python."""

    def __init__(self, docker_host: str, base: str) -> None:
        path = docker_host.removeprefix("unix://")
        self._daemon = httpx.Client(
            base_url="http://docker",
            transport=httpx.HTTPTransport(uds=path),
            timeout=PATIENCE,
        )
        self._base = base

    def close(self) -> None:
        self._daemon.close()

    def script(self, text: str) -> str:
        """Reference of an image whose command is this shell script."""
        (reference,) = self.make([self.shell(text)])
        return reference

    def python(self, base: str, text: str) -> str:
        """Reference of an image that is `base` with this Python program as its command."""
        (reference,) = self.make([(base, ("python3", "-c", text))])
        return reference

    def shell(self, text: str) -> Program:
        """What an image is made of whose command is this shell script."""
        return self._base, ("sh", "-c", text)

    def make(self, programs: Sequence[Program]) -> list[str]:
        """References of an image for each program; those that are not there are made in one go."""
        references = [_reference(program) for program in programs]
        wanted = quote(json.dumps({"reference": [REPOSITORY]}))
        listed = self._call("GET", f"/images/json?filters={wanted}")
        there = {name for image in listed for name in image["RepoTags"] or ()}
        missing = dict(zip(references, programs, strict=True))
        missing = {name: program for name, program in missing.items() if name not in there}
        if missing and not self._load(missing):
            for name, program in missing.items():
                self._commit(name, program)
        return references

    def _load(self, programs: Mapping[str, Program]) -> bool:
        """Whether the daemon took images of which it has all layers, as one that is not on containerd's
        store does: in tens of milliseconds, where a container and its commit take a second.
        """
        bases = {base: self._call("GET", f"/images/{base}/json") for base, _ in programs.values()}
        files, entries = {}, []
        for name, (base, command) in programs.items():
            about = bases[base]
            config = {
                "architecture": about["Architecture"],
                "os": about["Os"],
                "created": about["Created"],
                "config": {**about["Config"], "Cmd": command},
                "rootfs": {"type": "layers", "diff_ids": about["RootFS"]["Layers"]},
            }
            content = json.dumps(config).encode()
            file = f"{hashlib.sha256(content).hexdigest()}.json"
            files[file] = content
            layers = [
                f"{digest.partition(':')[2]}/layer.tar" for digest in config["rootfs"]["diff_ids"]
            ]
            entries.append({"Config": file, "RepoTags": [name], "Layers": layers})
        files["manifest.json"] = json.dumps(entries).encode()
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w") as tar:
            for file, content in files.items():
                member = tarfile.TarInfo(file)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
        answer = self._daemon.post("/images/load?quiet=1", content=archive.getvalue())
        return answer.is_success and '"error' not in answer.text

    def _commit(self, reference: str, program: Program) -> None:
        base, command = program
        made = self._call("POST", "/containers/create", {"Image": base, "Cmd": command})
        change = quote(f"CMD {json.dumps(command)}")
        repository, _, name = reference.partition(":")
        self._call(
            "POST", f"/commit?container={made['Id']}&repo={repository}&tag={name}&changes={change}"
        )
        self._call("DELETE", f"/containers/{made['Id']}")

    def component(self, component_id: str, text: str, **data: Any) -> dict[str, Any]:
        """A component that runs this shell script."""
        uri, _, tag = self.script(text).partition(":")
        return {
            "id": component_id,
            "type": "application",
            "name": component_id,
            "data": {
                "definition": {"type": "dockerhub", "uri": uri, "tag": tag},
                "network": "none",
                **data,
            },
        }

    def inspect(self, name: str) -> Any:
        """What the daemon says of a container."""
        return self._call("GET", f"/containers/{name}/json")

    def processes(self, name: str) -> Any:
        """What runs in a container."""
        return self._call("GET", f"/containers/{name}/top")

    def containers(self, instance: str) -> list[str]:
        """Names of all containers, running or not, of one installation."""
        return [each["Names"][0].lstrip("/") for each in self._listed(instance, {})]

    def wait_until_ended(self, instance: str) -> None:
        """Return once the containers of one installation have ended."""
        for each in self._listed(instance, {}):
            self._call("POST", f"/containers/{each['Id']}/wait")

    def wait_until_one_is_left(self, instance: str) -> None:
        """Return once a single container of one installation is there."""
        deadline = time.monotonic() + PATIENCE
        while len(self._listed(instance, {})) != 1:
            assert time.monotonic() < deadline, self._listed(instance, {})

    def starts(self, instance: str, *, since: float) -> set[tuple[str, int]]:
        """Starts of containers of one installation since a moment (Unix time): name, and time in ns.

        A daemon remembers its last 256 events only, whoever they are about: ask often.
        """
        wanted = {"label": [f"vaka.instance={instance}"], "type": ["container"], "event": ["start"]}
        query = f"since={since:.3f}&until={time.time():.3f}&filters={quote(json.dumps(wanted))}"
        answer = self._daemon.get(f"/events?{query}")
        events = [json.loads(line) for line in answer.text.splitlines()]
        return {(event["Actor"]["Attributes"]["name"], event["timeNano"]) for event in events}

    def remove_all(self, instance: str) -> None:
        """Remove the containers of one installation, whatever they do."""
        for each in self._listed(instance, {}):
            self._call("DELETE", f"/containers/{each['Id']}?force=1&v=1")

    def _listed(self, instance: str, filters: dict[str, Any]) -> list[dict[str, Any]]:
        wanted = quote(json.dumps({"label": [f"vaka.instance={instance}"], **filters}))
        listed: list[dict[str, Any]] = self._call("GET", f"/containers/json?all=1&filters={wanted}")
        return listed

    def _call(self, method: str, path: str, body: Any = None) -> Any:
        answer = self._daemon.request(method, path, json=body)
        assert answer.is_success, answer.text
        return answer.json() if answer.content else None


def _reference(program: Program) -> str:
    tag = hashlib.sha256(json.dumps(program).encode()).hexdigest()[:16]
    return f"{REPOSITORY}:{tag}"
