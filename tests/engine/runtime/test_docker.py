"""The Docker runtime against a real Docker Engine."""

from collections.abc import AsyncIterator

import pytest

from vaka.hooks import ContainerRuntime
from vaka.models.container import ContainerSpec
from vaka.runtime import DockerRuntime
from vaka.testing import ContainerRuntimeContract, SpecFor, shell

pytestmark = pytest.mark.docker


@pytest.fixture
async def runtime(docker_host: str) -> AsyncIterator[DockerRuntime]:
    runtime = DockerRuntime(docker_host)
    await runtime.open()
    yield runtime
    await runtime.aclose()


@pytest.fixture
def spec_for(busybox_image: str) -> SpecFor:
    return lambda script: ContainerSpec("", busybox_image, command=shell(script))


class TestDockerRuntime(ContainerRuntimeContract):
    @pytest.fixture
    async def runtime(self, runtime: DockerRuntime) -> ContainerRuntime:
        return runtime

    @pytest.fixture
    def spec_for(self, spec_for: SpecFor) -> SpecFor:
        return spec_for
