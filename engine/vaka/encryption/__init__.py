"""Encrypting and decrypting the secrets of documents (encryption.md)."""

from vaka.encryption.cipher import key_of
from vaka.encryption.encryption import Encryption, KeyMemory
from vaka.encryption.numerals import Numeral, dump_json, load_json
from vaka.encryption.structure import as_text, is_placeholder, secret_count, unnamed_secrets

__all__ = [
    "Encryption",
    "KeyMemory",
    "Numeral",
    "as_text",
    "dump_json",
    "is_placeholder",
    "key_of",
    "load_json",
    "secret_count",
    "unnamed_secrets",
]
