"""Synchronous actions in real containers, all of them on one server."""

from __future__ import annotations

import json
import secrets
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.acceptance.conftest import PATIENCE, Server
from tests.acceptance.images import Images

pytestmark = pytest.mark.docker

SCRIPT = r"""
case "$(sed -n 's/.*"action": *"\([a-zA-Z]*\)".*/\1/p' /data/config.json)" in
  show) cat /data/config.json ;;
  none) ;;
  user) echo 'user error' >&2; exit 1 ;;
  application) echo 'application error' >&2; exit 2 ;;
  files) echo "{\"in\": \"$(find /data/in -type f | tr '\n' ' ')\", \"user\": $(id -u)}" ;;
  both) echo 'only for the log' >&2; echo '[]' ;;
  memory) tail /dev/zero ;;
  flood) yes '"0123456789abcdef0123456789abcdef"' ;;
  sleep) sleep 1000 & wait ;;
esac
"""
NAMES = ("show", "none", "user", "application", "files", "both", "memory", "flood", "sleep")
LIMIT = 3
"""Seconds that an action may take on this server."""


@pytest.fixture(scope="module")
def acting(
    docker_host: str, images: Images, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """A server with a component of many actions; three of them may run at a time."""
    home = tmp_path_factory.mktemp("acting") / "home"
    home.mkdir()
    server = Server(home, f"test-{secrets.token_hex(4)}")
    server.settings = {"VAKA_ACTION_TIMEOUT": str(LIMIT), "VAKA_ACTION_CONCURRENCY": "3"}
    server.start()
    component = home.parent / "component.json"
    document = images.component("test.acting", SCRIPT, synchronous_actions=NAMES, memory="32m")
    document["features"] = ["no-swap"]
    component.write_text(json.dumps(document))
    server.vaka("component", "add", str(component))
    yield server
    server.close()


@pytest.fixture(autouse=True)
def _nothing_is_left(acting: Server, images: Images) -> Iterator[None]:
    yield
    until(lambda: images.containers(acting.instance) == [])
    until(lambda: folders(acting) == [])


def folders(server: Server) -> list[Path]:
    parent = server.home / "actions"
    return list(parent.iterdir()) if parent.is_dir() else []


def until(claim: Callable[[], bool]) -> None:
    """Return once something is so."""
    deadline = time.monotonic() + PATIENCE
    while not claim():
        assert time.monotonic() < deadline, "it never came about"
        time.sleep(0.02)


def act(server: Server, action: str, config_data: Any = None) -> httpx.Response:
    return server.post(f"/test.acting/action/{action}", {"configData": config_data or {}})


def refused(answer: httpx.Response, status: int = 400) -> str:
    assert answer.status_code == status, answer.text
    message: str = answer.json()["message"]
    return message


@pytest.mark.scenario("runner", 62)
@pytest.mark.scenario("runner", 77)
def test_what_a_container_prints_is_the_answer(acting: Server) -> None:
    answer = act(acting, "show", {"parameters": {"#secret": "hunter-2-hunter", "a": {}}})
    assert answer.status_code == 200, answer.text
    assert answer.json()["parameters"] == {"#secret": "hunter-2-hunter", "a": {}}
    assert answer.json()["action"] == "show"
    assert "hunter-2" not in (acting.home / "server.log").read_text()
    below = acting.post("/docker/test.acting/action/both", {"configData": {}})
    assert below.json() == []
    assert "only for the log" in (acting.home / "server.log").read_text()
    assert acting.vaka("action", "test.acting", "both") == []


@pytest.mark.scenario("runner", 65)
@pytest.mark.scenario("runner", 69)
@pytest.mark.scenario("runner", 70)
@pytest.mark.scenario("mapping", 259)
def test_how_a_container_ends_is_the_status(acting: Server) -> None:
    assert refused(act(acting, "none")) == "No response from component."
    assert refused(act(acting, "user")) == "user error"
    answer = act(acting, "application")
    assert refused(answer, 500).startswith("Contact support@keboola.com")
    told = [json.loads(line) for line in (acting.home / "server.log").read_text().splitlines()]
    (record,) = (each for each in told if each.get("exception_id") == answer.json()["exceptionId"])
    assert "failed: (2) application error" in record["detail"]
    assert refused(act(acting, "memory")) == "Component out of memory (exceeded 32m)"
    assert refused(act(acting, "flood")).startswith("The action answered with more than 16 MiB")


@pytest.mark.scenario("runner", 75)
@pytest.mark.scenario("mapping", 92)
def test_nothing_is_staged(acting: Server) -> None:
    config = {
        "storage": {
            "input": {
                "files": [{"tags": ["any"]}],
                "tables": [{"source": "in.c-none.t", "destination": "t.csv"}],
            }
        },
        "processors": {"before": [{"definition": {"component": "no-such-processor"}}]},
    }
    answer = act(acting, "files", config)
    assert answer.status_code == 200, answer.text
    assert answer.json()["in"].split() == ["/data/in/state.json"]
    assert answer.json()["user"] != 0


@pytest.mark.scenario("runner", 68)
def test_three_run_at_a_time_and_end_when_they_take_too_long(
    acting: Server, images: Images
) -> None:
    with ThreadPoolExecutor(3) as callers:
        asked = [callers.submit(act, acting, "sleep") for _ in range(3)]
        until(lambda: len(images.containers(acting.instance)) == 3)
        one_more = act(acting, "both")
        answers = [each.result() for each in asked]
    assert refused(one_more, 503).startswith("3 actions are running, which is as many as may")
    assert one_more.headers["Retry-After"] == "1"
    for answer in answers:
        message = refused(answer)
        assert message.endswith(f"container exceeded the timeout of {LIMIT} seconds.")
    assert act(acting, "both").json() == []


@contextmanager
def asking(server: Server, images: Images) -> Iterator[str]:
    """Somebody waits for an action that sleeps; the name of its container. Goes away at the end."""
    body = b'{"configData": {}}'
    url = httpx.URL(server.url)
    with socket.create_connection((url.host, url.port or 80), timeout=PATIENCE) as caller:
        caller.sendall(
            b"POST /test.acting/action/sleep HTTP/1.1\r\nHost: here\r\n"
            b"X-StorageApi-Token: %s\r\nContent-Length: %d\r\n\r\n%s"
            % (server.token.encode(), len(body), body)
        )
        until(lambda: len(images.containers(server.instance)) == 1)
        (name,) = images.containers(server.instance)
        yield name


def test_nobody_waits_for_the_end_of_an_action_that_nobody_wants(
    acting: Server, images: Images
) -> None:
    with asking(acting, images) as name:
        acting.kill()
        assert images.containers(acting.instance) == [name]
        assert [folder.name for folder in folders(acting)] == [name]
    # no time limit ends it in place of what is looked for here
    acting.settings["VAKA_ACTION_TIMEOUT"] = str(10 * PATIENCE)
    acting.start()
    until(lambda: images.containers(acting.instance) == [])
    until(lambda: folders(acting) == [])
    with asking(acting, images):
        assert len(folders(acting)) == 1
    until(lambda: images.containers(acting.instance) == [])
    until(lambda: folders(acting) == [])
    assert act(acting, "both").json() == []
