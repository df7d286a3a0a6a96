"""Encrypts and decrypts the secrets of documents, each bound to its scope.

The rules are here, the keys with key providers (`vaka.hooks.Encryptor`), and foreign ciphers with
readers (`vaka.hooks.CipherReader`). Nothing here knows jobs, HTTP or storage.

A failure never says why to who caused it: every cipher that cannot be read is refused with one text
(encryption.md section 9.3). The reason goes to the log as a word.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import trio

from vaka.encryption import cipher
from vaka.encryption.structure import Copy, Slot, as_text, is_placeholder
from vaka.errors import ApplicationError, CipherRefused, EngineError, InvalidInput, PluginError
from vaka.hooks import (
    CipherReader,
    EncryptionPurpose,
    Encryptor,
    LocalEncryptor,
    Purpose,
)
from vaka.models.catalog import Json
from vaka.models.ciphers import (
    FAMILIES,
    PREFIXES,
    WRITTEN_PREFIXES,
    CipherScope,
    Scope,
    cipher_scope,
    family_of,
    split_cipher,
)
from vaka.models.reencryption import CipherOrigin
from vaka.turns import beside

log = logging.getLogger(__name__)

TIMEOUT: Final = 120.0
"""Seconds that one answer of a key provider or a reader may take."""
MAX_PLAIN_BYTES: Final = 1 << 20
"""Bytes of one value."""
_INLINE_BYTES: Final = 64 << 10
"""Above, the cipher itself takes a worker thread, so that nothing else waits for it."""
_SHOWN: Final = 12
"""Characters of a cipher's body that a message may show."""
_BATCH: Final = 512
"""Small values that are encrypted or decrypted before anything else may run: about ten milliseconds."""
_SPECIAL: Final = frozenset("K{")
"""What values begin with that may stay as they are."""
_UNKNOWN: Final = "unknown"
_AFTER_MAKER: Final = len("KBC::")
_NOT_SEALED: Final = "Encryption failed: Ciphering failed: Failed to obtain encryption key."
_NOT_OPENED: Final = "Decryption failed: Deciphering failed."
_DEFAULTS: Final[Mapping[str, tuple[str, ...]]] = {
    "state": ("BranchTypeSecure", "ProjectSecure"),
    "job-config": ("BranchTypeSecure", "ProjectSecure"),
    "token": ("ProjectWideSecure",),
}


class KeyMemory:
    """Data keys that a provider has unwrapped, for the time of one job; never on disk."""

    LIMIT: Final = 1_000

    def __init__(self) -> None:
        self._keys: dict[bytes, bytes] = {}

    def __repr__(self) -> str:
        return f"<KeyMemory of {len(self._keys)}>"

    def get(self, wrapped: bytes, scope: CipherScope) -> bytes | None:
        """The data key, when it was unwrapped in this scope already."""
        return self._keys.get(hashlib.sha256(wrapped + scope.encoded).digest())

    def put(self, wrapped: bytes, scope: CipherScope, data_key: bytes) -> None:
        """Remember a data key; the oldest goes when there are too many."""
        if len(self._keys) >= self.LIMIT:
            del self._keys[next(iter(self._keys))]
        self._keys[hashlib.sha256(wrapped + scope.encoded).digest()] = data_key


@dataclass(frozen=True, slots=True)
class _Context:
    """Where and what for ciphers are read, and what was found out about it."""

    scope: Scope
    purpose: Purpose
    memory: KeyMemory | None
    scopes: dict[str, CipherScope | None] = field(default_factory=dict)
    openers: dict[str, cipher.Opener | None] = field(default_factory=dict)
    """By prefix; None where ciphers are not opened at once."""


class Encryption:
    """What encrypts and decrypts for one engine. Without key providers it only recognises ciphers."""

    def __init__(
        self,
        *,
        stack: str,
        encryptors: Sequence[Encryptor] = (),
        readers: Sequence[CipherReader] = (),
        write_provider: str | None = None,
        full_cipher: bool = False,
        scope_for: Callable[[EncryptionPurpose, Scope], str | None] | None = None,
        secret_forms: Callable[[str], Iterable[str]] | None = None,
        timeout: float = TIMEOUT,
    ) -> None:
        """Take what plugins bring.

        Raises:
            PluginError: two readers claim the same ciphers.
            ApplicationError: it is not clear which provider writes.
        """
        self._stack = stack
        self._encryptors = {each.code: each for each in encryptors}
        self._readers = _claims(readers)
        self._parts: tuple[Encryptor | CipherReader, ...] = (*encryptors, *readers)
        self._writer = _writer(encryptors, write_provider)
        self._local_writer = self._writer if isinstance(self._writer, LocalEncryptor) else None
        self._full_cipher = full_cipher
        self._scope_for = scope_for
        self._secret_forms = secret_forms
        self._timeout = timeout

    @property
    def can_encrypt(self) -> bool:
        """Whether there is a key provider that writes."""
        return self._writer is not None

    async def check(self) -> None:
        """Ask all providers and readers whether they work; those that only read may fail.

        Raises:
            ApplicationError: the provider that writes does not work.
        """
        for each in self._parts:
            try:
                await each.check()
            except ApplicationError as error:
                if each is self._writer:
                    raise
                log.warning("key_provider.failed", extra={"provider": each.name}, exc_info=error)

    async def aclose(self) -> None:
        """Close all providers and readers."""
        for each in self._parts:
            await each.aclose()

    # -- encrypting ----------------------------------------------------------------------------

    async def encrypt(self, document: Json, scope: Scope, *, family: str | None = None) -> Json:
        """A copy of a document with its secrets encrypted.

        What begins with a known prefix, and what is one placeholder, stays as it is. `family` is one
        of `FAMILIES`; without it, the one that binds all ids of the scope.

        Raises:
            InvalidInput: no family binds these ids; too many secrets, or too large ones.
            ApplicationError: no key provider, or it does not answer.
        """
        copy = await beside(document, partial(Copy, document))
        target = self._target(scope, family)
        writer = self._local_writer
        small: list[Slot] = []
        payloads: list[bytes] = []
        for slot in copy.slots:
            value = slot.value
            if isinstance(value, str):
                if value[:1] in _SPECIAL and (split_cipher(value) or is_placeholder(value)):
                    continue
            else:
                value = as_text(value)
            payload = _bytes(value, slot)
            if writer is None or len(payload) > _INLINE_BYTES:
                slot.put(await self._seal(payload, target))
            else:
                small.append(slot)
                payloads.append(payload)
        if writer is not None:
            for at in range(0, len(small), _BATCH):
                sealed = self._seal_all(payloads[at : at + _BATCH], target, writer)
                for (container, key, _, _), text in zip(small[at:], sealed, strict=False):
                    container[key] = text
                await trio.lowlevel.checkpoint()
        return copy.document

    async def encrypt_for(self, purpose: EncryptionPurpose, document: Json, scope: Scope) -> Json:
        """The same, in the family that is usual for what the engine itself encrypts."""
        return await self.encrypt(document, scope, family=self.family(purpose, scope))

    async def encrypt_bytes(self, data: bytes, scope: Scope, *, family: str | None = None) -> str:
        """A cipher of bytes as they are, whatever they look like."""
        return await self._seal(data, self._target(scope, family))

    def family(self, purpose: EncryptionPurpose, scope: Scope) -> str:
        """The family for what the engine itself encrypts: a plugin's choice, or the usual one."""
        chosen = self._scope_for(purpose, scope) if self._scope_for else None
        if chosen is not None:
            return chosen
        wanted = _DEFAULTS[purpose]
        return wanted[0] if scope.branch_type is not None or len(wanted) == 1 else wanted[-1]

    def secret_forms(self, values: Iterable[str]) -> list[str]:
        """All texts to hide for these secrets: themselves, and what plugins know besides."""
        found: dict[str, None] = {}
        for value in values:
            found[value] = None
            found.update(dict.fromkeys(self._secret_forms(value) if self._secret_forms else ()))
        return list(found)

    # -- decrypting ----------------------------------------------------------------------------

    async def decrypt(
        self,
        document: Json,
        scope: Scope,
        *,
        purpose: Purpose = "run",
        memory: KeyMemory | None = None,
    ) -> Json:
        """A copy of a document with its secrets as text. Empty ones become empty text.

        With `memory`, each wrapped key is unwrapped once as long as it is kept.

        Raises:
            CipherRefused: names the first value that cannot be read, `paths` all of them.
            ApplicationError: a key provider does not answer.
        """
        context = _Context(scope, purpose, memory)

        async def opened(slot: Slot) -> Json:
            value = slot.value
            if value is None or value == "":
                return ""
            return value if is_placeholder(value) else await self._text(value, context)

        return await self._opened(document, context, opened)

    async def decrypt_given(
        self, document: Json, scope: Scope, *, memory: KeyMemory | None = None
    ) -> Json:
        """The same of a document that nobody has stored: what is in the clear may stay so, as text.

        Raises:
            CipherRefused: as `decrypt`, of what begins with a known prefix.
            ApplicationError: a key provider does not answer.
        """
        context = _Context(scope, "run", memory)

        async def opened(slot: Slot) -> Json:
            value = slot.value
            is_cipher = isinstance(value, str) and split_cipher(value) is not None
            return await self._text(value, context) if is_cipher else as_text(value)

        return await self._opened(document, context, opened)

    async def decrypt_bytes(self, value: str, scope: Scope, *, purpose: Purpose = "run") -> bytes:
        """What one cipher holds, which need not be text.

        Raises:
            CipherRefused: it cannot be read here.
        """
        context = _Context(scope, purpose, None)
        try:
            return await self._open(value, context)
        except CipherRefused as refusal:
            self._tell(refusal, value, context)
            raise

    async def migrate(self, document: Json, scope: Scope) -> Json:
        """A copy of a document with each cipher made anew in this scope, whatever its text looks like.

        All or nothing. Empty values and placeholders stay.

        Raises:
            CipherRefused: a secret is no cipher that can be read in this scope.
        """
        target = self._target(scope, None)
        context = _Context(scope, "migrate", None)

        async def moved(slot: Slot) -> Json:
            value = slot.value
            if value is None or value == "" or is_placeholder(value):
                return value
            # straight from one to the other: a text that looks like a cipher must become one
            return await self._seal((await self._text(value, context)).encode(), target)

        return await self._each(await beside(document, partial(Copy, document)), context, moved)

    async def reencrypt_value(self, value: str, scope: Scope, family: str) -> str:
        """A cipher made anew in a family that its scope has."""
        payload = await self.decrypt_bytes(value, scope, purpose="migrate")
        return await self._seal(payload, self._target(scope, family))

    async def reencrypt(self, value: str, scope: Scope, legacy_family: str) -> str:
        """A cipher made anew in the family that it has.

        Of what has none of today's, `legacy_family` becomes the family.

        Raises:
            CipherRefused: it cannot be read in this scope.
        """
        payload = await self._open(value, _Context(scope, "migrate", None))
        found = split_cipher(value)
        family = None if found is None else family_of(found[0])
        return await self._seal(payload, self._target(scope, family or legacy_family))

    @property
    def reads_bare(self) -> bool:
        """Whether texts without a prefix may be ciphers, to be migrated."""
        return "" in self._readers

    def origin(self, value: str) -> CipherOrigin:
        """What a text says of how it was made."""
        found = split_cipher(value)
        if found is None:
            return CipherOrigin("", self._reader_name("", value))
        prefix, body = found
        key = cipher.key_of(value)
        if key is None:
            return CipherOrigin(prefix, self._reader_name(prefix, body))
        provider = self._encryptors.get(key[0])
        return CipherOrigin(prefix, _UNKNOWN if provider is None else provider.name, key[1])

    def _reader_name(self, prefix: str, body: str) -> str:
        for start, reader in self._readers.get(prefix, ()):
            if body.startswith(start):
                return reader.name
        return _UNKNOWN

    async def active_key(self) -> tuple[int, str] | None:
        """Code of the provider that writes, and id of the key it uses now."""
        if self._writer is None:
            return None
        scope = self._target(Scope(), "Secure")
        key_id, _, _ = await self._wrap(os.urandom(cipher.KEY), scope)
        return self._writer.code, key_id

    # -- one value -----------------------------------------------------------------------------

    async def _opened(
        self, document: Json, context: _Context, change: Callable[[Slot], Awaitable[Json]]
    ) -> Json:
        """A copy with its ciphers opened, and the rest of its secrets changed."""
        copy = await beside(document, partial(Copy, document))
        copy.slots = await self._slow(copy.slots, context)
        return await self._each(copy, context, change)

    async def _each(
        self,
        copy: Copy,
        context: _Context,
        change: Callable[[Slot], Awaitable[Json]],
    ) -> Json:
        """Change every secret of a copy; the first refusal speaks for all."""
        first: CipherRefused | None = None
        paths: list[str] = []
        for n, slot in enumerate(copy.slots, 1):
            if n % _BATCH == 0:
                await trio.lowlevel.checkpoint()
            try:
                slot.container[slot.key] = await change(slot)
            except CipherRefused as refusal:
                paths.append(slot.path)
                self._tell(refusal, slot.value, context)
                if first is None:
                    key = "" if slot.is_root else f"Invalid cipher text for key {slot.name} "
                    first = CipherRefused(f"{key}{refusal.message}", reason=refusal.reason)
        if first is not None:
            raise CipherRefused(first.message, reason=first.reason, paths=tuple(paths)) from None
        return copy.document

    async def _slow(self, slots: Sequence[Slot], context: _Context) -> list[Slot]:
        """Open what takes no time, and return the rest: what does, and what cannot be opened.

        The same steps as `_text` without a task, which for a small value costs as much as its
        cryptography.
        """
        rest: list[Slot] = []
        opener: cipher.Opener | None = None
        for n, slot in enumerate(slots, 1):
            if n % _BATCH == 0:
                await trio.lowlevel.checkpoint()
            container, key, value, _ = slot
            if type(value) is str:
                if opener is None or not value.startswith(opener.begin):
                    opener = self._opener_for(value, context)
                try:
                    found = None if opener is None else opener.open(value, _INLINE_BYTES)
                    if found is not None:
                        container[key] = found.decode()
                        continue
                except Exception:  # noqa: BLE001, S110 - `_text` comes upon it again, and tells it
                    pass
            rest.append(slot)
        return rest

    def _opener_for(self, value: str, context: _Context) -> cipher.Opener | None:
        prefix = value[: value.find("::", _AFTER_MAKER) + 2]
        try:
            opener = context.openers[prefix]
        except KeyError:
            opener = context.openers[prefix] = self._opener(prefix, context)
        return opener if opener is not None and value.startswith(opener.begin) else None

    def _opener(self, prefix: str, context: _Context) -> cipher.Opener | None:
        if prefix not in WRITTEN_PREFIXES:
            return None
        try:
            scope = self._scope_of(prefix, context)
        except CipherRefused:
            return None

        def unwrapper(envelope: cipher.Envelope) -> cipher.Unwrap | None:
            provider = self._encryptors.get(envelope.provider)
            if not isinstance(provider, LocalEncryptor):
                return None
            return provider.unwrapper(envelope.key_id, scope, envelope.header)

        return cipher.Opener(scope, unwrapper)

    async def _text(self, value: Json, context: _Context) -> str:
        if not isinstance(value, str):
            raise CipherRefused(self._refusal(None), reason="malformed")
        try:
            return (await self._open(value, context)).decode()
        except UnicodeDecodeError:
            raise CipherRefused(self._refusal(value), reason="not_text") from None

    async def _open(self, value: str, context: _Context) -> bytes:
        if not self._encryptors and not self._readers:
            raise ApplicationError("There are no wrappers registered for the encryptor.")
        found = split_cipher(value)
        if found is None:
            return await self._open_bare(value, context)
        prefix, body = found
        scope = self._scope_of(prefix, context)
        try:
            if body.startswith(cipher.MARK) and prefix in WRITTEN_PREFIXES:
                envelope = cipher.parse(body, scope)
                data_key = self._unwrapped_now(envelope, scope)
                if data_key is None:
                    data_key = await self._unwrapped(envelope, scope, context.memory)
                if len(envelope.sealed) > _INLINE_BYTES:
                    return await trio.to_thread.run_sync(cipher.unseal, envelope, data_key, scope)
                return cipher.unseal(envelope, data_key, scope)
            for start, reader in self._readers.get(prefix, ()):
                if body.startswith(start):
                    return await self._read(reader, body, scope, context.purpose)
        except CipherRefused as refusal:
            # a reader that says more has a reason that the user may know
            raise CipherRefused(
                refusal.message or self._refusal(value), reason=refusal.reason
            ) from None
        raise CipherRefused(self._refusal(value), reason="no_reader")

    def _scope_of(self, prefix: str, context: _Context) -> CipherScope:
        scopes = context.scopes
        if prefix not in scopes:
            scopes[prefix] = cipher_scope(prefix, context.scope, self._stack)
        scope = scopes[prefix]
        if scope is None:
            # as if it were no cipher: here it is none
            raise CipherRefused(self._refusal(None), reason="scope")
        return scope

    async def _open_bare(self, value: str, context: _Context) -> bytes:
        """What has no prefix may be a cipher only where old documents are turned into new ones."""
        if context.purpose == "migrate":
            for _, reader in self._readers.get("", ()):
                with suppress(CipherRefused):
                    return await self._read(reader, value, CipherScope("", {}), context.purpose)
        raise CipherRefused(self._refusal(None), reason="malformed")

    def _seal_all(
        self, payloads: Sequence[bytes], scope: CipherScope, writer: LocalEncryptor
    ) -> list[str]:
        """Ciphers of small payloads, without a task."""
        header = cipher.header(writer.code, scope)
        # all at once: to ask for each costs as much as to encrypt a key
        chance = os.urandom(cipher.CHANCE * len(payloads))
        keys = [chance[at : at + cipher.KEY] for at in range(0, len(chance), cipher.CHANCE)]
        try:
            wraps = writer.wrap_all(keys, scope, header)
            return cipher.seal_all(payloads, chance, wraps, header, scope)
        except Exception as error:
            raise self._failure(error, writer, _NOT_SEALED) from error

    async def _seal(self, payload: bytes, scope: CipherScope) -> str:
        if len(payload) > MAX_PLAIN_BYTES:
            raise InvalidInput(f"A value has more than {MAX_PLAIN_BYTES} bytes.")
        chance = os.urandom(cipher.CHANCE)
        data_key, nonce = chance[: cipher.KEY], chance[cipher.KEY :]
        key_id, wrapped, header = await self._wrap(data_key, scope)
        try:
            before = cipher.head(header, key_id, wrapped)
        except ValueError as error:
            raise ApplicationError(_NOT_SEALED) from error
        if len(payload) > _INLINE_BYTES:
            return await trio.to_thread.run_sync(
                cipher.seal, payload, data_key, before, scope, nonce
            )
        return cipher.seal(payload, data_key, before, scope, nonce)

    async def _wrap(self, data_key: bytes, scope: CipherScope) -> tuple[str, bytes, bytes]:
        """Key id, wrapped key, and the header that they belong to."""
        writer = self._writer
        if writer is None:
            raise ApplicationError("There are no wrappers registered for the encryptor.")
        header = cipher.header(writer.code, scope)
        try:
            with trio.fail_after(self._timeout):
                key_id, wrapped = await writer.wrap(data_key, scope, header)
        except Exception as error:
            raise self._failure(error, writer, _NOT_SEALED) from error
        return key_id, wrapped, header

    def _unwrapped_now(self, envelope: cipher.Envelope, scope: CipherScope) -> bytes | None:
        """The data key, when that takes no time; None when `_unwrapped` must find it."""
        provider = self._encryptors.get(envelope.provider)
        if not isinstance(provider, LocalEncryptor):
            return None
        try:
            data_key: Any = provider.unwrap_now(
                envelope.key_id, envelope.wrapped, scope, envelope.header
            )
        except CipherRefused:
            cipher.unseal_nothing(envelope, scope)
            raise
        except Exception as error:
            raise self._failure(error, provider, _NOT_OPENED) from error
        is_key = type(data_key) is bytes and len(data_key) == cipher.KEY
        return data_key if is_key else self._checked(data_key, provider)

    async def _unwrapped(
        self, envelope: cipher.Envelope, scope: CipherScope, memory: KeyMemory | None
    ) -> bytes:
        provider = self._encryptors.get(envelope.provider)
        if provider is None:
            raise CipherRefused(reason="no_reader")
        known = None if memory is None else memory.get(envelope.wrapped, scope)
        if known is not None:
            return known
        try:
            with trio.fail_after(self._timeout):
                data_key: Any = await provider.unwrap(
                    envelope.key_id, envelope.wrapped, scope, envelope.header
                )
        except CipherRefused:
            cipher.unseal_nothing(envelope, scope)
            raise
        except Exception as error:
            raise self._failure(error, provider, _NOT_OPENED) from error
        found = self._checked(data_key, provider)
        if memory is not None:
            memory.put(envelope.wrapped, scope, found)
        return found

    def _checked(self, data_key: object, provider: Encryptor) -> bytes:
        if not isinstance(data_key, bytes) or len(data_key) != cipher.KEY:
            log.error("key_provider.broken", extra={"provider": provider.name})
            raise ApplicationError(_NOT_OPENED)
        return data_key

    async def _read(
        self, reader: CipherReader, body: str, scope: CipherScope, purpose: Purpose
    ) -> bytes:
        try:
            with trio.fail_after(self._timeout):
                return await reader.read(body, scope, purpose)
        except CipherRefused:
            raise
        except Exception as error:
            raise self._failure(error, reader, _NOT_OPENED) from error

    def _failure(
        self, error: Exception, of: Encryptor | CipherReader, words: str
    ) -> ApplicationError:
        """What a provider or reader raised, in the words of the contract; the log has its own."""
        known = isinstance(error, EngineError | trio.TooSlowError)
        event = "key_provider.failed" if known else "key_provider.broken"
        reason = "provider_failed" if known else "provider_broken"
        log.error(event, extra={"provider": of.name, "reason": reason}, exc_info=error)
        return ApplicationError(words)

    def _target(self, scope: Scope, family: str | None) -> CipherScope:
        name = scope.family if family is None else family
        target = cipher_scope(f"KBC::{name}::", scope, self._stack) if name in FAMILIES else None
        if target is None:
            raise ApplicationError(f"Invalid crypto wrapper {name}")
        return target

    def _refusal(self, value: str | None) -> str:
        """The one text for what cannot be read. Without a known prefix, nothing of it is shown."""
        found = split_cipher(value) if value is not None else None
        if found is None:
            return "Value is not an encrypted value."
        prefix, body = found
        shown = body
        if not self._full_cipher and len(body) > _SHOWN:
            shown = f"{body[:_SHOWN]}…"
        return f"Value {prefix}{shown} is not an encrypted value."

    def _tell(self, refusal: CipherRefused, value: Json, context: _Context) -> None:
        found = split_cipher(value) if isinstance(value, str) else None
        extra = {
            "reason": refusal.reason,
            "prefix": found[0] if found else None,
            "component": context.scope.component,
            "project": context.scope.project,
        }
        log.info("cipher.refused", extra=extra)


def _bytes(text: str, slot: Slot) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise InvalidInput(
            f'The value of "{slot.path}" is not Unicode: it has half a surrogate pair.',
            path=slot.path,
        ) from None


def _writer(encryptors: Sequence[Encryptor], name: str | None) -> Encryptor | None:
    if name is not None:
        for each in encryptors:
            if each.name == name:
                return each
        known = ", ".join(each.name for each in encryptors) or "none"
        raise ApplicationError(
            f'There is no key provider "{name}", which the setting write_provider names; there are: '
            f"{known}."
        )
    if len(encryptors) > 1:
        names = ", ".join(each.name for each in encryptors)
        raise ApplicationError(
            f"There are several key providers: {names}. Say which one encrypts with the setting "
            "write_provider."
        )
    return encryptors[0] if encryptors else None


def _claims(
    readers: Sequence[CipherReader],
) -> dict[str, list[tuple[str, CipherReader]]]:
    found: dict[str, list[tuple[str, CipherReader]]] = {}
    taken: dict[str, list[str]] = {prefix: [cipher.MARK] for prefix in WRITTEN_PREFIXES}
    for reader in readers:
        for prefix, start in reader.claims.items():
            if prefix and prefix not in PREFIXES:
                raise PluginError(
                    f"The cipher reader {reader.name} claims {prefix!r}, which is no known prefix.",
                    plugin=reader.name,
                    hook="vaka_cipher_readers",
                )
            others = taken.setdefault(prefix, [])
            if any(start.startswith(other) or other.startswith(start) for other in others):
                raise PluginError(
                    f"CryptoWrapper prefix {prefix} is not unique.",
                    plugin=reader.name,
                    hook="vaka_cipher_readers",
                )
            others.append(start)
            found.setdefault(prefix, []).append((start, reader))
    return found
