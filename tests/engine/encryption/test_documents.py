"""Which values of a document are encrypted and decrypted, and what is said when that fails."""

from __future__ import annotations

import base64
import copy
import json
import logging
import os
import threading
import tracemalloc
import zlib
from collections.abc import Mapping
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from vaka.encryption import (
    Encryption,
    KeyMemory,
    dump_json,
    load_json,
    unnamed_secrets,
)
from vaka.encryption import cipher as v1
from vaka.encryption.structure import Copy
from vaka.errors import ApplicationError, CipherRefused, InvalidInput, PluginError
from vaka.hooks import CipherReader, Encryptor, Purpose
from vaka.models.ciphers import PREFIXES, CipherScope, Scope, cipher_scope, is_cipher
from vaka_keyring.provider import KeyRingProvider
from vaka_keyring.ring import new_ring
from vaka_legacy.clouds import AwsReader
from vaka_legacy.readers import LegacyReader, Version0Reader

STACK = "connection.example.com"
SCOPE = Scope("docker-config-encrypt-verify", "123")


class Wrapping(Encryptor):
    """Keeps the data keys it wraps, counts, and answers what it is told to."""

    def __init__(self, *answers: Any, hangs: bool = False) -> None:
        self.calls = 0
        self._answers = list(answers)
        self._hangs = hangs
        self._keys: dict[bytes, bytes] = {}

    @property
    def name(self) -> str:
        return "wrapping"

    @property
    def code(self) -> int:
        return 0xF1

    async def wrap(self, data_key: bytes, scope: CipherScope, header: bytes) -> tuple[str, bytes]:
        self.calls += 1
        wrapped = bytes((len(self._keys), *range(8)))
        self._keys[wrapped + scope.encoded] = data_key
        return "k1", wrapped

    async def unwrap(self, key_id: str, wrapped: bytes, scope: CipherScope, header: bytes) -> bytes:
        self.calls += 1
        if self._hangs:
            await trio.sleep_forever()
        if self._answers:
            answer = self._answers.pop(0)
            if isinstance(answer, Exception):
                raise answer
            return answer  # type: ignore[no-any-return]
        if wrapped + scope.encoded not in self._keys:
            raise CipherRefused(reason="provider_refused")
        return self._keys[wrapped + scope.encoded]

    async def check(self) -> None:
        return


EMPTY: dict[str, Any] = {
    "#nested": {"emptyObject": {}, "emptyArray": []},
    "nested": {"emptyObject": {}, "emptyArray": []},
    "emptyObject": {},
    "emptyArray": [],
    "emptyScalar": None,
}


@pytest.mark.scenario("encryption", 25)
@pytest.mark.parametrize("document", [EMPTY, [], {}, None])
async def test_what_is_empty_stays_as_it_is(document: Any, encryption: Encryption) -> None:
    assert await encryption.encrypt(document, SCOPE) == document
    assert await encryption.decrypt(document, SCOPE) == document


@pytest.mark.scenario("encryption", 26)
async def test_scalars_come_back_as_text(encryption: Encryption) -> None:
    document = {"#b": True, "#f": False, "#n": None, "#e": "", "#d": 1.5, "#i": 7}

    encrypted = await encryption.encrypt(document, SCOPE)

    assert isinstance(encrypted, dict)
    assert all(is_cipher(value) for value in encrypted.values())
    assert await encryption.decrypt(encrypted, SCOPE) == {
        "#b": "1",
        "#f": "",
        "#n": "",
        "#e": "",
        "#d": "1.5",
        "#i": "7",
    }


@pytest.mark.scenario("encryption", 27)
async def test_unmarked_numbers_stay_as_they_were_written(encryption: Encryption) -> None:
    text = '{"a":1.0,"b":[1e2,123456789012345678901234567890,-0,0.10],"c":{"d":7}}'

    assert dump_json(await encryption.encrypt(load_json(text), SCOPE)) == text


def test_the_paths_of_texts_in_lists_under_marked_keys_are_told() -> None:
    document = {"#list": ["a", {"#b": "c", "d": ["e"]}, ["f"], 1], "list": ["g"]}

    assert unnamed_secrets(document) == ["#list[0]", "#list[2][0]"]


@pytest.mark.scenario("encryption", 29)
async def test_a_marked_key_deep_under_a_marked_key_is_encrypted(encryption: Encryption) -> None:
    document = {"#a": {"b": [{"#c": "secret"}]}}

    encrypted: Any = await encryption.encrypt(document, SCOPE)

    assert is_cipher(encrypted["#a"]["b"][0]["#c"])
    assert await encryption.decrypt(encrypted, SCOPE) == document
    assert document == {"#a": {"b": [{"#c": "secret"}]}}


@pytest.mark.parametrize(
    "document",
    [
        {"#a": "secret", "rest": {str(n): n for n in range(6_000)}},
        {"rest": [{"n": n} for n in range(6_000)], "last": {"#a": "secret"}},
        [*range(6_000), {"#a": "secret"}],
    ],
)
async def test_a_large_document_is_encrypted_beside_the_event_loop(
    document: Any, encryption: Encryption, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = copy.deepcopy(document)
    threads: list[int] = []

    def copying(document: Any) -> Copy:
        threads.append(threading.get_ident())
        return Copy(document)

    monkeypatch.setattr("vaka.encryption.encryption.Copy", copying)

    encrypted = await encryption.encrypt(document, SCOPE)

    assert document == before
    assert encrypted != document
    assert await encryption.decrypt(encrypted, SCOPE) == document
    assert len(threads) == 2
    assert threading.get_ident() not in threads


@pytest.mark.scenario("encryption", 30)
async def test_what_begins_with_a_known_prefix_is_not_encrypted_again() -> None:
    keys = Wrapping()
    document = {f"#{n}": f"{prefix}garbage" for n, prefix in enumerate(PREFIXES)}

    for encryption in (Encryption(stack=STACK, encryptors=[keys]), Encryption(stack=STACK)):
        assert await encryption.encrypt(document, SCOPE) == document
    assert (len(document), keys.calls) == (27, 0)


@pytest.mark.scenario("encryption", 31)
@pytest.mark.parametrize("value", ["KBC::Unknown::x", " KBC::Secure::x", "kbc::secure::x"])
async def test_what_only_looks_like_a_prefix_is_encrypted(
    value: str, encryption: Encryption
) -> None:
    encrypted: Any = await encryption.encrypt({"#x": value}, SCOPE)

    assert encrypted["#x"].startswith("KBC::ProjectSecure::v1.")
    assert await encryption.decrypt(encrypted, SCOPE) == {"#x": value}


@pytest.mark.scenario("encryption", 33)
async def test_empty_values_decrypt_to_empty_text_and_blank_ones_do_not(
    encryption: Encryption,
) -> None:
    for document in ({"#x": ""}, {"#x": None}):
        assert await encryption.decrypt(document, SCOPE) == {"#x": ""}
    with pytest.raises(CipherRefused):
        await encryption.decrypt({"#x": "  "}, SCOPE)


@pytest.mark.scenario("encryption", 34)
@pytest.mark.parametrize("value", [12, "plain"])
async def test_what_is_no_cipher_is_refused_and_not_shown(
    value: Any, encryption: Encryption, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)

    with pytest.raises(CipherRefused) as caught:
        await encryption.decrypt({"a": {"#x": value}}, SCOPE)

    assert caught.value.message.startswith("Invalid cipher text for key #x Value ")
    assert caught.value.paths == ("a.#x",)
    assert str(value) not in caught.value.message
    assert not any(value in vars(record).values() for record in caplog.records)
    assert "plain" not in caplog.text
    assert [vars(record)["reason"] for record in caplog.records] == ["malformed"]


async def test_every_path_that_fails_is_told_and_the_first_speaks(encryption: Encryption) -> None:
    good = await encryption.encrypt("secret", SCOPE)
    document = {"a": [{"#x": good}, {"#y": "one"}], "#z": "two"}

    with pytest.raises(CipherRefused) as caught:
        await encryption.decrypt(document, SCOPE)

    assert caught.value.message == (
        "Invalid cipher text for key #y Value is not an encrypted value."
    )
    assert caught.value.paths == ("a[1].#y", "#z")


@pytest.mark.scenario("encryption", 35)
async def test_encrypting_twice_changes_nothing_more_and_never_gives_the_same(
    encryption: Encryption,
) -> None:
    once = await encryption.encrypt({"#x": "secret"}, SCOPE)
    ciphers = {str(await encryption.encrypt("secret", SCOPE)) for _ in range(1_000)}

    assert await encryption.encrypt(once, SCOPE) == once
    assert len(ciphers) == 1_000


@pytest.mark.scenario("encryption", 36)
async def test_a_document_of_512_levels_is_too_deep(encryption: Encryption) -> None:
    def nested(levels: int) -> str:
        return '{"a":' * (levels - 1) + '{"#x":"secret"}' + "}" * (levels - 1)

    encrypted = await encryption.encrypt(load_json(nested(511)), SCOPE)

    assert "KBC::ProjectSecure::" in dump_json(encrypted)
    with pytest.raises(InvalidInput) as caught:
        load_json(nested(512))
    assert caught.value.message == ("Bad JSON format of request body: Maximum stack depth exceeded")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "Syntax error"),
        ("", "Syntax error"),
        ("[NaN]", "Syntax error"),
        (b'"\xff"', "Malformed UTF-8"),
        ('["\\ud800"]', "surrogate"),
    ],
)
def test_what_is_no_json_is_refused_with_the_words_of_the_contract(
    text: str | bytes, reason: str
) -> None:
    with pytest.raises(InvalidInput, match=f"^Bad JSON format of request body: .*{reason}"):
        load_json(text)


def test_brackets_in_texts_are_no_levels() -> None:
    text = json.dumps(["[" * 2_000, '\\"[{' * 2_000])

    assert dump_json(load_json(text)) == text.replace(", ", ",")


@pytest.mark.scenario("encryption", 96)
async def test_bodies_that_inflate_and_brackets_without_end_are_refused_cheaply() -> None:
    async def never(blob: bytes, context: Mapping[str, str]) -> bytes:
        raise AssertionError("nothing was authenticated")

    encryption = Encryption(stack=STACK, readers=[AwsReader(never)])
    pack = zlib.compressobj(9, wbits=-15)
    zeros = b"\0" * (1 << 20)
    bomb = b"".join((b"\x78\x9c", *(pack.compress(zeros) for _ in range(64)), pack.flush()))
    cipher = f"KBC::ProjectSecure::{base64.b64encode(bomb).decode()}"

    tracemalloc.start()
    try:
        with pytest.raises(CipherRefused):
            await encryption.decrypt_bytes(cipher, SCOPE)
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()
    with pytest.raises(InvalidInput, match="Maximum stack depth"):
        load_json("[" * 1_000_000)


async def test_a_value_and_a_document_have_limits(encryption: Encryption) -> None:
    with pytest.raises(InvalidInput, match="1048576 bytes"):
        await encryption.encrypt({"#x": "x" * ((1 << 20) + 1)}, SCOPE)
    with pytest.raises(InvalidInput, match="more than 10000 values"):
        await encryption.encrypt({f"#{n}": n for n in range(10_001)}, SCOPE)


@pytest.mark.parametrize("size", [0, 64 << 10, 1 << 20])
async def test_values_up_to_the_limit_come_back(size: int, encryption: Encryption) -> None:
    document = {"#x": "š" * (size // 2)}

    assert await encryption.decrypt(await encryption.encrypt(document, SCOPE), SCOPE) == document


async def test_half_a_surrogate_pair_is_refused(encryption: Encryption) -> None:
    with pytest.raises(InvalidInput, match=r'"a\.#x" is not Unicode'):
        await encryption.encrypt({"a": {"#x": "\ud800"}}, SCOPE)


async def test_what_is_no_json_is_an_application_error(encryption: Encryption) -> None:
    with pytest.raises(ApplicationError, match=r"^Only stdClass, array and string are supported"):
        await encryption.encrypt(b"x", SCOPE)
    with pytest.raises(ApplicationError, match=r"^Invalid item \$key - only stdClass"):
        await encryption.encrypt({"x": [object()]}, SCOPE)


async def test_bytes_that_are_no_text_are_refused_in_documents_only(encryption: Encryption) -> None:
    cipher = await encryption.encrypt_bytes(b"\xff\n", SCOPE)

    assert await encryption.decrypt_bytes(cipher, SCOPE) == b"\xff\n"
    with pytest.raises(CipherRefused) as caught:
        await encryption.decrypt({"#x": cipher}, SCOPE)
    assert caught.value.reason == "not_text"


# -- migrating ---------------------------------------------------------------------------------


async def test_a_migrated_secret_that_looks_like_a_cipher_or_a_placeholder_is_a_cipher(
    encryption: Encryption,
) -> None:
    secrets = ("KBC::Encrypted==x", "{{ x }}", "plain")
    document = {
        f"#{n}": await encryption.encrypt_bytes(text.encode(), SCOPE)
        for n, text in enumerate(secrets)
    }
    untouched = {"#empty": "", "#none": None, "#var": "{{ v }}", "a": 1}

    moved: Any = await encryption.migrate({**document, **untouched}, SCOPE)

    assert {key: moved[key] for key in untouched} == untouched
    for n, text in enumerate(secrets):
        assert moved[f"#{n}"] != document[f"#{n}"]
        assert moved[f"#{n}"].startswith("KBC::ProjectSecure::v1.")
        assert await encryption.decrypt_bytes(moved[f"#{n}"], SCOPE) == text.encode()


async def test_migrating_never_widens_a_scope(encryption: Encryption) -> None:
    narrow = Scope(SCOPE.component, SCOPE.project, "7")
    cipher = await encryption.encrypt({"#x": "secret"}, narrow)

    with pytest.raises(CipherRefused):
        await encryption.migrate(cipher, SCOPE)


async def test_one_bad_cipher_keeps_all_from_being_migrated(encryption: Encryption) -> None:
    good = await encryption.encrypt("secret", SCOPE)

    with pytest.raises(CipherRefused) as caught:
        await encryption.migrate({"#a": good, "#b": "plain", "#c": good}, SCOPE)

    assert caught.value.paths == ("#b",)
    assert str(good)[:40] not in caught.value.message


@pytest.mark.parametrize(("runs", "readable"), [(True, True), (False, False)])
async def test_legacy_ciphers_are_read_in_runs_unless_a_setting_says_otherwise(
    runs: bool, readable: bool
) -> None:
    key = b"legacyKeyVersion1-0123456789abcd"
    cipher = legacy_cipher("secret", key)
    encryption = Encryption(
        stack=STACK,
        encryptors=[KeyRingProvider(new_ring())],
        readers=[LegacyReader(key, runs=runs)],
    )

    moved: Any = await encryption.migrate({"#x": cipher}, SCOPE)

    assert moved["#x"].startswith("KBC::ProjectSecure::v1.")
    if readable:
        assert await encryption.decrypt({"#x": cipher}, SCOPE) == {"#x": "secret"}
    else:
        with pytest.raises(CipherRefused):
            await encryption.decrypt({"#x": cipher}, SCOPE)


def legacy_cipher(text: str, key: bytes) -> str:
    from vaka_legacy.defuse import seal_v1  # noqa: PLC0415 - nothing else makes any

    sealed = seal_v1(text.encode(), key[:16], bytes(16))
    return "KBC::Encrypted==" + base64.b64encode(sealed).decode()


@pytest.mark.scenario("encryption", 93)
async def test_without_legacy_keys_legacy_ciphers_are_kept_and_refused(
    encryption: Encryption,
) -> None:
    prefixes = (
        "KBC::Encrypted==",
        "KBC::ComponentEncrypted==",
        "KBC::ComponentProjectEncrypted==",
    )
    for prefix in prefixes:
        document = {"#x": f"{prefix}AAAA"}
        assert await encryption.encrypt(document, SCOPE) == document
        with pytest.raises(CipherRefused) as caught:
            await encryption.decrypt(document, SCOPE)
        assert caught.value.message == (
            f"Invalid cipher text for key #x Value {prefix}AAAA is not an encrypted value."
        )


# -- providers and readers ---------------------------------------------------------------------


@pytest.mark.scenario("encryption", 89)
@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"KBC::SecureKV::": ""}, {"KBC::SecureKV::": ""}),
        ({"KBC::SecureKV::": "eJ"}, {"KBC::SecureKV::": "e"}),
        ({"KBC::Secure::": ""}, {}),
        ({"KBC::Secure::": "v1."}, {}),
        ({"": ""}, {"": "x"}),
    ],
)
def test_two_readers_of_one_prefix_are_refused(one: dict[str, str], other: dict[str, str]) -> None:
    class Claiming(CipherReader):
        def __init__(self, claims: Mapping[str, str]) -> None:
            self._claims = claims

        @property
        def name(self) -> str:
            return "claiming"

        @property
        def claims(self) -> Mapping[str, str]:
            return self._claims

        async def read(self, body: str, scope: CipherScope, purpose: Purpose) -> bytes:
            raise AssertionError("never asked")

    prefix = next(iter(one))
    with pytest.raises(PluginError) as caught:
        Encryption(stack=STACK, readers=[Claiming(one), Claiming(other)])
    assert caught.value.message == f"CryptoWrapper prefix {prefix} is not unique."


@pytest.mark.scenario("encryption", 90)
@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (bytes(32), CipherRefused),
        (bytes(31), ApplicationError),
        (b"", ApplicationError),
        (None, ApplicationError),
        (ValueError("secret"), ApplicationError),
        (ApplicationError("The service is down."), ApplicationError),
        (CipherRefused(reason="provider_refused"), CipherRefused),
    ],
)
async def test_whatever_a_provider_answers_there_is_one_error(
    answer: Any, error: type[Exception]
) -> None:
    encryption = Encryption(stack=STACK, encryptors=[Wrapping(answer, answer)])
    cipher = await encryption.encrypt("hunter22", SCOPE)

    with pytest.raises(error) as caught:
        await encryption.decrypt({"#x": cipher}, SCOPE)

    words = {
        CipherRefused: f"Invalid cipher text for key #x Value {str(cipher)[:20]}v1.8",
        ApplicationError: "Decryption failed: Deciphering failed.",
    }
    assert str(caught.value).startswith(words[error][:60])


async def test_a_provider_that_does_not_answer_is_given_up(autojump_clock: MockClock) -> None:
    encryption = Encryption(stack=STACK, encryptors=[Wrapping(hangs=True)])
    cipher = await encryption.encrypt("secret", SCOPE)
    began = trio.current_time()

    with pytest.raises(ApplicationError, match=r"^Decryption failed: Deciphering failed\.$"):
        await encryption.decrypt(cipher, SCOPE)

    assert trio.current_time() - began == 120


async def test_a_provider_that_cannot_wrap_is_an_application_error() -> None:
    class Broken(Wrapping):
        async def wrap(
            self, data_key: bytes, scope: CipherScope, header: bytes
        ) -> tuple[str, bytes]:
            raise RuntimeError("out of order")

    class Odd(Wrapping):
        async def wrap(
            self, data_key: bytes, scope: CipherScope, header: bytes
        ) -> tuple[str, bytes]:
            return "no key id", b"x"

    for keys in (Broken(), Odd()):
        with pytest.raises(ApplicationError) as caught:
            await Encryption(stack=STACK, encryptors=[keys]).encrypt("x", SCOPE)
        assert caught.value.message == (
            "Encryption failed: Ciphering failed: Failed to obtain encryption key."
        )


@pytest.mark.scenario("encryption", 92)
async def test_one_wrapped_key_is_unwrapped_once_a_job() -> None:
    keys = Wrapping()
    encryption = Encryption(stack=STACK, encryptors=[keys])
    scope = cipher_scope("KBC::ProjectSecure::", SCOPE, STACK)
    assert scope is not None
    data_key = bytes(range(32))
    header = v1.header(keys.code, scope)
    key_id, wrapped = await keys.wrap(data_key, scope, header)
    head = v1.head(header, key_id, wrapped)
    document = {
        f"#{n}": v1.seal(b"%d" % n, data_key, head, scope, os.urandom(12)) for n in range(200)
    }
    keys.calls = 0
    job = KeyMemory()

    first = await encryption.decrypt(document, SCOPE, memory=job)
    second = await encryption.decrypt(document, SCOPE, memory=job)

    assert first == second == {f"#{n}": str(n) for n in range(200)}
    assert keys.calls == 1
    with pytest.raises(CipherRefused):
        await encryption.decrypt(document, Scope(SCOPE.component, "other"), memory=job)


async def test_several_providers_read_and_the_named_one_writes() -> None:
    ring, other = KeyRingProvider(new_ring()), Wrapping()
    with pytest.raises(ApplicationError, match="several key providers: keyring, wrapping"):
        Encryption(stack=STACK, encryptors=[ring, other])
    with pytest.raises(ApplicationError, match=r'no key provider "x".*keyring, wrapping'):
        Encryption(stack=STACK, encryptors=[ring, other], write_provider="x")

    one = Encryption(stack=STACK, encryptors=[ring, other], write_provider="wrapping")
    two = Encryption(stack=STACK, encryptors=[ring, other], write_provider="keyring")

    for writes in (one, two):
        cipher = await writes.encrypt("secret", SCOPE)
        for reads in (one, two):
            assert await reads.decrypt(cipher, SCOPE) == "secret"
    assert other.calls == 3


async def test_a_provider_that_only_reads_may_be_down(caplog: pytest.LogCaptureFixture) -> None:
    class Down(Wrapping):
        async def check(self) -> None:
            raise ApplicationError("The service is down.")

    ring, down = KeyRingProvider(new_ring()), Down()

    await Encryption(stack=STACK, encryptors=[ring, down], write_provider="keyring").check()
    assert "key_provider.failed" in caplog.text
    with pytest.raises(ApplicationError, match="The service is down"):
        await Encryption(stack=STACK, encryptors=[ring, down], write_provider="wrapping").check()


async def test_the_engine_s_own_documents_have_usual_families(encryption: Encryption) -> None:
    branch = Scope("c", "1", branch_type="dev")

    assert encryption.family("state", SCOPE) == "ProjectSecure"
    assert encryption.family("state", branch) == "BranchTypeSecure"
    assert encryption.family("job-config", SCOPE) == "ProjectSecure"
    assert encryption.family("token", branch) == "ProjectWideSecure"
    encrypted: Any = await encryption.encrypt_for("token", {"#t": "x"}, SCOPE)
    assert encrypted["#t"].startswith("KBC::ProjectWideSecure::")


async def test_a_plugin_may_choose_the_family_and_add_to_what_is_hidden() -> None:
    encryption = Encryption(
        stack=STACK,
        encryptors=[KeyRingProvider(new_ring())],
        scope_for=lambda purpose, scope: "ComponentSecure" if purpose == "state" else None,
        secret_forms=lambda value: [value[::-1]],
    )

    encrypted: Any = await encryption.encrypt_for("state", {"#x": "y"}, SCOPE)

    assert encrypted["#x"].startswith("KBC::ComponentSecure::")
    assert encryption.family("token", SCOPE) == "ProjectWideSecure"
    assert encryption.secret_forms(["abc", "abc"]) == ["abc", "cba"]


async def test_a_whole_cipher_is_shown_only_when_asked(encryption: Encryption) -> None:
    cipher = "KBC::ProjectSecure::v1.AAAAAAAAAAAAAAAAAAAA"
    whole = Encryption(stack=STACK, readers=[LegacyReader(None)], full_cipher=True)

    for each, shown in ((encryption, "KBC::ProjectSecure::v1.AAAAAAAAA…"), (whole, cipher)):
        with pytest.raises(CipherRefused) as caught:
            await each.decrypt({"#x": cipher}, SCOPE)
        assert caught.value.message == (
            f"Invalid cipher text for key #x Value {shown} is not an encrypted value."
        )


async def test_after_the_sunset_legacy_ciphers_are_refused_with_the_setting_s_name() -> None:
    from datetime import date  # noqa: PLC0415 - only here

    key = b"k" * 16
    readers = [
        LegacyReader(key, sunset=date(2020, 1, 1)),
        Version0Reader(key, sunset=date(2020, 1, 1)),
    ]
    encryption = Encryption(stack=STACK, readers=readers)

    with pytest.raises(CipherRefused, match="setting legacy_sunset"):
        await encryption.decrypt({"#x": legacy_cipher("secret", key)}, SCOPE, purpose="migrate")
