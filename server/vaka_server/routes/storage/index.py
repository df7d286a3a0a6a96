"""Storage's index: services and components, for anybody (storage-api.md section 2.1)."""

from __future__ import annotations

from importlib import metadata

from vaka_server import documents
from vaka_server.access import Access
from vaka_server.hosts import SERVICES
from vaka_server.route import Call, Response, Route


async def index(call: Call) -> Response:
    """`GET /v2/storage`: services and components, for anybody."""
    exclude = set(call.query.words("exclude"))
    document: documents.Document = {
        "api": "storage",
        "version": "v2",
        "revision": metadata.version("vaka"),
        "documentation": f"{call.base}/openapi.json",
        "services": [{"id": service, "url": call.service_url(service)} for service in SERVICES],
        "urlTemplates": {},
        "features": [],
        "stack": call.engine.config.stack_id,
    }
    if "components" not in exclude:
        known = [
            documents.component(each, call.base) for each in await call.engine.catalog.components()
        ]
        if "componentDetails" in exclude:
            known = [documents.component_summary(each) for each in known]
        document["components"] = known
    return call.storage(document)


ROUTES = (
    Route(
        "GET",
        "/v2/storage",
        Access.PUBLIC,
        index,
        "Services and components",
        query={"exclude": "components, or componentDetails"},
        answer="Index",
    ),
)
