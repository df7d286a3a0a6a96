"""Encrypting and migrating for anybody, and for who has a token (encryption.md section 9).

There is no way to have anything decrypted. Neither bodies nor answers are logged.
"""

from __future__ import annotations

import json
import logging
import secrets

from vaka.errors import AccessDenied
from vaka_server import encrypting
from vaka_server.access import Access
from vaka_server.route import Call, Response, Route

log = logging.getLogger(__name__)

OPERATOR = "X-Vaka-Operator-Token"
"""Header with the secret of the setting `operator_token`."""
LEFT_PLAIN = "X-Vaka-Left-Plain"
"""Header with the paths of what looks like a secret and was left as it is."""
_MOST_PATHS = 10


async def about(call: Call) -> Response:
    """`GET /encryption`: what answers, and whether it has keys."""
    return call.runner(
        {
            "api": "encryption",
            "documentation": f"{call.base}/openapi.json",
            "canEncrypt": call.engine.encryption.can_encrypt,
        }
    )


async def encrypt(call: Call) -> Response:
    """`POST /docker/encrypt`, in the order of encryption.md section 9.1."""
    given = encrypting.parameters(call.request.query_string)
    encrypting.refuse_unknown(given)
    scope = encrypting.scope_to_encrypt(encrypting.ids_of(given))
    submitted = await _submitted(call)
    body = await encrypting.encrypted(call.engine.encryption, submitted, scope)
    return _answer(body, submitted, 200)


async def migrate(call: Call) -> Response:
    """`POST /docker/migrate`, in the order of encryption.md section 9.2."""
    scope = encrypting.scope_to_migrate(
        encrypting.ids_of(encrypting.parameters(call.request.query_string))
    )
    if scope.project not in {None, call.project.id} and not _is_operator(call):
        raise AccessDenied(f"Token {call.token.id} is not one of project {scope.project}.")
    submitted = await _submitted(call)
    body = await encrypting.migrated(call.engine.encryption, submitted, scope)
    return _answer(body, submitted, 200 if submitted.form == "text" else 202)


async def _submitted(call: Call) -> encrypting.Submitted:
    form = encrypting.form_of(call.request.headers.get("Content-Type"))
    rates, client = call.app.rates, call.app.hosts.client(call.request)
    rates.admit(client)
    raw = await call.body.read(encrypting.MAX_BYTES)
    submitted = await encrypting.read_submitted(raw, form)
    rates.charge(client, submitted.cost)
    return submitted


def _answer(body: bytes, submitted: encrypting.Submitted, status: int) -> Response:
    if submitted.form == "text":
        return Response(body, status, content_type="text/plain")
    paths = submitted.left_plain
    headers = {}
    if paths:
        log.warning("encryption.left_plain", extra={"paths": paths[:_MOST_PATHS]})
        headers[LEFT_PLAIN] = json.dumps(paths[:_MOST_PATHS])
    return Response(body, status, headers, content_type="application/json")


def _is_operator(call: Call) -> bool:
    wanted = call.settings.operator_token
    given = call.request.headers.get(OPERATOR)
    return (
        wanted is not None
        and given is not None
        and secrets.compare_digest(
            given.encode("utf-8", "surrogateescape"), wanted.get_secret_value().encode()
        )
    )


_IDS = {
    "componentId": "Component that may read it; not needed for a whole project.",
    "projectId": "Project in which it may be read.",
    "configId": "Configuration in which it may be read; with projectId and componentId.",
    "branchType": "default or dev; with projectId.",
}
_BODY = "application/json"

ROUTES = (
    Route(
        "GET",
        "/encryption",
        Access.PUBLIC,
        about,
        "Whether secrets can be encrypted here",
        answer="application/json",
    ),
    *(
        route
        for prefix in ("/docker", "/encryption")
        for route in (
            Route(
                "POST",
                f"{prefix}/encrypt",
                Access.PUBLIC,
                encrypt,
                "Encrypt a text, or the values under # keys of a JSON document",
                query=_IDS,
                body=_BODY,
                answer=_BODY,
            ),
            Route(
                "POST",
                f"{prefix}/migrate",
                Access.READ,
                migrate,
                "Make ciphers anew: older ones, or in a narrower scope",
                query=_IDS,
                body=_BODY,
                answer=_BODY,
                status=202,
            ),
        )
    ),
)
