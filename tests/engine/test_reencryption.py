"""Making the ciphers of all that is stored anew (encryption.md section 10.4)."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import SecretStr
from tests.engine.encryption.test_vectors import STACK, VECTORS, aws, b64

from vaka import Engine, EngineConfig, JobSpec
from vaka.hooks import CipherReader, hookimpl
from vaka.models.ciphers import Scope
from vaka.models.reencryption import Cursor, ReencryptionReport
from vaka_keyring import ring

C = "docker-config-encrypt-verify"
HERE = ("1", C, "c")
CHANGED = "changed by somebody"


@hookimpl
def vaka_cipher_readers() -> Sequence[CipherReader]:
    known = [each["kms"] for each in VECTORS["envelope_aws_kms"]["vectors"]]
    return [aws(*known)]


AMAZON = SimpleNamespace(vaka_cipher_readers=vaka_cipher_readers)


def legacy() -> tuple[str, str]:
    """A cipher of the whole installation, and what it holds."""
    for each in VECTORS["legacy_encrypted"]["vectors"]:
        plain = b64(each["plaintext_b64"])
        if plain.isascii() and plain and each["key_version1"] == KEY_V1:
            return each["cipher"], plain.decode()
    raise LookupError


KEY_V1 = VECTORS["legacy_outcomes"]["key_version1_b64"]
LEGACY, LEGACY_PLAIN = legacy()
AWS, AWS_PLAIN = next(
    (each["cipher"], b64(each["plaintext_b64"]).decode())
    for each in VECTORS["envelope_aws_kms"]["vectors"]
    if each["prefix"] == "KBC::ComponentSecure::" and each["context"]["componentId"] == C
)


def config(home: Path) -> EngineConfig:
    return EngineConfig(
        home=home,
        worker=False,
        stack_id=STACK,
        legacy_key_version1=SecretStr(b64(KEY_V1).decode()),
    )


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[Engine]:
    """An engine whose ring got a second key after things were stored."""
    home = tmp_path / "home"
    home.mkdir()
    first = ring.new_ring("old")
    ring.write(home / "keys", first, create=True)
    async with Engine(config(home), plugins=[AMAZON]) as engine:
        await fill(engine)
    ring.write(home / "keys", first.added("new").activated("new"))
    async with Engine(config(home), plugins=[AMAZON]) as engine:
        yield engine


async def fill(engine: Engine) -> None:
    """Something of each kind that holds secrets."""
    catalog, sealed = engine.catalog, engine.encryption.encrypt
    own = {"#x": "own", "n": 1}
    await catalog.put_component(
        {
            "id": C,
            "type": "other",
            "name": C,
            "data": {"definition": {"type": "dockerhub", "uri": "worker"}},
        }
    )
    await catalog.create_configuration(
        "1",
        C,
        "c",
        config_id="c",
        configuration={
            "a": [{"#legacy": LEGACY}],
            "#aws": AWS,
            "#config": await sealed("bound", Scope(C, "1", "c")),
            "#branch": await sealed("bound", Scope(C, "1", None, "dev")),
            "#p": "{{ name }}",
            "#plain": "in the clear",
            "text": "KBC::ProjectSecure::is what it begins with",
            **await sealed(own, Scope(C, "1")),
        },
    )
    await catalog.create_row(*HERE, row_id="r", configuration=await sealed(own, Scope(C, "1")))
    for row in (None, "r"):
        state = {"component": await sealed(own, Scope(C, "1"))}
        await catalog.put_state(*HERE, row, state)
    await catalog.put_vault_variable(
        "1", "v", await sealed("vault", Scope(project="1")), is_encrypted=True
    )
    await catalog.put_oauth_credentials("1", C, "o", await sealed(own, Scope(C, "1")))
    await catalog.create_configuration("1", "keboola.variables", "v", config_id="v")
    await catalog.create_row(
        "1",
        "keboola.variables",
        "v",
        row_id="values",
        configuration={
            "values": [
                {"name": "used", "value": await sealed("of C", Scope(C, "1"))},
                {"name": "legacy", "value": LEGACY},
            ]
        },
    )
    await engine.submit(
        JobSpec(
            component=C,
            config_data=await sealed(own, Scope(C, "1")),
            token=SecretStr("a token of Storage"),
        )
    )


async def everything(engine: Engine) -> dict[str, Any]:
    """All documents that `fill` has made."""
    catalog = engine.catalog
    found = await catalog.configuration(*HERE)
    values = (await catalog.configuration("1", "keboola.variables", "v")).rows[0]
    (variable,) = await catalog.vault_variables("1")
    return {
        "config": found.configuration,
        "row": found.rows[0].configuration,
        "state": (await catalog.state(*HERE)).value,
        "row state": (await catalog.state(*HERE, "r")).value,
        "vault": variable.value,
        "oauth": await catalog.oauth_credentials("1", C, "o"),
        "variables": values.configuration,
        "job": (await engine.job(1)).record.spec["config_data"],
        "token": await engine.services.store.token(1),
    }


async def opened(engine: Engine, documents: Mapping[str, Any]) -> dict[str, Any]:
    """The same with what is secret in it as text, as far as it can be read where it is used."""
    scope = Scope(C, "1", "c", "dev")
    plain = {key: value for key, value in documents["config"].items() if key != "#plain"}
    values = documents["variables"]["values"]
    return {
        **{
            name: await engine.encryption.decrypt(value, scope)
            for name, value in {**documents, "config": plain}.items()
        },
        "variables": [await engine.encryption.decrypt(each["value"], scope) for each in values],
    }


def outdated(report: ReencryptionReport) -> dict[tuple[str, str, str | None], int]:
    return {
        (each.origin.prefix, each.origin.provider, each.origin.key_id): each.outdated
        for each in report.counts
        if each.outdated
    }


@pytest.mark.scenario("encryption", 86)
async def test_all_ciphers_are_made_anew_and_a_second_pass_finds_none(engine: Engine) -> None:
    before = await everything(engine)
    meaning = await opened(engine, before)

    planned = await engine.reencrypt(dry_run=True)

    assert await everything(engine) == before
    assert planned.changed == 0
    assert planned.left == ()
    assert outdated(planned) == {
        ("KBC::Encrypted==", "legacy", None): 2,
        ("KBC::ComponentSecure::", "aws-kms", None): 1,
        ("KBC::ConfigSecure::", "keyring", "old"): 1,
        ("KBC::BranchTypeSecure::", "keyring", "old"): 1,
        ("KBC::ProjectSecure::", "keyring", "old"): 7,
        ("KBC::ProjectWideSecure::", "keyring", "old"): 2,
    }
    done = await engine.reencrypt(dry_run=False)
    assert (done.changed, done.left) == (planned.outdated, ())
    assert outdated(done) == outdated(planned)
    after = await everything(engine)
    assert await opened(engine, after) == meaning
    assert all(value != before[name] for name, value in after.items())
    stored = after["config"]
    assert stored["a"][0]["#legacy"].startswith("KBC::ProjectSecure::v1.")
    assert stored["#aws"].startswith("KBC::ComponentSecure::v1.")
    assert stored["#config"].startswith("KBC::ConfigSecure::v1.")
    assert stored["#branch"].startswith("KBC::BranchTypeSecure::v1.")
    assert (stored["#p"], stored["#plain"]) == ("{{ name }}", "in the clear")
    assert stored["text"] == before["config"]["text"]
    used, old = after["variables"]["values"]
    assert used["value"].startswith("KBC::ProjectSecure::v1.")
    assert old["value"].startswith("KBC::ProjectWideSecure::v1.")
    assert "Encrypted==" not in json.dumps(after)
    again = await engine.reencrypt(dry_run=False)
    assert (again.outdated, again.changed, outdated(again)) == (0, 0, {})
    assert await everything(engine) == after
    assert again.key_values("keyring", "old") == 0


@pytest.mark.scenario("encryption", 86)
async def test_who_edits_meanwhile_is_not_overwritten(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalog = engine.catalog
    edits = {"update_configuration": 0, "update_row": 0, "put_state": 0}

    def edited(name: str) -> Any:
        original = getattr(catalog, name)

        async def call(*given: Any, **options: Any) -> Any:
            if given[1] == C and not edits[name]:
                edits[name] += 1
                if name == "put_state":
                    found = await catalog.state(*given[:4])
                    value = {"component": {**found.value["component"], "by": CHANGED}}
                    await original(*given[:4], value)
                else:
                    await original(*given[:-1], {"description": CHANGED})
            return await original(*given, **options)

        return call

    for name in edits:
        monkeypatch.setattr(catalog, name, edited(name))

    report = await engine.reencrypt(dry_run=False)

    assert set(edits.values()) == {1}
    assert report.left == ()
    found = await catalog.configuration(*HERE)
    assert (found.description, found.rows[0].description) == (CHANGED, CHANGED)
    assert (await catalog.state(*HERE)).value["component"]["by"] == CHANGED
    assert outdated(await engine.reencrypt(dry_run=True)) == {}


async def test_a_document_that_always_changes_is_told(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    original: Any = engine.catalog.update_configuration
    count = 0

    async def restless(*given: Any, **options: Any) -> Any:
        nonlocal count
        count += 1
        await original(*given[:-1], {"description": f"{CHANGED} {count}"})
        return await original(*given, **options)

    monkeypatch.setattr(engine.catalog, "update_configuration", restless)

    report = await engine.reencrypt(dry_run=False)

    (left,) = report.left
    assert "configuration c" in left.document
    assert "being changed all the time" in left.reason
    assert (await engine.catalog.configuration(*HERE)).description == f"{CHANGED} {count}"


@pytest.mark.scenario("encryption", 87)
@pytest.mark.parametrize("after", range(1, 15))
async def test_a_pass_that_was_interrupted_goes_on(engine: Engine, after: int) -> None:
    before = await everything(engine)
    cursors: list[Cursor] = []

    class PowerCut(Exception):
        pass

    def note(cursor: Cursor) -> None:
        cursors.append(cursor)
        if len(cursors) == after:
            raise PowerCut

    with pytest.raises(PowerCut):
        await engine.reencrypt(dry_run=False, on_document=note)
    for name, value in (await everything(engine)).items():
        report = json.dumps(value)
        old = [text for text in ciphers(before[name]) if text in report]
        assert old in ([], ciphers(before[name])), name  # all of a document, or nothing of it

    rest: list[Cursor] = []
    done = await engine.reencrypt(dry_run=False, after=cursors[-1], on_document=rest.append)

    assert cursors == sorted(cursors)
    assert rest == sorted(rest)
    assert not rest or rest[0] > cursors[-1]
    assert done.left == ()
    assert outdated(await engine.reencrypt(dry_run=True)) == {}
    assert await opened(engine, await everything(engine)) == await opened(engine, before)


def ciphers(value: Any) -> list[str]:
    """All ciphers in a document."""
    match value:
        case str():
            return [value] if value.startswith("KBC::") and "is what" not in value else []
        case dict():
            return [text for each in value.values() for text in ciphers(each)]
        case list():
            return [text for each in value for text in ciphers(each)]
    return []


async def test_a_document_with_something_unreadable_is_left_whole_and_named(engine: Engine) -> None:
    found = await engine.catalog.configuration(*HERE)
    content = {**found.configuration, "deep": [{"#broken": "KBC::Secure::x"}]}
    await engine.catalog.update_configuration(*HERE, {"configuration": content})

    report = await engine.reencrypt(dry_run=False)

    assert [each.path for each in report.left] == ["deep[0].#broken"]
    assert (await engine.catalog.configuration(*HERE)).configuration == content
    assert report.key_values("keyring", "old") > 0
    assert outdated(await engine.reencrypt(dry_run=True)).keys() >= {
        ("KBC::Secure::", "unknown", None)
    }


async def test_branches_have_their_own_made_anew_and_share_the_rest(engine: Engine) -> None:
    catalog = engine.catalog
    branch = (await catalog.create_branch("1", "mine")).id
    sealed = await engine.encryption.encrypt({"#x": "mine"}, Scope(C, "1"))
    await catalog.create_configuration(
        "1", C, "own", config_id="own", configuration=sealed, branch=branch
    )
    await catalog.put_state("1", C, "c", None, {"component": sealed}, branch=branch)
    keys = ring.read(engine.config.home / "keys").added("third").activated("third")
    ring.write(engine.config.home / "keys", keys)
    async with Engine(
        config(engine.config.home).model_copy(update={"store_url": None}), plugins=[AMAZON]
    ) as other:
        report = await other.reencrypt(dry_run=False)
        versions = [each.version for each in await catalog.configuration_versions(*HERE)]

        assert report.left == ()
        assert (await catalog.configuration(*HERE, branch=branch)).version == max(versions)
        assert outdated(await other.reencrypt(dry_run=True)) == {}
        own = await catalog.configuration("1", C, "own", branch=branch)
        state = await catalog.state("1", C, "c", branch=branch)
        for found in (own.configuration, state.value["component"]):
            assert found != sealed
            assert await other.encryption.decrypt(found, Scope(C, "1")) == {"#x": "mine"}


async def test_what_is_in_the_trash_is_named(engine: Engine) -> None:
    await engine.catalog.delete_configuration(*HERE)

    report = await engine.reencrypt(dry_run=False)

    trashed = [each for each in report.left if "in the trash" in each.document]
    assert trashed
    assert all("restore it, or delete it" in each.reason for each in trashed)
    assert report.key_values("keyring", "old") > 0
