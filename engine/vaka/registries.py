"""Credentials of image registries, from where Docker's own command keeps them.

That is `config.json` in the folder that `DOCKER_CONFIG` names, or in `~/.docker`: `docker login`
writes it. Credentials stand in it, or with a helper program that it names.
"""

from __future__ import annotations

import base64
import binascii
import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import trio

from vaka.errors import ApplicationError
from vaka.models.container import IDENTITY_TOKEN, RegistryAuth

log = logging.getLogger(__name__)

DOCKER_HUB: Final = "docker.io"
_HUB_KEY: Final = "https://index.docker.io/v1/"
"""What Docker's command calls its own registry when it keeps credentials."""
HELPER_TIMEOUT: Final = 30.0
"""Seconds that a credential helper may take."""
_UNKNOWN: Final = "credentials not found"
"""Words with which helpers say that they have nothing for a registry."""


def registry_host(reference: str) -> str:
    """The registry that an image reference is pulled from: `host`, `host:port` or `docker.io`."""
    first, slash, _ = reference.partition("/")
    if slash and (first == "localhost" or "." in first or ":" in first):
        return DOCKER_HUB if first == "index.docker.io" else first
    return DOCKER_HUB


async def stored_credentials(host: str, folder: Path | None = None) -> RegistryAuth | None:
    """What Docker's command would log in to a registry with, or None where it knows nothing.

    `folder` holds `config.json`; None is where Docker's command looks for it.

    Raises:
        ApplicationError: the file cannot be read, or its helper fails.

    Source: docs.docker.com, reference of `docker login`.
    """
    document = await trio.to_thread.run_sync(_read, folder)
    key = _HUB_KEY if host == DOCKER_HUB else host
    helper = _member(document, "credHelpers").get(key) or document.get("credsStore")
    if helper:
        found = await _ask_helper(f"docker-credential-{helper}", key, host)
        if found is not None:
            return found
    for name, entry in _member(document, "auths").items():
        if name == key or _host(name) == host:
            return _stored(entry, host)
    return None


def _read(folder: Path | None) -> dict[str, Any]:
    if folder is None:
        folder = Path(os.environ.get("DOCKER_CONFIG") or "~/.docker").expanduser()
    path = folder / "config.json"
    try:
        document = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ApplicationError(
            f"Credentials of registries cannot be read from {path}: {error}"
        ) from error
    return document if isinstance(document, dict) else {}


def _member(document: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    member = document.get(name)
    return member if isinstance(member, Mapping) else {}


def _host(name: str) -> str:
    """The host that a key of `auths` is about: old versions wrote `https://host/v1/`."""
    host = name.partition("://")[2] or name
    return host.partition("/")[0]


def _stored(entry: object, host: str) -> RegistryAuth | None:
    if not isinstance(entry, Mapping):
        return None
    if entry.get("identitytoken"):
        return RegistryAuth(host, IDENTITY_TOKEN, str(entry["identitytoken"]))
    try:
        text = base64.b64decode(str(entry.get("auth") or ""), validate=True).decode()
    except (binascii.Error, ValueError) as error:
        raise ApplicationError(
            f"Docker's config.json has credentials for {host} that cannot be read: "
            f"run `docker login {host}` again."
        ) from error
    username, colon, password = text.rstrip("\0").partition(":")
    return RegistryAuth(host, username, password) if colon else None


async def _ask_helper(program: str, key: str, host: str) -> RegistryAuth | None:
    """What a credential helper knows; it reads the registry's name and answers with JSON."""
    try:
        with trio.fail_after(HELPER_TIMEOUT):
            done = await trio.run_process(
                [program, "get"],
                stdin=key.encode(),
                capture_stdout=True,
                capture_stderr=True,
                check=False,
            )
    except OSError as error:
        raise ApplicationError(
            f"Credential helper {program} for {host}, which Docker's config.json names, cannot be "
            f"run: {error.strerror}. Install it, or take it out of config.json."
        ) from error
    except trio.TooSlowError as error:
        raise ApplicationError(
            f"Credential helper {program} did not answer for {host} within {HELPER_TIMEOUT:g} s."
        ) from error
    if done.returncode != 0:
        words = (done.stdout or done.stderr).decode(errors="replace").strip()
        if _UNKNOWN in words.lower():
            return None
        raise ApplicationError(f"Credential helper {program} failed for {host}: {words[:500]}")
    try:
        answer = json.loads(done.stdout)
        return RegistryAuth(host, str(answer["Username"]), str(answer["Secret"]))
    except (ValueError, KeyError, TypeError) as error:
        # what it said may hold the secret
        raise ApplicationError(
            f"Credential helper {program} answered for {host} with something else than credentials."
        ) from error
