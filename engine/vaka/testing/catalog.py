"""The suite that every catalog passes."""

# ruff: noqa: ARG002 - a fixture can be wanted for what it does, not for what it gives

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import trio

from vaka.errors import AuthenticationFailed, Conflict, InvalidInput, NotFound
from vaka.hooks import Catalog
from vaka.models.catalog import Configuration, Project, Role, State, Token, VaultVariable
from vaka.testing.catalog_versions import COMPONENT, VersionsContract, component_document

AWKWARD: Any = {
    "z": 1,
    "a": {},
    "empty": [],
    "nested": [[], {}, [{}], None, True, False],
    "large": 123456789012345678901234567890,
    "float": 0.1,
    "tiny": 1e-300,
    "text": 'ž 😀 \u0000 \ud800 " \\ / <b>',
    "": "no name",
    "#secret": "KBC::ProjectSecure::x",
}
"""A document that must come out as it went in."""


class CatalogContract(VersionsContract):
    """What every catalog does. Inherit, and give the fixture `catalog`.

    ```python
    class TestMyCatalog(CatalogContract):
        @pytest.fixture
        async def catalog(self) -> AsyncIterator[Catalog]:
            catalog = MyCatalog()
            await catalog.open()
            yield catalog
            await catalog.aclose()
    ```

    The catalog must be empty. Needs pytest-trio with `trio_mode`.
    """

    # -- projects and components -----------------------------------------------------------------

    async def test_projects_are_made_and_found(self, catalog: Catalog) -> None:
        assert await catalog.projects() == []

        first = await catalog.create_project(
            "one", features=["queuev2"], limits={"components.jobsParallelism": 10}
        )
        second = await catalog.create_project("two")

        assert first == await catalog.project(first.id)
        assert (first.name, first.features) == ("one", ("queuev2",))
        assert first.limits == {"components.jobsParallelism": 10}
        assert first.created.tzinfo is not None
        assert (second.features, dict(second.limits)) == ((), {})
        assert await catalog.projects() == [first, second]

    async def test_a_project_changes_in_what_is_given(self, catalog: Catalog) -> None:
        first = await catalog.create_project("one", features=["a", "b"], limits={"x": 1})
        second = await catalog.create_project("two", features=["c"])
        _, secret = await catalog.create_token(first.id, "", Role.ADMIN)
        await catalog.verify_token(secret)

        changed = await catalog.update_project(first.id, features=["b", "new", "b"])
        assert (changed.name, changed.features, dict(changed.limits)) == (
            "one",
            ("b", "new"),
            {"x": 1},
        )
        changed = await catalog.update_project(first.id, name="1", limits={"y": 2})
        assert changed == await catalog.project(first.id)
        assert (changed.name, changed.features, dict(changed.limits)) == (
            "1",
            ("b", "new"),
            {"y": 2},
        )
        assert (await catalog.verify_token(secret)).project == changed
        assert await catalog.update_project(second.id) == second
        assert (await catalog.update_project(second.id, features=[])).features == ()
        with pytest.raises(InvalidInput):
            await catalog.update_project(first.id, name=" ")
        with pytest.raises(NotFound):
            await catalog.update_project("999", name="x")

    @pytest.mark.parametrize("project", ["999", "", "x", "-1", "1.0", "9" * 40])
    async def test_a_project_that_is_not_there_is_not_found(
        self, catalog: Catalog, project: str
    ) -> None:
        for call in (
            catalog.project(project),
            catalog.create_token(project, "", Role.READ),
            catalog.tokens(project),
            catalog.revoke_token(project, "1"),
            catalog.configurations(project),
            catalog.create_configuration(project, COMPONENT, "c"),
            catalog.vault_variables(project),
            catalog.put_vault_variable(project, "v", ""),
            catalog.delete_vault_variable(project, "v"),
            catalog.oauth_credentials(project, COMPONENT, "o"),
            catalog.put_oauth_credentials(project, COMPONENT, "o", {}),
            catalog.delete_oauth_credentials(project, COMPONENT, "o"),
        ):
            with pytest.raises(NotFound) as caught:
                await call
            assert (caught.value.kind, caught.value.id) == ("project", project)

    async def test_a_component_is_kept_as_it_is_registered(self, catalog: Catalog) -> None:
        document = component_document(
            "vendor.app-x",
            features=["one", "two"],
            description="about it",
            flags=["b", "a"],
            configurationSchema={"z": {}, "a": []},
        )

        made = await catalog.put_component(document)

        assert made == await catalog.component("vendor.app-x")
        assert (made.id, made.name, made.type) == ("vendor.app-x", "X", "application")
        assert (made.features, made.description) == (("one", "two"), "about it")
        assert _same(made.data, document["data"])
        assert _same(made.extra, {"flags": ["b", "a"], "configurationSchema": {"z": {}, "a": []}})

    async def test_components_are_listed_replaced_and_deleted(self, catalog: Catalog) -> None:
        await catalog.put_component(component_document("b"))
        await catalog.put_component(component_document("a"))

        await catalog.put_component(component_document("b", description="new"))

        assert [component.id for component in await catalog.components()] == ["a", "b"]
        assert (await catalog.component("b")).description == "new"
        await catalog.delete_component("b")
        assert [component.id for component in await catalog.components()] == ["a"]
        for call in (catalog.component("b"), catalog.delete_component("b")):
            with pytest.raises(NotFound) as caught:
                await call
            assert (caught.value.kind, caught.value.id) == ("component", "b")

    @pytest.mark.parametrize(
        "wrong",
        [{"id": None}, {"id": ""}, {"id": "a/b"}, {"id": 1}, {"type": None}, {"data": []},
         {"features": "x"}, {"features": [1]}, {"flags": float("nan")}, {"flags": object()}],
    )  # fmt: skip
    async def test_a_component_that_cannot_be_is_refused(
        self, catalog: Catalog, wrong: dict[str, Any]
    ) -> None:
        with pytest.raises(InvalidInput):
            await catalog.put_component(component_document("x") | wrong)

        assert await catalog.components() == []

    # -- tokens ----------------------------------------------------------------------------------

    async def test_a_token_is_known_by_its_secret(self, catalog: Catalog, project: Project) -> None:
        expires = datetime.now(UTC).replace(microsecond=0) + timedelta(days=1)
        made, secret = await catalog.create_token(
            project.id,
            "for reading",
            Role.READ,
            expires=expires,
            component_access=[COMPONENT],
            bucket_permissions={"in.c-main": "read"},
        )

        assert await catalog.verify_token(secret) == made
        assert await catalog.verify_token(secret) == made
        assert made.project == project
        assert (made.description, made.role, made.expires) == ("for reading", Role.READ, expires)
        assert made.component_access == (COMPONENT,)
        assert made.bucket_permissions == {"in.c-main": "read"}
        assert len(secret) >= 40
        assert secret.isascii()
        assert not secret.startswith(("kbc_at_", "kbc_pat_"))
        assert secret not in repr(await catalog.tokens(project.id))

    async def test_an_unrestricted_token_says_so(self, catalog: Catalog, project: Project) -> None:
        everything, _ = await catalog.create_token(project.id, "", Role.ADMIN)
        nothing, _ = await catalog.create_token(
            project.id, "", Role.ADMIN, component_access=[], bucket_permissions={}
        )

        assert (everything.component_access, everything.bucket_permissions) == (None, None)
        assert (nothing.component_access, nothing.bucket_permissions) == ((), {})

    async def test_secrets_that_are_wrong_are_refused_without_being_told(
        self, catalog: Catalog, project: Project
    ) -> None:
        _, secret = await catalog.create_token(project.id, "", Role.ADMIN)
        expired, old = await catalog.create_token(
            project.id, "", Role.ADMIN, expires=datetime.now(UTC) - timedelta(seconds=1)
        )

        for wrong in (secret[:-1], secret + "x", secret.upper(), "", "x", "1-1-\ud800", old):
            with pytest.raises(AuthenticationFailed) as caught:
                await catalog.verify_token(wrong)
            assert len(wrong) < 2 or wrong not in caught.value.message
        assert expired in await catalog.tokens(project.id)

    async def test_a_revoked_token_is_refused_at_once(
        self, catalog: Catalog, project: Project
    ) -> None:
        kept, kept_secret = await catalog.create_token(project.id, "kept", Role.ADMIN)
        gone, secret = await catalog.create_token(project.id, "gone", Role.ADMIN)
        assert await catalog.verify_token(secret) == gone

        await catalog.revoke_token(project.id, gone.id)

        with pytest.raises(AuthenticationFailed):
            await catalog.verify_token(secret)
        assert await catalog.verify_token(kept_secret) == kept
        assert await catalog.tokens(project.id) == [kept]
        with pytest.raises(NotFound):
            await catalog.revoke_token(project.id, gone.id)
        newer, _ = await catalog.create_token(project.id, "", Role.ADMIN)
        assert newer.id != gone.id

    async def test_tokens_of_projects_are_apart(self, catalog: Catalog, project: Project) -> None:
        other = await catalog.create_project("other")
        token, secret = await catalog.create_token(project.id, "", Role.ADMIN)

        assert await catalog.tokens(other.id) == []
        with pytest.raises(NotFound):
            await catalog.revoke_token(other.id, token.id)
        assert await catalog.verify_token(secret) == token

    async def test_only_known_permissions_are_given(
        self, catalog: Catalog, project: Project
    ) -> None:
        with pytest.raises(InvalidInput):
            await catalog.create_token(
                project.id, "", Role.READ, bucket_permissions={"in.c-main": "manage"}
            )

        assert await catalog.tokens(project.id) == []

    async def test_rights_of_a_token_are_kept_and_changed(
        self, catalog: Catalog, project: Project, token: Token
    ) -> None:
        assert token.is_master
        made, secret = await catalog.create_token(
            project.id,
            "limited",
            Role.ADMIN,
            can_manage_tokens=False,
            can_read_all_file_uploads=False,
            can_purge_trash=False,
            creator=token,
        )
        assert (
            await catalog.token(project.id, made.id) == made == await catalog.verify_token(secret)
        )
        assert (made.is_master, made.can_manage_buckets) == (False, True)
        assert (made.can_read_all_file_uploads, made.can_purge_trash) == (False, False)
        assert made.creator_token_id == token.id
        assert made.creator_token_description == token.description

        changes = {"description": "other", "bucket_permissions": {"in.c-a": "read"}}
        changed = await catalog.update_token(project.id, made.id, changes)
        assert changed == await catalog.verify_token(secret)
        assert (changed.description, changed.can_manage_buckets) == ("other", False)
        assert changed.bucket_permissions == {"in.c-a": "read"}
        assert changed.component_access is None
        with pytest.raises(InvalidInput):
            await catalog.update_token(
                project.id, made.id, {"bucket_permissions": {"in.c-a": "manage"}}
            )
        with pytest.raises(InvalidInput):
            await catalog.update_token(project.id, made.id, {"role": "admin"})
        assert await catalog.token(project.id, made.id) == changed
        other = await catalog.create_project("other")
        for missing in (
            catalog.token(other.id, made.id),
            catalog.update_token(other.id, made.id, changes),
            catalog.refresh_token(other.id, made.id),
            catalog.token(project.id, "999999"),
        ):
            with pytest.raises(NotFound):
                await missing

    async def test_a_refreshed_token_is_the_same_with_another_secret(
        self, catalog: Catalog, project: Project
    ) -> None:
        made, old = await catalog.create_token(project.id, "", Role.READ, component_access=["x"])
        assert await catalog.verify_token(old) == made

        again, new = await catalog.refresh_token(project.id, made.id)

        assert new != old
        assert (again.id, again.role, again.component_access) == (made.id, Role.READ, ("x",))
        assert await catalog.verify_token(new) == again
        with pytest.raises(AuthenticationFailed):
            await catalog.verify_token(old)

    # -- configurations --------------------------------------------------------------------------

    async def test_a_configuration_is_stored_as_it_is_written(
        self, catalog: Catalog, project: Project, token: Token
    ) -> None:
        made = await catalog.create_configuration(
            project.id,
            COMPONENT,
            "name",
            config_id="my-config",
            description="about",
            configuration=AWKWARD,
            is_disabled=True,
            change_description="made",
            token=token,
        )

        assert made == await catalog.configuration(project.id, COMPONENT, "my-config")
        assert (made.component_id, made.id, made.version) == (COMPONENT, "my-config", 1)
        assert (made.name, made.description, made.is_disabled) == ("name", "about", True)
        assert made.change_description == "made"
        assert (made.creator_token_id, made.creator_token_description) == (token.id, "the author")
        assert made.rows == ()
        assert made.created.tzinfo is not None
        assert made.updated is not None
        assert _same(made.configuration, AWKWARD)

    @pytest.mark.parametrize("value", [{}, [], {"a": []}, [{}], "text", 0, False])
    async def test_json_keeps_its_types(
        self, catalog: Catalog, project: Project, value: Any
    ) -> None:
        made = await catalog.create_configuration(project.id, COMPONENT, "c", configuration=value)

        assert _same(made.configuration, value)

    async def test_a_configuration_without_content_is_an_empty_object(
        self, catalog: Catalog, project: Project
    ) -> None:
        made = await catalog.create_configuration(project.id, COMPONENT, "c")

        assert _same(made.configuration, {})
        assert made.change_description == "Configuration created"
        assert made.creator_token_id is None

    async def test_ids_are_made_up_when_none_is_given(
        self, catalog: Catalog, project: Project
    ) -> None:
        ids = [
            (await catalog.create_configuration(project.id, COMPONENT, "c")).id for _ in range(3)
        ]

        assert len(set(ids)) == 3
        assert all(each.isdecimal() for each in ids)

    async def test_an_id_that_is_taken_is_a_conflict(
        self, catalog: Catalog, project: Project, config: Configuration
    ) -> None:
        with pytest.raises(Conflict):
            await catalog.create_configuration(project.id, COMPONENT, "again", config_id="c")

        assert await catalog.configuration(project.id, COMPONENT, "c") == config
        await catalog.put_component(component_document("other"))
        other = await catalog.create_configuration(project.id, "other", "again", config_id="c")
        assert other.name == "again"

    @pytest.mark.parametrize(
        "wrong",
        [{"name": ""}, {"name": " "}, {"config_id": ""}, {"config_id": "a/b"},
         {"config_id": "x" * 300}, {"configuration": float("inf")}, {"configuration": object()},
         {"configuration": {"a": {1, 2}}}],
    )  # fmt: skip
    async def test_a_configuration_that_cannot_be_is_refused(
        self, catalog: Catalog, project: Project, wrong: dict[str, Any]
    ) -> None:
        with pytest.raises(InvalidInput):
            await catalog.create_configuration(
                **{"project": project.id, "component_id": COMPONENT, "name": "c"} | wrong
            )

        assert await catalog.configurations(project.id) == []

    async def test_a_component_must_be_registered(self, catalog: Catalog, project: Project) -> None:
        for call in (
            catalog.create_configuration(project.id, "no.such", "c"),
            catalog.configurations(project.id, "no.such"),
        ):
            with pytest.raises(NotFound) as caught:
                await call
            assert (caught.value.kind, caught.value.id) == ("component", "no.such")

    async def test_configurations_are_listed_by_component(
        self, catalog: Catalog, project: Project, config: Configuration
    ) -> None:
        await catalog.put_component(component_document("other"))
        other = await catalog.create_configuration(project.id, "other", "o")
        await catalog.create_row(project.id, COMPONENT, "c", row_id="r")
        elsewhere = await catalog.create_project("elsewhere")
        config = await catalog.configuration(project.id, COMPONENT, "c")

        everything = await catalog.configurations(project.id)

        assert sorted(each.id for each in everything) == sorted([config.id, other.id])
        assert await catalog.configurations(project.id, COMPONENT) == [config]
        assert await catalog.configurations(project.id, "other") == [other]
        assert await catalog.configurations(elsewhere.id) == []

    async def test_what_is_not_there_is_not_found(
        self, catalog: Catalog, project: Project, config: Configuration
    ) -> None:
        missing = (project.id, COMPONENT, "none")
        for call in (
            catalog.configuration(*missing),
            catalog.configuration(project.id, "other", "c"),
            catalog.configuration("999", COMPONENT, "c"),
            catalog.update_configuration(*missing, {}),
            catalog.delete_configuration(*missing),
            catalog.configuration_versions(*missing),
            catalog.rollback_configuration(*missing, 1),
            catalog.create_row(*missing),
            catalog.update_row(*missing, "r", {}),
            catalog.delete_row(*missing, "r"),
            catalog.state(*missing),
            catalog.put_state(*missing, None, {}),
        ):
            with pytest.raises(NotFound):
                await call
        here = (project.id, COMPONENT, "c")
        for call in (
            catalog.configuration(*here, version=2),
            catalog.configuration(*here, version=0),
            catalog.configuration(*here, version=10**30),
            catalog.rollback_configuration(*here, 2),
            catalog.update_row(*here, "none", {}),
            catalog.delete_row(*here, "none"),
            catalog.state(*here, "none"),
            catalog.put_state(*here, "none", {}),
        ):
            with pytest.raises(NotFound):
                await call

    async def test_a_change_makes_a_version(
        self, catalog: Catalog, project: Project, config: Configuration, token: Token
    ) -> None:
        changed = await catalog.update_configuration(
            project.id,
            COMPONENT,
            "c",
            {"name": "second", "description": "", "configuration": [], "is_disabled": True},
            change_description="why",
            token=token,
        )

        assert changed == await catalog.configuration(project.id, COMPONENT, "c")
        assert (changed.version, changed.name, changed.configuration) == (2, "second", [])
        assert (changed.is_disabled, changed.change_description) == (True, "why")
        assert changed.created == config.created
        partly = await catalog.update_configuration(
            project.id, COMPONENT, "c", {"description": "only this"}
        )
        assert (partly.version, partly.name, partly.description) == (3, "second", "only this")
        old = await catalog.configuration(project.id, COMPONENT, "c", version=1)
        assert (old.version, old.name, old.configuration) == (1, "first", {"a": 1})

    async def test_what_changes_nothing_makes_no_version(
        self, catalog: Catalog, project: Project, config: Configuration
    ) -> None:
        same = {
            "name": "first",
            "configuration": {"a": 1},
            "is_disabled": False,
            "rows_sort_order": [],
        }
        for changes in ({}, same):
            result = await catalog.update_configuration(project.id, COMPONENT, "c", changes)
            assert result == config

        emptied = await catalog.update_configuration(
            project.id, COMPONENT, "c", {"configuration": {}}
        )
        assert emptied.version == 2
        listed = await catalog.update_configuration(
            project.id, COMPONENT, "c", {"configuration": []}
        )
        assert listed.version == 3

    @pytest.mark.parametrize(
        "changes",
        [{"nonsense": 1}, {"name": 1}, {"name": ""}, {"description": None}, {"is_disabled": "x"},
         {"configuration": object()}, {"rows_sort_order": "r"}, {"rows_sort_order": [1]}],
    )  # fmt: skip
    async def test_a_change_that_cannot_be_is_refused(
        self,
        catalog: Catalog,
        project: Project,
        config: Configuration,
        changes: dict[str, Any],
    ) -> None:
        with pytest.raises(InvalidInput):
            await catalog.update_configuration(project.id, COMPONENT, "c", changes)

        assert await catalog.configuration(project.id, COMPONENT, "c") == config

    async def test_a_change_of_another_version_is_a_conflict(
        self, catalog: Catalog, project: Project, config: Configuration
    ) -> None:
        update = catalog.update_configuration
        await update(project.id, COMPONENT, "c", {"name": "x"}, expected_version=1)

        with pytest.raises(Conflict):
            await update(project.id, COMPONENT, "c", {"name": "y"}, expected_version=1)

        assert (await catalog.configuration(project.id, COMPONENT, "c")).name == "x"

    async def test_changes_at_once_get_a_version_each(
        self, catalog: Catalog, project: Project, config: Configuration
    ) -> None:
        seen: list[int] = []

        async def change(number: int) -> None:
            changed = await catalog.update_configuration(
                project.id, COMPONENT, "c", {"name": f"n{number}"}
            )
            seen.append(changed.version)

        async with trio.open_nursery() as nursery:
            for number in range(10):
                nursery.start_soon(change, number)

        assert sorted(seen) == list(range(2, 12))

    async def test_versions_are_listed_newest_first(
        self, catalog: Catalog, project: Project, config: Configuration, token: Token
    ) -> None:
        await catalog.update_configuration(
            project.id, COMPONENT, "c", {"name": "second"}, change_description="b", token=token
        )
        await catalog.create_row(project.id, COMPONENT, "c", row_id="r", configuration=[1])

        third, second, first = await catalog.configuration_versions(project.id, COMPONENT, "c")

        assert [each.version for each in (third, second, first)] == [3, 2, 1]
        assert [each.name for each in (third, second, first)] == ["second", "second", "first"]
        assert (second.change_description, second.creator_token_id) == ("b", token.id)
        assert first.creator_token_id is None
        assert first.configuration == {"a": 1}
        assert [row.id for row in third.rows] == ["r"]
        assert second.rows == ()

    async def test_a_rollback_is_a_new_version(
        self, catalog: Catalog, project: Project, config: Configuration
    ) -> None:
        here = (project.id, COMPONENT, "c")
        await catalog.create_row(*here, row_id="kept", configuration={"r": 1})
        await catalog.create_row(*here, row_id="deleted", name="back again")
        before = await catalog.configuration(*here)
        await catalog.put_state(*here, None, {"s": 1})
        await catalog.put_state(*here, "deleted", {"s": 2})
        await catalog.update_configuration(*here, {"name": "x", "configuration": {}})
        await catalog.update_row(*here, "kept", {"configuration": {"r": 2}})
        await catalog.delete_row(*here, "deleted")
        await catalog.create_row(*here, row_id="late")

        after = await catalog.rollback_configuration(*here, before.version)

        assert after.version == 8
        assert (after.name, after.configuration) == ("first", {"a": 1})
        rows = {row.id: row for row in after.rows}
        assert set(rows) == {"kept", "deleted"}
        assert (rows["kept"].version, rows["kept"].configuration) == (3, {"r": 1})
        assert rows["deleted"].name == "back again"
        assert after == await catalog.configuration(*here)
        assert (await catalog.state(*here)).value == {"s": 1}
        assert (await catalog.state(*here, "deleted")).value == {"s": 2}
        with pytest.raises(NotFound):
            await catalog.state(*here, "late")

    async def test_a_configuration_goes_to_the_trash_and_then_for_good(
        self, catalog: Catalog, project: Project, config: Configuration
    ) -> None:
        here = (project.id, COMPONENT, "c")

        await catalog.delete_configuration(*here)
        assert await catalog.configurations(project.id) == []
        with pytest.raises(NotFound):
            await catalog.configuration(*here)
        await catalog.delete_configuration(*here)
        with pytest.raises(NotFound):
            await catalog.delete_configuration(*here)

        anew = await catalog.create_configuration(*here[:2], "anew", config_id="c")
        assert anew.version == 1

    async def test_a_configuration_comes_back_from_the_trash_empty(
        self, catalog: Catalog, project: Project, config: Configuration
    ) -> None:
        here = (project.id, COMPONENT, "c")
        await catalog.create_row(*here, row_id="r", configuration={"old": 1})
        await catalog.put_state(*here, None, {"s": 1})
        await catalog.put_state(*here, "r", {"s": 2})
        await catalog.delete_configuration(*here)

        back = await catalog.create_configuration(*here[:2], "back", config_id="c")

        assert back.version == 4  # made, row added, deleted, made again
        assert (back.name, back.rows) == ("back", ())
        assert await catalog.state(*here) == State({}, 0)
        row = await catalog.create_row(*here, row_id="r")
        assert row.configuration == {}
        assert await catalog.state(*here, "r") == State({}, 0)

    # -- rows ------------------------------------------------------------------------------------

    async def test_rows_are_made_changed_and_deleted(
        self, catalog: Catalog, project: Project, config: Configuration, token: Token
    ) -> None:
        here = (project.id, COMPONENT, "c")
        made = await catalog.create_row(
            *here,
            row_id="r",
            name="row",
            description="about",
            configuration=AWKWARD,
            is_disabled=True,
            token=token,
        )

        assert (made.id, made.name, made.description) == ("r", "row", "about")
        assert (made.version, made.is_disabled, made.creator_token_id) == (1, True, token.id)
        assert made.change_description == "Row r added"
        assert _same(made.configuration, AWKWARD)
        whole = await catalog.configuration(*here)
        assert (whole.version, whole.rows) == (2, (made,))
        assert whole.change_description == "Row r added"

        changed = await catalog.update_row(
            *here, "r", {"configuration": {}, "name": ""}, change_description="why"
        )
        assert (changed.version, changed.name, changed.configuration) == (2, "", {})
        assert (changed.change_description, changed.created) == ("why", made.created)
        whole = await catalog.configuration(*here)
        assert (whole.version, whole.rows, whole.change_description) == (3, (changed,), "why")
        assert await catalog.update_row(*here, "r", {"configuration": {}}) == changed
        assert (await catalog.configuration(*here)).version == 3

        await catalog.delete_row(*here, "r")
        whole = await catalog.configuration(*here)
        assert (whole.version, whole.rows) == (4, ())
        old = await catalog.configuration(*here, version=2)
        assert old.rows == (made,)

    async def test_rows_have_ids_of_their_own(
        self, catalog: Catalog, project: Project, config: Configuration
    ) -> None:
        here = (project.id, COMPONENT, "c")
        first = await catalog.create_row(*here)
        second = await catalog.create_row(*here, name="x")

        assert first.id != second.id
        with pytest.raises(Conflict):
            await catalog.create_row(*here, row_id=first.id)
        with pytest.raises(InvalidInput):
            await catalog.create_row(*here, row_id="a/b")
        with pytest.raises(InvalidInput):
            await catalog.update_row(*here, first.id, {"nonsense": 1})
        assert (await catalog.configuration(*here)).version == 3

    async def test_a_deleted_row_can_be_made_again(
        self, catalog: Catalog, project: Project, config: Configuration
    ) -> None:
        here = (project.id, COMPONENT, "c")
        await catalog.create_row(*here, row_id="r", configuration={"old": 1})
        await catalog.put_state(*here, "r", {"s": 1})
        await catalog.delete_row(*here, "r")

        again = await catalog.create_row(*here, row_id="r")

        assert (again.version, again.configuration) == (2, {})
        assert await catalog.state(*here, "r") == State({}, 0)

    async def test_rows_stand_in_the_order_given(
        self, catalog: Catalog, project: Project, config: Configuration
    ) -> None:
        here = (project.id, COMPONENT, "c")
        for row_id in ("a", "b", "c"):
            await catalog.create_row(*here, row_id=row_id)

        async def order() -> str:
            return "".join(row.id for row in (await catalog.configuration(*here)).rows)

        assert await order() == "abc"
        changed = await catalog.update_configuration(*here, {"rows_sort_order": ["c", "gone", "a"]})
        assert changed.version == 5
        assert await order() == "cab"
        await catalog.create_row(*here, row_id="d")
        assert await order() == "cabd"
        (listed,) = await catalog.configurations(project.id)
        assert "".join(row.id for row in listed.rows) == "cabd"
        old = await catalog.configuration(*here, version=4)
        assert "".join(row.id for row in old.rows) == "abc"

    # -- branches --------------------------------------------------------------------------------

    async def test_every_project_has_a_default_branch(
        self, catalog: Catalog, project: Project
    ) -> None:
        (main,) = await catalog.branches(project.id)

        assert (main.name, main.is_default) == ("Main", True)
        assert main.created == project.created
        with pytest.raises(InvalidInput):
            await catalog.delete_branch(project.id, main.id)
        with pytest.raises(NotFound):
            await catalog.branches("999")

    async def test_development_branches_come_and_go(
        self, catalog: Catalog, project: Project, token: Token
    ) -> None:
        (main,) = await catalog.branches(project.id)
        if main.id == "default":  # a catalog without development branches
            with pytest.raises(InvalidInput):
                await catalog.create_branch(project.id, "mine")
            return
        other = await catalog.create_project("other")

        made = await catalog.create_branch(project.id, "mine", description="d", token=token)
        theirs = await catalog.create_branch(other.id, "mine")

        assert (made.name, made.description, made.is_default) == ("mine", "d", False)
        assert made.created > datetime.now(UTC) - timedelta(minutes=5)
        assert (made.creator_token_id, made.creator_token_description) == (token.id, "the author")
        assert await catalog.branches(project.id) == [main, made]
        for name in ("mine", "Main"):
            with pytest.raises(Conflict):
                await catalog.create_branch(project.id, name)
        with pytest.raises(InvalidInput):
            await catalog.create_branch(project.id, " ")
        for absent in (theirs.id, "0", "x", f"0{made.id}"):
            with pytest.raises(NotFound):
                await catalog.delete_branch(project.id, absent)
        await catalog.delete_branch(project.id, made.id)
        assert await catalog.branches(project.id) == [main]
        assert (await catalog.create_branch(project.id, "mine")).id != made.id
        assert theirs in await catalog.branches(other.id)

    # -- state -----------------------------------------------------------------------------------

    async def test_state_is_versioned(
        self, catalog: Catalog, project: Project, config: Configuration
    ) -> None:
        here = (project.id, COMPONENT, "c")
        await catalog.create_row(*here, row_id="r")
        assert await catalog.state(*here) == await catalog.state(*here, "r") == State({}, 0)

        stored = await catalog.put_state(*here, None, AWKWARD, expected_version=0)
        await catalog.put_state(*here, "r", [])

        assert stored.version == 1
        assert _same((await catalog.state(*here)).value, AWKWARD)
        assert await catalog.state(*here, "r") == State([], 1)
        assert (await catalog.configuration(*here)).version == 2  # states make no version

    async def test_state_that_has_changed_meanwhile_is_not_overwritten(
        self, catalog: Catalog, project: Project, config: Configuration
    ) -> None:
        here = (project.id, COMPONENT, "c")
        await catalog.put_state(*here, None, {"by": "one"}, expected_version=0, key="job-1")

        with pytest.raises(Conflict):
            await catalog.put_state(*here, None, {"by": "two"}, expected_version=0, key="job-2")

        assert await catalog.state(*here) == State({"by": "one"}, 1)
        stored = await catalog.put_state(
            *here, None, {"by": "two"}, expected_version=1, key="job-2"
        )
        assert stored == State({"by": "two"}, 2)

    async def test_a_state_is_stored_once_for_a_key(
        self, catalog: Catalog, project: Project, config: Configuration
    ) -> None:
        here = (project.id, COMPONENT, "c")
        await catalog.create_row(*here, row_id="r")
        first = await catalog.put_state(*here, None, {"n": 1}, expected_version=0, key="k")
        again = await catalog.put_state(*here, None, {"n": 1}, expected_version=0, key="k")
        assert again == first == State({"n": 1}, 1)

        later = await catalog.put_state(*here, None, {"n": 2}, key="l")
        assert await catalog.put_state(*here, None, {"n": 1}, key="k") == later
        assert await catalog.put_state(*here, "r", {"n": 3}, key="k") == State({"n": 3}, 1)

    async def test_each_branch_has_states_of_its_own(
        self, catalog: Catalog, project: Project, config: Configuration
    ) -> None:
        main = (await catalog.branches(project.id))[0]
        if main.id == "default":  # a catalog without development branches
            return
        here = (project.id, COMPONENT, "c")
        await catalog.create_row(*here, row_id="r")
        ids = [(await catalog.create_branch(project.id, name)).id for name in ("one", "two")]
        await catalog.put_state(*here, None, {"of": "main"}, key="k")

        for branch in ids:
            assert await catalog.state(*here, branch=branch) == State({}, 0)
            await catalog.put_state(*here, None, {"of": branch}, key=f"k{branch}", branch=branch)
            await catalog.put_state(*here, "r", {"row of": branch}, branch=branch)
        with pytest.raises(Conflict):
            await catalog.put_state(*here, None, {}, expected_version=0, branch=ids[0])
        again = await catalog.put_state(*here, None, {}, key=f"k{ids[0]}", branch=ids[0])

        assert again == await catalog.state(*here, branch=ids[0]) == State({"of": ids[0]}, 1)
        assert await catalog.state(*here, "r", branch=ids[1]) == State({"row of": ids[1]}, 1)
        assert await catalog.state(*here, "r") == State({}, 0)
        assert await catalog.state(*here) == State({"of": "main"}, 1)
        assert await catalog.state(*here, branch=main.id) == State({"of": "main"}, 1)
        with pytest.raises(NotFound):
            await catalog.state(*here, branch="0")

        await catalog.delete_branch(project.id, ids[0])
        with pytest.raises(NotFound):
            await catalog.put_state(*here, None, {}, branch=ids[0])
        await catalog.delete_row(*here, "r")
        await catalog.create_row(*here, row_id="r")
        assert await catalog.state(*here, "r", branch=ids[1]) == State({}, 0)
        await catalog.delete_configuration(*here)
        await catalog.create_configuration(project.id, COMPONENT, "new", config_id="c")
        assert await catalog.state(*here, branch=ids[1]) == State({}, 0)

    async def test_a_state_that_is_not_json_is_refused(
        self, catalog: Catalog, project: Project, config: Configuration
    ) -> None:
        for value in (object(), float("nan"), {"a": {1}}, b"x"):
            with pytest.raises(InvalidInput):
                await catalog.put_state(project.id, COMPONENT, "c", None, value)

        assert await catalog.state(project.id, COMPONENT, "c") == State({}, 0)

    # -- the vault and credentials ---------------------------------------------------------------

    async def test_a_vault_variable_is_kept_as_it_is_set(
        self, catalog: Catalog, project: Project
    ) -> None:
        assert await catalog.vault_variables(project.id) == []

        made = await catalog.put_vault_variable(project.id, "b-2", "old")
        await catalog.put_vault_variable(project.id, "b-2", 'quotes " and\nlines, ž')
        await catalog.put_vault_variable(project.id, "A_1", "")

        assert made == VaultVariable("b-2", "old")
        assert await catalog.vault_variables(project.id) == [
            VaultVariable("A_1", ""),
            VaultVariable("b-2", 'quotes " and\nlines, ž'),
        ]
        other = await catalog.create_project("other")
        assert await catalog.vault_variables(other.id) == []

    async def test_a_branch_sees_its_own_variable_in_place_of_the_projects(
        self, catalog: Catalog, project: Project
    ) -> None:
        for name, value, branch in (
            ("both", "main", None),
            ("both", "mine", "7"),
            ("main", "main", None),
            ("mine", "mine", "7"),
        ):
            await catalog.put_vault_variable(project.id, name, value, branch=branch)

        async def seen(branch: str | None) -> dict[str, str]:
            found = await catalog.vault_variables(project.id, branch=branch)
            return {variable.name: variable.value for variable in found}

        assert await seen(None) == {"both": "main", "main": "main"}
        assert await seen("7") == {"both": "mine", "main": "main", "mine": "mine"}
        await catalog.delete_vault_variable(project.id, "both", branch="7")
        assert await seen("7") == {"both": "main", "main": "main", "mine": "mine"}

    async def test_a_vault_variable_that_is_not_there_cannot_be_deleted(
        self, catalog: Catalog, project: Project
    ) -> None:
        await catalog.put_vault_variable(project.id, "main", "1")
        for name, branch in (("none", None), ("main", "7")):
            with pytest.raises(NotFound) as caught:
                await catalog.delete_vault_variable(project.id, name, branch=branch)
            assert (caught.value.kind, caught.value.id) == ("variable", name)

    @pytest.mark.parametrize("name", ["", "a b", "a.b", "ž", "a}", "a\n"])
    async def test_a_vault_variable_has_a_name_that_a_placeholder_can_have(
        self, catalog: Catalog, project: Project, name: str
    ) -> None:
        with pytest.raises(InvalidInput):
            await catalog.put_vault_variable(project.id, name, "1")
        assert await catalog.vault_variables(project.id) == []

    async def test_no_secret_is_kept_in_the_clear(self, catalog: Catalog, project: Project) -> None:
        cipher = "KBC::ProjectSecure::x"
        with pytest.raises(InvalidInput) as caught:
            await catalog.put_vault_variable(project.id, "s", "hunter2", is_encrypted=True)
        assert "hunter2" not in str(caught.value)
        for document in ({"#data": "hunter2"}, {"a": [{"#b": 5}], "#data": cipher}):
            with pytest.raises(InvalidInput) as caught:
                await catalog.put_oauth_credentials(project.id, COMPONENT, "o", document)
            assert "hunter2" not in str(caught.value)
        with pytest.raises(NotFound):
            await catalog.oauth_credentials(project.id, COMPONENT, "o")

        await catalog.put_vault_variable(project.id, "s", cipher, is_encrypted=True)

        assert await catalog.vault_variables(project.id) == [
            VaultVariable("s", cipher, is_encrypted=True)
        ]

    async def test_what_was_changed_meanwhile_is_not_overwritten(
        self, catalog: Catalog, project: Project
    ) -> None:
        await catalog.create_configuration(project.id, COMPONENT, "c", config_id="c")
        row = await catalog.create_row(project.id, COMPONENT, "c", row_id="r")
        here = (project.id, COMPONENT, "c", "r")
        await catalog.update_row(*here, {"name": "x"}, expected_version=row.version)
        with pytest.raises(Conflict):
            await catalog.update_row(*here, {"name": "y"}, expected_version=row.version)
        await catalog.put_vault_variable(project.id, "v", "1")
        await catalog.put_vault_variable(project.id, "v", "2", expected_value="1")
        for name, expected in (("v", "1"), ("none", "1")):
            with pytest.raises(Conflict):
                await catalog.put_vault_variable(project.id, name, "3", expected_value=expected)
        document = {"id": "o"}
        await catalog.put_oauth_credentials(project.id, COMPONENT, "o", document)
        await catalog.put_oauth_credentials(project.id, COMPONENT, "o", {"a": 1}, expected=document)
        for name in ("o", "none"):
            with pytest.raises(Conflict):
                await catalog.put_oauth_credentials(
                    project.id, COMPONENT, name, {"b": 1}, expected=document
                )

        found = await catalog.configuration(project.id, COMPONENT, "c")
        assert found.rows[0].name == "x"
        assert await catalog.vault_variables(project.id) == [VaultVariable("v", "2")]
        assert await catalog.oauth_credentials(project.id, COMPONENT, "o") == {"a": 1}
        # a catalog need not be able to list them
        assert await catalog.oauth_credentials_ids(project.id) in ([], [(COMPONENT, "o")])

    async def test_credentials_are_kept_replaced_and_forgotten(
        self, catalog: Catalog, project: Project
    ) -> None:
        here = (project.id, COMPONENT, "o")
        await catalog.put_oauth_credentials(*here, {"id": "old", "old": True})
        await catalog.put_oauth_credentials(*here, {"z": 1, "a": {}, "#data": "KBC::Secure::x"})

        found = await catalog.oauth_credentials(*here)

        assert _same(found, {"z": 1, "a": {}, "#data": "KBC::Secure::x"})
        other = await catalog.create_project("other")
        for call in (
            catalog.oauth_credentials(other.id, COMPONENT, "o"),
            catalog.oauth_credentials(project.id, "another", "o"),
            catalog.delete_oauth_credentials(project.id, COMPONENT, "p"),
        ):
            with pytest.raises(NotFound) as caught:
                await call
            assert caught.value.kind == "credentials"
        await catalog.delete_oauth_credentials(*here)
        with pytest.raises(NotFound):
            await catalog.oauth_credentials(*here)


def _same(found: Any, expected: Any) -> bool:
    """Whether two JSON values are written alike: the same types, the same order of keys."""
    return json.dumps(_plain(found)) == json.dumps(expected)


def _plain(value: Any) -> Any:
    return dict(value) if isinstance(value, Mapping) else value
