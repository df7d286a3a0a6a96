"""The authenticated payload formats of old ciphers: read, and written only where tests compare bytes.

Sources: encryption.md sections 3.1, 4.1 and 4.2. A message is authenticated before anything of it is
decrypted, so nothing of its padding can be observed.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Final

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.padding import PKCS7

KEY_V1: Final = 16
KEY_V2: Final = 32
_MAC: Final = 32
_SALT: Final = 32
_BLOCK: Final = 16
_V2: Final = bytes.fromhex("def50200")
_KEY: Final = bytes.fromhex("def00000")


class Broken(ValueError):
    """Bytes that are not of the format, or were made with another key; the words are the format's."""


def open_v1(data: bytes, key: bytes) -> bytes:
    """What a message of the first version holds; `key` has 16 bytes."""
    if len(data) < _MAC + _BLOCK + _BLOCK:
        raise Broken("Ciphertext is too short.")
    encrypt, authenticate = _keys_v1(key)
    mac, rest = data[:_MAC], data[_MAC:]
    if not hmac.compare_digest(mac, hmac.digest(authenticate, rest, "sha256")):
        raise Broken("Integrity check failed.")
    if len(rest) % _BLOCK:
        raise Broken("Ciphertext is not in whole blocks.")
    return open_cbc(rest, encrypt)


def seal_v1(payload: bytes, key: bytes, iv: bytes) -> bytes:
    """A message of the first version."""
    encrypt, authenticate = _keys_v1(key)
    padder = PKCS7(128).padder()
    encryptor = Cipher(algorithms.AES(encrypt), modes.CBC(iv)).encryptor()
    padded = padder.update(payload) + padder.finalize()
    rest = iv + encryptor.update(padded) + encryptor.finalize()
    return hmac.digest(authenticate, rest, "sha256") + rest


def open_cbc(data: bytes, key: bytes) -> bytes:
    """What IV and AES-CBC hold; every byte of the padding is looked at."""
    decryptor = Cipher(algorithms.AES(key), modes.CBC(data[:_BLOCK])).decryptor()
    unpadder = PKCS7(128).unpadder()
    try:
        padded = decryptor.update(data[_BLOCK:]) + decryptor.finalize()
        return unpadder.update(padded) + unpadder.finalize()
    except ValueError:
        raise Broken("Padding is wrong.") from None


def open_v2(data: bytes, key: bytes) -> bytes:
    """What a message of the second version holds; `key` has 32 bytes."""
    if len(data) < len(_V2) + _SALT + _BLOCK + _MAC:
        raise Broken("Ciphertext is too short.")
    if data[: len(_V2)] != _V2:
        raise Broken("Bad version header.")
    encrypt, authenticate = _keys_v2(key, salt_v2(data))
    rest, mac = data[:-_MAC], data[-_MAC:]
    if not hmac.compare_digest(mac, hmac.digest(authenticate, rest, "sha256")):
        raise Broken("Integrity check failed.")
    at = len(_V2) + _SALT
    return _ctr(rest[at + _BLOCK :], encrypt, rest[at : at + _BLOCK])


def seal_v2(payload: bytes, key: bytes, salt: bytes, iv: bytes) -> bytes:
    """A message of the second version."""
    encrypt, authenticate = _keys_v2(key, salt)
    rest = _V2 + salt + iv + _ctr(payload, encrypt, iv)
    return rest + hmac.digest(authenticate, rest, "sha256")


def salt_v2(data: bytes) -> bytes:
    """The salt of a message."""
    return data[len(_V2) : len(_V2) + _SALT]


def load_key(text: str) -> bytes:
    """The 32 bytes of a key that is written as text."""
    try:
        raw = bytes.fromhex(text.rstrip("\0\t\n\r "))
    except ValueError:
        raise Broken("Encoding::hexToBin() input is not a hex string.") from None
    if len(raw) < len(_KEY) + _MAC:
        raise Broken("Encoded data is shorter than expected.")
    if raw[: len(_KEY)] != _KEY:
        raise Broken("Invalid header.")
    content, digest = raw[:-_MAC], raw[-_MAC:]
    if not hmac.compare_digest(hashlib.sha256(content).digest(), digest):
        raise Broken("Data is corrupted, the checksum doesn't match")
    key = content[len(_KEY) :]
    if len(key) != KEY_V2:
        raise Broken("Bad key length.")
    return key


def _ctr(data: bytes, key: bytes, block: bytes) -> bytes:
    cipher = Cipher(algorithms.AES(key), modes.CTR(block)).encryptor()
    return cipher.update(data) + cipher.finalize()


def _keys_v1(key: bytes) -> tuple[bytes, bytes]:
    return (
        HKDF(SHA256(), KEY_V1, None, b"DefusePHP|KeyForEncryption").derive(key),
        HKDF(SHA256(), KEY_V1, None, b"DefusePHP|KeyForAuthentication").derive(key),
    )


def _keys_v2(key: bytes, salt: bytes) -> tuple[bytes, bytes]:
    return (
        HKDF(SHA256(), KEY_V2, salt, b"DefusePHP|V2|KeyForEncryption").derive(key),
        HKDF(SHA256(), KEY_V2, salt, b"DefusePHP|V2|KeyForAuthentication").derive(key),
    )
