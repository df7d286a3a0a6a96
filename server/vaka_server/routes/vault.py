"""Vault variables, and credentials that were granted to components. All of it is our own."""

from __future__ import annotations

from vaka_server import documents, encrypting
from vaka_server.access import Access, check_component
from vaka_server.problems import Refused
from vaka_server.requests import flag
from vaka_server.route import Call, Response, Route


async def variables(call: Call) -> Response:
    """`GET /vaka/vault`: what jobs in a branch see."""
    found = await call.engine.catalog.vault_variables(call.project.id, branch=call.text("branch"))
    return call.storage([documents.vault_variable(each) for each in found])


async def put_variable(call: Call, name: str) -> Response:
    """`PUT /vaka/vault/{name}`."""
    given = await call.json_object()
    value = given.get("value")
    if not isinstance(value, str | int | float) or isinstance(value, bool):
        raise Refused(400, "value: must be a text.")
    text, is_encrypted = str(value), flag(given, "isEncrypted")
    if is_encrypted:
        text = await encrypting.vault_value(call.engine.encryption, text, call.project.id)
    made = await call.engine.catalog.put_vault_variable(
        call.project.id,
        name,
        text,
        is_encrypted=is_encrypted,
        branch=None if given.get("branch") in (None, "") else str(given["branch"]),
    )
    return call.storage(documents.vault_variable(made))


async def delete_variable(call: Call, name: str) -> Response:
    """`DELETE /vaka/vault/{name}`."""
    await call.engine.catalog.delete_vault_variable(
        call.project.id, name, branch=call.text("branch")
    )
    return Response(b"", 204)


async def credentials(call: Call, component: str, credentials: str) -> Response:
    """`GET /vaka/oauth/{component}/{id}`: as they are kept, secrets encrypted."""
    check_component(call.token, component)
    found = await call.engine.catalog.oauth_credentials(call.project.id, component, credentials)
    return call.storage(dict(found))


async def put_credentials(call: Call, component: str, credentials: str) -> Response:
    """`PUT /vaka/oauth/{component}/{id}`."""
    check_component(call.token, component)
    given = await encrypting.credentials(
        call.engine.encryption, await call.json_object(), call.project.id, component
    )
    await call.engine.catalog.put_oauth_credentials(call.project.id, component, credentials, given)
    return Response(b"", 204)


async def delete_credentials(call: Call, component: str, credentials: str) -> Response:
    """`DELETE /vaka/oauth/{component}/{id}`."""
    check_component(call.token, component)
    await call.engine.catalog.delete_oauth_credentials(call.project.id, component, credentials)
    return Response(b"", 204)


_BRANCH = {"branch": "Id of a development branch; the default one when it is not given."}

ROUTES = (
    Route(
        "GET",
        "/vaka/vault",
        Access.READ,
        variables,
        "List the variables of the vault that jobs in a branch see",
        query=_BRANCH,
        answer="VaultVariable[]",
    ),
    Route(
        "PUT",
        "/vaka/vault/<name>",
        Access.MASTER,
        put_variable,
        "Set a variable of the vault",
        body="NewVaultVariable",
        answer="VaultVariable",
        audit="vault.set",
    ),
    Route(
        "DELETE",
        "/vaka/vault/<name>",
        Access.MASTER,
        delete_variable,
        "Remove a variable of the vault",
        query=_BRANCH,
        status=204,
        audit="vault.removed",
    ),
    Route(
        "GET",
        "/vaka/oauth/<component>/<credentials>",
        Access.READ,
        credentials,
        "Credentials of a component, secrets encrypted",
        answer="Credentials",
    ),
    Route(
        "PUT",
        "/vaka/oauth/<component>/<credentials>",
        Access.ADMIN,
        put_credentials,
        "Keep credentials of a component; their secrets are encrypted",
        body="Credentials",
        status=204,
        audit="credentials.set",
    ),
    Route(
        "DELETE",
        "/vaka/oauth/<component>/<credentials>",
        Access.ADMIN,
        delete_credentials,
        "Forget credentials of a component",
        status=204,
        audit="credentials.removed",
    ),
)
