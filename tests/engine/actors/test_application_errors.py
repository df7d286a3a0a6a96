"""Components that want no application errors (runner.md sections 3.2, 3.5 and 4.8)."""

from __future__ import annotations

import pytest
from tests.engine.conftest import MakeEngine
from trio.testing import MockClock

from vaka import JobSpec
from vaka.testing import FakeHost, FakeImage, Printed, Script

COMPONENT = "keboola.ex-one"


def document(**definition: str) -> dict[str, object]:
    return {
        "id": COMPONENT,
        "type": "extractor",
        "name": "One",
        "data": {
            "definition": {"type": "dockerhub", "uri": "one", **definition},
            "logging": {"no_application_errors": True},
        },
    }


@pytest.mark.scenario("runner", 116)
async def test_an_exit_code_above_1_is_then_the_users_error(
    host: FakeHost, clock: MockClock, make_engine: MakeEngine
) -> None:
    host.images["one:latest"] = FakeImage(Script([Printed(b"application error\n")], exit_code=2))
    async with make_engine() as engine:
        await engine.catalog.put_component(document())
        job = await engine.submit(JobSpec(component=COMPONENT, config_data={}))
        outcome = await job.wait()
    assert outcome.error == "user"
    (spec,) = host.created
    assert outcome.message == f"one:latest container '{spec.name}' failed: (2) application error"


@pytest.mark.scenario("runner", 117)
async def test_an_invalid_definition_is_an_application_error_all_the_same(
    host: FakeHost, clock: MockClock, make_engine: MakeEngine, caplog: pytest.LogCaptureFixture
) -> None:
    host.images["one:latest"] = FakeImage(Script())
    async with make_engine(worker=False) as front:
        await front.catalog.put_component(document())
        job = await front.submit(JobSpec(component=COMPONENT, config_data={}))
        # broken after the job was accepted, which checks the definition as well
        await front.catalog.put_component(document(uri=""))
        async with make_engine():
            outcome = await job.wait()
    assert outcome.error == "application"
    (failed,) = [vars(record) for record in caplog.records if record.msg == "job.failed"]
    assert failed["error"].startswith(
        "Component definition is invalid. Verify the deployment setup and the repository settings "
        'in the Developer Portal. Detail: The path "component.definition.uri" cannot contain an '
    )
