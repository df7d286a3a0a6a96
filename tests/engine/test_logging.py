"""What containers print becomes events: cut, masked, levelled, counted (runner.md section 4.9)."""

from __future__ import annotations

import base64
import json
import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from pydantic import SecretStr
from tests.engine.conftest import MakeEngine
from trio.testing import MockClock

from vaka import Engine, Event, Job, JobSpec, Outcome, Status
from vaka.actors.logs import CAMOUFLAGE, CONTACT
from vaka.actors.output import MESSAGE_CHARACTERS, TRIMMED
from vaka.errors import ImageUnavailable
from vaka.models.container import ContainerSpec
from vaka.testing import FakeHost, FakeImage, Printed, Script

SWAP_WARNING = (
    b"WARNING: Your kernel does not support swap limit capabilities or the cgroup is not mounted. "
    b"Memory limited without swap."
)
NONE = {str(level): "none" for level in (100, 200, 250, 300, 400, 500, 550, 600)}


async def run(
    engine: Engine, configuration: dict[str, Any] | None = None, **data: Any
) -> tuple[Outcome, list[Event]]:
    """The outcome of a job of a component with this definition, and its events."""
    token = data.pop("token", None)
    await engine.catalog.put_component(
        {
            "id": "writer",
            "type": "application",
            "name": "Writer",
            "data": {"definition": {"type": "dockerhub", "uri": "worker", "tag": "1"}, **data},
        }
    )
    job: Job = await engine.submit(
        JobSpec(component="writer", config_data=configuration or {}, token=token)
    )
    outcome = await job.wait()
    return outcome, [event async for event in job.events()]


def logged(events: list[Event]) -> list[tuple[str | None, str, str]]:
    return [(each.stream, each.level, each.message) for each in events if each.kind == "log"]


Play = Callable[..., None]


@pytest.fixture
def play(host: FakeHost) -> Play:
    """Says what the component's container prints."""

    def play(*output: Printed, **script: Any) -> None:
        host.images["worker:1"] = FakeImage(Script(output, **script))

    return play


def out(data: bytes) -> Printed:
    return Printed(data)


def err(data: bytes) -> Printed:
    return Printed(data, stream="stderr")


@pytest.mark.scenario("runner", 139)
async def test_secrets_are_hidden_in_output_and_in_errors(
    play: Play, clock: MockClock, make_engine: MakeEngine
) -> None:
    play(out(b"What is public is not secure"), err(b"nothing is secure\n"))
    async with make_engine() as engine:
        outcome, events = await run(engine, {"parameters": {"#secret": "secure"}})
    assert outcome.status is Status.SUCCESS
    assert sorted(logged(events), key=str) == [
        ("stderr", "error", "nothing is [hidden]"),
        ("stdout", "info", "What is public is not [hidden]"),
    ]


async def test_a_secret_is_hidden_however_reads_and_lines_cut_it(
    play: Play, clock: MockClock, make_engine: MakeEngine
) -> None:
    key = "-----BEGIN-----\nfirst line\nsecond line\n-----END-----\n"
    text = f"a {key} b\nits code {base64.b64encode(key.encode()).decode()}\n".encode()
    reads = [out(text[at : at + 7]) for at in range(0, len(text), 7)]
    play(*reads, exit_code=1)
    async with make_engine() as engine:
        outcome, events = await run(engine, {"parameters": {"#key": key}})
    assert [message for *_, message in logged(events)] == [
        "a [hidden]",
        *["[hidden]"] * 3,
        " b",
        "its code [hidden]",
    ]
    assert outcome.message == "a [hidden] b\nits code [hidden]"


@pytest.mark.scenario("runner", 140)
async def test_bytes_that_are_no_text_are_left_out_everywhere(
    play: Play, clock: MockClock, make_engine: MakeEngine
) -> None:
    data = b"begin\n\x3d\xd8\x4f\xdeend\n"
    play(out(data), err(data), exit_code=1)
    async with make_engine() as engine:
        outcome, events = await run(engine)
    assert outcome.message == "begin\n=Oend"
    for stream in ("stdout", "stderr"):
        lines = [message for told, _, message in logged(events) if told == stream]
        assert "\n".join(lines) == "begin\n=Oend"
    assert events[-1].message == "begin\n=Oend"


@pytest.mark.scenario("runner", 141)
async def test_white_space_alone_is_no_event_and_no_error(
    play: Play, clock: MockClock, make_engine: MakeEngine
) -> None:
    play(out(b"\n \t\r\n\n"), err(b"  \n\x0b\n \0"))
    async with make_engine() as engine:
        outcome, events = await run(engine)
    assert outcome.status is Status.SUCCESS
    assert logged(events) == []
    assert [each for each in events if each.level == "error" or not each.message] == []


@pytest.mark.scenario("runner", 142)
async def test_the_output_of_a_failed_container_is_in_its_events(
    play: Play, clock: MockClock, make_engine: MakeEngine
) -> None:
    play(out(b"on my way\n"), err(b"crashed\n"), exit_code=2)
    async with make_engine() as engine:
        outcome, events = await run(engine)
    assert (outcome.error, outcome.status) == ("application", Status.ERROR)
    # standard error too, line by line as it came: docs/spec/deviations.md on runner.md 4.9.1
    assert logged(events) == [("stdout", "info", "on my way"), ("stderr", "error", "crashed")]


@pytest.mark.scenario("runner", 143)
async def test_of_a_very_long_error_the_two_ends_are_the_message(
    play: Play, clock: MockClock, make_engine: MakeEngine
) -> None:
    secret = "s3cret" * 3
    text = (secret + "x" * 982).encode() * 2_000
    play(Printed(text, stream="stderr"), exit_code=1)
    async with make_engine() as engine:
        outcome, _ = await run(engine, {"parameters": {"#password": secret}})
    assert len(outcome.message) == MESSAGE_CHARACTERS + len(" ... ") == 4_005
    assert " ... " in outcome.message
    assert outcome.message.startswith("[hidden]xxx")
    assert "s3cret" not in outcome.message


@pytest.mark.scenario("runner", 147)
async def test_a_component_may_have_no_log_at_all(
    play: Play, clock: MockClock, make_engine: MakeEngine
) -> None:
    play(out(b"one\n"), err(b"two\n"))
    async with make_engine() as engine:
        outcome, events = await run(engine, logging={"verbosity": NONE})
        stages = (await engine.job(outcome.job_id)).record.stages
    assert outcome.status is Status.SUCCESS
    assert logged(events) == []
    assert [(each.stdout_bytes, each.stderr_bytes) for each in stages] == [(4, 4)]


async def test_a_component_may_hide_its_errors_behind_one_sentence(
    play: Play, clock: MockClock, make_engine: MakeEngine
) -> None:
    play(out(b"shown\n"), err(b"password: 1\n"))
    async with make_engine() as engine:
        _, events = await run(engine, logging={"verbosity": {"400": "camouflage"}})
    assert logged(events) == [("stdout", "info", "shown"), ("stderr", "error", CAMOUFLAGE)]
    assert {"description": CONTACT} in [each.data for each in events]


@pytest.mark.scenario("runner", 152)
async def test_notices_of_the_runner_are_for_its_operator_only(
    play: Play,
    host: FakeHost,
    clock: MockClock,
    make_engine: MakeEngine,
    caplog: pytest.LogCaptureFixture,
) -> None:
    play(out(b"said\n"))
    host.images["worker:1"] = replace(host.images["worker:1"], local=False, pull_seconds=1)
    caplog.set_level(logging.INFO, "vaka")
    async with make_engine() as engine:
        busy = ImageUnavailable("the registry is busy", reference="worker:1", transient=True)
        host.fail("prepare_image", busy)
        _, events = await run(engine, features=[])
        _, again = await run(engine, {"runtime": {"image_tag": "nowhere"}})
    assert {each.level for each in events + again} <= {"info", "warn", "error"}
    assert "Running component writer (row 1 of 1)" in [each.message for each in events]
    (warning,) = [each for each in events if each.level == "warn"]
    assert "could not be pulled" in warning.message
    assert again[-1].level == "error"


async def test_taking_back_a_folder_is_noted_for_the_operator(
    play: Play, clock: MockClock, make_engine: MakeEngine, caplog: pytest.LogCaptureFixture
) -> None:
    play()
    caplog.set_level(logging.INFO, "vaka")
    async with make_engine() as engine:
        await engine.catalog.put_component(
            {
                "id": "root",
                "type": "application",
                "features": ["container-root-user"],
                "data": {"definition": {"type": "dockerhub", "uri": "worker", "tag": "1"}},
            }
        )
        job = await engine.submit(JobSpec(component="root", config_data={}))
        await job.wait()
        messages = [event.message async for event in job.events()]
    text = "Normalizing working directory permissions"
    assert text not in messages
    assert text in [getattr(record, "reason", "") for record in caplog.records]


@pytest.mark.scenario("runner", 156)
async def test_a_token_that_a_component_was_given_is_hidden(
    host: FakeHost, clock: MockClock, make_engine: MakeEngine
) -> None:
    def script(spec: ContainerSpec) -> Script:
        return Script((out(f"token {spec.environment['KBC_TOKEN']}\n".encode()),))

    host.images["worker:1"] = FakeImage(script)
    async with make_engine() as engine:
        _, events = await run(engine, forward_token=True, token=SecretStr("1-2-abcdef"))
    assert logged(events) == [("stdout", "info", "token [hidden]")]


@pytest.mark.scenario("runner", 158)
async def test_dockers_words_on_swap_are_never_shown(
    play: Play, clock: MockClock, make_engine: MakeEngine
) -> None:
    play(out(SWAP_WARNING + b"\nsaid\n"), err(SWAP_WARNING + b"\n"), exit_code=1)
    async with make_engine() as engine:
        outcome, events = await run(engine)
    assert logged(events) == [("stdout", "info", "said")]
    assert outcome.message == "said"
    assert "swap" not in str(outcome)


@pytest.mark.scenario("runner", 159)
async def test_a_line_of_64000_characters_is_whole_and_a_longer_one_is_cut(
    play: Play, clock: MockClock, make_engine: MakeEngine
) -> None:
    long = "é" * 64_000
    play(out(f"{long}\n{long}e\n".encode()), out(b"a" * 1_000_000), out(b"\nnext\n"))
    async with make_engine() as engine:
        _, events = await run(engine)
    assert [message for *_, message in logged(events)] == [
        long,
        long + TRIMMED,
        "a" * 64_000 + TRIMMED,
        "next",
    ]


async def test_what_a_flood_prints_beyond_the_limit_is_counted_and_said_once(
    play: Play, clock: MockClock, make_engine: MakeEngine
) -> None:
    flood = [Printed(b"%03d\n" % number, at=number) for number in range(400)]
    play(*flood, Printed(b"the end\n", at=400, stream="stderr"))
    async with make_engine(job_log_bytes=1_024) as engine:
        outcome, events = await run(engine)
        stages = (await engine.job(outcome.job_id)).record.stages
    assert outcome.status is Status.SUCCESS
    assert [message for *_, message in logged(events)] == [f"{n:03}" for n in range(256)]
    notes = [each.message for each in events if each.level == "warn"]
    assert notes == [
        "The log is full: a job keeps 1024 bytes of what its containers print. 145 lines of 584 "
        "bytes of writer were left out. The operator may raise job_log_bytes."
    ]
    # all of it was read: the container never waited
    assert [(each.stdout_bytes, each.stderr_bytes) for each in stages] == [(1_600, 8)]


async def test_the_room_for_output_is_the_jobs_across_a_restart_of_the_engine(
    play: Play, host: FakeHost, clock: MockClock, make_engine: MakeEngine
) -> None:
    play(Printed(b"a" * 1_000 + b"\n"), Printed(b"b" * 100 + b"\n", at=50), seconds=100)
    async with make_engine(job_log_bytes=1_024, shutdown="adopt") as engine:
        job = await engine.submit(JobSpec(image="worker:1"))
        async for event in job.events():
            if event.kind == "log":
                break
    async with make_engine(job_log_bytes=1_024) as engine:
        again = await engine.job(job.id)
        assert (await again.wait()).status is Status.SUCCESS
        events = [event async for event in again.events()]
    assert [message[:1] for *_, message in logged(events)] == ["a"]
    assert len([each for each in events if "1 lines of 101 bytes" in each.message]) == 1


async def test_secrets_that_cannot_be_hidden_are_named_once(
    host: FakeHost, play: Play, clock: MockClock, make_engine: MakeEngine
) -> None:
    parameters = {
        "#flag": "1",
        "#empty": "",
        "db": {"#user": "admin", "#port": 8080, "#password": "hunter2", "#tls": True},
    }
    play(out(b"admin logs in to port 8080, row 1, true: hunter2\n"))
    async with make_engine() as engine:
        _, events = await run(engine, {"parameters": parameters})
        _, all_hidden = await run(engine, {"parameters": {"#password": "hunter2"}})
    assert logged(events) == [
        ("stdout", "info", "admin logs in to port 8080, row 1, true: [hidden]")
    ]
    (warning,) = [each.message for each in events if each.level == "warn"]
    named = "parameters.#flag, parameters.db.#user, parameters.db.#port, parameters.db.#tls."
    assert warning.endswith(f"would be found in any text: {named} Longer ones are hidden.")
    assert [each for each in all_hidden if each.level == "warn"] == []


async def test_of_very_many_secrets_that_cannot_be_hidden_some_are_named(
    play: Play, clock: MockClock, make_engine: MakeEngine
) -> None:
    play()
    async with make_engine() as engine:
        _, events = await run(engine, {"parameters": {f"#x{n}": "1" for n in range(30)}})
    (warning,) = [each.message for each in events if each.level == "warn"]
    assert "parameters.#x19 and 10 more. Longer" in warning
    assert "#x20" not in warning


async def test_how_short_a_hidden_secret_may_be_is_a_setting(
    play: Play, clock: MockClock, make_engine: MakeEngine
) -> None:
    play(out(b"pin 1 2\n"))
    async with make_engine(secret_min_length=1) as engine:
        _, events = await run(engine, {"parameters": {"#pin": "1"}})
    assert logged(events) == [("stdout", "info", "pin [hidden] 2")]
    assert [each for each in events if each.level == "warn"] == []


@pytest.mark.scenario("encryption", 78)
@pytest.mark.parametrize(
    "secret", ["secret", "sec\\ret/\"sec'ret", "žluť", "a<b>&c", "line\nbreak"]
)
async def test_the_published_forms_are_hidden_in_output_and_events(
    play: Play, clock: MockClock, make_engine: MakeEngine, secret: str
) -> None:
    encoded = base64.b64encode(secret.encode()).decode()
    written = json.dumps(secret).replace("/", "\\/")
    play(out(f"({secret}) ({encoded}) ({written})\n".encode()), err(secret.encode()), exit_code=1)
    async with make_engine() as engine:
        outcome, events = await run(engine, {"parameters": {"#x": secret}})
    told = "\n".join(message for stream, _, message in logged(events) if stream == "stdout")
    first = "([hidden]\n[hidden])" if "\n" in secret else "([hidden])"
    assert told == f'{first} ([hidden]) ("[hidden]")'
    assert outcome.message == "[hidden]"
    assert events[-1].message == "[hidden]"
    assert not any(part in str(each) for each in events for part in (secret, encoded, written))


async def test_an_unforeseen_error_is_logged_without_secrets(
    host: FakeHost,
    play: Play,
    clock: MockClock,
    make_engine: MakeEngine,
    caplog: pytest.LogCaptureFixture,
) -> None:
    play()
    host.fail("prepare_image", RuntimeError("no such thing: hunter2-hunter2"))
    async with make_engine() as engine:
        outcome, _ = await run(engine, {"parameters": {"#password": "hunter2-hunter2"}})
    assert outcome.error == "application"
    (failed,) = [vars(record) for record in caplog.records if record.msg == "job.failed"]
    assert failed["error"] == "RuntimeError: no such thing: [hidden]"
    assert failed["exception"].startswith("Traceback (most recent call last):\n")
    assert failed["exception"].endswith("RuntimeError: no such thing: [hidden]\n")
    assert failed["exc_info"] is None
