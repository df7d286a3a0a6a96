"""Readers of ciphers that other installations have made: old ones, and those of key services.

The settings `legacy_…` hold the keys of the old ones. Key services need a client, which a plugin of the
installation hands to a reader of `vaka_legacy.clouds`; without one their ciphers are recognised, so
that nothing encrypts them again, and refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vaka.hooks import CipherReader, hookimpl


@hookimpl
def vaka_cipher_readers(settings: Mapping[str, Any]) -> list[CipherReader]:
    """The readers of old ciphers."""
    from vaka_legacy.readers import LegacyReader, Version0Reader  # noqa: PLC0415 - a faster start

    key = settings.get("legacy_key_version1")
    sunset = settings.get("legacy_sunset")
    readers: list[CipherReader] = [
        LegacyReader(
            None if key is None else key.get_secret_value().encode(),
            runs=settings.get("legacy_use_in", "migrate+run") == "migrate+run",
            sunset=sunset,
        )
    ]
    bare = settings.get("legacy_key_version0")
    if bare is not None and settings.get("legacy_allow_unauthenticated", False):
        readers.append(Version0Reader(bare.get_secret_value().encode(), sunset=sunset))
    return readers
