"""What stored documents hold of ciphers, and what became of them (encryption.md section 10.4)."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

Cursor = tuple[str, ...]
"""How far documents were looked at, in the order in which they always are."""


@dataclass(frozen=True, slots=True)
class CipherOrigin:
    """What a cipher says of how it was made. Nothing of it is authenticated."""

    prefix: str
    """Empty for what has none."""
    provider: str
    """Name of the key provider or reader, or `unknown`."""
    key_id: str | None = None
    """Of the ciphers that are made here."""


@dataclass(frozen=True, slots=True)
class CipherCount:
    """How many ciphers were made in one way."""

    origin: CipherOrigin
    values: int
    outdated: int
    """How many of them are, or were, to be made anew."""

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self.origin), "values": self.values, "outdated": self.outdated}


@dataclass(frozen=True, slots=True)
class LeftCipher:
    """A cipher that was not made anew, and so its whole document."""

    document: str
    path: str
    origin: CipherOrigin
    reason: str

    def to_json(self) -> dict[str, Any]:
        return {
            "document": self.document,
            "path": self.path,
            **asdict(self.origin),
            "reason": self.reason,
        }


@dataclass(frozen=True, slots=True)
class ReencryptionReport:
    """What was found, and what was changed."""

    is_dry_run: bool
    documents: int
    """Looked at."""
    outdated: int
    """Documents with ciphers to be made anew, all of which can be."""
    changed: int
    """Documents that were written; none in a dry run."""
    counts: tuple[CipherCount, ...]
    left: tuple[LeftCipher, ...]

    def key_values(self, provider: str, key_id: str) -> int:
        """How many ciphers were found that need this key."""
        return sum(
            each.values
            for each in self.counts
            if (each.origin.provider, each.origin.key_id) == (provider, key_id)
        )

    def to_json(self) -> dict[str, Any]:
        return {
            "isDryRun": self.is_dry_run,
            "documents": self.documents,
            "outdated": self.outdated,
            "changed": self.changed,
            "ciphers": [each.to_json() for each in self.counts],
            "left": [each.to_json() for each in self.left],
        }
