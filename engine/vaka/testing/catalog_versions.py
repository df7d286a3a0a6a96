"""The part of the catalog's suite that is about versions, trash, copies, metadata and branches."""

# ruff: noqa: ARG002 - a fixture can be wanted for what it does, not for what it gives

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from vaka.errors import InvalidInput, NotFound
from vaka.hooks import Catalog
from vaka.models.catalog import Branch, Configuration, Project, Role, State, Token

COMPONENT = "vendor.ex-contract"


class VersionsContract:
    """What `CatalogContract` inherits. A catalog may do without trash, metadata and branches."""

    @pytest.fixture
    async def catalog(self) -> AsyncIterator[Catalog]:
        """The catalog, opened, with nothing in it."""
        raise NotImplementedError("inherit from the contract and give it a fixture `catalog`")
        yield  # noqa: PT022 - who inherits closes it after this

    @pytest.fixture
    async def project(self, catalog: Catalog) -> Project:
        """A project, and a component that its configurations can be of."""
        await catalog.put_component(component_document(COMPONENT))
        return await catalog.create_project("contract")

    @pytest.fixture
    async def token(self, catalog: Catalog, project: Project) -> Token:
        """A token that changes things."""
        token, _ = await catalog.create_token(project.id, "the author", Role.ADMIN)
        return token

    @pytest.fixture
    async def config(self, catalog: Catalog, project: Project) -> Configuration:
        """A configuration `c` that has one version."""
        return await catalog.create_configuration(
            project.id, COMPONENT, "first", config_id="c", configuration={"a": 1}
        )

    @pytest.fixture
    async def branch(self, catalog: Catalog, project: Project) -> Branch | None:
        """A development branch; None where there are none."""
        if (await catalog.branches(project.id))[0].id == "default":
            return None
        return await catalog.create_branch(project.id, "dev")

    # -- what is given at creation ---------------------------------------------------------------

    async def test_a_state_can_be_given_at_creation(
        self, catalog: Catalog, project: Project
    ) -> None:
        here = (project.id, COMPONENT, "s")
        await catalog.create_configuration(*here[:2], "s", config_id="s", state={"a": []})
        await catalog.create_row(*here, row_id="r", state=[])
        await catalog.create_row(*here, row_id="none")

        assert await catalog.state(*here) == State({"a": []}, 1)
        assert await catalog.state(*here, "r") == State([], 1)
        found = await catalog.states(project.id, await catalog.configurations(project.id))
        assert found == {
            (COMPONENT, "s", None): State({"a": []}, 1),
            (COMPONENT, "s", "r"): State([], 1),
            (COMPONENT, "s", "none"): State({}, 0),
        }
        with pytest.raises(InvalidInput):
            await catalog.create_configuration(*here[:2], "t", config_id="t", state={1, 2})
        assert [each.id for each in await catalog.configurations(project.id)] == ["s"]

    # -- versions --------------------------------------------------------------------------------

    async def test_every_version_has_a_name_of_its_own(
        self, catalog: Catalog, project: Project, config: Configuration, token: Token
    ) -> None:
        here = (project.id, COMPONENT, "c")
        await catalog.create_row(*here, row_id="r")
        await catalog.update_row(*here, "r", {"name": "x"}, token=token)
        whole = await catalog.configuration(*here)
        versions = await catalog.configuration_versions(*here)
        rows = await catalog.row_versions(*here, "r")

        names = [each.version_identifier for each in (*versions, *rows)]
        assert len(set(names)) == len(names) == 5
        assert all(len(name) == 26 and name.isalnum() for name in names)
        assert whole.version_identifier == versions[0].version_identifier
        assert whole.rows[0].version_identifier == rows[0].version_identifier
        assert (whole.updated_token_id, whole.creator_token_id) == (token.id, None)

    async def test_versions_are_listed_in_pages(
        self, catalog: Catalog, project: Project, config: Configuration
    ) -> None:
        here = (project.id, COMPONENT, "c")
        for number in range(4):
            await catalog.update_configuration(*here, {"name": f"n{number}"})

        async def listed(limit: int | None, offset: int) -> list[int]:
            found = await catalog.configuration_versions(*here, limit=limit, offset=offset)
            return [each.version for each in found]

        assert await listed(2, 0) == [5, 4]
        assert await listed(2, 3) == [2, 1]
        assert await listed(None, 4) == [1]
        assert await listed(10, 5) == []

    async def test_the_order_of_rows_is_kept_as_it_was_given(
        self, catalog: Catalog, project: Project, config: Configuration
    ) -> None:
        order = ["b", "gone", "a"]
        changed = await catalog.update_configuration(
            project.id, COMPONENT, "c", {"rows_sort_order": order}
        )

        assert list(changed.rows_sort_order) == order
        old = await catalog.configuration(project.id, COMPONENT, "c", version=1)
        assert old.rows_sort_order == ()

    async def test_a_rollback_says_why(
        self, catalog: Catalog, project: Project, config: Configuration
    ) -> None:
        here = (project.id, COMPONENT, "c")
        await catalog.update_configuration(*here, {"name": "x"})

        named = await catalog.rollback_configuration(*here, 1, change_description="why")
        unnamed = await catalog.rollback_configuration(*here, 2)

        assert (named.version, named.change_description) == (3, "why")
        assert (unnamed.version, unnamed.change_description) == (4, "Rollback to version 2")

    async def test_a_version_can_be_copied(
        self, catalog: Catalog, project: Project, config: Configuration, token: Token
    ) -> None:
        here = (project.id, COMPONENT, "c")
        await catalog.create_row(*here, row_id="r", name="row", configuration=[1, {}])
        await catalog.create_row(*here, row_id="q", is_disabled=True)
        await catalog.update_configuration(
            *here, {"rows_sort_order": ["q", "r"], "description": "about"}
        )
        await catalog.put_state(*here, None, {"s": 1})
        await catalog.delete_row(*here, "r")
        await catalog.update_configuration(*here, {"configuration": []})

        same = await catalog.copy_configuration(*here, 4, token=token)
        other = await catalog.copy_configuration(
            *here, 1, name="n", description="", change_description="why"
        )

        assert len({"c", same.id, other.id}) == 3
        assert (same.name, same.description, same.configuration) == ("first", "about", {"a": 1})
        assert same.creator_token_id == token.id
        rows = {row.id: (row.name, row.configuration, row.is_disabled) for row in same.rows}
        assert rows == {"r": ("row", [1, {}], False), "q": ("", {}, True)}
        assert await catalog.state(project.id, COMPONENT, same.id) == State({}, 0)
        assert (other.name, other.description, other.rows) == ("n", "", ())
        assert other.change_description == "why"
        assert (await catalog.configuration(*here)).version == 6
        with pytest.raises(NotFound):
            await catalog.copy_configuration(*here, 7)

    # -- the trash -------------------------------------------------------------------------------

    async def test_what_was_deleted_can_be_restored(
        self, catalog: Catalog, project: Project, config: Configuration
    ) -> None:
        here = (project.id, COMPONENT, "c")
        await catalog.create_row(*here, row_id="r", configuration={"a": 1})
        await catalog.put_state(*here, "r", {"s": 1})
        with pytest.raises(NotFound):
            await catalog.restore_configuration(*here)
        assert await catalog.deleted_configurations(project.id) == []

        await catalog.delete_configuration(*here)

        deleted = await catalog.deleted_configurations(project.id)
        if not deleted:  # a catalog without a trash
            with pytest.raises(NotFound):
                await catalog.restore_configuration(*here)
            return
        (thrown,) = deleted
        assert (thrown.id, thrown.is_deleted, thrown.version) == ("c", True, 3)
        assert thrown.change_description == "Configuration deleted"
        assert await catalog.deleted_configurations(project.id, COMPONENT) == [thrown]
        elsewhere = await catalog.create_project("elsewhere")
        assert await catalog.deleted_configurations(elsewhere.id) == []
        back = await catalog.restore_configuration(*here)
        assert back == await catalog.configuration(*here)
        assert (back.version, back.change_description) == (4, "Configuration restored")
        assert (back.is_deleted, [row.configuration for row in back.rows]) == (False, [{"a": 1}])
        assert await catalog.state(*here, "r") == State({"s": 1}, 1)
        assert await catalog.deleted_configurations(project.id) == []

        await catalog.delete_configuration(*here)
        await catalog.delete_configuration(*here)
        assert await catalog.deleted_configurations(project.id) == []
        for call in (catalog.restore_configuration(*here), catalog.delete_configuration(*here)):
            with pytest.raises(NotFound):
                await call
        with pytest.raises(NotFound):
            await catalog.deleted_configurations(project.id, "no.such")

    # -- rows ------------------------------------------------------------------------------------

    async def test_a_row_has_versions_and_goes_back_to_one(
        self, catalog: Catalog, project: Project, config: Configuration
    ) -> None:
        here = (project.id, COMPONENT, "c")
        await catalog.create_row(*here, row_id="other")
        await catalog.create_row(*here, row_id="r", name="one", configuration={"n": [1]})
        await catalog.put_state(*here, "r", {"s": 1})
        await catalog.update_row(
            *here, "r", {"name": "two", "configuration": []}, change_description="why"
        )
        await catalog.update_row(*here, "other", {"name": "x"})

        versions = await catalog.row_versions(*here, "r")
        assert [(each.version, each.name, each.configuration) for each in versions] == [
            (2, "two", []),
            (1, "one", {"n": [1]}),
        ]
        assert [each.change_description for each in versions] == ["why", "Row r added"]
        assert versions[0].created >= versions[1].created
        assert await catalog.row_versions(*here, "r", limit=1, offset=1) == versions[1:]
        assert await catalog.row_version(*here, "r", 1) == versions[1]

        row = await catalog.rollback_row(*here, "r", 1)
        assert (row.version, row.name, row.configuration) == (3, "one", {"n": [1]})
        assert row.change_description == "Rollback to version 1"
        whole = await catalog.configuration(*here)
        assert (whole.version, whole.change_description) == (6, "Rollback to version 1")
        assert await catalog.state(*here, "r") == State({"s": 1}, 1)
        for call in (
            catalog.row_versions(*here, "none"),
            catalog.row_version(*here, "r", 4),
            catalog.row_version(*here, "r", 0),
            catalog.row_version(*here, "r", 10**30),
            catalog.rollback_row(*here, "r", 4),
            catalog.rollback_row(*here, "none", 1),
            catalog.copy_row(*here, "r", 4),
            catalog.copy_row(*here, "none", 1),
            catalog.copy_row(*here, "r", 1, target="none"),
        ):
            with pytest.raises(NotFound):
                await call
        assert (await catalog.configuration(*here)).version == 6

    async def test_a_row_can_be_copied(
        self, catalog: Catalog, project: Project, config: Configuration
    ) -> None:
        here = (project.id, COMPONENT, "c")
        await catalog.create_configuration(*here[:2], "d", config_id="d")
        await catalog.create_row(*here, row_id="r", name="one", configuration={"n": [1]})
        await catalog.update_row(*here, "r", {"configuration": {}})

        beside = await catalog.copy_row(*here, "r", 2)
        there = await catalog.copy_row(*here, "r", 1, target="d", change_description="why")

        assert (beside.name, beside.configuration, beside.version) == ("one", {}, 1)
        assert [row.id for row in (await catalog.configuration(*here)).rows] == ["r", beside.id]
        other = await catalog.configuration(project.id, COMPONENT, "d")
        assert (other.rows, other.version, other.change_description) == ((there,), 2, "why")
        assert there.configuration == {"n": [1]}

    async def test_a_deleted_row_says_why(
        self, catalog: Catalog, project: Project, config: Configuration
    ) -> None:
        here = (project.id, COMPONENT, "c")
        await catalog.create_row(*here, row_id="r")

        await catalog.delete_row(*here, "r", change_description="why")

        assert (await catalog.configuration(*here)).change_description == "why"
        with pytest.raises(NotFound):
            await catalog.row_versions(*here, "r")

    # -- metadata --------------------------------------------------------------------------------

    async def test_configurations_and_branches_can_be_spoken_of(
        self, catalog: Catalog, project: Project, config: Configuration, branch: Branch | None
    ) -> None:
        here: dict[str, Any] = {"component_id": COMPONENT, "config_id": "c"}
        assert await catalog.metadata(project.id, **here) == []
        assert await catalog.metadata(project.id) == []
        with pytest.raises(NotFound):
            await catalog.metadata(project.id, component_id=COMPONENT, config_id="none")
        try:
            first = await catalog.put_metadata(project.id, {"b": "1", "a": "ž"}, **here)
        except InvalidInput:  # a catalog that keeps no metadata
            return

        assert [(each.key, each.value, each.provider) for each in first] == [
            ("b", "1", "user"),
            ("a", "ž", "user"),
        ]
        assert first[0].timestamp.tzinfo is not None
        second = await catalog.put_metadata(project.id, {"b": "2", "c": ""}, **here)
        assert [(each.key, each.value) for each in second] == [("b", "2"), ("a", "ž"), ("c", "")]
        assert [each.id for each in second][:2] == [each.id for each in first]
        assert await catalog.metadata(project.id, **here) == second
        assert await catalog.metadata(project.id) == []
        (version,) = await catalog.configuration_versions(project.id, COMPONENT, "c")
        assert version.version == 1

        (said,) = await catalog.put_metadata(project.id, {"b": "of the branch"})
        assert said.id not in {each.id for each in second}
        if branch is not None:
            assert await catalog.metadata(project.id, branch=branch.id) == []
            await catalog.put_metadata(project.id, {"b": "dev"}, branch=branch.id)
        assert await catalog.metadata(project.id) == [said]

        for absent in (said.id, "0", "x", ""):
            with pytest.raises(NotFound) as caught:
                await catalog.delete_metadata(project.id, absent, **here)
            assert (caught.value.kind, caught.value.id) == ("metadata", absent)
        with pytest.raises(NotFound):
            await catalog.delete_metadata(project.id, first[0].id)
        await catalog.delete_metadata(project.id, first[1].id, **here)
        assert [each.key for each in await catalog.metadata(project.id, **here)] == ["b", "c"]
        await catalog.delete_metadata(project.id, said.id)
        assert await catalog.metadata(project.id) == []

    async def test_configurations_are_found_by_their_metadata(
        self, catalog: Catalog, project: Project, config: Configuration
    ) -> None:
        await catalog.create_configuration(project.id, COMPONENT, "d", config_id="d")
        await catalog.create_configuration(project.id, COMPONENT, "e", config_id="e")
        try:
            for config_id, values in {"c": {"k": "1", "l": "2"}, "d": {"k": "3"}}.items():
                await catalog.put_metadata(
                    project.id, values, component_id=COMPONENT, config_id=config_id
                )
        except InvalidInput:
            assert await catalog.find_metadata(project.id) == []
            return
        elsewhere = await catalog.create_project("elsewhere")

        async def found(**wanted: Any) -> dict[str, dict[str, str]]:
            return {
                each.config_id: {entry.key: entry.value for entry in each.entries}
                for each in await catalog.find_metadata(project.id, **wanted)
            }

        assert await found() == {"c": {"k": "1", "l": "2"}, "d": {"k": "3"}}
        assert await found(keys=["l"]) == {"c": {"l": "2"}}
        assert await found(keys=[]) == await found(keys=["none"]) == {}
        assert await found(component_id=COMPONENT, config_id="d") == {"d": {"k": "3"}}
        assert await found(component_id="none") == await found(config_id="e") == {}
        assert await catalog.find_metadata(elsewhere.id) == []
        await catalog.delete_configuration(project.id, COMPONENT, "d")
        assert set(await found()) == {"c"}

    # -- workspaces ------------------------------------------------------------------------------

    async def test_workspaces_are_on_record(
        self, catalog: Catalog, project: Project, config: Configuration, token: Token
    ) -> None:
        assert await catalog.workspaces(project.id) == []
        for absent in (0, 10**20):
            with pytest.raises(NotFound):
                await catalog.delete_workspace(project.id, absent)
        here = (project.id, COMPONENT, "c")
        try:
            first = await catalog.create_workspace(*here, key="k", token=token)
        except InvalidInput:  # a catalog that keeps none
            return

        second = await catalog.create_workspace(*here, is_read_only=False)

        assert await catalog.create_workspace(*here, key="k") == first
        assert (first.component_id, first.config_id, first.is_read_only) == (COMPONENT, "c", True)
        assert (first.creator_token_id, second.is_read_only) == (token.id, False)
        assert await catalog.workspaces(project.id) == [first, second]
        with pytest.raises(NotFound):
            await catalog.create_workspace(project.id, COMPONENT, "none")
        elsewhere = await catalog.create_project("elsewhere")
        with pytest.raises(NotFound):
            await catalog.delete_workspace(elsewhere.id, first.id)
        await catalog.delete_workspace(project.id, first.id)
        assert await catalog.workspaces(project.id) == [second]
        await catalog.delete_configuration(*here)
        await catalog.delete_configuration(*here)
        assert await catalog.workspaces(project.id) == []

    # -- branches --------------------------------------------------------------------------------

    async def test_a_branch_is_renamed(
        self, catalog: Catalog, project: Project, branch: Branch | None
    ) -> None:
        if branch is None:
            with pytest.raises(InvalidInput):
                await catalog.update_branch(project.id, "default", name="x")
            return

        changed = await catalog.update_branch(project.id, branch.id, name="new")
        assert (changed.id, changed.name, changed.description) == (branch.id, "new", "")
        changed = await catalog.update_branch(project.id, branch.id, name="new", description="d")
        assert (changed.name, changed.description) == ("new", "d")
        assert changed in await catalog.branches(project.id)
        main = (await catalog.branches(project.id))[0]
        with pytest.raises(Exception, match="Main"):
            await catalog.update_branch(project.id, branch.id, name=main.name)
        with pytest.raises(InvalidInput):
            await catalog.update_branch(project.id, branch.id, name=" ")
        with pytest.raises(NotFound):
            await catalog.update_branch(project.id, "0", name="x")

    async def test_a_branch_shows_what_it_has_not_changed(
        self, catalog: Catalog, project: Project, config: Configuration, branch: Branch | None
    ) -> None:
        if branch is None:
            return
        here = (project.id, COMPONENT, "c")
        await catalog.create_row(*here, row_id="r")
        await catalog.put_state(*here, "r", {"of": "main"})
        await catalog.put_state(*here, None, {"of": "dev"}, key="k", branch=branch.id)
        main = await catalog.configuration(*here)

        seen = await catalog.configuration(*here, branch=branch.id)
        assert seen == main
        assert await catalog.configurations(project.id, branch=branch.id) == [seen]

        changed = await catalog.update_configuration(*here, {"name": "dev"}, branch=branch.id)
        await catalog.update_row(*here, "r", {"name": "dev"}, branch=branch.id)

        assert (changed.version, changed.name) == (3, "dev")
        assert await catalog.configuration(*here) == main
        dev = await catalog.configuration(*here, branch=branch.id)
        assert (dev.version, dev.rows[0].name) == (4, "dev")
        assert await catalog.configurations(project.id, branch=branch.id) == [dev]
        assert await catalog.configurations(project.id) == [main]
        versions = await catalog.configuration_versions(*here, branch=branch.id)
        assert [each.name for each in versions] == ["dev", "dev", "first", "first"]
        assert versions[2].version_identifier == main.version_identifier
        assert await catalog.state(*here, branch=branch.id) == State({"of": "dev"}, 1)
        again = await catalog.put_state(*here, None, {}, key="k", branch=branch.id)
        assert again == State({"of": "dev"}, 1)
        assert await catalog.state(*here, "r", branch=branch.id) == State({}, 0)
        await catalog.update_configuration(*here, {"name": "main"})
        assert (await catalog.configuration(*here, branch=branch.id)).name == "dev"

        await catalog.delete_branch(project.id, branch.id)
        assert (await catalog.configuration(*here)).name == "main"
        with pytest.raises(NotFound):
            await catalog.configuration(*here, branch=branch.id)

    async def test_a_branch_adds_and_deletes_for_itself(
        self, catalog: Catalog, project: Project, config: Configuration, branch: Branch | None
    ) -> None:
        if branch is None:
            return
        here = (project.id, COMPONENT, "c")
        new = (project.id, COMPONENT, "new")
        other = await catalog.create_branch(project.id, "other")

        made = await catalog.create_configuration(
            *new[:2], "new", config_id="new", state={"s": 1}, branch=branch.id
        )
        await catalog.create_row(*new, row_id="r", state={"r": 1}, branch=branch.id)
        await catalog.delete_configuration(*here, branch=branch.id)

        assert made.version == 1
        assert await catalog.state(*new, branch=branch.id) == State({"s": 1}, 1)
        assert await catalog.state(*new, "r", branch=branch.id) == State({"r": 1}, 1)
        seen = await catalog.configurations(project.id, branch=branch.id)
        assert [each.id for each in seen] == ["new"]
        found = await catalog.states(project.id, seen, branch=branch.id)
        assert found[COMPONENT, "new", "r"] == State({"r": 1}, 1)
        for branch_id in (None, other.id):
            assert [
                each.id for each in await catalog.configurations(project.id, branch=branch_id)
            ] == ["c"]
            with pytest.raises(NotFound):
                await catalog.configuration(*new, branch=branch_id)
        (thrown,) = await catalog.deleted_configurations(project.id, branch=branch.id)
        assert thrown.id == "c"
        assert await catalog.deleted_configurations(project.id) == []

        await catalog.delete_configuration(*here, branch=branch.id)
        assert await catalog.deleted_configurations(project.id, branch=branch.id) == []
        with pytest.raises(NotFound):
            await catalog.configuration(*here, branch=branch.id)
        with pytest.raises(NotFound):
            await catalog.delete_configuration(*here, branch=branch.id)
        assert (await catalog.configuration(*here)).version == 1

        anew = await catalog.create_configuration(
            *here[:2], "anew", config_id="c", branch=branch.id
        )
        assert (anew.version, anew.configuration) == (1, {})
        assert (await catalog.configuration(*here)).name == "first"
        main = await catalog.create_configuration(*new[:2], "main's", config_id="new")
        assert main.version == 1
        assert (await catalog.configuration(*new, branch=branch.id)).name == "new"

    async def test_a_branch_speaks_for_itself(
        self, catalog: Catalog, project: Project, config: Configuration, branch: Branch | None
    ) -> None:
        here: dict[str, Any] = {"component_id": COMPONENT, "config_id": "c"}
        if branch is None:
            return
        try:
            (said,) = await catalog.put_metadata(project.id, {"k": "main"}, **here)
        except InvalidInput:
            return
        assert await catalog.metadata(project.id, **here, branch=branch.id) == [said]

        await catalog.put_metadata(project.id, {"k": "dev", "l": ""}, **here, branch=branch.id)

        assert await catalog.metadata(project.id, **here) == [said]
        own = await catalog.metadata(project.id, **here, branch=branch.id)
        assert [(each.key, each.value) for each in own] == [("k", "dev"), ("l", "")]
        (found,) = await catalog.find_metadata(project.id, branch=branch.id)
        assert list(found.entries) == own
        with pytest.raises(NotFound):
            await catalog.delete_metadata(project.id, own[0].id, **here)
        await catalog.delete_metadata(project.id, own[0].id, **here, branch=branch.id)
        assert await catalog.metadata(project.id, **here) == [said]

        other = await catalog.create_branch(project.id, "other")
        await catalog.delete_metadata(project.id, said.id, **here, branch=other.id)
        assert await catalog.metadata(project.id, **here, branch=other.id) == []
        assert await catalog.metadata(project.id, **here) == [said]


def component_document(component_id: str, **members: Any) -> dict[str, Any]:
    """A component as it is registered."""
    return {
        "id": component_id,
        "type": "application",
        "name": "X",
        "data": {"definition": {"type": "dockerhub", "uri": "x"}, "a": {}, "b": []},
        **members,
    }
