"""The key ring: one file with the keys of an installation (encryption.md section 10.3).

A ring is a value: operations return a new one, which `write` puts in place of the old one as a whole.
Nothing here ever shows the material of a key.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import json
import os
import secrets
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal, get_args

from vaka.errors import ApplicationError, Conflict, NotFound, UserError

State = Literal["active", "decrypt-only", "disabled", "destroyed"]
STATES: Final[tuple[State, ...]] = get_args(State)
VERSION: Final = 1
MATERIAL: Final = 32
"""Bytes of a key."""
LARGEST: Final = 1 << 20
"""Bytes of a file; a key takes about two hundred."""
_CHECKED: Final = b"runner-keyring/v1/check"
_CHARACTERS: Final = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-")


@dataclass(frozen=True, slots=True)
class Key:
    """One key."""

    id: str
    created: datetime
    state: State
    material: bytes | None = field(repr=False)
    """None when it was destroyed."""

    @property
    def check_value(self) -> str:
        """Six digits that two rings with the same key share; nothing can be learnt from them."""
        if self.material is None:
            return ""
        return hmac.digest(self.material, _CHECKED, "sha256").hex()[:6]

    @property
    def opens(self) -> bool:
        """Whether ciphers made with it can be read."""
        return self.state in {"active", "decrypt-only"}


@dataclass(frozen=True, slots=True)
class KeyRing:
    """The keys, oldest first. Exactly one is active."""

    keys: tuple[Key, ...]

    @property
    def active(self) -> Key:
        """The key that new ciphers are made with."""
        return next(key for key in self.keys if key.state == "active")

    def key(self, key_id: str) -> Key:
        """One key; `NotFound` when there is none of this id."""
        for key in self.keys:
            if key.id == key_id:
                return key
        known = ", ".join(key.id for key in self.keys)
        raise NotFound(
            f'There is no key "{key_id}" in the ring; there are: {known}.', kind="key", id=key_id
        )

    def added(self, key_id: str | None = None) -> KeyRing:
        """With one more key, which opens nothing new until it is activated."""
        name = self._free_id() if key_id is None else key_id
        _check_id(name, UserError)
        if any(key.id == name for key in self.keys):
            raise Conflict(f'There is a key "{name}" already. Give the new one another id.')
        return KeyRing((*self.keys, _new_key(name, "decrypt-only")))

    def activated(self, key_id: str) -> KeyRing:
        """With this key as the one that encrypts; the former one goes on to decrypt."""
        key = self.key(key_id)
        if key.state in {"disabled", "destroyed"}:
            raise Conflict(
                f'The key "{key_id}" is {key.state} and cannot be activated. '
                + ("Enable it first." if key.state == "disabled" else "Add a new key.")
            )
        return KeyRing(
            tuple(
                replace(each, state="active")
                if each.id == key_id
                else replace(each, state="decrypt-only")
                if each.state == "active"
                else each
                for each in self.keys
            )
        )

    def retired(self, key_id: str) -> KeyRing:
        """With this key refused but kept: `enabled` takes it back."""
        self._not(key_id, "active", "retire it; activate another key first")
        self._not(key_id, "destroyed", "retire it")
        return self._with(key_id, state="disabled")

    def enabled(self, key_id: str) -> KeyRing:
        """With this retired key decrypting again."""
        if self.key(key_id).state != "disabled":
            raise Conflict(f'The key "{key_id}" is {self.key(key_id).state}, not disabled.')
        return self._with(key_id, state="decrypt-only")

    def destroyed(self, key_id: str) -> KeyRing:
        """With the material of this retired key gone; what it encrypted is lost for ever."""
        if self.key(key_id).state != "disabled":
            raise Conflict(
                f'The key "{key_id}" is {self.key(key_id).state}. Retire it before it is destroyed.'
            )
        return self._with(key_id, state="destroyed", material=None)

    def _free_id(self) -> str:
        taken = {key.id for key in self.keys}
        month = f"{datetime.now(UTC):%Y-%m}"
        names = (month, *(f"{month}-{n}" for n in range(2, len(taken) + 3)))
        return next(name for name in names if name not in taken)

    def _not(self, key_id: str, state: State, why: str) -> None:
        if self.key(key_id).state == state:
            raise Conflict(f'The key "{key_id}" is {state}: nobody can {why}.')

    def _with(self, key_id: str, **changes: Any) -> KeyRing:
        return KeyRing(
            tuple(replace(key, **changes) if key.id == key_id else key for key in self.keys)
        )


def new_ring(key_id: str | None = None) -> KeyRing:
    """A ring with one new key, which is active."""
    name = f"{datetime.now(UTC):%Y-%m}" if key_id is None else key_id
    _check_id(name, UserError)
    return KeyRing((_new_key(name, "active"),))


def parse(text: str | bytes, source: str) -> KeyRing:
    """The ring that a document holds; `source` is what messages call it.

    Raises:
        ApplicationError: it is not a valid ring. Nothing of its content is shown.
    """
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        raise _invalid(source, "it is not JSON") from None
    if not isinstance(document, dict) or document.get("version") != VERSION:
        raise _invalid(source, f"its version is not {VERSION}")
    entries = document.get("keys")
    if not isinstance(entries, list) or not entries:
        raise _invalid(source, "it has no keys")
    keys = tuple(_parse_key(entry, source) for entry in entries)
    if len({key.id for key in keys}) != len(keys):
        raise _invalid(source, "two keys have one id")
    active = [key.id for key in keys if key.state == "active"]
    if len(active) != 1 or document.get("active") != active[0]:
        raise _invalid(source, f"exactly one key must be active, and {len(active)} are")
    return KeyRing(keys)


def read(path: Path) -> KeyRing:
    """The ring in a file that nobody else can read.

    Raises:
        ApplicationError: there is none, others may read it, it is a link, or it is broken.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        raise ApplicationError(
            f"There is no key ring at {path}. Restore it from its backup: without it, what it "
            "encrypted cannot be read. Only for a new installation, make one with `vaka keys init`."
        ) from None
    except OSError as error:
        reason = "it is a symbolic link" if path.is_symlink() else str(error.strerror)
        raise _invalid(str(path), reason) from None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise _invalid(str(path), "it is not a regular file")
        if status.st_uid != os.geteuid():
            raise _invalid(str(path), f"it belongs to user {status.st_uid}, not to {os.geteuid()}")
        if status.st_mode & 0o077:
            raise _invalid(
                str(path),
                f"others may use it (mode {stat.S_IMODE(status.st_mode):04o}); run `chmod 600` on it",
            )
        if status.st_size > LARGEST:
            raise _invalid(str(path), f"it has more than {LARGEST} bytes")
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            content = file.read(LARGEST)
    finally:
        os.close(descriptor)
    return parse(content, str(path))


def write(path: Path, ring: KeyRing, *, create: bool = False) -> None:
    """Put a ring in place of the one in a file, as a whole; with `create`, where there is none.

    Raises:
        Conflict: there is one already.
        ApplicationError: it cannot be written.
    """
    if create and os.path.lexists(path):
        raise Conflict(f"There is a key ring at {path} already; it is left as it is.")
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        descriptor = os.open(
            temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600
        )
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(_dump(ring))
            file.flush()
            os.fsync(descriptor)
        if create:
            os.link(temporary, path)  # fails when somebody was faster, where a rename would not
            temporary.unlink()
        else:
            temporary.rename(path)
        _sync_folder(path.parent)
    except FileExistsError:
        temporary.unlink(missing_ok=True)
        raise Conflict(f"There is a key ring at {path} already; it is left as it is.") from None
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise ApplicationError(
            f"The key ring {path} cannot be written: {error.strerror}. Nothing has changed."
        ) from error


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _dump(ring: KeyRing) -> str:
    document = {
        "version": VERSION,
        "active": ring.active.id,
        "keys": [
            {
                "id": key.id,
                "created": key.created.isoformat().replace("+00:00", "Z"),
                "state": key.state,
                **(
                    {}
                    if key.material is None
                    else {"material": base64.b64encode(key.material).decode()}
                ),
            }
            for key in ring.keys
        ],
    }
    return json.dumps(document, indent=2) + "\n"


def _parse_key(entry: object, source: str) -> Key:
    if not isinstance(entry, Mapping):
        raise _invalid(source, "a key is not an object")
    key_id = entry.get("id")
    if not isinstance(key_id, str):
        raise _invalid(source, "a key has no id")
    _check_id(key_id, lambda reason: _invalid(source, reason))
    state: State | None = next((each for each in STATES if each == entry.get("state")), None)
    if state is None:
        raise _invalid(source, f'the state of the key "{key_id}" is none of {", ".join(STATES)}')
    try:
        created = datetime.fromisoformat(entry.get("created") or "")
    except (TypeError, ValueError):
        raise _invalid(source, f'the key "{key_id}" has no date of creation') from None
    text = entry.get("material")
    if state == "destroyed":
        if text is not None:
            raise _invalid(source, f'the key "{key_id}" is destroyed and has material')
        return Key(key_id, created, state, None)
    try:
        material = base64.b64decode(text or "", validate=True)
    except (TypeError, ValueError, binascii.Error):
        material = b""
    if len(material) != MATERIAL:
        raise _invalid(source, f'the material of the key "{key_id}" is not {MATERIAL} bytes')
    return Key(key_id, created, state, material)


def _check_id(key_id: str, refuse: Any) -> None:
    if not 1 <= len(key_id) <= 64 or not _CHARACTERS.issuperset(key_id):
        raise refuse(
            f'"{key_id}" cannot be a key id: 1 to 64 of letters, digits, ".", "_" and "-".'
        )


def _new_key(key_id: str, state: State) -> Key:
    now = datetime.now(UTC).replace(microsecond=0)
    return Key(key_id, now, state, secrets.token_bytes(MATERIAL))


def _invalid(source: str, reason: str) -> ApplicationError:
    return ApplicationError(f"The key ring {source} cannot be used: {reason}.")


def statuses(keys: Iterable[Key]) -> list[dict[str, str]]:
    """What may be told of keys: never their material."""
    return [
        {
            "id": key.id,
            "state": key.state,
            "created": key.created.isoformat().replace("+00:00", "Z"),
            "check": key.check_value,
        }
        for key in keys
    ]
