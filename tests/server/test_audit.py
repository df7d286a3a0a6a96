"""The audit log: what is written down, by whom it can be read, and that nobody can change it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
import trio
from tests.server.conftest import COMPONENT, IMAGE, Site

from vaka.audit import MOST_DETAIL, AuditLog
from vaka.errors import StoreUnavailable
from vaka.models.audit import AuditEntry, AuditQuery
from vaka.models.ciphers import Scope
from vaka.store import JobStore
from vaka.testing import FakeImage, Printed, Script
from vaka_keyring import ring
from vaka_server.audit import MOST_REFUSED, WINDOW
from vaka_server.settings import Settings

TOKENS = "/v2/storage/tokens"
AUDIT = "/vaka/audit"


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """With keys, so that there are secrets."""
    settings.home.mkdir()
    ring.write(settings.home / "keys", ring.new_ring("first"), create=True)
    return settings


async def entries(site: Site, query: str = "") -> list[Any]:
    found: list[Any] = await site.get(f"{AUDIT}{query}")
    return found


async def test_what_admins_do_is_written_down(site: Site) -> None:
    made = (await site.ask("POST", TOKENS, {"description": "new", "role": "read"})).value
    path = f"{TOKENS}/{made['id']}"
    fresh = (await site.ask("POST", f"{path}/refresh")).value
    await site.ask("PUT", path, {"description": "changed"})
    await site.ask("DELETE", path)
    await site.ask("PUT", "/vaka/vault/password", {"value": "swordfish"})
    await site.ask("PUT", "/v2/storage/components/C", COMPONENT)
    refused = await site.ask("PUT", "/vaka/vault/a%00b", {"value": "x"})
    assert refused.status == 404
    found = await entries(site)
    assert [each["kind"] for each in found] == [
        "component.registered",
        "vault.set",
        "token.revoked",
        "token.changed",
        "token.refreshed",
        "token.created",
        "token.used",
    ]
    created = found[5]
    assert created["subject"] == {"token": made["id"]}
    assert created["detail"]["role"] == "read"
    assert created["token"]["description"] == "the admin"
    assert found[1]["subject"] == {"name": "password"}
    text = json.dumps(found)
    for secret in (made["token"], fresh["token"], site.tokens["admin"], "swordfish"):
        assert secret not in text
    of_token = await entries(site, f"?token={made['id']}")
    assert {each["kind"] for each in of_token} == {
        "token.created",
        "token.refreshed",
        "token.changed",
        "token.revoked",
    }
    newest, *_ = found
    assert [each["id"] for each in await entries(site, f"?before={newest['id']}&limit=1")] == [
        found[1]["id"]
    ]
    assert {each["kind"] for each in await entries(site, "?kind=vault")} == {"vault.set"}
    assert await entries(site, "?until=2020-01-01") == []


async def test_what_is_done_to_a_token_is_shown_as_its_events(site: Site) -> None:
    made = (await site.ask("POST", TOKENS, {"role": "read"})).value
    await site.get(f"{TOKENS}/verify", token=made["token"])
    events = await site.get(f"{TOKENS}/{made['id']}/events")
    assert [each["event"] for each in events] == ["storage.token.used", "storage.token.created"]
    assert events[1]["params"]["role"] == "read"
    assert (await site.ask("GET", f"{TOKENS}/999999/events")).status == 404


async def test_the_first_use_of_a_token_is_written_down_once(
    site: Site, settings: Settings
) -> None:
    for _ in range(3):
        await site.get(f"{TOKENS}/verify", token="read")
    site.app.witness._used.clear()  # as after a restart
    await site.get(f"{TOKENS}/verify", token="read")
    used = await entries(site, "?kind=token.used")
    assert [each["token"]["description"] for each in used].count("the read") == 1


async def test_refused_tokens_are_counted_and_not_all_written_down(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1_000.0
    monkeypatch.setattr("vaka_server.audit.trio.current_time", lambda: now)
    witness = site.app.witness
    for number in range(MOST_REFUSED * 3):
        await witness.refused(f"192.0.2.{number % (MOST_REFUSED * 2)}", "/v2/storage/tokens")
    now += WINDOW
    await witness.refused("192.0.2.1", "/x" * 1_000)
    found = await entries(site, "?kind=token.refused&all=1")
    assert len(found) == MOST_REFUSED + 1
    assert found[0]["detail"]["refusedBefore"] == MOST_REFUSED * 2
    assert len(found[0]["detail"]["path"]) == 200
    answer = await site.ask("GET", f"{TOKENS}/verify", token="1-1-wrong")
    assert answer.status == 401
    newest = (await entries(site, "?kind=token.refused&all=1"))[0]
    assert "1-1-wrong" not in json.dumps(newest)
    assert newest["project"] is None


async def test_projects_see_their_own_and_the_first_one_all(site: Site) -> None:
    await site.get(f"{TOKENS}/verify", token="other")
    assert all(each["project"] == "1" for each in await entries(site))
    everything = await entries(site, "?all=1")
    assert {each["project"] for each in everything} == {"1", "2"}
    other = await site.get(AUDIT, token="other")
    assert {each["project"] for each in other} == {"2"}
    assert (await site.ask("GET", f"{AUDIT}?all=1", token="other")).status == 403


async def test_a_project_is_made_with_its_first_token(site: Site) -> None:
    made = await site.ask("POST", "/vaka/projects", {"name": "Third", "features": ["x"]})
    assert (made.status, made.value["name"]) == (201, "Third")
    verified = await site.get(f"{TOKENS}/verify", token=made.value["token"])
    assert (verified["owner"]["id"], verified["isMasterToken"]) == (made.value["id"], True)
    assert verified["owner"]["features"][-1] == "x"
    names = [each["name"] for each in await site.get("/vaka/projects")]
    assert names[-2:] == ["Two", "Third"]
    assert (await site.ask("POST", "/vaka/projects", {})).status == 400
    assert (await site.ask("GET", "/vaka/projects", token="other")).status == 403
    (created,) = await entries(site, "?kind=project")
    assert created["subject"]["project"] == str(made.value["id"])
    assert made.value["token"] not in json.dumps(created)


async def test_the_use_of_secrets_is_written_down_by_their_names(site: Site) -> None:
    site.host.images[IMAGE] = FakeImage(Script((Printed(b"{}"),)))
    definition = {**COMPONENT["data"], "synchronous_actions": ["look"]}
    await site.engine.catalog.put_component({**COMPONENT, "data": definition})
    cipher = await site.engine.encryption.encrypt({"#password": "swordfish"}, Scope("C", "1"))
    body = {"configData": {"parameters": {"db": cipher, "plain": "x"}}}
    job = await site.finished(await site.run(body))
    assert job["status"] == "success", job
    acted = await site.ask("POST", "/C/action/look", body)
    assert acted.status == 200, acted
    await site.finished(await site.run({"configData": {"parameters": {"plain": "x"}}}))
    action, used = await entries(site, "?kind=secrets")
    assert used["subject"] == {"job": str(job["id"]), "component": "C"}
    assert used["detail"]["paths"] == ["parameters.db.#password"]
    assert used["token"]["description"] == "the admin"
    assert action["subject"] == {"action": "look", "component": "C"}
    assert action["detail"]["paths"] == ["parameters.db.#password"]
    assert "swordfish" not in json.dumps([action, used])


async def test_the_log_cannot_be_changed(tmp_path: Path, fresh_database: str) -> None:
    for url in (f"sqlite:///{tmp_path / 'store.db'}", fresh_database):
        async with JobStore(url) as store:
            await AuditLog(store).record(AuditEntry("token.created", "1", subject={"token": "1"}))
        engine = sa.create_engine(url)
        for statement in ("UPDATE audit SET kind = 'other'", "DELETE FROM audit"):
            with pytest.raises(sa.exc.DBAPIError, match="only added to"), engine.begin() as by:
                by.execute(sa.text(statement))
        engine.dispose()
        async with JobStore(url) as store:
            (kept,) = await AuditLog(store).entries(AuditQuery())
        assert (kept.kind, kept.subject) == ("token.created", {"token": "1"})


async def test_an_entry_has_bounds(tmp_path: Path) -> None:
    async with JobStore(f"sqlite:///{tmp_path / 'store.db'}") as store:
        log = AuditLog(store)
        await log.record(
            AuditEntry(
                "token.created",
                token_description="d" * 10_000,
                subject={"token": "\0" + "t" * 10_000},
                detail={"all": ["x" * 100] * MOST_DETAIL},
            )
        )
        (kept,) = await log.entries(AuditQuery())
    assert len(json.dumps([kept.token_description, kept.subject, kept.detail])) < 1_000
    with pytest.raises(StoreUnavailable):
        await log.record(AuditEntry("token.created"))
    assert trio.current_time() > 0
