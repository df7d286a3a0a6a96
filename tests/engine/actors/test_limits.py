"""What containers may use, and how they are made (runner.md sections 4.6 and 11)."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import ValidationError
from tests.engine.conftest import MakeEngine
from trio.testing import MockClock

from vaka import Engine, EngineConfig, Job, JobSpec, Status
from vaka.actors.limits import reserved_memory, resource_limits
from vaka.actors.stages import LABEL_PREFIX
from vaka.errors import ApplicationError
from vaka.models.catalog import Component, Project
from vaka.models.component import ComponentDefinition
from vaka.models.job import ActionSpec
from vaka.runtime import container_body
from vaka.testing import FakeHost, FakeImage, Printed, Script

COMPONENT = "keboola.ex-one"
ONE_CPU = EngineConfig(cpus=1)


def project(*features: str, **limits: Any) -> Project:
    named = {f"runner.{name}": value for name, value in limits.items()}
    return Project("1", "P", datetime.now(UTC), features=features, limits=named)


def memory_limit(value: Any, component: str = COMPONENT) -> Mapping[str, Any]:
    return {f"{component}.memoryLimitMBs": value}


def definition(memory: str = "256m", component: str = COMPONENT) -> ComponentDefinition:
    return ComponentDefinition.parse(
        Component(
            id=component,
            name="One",
            type="extractor",
            data={"definition": {"type": "dockerhub", "uri": "one"}, "memory": memory},
        )
    )


def cpus_of(config: EngineConfig, **limits: Any) -> float:
    return resource_limits(config, project(**limits), definition()).cpus


# -- the rules ---------------------------------------------------------------------------------


@pytest.mark.scenario("runner", 240)
def test_a_container_has_the_fewer_of_the_instances_and_the_projects_cpus() -> None:
    fourteen = EngineConfig(cpus=14)
    assert cpus_of(ONE_CPU) == 1
    assert cpus_of(fourteen) == 2
    assert cpus_of(fourteen, cpuParallelism=10) == 10
    with pytest.raises(ApplicationError) as caught:
        cpus_of(fourteen, cpuParallelism=1000)
    assert caught.value.message == (
        "runner.cpuParallelism limit is set incorrectly: This value should be 96 or less."
    )
    with pytest.raises(ValidationError, match=r"This value should be a valid number\."):
        EngineConfig(cpus="invalid")


@pytest.mark.parametrize(
    ("value", "text"), [(97, "96 or less"), (0.5, "1 or more"), (None, "a valid number")]
)
def test_a_number_of_cpus_that_cannot_be_is_refused_with_its_bound(value: Any, text: str) -> None:
    with pytest.raises(ValidationError, match=rf"This value should be {text}\."):
        EngineConfig(cpus=value)


@pytest.mark.scenario("runner", 241)
def test_a_projects_memory_limit_is_for_the_component_that_it_names() -> None:
    rich = project(**memory_limit(60_000))
    named = resource_limits(ONE_CPU, rich, definition())
    other = resource_limits(ONE_CPU, rich, definition(component="keboola.ex-two"))
    assert (named.memory, named.memory_bytes) == ("60000M", 60_000 << 20)
    assert (other.memory, other.memory_bytes) == ("256m", 256 << 20)
    with pytest.raises(ApplicationError) as caught:
        resource_limits(ONE_CPU, project(**memory_limit(120_000_000)), definition())
    assert caught.value.message == (
        f"'runner.{COMPONENT}.memoryLimitMBs' limit is set incorrectly: "
        "This value should be 64000 or less."
    )


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "1 or more"),
        (-5, "1 or more"),
        ("many", "a valid number"),
        (True, "a valid number"),
        ([], "a valid number"),
        ("NaN", "a valid number"),
    ],
)
def test_a_memory_limit_that_cannot_be_is_named_with_its_bound(value: Any, text: str) -> None:
    with pytest.raises(ApplicationError, match=f"This value should be {text}"):
        resource_limits(ONE_CPU, project(**memory_limit(value)), definition())


def test_a_limit_may_be_written_as_text() -> None:
    limits = resource_limits(ONE_CPU, project(**memory_limit("512")), definition())
    assert limits.memory == "512M"


@pytest.mark.scenario("runner", 242)
@pytest.mark.parametrize(
    ("container_type", "memory", "cpus"),
    [("xsmall", "500M", 1), ("small", "1000M", 2), ("medium", "2000M", 4), ("large", "7100M", 14)],
)
def test_a_size_of_container_is_a_factor_of_the_components_memory(
    container_type: str, memory: str, cpus: int
) -> None:
    limits = resource_limits(ONE_CPU, project(), definition("1g"), container_type)
    assert (limits.memory, limits.cpus) == (memory, cpus)
    assert limits.notes == (("notice", f"CPU limit: {cpus}"),)


@pytest.mark.scenario("runner", 242)
def test_without_a_size_the_component_and_two_cpus_count() -> None:
    limits = resource_limits(EngineConfig(cpus=14), project(), definition("1g"))
    assert (limits.memory_bytes, limits.cpus) == (1 << 30, 2)


@pytest.mark.scenario("runner", 242)
def test_a_size_that_nobody_knows_is_warned_of() -> None:
    limits = resource_limits(ONE_CPU, project(), definition("1g"), "giant")
    assert (limits.memory, limits.cpus) == ("1000M", 1)
    assert limits.notes[0] == ("warn", 'Unknown containerType "giant"')


def test_a_project_that_pays_as_it_goes_keeps_its_own_limits() -> None:
    paying = project("pay-as-you-go", cpuParallelism=8, **memory_limit(2000))
    limits = resource_limits(EngineConfig(cpus=14), paying, definition(), "xsmall")
    assert (limits.memory, limits.cpus) == ("2000M", 8)


def test_memory_that_cannot_be_multiplied_is_an_application_error() -> None:
    with pytest.raises(ApplicationError) as caught:
        resource_limits(ONE_CPU, project(), definition("1.5G"), "small")
    assert caught.value.message == 'Value "1.5g" is not understood'


def test_a_wrong_limit_fails_the_job_and_not_its_reservation() -> None:
    wrong = project(**memory_limit("many"))
    assert reserved_memory(ONE_CPU, wrong, definition("64m")) == 64 << 20


# -- jobs --------------------------------------------------------------------------------------


async def component(engine: Engine, *features: str, **data: Any) -> str:
    """Register a component on `one:latest`; its id."""
    await engine.catalog.put_component(
        {
            "id": COMPONENT,
            "type": "extractor",
            "name": "One",
            "features": list(features),
            "data": {"definition": {"type": "dockerhub", "uri": "one"}, **data},
        }
    )
    return COMPONENT


async def run(engine: Engine, **spec: Any) -> Job:
    job = await engine.submit(JobSpec(component=COMPONENT, config_data={}, **spec))
    await job.wait()
    return job


@pytest.fixture
def one(host: FakeHost) -> FakeHost:
    """A host with the component's image."""
    host.images["one:latest"] = FakeImage(Script())
    return host


@pytest.mark.scenario("runner", 126)
@pytest.mark.scenario("runner", 127)
async def test_a_container_is_created_with_the_options_of_the_contract(
    one: FakeHost, clock: MockClock, make_engine: MakeEngine
) -> None:
    async with make_engine(cpus=14, instance="i1") as engine:
        await component(engine, "no-swap", network="bridge", memory="100m")
        await engine.catalog.create_configuration("1", COMPONENT, "C", config_id="c")
        job = await engine.submit(JobSpec(component=COMPONENT, config="c"))
        assert (await job.wait()).status is Status.SUCCESS
        await component(engine)
        await run(engine)
    body = container_body(one.created[0], cpus=96)
    host = body["HostConfig"]
    assert one.created[0].name == f"vaka-i1-{job.id}-1-0-0"
    assert [mount["Target"] for mount in host["Mounts"]] == ["/data", "/tmp"]
    assert (host["Memory"], host["MemorySwap"]) == (100 << 20, 100 << 20)
    assert host["NetworkMode"] == "bridge"
    assert host["NanoCpus"] == 2_000_000_000
    assert "KBC_CONFIGID=c" in body["Env"]
    labels = {
        name.removeprefix(LABEL_PREFIX): value
        for name, value in body["Labels"].items()
        if name.startswith(LABEL_PREFIX)
    }
    run_id = job.record.run_id
    assert labels == {
        "jobId": str(job.id),
        "runId": run_id,
        "rowId": "",
        "containerName": f"keboola-ex-one-{job.id}-{run_id}-0",
        "projectId": "1",
    }
    # nothing else: the image's own command, folder and entry point, no restarts, nothing added
    assert not {"Cmd", "Entrypoint", "WorkingDir"} & body.keys()
    assert not {"RestartPolicy", "CapAdd", "Sysctls"} & host.keys()
    without = container_body(one.created[1], cpus=96)["HostConfig"]
    assert "MemorySwap" not in without


@pytest.mark.scenario("runner", 110)
async def test_containers_run_as_the_service_unless_their_image_needs_its_own_user(
    one: FakeHost, clock: MockClock, make_engine: MakeEngine
) -> None:
    async with make_engine() as engine:
        await component(engine)
        await run(engine)
        await component(engine, "container-root-user")
        await run(engine)
        service = engine.config.effective_user
    ordinary, root = (container_body(spec, cpus=1) for spec in one.created)
    assert ordinary["User"] == service
    assert "User" not in root


async def test_connections_are_kept_alive_for_who_asks(
    one: FakeHost, clock: MockClock, make_engine: MakeEngine
) -> None:
    async with make_engine() as engine:
        await component(engine, "container-tcpkeepalive-60s-override")
        await run(engine)
    host = container_body(one.created[0], cpus=1)["HostConfig"]
    assert host["Sysctls"] == {"net.ipv4.tcp_keepalive_time": "60"}


def noted(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What the operator's log has of the runner's notices."""
    return [vars(record)["reason"] for record in caplog.records if record.msg == "job.noted"]


async def test_a_job_tells_its_limits_and_reserves_them(
    one: FakeHost, clock: MockClock, make_engine: MakeEngine, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with make_engine(cpus=14) as engine:
        limits = {f"runner.{COMPONENT}.memoryLimitMBs": 100, "runner.cpuParallelism": 3}
        rich = await engine.catalog.create_project("Rich", limits=limits)
        await component(engine)
        job = await run(engine, project=rich.id)
        typed = await run(engine, container_type="medium")
    assert "Memory limits - component: '256m' project: '100M'" in noted(caplog)
    assert "CPU limits - instance: 14 project: 3" in noted(caplog)
    assert job.record.memory_bytes == 100 << 20
    assert typed.record.memory_bytes == 512 << 20
    assert [spec.memory_bytes for spec in one.created] == [100 << 20, 512 << 20]
    assert [spec.cpus for spec in one.created] == [3, 4]


async def test_a_project_without_a_limit_is_told_as_null(
    one: FakeHost, clock: MockClock, make_engine: MakeEngine, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with make_engine() as engine:
        await component(engine)
        await run(engine)
    assert "Memory limits - component: '256m' project: NULL" in noted(caplog)


async def test_a_project_limit_that_cannot_be_is_an_application_error_of_the_job(
    one: FakeHost, clock: MockClock, make_engine: MakeEngine, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with make_engine() as engine:
        poor = await engine.catalog.create_project("P", limits={"runner.cpuParallelism": 1000})
        await component(engine)
        outcome = await (await run(engine, project=poor.id)).wait()
    assert outcome.error == "application"
    (failed,) = [vars(record) for record in caplog.records if record.msg == "job.failed"]
    assert "This value should be 96 or less." in failed["error"]
    assert one.created == []
    assert ("prepare_image", "one:latest") not in one.calls  # it is told before anything is done


async def test_an_action_has_the_limits_of_its_project_too(
    host: FakeHost, clock: MockClock, make_engine: MakeEngine
) -> None:
    host.images["one:latest"] = FakeImage(Script([Printed(b"{}")]))
    async with make_engine(cpus=14) as engine:
        rich = await engine.catalog.create_project(
            "Rich", limits={f"runner.{COMPONENT}.memoryLimitMBs": 100}
        )
        await component(engine, synchronous_actions=["test"])
        await engine.act(
            ActionSpec(
                component=COMPONENT,
                action="test",
                config_data={},
                project=rich.id,
                run_id="7",
            )
        )
    (spec,) = host.created
    assert (spec.memory_bytes, spec.cpus) == (100 << 20, 2)
    assert spec.labels[LABEL_PREFIX + "rowId"] == ""
    assert spec.labels[LABEL_PREFIX + "containerName"] == "keboola-ex-one-0-7-0"
