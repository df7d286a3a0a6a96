"""The local key ring: the key provider that an installation has without asking anybody.

It is active when there is a ring: in the file `keys` of the home, in the file that the setting
`key_ring` names, or in the setting `key_ring_document` itself. What is in `ring` makes and changes
rings; `vaka keys` is made of it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vaka.errors import InvalidInput
from vaka.hooks import Encryptor, hookimpl

FILE = "keys"
"""The ring's name in the home."""


def ring_path(settings: Mapping[str, Any]) -> Path:
    """Where the ring is, or would be."""
    named = settings.get("key_ring")
    return Path(named).absolute() if named else Path(settings["home"]).absolute() / FILE


@hookimpl
def vaka_encryptors(settings: Mapping[str, Any]) -> list[Encryptor]:
    """The key ring's provider, when there is a ring, or one is said to be there."""
    document = settings.get("key_ring_document")
    named = settings.get("key_ring")
    if document is not None and named is not None:
        raise InvalidInput("Both key_ring and key_ring_document are set; unset one of them.")
    if (
        document is None
        and named is None
        and ("home" not in settings or not os.path.lexists(ring_path(settings)))
    ):
        return []
    from vaka_keyring import ring  # noqa: PLC0415 - a start without it is faster
    from vaka_keyring.provider import KeyRingProvider  # noqa: PLC0415

    if document is not None:
        return [KeyRingProvider(ring.parse(document.get_secret_value(), "key_ring_document"))]
    return [KeyRingProvider(ring_path(settings))]
