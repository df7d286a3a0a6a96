"""Finds plugins, checks them, and calls their hooks through typed methods.

Every call names the plugin in the error when what comes back is not what the hook promises, so that
nothing untyped travels further.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

import pluggy

from vaka import hooks
from vaka.errors import EngineError, PluginError
from vaka.hooks import (
    Catalog,
    CipherReader,
    ContainerRuntime,
    EncryptionPurpose,
    Encryptor,
    MappingBackend,
    SpecContext,
)
from vaka.models.ciphers import Scope
from vaka.models.container import ContainerSpec, RegistryAuth
from vaka.models.event import Event

log = logging.getLogger(__name__)
T = TypeVar("T")

ENTRY_POINTS = "vaka"


class Plugins:
    """The plugins of one engine: those installed, and `extra` ones handed over by the embedder."""

    def __init__(self, extra: Sequence[object] = ()) -> None:
        self._manager = pluggy.PluginManager(hooks.PROJECT)
        self._manager.add_hookspecs(hooks)
        try:
            # registered first, so called last: what an embedder hands over wins
            self._manager.load_setuptools_entrypoints(ENTRY_POINTS)
            for plugin in extra:
                self._manager.register(plugin)
            self._manager.check_pending()
        except pluggy.PluginValidationError as error:
            raise PluginError(
                f"Plugin {_module(error.plugin)} does not fit the hook API: {error}",
                plugin=_module(error.plugin),
                hook="",
            ) from error

    @property
    def names(self) -> list[str]:
        """Names of the registered plugins."""
        return sorted(name for name, plugin in self._manager.list_name_plugin() if plugin)

    def mapping_backend(self, url: str) -> MappingBackend:
        """The mapping backend for `url`; `PluginError` when nobody has one."""
        return self._required("vaka_mapping_backend", MappingBackend, url)  # type: ignore[type-abstract]

    def catalog(self, url: str) -> Catalog:
        """The catalog for `url`; `PluginError` when nobody has one."""
        return self._required("vaka_catalog", Catalog, url)  # type: ignore[type-abstract]

    def container_runtime(self, url: str) -> ContainerRuntime | None:
        """A plugin's container runtime for `url`, or None when no plugin has one."""
        return self._first("vaka_container_runtime", ContainerRuntime, url=url)  # type: ignore[type-abstract]

    def encryptors(self, settings: Mapping[str, Any]) -> list[Encryptor]:
        """All key providers; `PluginError` when two share a name or code."""
        found: list[Encryptor] = []
        taken: dict[str | int, str] = {}
        for plugin, answer in self._all("vaka_encryptors", settings=settings):
            for encryptor in self._checked_list(answer, Encryptor, plugin, "vaka_encryptors"):  # type: ignore[type-abstract]
                for word in (encryptor.name, encryptor.code):
                    if word in taken:
                        raise PluginError(
                            f"Key providers of {taken[word]} and {plugin} are both called {word!r}; "
                            "remove one of the two plugins.",
                            plugin=plugin,
                            hook="vaka_encryptors",
                        )
                    taken[word] = plugin
                found.append(encryptor)
        return found

    def cipher_readers(self, settings: Mapping[str, Any]) -> list[CipherReader]:
        """All readers of foreign ciphers."""
        hook = "vaka_cipher_readers"
        return [
            reader
            for plugin, answer in self._all(hook, settings=settings)
            for reader in self._checked_list(answer, CipherReader, plugin, hook)  # type: ignore[type-abstract]
        ]

    def secret_forms(self, value: str) -> list[str]:
        """More texts to hide than a secret itself."""
        hook = "vaka_secret_known"
        return [
            text
            for plugin, answer in self._all(hook, value=value)
            for text in self._checked_list(answer, str, plugin, hook)
        ]

    def scope_for(self, purpose: EncryptionPurpose, scope: Scope) -> str | None:
        """The family that a plugin wants for this purpose; None when none of them cares."""
        return self._first("vaka_scope_for", str, purpose=purpose, scope=scope)

    def registry_auth(self, reference: str) -> RegistryAuth | None:
        """Credentials to pull `reference` with, or None for an anonymous pull."""
        return self._first("vaka_registry_auth", RegistryAuth, reference=reference)

    def container_spec(self, spec: ContainerSpec, context: SpecContext) -> ContainerSpec:
        """`spec` as the plugins want it; `UserError` when one of them refuses it."""
        hook = "vaka_container_spec"
        for implementation in self._implementations(hook):
            answer = self._call(implementation, hook, {"spec": spec, "context": context})
            if answer is not None:
                spec = self._checked(answer, ContainerSpec, implementation.plugin_name, hook)
        return spec

    @property
    def observes_events(self) -> bool:
        """Whether any plugin wants to see events."""
        return bool(self._implementations("vaka_job_event"))

    def job_event(self, job_id: int, event: Event) -> None:
        """Tell the observers. Never raises."""
        hook = "vaka_job_event"
        for implementation in self._implementations(hook):
            try:
                self._call(implementation, hook, {"job_id": job_id, "event": event})
            except Exception:
                log.exception("plugin.failed", extra={"plugin": implementation.plugin_name})

    def server_routes(self, app: object) -> None:
        """Let plugins add routes to the server's application."""
        self._each("vaka_server_routes", app=app)

    def cli(self, app: object) -> None:
        """Let plugins add commands to the command line."""
        self._each("vaka_cli", app=app)

    def _required(self, hook: str, kind: type[T], url: str) -> T:
        answer = self._first(hook, kind, url=url)
        if answer is None:
            raise PluginError(
                f"No plugin handles {url!r}; installed plugins: {', '.join(self.names) or 'none'}. "
                "Install one that does, or change the setting.",
                plugin="",
                hook=hook,
            )
        return answer

    def _first(self, hook: str, kind: type[T], **arguments: object) -> T | None:
        for implementation in self._implementations(hook):
            answer = self._call(implementation, hook, arguments)
            if answer is not None:
                return self._checked(answer, kind, implementation.plugin_name, hook)
        return None

    def _all(self, hook: str, **arguments: object) -> Iterable[tuple[str, object]]:
        for implementation in self._implementations(hook):
            answer = self._call(implementation, hook, arguments)
            if answer is not None:
                yield implementation.plugin_name, answer

    def _each(self, hook: str, **arguments: object) -> None:
        for implementation in self._implementations(hook):
            self._call(implementation, hook, arguments)

    def _implementations(self, hook: str) -> list[pluggy.HookImpl]:
        caller: pluggy.HookCaller = getattr(self._manager.hook, hook)
        return list(reversed(caller.get_hookimpls()))

    def _call(
        self, implementation: pluggy.HookImpl, hook: str, arguments: Mapping[str, object]
    ) -> object:
        try:
            wanted = {name: arguments[name] for name in implementation.argnames}
            answer: object = implementation.function(**wanted)
        except EngineError:
            raise
        except Exception as error:
            raise PluginError(
                f"Plugin {implementation.plugin_name} failed in {hook}: {error!r}",
                plugin=implementation.plugin_name,
                hook=hook,
            ) from error
        return answer

    def _checked(self, answer: object, kind: type[T], plugin: str, hook: str) -> T:
        if not isinstance(answer, kind):
            raise PluginError(
                f"Plugin {plugin} answered {hook} with {type(answer).__name__}, "
                f"which is not a {kind.__name__}.",
                plugin=plugin,
                hook=hook,
            )
        return answer

    def _checked_list(self, answer: object, kind: type[T], plugin: str, hook: str) -> list[T]:
        return [
            self._checked(item, kind, plugin, hook)
            for item in self._checked(answer, list, plugin, hook)
        ]


def _module(plugin: object) -> str:
    return getattr(plugin, "__name__", None) or type(plugin).__name__
