"""The typed facade over the hooks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from vaka._plugins import Plugins
from vaka.errors import PluginError, UserError
from vaka.hooks import Encryptor, SpecContext, hookimpl
from vaka.models.ciphers import CipherScope
from vaka.models.container import ContainerSpec, RegistryAuth
from vaka.models.event import Event

CONTEXT = SpecContext(job_id=1, project="1", component="c", kind="main", features=())
EVENT = Event(seq=1, time=datetime(2026, 1, 1, tzinfo=UTC), kind="note", level="info", message="x")


class Rot13(Encryptor):
    def __init__(self, name: str = "rot13", code: int = 0xF3) -> None:
        self._name = name
        self._code = code

    @property
    def name(self) -> str:
        return self._name

    @property
    def code(self) -> int:
        return self._code

    async def wrap(self, data_key: bytes, scope: CipherScope, header: bytes) -> tuple[str, bytes]:
        return "k", data_key[::-1]

    async def unwrap(self, key_id: str, wrapped: bytes, scope: CipherScope, header: bytes) -> bytes:
        return wrapped[::-1]

    async def check(self) -> None:
        return


def plugin(**hooks: Any) -> object:
    return SimpleNamespace(**{name: hookimpl(function) for name, function in hooks.items()})


def test_the_built_in_plugin_is_found_by_its_entry_point() -> None:
    assert "local" in Plugins().names


def test_nobody_for_a_url_is_an_error_that_names_it() -> None:
    with pytest.raises(PluginError, match=r"No plugin handles 'nowhere://x'.*local"):
        Plugins().mapping_backend("nowhere://x")


def test_an_answer_of_the_wrong_kind_names_the_plugin_and_the_hook() -> None:
    def vaka_mapping_backend(url: str) -> object:
        return "a string"

    plugins = Plugins([plugin(vaka_mapping_backend=vaka_mapping_backend)])
    with pytest.raises(PluginError, match="is not a MappingBackend") as caught:
        plugins.mapping_backend("odd://x")
    assert caught.value.hook == "vaka_mapping_backend"


def test_a_crash_in_a_hook_names_the_plugin() -> None:
    def vaka_registry_auth(reference: str) -> RegistryAuth | None:
        raise ZeroDivisionError

    with pytest.raises(PluginError, match="failed in vaka_registry_auth: ZeroDivisionError"):
        Plugins([plugin(vaka_registry_auth=vaka_registry_auth)]).registry_auth("x:1")


def test_an_unknown_argument_of_a_hook_is_refused_at_start() -> None:
    def vaka_registry_auth(reference: str, colour: str) -> RegistryAuth | None:
        return None

    with pytest.raises(PluginError, match="colour"):
        Plugins([plugin(vaka_registry_auth=vaka_registry_auth)])


def test_a_hook_that_does_not_exist_is_refused_at_start() -> None:
    def vaka_make_coffee() -> None:
        return None

    with pytest.raises(PluginError, match="vaka_make_coffee"):
        Plugins([plugin(vaka_make_coffee=vaka_make_coffee)])


def test_what_the_embedder_hands_over_is_asked_first() -> None:
    def one(reference: str) -> RegistryAuth | None:
        return RegistryAuth("s", "one", "p")

    def two(reference: str) -> RegistryAuth | None:
        return RegistryAuth("s", "two", "p")

    found = Plugins([plugin(vaka_registry_auth=one), plugin(vaka_registry_auth=two)]).registry_auth(
        "x:1"
    )
    assert found is not None
    assert found.username == "two"


def test_every_plugin_may_change_a_container_in_turn() -> None:
    def pids(spec: ContainerSpec) -> ContainerSpec:
        return replace(spec, pids=7)

    def network(spec: ContainerSpec, context: SpecContext) -> ContainerSpec | None:
        return replace(spec, network=context.component) if spec.pids == 7 else None

    plugins = Plugins([plugin(vaka_container_spec=network), plugin(vaka_container_spec=pids)])
    changed = plugins.container_spec(ContainerSpec(name="n", image="i"), CONTEXT)
    assert (changed.pids, changed.network) == (7, "c")


def test_a_plugin_may_refuse_a_container() -> None:
    def vaka_container_spec(spec: ContainerSpec) -> ContainerSpec:
        raise UserError("not here")

    with pytest.raises(UserError, match="not here"):
        Plugins([plugin(vaka_container_spec=vaka_container_spec)]).container_spec(
            ContainerSpec(name="n", image="i"), CONTEXT
        )


def test_an_observer_that_fails_is_contained() -> None:
    seen: list[int] = []

    def bad(event: Event) -> None:
        raise RuntimeError

    def good(job_id: int, event: Event) -> None:
        seen.append(job_id)

    Plugins([plugin(vaka_job_event=good), plugin(vaka_job_event=bad)]).job_event(5, EVENT)
    assert seen == [5]


def test_two_key_providers_of_one_name_are_refused() -> None:
    def first(settings: Mapping[str, Any]) -> list[Encryptor]:
        return [Rot13()]

    def second(settings: Mapping[str, Any]) -> list[Encryptor]:
        return [Rot13(name="other")]

    assert len(Plugins([plugin(vaka_encryptors=first)]).encryptors({})) == 1
    with pytest.raises(PluginError, match="243"):
        Plugins([plugin(vaka_encryptors=first), plugin(vaka_encryptors=second)]).encryptors({})


def test_two_engines_share_no_plugins() -> None:
    def vaka_registry_auth(reference: str) -> RegistryAuth | None:
        return RegistryAuth("s", "u", "p")

    with_it = Plugins([plugin(vaka_registry_auth=vaka_registry_auth)])
    without = Plugins()
    assert with_it.registry_auth("x") is not None
    assert without.registry_auth("x") is None
