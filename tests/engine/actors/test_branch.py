"""What may run in which branch (runner.md section 3.3)."""

from __future__ import annotations

from typing import Any

import pytest
from tests.engine.conftest import MakeEngine
from trio.testing import MockClock

from vaka import Engine, JobSpec, Status
from vaka.testing import FakeHost, FakeImage, Script

COMPONENT = "keboola.ex-one"
SAFE = {"runtime": {"safe": True}}
UNSAFE = (
    "It is not safe to run this configuration in a development branch. Please review the "
    "configuration."
)


@pytest.fixture(autouse=True)
def _image(host: FakeHost) -> None:
    host.images["one:latest"] = FakeImage(Script())


async def component(engine: Engine, *features: str, component_id: str = COMPONENT) -> None:
    await engine.catalog.put_component(
        {
            "id": component_id,
            "type": "extractor",
            "name": "One",
            "features": list(features),
            "data": {"definition": {"type": "dockerhub", "uri": "one"}},
        }
    )


async def run(engine: Engine, **spec: Any) -> str:
    """The message of a job, empty when it succeeded."""
    if "config" not in spec:
        spec["config_data"] = spec.get("config_data", {})
    job = await engine.submit(JobSpec(**{"component": COMPONENT, **spec}))
    outcome = await job.wait()
    if outcome.status is Status.SUCCESS:
        return ""
    assert outcome.error == "user"
    return outcome.message


async def test_a_component_may_be_kept_out_of_development_branches(
    clock: MockClock, make_engine: MakeEngine
) -> None:
    async with make_engine() as engine:
        branch = (await engine.catalog.create_branch("1", "Mine")).id
        await component(engine, "dev-branch-job-blocked")
        blocked = await run(engine, branch=branch)
        in_default = await run(engine)
        await component(engine)
        free = await run(engine, branch=branch)
    assert blocked == "This component cannot be run in a development branch."
    assert (in_default, free) == ("", "")


async def test_a_configuration_must_be_called_safe_in_its_root(
    clock: MockClock, make_engine: MakeEngine
) -> None:
    async with make_engine() as engine:
        catalog = engine.catalog
        branch = (await catalog.create_branch("1", "Mine")).id
        await component(engine, "dev-branch-configuration-unsafe")
        for config, root in (("safe", SAFE), ("unsafe", {})):
            await catalog.create_configuration(
                "1", COMPONENT, "C", config_id=config, configuration=root
            )
            await catalog.create_row("1", COMPONENT, config, name="R", configuration=SAFE)
        told = {
            "inline": await run(engine, branch=branch, config_data={}),
            "inline, safe": await run(engine, branch=branch, config_data=SAFE),
            "safe": await run(engine, branch=branch, config="safe"),
            "only the row": await run(engine, branch=branch, config="unsafe"),
            "default branch": await run(engine, config="unsafe"),
        }
    assert told == {
        "inline": UNSAFE,
        "inline, safe": "",
        "safe": "",
        "only the row": UNSAFE,
        "default branch": "",
    }


async def test_sandboxes_do_not_run_on_a_protected_default_branch(
    clock: MockClock, make_engine: MakeEngine
) -> None:
    sandboxes = "keboola.sandboxes"
    async with make_engine() as engine:
        protected = await engine.catalog.create_project("P", features=["protected-default-branch"])
        branch = (await engine.catalog.create_branch(protected.id, "Mine")).id
        await component(engine, component_id=sandboxes)
        refused = await run(engine, component=sandboxes, project=protected.id)
        in_branch = await run(engine, component=sandboxes, project=protected.id, branch=branch)
        elsewhere = await run(engine, component=sandboxes)
    assert refused == 'Component "keboola.sandboxes" is not allowed to run on default branch.'
    assert (in_branch, elsewhere) == ("", "")
