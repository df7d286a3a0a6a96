"""What a cipher is bound to, and where it can be read."""

from __future__ import annotations

import base64
import itertools
import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vaka.encryption import Encryption
from vaka.errors import CipherRefused, InvalidInput
from vaka.hooks import CipherReader
from vaka.models.ciphers import FAMILIES, Scope, cipher_scope, split_cipher
from vaka_keyring.provider import KeyRingProvider
from vaka_keyring.ring import Key, KeyRing, new_ring, read, write
from vaka_legacy.clouds import AwsReader, AzureReader, GoogleReader
from vaka_legacy.readers import LegacyReader

STACK = "connection.example.com"
ROOT = Path(__file__).resolve().parents[3]
VECTORS: dict[str, Any] = json.loads((ROOT / "docs/spec/encryption-vectors.json").read_text())
FULL = Scope("docker-config-encrypt-verify", "123", "77", "dev")
CHOSEN = [
    (Scope(component="c"), "ComponentSecure"),
    (Scope(component="c", project="1"), "ProjectSecure"),
    (Scope(component="c", project="1", configuration="f"), "ConfigSecure"),
    (Scope(project="1"), "ProjectWideSecure"),
    (Scope(component="c", project="1", branch_type="dev"), "BranchTypeSecure"),
    (Scope("c", "1", "f", "default"), "BranchTypeConfigSecure"),
    (Scope(project="1", branch_type="dev"), "ProjectWideBranchTypeSecure"),
    (Scope(), "Secure"),
]
READABLE = {
    "": {"Secure"},
    "C": {"Secure", "ComponentSecure"},
    "P": {"Secure", "ProjectWideSecure"},
    "PB": {"Secure", "ProjectWideSecure", "ProjectWideBranchTypeSecure"},
    "CP": {"Secure", "ComponentSecure", "ProjectSecure", "ProjectWideSecure"},
    "CPF": {"Secure", "ComponentSecure", "ProjectSecure", "ProjectWideSecure", "ConfigSecure"},
    "CPB": set(FAMILIES) - {"ConfigSecure", "BranchTypeConfigSecure"},
    "CPFB": set(FAMILIES),
}


@pytest.mark.scenario("encryption", 14)
@pytest.mark.parametrize(("scope", "family"), CHOSEN)
async def test_a_value_gets_the_prefix_of_its_scope_and_another_process_reads_it(
    scope: Scope, family: str, tmp_path: Path
) -> None:
    write(tmp_path / "keys", new_ring(), create=True)
    first = Encryption(stack=STACK, encryptors=[KeyRingProvider(tmp_path / "keys")])
    second = Encryption(stack=STACK, encryptors=[KeyRingProvider(read(tmp_path / "keys"))])

    cipher = await first.encrypt("secret", scope)

    assert isinstance(cipher, str)
    assert cipher.startswith(f"KBC::{family}::v1.")
    assert await second.decrypt(cipher, scope) == "secret"


@pytest.mark.parametrize(
    ("scope", "message"),
    [
        (Scope(component="c", configuration="f"), "configId parameter .* with projectId"),
        (Scope(component="c", branch_type="dev"), "branchType parameter .* with projectId"),
        (Scope(project="1", configuration="f"), "configId parameter .* with componentId"),
    ],
)
async def test_ids_that_no_family_binds_are_refused(
    scope: Scope, message: str, encryption: Encryption
) -> None:
    with pytest.raises(InvalidInput, match=message):
        await encryption.encrypt("x", scope)


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ({"component": ""}, '^Parameter "componentId" must not be empty.$'),
        ({"configuration": ""}, '^Parameter "configId" must not be empty.$'),
        ({"component": "x" * 256}, "255 bytes"),
        ({"component": "a\0b"}, "control"),
        ({"project": "\ud800"}, "UTF-8"),
        ({"branch_type": "main"}, '^The branchType parameter must be "default" or "dev".$'),
    ],
)
def test_ids_that_cannot_be_are_refused(ids: dict[str, str], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        Scope(**ids)


@pytest.mark.scenario("encryption", 15)
@pytest.mark.parametrize("letters", READABLE)
async def test_a_context_reads_the_families_whose_ids_it_has(
    letters: str, encryption: Encryption
) -> None:
    context = Scope(
        FULL.component if "C" in letters else None,
        FULL.project if "P" in letters else None,
        FULL.configuration if "F" in letters else None,
        FULL.branch_type if "B" in letters else None,
    )
    readable = set()
    for family in FAMILIES:
        cipher = await encryption.encrypt("secret", FULL, family=family)
        if family in READABLE[letters]:
            assert await encryption.decrypt(cipher, context) == "secret"
            readable.add(family)
            continue
        with pytest.raises(CipherRefused) as caught:
            await encryption.decrypt(cipher, context)
        assert caught.value.message == "Value is not an encrypted value."

    assert readable == READABLE[letters]


@pytest.mark.scenario("encryption", 16)
async def test_a_project_cipher_is_the_component_s_and_a_project_wide_one_is_not(
    encryption: Encryption,
) -> None:
    mine, other = Scope("x", "1"), Scope("y", "1")
    bound = await encryption.encrypt("secret", mine)
    wide = await encryption.encrypt("secret", mine, family="ProjectWideSecure")

    with pytest.raises(CipherRefused):
        await encryption.decrypt(bound, other)
    for scope in (mine, other):
        assert await encryption.decrypt(wide, scope) == "secret"


@pytest.mark.scenario("encryption", 17)
async def test_a_branch_type_s_cipher_is_refused_in_the_other_and_in_none(
    encryption: Encryption,
) -> None:
    cipher = await encryption.encrypt("secret", Scope("c", "1", branch_type="default"))

    for scope in (Scope("c", "1", branch_type="dev"), Scope("c", "1")):
        with pytest.raises(CipherRefused):
            await encryption.decrypt(cipher, scope)


@pytest.mark.scenario("encryption", 18)
async def test_a_narrow_context_reads_a_wide_cipher(encryption: Encryption) -> None:
    cipher = await encryption.encrypt("secret", Scope("c", "1"))

    assert await encryption.decrypt(cipher, Scope("c", "1", "f", "dev")) == "secret"


@pytest.mark.scenario("encryption", 19)
@pytest.mark.parametrize("family", FAMILIES)
async def test_another_stack_reads_nothing(family: str) -> None:
    keys = KeyRingProvider(new_ring())
    cipher = await Encryption(stack=STACK, encryptors=[keys]).encrypt("x", FULL, family=family)

    with pytest.raises(CipherRefused):
        await Encryption(stack="other.example.com", encryptors=[keys]).decrypt(cipher, FULL)


def services() -> dict[str, tuple[CipherReader, dict[str, str]]]:
    """A reader of each key service that knows everything, and one cipher of each prefix."""

    def of(group: str) -> tuple[list[dict[str, Any]], dict[str, str]]:
        vectors = VECTORS[group]["vectors"]
        return vectors, {each["prefix"]: each["cipher"] for each in vectors}

    aws_vectors, aws = of("envelope_aws_kms")
    azure_vectors, azure = of("envelope_azure_key_vault")
    google_vectors, google = of("envelope_google_kms")

    async def decrypt(blob: bytes, context: Any) -> bytes:
        for each in aws_vectors:
            kms = each["kms"]
            same = base64.b64decode(kms["encrypted_data_key_b64"]) == blob
            if same and kms["encryption_context"] == context:
                return base64.b64decode(kms["data_key_b64"])
        raise CipherRefused(reason="provider_refused")

    async def secret(name: str) -> str:
        vaults = [each["key_vault"] for each in azure_vectors]
        return next(str(each["secret_value"]) for each in vaults if each["secret_name"] == name)

    async def opened(blob: bytes, authenticated: bytes) -> bytes:
        for each in google_vectors:
            kms = each["google_kms"]
            same = base64.b64decode(kms["encrypted_data_key_b64"]) == blob
            if same and kms["additional_authenticated_data"].encode() == authenticated:
                return str(kms["data_key_ascii_safe"]).encode()
        raise CipherRefused(reason="provider_refused")

    return {
        "aws": (AwsReader(decrypt), aws),
        "azure": (AzureReader(secret), azure),
        "google": (GoogleReader(opened), google),
    }


def context_of(group: str, prefix: str) -> Scope:
    context: dict[str, str] = {}
    for vector in VECTORS[group]["vectors"]:
        context = {**context, **vector["context"]} if vector["prefix"] == prefix else context
    return Scope(
        context.get("componentId", FULL.component),
        context.get("projectId", FULL.project),
        context.get("configurationId", FULL.configuration),
        "dev" if context.get("branchType", "dev") == "dev" else "default",
    )


@pytest.mark.scenario("encryption", 20)
@pytest.mark.parametrize("service", ["aws", "azure", "google"])
async def test_a_service_s_cipher_under_another_prefix_is_refused(service: str) -> None:
    reader, ciphers = services()[service]
    group = {"aws": "aws_kms", "azure": "azure_key_vault", "google": "google_kms"}[service]
    encryption = Encryption(stack=STACK, readers=[reader])
    assert len(ciphers) == len(FAMILIES)

    for (prefix, cipher), other in itertools.product(ciphers.items(), ciphers):
        scope = context_of(f"envelope_{group}", prefix)
        relabelled = other + cipher.removeprefix(prefix)
        if other == prefix:
            await encryption.decrypt_bytes(relabelled, scope)
            continue
        with pytest.raises(CipherRefused):
            await encryption.decrypt_bytes(relabelled, scope)


@pytest.mark.scenario("encryption", 20)
async def test_a_cipher_under_another_prefix_is_refused(encryption: Encryption) -> None:
    for family, other in itertools.permutations(FAMILIES, 2):
        cipher = await encryption.encrypt("secret", FULL, family=family)
        assert isinstance(cipher, str)
        with pytest.raises(CipherRefused):
            await encryption.decrypt(cipher.replace(f"::{family}::", f"::{other}::"), FULL)


@pytest.mark.scenario("encryption", 21)
async def test_moving_characters_between_ids_makes_another_scope(encryption: Encryption) -> None:
    one, other = Scope("a-b", "c"), Scope("a", "b-c")

    for mine, theirs in ((one, other), (other, one)):
        cipher = await encryption.encrypt("secret", mine)
        assert await encryption.decrypt(cipher, mine) == "secret"
        with pytest.raises(CipherRefused):
            await encryption.decrypt(cipher, theirs)


@given(
    st.lists(st.text(st.sampled_from("ab-:\xff"), min_size=1, max_size=4), min_size=2, max_size=2),
    st.lists(st.text(st.sampled_from("ab-:\xff"), min_size=1, max_size=4), min_size=2, max_size=2),
)
def test_no_two_scopes_have_the_same_bytes(one: list[str], other: list[str]) -> None:
    bytes_of = [
        found.encoded
        for ids in (one, other)
        if (found := cipher_scope("KBC::ProjectSecure::", Scope(*ids), STACK)) is not None
    ]

    assert (bytes_of[0] == bytes_of[1]) is (one == other)


@pytest.mark.scenario("encryption", 22)
async def test_normal_forms_of_one_id_are_two_scopes(encryption: Encryption) -> None:
    cipher = await encryption.encrypt("secret", Scope("caf\xe9", "1"))

    with pytest.raises(CipherRefused):
        await encryption.decrypt(cipher, Scope("cafe\u0301", "1"))


@pytest.mark.scenario("encryption", 23)
async def test_project_0_is_a_project(encryption: Encryption) -> None:
    cipher = await encryption.encrypt("secret", Scope("c", "0"))

    assert isinstance(cipher, str)
    assert cipher.startswith("KBC::ProjectSecure::")
    for scope in (Scope("c"), Scope("c", "1")):
        with pytest.raises(CipherRefused):
            await encryption.decrypt(cipher, scope)


L_VECTORS = VECTORS["proposed_local_v1"]["vectors"]


@pytest.mark.scenario("encryption", 12)
@pytest.mark.parametrize("vector", L_VECTORS, ids=lambda vector: vector["id"])
async def test_no_changed_bit_and_no_missing_end_goes_unnoticed(vector: dict[str, Any]) -> None:
    context = vector["context"]
    key = Key(
        vector["key_id"], datetime.now(UTC), "active", bytes.fromhex(vector["master_key_hex"])
    )
    encryption = Encryption(stack=context["stackId"], encryptors=[KeyRingProvider(KeyRing((key,)))])
    scope = Scope(
        context.get("componentId"),
        context.get("projectId"),
        context.get("configurationId"),
        context.get("branchType"),
    )
    prefix, body = split_cipher(vector["cipher"]) or ("", "")
    text = body.removeprefix("v1.")
    raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    flipped = (
        raw[:n] + bytes((raw[n] ^ 1 << bit,)) + raw[n + 1 :]
        for n in range(len(raw))
        for bit in range(8)
    )
    bodies = (base64.urlsafe_b64encode(each).decode().rstrip("=") for each in flipped)
    shortened = (body[:n] for n in range(len(body)))

    for each in itertools.chain((f"v1.{each}" for each in bodies), shortened):
        with pytest.raises(CipherRefused):
            await encryption.decrypt_bytes(prefix + each, scope)


@pytest.mark.scenario("encryption", 13)
@pytest.mark.parametrize("body", ["def50200" + "ab" * 100, "xy::def50200" + "ab" * 100])
async def test_a_relic_is_refused(body: str, encryption: Encryption) -> None:
    aws = Encryption(
        stack=STACK,
        encryptors=[KeyRingProvider(new_ring())],
        readers=[LegacyReader(None), services()["aws"][0]],
    )

    for each in (encryption, aws):
        with pytest.raises(CipherRefused, match=r"is not an encrypted value\.$"):
            await each.decrypt({"#x": f"KBC::Secure::{body}"}, FULL)


def any_reader() -> dict[str, Callable[[], CipherReader]]:
    return {
        "KBC::ProjectSecure::eJ": lambda: services()["aws"][0],
        "KBC::ProjectSecureKV::eJ": lambda: services()["azure"][0],
        "KBC::ProjectSecureGKMS::eJ": lambda: services()["google"][0],
        "KBC::ComponentEncrypted==": lambda: LegacyReader(b"k" * 16),
        "KBC::ProjectSecure::v1.": lambda: LegacyReader(None),
    }


@pytest.mark.scenario("encryption", 98)
@pytest.mark.parametrize("start", any_reader())
async def test_whatever_comes_after_a_prefix_is_refused_as_the_user_s(start: str) -> None:
    reader = any_reader()[start]()
    encryption = Encryption(stack=STACK, encryptors=[KeyRingProvider(new_ring())], readers=[reader])

    for body in garbage(2_000):
        with pytest.raises(CipherRefused):
            await encryption.decrypt_bytes(start + body, FULL)


def garbage(count: int) -> list[str]:
    """Random texts, random bytes in each base64, and random bytes that are well compressed."""
    import random  # noqa: PLC0415 - only here
    import zlib  # noqa: PLC0415

    chance = random.Random(7)
    pieces = [b'a:2:{i:0;s:2:"xx";i:1;s:1:"y";}', b"a:1:{", b"O:8:", b"R:1;", b's:-1:"', b"}"]
    texts: list[str] = []
    for _ in range(count // 4):
        raw = chance.randbytes(chance.randrange(200))
        mixed = b"".join(chance.choices(pieces, k=chance.randrange(6)))
        packed = base64.b64encode(zlib.compress(mixed)).decode()
        texts += [
            "".join(chance.choices("abz09+/=-_. \n\xe9:", k=chance.randrange(80))),
            base64.b64encode(raw).decode(),
            base64.urlsafe_b64encode(b"\1\1\1\7" + raw).decode().rstrip("="),
            packed.removeprefix("eJ"),
        ]
    return texts
