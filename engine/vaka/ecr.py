"""Tokens for images in Amazon ECR, by one signed request.

Keys come from the environment of the process, as Amazon's own tools have them: `AWS_ACCESS_KEY_ID`,
`AWS_SECRET_ACCESS_KEY` and `AWS_SESSION_TOKEN`. Where they come from elsewhere, such as the role of a
machine, Docker's config.json can name Amazon's credential helper, which is asked first.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final
from urllib.parse import urlsplit

import httpx

from vaka.errors import ApplicationError
from vaka.models.container import RegistryAuth

CONNECT_TIMEOUT: Final = 10.0
TRANSFER_TIMEOUT: Final = 120.0
_TARGET: Final = "AmazonEC2ContainerRegistry_V20150921.GetAuthorizationToken"
_KEYS: Final = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")


def registry_account(uri: str) -> str:
    """The account that a registry belongs to: what stands before the first dot of an image's name.

    Raises:
        ApplicationError: there is no dot.
    """
    account, dot, _ = uri.partition(".")
    if not dot:
        raise ApplicationError(f'Invalid image ID format: "{uri}".')
    return account


async def authorization_token(
    uri: str, region: str, environment: Mapping[str, str]
) -> RegistryAuth:
    """Credentials for the registry of `uri`, good for some hours, by one try.

    Raises:
        ApplicationError: there are no keys, or Amazon gives no token for them.

    Source: Amazon ECR API reference, GetAuthorizationToken; signature version 4.
    """
    body = json.dumps({"registryIds": [registry_account(uri)]}).encode()
    missing = [name for name in _KEYS if not environment.get(name)]
    if missing:
        raise ApplicationError(
            f"No AWS credentials: {' and '.join(missing)} must be set for the service, or Docker's "
            "config.json must name a credential helper for the registry."
        )
    url = (
        environment.get("AWS_ENDPOINT_URL_ECR")
        or environment.get("AWS_ENDPOINT_URL")
        or f"https://api.ecr.{region}.amazonaws.com{'.cn' if region.startswith('cn-') else ''}"
    )
    headers = {
        "content-type": "application/x-amz-json-1.1",
        "host": urlsplit(url).netloc,
        "x-amz-date": datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ"),
        "x-amz-target": _TARGET,
    }
    if environment.get("AWS_SESSION_TOKEN"):
        headers["x-amz-security-token"] = environment["AWS_SESSION_TOKEN"]
    access, secret = (environment[name] for name in _KEYS)
    headers["authorization"] = signature(headers, body, region, access, secret)
    timeout = httpx.Timeout(TRANSFER_TIMEOUT, connect=CONNECT_TIMEOUT)
    try:
        async with httpx.AsyncClient(timeout=timeout) as client:
            answer = await client.post(f"{url.rstrip('/')}/", content=body, headers=headers)
    except httpx.HTTPError as error:
        raise ApplicationError(f"{urlsplit(url).netloc} does not answer: {error!r}") from error
    if not answer.is_success:
        raise ApplicationError(f"{answer.status_code} {_reason(answer)}")
    try:
        given = answer.json()["authorizationData"][0]["authorizationToken"]
        username, _, password = base64.b64decode(given).decode().partition(":")
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise ApplicationError(f"{urlsplit(url).netloc} answered without a token.") from error
    return RegistryAuth(uri.partition("/")[0], username, password)


def signature(
    headers: Mapping[str, str],
    body: bytes,
    region: str,
    access: str,
    secret: str,
    *,
    service: str = "ecr",
) -> str:
    """The `authorization` header of a POST to `/` with these headers, whose names are lower case.

    Source: AWS Signature Version 4.
    """
    moment = headers["x-amz-date"]
    names = ";".join(sorted(headers))
    lines = "".join(f"{name}:{headers[name].strip()}\n" for name in sorted(headers))
    request = f"POST\n/\n\n{lines}\n{names}\n{hashlib.sha256(body).hexdigest()}"
    scope = f"{moment[:8]}/{region}/{service}/aws4_request"
    digest = hashlib.sha256(request.encode()).hexdigest()
    key = f"AWS4{secret}".encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    signed = hmac.digest(key, f"AWS4-HMAC-SHA256\n{moment}\n{scope}\n{digest}".encode(), "sha256")
    return (
        f"AWS4-HMAC-SHA256 Credential={access}/{scope}, "
        f"SignedHeaders={names}, Signature={signed.hex()}"
    )


def _reason(answer: httpx.Response) -> str:
    try:
        document = answer.json()
        kind = str(document.get("__type", "")).rpartition("#")[2]
        text = document.get("message") or document.get("Message") or ""
    except (ValueError, AttributeError):
        return answer.text[:500]
    return f"{kind}: {text}"
