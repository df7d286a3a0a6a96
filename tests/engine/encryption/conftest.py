"""An encryption with a key ring that is made for the test."""

from __future__ import annotations

import pytest

from vaka.encryption import Encryption
from vaka_keyring.provider import KeyRingProvider
from vaka_keyring.ring import new_ring
from vaka_legacy.readers import LegacyReader

STACK = "connection.example.com"


@pytest.fixture
def encryption() -> Encryption:
    """Encrypts with a ring of one key, and recognises legacy ciphers."""
    return Encryption(
        stack=STACK, encryptors=[KeyRingProvider(new_ring())], readers=[LegacyReader(None)]
    )
