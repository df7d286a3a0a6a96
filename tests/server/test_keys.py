"""`vaka keys` and what `vaka init` makes of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import trio
from tests.server.conftest import cli
from typer.testing import CliRunner, Result

from vaka import Engine, EngineConfig
from vaka.models.ciphers import Scope
from vaka_keyring.ring import read

SCOPE = Scope("C", "1")


class Keys:
    """Runs commands on one home."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.ring = home / "keys"

    def run(self, *arguments: str, code: int = 0) -> Result:
        result = CliRunner().invoke(cli(), [*arguments, "--home", str(self.home)])
        assert result.exit_code == code, (arguments, result.stdout, result.stderr, result.exception)
        for key in read(self.ring).keys if self.ring.exists() else ():
            assert key.material is None or key.material.hex() not in result.output
        return result

    def states(self) -> dict[str, str]:
        listed: list[dict[str, Any]] = json.loads(self.run("keys", "status", "--json").stdout)
        return {each["id"]: each["state"] for each in listed}

    def engine(self) -> Engine:
        return Engine(EngineConfig(home=self.home, worker=False))


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    """A new home, and the ring that it got."""
    made = Keys(tmp_path / "home")
    told = json.loads(made.run("init", "--json").stdout)
    assert told["keys"] == str(made.ring)
    return made


def test_init_makes_a_ring_for_a_new_home_unless_told_not_to(tmp_path: Path) -> None:
    without = Keys(tmp_path / "without")
    assert json.loads(without.run("init", "--no-keys", "--json").stdout)["keys"] is None
    assert not without.ring.exists()
    assert "There is no key ring" in without.run("keys", "status", code=3).stderr

    without.run("init")
    assert not without.ring.exists()  # a home that is there may have lost its ring
    without.run("keys", "init", "--id", "first")
    assert without.states() == {"first": "active"}
    assert "left as it is" in without.run("keys", "init", code=1).stderr


@pytest.mark.scenario("encryption", 85)
def test_keys_are_rotated_and_none_is_retired_while_something_needs_it(keys: Keys) -> None:
    (old,) = keys.states()
    before = trio.run(stored_secret, keys)

    assert keys.run("keys", "add", "--id", "new").stdout == "new\n"
    assert keys.states() == {old: "active", "new": "decrypt-only"}
    keys.run("keys", "activate", "new")
    assert keys.states() == {old: "decrypt-only", "new": "active"}
    trio.run(reads_old_and_writes_new, keys, before)

    refused = keys.run("keys", "retire", old, code=1)
    assert "2 stored values are still encrypted" in refused.stderr
    assert keys.states() == {old: "decrypt-only", "new": "active"}
    planned = json.loads(keys.run("keys", "reencrypt", "--json").stdout)
    assert (planned["isDryRun"], planned["outdated"], planned["changed"]) == (True, 2, 0)
    of = f"2 of {planned['documents']} documents"
    assert f"{of} would be" in keys.run("keys", "reencrypt").stdout
    assert "2 stored values" in keys.run("keys", "retire", old, code=1).stderr
    told = keys.run("keys", "reencrypt", "--apply").stdout
    assert f"{of} were encrypted again." in told
    assert [line.split() for line in told.splitlines()[:2]] == [
        ["PREFIX", "PROVIDER", "KEY", "VALUES", "OUTDATED"],
        ["KBC::ProjectSecure::", "keyring", old, "2", "2"],
    ]
    assert json.loads(keys.run("keys", "reencrypt", "--apply", "--json").stdout)["changed"] == 0
    keys.run("keys", "retire", old)
    assert keys.states() == {old: "disabled", "new": "active"}


async def stored_secret(keys: Keys) -> Any:
    async with keys.engine() as engine:
        cipher = await engine.encryption.encrypt({"#x": "secret"}, SCOPE)
        catalog = engine.catalog
        await catalog.put_component({"id": "C", "type": "other", "name": "C", "data": {}})
        await catalog.create_configuration("1", "C", "c", config_id="7", configuration=cipher)
        await catalog.put_state("1", "C", "7", None, {"component": cipher})
        return cipher


async def reads_old_and_writes_new(keys: Keys, before: Any) -> None:
    async with keys.engine() as engine:
        assert await engine.encryption.decrypt(before, SCOPE) == {"#x": "secret"}
        assert await engine.encryption.active_key() == (1, "new")


def test_a_pass_that_was_interrupted_goes_on_from_its_bookmark(keys: Keys) -> None:
    trio.run(stored_secret, keys)
    keys.run("keys", "add", "--id", "new")
    keys.run("keys", "activate", "new")
    bookmark = keys.home / "reencryption.json"
    cursor = ["2-project", "1", "3-config", "", "C", "7", "1"]  # the configuration is done
    bookmark.write_text(json.dumps({"about": [[1, "new"], "ProjectSecure"], "after": cursor}))

    done = json.loads(keys.run("keys", "reencrypt", "--apply", "--json").stdout)

    assert (done["documents"], done["changed"]) == (1, 1)  # only its state was left to do
    assert not bookmark.exists()
    bookmark.write_text(json.dumps({"about": [[1, "older"], "ProjectSecure"], "after": cursor}))
    again = json.loads(keys.run("keys", "reencrypt", "--apply", "--json").stdout)
    assert again["changed"] == 1  # what the bookmark of another key says counts for nothing
    for broken in ("", "[]", '{"after": 1}'):
        bookmark.write_text(broken)
        keys.run("keys", "reencrypt", "--apply")
    assert "ProjectSecure and ConfigSecure" in (
        keys.run("keys", "reencrypt", "--legacy-family", "ComponentSecure", code=2).stderr
    )


def test_a_retired_key_is_enabled_again_or_destroyed_with_its_id_typed(keys: Keys) -> None:
    (old,) = keys.states()
    keys.run("keys", "add", "--id", "new")
    assert "Retire it before" in keys.run("keys", "destroy", "new", code=1).stderr
    keys.run("keys", "activate", "new")
    keys.run("keys", "retire", old, "--force")
    keys.run("keys", "enable", old)
    assert keys.states()[old] == "decrypt-only"
    keys.run("keys", "retire", old, "--force")

    assert "--confirm" in keys.run("keys", "destroy", old, code=2).stderr
    keys.run("keys", "destroy", old, "--confirm", "new", code=2)
    assert keys.states()[old] == "disabled"
    keys.run("keys", "destroy", old, "--confirm", old)

    assert keys.states() == {old: "destroyed", "new": "active"}
    assert "material" not in json.loads(keys.ring.read_text())["keys"][0]


def test_the_active_key_cannot_be_retired(keys: Keys) -> None:
    (old,) = keys.states()

    assert "activate another key first" in keys.run("keys", "retire", old, code=1).stderr


def test_keys_of_a_server_elsewhere_are_changed_there(keys: Keys) -> None:
    refused = keys.run("keys", "status", "--url", "http://127.0.0.1:1", code=2)

    assert "on the machine that has them" in refused.stderr


def test_a_ring_may_be_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ring = tmp_path / "secrets" / "ring"
    ring.parent.mkdir()
    monkeypatch.setenv("VAKA_KEY_RING", str(ring))
    keys = Keys(tmp_path / "home")

    assert "There is no key ring" in keys.run("init", code=3).stderr
    keys.run("keys", "init")
    keys.run("init")

    assert len(keys.states()) == 1
    assert ring.exists()
    assert not keys.ring.exists()
