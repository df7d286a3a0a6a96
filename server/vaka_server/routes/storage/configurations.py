"""Configurations with their versions, state and trash (storage-api.md section 10.3)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from vaka.errors import AccessDenied, Conflict, NotFound
from vaka.models.catalog import Configuration
from vaka_server import documents
from vaka_server.access import Access
from vaka_server.fields import Fields
from vaka_server.problems import Refused, conflict_is
from vaka_server.route import Call, Response, Route, absent

VERSION_CONFLICT = "storage.components.configurations.versionConflict"
EXISTS = "configurationAlreadyExists"
INVALID = "storage.components.validation"
DETAILS: Final = frozenset({"configuration", "rows", "state"})
"""What `include` shows in lists; each of them shows all."""
MOST = 1_000_000_000


async def configs(call: Call, component: str) -> Response:
    """`GET …/configs`; with `isDeleted` those in the trash."""
    call.check_component(component)
    catalog = call.engine.catalog
    find = (
        catalog.deleted_configurations if call.query.flag("isDeleted") else catalog.configurations
    )
    found = await find(call.project.id, component, branch=call.branch)
    return call.storage(await configuration_documents(call, found))


async def config(call: Call, component: str, config: str) -> Response:
    """`GET …/configs/{id}`."""
    return call.storage(await _document(call, await stored(call, component, config)))


async def create_config(call: Call, component: str) -> Response:
    """`POST …/configs`."""
    call.check_component(component)
    await call.engine.catalog.component(component)
    given = await call.fields(code=INVALID)
    name = given.required("name")
    with conflict_is(400, EXISTS):
        created = await call.engine.catalog.create_configuration(
            call.project.id,
            component,
            name,
            config_id=given.text("configurationId") or None,
            description=given.text("description", ""),
            configuration=given.json("configuration"),
            is_disabled=given.flag("isDisabled"),
            state=given.json("state"),
            change_description=given.text("changeDescription", ""),
            token=call.token,
            branch=call.branch,
        )
    return call.storage(await _document(call, created), 201)


async def update_config(call: Call, component: str, config: str) -> Response:
    """`PUT …/configs/{id}`; our own `expectedVersion` refuses to overwrite what is newer."""
    call.check_component(component)
    given = await call.fields(code=INVALID)
    changes, state = changes_of(given), given.json("state")
    if "rowsSortOrder" in given:
        changes["rows_sort_order"] = given.texts("rowsSortOrder")
    if changes:
        with conflict_is(409, VERSION_CONFLICT):
            await call.engine.catalog.update_configuration(
                call.project.id,
                component,
                config,
                changes,
                change_description=given.text("changeDescription", ""),
                expected_version=given.whole("expectedVersion", None, most=MOST),
                token=call.token,
                branch=call.branch,
            )
    if state is not None:
        await store_state(call, component, config, None, state)
    return await config_answer(call, component, config)


async def delete_config(call: Call, component: str, config: str) -> Response:
    """`DELETE …/configs/{id}`: to the trash; a second time for good, if the token may."""
    call.check_component(component)
    catalog, here = call.engine.catalog, (call.project.id, component, config)
    if not call.token.can_purge_trash:
        try:
            await catalog.configuration(*here, branch=call.branch)
        except NotFound as error:
            deleted = await catalog.deleted_configurations(*here[:2], branch=call.branch)
            if any(each.id == config for each in deleted):
                raise AccessDenied(f"Token {call.token.id} cannot purge the trash.") from error
            raise
    await catalog.delete_configuration(*here, token=call.token, branch=call.branch)
    return Response(b"", 204)


async def restore_config(call: Call, component: str, config: str) -> Response:
    """`POST …/configs/{id}/restore`: out of the trash."""
    call.check_component(component)
    restored = await call.engine.catalog.restore_configuration(
        call.project.id, component, config, token=call.token, branch=call.branch
    )
    return call.storage(await _document(call, restored), 201)


# -- versions --------------------------------------------------------------------------------------


async def versions(call: Call, component: str, config: str) -> Response:
    """`GET …/configs/{id}/versions`."""
    call.check_component(component)
    catalog, here = call.engine.catalog, (call.project.id, component, config)
    limit, offset = page(call)
    found = await catalog.configuration_versions(
        *here, limit=limit, offset=offset, branch=call.branch
    )
    include = included(call)
    state = None
    if "state" in include:
        state = await catalog.state(*here, branch=call.branch)
    return call.storage([documents.version(each, include=include, state=state) for each in found])


async def version(call: Call, component: str, config: str, version: int) -> Response:
    """`GET …/configs/{id}/versions/{v}`."""
    call.check_component(component)
    found = await call.engine.catalog.configuration(
        call.project.id, component, config, version=version, branch=call.branch
    )
    return call.storage(documents.version_detail(found))


async def rollback_config(call: Call, component: str, config: str, version: int) -> Response:
    """`POST …/configs/{id}/versions/{v}/rollback`."""
    call.check_component(component)
    given = await call.fields(code=INVALID)
    changed = await call.engine.catalog.rollback_configuration(
        call.project.id,
        component,
        config,
        version,
        change_description=given.text("changeDescription", ""),
        token=call.token,
        branch=call.branch,
    )
    return call.storage({"version": changed.version}, 201)


async def copy_config(call: Call, component: str, config: str, version: int) -> Response:
    """`POST …/configs/{id}/versions/{v}/create`: a new configuration."""
    call.check_component(component)
    given = await call.fields(code=INVALID)
    made = await call.engine.catalog.copy_configuration(
        call.project.id,
        component,
        config,
        version,
        name=given.text("name") or None,
        description=given.text("description"),
        change_description=given.text("changeDescription", ""),
        token=call.token,
        branch=call.branch,
    )
    return call.storage({"id": made.id}, 201)


# -- state -----------------------------------------------------------------------------------------


async def state(call: Call, component: str, config: str) -> Response:
    """`GET …/configs/{id}/state`: our own, the state with its version."""
    call.check_component(component)
    found = await call.engine.catalog.state(call.project.id, component, config, branch=call.branch)
    return call.storage(documents.state(found))


async def put_state(call: Call, component: str, config: str) -> Response:
    """`PUT …/configs/{id}/state`."""
    call.check_component(component)
    await put_given_state(call, component, config, None)
    return await config_answer(call, component, config)


async def put_given_state(call: Call, component: str, config: str, row: str | None) -> None:
    """Store the state that the body has; `Refused` when it has none."""
    given = await call.fields(code=INVALID)
    value = given.json("state")
    if value is None:
        raise Refused(400, "state: is required.", code=INVALID)
    expected = given.whole("expectedVersion", None, most=MOST)
    await store_state(call, component, config, row, value, expected)


async def store_state(
    call: Call,
    component: str,
    config: str,
    row: str | None,
    value: Any,
    expected: int | None = None,
) -> None:
    """Replace a state, in the branch of the call."""
    try:
        await call.engine.catalog.put_state(
            call.project.id,
            component,
            config,
            row,
            value,
            expected_version=expected,
            branch=call.branch,
        )
    except Conflict as error:
        raise Refused(409, error.message, code=VERSION_CONFLICT) from error


# -- what rows and lists need as well --------------------------------------------------------------


def changes_of(given: Fields) -> dict[str, Any]:
    """What a body changes of a configuration or a row, by the catalog's names."""
    changes: dict[str, Any] = {}
    for name in ("name", "description"):
        if name in given:
            changes[name] = given.text(name)
    if "configuration" in given:
        changes["configuration"] = given.json("configuration")
    if "isDisabled" in given:
        changes["is_disabled"] = given.flag("isDisabled")
    return changes


def page(call: Call) -> tuple[int | None, int]:
    """Which of the versions are asked for."""
    return call.query.whole("limit", None, least=1, most=MOST), call.query.whole(
        "offset", 0, most=MOST
    )


def included(call: Call) -> frozenset[str]:
    """What versions show of themselves: what was asked for, or else what they are called."""
    return frozenset(call.query.words("include") or ("name", "description"))


async def stored(call: Call, component: str, config: str) -> Configuration:
    """The configuration of the path, if the token may use it."""
    call.check_component(component)
    return await call.engine.catalog.configuration(
        call.project.id, component, config, branch=call.branch
    )


async def configuration_documents(
    call: Call, found: Sequence[Configuration]
) -> list[documents.Document]:
    """Configurations with their states, and those of their rows."""
    states = await call.engine.catalog.states(call.project.id, found, branch=call.branch)
    return [documents.configuration(each, states=states) for each in found]


async def config_answer(call: Call, component: str, config: str) -> Response:
    """The configuration as it is now."""
    return call.storage(await _document(call, await stored(call, component, config)))


async def _document(call: Call, found: Configuration) -> documents.Document:
    (document,) = await configuration_documents(call, [found])
    return document


CONFIGS = "/v2/storage/components/<component>/configs"
CONFIG = f"{CONFIGS}/<config>"
_VERSION = f"{CONFIG}/versions/<int:version>"
PAGE = {
    "include": "name, description, configuration, state; else name and description",
    "limit": "How many, newest first",
    "offset": "How many of the newest to leave out",
}

ROUTES = (
    Route(
        "GET",
        CONFIGS,
        Access.READ,
        configs,
        "Configurations",
        query={"isDeleted": "Those in the trash"},
        answer="Configuration[]",
        branch=True,
    ),
    Route(
        "POST",
        CONFIGS,
        Access.ADMIN,
        create_config,
        "Store a configuration",
        body="NewConfiguration",
        answer="Configuration",
        status=201,
        branch=True,
    ),
    Route(
        "GET", CONFIG, Access.READ, config, "One configuration", answer="Configuration", branch=True
    ),
    Route(
        "PUT",
        CONFIG,
        Access.ADMIN,
        update_config,
        "Change a configuration",
        body="ConfigurationChanges",
        answer="Configuration",
        branch=True,
    ),
    Route(
        "DELETE",
        CONFIG,
        Access.ADMIN,
        delete_config,
        "Move a configuration to the trash, or remove it from there for good",
        status=204,
        branch=True,
    ),
    Route(
        "POST",
        f"{CONFIG}/restore",
        Access.ADMIN,
        restore_config,
        "Take a configuration out of the trash",
        answer="Configuration",
        status=201,
        branch=True,
    ),
    Route(
        "GET",
        f"{CONFIG}/versions",
        Access.READ,
        versions,
        "Versions, newest first",
        query=PAGE,
        answer="Version[]",
        branch=True,
    ),
    Route(
        "GET", _VERSION, Access.READ, version, "One version", answer="VersionDetail", branch=True
    ),
    Route(
        "POST",
        f"{_VERSION}/rollback",
        Access.ADMIN,
        rollback_config,
        "Make a version what the configuration is",
        body="Change",
        answer="NewVersion",
        status=201,
        branch=True,
    ),
    Route(
        "POST",
        f"{_VERSION}/create",
        Access.ADMIN,
        copy_config,
        "Copy a version to a new configuration",
        body="Copy",
        answer="NewId",
        status=201,
        branch=True,
    ),
    Route("GET", f"{CONFIG}/state", Access.READ, state, "State", answer="State", branch=True),
    Route(
        "PUT",
        f"{CONFIG}/state",
        Access.ADMIN,
        put_state,
        "Replace the state",
        body="NewState",
        answer="Configuration",
        branch=True,
    ),
    absent("GET", f"{CONFIG}/diff", "Comparing branches", branch=True),
    absent("POST", f"{CONFIG}/rebase", "Merging branches", branch=True),
    absent("POST", f"{CONFIG}/reset-to-default", "Merging branches", branch=True),
)
