"""OAuth credentials: which of them a configuration asks for, and where they come from.

They are the configuration's own, a broker's over HTTP, or the catalog's (runner.md section 10.1). What
is fetched goes into one configuration file and into the masker, and is written down nowhere else.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final
from urllib.parse import quote

import httpx
from pydantic import SecretStr

from vaka.errors import ApplicationError, UserError
from vaka.hooks import Catalog
from vaka.models.catalog import Json
from vaka.models.configuration import JobConfiguration
from vaka.models.tree import is_blank, text

DEPRECATED: Final = (
    "OAuth Broker v2 has been deprecated on September 30, 2019. "
    "https://status.keboola.com/end-of-life-old-oauth-broker"
)
VERSION: Final = "3"
"""The only version of the broker that is asked."""
SUBMIT_AGAIN: Final = (
    "Submit it with one. Where there is no key ring, a token is kept in memory only, and lost when the "
    "service is started again."
)
"""What to do about a job that has no token and needs one."""
TIMEOUT: Final = 30.0
"""Seconds that each step of asking the broker may take."""
LARGEST: Final = 1 << 20
"""Bytes of an answer. Credentials have a few thousand."""
_SHORTEST_TOKEN: Final = 16
"""Characters. Shorter texts in a provider's data are words such as `bearer`, or numbers."""


def own_credentials(configuration: JobConfiguration) -> Json:
    """The credentials that a configuration brings itself; None when it has none."""
    authorization = configuration.data.get("authorization", {})
    return authorization.get("oauth_api", {}).get("credentials")


def wanted_credentials(configuration: JobConfiguration) -> str | None:
    """The id of the credentials that must be fetched; None when there is nothing to fetch.

    Raises:
        UserError: the configuration counts on a version of the broker that is no more.
    """
    asked = configuration.data.get("authorization", {}).get("oauth_api")
    if asked is None or asked.get("credentials") is not None:
        return None
    if text(asked.get("version")) != VERSION:
        raise UserError(DEPRECATED)
    return None if is_blank(asked.get("id")) else text(asked["id"])


async def fetch_credentials(
    url: str | None,
    catalog: Catalog,
    *,
    project: str,
    component: str,
    credentials_id: str,
    token: SecretStr | None,
) -> Mapping[str, Json]:
    """Credentials, encrypted as they are, from the broker at `url` or, when that is None, the catalog.

    Raises:
        UserError: there are none, or the broker has to be asked with a token that is not there.
        ApplicationError: the broker does not answer as it must.
    """
    if url is None:
        return await catalog.oauth_credentials(project, component, credentials_id)
    return await _ask(url, component, credentials_id, token)


def tokens_within(credentials: Json) -> Iterator[str]:
    """What to hide beside the secrets themselves: the tokens in a provider's data.

    `#data` is a JSON text, and a component that prints one token of it prints none of the text.
    """
    if not isinstance(credentials, Mapping):
        return
    data = credentials.get("#data")
    if not isinstance(data, str):
        return
    try:
        stack: list[Any] = [json.loads(data)]
    except (ValueError, RecursionError):
        return
    while stack:
        match stack.pop():
            case Mapping() as members:
                stack.extend(members.values())
            case list() as items:
                stack.extend(items)
            case str() as word if len(word) >= _SHORTEST_TOKEN:
                yield word
            case _:
                pass


async def _ask(
    url: str, component: str, credentials_id: str, token: SecretStr | None
) -> Mapping[str, Json]:
    if token is None:
        raise UserError(
            "The OAuth broker must be asked with the Storage token, and this job has none. "
            f"{SUBMIT_AGAIN}"
        )
    address = f"{url.rstrip('/')}/credentials/{quote(component, '')}/{quote(credentials_id, '')}"
    headers = {"X-StorageApi-Token": token.get_secret_value(), "Accept": "application/json"}
    try:
        async with (
            httpx.AsyncClient(timeout=TIMEOUT) as client,
            client.stream("GET", address, headers=headers) as response,
        ):
            body = await _body(response, url)
    except httpx.HTTPError as error:
        raise ApplicationError(
            f"The OAuth broker at {url} does not answer: {str(error) or type(error).__name__}."
        ) from error
    document = _document(body)
    status = response.status_code
    if 400 <= status < 500:
        raise UserError(_words(document) or f"The OAuth broker refused with status {status}.")
    if status != 200 or not isinstance(document, dict):
        raise ApplicationError(
            f"The OAuth broker at {url} answered with status {status}: "
            f"{_words(document) or 'no credentials'}"
        )
    return document


async def _body(response: httpx.Response, url: str) -> bytes:
    body = bytearray()
    try:
        async for part in response.aiter_bytes():
            body += part
            if len(body) > LARGEST:
                # going on with a closed response ends everything that was reading from it
                await response.aclose()
    except (httpx.HTTPError, httpx.StreamError):
        if len(body) <= LARGEST:
            raise
    if len(body) > LARGEST:
        raise ApplicationError(f"The OAuth broker at {url} answers with more than {LARGEST} bytes.")
    return bytes(body)


def _document(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _words(document: Any) -> str:
    """What a broker's error says, or nothing."""
    if isinstance(document, dict):
        for member in ("message", "error"):
            if isinstance(document.get(member), str) and document[member]:
                return str(document[member])[:1_000]
    return ""
