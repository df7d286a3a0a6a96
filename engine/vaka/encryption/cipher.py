"""The text of a cipher, format v1 (encryption.md section 10.2).

Everything that stands in the text is authenticated together with the scope, the prefix included, so
that no part of it can be moved, changed or relabelled.
"""

from __future__ import annotations

import base64
import re
from binascii import a2b_base64, b2a_base64
from collections.abc import Callable, Sequence
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
CHANCE: Final = KEY + NONCE
"""Random bytes that a cipher takes."""
HEADER: Final = 4
"""Bytes before the key id: format, suite, provider, scope bits."""
LARGEST_WRAP: Final = 4_096
_BEGIN: Final = bytes((FORMAT, SUITE))
_NO_KEY: Final = bytes(KEY)
_MOST_KNOWN: Final = 64
_NOTHING: Final = b"nothing begins with this"
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
    text = b2a_base64(before + nonce + sealed, newline=False).translate(_TO_URL)
    return f"{scope.prefix}{MARK}{text.rstrip(b'=').decode()}"


def seal_all(
    payloads: Sequence[bytes],
    chance: bytes,
    wraps: Sequence[tuple[str, bytes]],
    first: bytes,
    scope: CipherScope,
) -> list[str]:
    """As `seal`, for small payloads one after the other.

    `chance` is a data key and a nonce for each, used once; `wraps` what became of the data keys; `first`
    is the header.

    Raises:
        ValueError: a key provider answered with what no cipher can hold.
    """
    begin, bound = f"{scope.prefix}{MARK}", scope.encoded
    found = []
    at = size = 0
    last, start = "", b""  # nearly always the same for all of them
    for payload, (key_id, wrapped) in zip(payloads, wraps, strict=True):
        if key_id != last or len(wrapped) != size:
            start = head(first, key_id, wrapped)[: -len(wrapped)]
            last, size = key_id, len(wrapped)
        middle, end = at + KEY, at + CHANCE
        before, nonce = start + wrapped, chance[middle:end]
        sealed = AESGCM(chance[at:middle]).encrypt(nonce, payload, _DATA + before + bound)
        text = b2a_base64(before + nonce + sealed, newline=False).translate(_TO_URL)
        found.append(begin + text.rstrip(b"=").decode())
        at = end
    return found


def parse(body: str, scope: CipherScope) -> Envelope:
    """A body taken apart. There is one text for each cipher: any other spelling is refused.

    Raises:
        CipherRefused: the body is not one of this format, or its scope bits are not the prefix's.
    """
    raw = _raw(body[len(MARK) :])
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


def _raw(text: str) -> bytes:
    try:
        letters = text.encode("ascii")
        odd = len(letters) % 4
        # the strict mode takes nothing but the alphabet; the bits that the last letter has too many
        # must be zero, or one cipher would have several texts
        raw = a2b_base64(letters.translate(_FROM_URL) + _PADDING[odd], strict_mode=True)
    except ValueError:
        raise CipherRefused(reason="malformed") from None
    if odd and letters[-1] not in _LAST[odd]:
        raise CipherRefused(reason="malformed")
    return raw


Unwrap = Callable[[bytes], bytes]


class Opener:
    """Opens the small ciphers of one document and one scope, looking once at what they have in common.

    That is all from the format to the size of the wrapped key; it is looked at as `parse` does.
    """

    def __init__(self, scope: CipherScope, unwrapper: Callable[[Envelope], Unwrap | None]) -> None:
        """`unwrapper` says what unwraps keys as that of a cipher, or None when that takes time."""
        self.begin = f"{scope.prefix}{MARK}"
        """What the texts that it opens begin with."""
        self._scope = scope
        self._unwrapper = unwrapper
        self._mark = len(self.begin)
        self._bound = scope.encoded
        self._known: dict[bytes, tuple[Unwrap | None, int]] = {}
        # of the last one: most have all of it in common
        self._common = _NOTHING
        self._unwrap: Unwrap | None = None
        self._end = 0

    def open(self, value: str, most: int) -> bytes | None:
        """What a text that begins with `begin` holds.

        None when it is larger than `most`, or cannot be had at once.

        Raises:
            CipherRefused: it cannot be read.
        """
        raw = _raw(value[self._mark :])
        if not raw.startswith(self._common):
            self._turn_to(raw, value)
        unwrap, end = self._unwrap, self._end
        after = end + NONCE
        if unwrap is None or len(raw) - after > most:
            return None
        if len(raw) < after + TAG:
            raise CipherRefused(reason="malformed")
        bound = _DATA + raw[:end] + self._bound
        try:
            data_key: object = unwrap(raw[len(self._common) : end])
        except CipherRefused:
            _spend(raw[end:after], raw[after:], bound)
            raise
        if type(data_key) is not bytes or len(data_key) != KEY:
            return None  # what a provider must not answer is told by who asks it next
        try:
            return AESGCM(data_key).decrypt(raw[end:after], raw[after:], bound)
        except InvalidTag:
            raise CipherRefused(reason="mac") from None

    def _turn_to(self, raw: bytes, value: str) -> None:
        common = raw[: HEADER + 3 + (raw[HEADER] if len(raw) > HEADER else 0)]
        self._common, self._unwrap = _NOTHING, None  # while it is not known that this one is valid
        self._unwrap, self._end = self._known.get(common) or self._learn(common, value)
        self._common = common

    def _learn(self, common: bytes, value: str) -> tuple[Unwrap | None, int]:
        envelope = parse(value[self._mark - len(MARK) :], self._scope)
        found = self._unwrapper(envelope), len(envelope.head)
        if len(self._known) < _MOST_KNOWN:  # a document could have any number of them
            self._known[common] = found
        return found


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


def unseal_nothing(envelope: Envelope, scope: CipherScope) -> None:
    """The work of `unseal` for a data key that was refused, so that time does not tell them apart."""
    _spend(envelope.nonce, envelope.sealed, _DATA + envelope.head + scope.encoded)


def _spend(nonce: bytes, sealed: bytes, bound: bytes) -> None:
    # encrypting is the same work as decrypting, and raises nothing: an error would be one more than
    # a data key that unwraps and opens nothing costs
    AESGCM(_NO_KEY).encrypt(nonce, sealed[:-TAG], bound)


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
