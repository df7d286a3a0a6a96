"""Wraps data keys with the keys of the ring: no cloud account, no connection (encryption.md 10.2)."""

from __future__ import annotations

import logging
import os
import secrets
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from vaka.errors import ApplicationError, CipherRefused
from vaka.hooks import LocalEncryptor
from vaka.models.ciphers import CipherScope, Scope, cipher_scope
from vaka_keyring import ring as rings
from vaka_keyring.ring import KeyRing

log = logging.getLogger(__name__)

NAME: Final = "keyring"
CODE: Final = 0x01
NONCE: Final = 12
CHECK_INTERVAL: Final = 1.0
"""Seconds between two looks at whether the file has changed."""
_KEK: Final = b"runner-cipher/v1/kek\0"
_WRAP: Final = b"runner-cipher/v1/wrap\0"
_KEPT: Final = 1_024
"""Keys of scopes that are kept."""


class KeyRingProvider(LocalEncryptor):
    """The built-in key provider. With a path, it takes over what changes in the file."""

    def __init__(
        self,
        source: Path | KeyRing,
        *,
        check_interval: float = CHECK_INTERVAL,
    ) -> None:
        """Use the ring in a file, which is read when it is first needed, or a ring as it is."""
        self._path = source if isinstance(source, Path) else None
        self._ring: KeyRing | None = source if isinstance(source, KeyRing) else None
        self._interval = check_interval
        self._looked = 0.0
        self._seen: tuple[int, ...] | None = None
        # what an unknown key id is tried with, so that refusing it takes as long as any other
        self._nobody = secrets.token_bytes(32)
        # of the ring that is known, which is told from a new one by being the same object
        self._known: KeyRing | None = None
        self._active = ""
        self._opening: dict[str, bytes] = {}
        self._derived: dict[tuple[str, bytes, bytes], tuple[AESGCM, bytes]] = {}

    def __repr__(self) -> str:
        return f"<KeyRingProvider of {self._path or 'a given ring'}>"

    @property
    def name(self) -> str:
        return NAME

    @property
    def code(self) -> int:
        return CODE

    def wrap_now(self, data_key: bytes, scope: CipherScope, header: bytes) -> tuple[str, bytes]:
        return self.wrap_all([data_key], scope, header)[0]

    def wrapped(
        self, key_id: str, data_key: bytes, scope: CipherScope, header: bytes, nonce: bytes
    ) -> bytes:
        """A data key wrapped with one key and one nonce, which must never be used again."""
        kek, bound = self._kek(key_id, self._current(), scope, header)
        return nonce + kek.encrypt(nonce, data_key, bound)

    def unwrap_now(self, key_id: str, wrapped: bytes, scope: CipherScope, header: bytes) -> bytes:
        return self.unwrapper(key_id, scope, header)(wrapped)

    def wrap_all(
        self, data_keys: Sequence[bytes], scope: CipherScope, header: bytes
    ) -> list[tuple[str, bytes]]:
        ring = self._current()
        if ring is not self._known:
            self._learn(ring)
        key_id = self._active
        kek, bound = self._kek(key_id, ring, scope, header)
        encrypt, chance = kek.encrypt, os.urandom(NONCE * len(data_keys))
        nonces = [chance[at : at + NONCE] for at in range(0, len(chance), NONCE)]
        return [
            (key_id, nonce + encrypt(nonce, data_key, bound))
            for nonce, data_key in zip(nonces, data_keys, strict=True)
        ]

    def unwrapper(self, key_id: str, scope: CipherScope, header: bytes) -> Callable[[bytes], bytes]:
        kek, bound = self._kek(key_id, self._current(), scope, header)
        decrypt, known = kek.decrypt, key_id in self._opening

        def unwrap(wrapped: bytes) -> bytes:
            try:
                return decrypt(wrapped[:NONCE], wrapped[NONCE:], bound)
            except (InvalidTag, ValueError):  # ValueError: too short to hold a nonce
                raise CipherRefused(reason="scope" if known else "unknown_key") from None

        return unwrap

    async def check(self) -> None:
        """Read the ring, and wrap and unwrap a key with it."""
        self._current()
        scope = cipher_scope("KBC::Secure::", Scope(), "check")
        assert scope is not None  # noqa: S101 - this prefix needs no id
        data_key = secrets.token_bytes(32)
        key_id, wrapped = await self.wrap(data_key, scope, b"")
        if not secrets.compare_digest(await self.unwrap(key_id, wrapped, scope, b""), data_key):
            raise ApplicationError("The key ring does not unwrap what it has wrapped.")

    def _current(self) -> KeyRing:
        """The ring as the file has it. A broken file is said so, and the ring stays what it was."""
        ring = self._ring
        if self._path is None:
            assert ring is not None  # noqa: S101 - one of the two was given
            return ring
        now = time.monotonic()
        if ring is not None and now - self._looked < self._interval:
            return ring
        self._looked = now
        seen: tuple[int, ...] = ()
        try:
            status = self._path.lstat()
            seen = (status.st_mtime_ns, status.st_ino, status.st_size, status.st_mode)
        except OSError:
            pass  # reading it says why
        if ring is not None and seen == self._seen:
            return ring
        try:
            found = rings.read(self._path)
        except ApplicationError as error:
            if ring is None:
                raise
            log.error("key_ring.broken", extra={"detail": error.message})  # noqa: TRY400
            self._seen = seen
            return ring
        if ring is not None:
            log.info("key_ring.reloaded", extra={"active": found.active.id})
        self._ring, self._seen = found, seen
        return found

    def _kek(
        self, key_id: str, ring: KeyRing, scope: CipherScope, header: bytes
    ) -> tuple[AESGCM, bytes]:
        """The key that wraps in one scope, and what it authenticates with."""
        if ring is not self._known:
            self._learn(ring)
        place = (key_id, scope.encoded, header)
        found = self._derived.get(place)
        if found is None:
            material = self._opening.get(key_id, self._nobody)
            derived = HKDF(SHA256(), 32, None, _KEK + scope.encoded).derive(material)
            if len(self._derived) >= _KEPT:
                self._derived.clear()
            found = self._derived[place] = AESGCM(derived), _bound(key_id, scope, header)
        return found

    def _learn(self, ring: KeyRing) -> None:
        self._derived.clear()
        self._known = ring
        self._active = ring.active.id
        self._opening = {
            key.id: key.material for key in ring.keys if key.opens and key.material is not None
        }


def _bound(key_id: str, scope: CipherScope, header: bytes) -> bytes:
    name = key_id.encode("ascii")
    return b"".join((_WRAP, header, bytes((len(name),)), name, scope.encoded))
