"""The file with the keys."""

from __future__ import annotations

import base64
import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vaka import Engine, EngineConfig
from vaka.errors import ApplicationError, Conflict, EngineError, NotFound
from vaka_keyring import ring as rings
from vaka_keyring.ring import KeyRing, new_ring, read, write

MATERIAL = base64.b64encode(bytes(range(32))).decode()


def entry(key_id: str = "a", **changes: Any) -> dict[str, Any]:
    created = "2026-01-01T00:00:00Z"
    return {"id": key_id, "created": created, "state": "active", "material": MATERIAL, **changes}


def document(*keys: dict[str, Any], **changes: Any) -> str:
    return json.dumps({"version": 1, "active": "a", "keys": list(keys), **changes})


def place(path: Path, text: str, mode: int = 0o600) -> Path:
    path.write_text(text)
    path.chmod(mode)
    return path


def linked(path: Path) -> Path:
    place(path.with_name("elsewhere"), document(entry()))
    path.symlink_to(path.with_name("elsewhere"))
    return path


SHORT = base64.b64encode(bytes(31)).decode()
UNUSABLE: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda path: None, "There is no key ring at"),
    "mode 0644": (lambda path: place(path, document(entry()), 0o644), "mode 0644.*chmod 600"),
    "mode 0640": (lambda path: place(path, document(entry()), 0o640), "mode 0640"),
    "link": (linked, "symbolic link"),
    "folder": (lambda path: path.mkdir(0o700), "not a regular file"),
    "31 bytes": (lambda path: place(path, document(entry(material=SHORT))), "not 32 bytes"),
    "no base64": (lambda path: place(path, document(entry(material="%%"))), "not 32 bytes"),
    "two active": (lambda path: place(path, document(entry(), entry("b"))), "exactly one"),
    "none active": (lambda path: place(path, document(entry(state="disabled"))), "exactly one"),
    "other active": (lambda path: place(path, document(entry(), active="b")), "exactly one"),
    "state": (lambda path: place(path, document(entry(state="lost"))), "none of active"),
    "twice": (lambda path: place(path, document(entry(), entry())), "two keys have one id"),
    "id": (lambda path: place(path, document(entry("a b"))), "cannot be a key id"),
    "date": (lambda path: place(path, document(entry(created="then"))), "no date"),
    "ghost": (
        lambda path: place(path, document(entry(), entry("b", state="destroyed"))),
        "is destroyed and has material",
    ),
    "version": (lambda path: place(path, document(entry(), version=2)), "version is not 1"),
    "empty": (lambda path: place(path, document()), "no keys"),
    "text": (lambda path: place(path, "hello"), "not JSON"),
}


@pytest.mark.scenario("encryption", 84)
@pytest.mark.parametrize("case", UNUSABLE)
async def test_a_ring_that_cannot_be_used_keeps_the_engine_from_opening(
    case: str, tmp_path: Path
) -> None:
    make, words = UNUSABLE[case]
    path = tmp_path / "keys"
    make(path)

    with pytest.raises(ApplicationError, match=words) as caught:
        async with Engine(EngineConfig(home=tmp_path / "home", key_ring=path, worker=False)):
            raise AssertionError("it opened")

    assert str(path) in caught.value.message
    assert MATERIAL not in caught.value.message
    assert SHORT not in caught.value.message


def test_a_ring_of_somebody_else_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = place(tmp_path / "keys", document(entry()))
    monkeypatch.setattr(os, "geteuid", lambda: path.stat().st_uid + 1)

    with pytest.raises(ApplicationError, match="belongs to user"):
        read(path)


def test_a_written_ring_is_read_back_and_nobody_else_can(tmp_path: Path) -> None:
    ring = new_ring("first").added("second")

    write(tmp_path / "keys", ring, create=True)

    assert read(tmp_path / "keys") == ring
    assert stat.S_IMODE((tmp_path / "keys").stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["keys"]
    assert "material=" not in repr(ring)


def test_a_ring_that_is_there_is_never_made_again(tmp_path: Path) -> None:
    write(tmp_path / "keys", new_ring(), create=True)
    before = (tmp_path / "keys").read_bytes()

    with pytest.raises(Conflict, match="left as it is"):
        write(tmp_path / "keys", new_ring(), create=True)
    assert (tmp_path / "keys").read_bytes() == before


def test_a_ring_that_cannot_be_written_stays_what_it_was(tmp_path: Path) -> None:
    with pytest.raises(ApplicationError, match="Nothing has changed"):
        write(tmp_path / "no folder" / "keys", new_ring(), create=True)


def states(ring: KeyRing) -> dict[str, str]:
    return {key.id: key.state for key in ring.keys}


def test_keys_are_added_activated_retired_enabled_and_destroyed() -> None:
    ring = new_ring("a").added("b")
    assert states(ring) == {"a": "active", "b": "decrypt-only"}

    ring = ring.activated("b")
    assert states(ring) == {"a": "decrypt-only", "b": "active"}

    retired = ring.retired("a")
    assert states(retired) == {"a": "disabled", "b": "active"}
    assert retired.key("a").material == ring.key("a").material
    assert retired.enabled("a") == ring

    destroyed = retired.destroyed("a")
    assert states(destroyed) == {"a": "destroyed", "b": "active"}
    assert destroyed.key("a").material is None
    assert destroyed.active.id == "b"


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (lambda ring: ring.added("a"), Conflict, 'There is a key "a" already'),
        (lambda ring: ring.added("ä"), EngineError, "cannot be a key id"),
        (lambda ring: ring.activated("x"), NotFound, "there are: a, b"),
        (lambda ring: ring.retired("b").activated("b"), Conflict, "Enable it first"),
        (lambda ring: ring.retired("a"), Conflict, "activate another key first"),
        (lambda ring: ring.enabled("b"), Conflict, "not disabled"),
        (lambda ring: ring.destroyed("b"), Conflict, "Retire it before"),
    ],
)
def test_what_would_lose_something_is_refused(
    change: Callable[[KeyRing], object], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        change(new_ring("a").added("b"))


def test_new_keys_have_the_month_as_their_id() -> None:
    ring = new_ring().added().added()
    month = ring.keys[0].id

    assert [key.id for key in ring.keys] == [month, f"{month}-2", f"{month}-3"]


def test_what_is_told_of_keys_tells_them_apart_and_nothing_else() -> None:
    ring = rings.parse(document(entry(), entry("b", state="decrypt-only")), "x").added("c")

    first, second, third = rings.statuses(ring.keys)

    assert first == {
        "id": "a",
        "state": "active",
        "created": "2026-01-01T00:00:00Z",
        "check": first["check"],
    }
    assert first["check"] == second["check"] != third["check"]
    assert len(first["check"]) == 6
