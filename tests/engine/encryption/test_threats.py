"""What encryption.md section 11 is afraid of, as far as formats, scopes and keys are concerned.

Each test begins with the number of its row; `docs/explanation/threats.md` has all of them.
"""

from __future__ import annotations

import base64
import itertools
import json
import logging
import random
import statistics
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

import pytest
import trio
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from tests.engine.encryption.test_vectors import VECTORS, b64

from vaka.encryption import Encryption, dump_json, load_json
from vaka.errors import CipherRefused
from vaka.hooks import Encryptor
from vaka.models.ciphers import FAMILIES, CipherScope, Scope, is_cipher, split_cipher
from vaka_keyring.provider import KeyRingProvider
from vaka_keyring.ring import new_ring, write
from vaka_legacy.readers import LegacyReader

STACK = "connection.example.com"
PROJECT = Scope("C", "1")
IDS = {
    "component": ("C", "D"),
    "project": ("1", "2"),
    "configuration": ("7", "8"),
    "branch_type": ("default", "dev"),
}


@pytest.mark.parametrize("family", FAMILIES)
async def test_t1_no_id_may_be_another_one(encryption: Encryption, family: str) -> None:
    every: list[dict[str, Any]] = [
        dict(zip(IDS, chosen, strict=True)) for chosen in itertools.product(*IDS.values())
    ]
    bound = [
        name
        for name, id_name in (
            ("component", "componentId"),
            ("project", "projectId"),
            ("configuration", "configurationId"),
            ("branch_type", "branchType"),
        )
        if id_name in FAMILIES[family]
    ]
    for here in every:
        cipher = await encryption.encrypt("secret", Scope(**here), family=family)
        for there in every:
            if all(here[name] == there[name] for name in bound):
                assert await encryption.decrypt(cipher, Scope(**there)) == "secret"
            else:
                with pytest.raises(CipherRefused):
                    await encryption.decrypt(cipher, Scope(**there))


async def test_t5_wrong_padding_is_refused_as_anything_else_is() -> None:
    vector = next(
        each
        for each in VECTORS["legacy_encrypted"]["vectors"]
        if len(b64(each["plaintext_b64"])) > 16
    )
    encryption = Encryption(stack=STACK, readers=[LegacyReader(b64(vector["key_version1"]))])
    prefix, body = split_cipher(vector["cipher"]) or ("", "")
    raw = base64.b64decode(body + "=" * (-len(body) % 4))

    told = set()
    for at in (0, 31, 32, len(raw) - 17, len(raw) - 1):  # MAC, IV, what the padding is made from
        for flipped in (1, 0x80):
            changed = bytearray(raw)
            changed[at] ^= flipped
            cipher = prefix + base64.b64encode(changed).decode()
            with pytest.raises(CipherRefused) as caught:
                await encryption.decrypt({"#x": cipher}, Scope("C", "1"))
            assert caught.value.reason == "mac"
            told.add(caught.value.message.replace(cipher[len(prefix) :][:12], "…"))

    assert len(told) == 1


class Counted:
    """Counts what AES-GCM is asked to do."""

    calls: ClassVar[list[str]] = []

    def __init__(self, key: bytes) -> None:
        self._aead = AESGCM(key)

    def encrypt(self, nonce: bytes, data: bytes, bound: bytes) -> bytes:
        self.calls.append("encrypt")
        return self._aead.encrypt(nonce, data, bound)

    def decrypt(self, nonce: bytes, data: bytes, bound: bytes) -> bytes:
        self.calls.append("decrypt")
        return self._aead.decrypt(nonce, data, bound)


async def refusals(encryption: Encryption) -> dict[str, str]:
    """Ciphers that are refused in `PROJECT`, by why."""
    own = str(await encryption.encrypt("a secret", PROJECT))
    elsewhere = str(await encryption.encrypt("a secret", Scope("C", "2")))
    others = Encryption(stack=STACK, encryptors=[KeyRingProvider(new_ring("another"))])
    unknown = str(await others.encrypt("a secret", PROJECT))
    return {"mac": f"{own[:-6]}AAAAAA", "scope": elsewhere, "unknown_key": unknown}


@pytest.mark.scenario("encryption", 97)
async def test_t6_a_refusal_does_the_same_work_whatever_the_reason(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    encryption = Encryption(stack=STACK, encryptors=[KeyRingProvider(new_ring("one"))])
    refused = await refusals(encryption)
    for reason, value in refused.items():  # so that the keys of these scopes are derived already
        with pytest.raises(CipherRefused):
            await encryption.decrypt({"#x": value}, PROJECT)
        assert vars(caplog.records[-1])["reason"] == reason
    for module in ("vaka.encryption.cipher", "vaka_keyring.provider"):
        monkeypatch.setattr(f"{module}.AESGCM", Counted)
    encryption = Encryption(stack=STACK, encryptors=[KeyRingProvider(new_ring("one"))])
    refused = await refusals(encryption)

    work: dict[str, int] = {}
    for reason, value in refused.items():
        Counted.calls.clear()
        with pytest.raises(CipherRefused):
            await encryption.decrypt({"#x": value}, PROJECT)
        work[reason] = len(Counted.calls)

    assert len(set(work.values())) == 1, work


@pytest.mark.scenario("encryption", 97)
async def test_t6_the_time_of_a_refusal_does_not_tell_the_reason() -> None:
    """Of 10,000 refusals each, medians are closer to each other than one refusal to the next."""
    encryption = Encryption(stack=STACK, encryptors=[KeyRingProvider(new_ring("one"))])
    refused = await refusals(encryption)
    taken: dict[str, list[int]] = {reason: [] for reason in refused}
    reasons = list(refused)
    for _ in range(10_000):
        random.shuffle(reasons)
        for reason in reasons:
            began = time.thread_time_ns()
            with suppress(CipherRefused):
                await encryption.decrypt_bytes(refused[reason], PROJECT)
            taken[reason].append(time.thread_time_ns() - began)

    middle = {reason: statistics.median(each) for reason, each in taken.items()}
    spreads = [statistics.quantiles(each, n=20) for each in taken.values()]
    noise = min(each[-1] - each[0] for each in spreads)
    assert max(middle.values()) - min(middle.values()) < noise, (middle, noise)


async def test_t22_names_that_collide_are_taken_as_json_has_them(encryption: Encryption) -> None:
    text = '{"#x":"first","#x":"last","\\u0000#y":"no secret","0":"a","00":"b","#":"s"}'

    sealed = await encryption.encrypt(load_json(text), PROJECT)

    assert list(sealed) == ["#x", "\0#y", "0", "00", "#"]
    assert (sealed["\0#y"], sealed["0"], sealed["00"]) == ("no secret", "a", "b")
    assert is_cipher(sealed["#x"])
    assert is_cipher(sealed["#"])
    found = await encryption.decrypt(load_json(dump_json(sealed)), PROJECT)
    assert (found["#x"], found["#"]) == ("last", "s")


async def test_t23_a_key_is_known_everywhere_before_it_is_used(tmp_path: Path) -> None:
    ring = new_ring("old")
    rings = [tmp_path / "one", tmp_path / "two"]
    for path in rings:
        write(path, ring, create=True)
    one, two = (
        Encryption(stack=STACK, encryptors=[KeyRingProvider(path, check_interval=0)])
        for path in rings
    )
    added = ring.added("new")
    for path in rings:
        write(path, added)
    write(rings[0], added.activated("new"))  # the other one does not know yet that it is active

    fresh = await one.encrypt("secret", PROJECT)
    older = await two.encrypt("secret", PROJECT)

    assert await two.decrypt(fresh, PROJECT) == "secret"
    assert await one.decrypt(older, PROJECT) == "secret"


class Slow(Encryptor):
    """Cancels a scope when it is asked for the last time that it may be."""

    def __init__(self) -> None:
        self.keys: list[bytes] = []
        self.left = -1
        self.scope = trio.CancelScope()

    @property
    def name(self) -> str:
        return "slow"

    @property
    def code(self) -> int:
        return 0xF1

    async def wrap(self, data_key: bytes, scope: CipherScope, header: bytes) -> tuple[str, bytes]:
        await self._moment()
        self.keys.append(data_key)
        return "k", len(self.keys).to_bytes(2, "big")

    async def unwrap(self, key_id: str, wrapped: bytes, scope: CipherScope, header: bytes) -> bytes:
        await self._moment()
        return self.keys[int.from_bytes(wrapped, "big") - 1]

    async def check(self) -> None:
        return

    async def _moment(self) -> None:
        if self.left == 0:
            self.scope.cancel()
        self.left -= 1
        await trio.lowlevel.checkpoint()


@pytest.mark.parametrize(("operation", "moments"), [("encrypt", 3), ("decrypt", 3), ("migrate", 6)])
async def test_t26_cancelled_at_any_moment_it_gives_nothing_and_changes_nothing(
    operation: str, moments: int
) -> None:
    slow = Slow()
    encryption = Encryption(stack=STACK, encryptors=[slow])
    plain = {"#a": "1", "b": [{"#c": "2"}], "#d": "3"}
    document = plain if operation == "encrypt" else await encryption.encrypt(plain, PROJECT)
    before = json.dumps(document)

    for moment in range(moments):
        results: list[Any] = []
        slow.left = moment
        with trio.CancelScope() as slow.scope:
            results.append(await getattr(encryption, operation)(document, PROJECT))
        assert slow.scope.cancelled_caught
        assert results == []
        assert json.dumps(document) == before
    slow.left = -1
    whole = await getattr(encryption, operation)(document, PROJECT)

    found = whole if operation == "decrypt" else await encryption.decrypt(whole, PROJECT)
    assert found == plain
