"""Encrypting and decrypting the secrets of documents (encryption.md)."""

from vaka.encryption.cipher import key_of
from vaka.encryption.encryption import Encryption, KeyMemory
from vaka.encryption.numerals import Numeral, dump_json, load_json
from vaka.encryption.structure import (
    as_text,
    is_placeholder,
    legacy_secrets,
    plain_secrets,
    replace_secrets,
    secret_count,
    unnamed_secrets,
)

__all__ = [
    "Encryption",
    "KeyMemory",
    "Numeral",
    "as_text",
    "dump_json",
    "is_placeholder",
    "key_of",
    "legacy_secrets",
    "load_json",
    "plain_secrets",
    "replace_secrets",
    "secret_count",
    "unnamed_secrets",
]
