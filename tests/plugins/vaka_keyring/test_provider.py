"""The key ring as a key provider."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from vaka import Engine, EngineConfig
from vaka.encryption import Encryption
from vaka.errors import ApplicationError, CipherRefused, InvalidInput
from vaka.hooks import Encryptor
from vaka.models.ciphers import Scope
from vaka.testing import EncryptorContract
from vaka_keyring.provider import KeyRingProvider
from vaka_keyring.ring import new_ring, read, write

SCOPE = Scope("c", "1")


class TestContract(EncryptorContract):
    @pytest.fixture
    async def encryptor(self, tmp_path: Path) -> AsyncIterator[Encryptor]:
        write(tmp_path / "keys", new_ring(), create=True)
        provider = KeyRingProvider(tmp_path / "keys")
        yield provider
        await provider.aclose()


def both(path: Path) -> Encryption:
    """What a server with the ring in this file has; it looks at the file each time."""
    return Encryption(stack="s.example.com", encryptors=[KeyRingProvider(path, check_interval=0)])


async def test_a_rotated_ring_is_taken_over_and_old_ciphers_stay_readable(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    write(path, new_ring("old"), create=True)
    running = both(path)
    before = await running.encrypt("secret", SCOPE)

    write(path, read(path).added("new"))
    assert await running.active_key() == (1, "old")
    write(path, read(path).activated("new"))
    after = await running.encrypt("secret", SCOPE)

    assert await running.active_key() == (1, "new")
    for encryption in (running, both(path)):
        assert await encryption.decrypt(before, SCOPE) == "secret"
        assert await encryption.decrypt(after, SCOPE) == "secret"


async def test_a_broken_file_leaves_the_ring_as_it_was_and_is_an_error_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "keys"
    write(path, new_ring(), create=True)
    running = both(path)
    cipher = await running.encrypt("secret", SCOPE)

    path.write_text("{")
    assert await running.decrypt(cipher, SCOPE) == "secret"
    path.unlink()
    assert await running.decrypt(cipher, SCOPE) == "secret"

    found = [record for record in caplog.records if record.message == "key_ring.broken"]
    assert [record.levelno for record in found] == [logging.ERROR, logging.ERROR]
    assert "it is not JSON" in vars(found[0])["detail"]
    assert "There is no key ring" in vars(found[1])["detail"]


@pytest.mark.scenario("encryption", 88)
async def test_ciphers_of_a_destroyed_key_are_refused_as_any_and_the_log_says_why(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    path = tmp_path / "keys"
    write(path, new_ring("old"), create=True)
    running = both(path)
    cipher = str(await running.encrypt("secret", SCOPE))
    ring = read(path).added("new").activated("new").retired("old")

    for changed in (ring, ring.destroyed("old")):
        caplog.clear()
        write(path, changed)
        with pytest.raises(CipherRefused) as caught:
            await running.decrypt({"#x": cipher}, SCOPE)
        assert caught.value.message == (
            f"Invalid cipher text for key #x Value {cipher[:32]}… is not an encrypted value."
        )
        (refused,) = (each for each in caplog.records if each.message == "cipher.refused")
        assert vars(refused)["reason"] == "unknown_key"


async def test_an_engine_uses_the_ring_in_its_home(tmp_path: Path) -> None:
    write(tmp_path / "keys", new_ring(), create=True)

    async with Engine(EngineConfig(home=tmp_path, worker=False, stack_id="a")) as engine:
        cipher = await engine.encryption.encrypt("secret", SCOPE)
    async with Engine(EngineConfig(home=tmp_path, worker=False, stack_id="a")) as engine:
        assert await engine.encryption.decrypt(cipher, SCOPE) == "secret"
    async with Engine(EngineConfig(home=tmp_path, worker=False, stack_id="b")) as engine:
        with pytest.raises(CipherRefused):
            await engine.encryption.decrypt(cipher, SCOPE)


async def test_an_engine_without_a_ring_recognises_ciphers_and_makes_none(tmp_path: Path) -> None:
    async with Engine(EngineConfig(home=tmp_path, worker=False)) as engine:
        assert not engine.encryption.can_encrypt
        with pytest.raises(ApplicationError, match="no wrappers registered"):
            await engine.encryption.encrypt("secret", SCOPE)


async def test_a_ring_may_be_a_setting_itself(tmp_path: Path) -> None:
    write(tmp_path / "ring", new_ring("mine"), create=True)
    document = (tmp_path / "ring").read_text()
    config = EngineConfig(
        home=tmp_path / "home", worker=False, key_ring_document=SecretStr(document)
    )

    async with Engine(config) as engine:
        assert await engine.encryption.active_key() == (1, "mine")
    both_set = config.model_copy(update={"key_ring": tmp_path / "ring"})
    with pytest.raises(InvalidInput, match="Both key_ring and key_ring_document"):
        async with Engine(both_set):
            raise AssertionError("it opened")
