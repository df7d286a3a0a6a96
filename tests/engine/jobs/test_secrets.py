"""Secrets of a job: ciphers wherever something is stored, in the clear only for a container."""

from __future__ import annotations

import base64
import json
import os
import threading
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trio
from pydantic import SecretStr
from tests.engine.conftest import MakeEngine
from tests.engine.jobs.project import Project, Ran
from tests.keys import keys_of, sealed
from trio.testing import MockClock

from vaka import Engine, JobSpec, Mode, Status
from vaka.errors import ApplicationError, Conflict, InvalidInput
from vaka.hooks import Encryptor, hookimpl
from vaka.masking import Masker
from vaka.models.ciphers import (
    FAMILIES,
    LEGACY_PREFIXES,
    CipherScope,
    Scope,
    cipher_scope,
    is_cipher,
)
from vaka.models.job import CauseKind
from vaka.testing import FakeHost, Printed
from vaka_legacy.defuse import seal_v1
from vaka_legacy.readers import LegacyReader

STACK = "vaka.test"
LEGACY_KEY = "0123456789abcdef-and-more"
TOKEN = SecretStr("1-2-a-token-of-storage")
ASKS: dict[str, Any] = {"token": TOKEN, "token_id": "7"}


def parameters(project: Project, index: int = -1) -> Any:
    """What a container was given under `parameters`."""
    return document(project, index)["parameters"]


def document(project: Project, index: int = -1) -> Any:
    return json.loads(project.seen[index].files["config.json"])


def kept(engine: Engine) -> str:
    """Every byte that the engine has on disk, as text."""
    found = []
    # a job's folder goes after its end is told, and may be going now: `os.walk` steps over that
    for where, _, names in os.walk(engine.config.home):
        for name in names:
            with suppress(FileNotFoundError):
                found.append((Path(where) / name).read_bytes().decode("utf-8", "replace"))
    return "\n".join(found)


def refused(ran: Ran) -> str:
    """The words of a job that was refused before anything ran."""
    assert (ran.outcome.status, ran.outcome.error) == (Status.ERROR, "user"), ran.outcome
    assert not any(event.kind.startswith("stage.") for event in ran.events)
    return ran.outcome.message


async def opened(project: Project, value: Any, scope: Scope) -> Any:
    return await project.engine.encryption.decrypt(value, scope)


# -- creation --------------------------------------------------------------------------------------


@pytest.mark.scenario("encryption", 63)
@pytest.mark.scenario("encryption", 64)
@pytest.mark.scenario("runner", 14)
@pytest.mark.scenario("runner", 15)
async def test_a_job_is_stored_with_ciphers_and_its_container_sees_what_they_hold(
    project: Project, clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    await project.component("x", output=(Printed(b"of hunter-2-hunter\n"),))
    given = (await project.sealed({"#known": "other-3-other"}, "x"))["#known"]
    assert given.startswith("KBC::ProjectSecure::")
    component_only = await project.engine.encryption.encrypt({"#": "third-4-third"}, Scope("x"))
    config = {
        "parameters": {"#foo": "hunter-2-hunter", "#known": given, "#own": component_only["#"]}
    }
    values = {"values": [{"name": "a", "value": "b"}]}
    ran = await project.run("x", config_data=config, variable_values_data=values)
    stored = ran.job.record.spec["config_data"]["parameters"]
    assert stored["#foo"].startswith("KBC::ProjectSecure::v1.")
    assert await opened(project, stored["#foo"], Scope("x", "1")) == "hunter-2-hunter"
    assert (stored["#known"], stored["#own"]) == (given, component_only["#"])
    assert parameters(project) == {
        "#foo": "hunter-2-hunter",
        "#known": "other-3-other",
        "#own": "third-4-third",
    }
    assert "of [hidden]" in ran.told
    listed = repr(await project.engine.services.store.job(ran.job.id))
    for text in (listed, str(ran.events), caplog.text, kept(project.engine)):
        assert "hunter-2-hunter" not in text
        assert "third-4-third" not in text


@pytest.mark.scenario("encryption", 28)
async def test_what_stands_in_a_list_stays_as_it_is_and_is_named(
    project: Project, clock: MockClock
) -> None:
    await project.component("x")
    ran = await project.run("x", config_data={"parameters": {"#list": ["a", "b"], "#x": "c"}})
    assert parameters(project)["#list"] == ["a", "b"]
    (warning,) = [event for event in ran.events if "is not encrypted" in event.message]
    assert warning.level == "warn"
    assert "parameters.#list[0], parameters.#list[1]." in warning.message


async def test_without_keys_a_secret_in_the_clear_is_refused_and_nothing_is_stored(
    make_engine: MakeEngine, host: FakeHost, clock: MockClock, tmp_path: Path
) -> None:
    async with make_engine(key_ring_document=None) as engine:
        project = Project(engine, host, tmp_path)
        await project.component("x")
        for body, path in (
            ({"config_data": {"p": [{"#a": "hunter-2"}]}}, "configData.p[0].#a"),
            ({"variable_values_data": {"#a": 12}}, "variableValuesData.#a"),
            ({"row": {"#a": True}}, "row.#a"),
        ):
            with pytest.raises(InvalidInput) as caught:
                await engine.submit(JobSpec(component="x", config="c", **body))
            assert caught.value.path == path
            assert caught.value.message == (
                f"The value of '{path}' must be encrypted before it is stored, and this "
                "installation has no keys. Make a key ring with `vaka keys init`, and start the "
                "service again."
            )
        harmless = {"parameters": {"#a": None, "#b": {"c": "d"}, "#e": ["f"], "g": "#h"}}
        ran = await project.run("x", config_data=harmless)
        assert ran.outcome.status is Status.SUCCESS
        assert await engine.services.store.counts() == {
            **dict.fromkeys(Status, 0),
            Status.SUCCESS: 1,
        }
        assert "hunter-2" not in kept(engine)


async def test_a_key_provider_that_does_not_answer_lets_no_job_be_stored(
    make_engine: MakeEngine, host: FakeHost, clock: MockClock, tmp_path: Path
) -> None:
    provider = Provider()
    async with make_engine(provider.plugin, key_ring_document=None) as engine:
        project = Project(engine, host, tmp_path)
        await project.component("x")
        provider.error = ApplicationError("The vault is sealed.")
        with pytest.raises(ApplicationError, match=r"^Encryption failed: Ciphering failed"):
            await engine.submit(JobSpec(component="x", config_data={"#a": "hunter-2"}))
        assert (await engine.services.store.counts())[Status.WAITING] == 0
        assert "hunter-2" not in kept(engine)


async def test_a_repeated_request_is_known_although_its_ciphers_differ(
    project: Project, clock: MockClock
) -> None:
    await project.component("x")

    def asked(secret: str) -> JobSpec:
        data = {"parameters": {"#pin": secret}}
        return JobSpec(component="x", config_data=data, idempotency_key="k")

    first = await project.engine.submit(asked("1234"))
    again: list[int] = []

    async def repeat() -> None:
        again.append((await project.engine.submit(asked("1234"))).id)

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(repeat)
    assert set(again) == {first.id}
    with pytest.raises(Conflict):
        await project.engine.submit(asked("1235"))
    # what tells them apart is a cipher, too: a short secret could be guessed from a plain hash
    stored = await project.engine.services.store.request_hash("1", "k")
    assert stored is not None
    assert is_cipher(stored)


async def test_the_same_new_request_twice_at_once_is_one_job(
    project: Project, clock: MockClock
) -> None:
    await project.component("x")
    spec = JobSpec(component="x", config_data={"#a": "secret"}, idempotency_key="k")
    made: list[int] = []

    async def submit() -> None:
        made.append((await project.engine.submit(spec)).id)

    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(submit)
    assert len(made) == 5
    assert len(set(made)) == 1


async def test_a_plugin_says_in_which_family_the_engine_encrypts(
    make_engine: MakeEngine, host: FakeHost, clock: MockClock, tmp_path: Path
) -> None:
    @hookimpl
    def vaka_scope_for(purpose: str) -> str | None:
        return {"job-config": "ProjectWideSecure", "state": "ComponentSecure"}.get(purpose)

    async with make_engine(SimpleNamespace(vaka_scope_for=vaka_scope_for)) as engine:
        project = Project(engine, host, tmp_path)
        await project.component("x", {"out/state.json": '{"#s": "left"}'})
        await project.configuration("x")
        ran = await project.run("x", config="c", config_data={"#a": 1, "parameters": {}})
        assert ran.job.record.spec["config_data"]["#a"].startswith("KBC::ProjectWideSecure::")
        await project.run("x", config="c")
        left = (await project.state("x")).value["component"]["#s"]
    assert left.startswith("KBC::ComponentSecure::")


# -- the token -------------------------------------------------------------------------------------


async def test_a_job_with_a_token_outlives_its_engine_and_the_token_goes_with_the_job(
    make_engine: MakeEngine, host: FakeHost, clock: MockClock, tmp_path: Path
) -> None:
    asks = {"forward_token": True}
    secret = TOKEN.get_secret_value()
    async with make_engine(shutdown="adopt") as engine:
        project = Project(engine, host, tmp_path)
        output = (Printed(f"with {secret}\n".encode(), at=20),)
        await project.component("x", data=asks, seconds=30, output=output)
        await project.component("after", data=asks)
        chain = {"after": [{"definition": {"component": "after"}}]}
        job = await engine.submit(JobSpec(component="x", config_data={"processors": chain}, **ASKS))
        cipher = await engine.services.store.token(job.id)
        assert cipher is not None
        assert cipher.startswith("KBC::ProjectWideSecure::")
        assert engine.services.tokens == {}
        await trio.sleep(10)
        assert secret not in kept(engine)
    async with make_engine() as engine:
        project.engine = engine
        ran = await project.ended(await engine.job(job.id))
        assert ran.outcome.status is Status.SUCCESS, ran.outcome
        assert [seen.environment.get("KBC_TOKEN") for seen in project.seen] == [secret, secret]
        assert "with [hidden]" in ran.told
        assert await engine.services.store.token(job.id) is None
        assert secret not in kept(engine)


# -- running ---------------------------------------------------------------------------------------


@pytest.mark.scenario("encryption", 65)
@pytest.mark.scenario("encryption", 93)
async def test_all_families_may_be_mixed_and_old_ones_are_named_once(
    make_engine: MakeEngine, host: FakeHost, clock: MockClock, tmp_path: Path
) -> None:
    scope = Scope("x", "1", "c", "default")
    config: dict[str, str] = {}
    for family in FAMILIES:
        value = await keys_of("localhost").encrypt({"#": f"of {family}"}, scope, family=family)
        config[f"#{family}"] = value["#"]
    old = old_ciphers("x", "1")
    async with make_engine(legacy_key_version1=SecretStr(LEGACY_KEY)) as engine:
        project = Project(engine, host, tmp_path)
        await project.component("x")
        stored = {"parameters": {**config, **old}}
        await project.configuration("x", stored, rows={"r": {}, "s": {}})
        ran = await project.run("x", config="c")
        assert ran.outcome.status is Status.SUCCESS, ran.outcome
        for index in range(2):
            assert parameters(project, index) == {
                **{f"#{family}": f"of {family}" for family in FAMILIES},
                **{f"#old{n}": f"old secret {n}" for n in range(3)},
            }
    (warning,) = [event for event in ran.events if "of an old kind" in event.message]
    assert warning.level == "warn"
    assert "parameters.#old0, parameters.#old1, parameters.#old2." in warning.message
    async with make_engine() as engine:  # without their key
        project.engine = engine
        known = await engine.submit(JobSpec(component="x", config_data={"parameters": old}))
        assert known.record.spec["config_data"]["parameters"] == old
        ran = await project.ended(known)
        assert refused(ran).startswith(
            "Encryption error: Invalid cipher text for key #old0 Value KBC::Encrypted=="
        )


def old_ciphers(component: str, project: str) -> dict[str, str]:
    """A cipher of each kind that is read and never written."""
    reader, found = LegacyReader(LEGACY_KEY.encode()), {}
    for n, prefix in enumerate(LEGACY_PREFIXES):
        scope = cipher_scope(prefix, Scope(component, project), "any")
        assert scope is not None
        data = seal_v1(f"old secret {n}".encode(), reader.key(scope), os.urandom(16))
        found[f"#old{n}"] = prefix + base64.b64encode(data).decode()
    return found


@pytest.mark.scenario("encryption", 66)
@pytest.mark.scenario("runner", 209)
async def test_a_row_overrides_what_was_encrypted_for_the_configuration(
    project: Project, clock: MockClock
) -> None:
    await project.component("x")
    scope = Scope("x", "1", "c", "default")
    rows = {}
    for family in FAMILIES:
        value = {"parameters": {"#a": f"row {family}"}}
        rows[family] = await keys_of(STACK).encrypt(value, scope, family=family)
    base = await project.sealed({"parameters": {"#a": "configuration", "#b": "both"}}, "x")
    await project.configuration("x", base, rows=rows)
    ran = await project.run("x", config="c")
    assert ran.outcome.status is Status.SUCCESS, ran.outcome
    assert [parameters(project, n) for n in range(len(rows))] == [
        {"#a": f"row {family}", "#b": "both"} for family in rows
    ]


@pytest.mark.scenario("encryption", 74)
@pytest.mark.scenario("runner", 96)
async def test_the_first_bad_cipher_is_told_and_all_of_them_are_named(
    project: Project, clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    await project.component("x")
    other = await sealed({"#": "theirs"}, "x", "2", stack=STACK)
    config = {
        "parameters": {"#a": other["#"], "deep": [{"#b": "hunter-2-plain"}], "#fine": ""},
        "processors": {"before": [{"definition": {"component": "nobody"}}]},
    }
    await project.configuration("x", config)
    await project.set_state("x", {"component": {"#c": "KBC::ProjectSecure::v1.AAAA", "d": 1}})
    ran = await project.run("x", config="c")
    shown = other["#"][: len("KBC::ProjectSecure::") + 12]
    assert refused(ran) == (
        f"Encryption error: Invalid cipher text for key #a Value {shown}… is not an encrypted value."
    )
    cause = (await ran.job.refresh()).cause
    assert cause is not None
    assert cause.kind is CauseKind.CONFIGURATION
    assert cause.evidence["paths"] == [
        "parameters.#a",
        "parameters.deep[0].#b",
        "state.component.#c",
    ]
    assert project.host.created == []
    for text in (repr(ran.job.record), str(ran.events), caplog.text):
        assert "hunter-2-plain" not in text


@pytest.mark.scenario("encryption", 75)
async def test_a_bad_cipher_matters_only_in_a_row_that_runs(
    project: Project, clock: MockClock
) -> None:
    await project.component("x")
    bad = {"parameters": {"#a": "KBC::ProjectSecure::v1.AAAA"}}
    fine = await project.sealed({"parameters": {"#a": "fine"}}, "x")
    await project.configuration(
        "x", {}, rows={"one": fine, "off": bad, "two": fine}, disabled=("off",)
    )
    ran = await project.run("x", config="c")
    assert ran.outcome.status is Status.SUCCESS, ran.outcome
    assert [parameters(project, n) for n in range(2)] == [{"#a": "fine"}] * 2
    assert (await project.run("x", config="c", rows=("one",))).outcome.status is Status.SUCCESS
    assert refused(await project.run("x", config="c", row="off")).startswith("Encryption error: ")


@pytest.mark.scenario("encryption", 72)
@pytest.mark.scenario("runner", 164)
@pytest.mark.scenario("mapping", 56)
async def test_each_image_is_given_its_own_parameters_opened_as_its_own(
    project: Project, clock: MockClock
) -> None:
    output = (Printed(b"vendor-secret and processor-secret\n"),)
    main = await keys_of(STACK).encrypt({"#v": "vendor-secret", "host": "h"}, Scope("x"))
    own = await keys_of(STACK).encrypt({"#p": "processor-secret"}, Scope("p"))
    assert main["#v"].startswith("KBC::ComponentSecure::")
    await project.component("x", data={"image_parameters": main}, output=output)
    await project.component("p", data={"image_parameters": own}, output=output)
    chain = {"before": [{"definition": {"component": "p"}, "parameters": {"#mine": "pm-secret"}}]}
    config = {"image_parameters": {"host": "evil", "#x": "mine"}, "processors": chain}
    ran = await project.run("x", config_data=config)
    assert ran.outcome.status is Status.SUCCESS, ran.outcome
    processor, component = (document(project, n) for n in range(2))
    assert processor["image_parameters"] == {"#p": "processor-secret"}
    assert processor["parameters"] == {"#mine": "pm-secret"}
    assert component["image_parameters"] == {"#v": "vendor-secret", "host": "h"}
    assert ran.told.count("[hidden] and [hidden]") == 2


@pytest.mark.scenario("encryption", 73)
async def test_threat_17_a_vendors_secret_cannot_be_pulled_into_a_configuration(
    project: Project, clock: MockClock
) -> None:
    await threatened_vendor(project)
    ran = await project.run("x", config_data={"parameters": {"#x": "vendor-secret"}})
    assert refused(ran) == (
        'Component secrets cannot be used in configurations (used in "parameters.#x"). Please contact '
        "support if you need further explanation."
    )


async def test_threat_18_a_vendors_cipher_pasted_by_a_user_is_no_way_around(
    project: Project, clock: MockClock
) -> None:
    cipher = await threatened_vendor(project)
    ran = await project.run("x", config_data={"parameters": {"deep": {"#mine": cipher}}})
    assert "Component secrets cannot be used" in refused(ran)
    await project.component("other")
    ran = await project.run("other", config_data={"parameters": {"#mine": cipher}})
    assert refused(ran).startswith(
        "Encryption error: Invalid cipher text for key #mine Value KBC::"
    )


async def threatened_vendor(project: Project) -> str:
    """Register a component with a secret of its vendor's; the cipher of it."""
    sealed_ones = await keys_of(STACK).encrypt({"#v": "vendor-secret"}, Scope("x"))
    await project.component("x", data={"image_parameters": sealed_ones})
    return str(sealed_ones["#v"])


async def test_threat_1_a_cipher_of_another_place_is_refused_in_every_family(
    project: Project, clock: MockClock
) -> None:
    await project.component("x")
    await project.configuration("x")
    here = Scope("x", "1", "c", "default")
    elsewhere = {
        "componentId": Scope("y", "1", "c", "default"),
        "projectId": Scope("x", "2", "c", "default"),
        "configurationId": Scope("x", "1", "d", "default"),
        "branchType": Scope("x", "1", "c", "dev"),
    }
    cases = {}
    for family, bound in FAMILIES.items():
        for name, other in elsewhere.items():
            scope = other if name in bound else here
            value = await keys_of(STACK).encrypt({"#": "s"}, scope, family=family)
            cases[f"{family} {name}"] = (value["#"], name not in bound)
    stacks = await keys_of("another.stack").encrypt({"#": "s"}, here, family="Secure")
    cases["Secure stackId"] = (stacks["#"], False)
    failing = {f"#{name}": value for name, (value, fine) in cases.items() if not fine}
    await project.engine.catalog.update_configuration(
        "1",
        "x",
        "c",
        {"configuration": {"parameters": {f"#{k}": v for k, (v, _) in cases.items()}}},
    )
    ran = await project.run("x", config="c")
    refused(ran)
    cause = (await ran.job.refresh()).cause
    assert cause is not None
    assert cause.evidence["paths"] == [f"parameters.{name}" for name in failing]


async def test_threat_21_what_a_variable_brings_is_read_by_the_ordinary_rules(
    project: Project, clock: MockClock
) -> None:
    await project.component("x")
    wide = await sealed({"#": "wide secret"}, None, stack=STACK)
    foreign = await sealed({"#": "foreign"}, "y", stack=STACK)
    put = project.engine.catalog.put_vault_variable
    await put("1", "wide", wide["#"], is_encrypted=True)
    await put("1", "foreign", foreign["#"], is_encrypted=True)
    await put("1", "plain", "hunter-2-plain")
    config = {"parameters": {"#a": "{{ vault.wide }}", "b": "{{ vault.plain }}"}}
    ran = await project.run("x", config_data=config)
    assert parameters(project) == {"#a": "wide secret", "b": "hunter-2-plain"}
    assert ran.result["variables"] == [
        {"name": "vault.wide", "value": "[hidden]"},
        {"name": "vault.plain", "value": "hunter-2-plain"},
    ]
    journal = json.dumps(await project.engine.services.store.definitions(ran.job.id, 1))
    assert wide["#"] in journal
    assert "wide secret" not in journal
    for name in ("foreign", "plain"):
        row = {"parameters": {"#a": f"{{{{ vault.{name} }}}}"}}
        rows = {"r": row, "s": row}
        await project.configuration("x", {}, config_id=name, rows=rows)
        ran = await project.run("x", config=name, parallelism=2)
        assert refused(ran).startswith("Encryption error: Invalid cipher text for key #a ")
        # what was put in the place of a secret and is none is not even in the journal
        journal = json.dumps(await project.engine.services.store.definitions(ran.job.id, 1))
        assert "hunter-2-plain" not in journal


async def test_the_fingerprint_of_an_inline_configuration_tells_nothing_of_its_secrets(
    project: Project, clock: MockClock
) -> None:
    await project.component("x")
    for pin in ("1234", "5678"):
        await project.run("x", config_data={"parameters": {"#pin": pin, "a": 1}})
    await project.run("x", config_data={"parameters": {"#pin": "1234", "a": 2}})
    first, second, third = (seen.environment["KBC_CONFIGID"] for seen in project.seen)
    assert first == second != third


# -- state -----------------------------------------------------------------------------------------


@pytest.mark.scenario("encryption", 67)
@pytest.mark.scenario("encryption", 68)
@pytest.mark.scenario("runner", 176)
async def test_state_is_stored_encrypted_and_found_again_in_the_clear(
    project: Project, clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    state = {"key": "fooBar", "#foo": "hunter-2-bar", "deep": [{"#key5": "hunter-5-five"}]}
    await project.component("x", {"out/state.json": json.dumps(state)}, output=(Printed(b"hi\n"),))
    await project.configuration("x")
    first = await project.run("x", config="c")
    stored = (await project.state("x")).value["component"]
    assert (stored["key"], list(stored)) == ("fooBar", ["key", "#foo", "deep"])
    assert stored["#foo"].startswith("KBC::ProjectSecure::")
    assert await opened(project, stored, Scope("x", "1")) == state
    (told,) = [
        vars(record)["reason"]
        for record in caplog.records
        if record.msg == "job.noted" and vars(record)["reason"].startswith("Storing state: ")
    ]
    assert stored["#foo"] in told
    journal = json.dumps(await project.engine.services.store.definitions(first.job.id, 1))
    second = await project.run("x", config="c")
    assert json.loads(project.seen[-1].files["in/state.json"]) == state
    for text in (caplog.text, journal, str(first.events), str(second.events), kept(project.engine)):
        assert "hunter-2-bar" not in text
        assert "hunter-5-five" not in text


@pytest.mark.scenario("encryption", 69)
async def test_a_protected_branch_does_not_share_its_state(
    project: Project, clock: MockClock
) -> None:
    engine = project.engine
    await engine.catalog.update_project("1", features=["protected-default-branch"])
    await project.component("x", {"out/state.json": '{"#foo": "left behind"}'})
    await project.configuration("x")
    ran = await project.run("x", config="c")
    assert ran.outcome.status is Status.SUCCESS, ran.outcome
    stored = (await project.state("x")).value
    assert stored["component"]["#foo"].startswith("KBC::BranchTypeSecure::")
    branch = await engine.catalog.create_branch("1", "dev")
    await engine.catalog.put_state("1", "x", "c", None, stored, branch=branch.id)
    ran = await project.run("x", config="c", branch=branch.id)
    assert refused(ran).startswith("Encryption error: Invalid cipher text for key #foo Value KBC::")
    inline = await project.run("x", config_data={"parameters": {"#a": "b"}}, branch=branch.id)
    assert inline.job.record.spec["config_data"]["parameters"]["#a"].startswith(
        "KBC::BranchTypeSecure::"
    )
    assert inline.outcome.status is Status.SUCCESS, inline.outcome


@pytest.mark.scenario("encryption", 70)
@pytest.mark.scenario("encryption", 71)
async def test_a_row_has_a_state_of_its_own_and_a_debug_job_writes_none(
    project: Project, clock: MockClock
) -> None:
    await project.component("x", {"out/state.json": '{"#foo": "left behind"}'})
    await project.configuration("x", {}, rows={"r": {}})
    debug = await project.run("x", config="c", mode=Mode.DEBUG)
    assert debug.outcome.status is Status.SUCCESS, debug.outcome
    assert (await project.state("x", "r")).version == 0
    await project.run("x", config="c")
    stored = (await project.state("x", "r")).value["component"]["#foo"]
    assert await opened(project, stored, Scope("x", "1")) == "left behind"
    assert (await project.state("x")).version == 0


async def test_a_cipher_that_a_component_copies_into_its_state_stays_as_it_is(
    project: Project, clock: MockClock
) -> None:
    copied = "KBC::ConfigSecure::v1.not-for-here"
    await project.component("x", {"out/state.json": json.dumps({"#a": copied})})
    await project.configuration("x")
    assert (await project.run("x", config="c")).outcome.status is Status.SUCCESS
    assert (await project.state("x")).value["component"] == {"#a": copied}


async def test_a_state_is_looked_through_in_a_thread_and_one_of_too_many_secrets_is_refused_first(
    project: Project, clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    where: list[bool] = []
    add = Masker.add

    def seen(masker: Masker, values: Iterable[str]) -> None:
        known = list(values)
        if any(value.startswith("of-the-state") for value in known):
            where.append(threading.current_thread() is threading.main_thread())
        add(masker, known)

    monkeypatch.setattr(Masker, "add", seen)
    few = [{"#a": f"of-the-state-{number}"} for number in range(10)]
    await project.component("few", {"out/state.json": json.dumps({"a": few})})
    await project.component("many", {"out/state.json": json.dumps({"a": few * 1_001})})

    assert (await project.run("few", config_data={})).outcome.status is Status.SUCCESS
    assert set(where) == {False}
    where.clear()
    ran = await project.run("many", config_data={})
    assert (ran.outcome.error, ran.outcome.message) == (
        "user",
        "The document has more than 10000 values to encrypt or decrypt.",
    )
    assert where == []


async def test_without_keys_a_state_with_secrets_is_refused_before_outputs_are_stored(
    make_engine: MakeEngine, host: FakeHost, clock: MockClock, tmp_path: Path
) -> None:
    async with make_engine(key_ring_document=None) as engine:
        project = Project(engine, host, tmp_path)
        writes = {"out/state.json": '{"a": {"#b": "hunter-2"}}', "out/tables/t.csv": "a\n1\n"}
        await project.component("x", writes)
        output = {"tables": [{"source": "t.csv", "destination": "in.c-main.t"}]}
        await project.configuration("x", {"storage": {"output": output}})
        ran = await project.run("x", config="c")
        assert (ran.outcome.error, ran.outcome.message) == (
            "user",
            "The component's state cannot be stored: the value of a.#b must be encrypted, and this "
            "installation has no keys. Make a key ring with `vaka keys init`, and start the service "
            "again.",
        )
        assert await project.tables() == []
        assert "hunter-2" not in kept(engine)
        debug = await project.run("x", config="c", mode=Mode.DEBUG)
        assert debug.outcome.status is Status.SUCCESS, debug.outcome


async def test_who_resumes_a_job_hides_what_the_component_told_the_engine_before(
    make_engine: MakeEngine, host: FakeHost, clock: MockClock, tmp_path: Path
) -> None:
    """The state is gone from the folder by then, and a processor may know it from elsewhere."""
    async with make_engine(shutdown="adopt") as engine:
        project = Project(engine, host, tmp_path)
        await project.component("x", {"out/state.json": '{"#s": "hunter-2-state"}'})
        output = (Printed(b"of hunter-2-state\n", at=20),)
        await project.component("after", seconds=30, output=output)
        chain = {"processors": {"after": [{"definition": {"component": "after"}}]}}
        await project.configuration("x", chain)
        job = await engine.submit(JobSpec(component="x", config="c"))
        await trio.sleep(10)
    async with make_engine() as engine:
        project.engine = engine
        ran = await project.ended(await engine.job(job.id))
        assert ran.outcome.status is Status.SUCCESS, ran.outcome
        assert "of [hidden]" in ran.told
        assert "hunter-2-state" not in kept(engine)


# -- what remains ----------------------------------------------------------------------------------


@pytest.mark.scenario("encryption", 77)
@pytest.mark.parametrize(
    ("status", "play"),
    [
        (Status.SUCCESS, {}),
        (Status.ERROR, {"exit_code": 1}),
        (Status.TERMINATED, {"seconds": 1_000}),
    ],
)
async def test_nothing_in_the_clear_remains_on_the_host(
    make_engine: MakeEngine,
    host: FakeHost,
    clock: MockClock,
    tmp_path: Path,
    status: Status,
    play: Mapping[str, Any],
) -> None:
    async with make_engine() as engine:
        project = Project(engine, host, tmp_path)
        await project.component("x", {"out/state.json": '{"#s": "hunter-3-state"}'}, **play)
        config = {"parameters": {"#a": "hunter-2-hunter"}}
        job = await engine.submit(JobSpec(component="x", config_data=config))
        if status is Status.TERMINATED:
            await trio.sleep(10)
            assert "hunter-2-hunter" in kept(engine)  # in the folder of the job
            await job.cancel()
        assert (await job.wait()).status is status
    assert list((engine.config.home / "jobs").iterdir()) == []
    for secret in ("hunter-2-hunter", "hunter-3-state"):
        assert secret not in kept(engine)


@pytest.mark.scenario("encryption", 94)
async def test_threat_7_nothing_that_is_written_is_of_an_old_kind(
    project: Project, clock: MockClock
) -> None:
    writes = {"out/state.json": '{"#s": "left"}'}
    await project.component("x", writes, data={"forward_token": True})
    await project.configuration("x", await project.sealed({"parameters": {"#a": "b"}}, "x"))
    await project.run("x", config="c", **ASKS)
    await project.run("x", config_data={"parameters": {"#a": "b"}}, mode=Mode.DEBUG, **ASKS)
    await project.run("x", config_data={"#a": "b"}, idempotency_key="k", **ASKS)
    on_disk = kept(project.engine)
    assert on_disk.count("KBC::ProjectSecure::v1.") > 3
    assert "Encrypted==" not in on_disk


async def test_threat_19_a_reversed_secret_is_not_looked_for(
    project: Project, clock: MockClock
) -> None:
    """The one form of the list that is not hidden, so that its documentation stays true."""
    secret = "hunter-2-hunter"
    await project.component("x", output=(Printed(f"{secret} {secret[::-1]}\n".encode()),))
    ran = await project.run("x", config_data={"parameters": {"#a": secret}})
    assert f"[hidden] {secret[::-1]}" in ran.told


async def test_threat_20_a_plain_secret_is_not_echoed_in_an_error(
    project: Project, clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    await project.component("x")
    await project.configuration("x", {"parameters": {"#password": "hunter-2-plain"}})
    ran = await project.run("x", config="c")
    assert refused(ran) == (
        "Encryption error: Invalid cipher text for key #password Value is not an encrypted value."
    )
    records = [str(vars(record)) for record in caplog.records]
    for text in (repr(await ran.job.refresh()), str(ran.events), *records):
        assert "hunter-2-plain" not in text


async def test_what_a_plugin_knows_of_a_secret_is_hidden_as_well(
    make_engine: MakeEngine, host: FakeHost, clock: MockClock, tmp_path: Path
) -> None:
    @hookimpl
    def vaka_secret_known(value: str) -> list[str]:
        return [value[::-1]]

    async with make_engine(SimpleNamespace(vaka_secret_known=vaka_secret_known)) as engine:
        project = Project(engine, host, tmp_path)
        await project.component("x", output=(Printed(b"retnuh-2-retnuh\n"),))
        ran = await project.run("x", config_data={"parameters": {"#a": "hunter-2-hunter"}})
    assert "[hidden]" in ran.told


# -- key providers that misbehave ------------------------------------------------------------------


class Provider(Encryptor):
    """A remote key provider that does what a test wants."""

    def __init__(self) -> None:
        self.unwrapped = 0
        self.answer: Any = None
        """What it gives for a data key, or the key itself when None."""
        self.error: Exception | None = None
        self.hangs_in: str | None = None
        self.hung = trio.Event()
        """It has been asked while it hangs."""

    @property
    def plugin(self) -> object:
        @hookimpl
        def vaka_encryptors() -> list[Encryptor]:
            return [self]

        return SimpleNamespace(vaka_encryptors=vaka_encryptors)

    @property
    def name(self) -> str:
        return "remote"

    @property
    def code(self) -> int:
        return 0xF1

    async def wrap(self, data_key: bytes, scope: CipherScope, header: bytes) -> tuple[str, bytes]:
        await self._misbehave("wrap")
        return "k", bytes(each ^ 0x55 for each in data_key)

    async def unwrap(self, key_id: str, wrapped: bytes, scope: CipherScope, header: bytes) -> bytes:
        self.unwrapped += 1
        await self._misbehave("unwrap")
        if self.answer is None:
            return bytes(each ^ 0x55 for each in wrapped)
        found: bytes = self.answer
        return found

    async def _misbehave(self, where: str) -> None:
        if where == self.hangs_in:
            self.hung.set()
            await trio.sleep_forever()
        if self.error is not None:
            raise self.error

    async def check(self) -> None:
        """It is always there."""


@pytest.mark.parametrize("answer", [bytes(32), bytes(31), b"", "text", None])
@pytest.mark.scenario("encryption", 90)
async def test_threat_25_a_provider_that_answers_with_another_key_breaks_nothing(
    make_engine: MakeEngine, host: FakeHost, clock: MockClock, tmp_path: Path, answer: Any
) -> None:
    provider = Provider()
    async with make_engine(provider.plugin, key_ring_document=None) as engine:
        project = Project(engine, host, tmp_path)
        await project.component("x")
        job = JobSpec(component="x", config_data={"parameters": {"#a": "hunter-2-hunter"}})
        provider.answer = answer
        ran = await project.ended(await engine.submit(job))
        if answer is None:
            assert parameters(project) == {"#a": "hunter-2-hunter"}
        elif isinstance(answer, bytes) and len(answer) == 32:
            assert refused(ran).startswith("Encryption error: Invalid cipher text for key #a Value")
        else:
            assert ran.outcome.error == "application"
            assert ran.outcome.message.startswith("Internal error occurred")
        assert (host.containers, list((engine.config.home / "jobs").glob("*"))) == ([], [])


@pytest.mark.scenario("encryption", 91)
async def test_threat_26_a_provider_that_hangs_holds_a_job_up_for_a_time_only(
    make_engine: MakeEngine, host: FakeHost, clock: MockClock, tmp_path: Path
) -> None:
    provider = Provider()
    async with make_engine(provider.plugin, key_ring_document=None) as engine:
        project = Project(engine, host, tmp_path)
        await project.component("x")
        job = JobSpec(component="x", config_data={"parameters": {"#a": "hunter-2-hunter"}})
        provider.hangs_in = "unwrap"
        began = trio.current_time()
        ran = await project.ended(await engine.submit(job))
        assert ran.outcome.error == "application"
        assert 119 < trio.current_time() - began < 130
        cancelled = await engine.submit(job)
        await trio.sleep(10)
        began = trio.current_time()
        await cancelled.cancel()
        ran = await project.ended(cancelled)
        assert ran.outcome.status is Status.TERMINATED
        assert trio.current_time() - began < 10
        assert (host.created, list((engine.config.home / "jobs").glob("*"))) == ([], [])
        # while a state is encrypted, too
        await project.component("y", {"out/state.json": '{"#s": "x"}'})
        await project.configuration("y")
        provider.hangs_in = "wrap"
        provider.hung = trio.Event()
        stopped = await engine.submit(JobSpec(component="y", config="c"))
        await provider.hung.wait()
        await stopped.cancel()
        ran = await project.ended(stopped)
        assert ran.outcome.status is Status.TERMINATED
        assert (await project.state("y")).version == 0
        assert (host.containers, list((engine.config.home / "jobs").glob("*"))) == ([], [])


async def test_a_wrapped_key_is_unwrapped_once_for_a_job(
    make_engine: MakeEngine, host: FakeHost, clock: MockClock, tmp_path: Path
) -> None:
    provider = Provider()
    async with make_engine(provider.plugin, key_ring_document=None) as engine:
        project = Project(engine, host, tmp_path)
        await project.component("x")
        value = (await project.sealed({"#": "s"}, "x"))["#"]
        config = {"parameters": {f"#{n}": value for n in range(200)}}
        await project.configuration("x", config, rows={"r": {}, "s": {}})
        ran = await project.run("x", config="c")
    assert ran.outcome.status is Status.SUCCESS, ran.outcome
    assert provider.unwrapped == 1
