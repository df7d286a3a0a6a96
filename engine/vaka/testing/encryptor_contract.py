"""The suite that every key provider passes."""

from __future__ import annotations

import itertools
import secrets
from collections.abc import AsyncIterator
from typing import Final

import pytest

from vaka.errors import ApplicationError, CipherRefused
from vaka.hooks import Encryptor
from vaka.models.ciphers import FAMILIES, CipherScope, Scope, cipher_scope

KEY: Final = 32
"""Bytes of a data key."""
_FULL: Final = Scope("contract.component", "123", "77", "dev")
_STACK: Final = "contract.example.com"


class EncryptorContract:
    """What every key provider does. Inherit, and give the fixture `encryptor`.

    ```python
    class TestMyProvider(EncryptorContract):
        @pytest.fixture
        async def encryptor(self) -> AsyncIterator[Encryptor]:
            provider = MyProvider(fake_service())
            yield provider
            await provider.aclose()
    ```

    Needs pytest-trio with `trio_mode`.
    """

    @pytest.fixture
    async def encryptor(self) -> AsyncIterator[Encryptor]:
        """The provider, with a key that it can wrap with."""
        raise NotImplementedError("inherit from the contract and give it a fixture `encryptor`")
        yield  # noqa: PT022 - who inherits closes it after this

    async def test_name_and_code_can_stand_where_they_must(self, encryptor: Encryptor) -> None:
        assert encryptor.name
        assert 1 <= encryptor.code <= 0xFF

    async def test_a_check_of_what_works_says_nothing(self, encryptor: Encryptor) -> None:
        await encryptor.check()

    @pytest.mark.parametrize("family", FAMILIES)
    async def test_a_key_is_unwrapped_in_the_scope_it_was_wrapped_in(
        self, encryptor: Encryptor, family: str
    ) -> None:
        scope = _scope(family)
        data_key = secrets.token_bytes(KEY)

        key_id, wrapped = await encryptor.wrap(data_key, scope, _header(encryptor, scope))

        assert 1 <= len(key_id) <= 64
        assert all(char.isascii() and (char.isalnum() or char in "._-") for char in key_id)
        assert 1 <= len(wrapped) <= 4_096
        assert data_key not in wrapped
        found = await encryptor.unwrap(key_id, wrapped, scope, _header(encryptor, scope))
        assert found == data_key

    async def test_one_key_is_never_wrapped_the_same_twice(self, encryptor: Encryptor) -> None:
        scope = _scope("ProjectSecure")
        header = _header(encryptor, scope)

        wraps = [(await encryptor.wrap(bytes(KEY), scope, header))[1] for _ in range(10)]

        assert len(set(wraps)) == len(wraps)

    async def test_another_scope_is_refused(self, encryptor: Encryptor) -> None:
        others = [
            _scope("ProjectSecure", Scope("contract.component", "124")),
            _scope("ProjectSecure", Scope("contract", "123")),
            _scope("ProjectSecure", stack="other.example.com"),
            _scope("ComponentSecure"),
            _scope("ConfigSecure"),
        ]
        scope = _scope("ProjectSecure")
        for mine, theirs in itertools.chain(
            ((scope, other) for other in others), ((other, scope) for other in others)
        ):
            header = _header(encryptor, mine)
            key_id, wrapped = await encryptor.wrap(bytes(KEY), mine, header)
            with pytest.raises(CipherRefused):
                await encryptor.unwrap(key_id, wrapped, theirs, _header(encryptor, theirs))

    async def test_a_key_that_is_not_there_is_refused(self, encryptor: Encryptor) -> None:
        scope = _scope("ProjectSecure")
        header = _header(encryptor, scope)
        _, wrapped = await encryptor.wrap(bytes(KEY), scope, header)

        with pytest.raises(CipherRefused):
            await encryptor.unwrap("no-such-key", wrapped, scope, header)

    async def test_what_was_changed_is_refused(self, encryptor: Encryptor) -> None:
        scope = _scope("ProjectSecure")
        header = _header(encryptor, scope)
        key_id, wrapped = await encryptor.wrap(bytes(range(KEY)), scope, header)
        changed = [
            wrapped[:n] + bytes((wrapped[n] ^ 1,)) + wrapped[n + 1 :] for n in range(len(wrapped))
        ]

        for each in (*changed, wrapped[:-1], wrapped[:1], b"", wrapped + b"\0"):
            with pytest.raises(CipherRefused):
                await encryptor.unwrap(key_id, each, scope, header)

    async def test_nothing_of_it_shows_a_key(self, encryptor: Encryptor) -> None:
        scope = _scope("ProjectSecure")
        data_key = b"0123456789abcdef" * 2
        header = _header(encryptor, scope)
        key_id, wrapped = await encryptor.wrap(data_key, scope, header)
        await encryptor.unwrap(key_id, wrapped, scope, header)

        with pytest.raises((CipherRefused, ApplicationError)) as caught:
            await encryptor.unwrap(key_id, wrapped[::-1], scope, header)

        for text in (repr(encryptor), str(encryptor), str(caught.value)):
            assert "0123456789abcdef" not in text


def _scope(family: str, scope: Scope = _FULL, stack: str = _STACK) -> CipherScope:
    found = cipher_scope(f"KBC::{family}::", scope, stack)
    assert found is not None
    return found


def _header(encryptor: Encryptor, scope: CipherScope) -> bytes:
    return bytes((1, 1, encryptor.code, scope.bits))
