"""Search for configurations by their metadata, and for anything by its name.

Source: storage-api.md sections 11.4 and 11.5.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Iterator
from datetime import datetime
from typing import Any, Final

from vaka.models.catalog import Branch, Configuration
from vaka.models.storage import StorageScope
from vaka_server import documents
from vaka_server.access import Access
from vaka_server.problems import Refused
from vaka_server.route import Call, Response, Route

GLOBAL_SEARCH: Final = "global-search"
"""Feature of projects whose things can be searched for by name; in others nothing is found."""
_FIELDS: Final = frozenset({"idComponent", "configurationId", "metadataKeys", "include"})
_MOST: Final = 1_000
_FLOWS: Final = frozenset({"keboola.orchestrator", "keboola.flow"})
_SHARED_CODE: Final = "keboola.shared-code"


async def configurations(call: Call) -> Response:
    """`GET …/search/component-configurations`: one entry a configuration."""
    unknown = sorted(set(call.query.tree) - _FIELDS)
    if unknown:
        why = "".join(f'\n - {name}: "This field was not expected."' for name in unknown)
        raise Refused(400, f"Invalid request:{why}", code="validation.failed")
    component = call.query.text("idComponent") or None
    config = call.query.text("configurationId") or None
    keys = call.query.words("metadataKeys")
    found = {
        (each.component_id, each.config_id): each.entries
        for each in await call.engine.catalog.find_metadata(
            call.project.id,
            component_id=component,
            config_id=config,
            keys=keys or None,
            branch=call.branch,
        )
    }
    if not keys:
        for each in await call.engine.catalog.configurations(call.project.id, branch=call.branch):
            if component in {None, each.component_id} and config in {None, each.id}:
                found.setdefault((each.component_id, each.id), ())
    shows = "filteredMetadata" in call.query.words("include")
    return call.storage(
        [
            {
                "idComponent": component_id,
                "configurationId": config_id,
                **({"metadata": documents.remarks(entries)} if shows else {}),
            }
            for (component_id, config_id), entries in sorted(found.items())
            if call.may_use_component(component_id)
        ]
    )


async def by_name(call: Call) -> Response:
    """`GET /v2/storage/global-search`: what has a name with all words of `query` in it."""
    words = call.query.text("query", "").lower().split()
    limit = call.query.whole("limit", 50, least=1, most=_MOST)
    offset = call.query.whole("offset", 0, most=1_000_000)
    found: list[documents.Document] = []
    if words and _is_asked(call):
        types = set(call.query.words("types"))
        async for each in _named(call):
            name = each["name"].lower()
            if all(word in name for word in words) and (not types or each["type"] in types):
                found.append(each)
    found.sort(key=lambda each: (each["name"].lower(), each["type"], each["id"]))
    counts = Counter(str(each["type"]) for each in found)
    return call.storage(
        {
            "all": len(found),
            "items": found[offset : offset + limit],
            "byType": dict(sorted(counts.items())),
            "byProject": {call.project.id: call.project.name} if found else {},
        }
    )


def _is_asked(call: Call) -> bool:
    """Whether the project can be searched, and is one of those to be searched."""
    projects = call.query.words("projectIds")
    return GLOBAL_SEARCH in call.project.features and (not projects or call.project.id in projects)


async def _named(call: Call) -> AsyncIterator[documents.Document]:
    """Everything with a name that the token may see, in the branches that are asked for."""
    kinds, ids = set(call.query.words("branchTypes")), set(call.query.words("branchIds"))
    types = {each.id: each.type for each in await call.engine.catalog.components()}
    seen: set[str] = set()  # what a branch shows of the default one's is not found again
    for branch in await call.engine.catalog.branches(call.project.id):
        kind = "production" if branch.is_default else "development"
        is_wanted = (not kinds or kind in kinds) and (not ids or branch.id in ids)
        if not is_wanted and not branch.is_default:
            continue
        number = None if branch.is_default else branch.id
        for each in await call.engine.catalog.configurations(call.project.id, branch=number):
            is_new = each.version_identifier not in seen
            seen.add(each.version_identifier)
            if is_wanted and is_new and call.may_use_component(each.component_id):
                for found in _of_configuration(call, branch, each, types.get(each.component_id)):
                    yield found
        if is_wanted and branch.is_default:
            async for found in _of_storage(call, branch):
                yield found


def _of_configuration(
    call: Call, branch: Branch, value: Configuration, component_type: str | None
) -> Iterator[documents.Document]:
    here = {"component": {"id": value.component_id}}
    if value.component_id in _FLOWS:
        kind = "flow"
    elif value.component_id == _SHARED_CODE:
        kind = "shared-code"
    else:
        kind = "transformation" if component_type == "transformation" else "configuration"
    yield _thing(call, branch, kind, value.id, value.name, value.created, value.component_id, here)
    inside = here | {"configuration": {"id": value.id, "name": value.name}}
    for row in value.rows:
        yield _thing(
            call,
            branch,
            "configuration-row",
            row.id,
            row.name,
            row.created,
            value.component_id,
            inside,
        )


async def _of_storage(call: Call, branch: Branch) -> AsyncIterator[documents.Document]:
    tables, scope = call.engine.storage.tables, StorageScope(project=call.project.id)
    for bucket in await tables.list_buckets(scope):
        if call.may_use_bucket(bucket.id):
            name = bucket.display_name or bucket.name
            yield _thing(call, branch, "bucket", bucket.id, name, bucket.created, None, {})
    for table in await tables.list_tables(scope):
        bucket_id = table.id.rpartition(".")[0]
        if call.may_use_bucket(bucket_id):
            name, here = table.display_name or table.name, {"bucket": {"id": bucket_id}}
            yield _thing(call, branch, "table", table.id, name, table.created, None, here)


def _thing(
    call: Call,
    branch: Branch,
    kind: str,
    thing_id: str,
    name: str,
    created: datetime,
    component: str | None,
    path: dict[str, Any],
) -> documents.Document:
    return {
        "id": thing_id,
        "name": name,
        "type": kind,
        "fullPath": {
            "project": {"id": documents.number(call.project.id), "name": call.project.name},
            "branch": {"id": documents.number(branch.id), "name": branch.name},
            **path,
        },
        "componentId": component,
        "organizationId": 1,
        "projectId": documents.number(call.project.id),
        "projectName": call.project.name,
        "created": documents.storage_moment(created),
    }


ROUTES = (
    Route(
        "GET",
        "/v2/storage/search/component-configurations",
        Access.READ,
        configurations,
        "Configurations by their metadata",
        query={
            "idComponent": "Only of this component",
            "configurationId": "Only this one",
            "metadataKeys[]": "Only those that have one of these keys",
            "include": "filteredMetadata: show these entries, or all when no key is given",
        },
        answer="FoundConfiguration[]",
        branch=True,
    ),
    Route(
        "GET",
        f"/v2/storage/{GLOBAL_SEARCH}",
        Access.READ,
        by_name,
        "What has these words in its name",
        query={
            "query": "Words",
            "types[]": "Only things of these types, such as bucket, table, configuration",
            "projectIds[]": "Only in these projects; nothing is found in others than the token's",
            "branchTypes[]": "production, development",
            "branchIds[]": "Only in these branches",
            "limit": "How many",
            "offset": "How many to leave out",
        },
        answer="Found",
    ),
)
