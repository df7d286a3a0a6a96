# ruff: noqa: ARG002 - the interface has these arguments
"""The container runtime of an engine that runs no containers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, NoReturn

from vaka.errors import RuntimeUnavailable
from vaka.hooks import ContainerRuntime, Login
from vaka.models.container import (
    ContainerExit,
    ContainerSpec,
    ContainerStatus,
    ImageInfo,
    OutputChunk,
    RuntimeInfo,
    StreamName,
)


class NoRuntime(ContainerRuntime):
    """Runs nothing: for who only accepts and shows jobs."""

    async def info(self) -> RuntimeInfo:
        self._refuse()

    async def prepare_image(
        self,
        reference: str,
        *,
        digest: str | None = None,
        login: Login | None = None,
        progress: Callable[[Mapping[str, Any]], None] | None = None,
    ) -> ImageInfo:
        self._refuse()

    async def create(self, spec: ContainerSpec) -> ContainerStatus:
        self._refuse()

    async def start(self, name: str) -> None:
        self._refuse()

    async def find(self, name: str) -> ContainerStatus | None:
        self._refuse()

    async def list_containers(self, labels: Mapping[str, str]) -> list[ContainerStatus]:
        self._refuse()

    def output(
        self, name: str, *, skip: Mapping[StreamName, int] | None = None
    ) -> AbstractAsyncContextManager[AsyncIterator[OutputChunk]]:
        self._refuse()

    async def wait(self, name: str) -> ContainerExit:
        self._refuse()

    async def stop(self, name: str, *, grace: float) -> None:
        self._refuse()

    async def remove(self, name: str) -> None:
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise RuntimeUnavailable(
            "This engine runs no containers, because its setting `worker` is off: ask one that does."
        )
