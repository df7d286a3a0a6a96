"""What the embedded catalog does beyond the contract: secrets, times, other processes."""

# ruff: noqa: ASYNC240 - small files

from __future__ import annotations

import json
import re
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from tests.plugins.vaka_local.conftest import Clock

from vaka.errors import ApplicationError, AuthenticationFailed
from vaka.models.catalog import Role, State
from vaka.models.ulid import new_ulid
from vaka_local.catalog import LocalCatalog
from vaka_local.jsontext import from_text, to_text
from vaka_local.storage import LocalStorage


async def test_the_first_project_is_number_one(catalog: LocalCatalog) -> None:
    assert (await catalog.create_project("a")).id == "1"
    assert (await catalog.create_project("b")).id == "2"


async def test_a_secret_has_the_customary_shape_and_is_kept_nowhere(
    catalog: LocalCatalog, home: Path
) -> None:
    project = await catalog.create_project("a")
    token, secret = await catalog.create_token(project.id, "", Role.ADMIN)

    assert re.fullmatch(rf"{project.id}-{token.id}-[A-Za-z0-9]{{40}}", secret)
    await catalog.verify_token(secret)
    await catalog.aclose()
    stored = b"".join(path.read_bytes() for path in home.iterdir())
    for start in range(0, 40, 8):
        assert secret[-40:][start : start + 8].encode() not in stored


async def test_a_token_expires_by_the_clock(catalog: LocalCatalog, clock: Clock) -> None:
    project = await catalog.create_project("a")
    expires = clock.now.replace(minute=0)
    clock.now = expires.replace(hour=1)
    token, secret = await catalog.create_token(project.id, "", Role.READ, expires=expires)
    assert await catalog.verify_token(secret) == token

    clock.now = expires

    with pytest.raises(AuthenticationFailed):
        await catalog.verify_token(secret)


async def test_what_another_process_changes_is_seen_at_once(
    catalog: LocalCatalog, home: Path, clock: Clock
) -> None:
    project = await catalog.create_project("a")
    token, secret = await catalog.create_token(project.id, "", Role.ADMIN)
    await catalog.verify_token(secret)
    other = LocalCatalog(home, clock=clock)
    await other.open()
    assert await other.verify_token(secret) == token

    await other.revoke_token(project.id, token.id)

    with pytest.raises(AuthenticationFailed):
        await catalog.verify_token(secret)
    await other.aclose()


async def test_a_known_token_is_verified_without_asking_the_database(
    catalog: LocalCatalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = await catalog.create_project("a")
    token, secret = await catalog.create_token(project.id, "", Role.ADMIN)
    await catalog.verify_token(secret)

    async def never(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr(catalog._database, "read", never)

    assert await catalog.verify_token(secret) == token


async def test_what_is_stored_is_there_after_closing(home: Path, clock: Clock) -> None:
    first = LocalCatalog(home, clock=clock)
    await first.open()
    project = await first.create_project("a", features=["x"])
    token, secret = await first.create_token(project.id, "t", Role.RUN)
    await first.put_component({"id": "c", "type": "application"})
    made = await first.create_configuration(project.id, "c", "n", config_id="1", token=token)
    await first.put_state(project.id, "c", "1", None, {"s": [1]}, key="k")
    await first.aclose()

    second = LocalCatalog(home, clock=clock)
    await second.open()

    assert await second.projects() == [project]
    assert await second.verify_token(secret) == token
    assert await second.configuration(project.id, "c", "1") == made
    assert await second.put_state(project.id, "c", "1", None, {}, key="k") == State({"s": [1]}, 1)
    await second.aclose()


async def test_old_keys_of_states_are_forgotten(catalog: LocalCatalog, clock: Clock) -> None:
    project = await catalog.create_project("a")
    await catalog.put_component({"id": "c", "type": "application"})
    await catalog.create_configuration(project.id, "c", "n", config_id="1")
    here = (project.id, "c", "1", None)
    await catalog.put_state(*here, 1, key="a")
    clock.advance(days=29)
    assert (await catalog.put_state(*here, 2, key="a")).value == 1
    clock.advance(days=2)

    await catalog.put_state(*here, 3, key="b")

    assert (await catalog.put_state(*here, 4, key="a")).value == 4


async def test_many_can_open_a_new_folder_at_once(home: Path) -> None:
    catalogs = [LocalCatalog(home) for _ in range(8)]

    async with trio.open_nursery() as nursery:
        for catalog in catalogs:
            nursery.start_soon(catalog.open)

    for catalog in catalogs:
        assert await catalog.projects() == []
        await catalog.aclose()


async def test_storage_and_catalog_share_one_database(
    catalog: LocalCatalog, storage: LocalStorage, home: Path
) -> None:
    assert await catalog.projects() == []
    assert sorted(path.name for path in home.glob("*.db")) == ["catalog.db"]


async def test_a_file_that_is_no_database_is_named(home: Path) -> None:
    home.mkdir(parents=True)
    (home / "catalog.db").write_bytes(b"this is not a database, and long enough for it " * 50)
    catalog = LocalCatalog(home)

    with pytest.raises(ApplicationError, match=re.escape(str(home / "catalog.db"))):
        await catalog.open()

    await catalog.aclose()


async def test_a_catalog_that_is_not_open_says_so(home: Path) -> None:
    with pytest.raises(ApplicationError, match="is not open"):
        await LocalCatalog(home).projects()


async def test_commits_are_on_the_disk_when_they_return(catalog: LocalCatalog) -> None:
    def pragmas(connection: object) -> tuple[object, object]:
        run = connection.exec_driver_sql  # type: ignore[attr-defined]
        return run("PRAGMA journal_mode").scalar(), run("PRAGMA synchronous").scalar()

    assert await catalog._database.read(pragmas) == ("wal", 2)
    assert sqlite3.sqlite_version_info >= (3, 35)


async def test_a_catalog_of_an_older_version_keeps_what_it_has(home: Path) -> None:
    home.mkdir(parents=True)
    with closing(sqlite3.connect(home / "catalog.db")) as old:
        old.executescript(Path(__file__).with_name("catalog-3.sql").read_text())
    catalog = LocalCatalog(home)
    made = datetime(2026, 3, 1, 10, 20, 30, tzinfo=UTC)
    for _ in range(2):
        await catalog.open()
        here = ("1", "x", "c")
        found = await catalog.configuration(*here)
        assert (found.version, found.name, list(found.configuration)) == (3, "second", ["z", "a"])
        assert found.rows[0].configuration == {"r": 1}
        versions = await catalog.configuration_versions(*here)
        assert [each.name for each in versions] == ["second", "first", "first"]
        names = {each.version_identifier for each in versions}
        assert len(names) == 3
        assert {name[:10] for name in names} == {new_ulid(made)[:10]}
        assert await catalog.put_state(*here, None, {}, key="k") == State({"s": 1}, 1)
        branch = (await catalog.branches("1"))[1]
        assert await catalog.state(*here, "r", branch=branch.id) == State({"dev": 1}, 1)
        (gone,) = await catalog.deleted_configurations("1")
        assert gone.name == "gone"
        assert (await catalog.configuration("2", "x", "c")).name == "other"
        await catalog.aclose()
    with closing(sqlite3.connect(home / "catalog.db")) as new:
        assert new.execute("PRAGMA foreign_key_check").fetchall() == []
        assert (
            new.execute("SELECT name FROM sqlite_master WHERE name LIKE 'old_%'").fetchall() == []
        )


async def test_a_copy_is_made_at_once(catalog: LocalCatalog) -> None:
    project = await catalog.create_project("a")
    await catalog.put_component({"id": "c", "type": "application"})
    here = (project.id, "c", "1")
    await catalog.create_configuration(*here[:2], "n", config_id="1")
    await catalog.create_row(*here, row_id="r")
    await catalog.update_configuration(*here, {"rows_sort_order": ["r"]})

    copy = await catalog.copy_configuration(*here, 3)

    assert (copy.version, copy.rows_sort_order, copy.rows[0].version) == (1, ("r",), 1)
    assert len(await catalog.configuration_versions(project.id, "c", copy.id)) == 1


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda each: st.lists(each) | st.dictionaries(st.text(), each),
)  # fmt: skip


@given(_JSON)
def test_json_comes_out_as_it_went_in(value: object) -> None:
    assert json.dumps(from_text(to_text(value, "x"))) == json.dumps(value)
