"""The text of a cipher, format v1 (encryption.md section 10.2).

Everything that stands in the text is authenticated together with the scope, the prefix included, so
that no part of it can be moved, changed or relabelled.
"""

from __future__ import annotations

import base64
import binascii
import re
from functools import lru_cache
from typing import Final, NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from vaka.errors import CipherRefused
from vaka.models.ciphers import CipherScope, split_cipher

MARK: Final = "v1."
"""What a body begins with; bodies of other makers cannot."""
FORMAT: Final = 1
SUITE: Final = 1
"""HKDF-SHA256, AES-256-GCM, nonces of 12 bytes, tags of 16."""
KEY: Final = 32
"""Bytes of a data key."""
NONCE: Final = 12
TAG: Final = 16
HEADER: Final = 4
"""Bytes before the key id: format, suite, provider, scope bits."""
LARGEST_WRAP: Final = 4_096
_BEGIN: Final = bytes((FORMAT, SUITE))
_DATA: Final = b"runner-cipher/v1/data\0"
_KEY_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
_TO_URL: Final = bytes.maketrans(b"+/", b"-_")
_FROM_URL: Final = bytes.maketrans(b"-_+/=", b"+/!!!")  # "!" is in no alphabet
_PADDING: Final = (b"", b"", b"==", b"=")
_LAST: Final = (b"", b"", b"AQgw", b"AEIMQUYcgkosw048")
"""By the letters beyond whole groups of four: what the last one may be."""


class Envelope(NamedTuple):
    """A cipher taken apart; nothing of it is authenticated yet."""

    provider: int
    key_id: str
    wrapped: bytes
    head: bytes
    """All before the nonce."""
    nonce: bytes
    sealed: bytes
    """Ciphertext and tag."""

    @property
    def header(self) -> bytes:
        return self.head[:HEADER]


def header(provider: int, scope: CipherScope) -> bytes:
    """The first four bytes of a cipher."""
    return bytes((FORMAT, SUITE, provider, scope.bits))


def is_key_id(text: str) -> bool:
    """Whether this can stand for a key."""
    return _KEY_ID.fullmatch(text) is not None


def head(first: bytes, key_id: str, wrapped: bytes) -> bytes:
    """All before the nonce.

    Raises:
        ValueError: a key provider answered with what no cipher can hold.
    """
    size = len(wrapped)
    if not 1 <= size <= LARGEST_WRAP:
        raise ValueError("a wrapped key that no cipher can hold")
    return b"".join((first, _sized(key_id), size.to_bytes(2, "big"), wrapped))


@lru_cache(maxsize=256)  # an installation has a handful of keys
def _sized(key_id: str) -> bytes:
    if not is_key_id(key_id):
        raise ValueError("a key id that no cipher can hold")
    return bytes((len(key_id),)) + key_id.encode("ascii")


@lru_cache(maxsize=256)
def _key_id(raw: bytes) -> str | None:
    name = raw.decode("latin-1")
    return name if is_key_id(name) else None


def seal(payload: bytes, data_key: bytes, before: bytes, scope: CipherScope, nonce: bytes) -> str:
    """The whole cipher; `before` is what `head` returned, `nonce` random: no two may be the same."""
    sealed = AESGCM(data_key).encrypt(nonce, payload, _DATA + before + scope.encoded)
    text = binascii.b2a_base64(before + nonce + sealed, newline=False).translate(_TO_URL)
    return f"{scope.prefix}{MARK}{text.rstrip(b'=').decode()}"


def parse(body: str, scope: CipherScope) -> Envelope:
    """A body taken apart. There is one text for each cipher: any other spelling is refused.

    Raises:
        CipherRefused: the body is not one of this format, or its scope bits are not the prefix's.
    """
    try:
        text = body.encode("ascii")[len(MARK) :]
        odd = len(text) % 4
        # the strict mode takes nothing but the alphabet; the bits that the last letter has too many
        # must be zero, or one cipher would have several texts
        raw = binascii.a2b_base64(text.translate(_FROM_URL) + _PADDING[odd], strict_mode=True)
        if odd and text[-1] not in _LAST[odd]:
            raise CipherRefused(reason="malformed")
    except ValueError:
        raise CipherRefused(reason="malformed") from None
    # a slice beyond the end is short, and makes what follows short: one check of the end is enough
    after_id = HEADER + 1 + (raw[HEADER] if len(raw) > HEADER else 0)
    wrap = int.from_bytes(raw[after_id : after_id + 2], "big")
    end = after_id + 2 + wrap
    if (
        len(raw) < end + NONCE + TAG
        or raw[:2] != _BEGIN
        or raw[3] != scope.bits
        or not 1 <= wrap <= LARGEST_WRAP
    ):
        raise CipherRefused(reason="malformed")
    name = _key_id(raw[HEADER + 1 : after_id])
    if name is None:
        raise CipherRefused(reason="malformed")
    after = end + NONCE
    return tuple.__new__(  # half of what a call of the class costs
        Envelope, (raw[2], name, raw[end - wrap : end], raw[:end], raw[end:after], raw[after:])
    )


def unseal(envelope: Envelope, data_key: bytes, scope: CipherScope) -> bytes:
    """What a cipher holds.

    Raises:
        CipherRefused: the data key is another one, or anything was changed.
    """
    try:
        return AESGCM(data_key).decrypt(
            envelope.nonce, envelope.sealed, _DATA + envelope.head + scope.encoded
        )
    except InvalidTag:
        raise CipherRefused(reason="mac") from None


def key_of(value: object) -> tuple[int, str] | None:
    """Code of the provider and id of the key that a text says it was made with; None when it says none.

    Nothing is authenticated: for counting, not for trusting.
    """
    found = split_cipher(value) if isinstance(value, str) else None
    if found is None or not found[1].startswith(MARK):
        return None
    text = found[1][len(MARK) : len(MARK) + 96]  # the longest header, and less than the rest
    try:
        raw = base64.urlsafe_b64decode(text[: len(text) // 4 * 4])
    except ValueError:
        return None
    if len(raw) <= HEADER:
        return None
    key_id = _key_id(raw[HEADER + 1 : HEADER + 1 + raw[HEADER]])
    return None if key_id is None else (raw[2], key_id)
