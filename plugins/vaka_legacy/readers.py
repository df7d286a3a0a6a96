"""Readers of the ciphers of old installations (encryption.md sections 3 and 10.8)."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import UTC, date, datetime
from types import MappingProxyType
from typing import Final

from vaka.errors import ApplicationError, CipherRefused
from vaka.hooks import CipherReader, Purpose
from vaka.models.ciphers import LEGACY_PREFIXES, CipherScope
from vaka_legacy.defuse import KEY_V1, Broken, open_cbc, open_v1
from vaka_legacy.serialized import Malformed, decode_base64

_BLOCK: Final = 16
_SIZES: Final = (16, 24, 32)


class LegacyReader(CipherReader):
    """Reads the three `…Encrypted==` prefixes; without a key it recognises and refuses them.

    Raises:
        ApplicationError: the key is too short.
    """

    def __init__(
        self, key_version1: bytes | None, *, runs: bool = True, sunset: date | None = None
    ) -> None:
        """Take the key, of which 16 bytes count.

        Without `runs` ciphers are read only to be migrated; from the day `sunset` on, never.
        """
        if key_version1 is not None and len(key_version1) < KEY_V1:
            raise ApplicationError("Encryption key too short. Minimum is 16 bytes.")
        self._key = None if key_version1 is None else key_version1[:KEY_V1]
        self._runs = runs
        self._sunset = sunset

    def __repr__(self) -> str:
        return "<LegacyReader>"

    @property
    def name(self) -> str:
        return "legacy"

    @property
    def claims(self) -> Mapping[str, str]:
        return MappingProxyType(dict.fromkeys(LEGACY_PREFIXES, ""))

    async def read(self, body: str, scope: CipherScope, purpose: Purpose) -> bytes:
        _refuse_after(self._sunset)
        if self._key is None or (purpose == "run" and not self._runs):
            raise CipherRefused(reason="no_reader")
        try:
            return open_v1(decode_base64(body), self.key(scope))
        except Malformed:
            raise CipherRefused(reason="malformed") from None
        except Broken:
            raise CipherRefused(reason="mac") from None

    def key(self, scope: CipherScope) -> bytes:
        """The 16 bytes that a cipher of this scope was made with."""
        assert self._key is not None  # noqa: S101 - who calls has looked
        key = self._key
        ids: list[str] = []
        for name in ("componentId", "projectId"):
            if name in scope.ids:
                # the key of the project is made from that of the component, with both ids again
                ids.append(scope.ids[name])
                key = _derived("-".join(ids), key)
        return key


def _derived(ids: str, key: bytes) -> bytes:
    return hashlib.sha256(ids.encode() + b"-" + key).hexdigest()[:KEY_V1].encode()


class Version0Reader(CipherReader):
    """Reads texts without a prefix, which nothing authenticates; only to migrate them.

    Raises:
        ApplicationError: the key has no length of a key.
    """

    def __init__(self, key_version0: bytes, *, sunset: date | None = None) -> None:
        """Take the key, of which 32 bytes count."""
        self._key = key_version0[: max(_SIZES)]
        if len(self._key) not in _SIZES:
            raise ApplicationError(
                "Key length must be 16, 24 or 32 bytes for 128, 192, 256 bit encryption."
            )
        self._sunset = sunset

    def __repr__(self) -> str:
        return "<Version0Reader>"

    @property
    def name(self) -> str:
        return "legacy-version-0"

    @property
    def claims(self) -> Mapping[str, str]:
        return MappingProxyType({"": ""})

    async def read(self, body: str, scope: CipherScope, purpose: Purpose) -> bytes:  # noqa: ARG002
        _refuse_after(self._sunset)
        if purpose != "migrate":
            raise CipherRefused(reason="no_reader")
        try:
            data = decode_base64(body)
            if len(data) < 2 * _BLOCK or len(data) % _BLOCK:
                raise Malformed("not in whole blocks")
            plain = open_cbc(data, self._key)
            plain.decode()  # nothing else can tell that the key was the right one
        except ValueError:
            raise CipherRefused(reason="malformed") from None
        return plain


def _refuse_after(sunset: date | None) -> None:
    if sunset is not None and datetime.now(UTC).date() >= sunset:
        raise CipherRefused(
            f"Legacy ciphers are not read any more since {sunset} (setting legacy_sunset).",
            reason="no_reader",
        )
