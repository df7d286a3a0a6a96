"""Images and containers of acceptance tests, through the daemon's own API."""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from typing import Any
from urllib.parse import quote

import httpx

PATIENCE = 120.0


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
        return self._program(self._base, ["sh", "-c", text])

    def python(self, base: str, text: str) -> str:
        """Reference of an image that is `base` with this Python program as its command."""
        return self._program(base, ["python3", "-c", text])

    def _program(self, base: str, command: list[str]) -> str:
        tag = hashlib.sha256(json.dumps([base, command]).encode()).hexdigest()[:16]
        reference = f"vaka-test/script:{tag}"
        if self._daemon.get(f"/images/{reference}/json").status_code == 200:
            return reference
        made = self._call("POST", "/containers/create", {"Image": base, "Cmd": command})
        change = quote(f"CMD {json.dumps(command)}")
        repository, _, name = reference.partition(":")
        self._call(
            "POST", f"/commit?container={made['Id']}&repo={repository}&tag={name}&changes={change}"
        )
        self._call("DELETE", f"/containers/{made['Id']}")
        return reference

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

    def starts(self, instance: str, *, since: float) -> Counter[str]:
        """How often each container of one installation was started since a moment (Unix time)."""
        wanted = {"label": [f"vaka.instance={instance}"], "type": ["container"], "event": ["start"]}
        query = f"since={since:.3f}&until={time.time():.3f}&filters={quote(json.dumps(wanted))}"
        answer = self._daemon.get(f"/events?{query}")
        events = [json.loads(line) for line in answer.text.splitlines()]
        return Counter(event["Actor"]["Attributes"]["name"] for event in events)

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
