"""aiodocker's interface, compared with aiodocker itself: signatures, and what programs see."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiodocker
import pytest

import vaka.docker

MODULES = [
    "channel",
    "containers",
    "docker",
    "events",
    "exceptions",
    "execs",
    "images",
    "logs",
    "networks",
    "stream",
    "system",
    "utils",
    "volumes",
]

SWARM = "Swarm is not what this client is for"
EXCEPTIONS = {
    "docker.DockerConfigs": SWARM,
    "docker.DockerSecrets": SWARM,
    "docker.DockerServices": SWARM,
    "docker.DockerSwarm": SWARM,
    "docker.DockerSwarmNodes": SWARM,
    "docker.DockerTasks": SWARM,
    "docker.DockerContextEndpoint": "how a stored context is kept; a caller gives its name only",
    "containers.DockerContainer.websocket": "attach does the same, without another protocol",
    "stream.Stream.__init__": "is handed how aiohttp is to be called; a caller makes none",
    "utils.parse_result": "takes aiohttp's response",
}
"""What of aiodocker is missing or different, and why. Nothing else may be."""


def theirs() -> dict[str, Any]:
    """Every public class, function and method of the modules, by its dotted name."""
    found: dict[str, Any] = {}
    for module_name in MODULES:
        module = importlib.import_module(f"aiodocker.{module_name}")
        for name, value in vars(module).items():
            is_ours = getattr(value, "__module__", None) == module.__name__
            if name in getattr(module, "__all__", ()) or (is_ours and not name.startswith("_")):
                found[f"{module_name}.{name}"] = value
            if inspect.isclass(value) and is_ours and not name.startswith("_"):
                for method, function in vars(value).items():
                    is_public = not method.startswith("_") or method in ("__init__", "__aenter__")
                    if is_public and (
                        inspect.isfunction(function) or isinstance(function, property)
                    ):
                        found[f"{module_name}.{name}.{method}"] = function
    return {
        name: value
        for name, value in found.items()
        if not any(name.startswith(f"{exception}.") for exception in EXCEPTIONS)
    }


def ours(dotted: str) -> Any:
    module, _, path = dotted.partition(".")
    value: Any = importlib.import_module(f"vaka.docker.{module}")
    for name in path.split("."):
        value = getattr(value, name)
    return value


def default_of(parameter: inspect.Parameter) -> str:
    """A default in a form that can be compared between the two packages."""
    return getattr(parameter.default, "name", repr(parameter.default))


def incompatible(their: Callable[..., Any], our: Callable[..., Any]) -> list[str]:
    """Why a call that is right for `their` may be wrong for `our`."""
    left, right = inspect.signature(their).parameters, inspect.signature(our).parameters
    takes_all = {parameter.kind for parameter in right.values()}
    reasons = []
    for name, parameter in left.items():
        if parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
            if parameter.kind not in takes_all:
                reasons.append(f"takes no {parameter}")
        elif name not in right:
            reasons.append(f"has no {name}")
        elif right[name].kind is not parameter.kind:
            reasons.append(f"{name} is {right[name].kind.description}")
        elif default_of(right[name]) != default_of(parameter):
            reasons.append(f"{name} is {default_of(right[name])} and not {default_of(parameter)}")
    order = [name for name in right if name in left]
    if order != [name for name in left if name in right]:
        reasons.append(f"its order is {order}")
    for name, parameter in right.items():
        optional = (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
        if (
            name not in left
            and parameter.default is parameter.empty
            and parameter.kind not in optional
        ):
            reasons.append(f"asks for {name}")
    return reasons


@pytest.mark.parametrize("name", sorted(set(theirs()) - set(EXCEPTIONS)))
def test_whatever_aiodocker_has_can_be_called_the_same_way(name: str) -> None:
    their, our = theirs()[name], ours(name)
    assert type(their) is type(our)
    if inspect.isclass(their):
        assert {base.__name__ for base in their.__mro__} <= {base.__name__ for base in our.__mro__}
    elif not isinstance(their, property):
        assert incompatible(their, our) == []
        assert inspect.iscoroutinefunction(their) == inspect.iscoroutinefunction(our)


@pytest.mark.parametrize("name", sorted(EXCEPTIONS))
def test_an_exception_is_still_one(name: str) -> None:
    their = theirs()[name]
    try:
        our = ours(name)
    except AttributeError:
        return
    assert incompatible(their, our)


def test_the_package_itself_has_the_same_names() -> None:
    assert set(aiodocker.__all__) <= set(vaka.docker.__all__)


# Programs


def program(name: str, package: str) -> Callable[[str], Any]:
    """A program of `aiodocker_programs.py`, with nothing but its import lines changed."""
    source = Path(__file__).with_name("aiodocker_programs.py").read_text()
    source = source.replace("\nimport aiodocker\n", f"\nimport {package} as aiodocker\n")
    source = source.replace("\nfrom aiodocker.", f"\nfrom {package}.")
    namespace: dict[str, Any] = {"__name__": f"{package} program"}
    exec(compile(source, f"aiodocker_programs.py as {package}", "exec"), namespace)
    chosen: Callable[[str], Any] = namespace[name]
    return chosen


def shape(value: Any) -> Any:
    """What can be relied on in a value: types, keys, and short constant texts and numbers."""
    if isinstance(value, dict):
        return {
            str(key): shape(item) for key, item in sorted(value.items(), key=lambda x: str(x[0]))
        }
    if isinstance(value, list | tuple):
        shapes = [shape(item) for item in value]
        return [
            type(value).__name__,
            [item for i, item in enumerate(shapes) if item not in shapes[:i]],
        ]
    if isinstance(value, set):
        return ["set", sorted(map(repr, value))]
    return type(value).__name__


PROGRAMS = [
    "a_container_from_birth_to_death",
    "one_that_runs",
    "errors",
    "output",
    "attached",
    "execs",
    "archives",
    "images",
    "networks_and_volumes",
    "the_daemon",
    "events",
]

SAME_VALUES = {"errors", "output", "attached", "archives"}
"""Programs whose results hold nothing that differs between two runs."""


@pytest.fixture(scope="module")
def seen_by_aiodocker(busybox_image: str) -> Callable[[str], Any]:
    """What a program sees with aiodocker on asyncio; it is run once."""
    results: dict[str, Any] = {}

    def seen_by_aiodocker(name: str) -> Any:
        if name not in results:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ResourceWarning)  # aiohttp's own
                results[name] = asyncio.run(program(name, "aiodocker")(busybox_image))
        return results[name]

    return seen_by_aiodocker


@pytest.mark.docker
@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_for_aiodocker_sees_the_same(
    name: str, run: Any, busybox_image: str, seen_by_aiodocker: Callable[[str], Any]
) -> None:
    expected = seen_by_aiodocker(name)
    seen = run(program(name, "vaka.docker"), busybox_image)
    assert shape(seen) == shape(expected)
    if name in SAME_VALUES:
        assert seen == expected
