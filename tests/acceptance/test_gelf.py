"""Components that log by GELF from real containers, with the published library."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
from tests.acceptance.conftest import Server
from tests.acceptance.images import Images
from tests.keys import KEY_RING

from vaka import Engine, EngineConfig, Event, JobSpec, Status

pytestmark = pytest.mark.docker

PATIENCE = 120.0
PROGRAM = """exec python3 -c '
import logging, os, pygelf
kind = getattr(pygelf, os.environ["GELF"])
log = logging.getLogger()
log.setLevel(logging.DEBUG)
log.addHandler(kind(
    host=os.environ["KBC_LOGGER_ADDR"], port=int(os.environ["KBC_LOGGER_PORT"]),
    debug=True, include_extra_fields=True,
))
log.debug("a detail")
log.info("some news")
log.warning("a warning about s3cret")
log.error("an error", extra={"structure": {"file": ["a.py", {"secret": "s3cret"}]}})
log.critical("the end " + "." * 4000)
print("What is public", flush=True)
'"""
HANDLERS = {"tcp": "GelfTcpHandler", "udp": "GelfUdpHandler", "http": "GelfHttpHandler"}
VERBOSE = {str(level): "verbose" for level in (100, 200, 300, 400, 500)}


@pytest.fixture(scope="module")
def programs(docker_host: str, demo_images: dict[str, str]) -> Iterator[Images]:
    """Makes images on one that has the library."""
    images = Images(docker_host, demo_images["demo-delays"])
    yield images
    images.close()


@pytest.mark.scenario("runner", 144)
@pytest.mark.parametrize("transport", HANDLERS)
async def test_messages_of_the_published_library_come_by_every_transport(
    programs: Images, tmp_path: Path, transport: str
) -> None:
    program = PROGRAM.replace('os.environ["GELF"]', f'"{HANDLERS[transport]}"')
    component = programs.component(
        "logger",
        program,
        network="bridge",
        logging={"type": "gelf", "gelf_server_type": transport, "verbosity": VERBOSE},
    )
    config = EngineConfig(
        home=tmp_path / "home",
        instance=f"test-{secrets.token_hex(4)}",
        key_ring_document=KEY_RING,
    )
    async with Engine(config) as engine:
        await engine.catalog.put_component(component)
        configuration = {"parameters": {"#password": "s3cret"}}
        with trio.fail_after(PATIENCE):
            job = await engine.submit(JobSpec(component="logger", config_data=configuration))
            outcome = await job.wait()
            events = [event async for event in job.events()]
    assert outcome.status is Status.SUCCESS, events
    records = {event.message.partition(" ...")[0]: event for event in events if event.kind == "log"}
    assert {text: event.level for text, event in records.items()} == {
        "a detail": "info",
        "some news": "info",
        "a warning about [hidden]": "warn",
        "an error": "error",
        "the end": "error",
        "What is public": "info",
    }
    assert [
        event.message for event in events if event.level == "warn" and event.kind == "note"
    ] == []
    results = _results(records["an error"])
    assert results["_structure"] == {"file": ["a.py", {"secret": "[hidden]"}]}
    assert results["_line"] == 13
    assert programs.containers(config.instance) == []


TICKING = """exec python3 -c '
import itertools, logging, os, pygelf, time
log = logging.getLogger()
log.setLevel(logging.INFO)
log.addHandler(pygelf.GelfTcpHandler(
    host=os.environ["KBC_LOGGER_ADDR"], port=int(os.environ["KBC_LOGGER_PORT"])
))
for number in itertools.count(1):
    log.info("tick %d", number)
    if os.path.exists("/data/stop"):
        break
    time.sleep(0.05)
'"""


def test_after_kill_9_the_next_engine_hears_the_component_again(
    programs: Images, server: Server, tmp_path: Path
) -> None:
    server.start()
    settings = {"type": "gelf", "gelf_server_type": "tcp"}
    document = programs.component("ticker", TICKING, network="bridge", logging=settings)
    (tmp_path / "ticker.json").write_text(json.dumps(document))
    server.vaka("component", "add", str(tmp_path / "ticker.json"))
    answer = server.post("/docker/ticker/run", {"configData": {"parameters": {}}})
    assert answer.status_code == 202, answer.text
    job = str(answer.json()["id"])
    server.wait_for_line(job, "tick 2")
    server.kill()
    server.start()
    heard = len(ticks(server, job))
    deadline = time.monotonic() + PATIENCE
    while len(ticks(server, job)) <= heard:
        assert time.monotonic() < deadline, server.events(job)
    (server.home / f"jobs/{job}/data/stop").touch()
    assert server.wait(job)["status"] == "success"
    numbers = ticks(server, job)
    assert numbers == sorted(set(numbers))
    warnings = [event["message"] for event in server.events(job) if event["level"] == "warn"]
    assert warnings == [
        "The runner was restarted: GELF messages that the component sent meanwhile are lost."
    ]


def ticks(server: Server, job: str) -> list[int]:
    return [int(line.split()[1]) for line in server.logged(job)]


def _results(event: Event) -> dict[str, object]:
    results: dict[str, object] = event.data["results"]
    return results
