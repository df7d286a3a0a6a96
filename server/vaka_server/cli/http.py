"""An installation behind its HTTP API."""

from __future__ import annotations

import os
import stat
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote, urlsplit
from uuid import uuid4

import httpx
import trio

from vaka.errors import (
    AccessDenied,
    ApplicationError,
    AuthenticationFailed,
    Conflict,
    InvalidInput,
    NotAllowed,
    NotFound,
    Overloaded,
    UserError,
)
from vaka.models.event import Event
from vaka_server.cli.client import (
    Act,
    AuditFilter,
    Client,
    Document,
    JobFilter,
    Load,
    NewToken,
    Owner,
    Progress,
    ProjectChange,
    Run,
    Sealing,
    Select,
    Upload,
)

CHUNK = 1 << 18
PATIENCE = 60.0
"""Seconds to wait for a server that went away while a job is followed."""
PAUSE = 0.5
TIMEOUT = httpx.Timeout(60.0, connect=10.0)
UNHURRIED = httpx.Timeout(None, connect=10.0)
"""For what may take as long as the data is large, or the job runs."""


class NoServer(ApplicationError):
    """The server does not answer."""


class HttpClient(Client):
    """Talks to the server at `url`, with a token."""

    def __init__(self, url: str, token: str | None) -> None:
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.netloc:
            raise InvalidInput(f"{url!r} is not the URL of a server; it begins with http://.")
        self._url = url.rstrip("/")
        headers = {"User-Agent": "vaka"}
        if token:
            headers["X-StorageApi-Token"] = token
        self._http = httpx.AsyncClient(base_url=self._url, headers=headers, timeout=TIMEOUT)

    @property
    def is_embedded(self) -> bool:
        return False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._http.aclose()

    # -- jobs ----------------------------------------------------------------------------------

    async def run(self, wanted: Run) -> Document:
        path = f"/docker/{_segment(wanted.component)}/{wanted.mode}"
        body = wanted.body
        if wanted.tag is not None and wanted.mode == "debug":
            body = {**body, "tag": wanted.tag}
        elif wanted.tag is not None:
            path += f"/tag/{_segment(wanted.tag)}"
        created = await self._json(
            "POST", path, json=body, headers={"Idempotency-Key": wanted.key or uuid4().hex}
        )
        return await self.job(int(created["id"]))

    async def act(self, wanted: Act) -> Any:
        path = f"/docker/{_segment(wanted.component)}/action/{_segment(wanted.action)}"
        return await self._json("POST", path, json=wanted.body, timeout=UNHURRIED)

    async def job(self, job_id: int) -> Document:
        return _object(
            await self._json("GET", f"/queue/job/{job_id}", params={"include": "stages"})
        )

    async def jobs(self, wanted: JobFilter) -> list[Document]:
        params: dict[str, Any] = {"limit": wanted.limit, "offset": wanted.offset}
        if wanted.component is not None:
            params["params.component"] = wanted.component
        if wanted.config is not None:
            params["params.config"] = wanted.config
        if wanted.statuses:
            params["status"] = ",".join(wanted.statuses)
        if wanted.since is not None:
            params["since"] = wanted.since
        if wanted.query is not None:
            params["q"] = wanted.query
        return _list(await self._json("GET", "/queue/job", params=params))

    async def events(
        self, job_id: int, *, after: int = 0, follow: bool, kinds: tuple[str, ...] = ()
    ) -> AsyncGenerator[Event, None]:
        away_since: float | None = None
        while True:
            try:
                async with (
                    self._stream(
                        "GET",
                        f"/queue/jobs/{job_id}/events",
                        params={
                            "after": after,
                            "follow": "1" if follow else "0",
                            "kind": ",".join(kinds),
                        },
                        timeout=UNHURRIED,
                    ) as response,
                    aclosing(_lines(response)) as lines,
                ):
                    async for line in lines:
                        away_since = None
                        event = Event.from_json(line)
                        after = event.seq
                        yield event
                if not follow or (await self.job(job_id))["isFinished"]:
                    return
            except NoServer:
                # a server that is started again goes on with its jobs, and so do we
                now = trio.current_time()
                away_since = now if away_since is None else away_since
                if not follow or now - away_since > PATIENCE:
                    raise
            await trio.sleep(PAUSE)

    async def cancel(self, job_id: int) -> None:
        await self._json("POST", f"/queue/job/{job_id}/kill")

    async def gc_plan(self) -> Document:
        return _object(await self._json("GET", "/vaka/gc", timeout=UNHURRIED))

    async def gc_apply(self, timeout: float | None, say: Callable[[str], None]) -> Document:
        report = _object(
            await self._json("POST", "/vaka/gc", json={"timeout": timeout}, timeout=UNHURRIED)
        )
        for line in report.pop("lines"):
            say(line)
        return report

    # -- catalog -------------------------------------------------------------------------------

    async def components(self) -> list[Document]:
        return _list(_object(await self._json("GET", "/v2/storage"))["components"])

    async def component(self, component: str) -> Document:
        return _object(await self._json("GET", _component(component)))

    async def put_component(self, document: Mapping[str, Any]) -> Document:
        return _object(
            await self._json("PUT", _component(str(document["id"])), json=dict(document))
        )

    async def configs(self, component: str | None) -> list[Document]:
        if component is not None:
            found = _list(await self._json("GET", f"{_component(component)}/configs"))
            return [{"componentId": component, **each} for each in found]
        known = _list(
            await self._json(
                "GET", "/v2/storage/components", params={"include": "configuration,rows,state"}
            )
        )
        return [
            {"componentId": each["id"], **config}
            for each in known
            for config in each["configurations"]
        ]

    async def config(self, component: str, config: str, version: int | None = None) -> Document:
        path = _config(component, config)
        if version is not None:
            path += f"/versions/{version}"
        return _object(await self._json("GET", path))

    async def config_versions(self, component: str, config: str) -> list[Document]:
        return _list(await self._json("GET", f"{_config(component, config)}/versions"))

    async def create_config(self, component: str, body: Mapping[str, Any]) -> Document:
        path = f"{_component(component)}/configs"
        return _object(await self._json("POST", path, json=dict(body)))

    async def update_config(self, component: str, config: str, body: Mapping[str, Any]) -> Document:
        return _object(await self._json("PUT", _config(component, config), json=dict(body)))

    async def create_row(self, component: str, config: str, body: Mapping[str, Any]) -> Document:
        path = f"{_config(component, config)}/rows"
        return _object(await self._json("POST", path, json=dict(body)))

    async def update_row(
        self, component: str, config: str, row: str, body: Mapping[str, Any]
    ) -> Document:
        path = f"{_config(component, config)}/rows/{_segment(row)}"
        return _object(await self._json("PUT", path, json=dict(body)))

    async def delete_config(self, component: str, config: str) -> None:
        await self._json("DELETE", _config(component, config))

    async def trash(self, component: str | None) -> list[Document]:
        if component is not None:
            path = f"{_component(component)}/configs"
            found = _list(await self._json("GET", path, params={"isDeleted": "true"}))
            return [{"componentId": component, **each} for each in found]
        known = _list(
            await self._json("GET", "/v2/storage/components", params={"isDeleted": "true"})
        )
        return [
            {"componentId": each["id"], **config}
            for each in known
            for config in each["configurations"]
        ]

    async def restore_config(self, component: str, config: str) -> Document:
        return _object(await self._json("POST", f"{_config(component, config)}/restore"))

    async def rollback_config(
        self, component: str, config: str, version: int, body: Mapping[str, Any]
    ) -> Document:
        path = f"{_config(component, config)}/versions/{version}/rollback"
        return _object(await self._json("POST", path, json=dict(body)))

    async def copy_config(
        self, component: str, config: str, version: int, body: Mapping[str, Any]
    ) -> Document:
        path = f"{_config(component, config)}/versions/{version}/create"
        return _object(await self._json("POST", path, json=dict(body)))

    async def delete_row(
        self, component: str, config: str, row: str, body: Mapping[str, Any]
    ) -> None:
        await self._json("DELETE", _row(component, config, row), json=dict(body))

    async def row_versions(self, component: str, config: str, row: str) -> list[Document]:
        return _list(await self._json("GET", f"{_row(component, config, row)}/versions"))

    async def rollback_row(
        self, component: str, config: str, row: str, version: int, body: Mapping[str, Any]
    ) -> Document:
        path = f"{_row(component, config, row)}/versions/{version}/rollback"
        return _object(await self._json("POST", path, json=dict(body)))

    async def copy_row(
        self, component: str, config: str, row: str, version: int, body: Mapping[str, Any]
    ) -> Document:
        path = f"{_row(component, config, row)}/versions/{version}/create"
        return _object(await self._json("POST", path, json=dict(body)))

    async def metadata(self, of: Owner | None) -> list[Document]:
        return _list(await self._json("GET", _metadata(of)))

    async def all_metadata(self) -> list[Document]:
        found = await self._json(
            "GET",
            "/v2/storage/search/component-configurations",
            params={"include": "filteredMetadata"},
        )
        return [each for each in _list(found) if each["metadata"]]

    async def put_metadata(self, of: Owner | None, values: Mapping[str, str]) -> list[Document]:
        entries = [{"key": key, "value": value} for key, value in values.items()]
        return _list(await self._json("POST", _metadata(of), json={"metadata": entries}))

    async def delete_metadata(self, of: Owner | None, entry: str) -> None:
        await self._json("DELETE", f"{_metadata(of)}/{_segment(entry)}")

    async def state(self, component: str, config: str, row: str | None) -> Document:
        return _object(await self._json("GET", _state(component, config, row)))

    async def put_state(
        self, component: str, config: str, row: str | None, body: Mapping[str, Any]
    ) -> None:
        await self._json("PUT", _state(component, config, row), json=dict(body))

    async def project(self) -> Document:
        return _object(_object(await self._json("GET", "/v2/storage/tokens/verify"))["owner"])

    async def update_project(self, wanted: ProjectChange) -> Document:  # noqa: ARG002 - for none
        raise AccessDenied(
            "Features and limits of a project are its operator's: stop the server, and change them on "
            f"its host with --home instead of --url ({self._url})."
        )

    async def tokens(self) -> list[Document]:
        return _list(await self._json("GET", "/v2/storage/tokens"))

    async def create_token(self, wanted: NewToken) -> Document:
        body: dict[str, Any] = {"description": wanted.description, "role": wanted.role}
        if wanted.expires_in is not None:
            body["expiresIn"] = wanted.expires_in
        if wanted.component_access is not None:
            body["componentAccess"] = list(wanted.component_access)
        if wanted.bucket_permissions is not None:
            body["bucketPermissions"] = dict(wanted.bucket_permissions)
        return _object(await self._json("POST", "/v2/storage/tokens", json=body))

    async def revoke_token(self, token_id: str) -> None:
        await self._json("DELETE", f"/v2/storage/tokens/{_segment(token_id)}?force=1")

    async def refresh_token(self, token_id: str) -> Document:
        return _object(await self._json("POST", f"/v2/storage/tokens/{_segment(token_id)}/refresh"))

    async def projects(self) -> list[Document]:
        return _list(await self._json("GET", "/vaka/projects"))

    async def create_project(self, name: str, features: Sequence[str]) -> Document:
        body = {"name": name, "features": list(features)}
        return _object(await self._json("POST", "/vaka/projects", json=body))

    async def audit(self, wanted: AuditFilter) -> list[Document]:
        query: dict[str, Any] = {
            "kind": wanted.kind,
            "token": wanted.token,
            "since": wanted.since,
            "all": "1" if wanted.everything else None,
            "limit": wanted.limit,
        }
        given = {name: value for name, value in query.items() if value is not None}
        return _list(await self._json("GET", "/vaka/audit", params=given))

    async def branches(self) -> list[Document]:
        return _list(await self._json("GET", "/vaka/branches"))

    async def create_branch(self, name: str, description: str) -> Document:
        body = {"name": name, "description": description}
        return _object(await self._json("POST", "/vaka/branches", json=body))

    async def delete_branch(self, branch: str) -> None:
        await self._json("DELETE", f"/vaka/branches/{_segment(branch)}")

    async def vault(self, branch: str | None) -> list[Document]:
        return _list(await self._json("GET", "/vaka/vault", params=_branch(branch)))

    async def put_vault_variable(
        self, name: str, value: str, branch: str | None, *, is_encrypted: bool
    ) -> Document:
        body = {"value": value, "isEncrypted": is_encrypted, "branch": branch}
        return _object(await self._json("PUT", f"/vaka/vault/{_segment(name)}", json=body))

    async def delete_vault_variable(self, name: str, branch: str | None) -> None:
        await self._json("DELETE", f"/vaka/vault/{_segment(name)}", params=_branch(branch))

    async def credentials(self, component: str, credentials: str) -> Document:
        return _object(await self._json("GET", _credentials(component, credentials)))

    async def put_credentials(
        self, component: str, credentials: str, document: Mapping[str, Any]
    ) -> None:
        await self._json("PUT", _credentials(component, credentials), json=dict(document))

    async def delete_credentials(self, component: str, credentials: str) -> None:
        await self._json("DELETE", _credentials(component, credentials))

    # -- secrets -------------------------------------------------------------------------------

    async def can_encrypt(self) -> bool:
        return bool(_object(await self._json("GET", "/encryption"))["canEncrypt"])

    async def encrypt(self, wanted: Sealing) -> bytes:
        return await self._sealed("/docker/encrypt", wanted)

    async def migrate(self, wanted: Sealing) -> bytes:
        return await self._sealed("/docker/migrate", wanted)

    async def _sealed(self, path: str, wanted: Sealing) -> bytes:
        kind = "text/plain" if wanted.form == "text" else "application/json"
        async with self._stream(
            "POST",
            path,
            params=dict(wanted.ids),
            content=wanted.body,
            headers={"Content-Type": kind},
            timeout=UNHURRIED,
        ) as response:
            return await response.aread()

    # -- storage -------------------------------------------------------------------------------

    async def buckets(self) -> list[Document]:
        return _list(await self._json("GET", "/v2/storage/buckets"))

    async def create_bucket(self, stage: str, name: str, description: str) -> Document:
        body = {"stage": stage, "name": name, "description": description}
        return _object(await self._json("POST", "/v2/storage/buckets", json=body))

    async def tables(self, bucket: str | None) -> list[Document]:
        path = "/v2/storage/tables"
        if bucket is not None:
            path = f"/v2/storage/buckets/{_segment(bucket)}/tables"
        return _list(await self._json("GET", path))

    async def load(self, wanted: Load, progress: Progress) -> Document:
        params: dict[str, Any] = {
            "incremental": str(wanted.incremental).lower(),
            "delimiter": wanted.delimiter,
            "enclosure": wanted.enclosure,
        }
        if wanted.primary_key is not None:
            params["primaryKey"] = ",".join(wanted.primary_key)
        if wanted.columns:
            params["columns"] = ",".join(wanted.columns)
        return await self._send(
            f"/vaka/tables/{_segment(wanted.table)}/load", params, wanted.path, progress
        )

    async def export(self, wanted: Select, target: Path, progress: Progress) -> int:
        path = f"/vaka/tables/{_segment(wanted.table)}/export"
        headers = await self._fetch(path, _select(wanted), target, progress)
        return int(headers["X-Vaka-Rows"])

    async def preview(self, wanted: Select) -> Document:
        params = {**_select(wanted), "format": "json"}
        path = f"/v2/storage/tables/{_segment(wanted.table)}/data-preview"
        return _object(await self._json("GET", path, params=params))

    async def files(self, tags: tuple[str, ...], query: str, limit: int) -> list[Document]:
        params = {"tags[]": list(tags), "q": query, "limit": limit}
        return _list(await self._json("GET", "/v2/storage/files", params=params))

    async def upload(self, wanted: Upload, progress: Progress) -> Document:
        params: dict[str, Any] = {
            "name": wanted.name,
            "tags[]": list(wanted.tags),
            "isPermanent": str(wanted.is_permanent).lower(),
        }
        return await self._send("/vaka/files", params, wanted.path, progress)

    async def download(self, file_id: int, target: Path, progress: Progress) -> Document:
        document = _object(await self._json("GET", f"/v2/storage/files/{file_id}"))
        await self._fetch(f"/vaka/files/{file_id}", {}, target, progress)
        return document

    # -- transport -----------------------------------------------------------------------------

    async def _json(self, method: str, path: str, **options: Any) -> Any:
        async with self._stream(method, path, **options) as response:
            await response.aread()
            return response.json() if response.content else None

    async def _send(
        self, path: str, params: Mapping[str, Any], source: Path, progress: Progress
    ) -> Document:
        length = _regular_size(source)
        headers = {"Idempotency-Key": uuid4().hex, "Content-Type": "application/octet-stream"}
        if length is not None:
            headers["Content-Length"] = str(length)
        async with self._stream(
            "POST",
            path,
            params=params,
            headers=headers,
            content=_read(source, length, progress),
            timeout=UNHURRIED,
        ) as response:
            await response.aread()
            return _object(response.json())

    async def _fetch(
        self, path: str, params: Mapping[str, Any], target: Path, progress: Progress
    ) -> httpx.Headers:
        async with self._stream("GET", path, params=params, timeout=UNHURRIED) as response:
            length = int(response.headers["Content-Length"])
            done = 0
            async with await trio.open_file(target, "xb") as file:
                async for data in response.aiter_bytes(CHUNK):
                    await file.write(data)
                    done += len(data)
                    progress(done, length)
            return response.headers

    @asynccontextmanager
    async def _stream(
        self, method: str, path: str, **options: Any
    ) -> AsyncIterator[httpx.Response]:
        """A response whose status is none of an error.

        Raises:
            NoServer: the server cannot be reached, or went away.
            EngineError: the server's own, by its status.
        """
        try:
            async with self._http.stream(method, path, **options) as response:
                if response.status_code >= 400:
                    await response.aread()
                    raise _error(response, method, path)
                yield response
        except httpx.TransportError as error:
            reason = str(error) or type(error).__name__
            raise NoServer(
                f"The server at {self._url} does not answer ({reason}). Start it with `vaka serve`, "
                "or name another one with --url."
            ) from error


def _error(response: httpx.Response, method: str, path: str) -> Exception:
    """The engine's error for a failed answer."""
    try:
        document = response.json()
    except ValueError:
        document = None
    if not isinstance(document, dict):
        document = {}
    text = str(
        document.get("message")
        or document.get("error")
        or f"The server answered {response.status_code} to {method} {path}."
    )
    exception = document.get("exceptionId")
    match response.status_code:
        case 401:
            return AuthenticationFailed(f"{text}. Check --token or VAKA_TOKEN.")
        case 403:
            return AccessDenied(text)
        case 404:
            return NotFound(text, kind="", id=path)
        case 405:
            return NotAllowed(text)
        case 409:
            return Conflict(text)
        case 400:
            if text == "Missing StorageAPI token":
                return AuthenticationFailed("No token was given; use --token or VAKA_TOKEN.")
            return InvalidInput(text)
        case 503 if (pause := response.headers.get("Retry-After", "")).isdigit():
            return Overloaded(text, retry_after=float(pause))
        case status if status < 500:
            return UserError(text)
        case status:
            tail = f" The server's log has it as {exception}." if exception else ""
            return ApplicationError(f"The server failed ({status}): {text}{tail}")


async def _lines(response: httpx.Response) -> AsyncGenerator[bytes, None]:
    """The lines of an answer. What text knows as line ends besides (U+2028) may stand within one."""
    rest = b""
    async for data in response.aiter_bytes():
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            yield line
    if rest:
        yield rest


async def _read(source: Path, length: int | None, progress: Progress) -> AsyncIterator[bytes]:
    """A file's bytes, at most `length`: what is written to it meanwhile is not sent."""
    done = 0
    async with await trio.open_file(source, "rb", buffering=0) as file:
        while data := await file.read(CHUNK if length is None else min(CHUNK, length - done)):
            yield data
            done += len(data)
            progress(done, length)


def _regular_size(path: Path) -> int | None:
    """A regular file's size; None for a pipe."""
    found = os.stat(path)  # noqa: PTH116 - of what the name leads to
    return found.st_size if stat.S_ISREG(found.st_mode) else None


def _select(wanted: Select) -> dict[str, Any]:
    params: dict[str, Any] = {}
    if wanted.columns:
        params["columns"] = ",".join(wanted.columns)
    if wanted.where_column is not None:
        params["whereColumn"] = wanted.where_column
        params["whereValues[]"] = list(wanted.where_values)
        params["whereOperator"] = wanted.where_operator
    given = {
        "changedSince": wanted.changed_since,
        "changedUntil": wanted.changed_until,
        "limit": wanted.limit,
    }
    params |= {name: value for name, value in given.items() if value is not None}
    if wanted.gzip:
        params["gzip"] = "true"
    return params


def _branch(branch: str | None) -> dict[str, str]:
    return {} if branch is None else {"branch": branch}


def _segment(text: str) -> str:
    return quote(text, safe="")


def _component(component: str) -> str:
    return f"/v2/storage/components/{_segment(component)}"


def _config(component: str, config: str) -> str:
    return f"{_component(component)}/configs/{_segment(config)}"


def _credentials(component: str, credentials: str) -> str:
    return f"/vaka/oauth/{_segment(component)}/{_segment(credentials)}"


def _row(component: str, config: str, row: str) -> str:
    return f"{_config(component, config)}/rows/{_segment(row)}"


def _metadata(of: Owner | None) -> str:
    return f"{'/v2/storage/branch/default' if of is None else _config(*of)}/metadata"


def _state(component: str, config: str, row: str | None) -> str:
    path = _config(component, config) if row is None else _row(component, config, row)
    return f"{path}/state"


def _object(value: Any) -> Document:
    if not isinstance(value, dict):
        raise ApplicationError("The server answered with something else than it should.")
    return value


def _list(value: Any) -> list[Document]:
    if not isinstance(value, list):
        raise ApplicationError("The server answered with something else than it should.")
    return value
