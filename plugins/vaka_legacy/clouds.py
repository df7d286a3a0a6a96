"""Readers of the ciphers of key services (encryption.md section 5), without any client of theirs.

A plugin of an installation that still has such a service hands the one call that is needed to one of
these, and returns it from `vaka_cipher_readers`. What that call raises is an application error, but
for `CipherRefused(reason="provider_refused")`: the service answered that this is not to be read.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType
from typing import Final

from vaka.errors import ApplicationError, CipherRefused
from vaka.hooks import CipherReader, Purpose
from vaka.models.ciphers import FAMILIES, CipherScope
from vaka_legacy.defuse import KEY_V2, Broken, load_key, open_v2
from vaka_legacy.serialized import (
    Flat,
    Malformed,
    decode_base64,
    inflate,
    read_envelope,
    read_pair,
    write_metadata,
)

_EMPTY_METADATA: Final = b"eJxLtDKwqq4FAAZPAf4="
"""What the metadata of a generic cipher are coded as by every compressor that old ciphers agree with."""


class EnvelopeReader(CipherReader):
    """What all of them share: an envelope, a data key from the service, a payload."""

    @property
    @abstractmethod
    def members(self) -> frozenset[int]:
        """The members that the envelope has, all strings."""

    async def read(self, body: str, scope: CipherScope, purpose: Purpose) -> bytes:  # noqa: ARG002
        try:
            envelope = read_envelope(body)
        except Malformed:
            raise CipherRefused(reason="malformed") from None
        if set(envelope) != self.members:
            raise CipherRefused(reason="malformed")
        payload, data_key = await self._opened(envelope, _metadata(scope))
        if len(data_key) != KEY_V2:
            raise ApplicationError(f"The key service of {self.name} gave a key of another length.")
        try:
            return open_v2(payload, data_key)
        except Broken:
            raise CipherRefused(reason="mac") from None

    @abstractmethod
    async def _opened(self, envelope: Flat, metadata: Mapping[str, str]) -> tuple[bytes, bytes]:
        """The payload, and the key it is encrypted with."""


class AwsReader(EnvelopeReader):
    """Reads `KBC::…Secure::` with a body that begins with `eJ`."""

    def __init__(self, decrypt: Callable[[bytes, Mapping[str, str]], Awaitable[bytes]]) -> None:
        """`decrypt` takes a ciphertext blob and its encryption context, and gives the data key."""
        self._decrypt = decrypt

    @property
    def name(self) -> str:
        return "aws-kms"

    @property
    def claims(self) -> Mapping[str, str]:
        return MappingProxyType({f"KBC::{family}::": "eJ" for family in FAMILIES})

    @property
    def members(self) -> frozenset[int]:
        return frozenset({0, 1})

    async def _opened(self, envelope: Flat, metadata: Mapping[str, str]) -> tuple[bytes, bytes]:
        return envelope[0], await self._decrypt(envelope[1], metadata)


class AzureReader(EnvelopeReader):
    """Reads `KBC::…SecureKV::`: the data key is a secret in the vault, with what it is bound to."""

    def __init__(self, secret: Callable[[str], Awaitable[str]]) -> None:
        """`secret` takes the name of a secret, and gives the value of its latest version."""
        self._secret = secret

    @property
    def name(self) -> str:
        return "azure-key-vault"

    @property
    def claims(self) -> Mapping[str, str]:
        return MappingProxyType({f"KBC::{family}KV::": "" for family in FAMILIES})

    @property
    def members(self) -> frozenset[int]:
        return frozenset({2, 3, 4})

    async def _opened(self, envelope: Flat, metadata: Mapping[str, str]) -> tuple[bytes, bytes]:
        try:
            name = envelope[3].decode("ascii")
        except UnicodeDecodeError:
            name = ""
        if not name or not envelope[4]:
            raise CipherRefused(reason="malformed")
        value = await self._secret(name)
        try:
            bound, key = read_pair(inflate(decode_base64(value)))
            data_key = load_key(key.decode("ascii"))
        except ValueError as error:
            raise ApplicationError(
                f'The secret "{name}" in the vault is not one of a cipher.'
            ) from error
        # all of it, so that a cipher of a wider scope cannot be given a narrower prefix
        if bound != {key.encode(): value.encode() for key, value in metadata.items()}:
            raise CipherRefused(reason="scope")
        return envelope[2], data_key


class GoogleReader(EnvelopeReader):
    """Reads `KBC::…SecureGKMS::`."""

    def __init__(self, decrypt: Callable[[bytes, bytes], Awaitable[bytes]]) -> None:
        """`decrypt` takes a ciphertext and what was authenticated with it, and gives the plain text."""
        self._decrypt = decrypt

    @property
    def name(self) -> str:
        return "google-kms"

    @property
    def claims(self) -> Mapping[str, str]:
        return MappingProxyType({f"KBC::{family}GKMS::": "" for family in FAMILIES})

    @property
    def members(self) -> frozenset[int]:
        return frozenset({0, 1})

    async def check(self) -> None:
        """Make sure that this machine's compressor writes what old ciphers are authenticated with."""
        if write_metadata({}) != _EMPTY_METADATA:
            raise ApplicationError(
                "The zlib of this machine compresses to other bytes than the ciphers of Google KMS were "
                "made with, so none of them can be read. Use a Python with the classic zlib."
            )

    async def _opened(self, envelope: Flat, metadata: Mapping[str, str]) -> tuple[bytes, bytes]:
        key = await self._decrypt(envelope[0], write_metadata(metadata))
        try:
            return envelope[1], load_key(key.decode("ascii"))
        except ValueError as error:
            raise ApplicationError("The key service of google-kms gave no data key.") from error


def _metadata(scope: CipherScope) -> dict[str, str]:
    """What a key service was told of the scope: nothing for a generic cipher."""
    return dict(scope.ids) if len(scope.ids) > 1 else {}
