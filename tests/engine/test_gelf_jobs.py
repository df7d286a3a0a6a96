"""Jobs whose component logs by GELF, on a host that plays scripts; its messages are really sent."""

from __future__ import annotations

import gzip
import json
import logging
import socket
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trio
from pydantic import ValidationError
from tests.keys import KEY_RING

from vaka import Engine, EngineConfig, Event, Job, JobSpec, Outcome, Status
from vaka.actors import listeners
from vaka.actors.listeners import LABEL_GELF, MOST_CONNECTIONS
from vaka.actors.logs import CAMOUFLAGE, CONTACT
from vaka.gelf import CHUNK_MAGIC, MESSAGE_BYTES
from vaka.hooks import ContainerRuntime, hookimpl
from vaka.models.component import Logging
from vaka.models.container import ContainerSpec
from vaka.models.job import ActionSpec
from vaka.testing import FakeHost, FakeImage, FakeRuntime, Printed, Script

LEVELS = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}
VERBOSE = {str(level): "verbose" for level in (100, 200, 250, 300, 400, 500, 550, 600)}
NONE = dict.fromkeys(VERBOSE, "none")
TRANSPORTS = ("tcp", "udp", "http")
PATIENCE = 30.0


class Component:
    """What runs in a container: sends GELF messages to where it was told."""

    def __init__(self, host: FakeHost, spec: ContainerSpec, transport: str) -> None:
        self.id = host._containers[spec.name].id
        self.address = (
            spec.environment["KBC_LOGGER_ADDR"],
            int(spec.environment["KBC_LOGGER_PORT"]),
        )
        self._transport = transport

    def message(self, text: str, level: Any = 6, **fields: Any) -> bytes:
        host = {"version": "1.1", "host": self.id[:12], "timestamp": 1}
        return json.dumps({**host, "short_message": text, "level": level, **fields}).encode()

    def log(self, text: str, level: Any = 6, **fields: Any) -> None:
        self.send(self.message(text, level, **fields))

    def send(self, *messages: bytes) -> None:
        if self._transport == "udp":
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
                for message in messages:
                    sender.sendto(message, self.address)
        elif self._transport == "tcp":
            self.raw(b"".join(message + b"\0" for message in messages))
        else:
            self.raw(b"".join(post(message) for message in messages))

    def raw(self, data: bytes) -> None:
        with socket.create_connection(self.address, PATIENCE) as sender:
            sender.sendall(data)


def post(message: bytes, head: str = "POST /gelf HTTP/1.1") -> bytes:
    return f"{head}\r\nHost: h\r\nContent-Length: {len(message)}\r\n\r\n".encode() + message


Does = Callable[[Component], object]


class Bench:
    """An engine on real time, with one component that logs by GELF."""

    def __init__(self, engine: Engine, host: FakeHost) -> None:
        self.engine = engine
        self.host = host

    async def run(
        self,
        does: Does,
        transport: str = "tcp",
        *,
        output: tuple[Printed, ...] = (),
        exit_code: int = 0,
        verbosity: dict[str, str] | None = None,
        configuration: dict[str, Any] | None = None,
        **data: Any,
    ) -> tuple[Outcome, list[Event]]:
        """The outcome of a job whose container does something at its end, and its events."""

        def effect(spec: ContainerSpec) -> None:
            if "KBC_LOGGER_PORT" in spec.environment:
                does(Component(self.host, spec, transport))

        self.host.images["worker:1"] = FakeImage(
            Script(output, effect=effect, exit_code=exit_code, seconds=0.01)
        )
        await self.define(transport, verbosity, **data)
        job = await self.submit(configuration)
        with trio.fail_after(PATIENCE):
            outcome = await job.wait()
            return outcome, [event async for event in job.events()]

    async def define(
        self, transport: str, verbosity: dict[str, str] | None = None, **data: Any
    ) -> None:
        settings = {"type": "gelf", "gelf_server_type": transport, "verbosity": verbosity or {}}
        definition = {"type": "dockerhub", "uri": "worker", "tag": "1"}
        await self.engine.catalog.put_component(
            {
                "id": "logger",
                "type": "application",
                "data": {
                    "definition": definition,
                    "logging": settings,
                    "synchronous_actions": ["look"],
                    **data,
                },
            }
        )

    async def submit(self, configuration: dict[str, Any] | None = None) -> Job:
        spec = JobSpec(component="logger", config_data=configuration or {})
        return await self.engine.submit(spec)


def plugin(host: FakeHost) -> object:
    @hookimpl
    def vaka_container_runtime(url: str) -> ContainerRuntime:
        return FakeRuntime(host=host)

    return SimpleNamespace(vaka_container_runtime=vaka_container_runtime)


@pytest.fixture
def host() -> FakeHost:
    return FakeHost()


@pytest.fixture
async def bench(host: FakeHost, tmp_path: Path) -> Any:
    config = EngineConfig(home=tmp_path / "home", key_ring_document=KEY_RING)
    async with Engine(config, plugins=[plugin(host)]) as engine:
        yield Bench(engine, host)


def logged(events: list[Event]) -> list[tuple[str, str]]:
    return [(event.level, event.message) for event in events if event.kind == "log"]


def warnings(events: list[Event]) -> list[str]:
    return [event.message for event in events if event.level == "warn" and event.kind == "note"]


def say_five(component: Component) -> None:
    for name, level in LEVELS.items():
        component.log(f"{name} of s3cret" if name == "warning" else name, level)


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_messages_of_all_levels_come_by_every_transport(bench: Bench, transport: str) -> None:
    outcome, events = await bench.run(
        say_five,
        transport,
        output=(Printed(b"printed\n"),),
        verbosity=VERBOSE,
        configuration={"parameters": {"#password": "s3cret"}},
    )
    assert outcome.status is Status.SUCCESS
    assert sorted(logged(events)) == [
        ("error", "critical"),
        ("error", "error"),
        ("info", "debug"),
        ("info", "info"),
        ("info", "printed"),
        ("warn", "warning of [hidden]"),
    ]
    assert warnings(events) == []


@pytest.mark.scenario("runner", 145)
async def test_by_default_debug_is_left_out_and_critical_is_hidden(bench: Bench) -> None:
    _, events = await bench.run(say_five)
    assert logged(events) == [
        ("info", "info"),
        ("warn", "warning of s3cret"),
        ("error", "error"),
        ("error", CAMOUFLAGE),
    ]
    assert [event.data for event in events if event.kind == "log"] == [
        {},
        {},
        {},
        {"description": CONTACT},
    ]


@pytest.mark.scenario("runner", 146)
async def test_a_verbose_event_has_the_whole_message_masked(bench: Bench) -> None:
    structure = {"file": ["a.py", {"#password": "s3cret"}], "pin": 123456}

    def does(component: Component) -> None:
        fields = {"_file": "main.py", "_line": 7, "_structure": json.dumps(structure)}
        component.log("said", 7, **fields)

    _, events = await bench.run(
        does,
        verbosity=VERBOSE,
        configuration={"parameters": {"#password": "s3cret", "#pin": "123456"}},
    )
    (event,) = [event for event in events if event.kind == "log"]
    results = event.data["results"]
    assert (event.level, event.message) == ("info", "said")
    assert (results["_file"], results["_line"]) == ("main.py", 7)
    assert results["_structure"] == {
        "file": ["a.py", {"#password": "[hidden]"}],
        "pin": "[hidden]",
    }


@pytest.mark.scenario("runner", 147)
async def test_with_no_verbosity_nothing_of_a_component_is_shown(bench: Bench) -> None:
    _, events = await bench.run(say_five, output=(Printed(b"printed\n"),), verbosity=NONE)
    assert logged(events) == []


@pytest.mark.scenario("runner", 148)
@pytest.mark.scenario("runner", 149)
async def test_messages_that_are_not_of_the_container_are_dropped(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    def does(component: Component) -> None:
        component.send(b'{"short_message": "without", "level": 6}')
        component.log("of another", host="0123456789ab")
        component.log("guessed", host=component.id[:2])
        for _ in range(10):
            component.log("of another", host="0123456789ab")
        component.log("mine", host=component.id)

    outcome, events = await bench.run(does)
    assert outcome.status is Status.SUCCESS
    assert logged(events) == [("info", "mine")]
    reasons = [vars(record)["reason"] for record in caplog.records if "reason" in vars(record)]
    assert "Missing required field from event." in reasons
    assert reasons.count("Invalid container host 0123456789ab") == 3
    assert "13 GELF messages were not of this container." not in reasons
    assert "13 GELF messages were refused." in reasons


@pytest.mark.scenario("runner", 150)
@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_what_cannot_be_read_is_an_error_record_and_the_job_goes_on(
    bench: Bench, transport: str
) -> None:
    outcome, events = await bench.run(
        lambda component: component.send(b"no s3cret json", component.message("good")),
        transport,
        configuration={"parameters": {"#password": "s3cret"}},
    )
    assert outcome.status is Status.SUCCESS
    assert logged(events) == [
        (
            "error",
            'Invalid message: Cannot parse JSON data in event: "Syntax error". '
            'Data: "no [hidden] json".',
        ),
        ("info", "good"),
    ]


@pytest.mark.scenario("runner", 151)
@pytest.mark.parametrize(
    ("does", "output", "message"),
    [
        (say_five, b"printed", "printed"),
        (say_five, b"", "critical"),
        (lambda component: component.log("fine", 5), b"", "No error message."),
    ],
)
async def test_a_failure_is_explained_by_output_or_else_by_the_last_warning(
    bench: Bench,
    does: Does,
    output: bytes,
    message: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    outcome, _ = await bench.run(does, output=(Printed(output),), exit_code=2)
    assert outcome.error == "application"
    (told,) = [vars(each)["error"] for each in caplog.records if each.msg == "job.failed"]
    assert told.endswith(f"failed: (2) {message}")


async def test_levels_that_are_none_count_as_errors(bench: Bench) -> None:
    def does(component: Component) -> None:
        for level in (9, -1, "4", "x", None, 2.5, True, [1]):
            component.log(f"level {level}", level)
        component.log("", 6)
        component.send(component.message("x").replace(b'"x"', b'{"a": 1}'))

    _, events = await bench.run(does)
    assert [(level, text) for level, text in logged(events) if level != "error"] == [
        ("warn", "level 4"),
        ("info", '{"a": 1}'),
    ]
    assert len(logged(events)) == 9


async def test_datagrams_may_be_chunks_in_any_order_and_compressed(bench: Bench) -> None:
    def does(component: Component) -> None:
        data = zlib.compress(component.message("long " + "x" * 5_000))
        pieces = [data[at : at + 20] for at in range(0, len(data), 20)]
        head = CHUNK_MAGIC + b"12345678"
        chunks = [head + bytes([index, len(pieces)]) + piece for index, piece in enumerate(pieces)]
        component.send(*reversed(chunks))
        component.send(gzip.compress(component.message("short")), chunks[0])

    _, events = await bench.run(does, "udp")
    assert logged(events) == [("info", "long " + "x" * 5_000), ("info", "short")]
    assert warnings(events) == ["1 GELF messages are lost: they came too fast, or in part."]


async def test_connections_are_apart_and_the_last_message_needs_no_end(bench: Bench) -> None:
    def does(component: Component) -> None:
        address = component.address
        with socket.create_connection(address) as one, socket.create_connection(address) as two:
            first, second = component.message("first"), component.message("second")
            one.sendall(first[:10])
            two.sendall(second)
            one.sendall(first[10:] + b"\0" + component.message("third"))

    _, events = await bench.run(does)
    assert sorted(logged(events)) == [("info", "first"), ("info", "second"), ("info", "third")]


@pytest.mark.parametrize(
    ("request_", "answer"),
    [
        (b"GET / HTTP/1.1\r\nHost: h\r\n\r\n", b"405"),
        (b"nonsense\r\n\r\n", b"400"),
        (post(b"x" * (MESSAGE_BYTES + 1)), b"413"),
        (b"POST / HTTP/1.1\r\nX: " + b"x" * 100_000, b"431"),
    ],
)
async def test_requests_that_cannot_be_are_refused(
    bench: Bench, host: FakeHost, request_: bytes, answer: bytes
) -> None:
    async with running(bench, "http") as component:
        stream = await trio.open_tcp_stream(*component.address)
        async with stream:
            await stream.send_all(request_)
            assert answer in await stream.receive_some()
        await trio.to_thread.run_sync(component.log, "after it")
    assert logged(component.events)[-1] == ("info", "after it")


async def test_a_request_is_answered_and_the_connection_kept(bench: Bench) -> None:
    async with running(bench, "http") as component:
        stream = await trio.open_tcp_stream(*component.address)
        async with stream:
            for text in ("one", "two"):
                await stream.send_all(post(component.message(text))[:-5])
                await stream.send_all(component.message(text)[-5:])
                answer = await stream.receive_some()
                assert answer.startswith(b"HTTP/1.1 202 ")
                assert b"keep-alive" in answer.lower()
            expecting = post(component.message("three")).replace(
                b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n", 1
            )
            head, _, body = expecting.partition(b"\r\n\r\n")
            await stream.send_all(head + b"\r\n\r\n")
            assert b" 100 " in await stream.receive_some()
            await stream.send_all(body)
            assert b" 202 " in await stream.receive_some()
    assert [text for _, text in logged(component.events)] == ["one", "two", "three"]


async def test_many_connections_and_silent_ones_hold_nothing_up(bench: Bench) -> None:
    async with running(bench, "tcp") as component:
        silent = [await trio.open_tcp_stream(*component.address) for _ in range(MOST_CONNECTIONS)]
        late = await trio.open_tcp_stream(*component.address)
        assert await late.receive_some() == b""  # one too many
        await late.aclose()
        await silent[0].send_all(component.message("said"))
        for stream in silent[1:]:
            await stream.aclose()
        # the first one stays open beyond the container's end
    await silent[0].aclose()
    assert logged(component.events) == [("info", "said")]
    said = [event.message for event in component.events]
    assert any(
        text.startswith("Connections for GELF messages were closed unread (1)") for text in said
    )


async def test_a_connection_waits_for_the_place_of_one_that_is_being_closed(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listeners, "CROWDED", PATIENCE)
    async with running(bench, "tcp") as component:
        silent = [await trio.open_tcp_stream(*component.address) for _ in range(MOST_CONNECTIONS)]
        late = await trio.open_tcp_stream(*component.address)
        await late.send_all(component.message("said") + b"\0")
        await late.aclose()
        for stream in silent:
            await stream.aclose()
    assert logged(component.events) == [("info", "said")]


async def test_an_endless_message_takes_no_memory_and_is_said_once(bench: Bench) -> None:
    async with running(bench, "tcp") as component:
        stream = await trio.open_tcp_stream(*component.address)
        async with stream:
            for _ in range(100):
                await stream.send_all(b"x" * 65_536)
            await stream.send_all(b"\0" + component.message("after it") + b"\0")
    (first, second) = logged(component.events)
    assert first[1].startswith(f"Invalid message: Message is longer than {MESSAGE_BYTES} bytes.")
    assert second == ("info", "after it")


async def test_messages_have_their_own_time_if_it_can_be(bench: Bench) -> None:
    now = time.time()

    def does(component: Component) -> None:
        for moment in (now - 60, "never", 1e300, None, 1):
            component.log(str(moment), timestamp=moment)

    _, events = await bench.run(does)
    times = [event.time.timestamp() - now for event in events if event.kind == "log"]
    assert times[0] == pytest.approx(-60, abs=0.01)
    assert all(abs(each) < PATIENCE for each in times[1:])


async def test_what_a_flood_of_messages_holds_beyond_the_limit_is_counted(
    host: FakeHost, tmp_path: Path
) -> None:
    config = EngineConfig(home=tmp_path / "home", job_log_bytes=2_000)
    async with Engine(config, plugins=[plugin(host)]) as engine:
        _, events = await Bench(engine, host).run(
            lambda component: component.send(*[component.message("x" * 900)] * 50)
        )
    assert 0 < len(logged(events)) < 3
    (warning,) = warnings(events)
    assert f"{50 - len(logged(events))} lines of" in warning


# -- where it listens --------------------------------------------------------------------------


async def test_a_component_without_network_is_told_of_no_listener(bench: Bench) -> None:
    def does(component: Component) -> None:
        raise AssertionError("it was told of a listener")

    outcome, events = await bench.run(does, output=(Printed(b"printed\n"),), network="none")
    assert outcome.status is Status.SUCCESS
    assert logged(events) == [("info", "printed")]
    (warning,) = warnings(events)
    assert warning.startswith("The component logs by GELF and its network is 'none'")
    (spec,) = bench.host.created
    assert not {"KBC_LOGGER_ADDR", "KBC_LOGGER_PORT", LABEL_GELF} & {
        *spec.environment,
        *spec.labels,
    }


async def test_ports_are_those_of_the_settings(host: FakeHost, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        config = EngineConfig(home=tmp_path / "home", gelf_port_min=port, gelf_port_max=port)
        async with Engine(config, plugins=[plugin(host)]) as engine:
            outcome, _ = await Bench(engine, host).run(say_five)
        assert outcome.error == "application"
        assert outcome.cause is not None
        assert "Failed to start server" in str(outcome.cause.evidence)
        assert str(port) in str(outcome.cause.evidence)
    assert host.created == []
    # nobody is told of a port that is not free; when it is, it is that one
    async with Engine(config, plugins=[plugin(host)]) as engine:
        _, events = await Bench(engine, host).run(say_five)
    assert host.created[0].environment["KBC_LOGGER_PORT"] == str(port)
    assert len(logged(events)) == 4


async def test_an_address_that_is_not_the_hosts_is_refused_with_advice(
    host: FakeHost, tmp_path: Path
) -> None:
    config = EngineConfig(home=tmp_path / "home", gelf_address="192.0.2.1")
    async with Engine(config, plugins=[plugin(host)]) as engine:
        outcome, _ = await Bench(engine, host).run(say_five)
    assert outcome.cause is not None
    assert "set gelf_address" in str(outcome.cause.evidence)


def test_a_range_of_ports_has_its_ends_in_order() -> None:
    text = r"Invalid port range min \(20\) is bigger than max \(10\)\."
    with pytest.raises(ValidationError, match=text):
        EngineConfig(gelf_port_min=20, gelf_port_max=10)
    assert 12_201 not in range(EngineConfig().gelf_port_min, EngineConfig().gelf_port_max + 1)


async def test_an_action_of_such_a_component_has_a_listener_too(bench: Bench) -> None:
    sent: list[str] = []

    def effect(spec: ContainerSpec) -> None:
        component = Component(bench.host, spec, "tcp")
        component.log("not for the answer")
        sent.append(component.id)

    script = Script((Printed(b'{"ok": true}'),), effect=effect, seconds=0.01)
    bench.host.images["worker:1"] = FakeImage(script)
    await bench.define("tcp")
    answer = await bench.engine.act(
        ActionSpec(project="1", component="logger", action="look", config_data={})
    )
    assert answer.value == {"ok": True}
    assert sent


# -- across a restart --------------------------------------------------------------------------


@pytest.mark.parametrize("is_taken", [False, True])
async def test_the_next_engine_listens_where_the_container_was_told(
    host: FakeHost, tmp_path: Path, is_taken: bool
) -> None:
    config = EngineConfig(home=tmp_path / "home", shutdown="adopt")
    host.images["worker:1"] = FakeImage(Script(seconds=10_000))
    async with Engine(config, plugins=[plugin(host)]) as engine:
        bench = Bench(engine, host)
        await bench.define("tcp")
        job = await bench.submit()
        component = await started(bench, job)
        component.log("before")
        await until_logged(job, "before")
    with pytest.raises(ConnectionRefusedError):
        component.log("lost")
    with occupied(component.address, is_taken):
        async with Engine(config, plugins=[plugin(host)]) as engine:
            again = await engine.job(job.id)
            async for event in again.events():
                if event.level == "warn" and (("Further" in event.message) or not is_taken):
                    break
            if not is_taken:
                component.log("after")
                await until_logged(again, "after")
            host.finish(host.created[0].name)
            with trio.fail_after(PATIENCE):
                assert (await again.wait()).status is Status.SUCCESS
            events = [event async for event in again.events()]
    texts = [text for _, text in logged(events)]
    assert texts == (["before"] if is_taken else ["before", "after"])
    told = warnings(events)
    assert "sent meanwhile are lost" in told[0]
    assert len(told) == (2 if is_taken else 1)
    assert len(host.created) == 1


@pytest.mark.parametrize("before", ["output", "start"])
async def test_a_container_that_was_made_and_not_started_is_told_where_to_log(
    host: FakeHost, tmp_path: Path, before: str
) -> None:
    config = EngineConfig(home=tmp_path / "home", shutdown="adopt")
    told: list[str] = []

    def effect(spec: ContainerSpec) -> None:
        Component(host, spec, "tcp").log("said")
        told.append(spec.environment["KBC_LOGGER_PORT"])

    host.images["worker:1"] = FakeImage(Script(effect=effect, seconds=0.01))
    host.delays[before] = 10_000.0
    async with Engine(config, plugins=[plugin(host)]) as engine:
        bench = Bench(engine, host)
        await bench.define("tcp")
        job = await bench.submit()
        while before not in [method for method, _ in host.calls]:  # noqa: ASYNC110 - no event tells
            await trio.sleep(0.01)
    host.delays[before] = 0
    async with Engine(config, plugins=[plugin(host)]) as engine:
        again = await engine.job(job.id)
        with trio.fail_after(PATIENCE):
            outcome = await again.wait()
        events = [event async for event in again.events()]
    assert outcome.status is Status.SUCCESS
    assert logged(events) == [("info", "said")]
    assert warnings(events) == []
    assert len(host.created) == (2 if before == "output" else 1)
    assert host.created[-1].labels[LABEL_GELF] == f"127.0.0.1:{told[0]}"


class Running:
    """A component in a container that runs until the block ends; then the job's events."""

    def __init__(self, bench: Bench, transport: str) -> None:
        self._bench = bench
        self._transport = transport
        self.events: list[Event] = []

    async def __aenter__(self) -> Any:
        bench = self._bench
        bench.host.images["worker:1"] = FakeImage(Script(seconds=10_000))
        await bench.define(self._transport)
        self._job = await bench.submit()
        component: Any = await started(bench, self._job, self._transport)
        component.events = self.events
        return component

    async def __aexit__(self, *_: object) -> None:
        self._bench.host.finish(self._bench.host.created[-1].name)
        with trio.fail_after(PATIENCE):
            assert (await self._job.wait()).status is Status.SUCCESS
        self.events += [event async for event in self._job.events()]


def running(bench: Bench, transport: str) -> Running:
    return Running(bench, transport)


async def started(bench: Bench, job: Job, transport: str = "tcp") -> Component:
    with trio.fail_after(PATIENCE):
        async for event in job.events():
            if event.kind == "stage.started":
                break
        (spec,) = bench.host.created
        while bench.host._containers[spec.name].started is None:  # noqa: ASYNC110 - no event tells
            await trio.sleep(0.01)
    return Component(bench.host, spec, transport)


async def until_logged(job: Job, text: str) -> None:
    with trio.fail_after(PATIENCE):
        async for event in job.events():
            if event.kind == "log" and event.message == text:
                return


@contextmanager
def occupied(address: tuple[str, int], is_taken: bool) -> Iterator[None]:
    if not is_taken:
        yield
        return
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(address)
        other.listen()
        yield


def test_the_default_of_a_component_is_tcp() -> None:
    assert Logging().gelf_server_type == "tcp"
