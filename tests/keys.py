"""A key ring for tests: its key is known to everybody, so nothing else may use it."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

from pydantic import SecretStr

from vaka.encryption import Encryption
from vaka.models.ciphers import Scope
from vaka_keyring.provider import KeyRingProvider
from vaka_keyring.ring import parse

KEY_RING = SecretStr(
    json.dumps(
        {
            "version": 1,
            "active": "test",
            "keys": [
                {
                    "id": "test",
                    "created": "2026-01-01T00:00:00Z",
                    "state": "active",
                    "material": base64.b64encode(bytes(range(32))).decode(),
                }
            ],
        }
    )
)
"""Goes into the setting `key_ring_document`."""


def keys_of(stack: str) -> Encryption:
    """What an installation with that ring encrypts and decrypts with."""
    ring = parse(KEY_RING.get_secret_value(), "the tests' ring")
    return Encryption(stack=stack, encryptors=[KeyRingProvider(ring)])


async def sealed(
    document: Mapping[str, Any],
    component: str | None,
    project: str | None = "1",
    *,
    stack: str = "localhost",
    family: str | None = None,
    **ids: Any,
) -> Any:
    """A document as somebody stores it who has its secrets encrypted for these ids."""
    return await keys_of(stack).encrypt(document, Scope(component, project, **ids), family=family)
