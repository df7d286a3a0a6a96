"""What encrypting costs beside its cryptography.

Both sides make 10,000 small values secret and read them again. Ours does what a document needs: it
finds the values, binds them to their scope, writes and reads the texts. The reference is a bare loop
over the same cipher with the same number of operations: for each value a fresh key, the key and the
value encrypted, both decrypted. Both only compute, so what counts is the time of the processor, which no
neighbour changes.
"""

from __future__ import annotations

import os
import time

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from tests.bench.measuring import Measure, at_least, interleave

from vaka.encryption import Encryption
from vaka.models.ciphers import Scope
from vaka_keyring.provider import KeyRingProvider
from vaka_keyring.ring import new_ring

VALUES = 10_000
ROUNDS = 11
TARGET = 0.5
SCOPE = Scope("bench.component", "1")
BOUND = b"s" * 150
"""Bytes that are authenticated with each: about as many as a scope has."""


async def measure() -> list[Measure]:
    """Values a second."""
    encryption = Encryption(stack="bench.example.com", encryptors=[KeyRingProvider(new_ring())])
    document = {f"#{n}": f"secret value {n}" for n in range(VALUES)}

    async def ours(_: int) -> float:
        began = time.process_time()
        encrypted = await encryption.encrypt(document, SCOPE)
        found = await encryption.decrypt(encrypted, SCOPE)
        seconds = time.process_time() - began
        assert found == document
        return VALUES / seconds

    async def reference(_: int) -> float:
        values = [value.encode() for value in document.values()]
        began = time.process_time()
        found = bare(values)
        seconds = time.process_time() - began
        assert found == values
        return VALUES / seconds

    await ours(0)  # derives the key of the scope, as a server has done long ago
    mine, bare_loop = await interleave(ROUNDS, ours, reference)
    return [at_least("encryption", mine, bare_loop, "values/s", TARGET)]


def bare(values: list[bytes]) -> list[bytes]:
    """The values, encrypted and decrypted with the least around it."""
    kek = AESGCM(os.urandom(32))
    kept: list[tuple[bytes, bytes, bytes, bytes]] = []
    for value in values:
        key, first, second = os.urandom(32), os.urandom(12), os.urandom(12)
        wrapped = kek.encrypt(first, key, BOUND)
        kept.append((first, wrapped, second, AESGCM(key).encrypt(second, value, BOUND)))
    return [
        AESGCM(kek.decrypt(first, wrapped, BOUND)).decrypt(second, sealed, BOUND)
        for first, wrapped, second, sealed in kept
    ]
