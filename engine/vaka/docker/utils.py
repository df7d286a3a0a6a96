"""Small conversions between Python's values and the daemon's, named as in aiodocker."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from io import BytesIO

    from vaka.docker.types import JSONObject

_TRUE = frozenset({"true", "yes", "y", "1"})
_FALSE = frozenset({"false", "no", "n", "0"})


def identical(d1: Any, d2: Any) -> bool:
    """Whether two parsed JSON values are equal, a key that is missing counting as an empty object."""
    if type(d1) is not type(d2):
        return False
    if isinstance(d1, dict):
        return all(identical(d1.get(key, {}), d2.get(key, {})) for key in d1.keys() | d2.keys())
    if isinstance(d1, list):
        return len(d1) == len(d2) and all(map(identical, d1, d2))
    return bool(d1 == d2)


def human_bool(s: Any) -> bool:
    """What a person's yes or no means; `ValueError` for a text that is neither."""
    if not isinstance(s, str):
        return bool(s)
    if s.lower() in _TRUE:
        return True
    if s.lower() in _FALSE:
        return False
    raise ValueError(f"{s!r} is neither yes nor no; write one of {sorted(_TRUE | _FALSE)}")


def httpize(d: Mapping[str, Any] | None) -> dict[str, str] | None:
    """Query parameters as text: booleans as `1` and `0`, all else that is no text as JSON."""
    if d is None:
        return None
    return {key: _query_text(value) for key, value in d.items()}


def _query_text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "1" if value else "0"
    return json.dumps(value)


def clean_map(obj: Mapping[Any, Any]) -> dict[Any, Any]:
    """`obj` without the keys whose value is None."""
    return {key: value for key, value in obj.items() if value is not None}


def format_env(key: str, value: bytes | str | None) -> str:
    """One entry of a container's environment; without a value, the bare name."""
    if value is None:
        return key
    return f"{key}={value.decode() if isinstance(value, bytes) else value}"


def clean_networks(networks: Iterable[str] | None = None) -> Sequence[dict[str, Any]]:
    """Network names as the objects the daemon wants; objects stay as they are."""
    if not networks:
        return []
    if not isinstance(networks, list):
        raise TypeError("networks parameter must be a list.")
    return [{"Target": network} if isinstance(network, str) else network for network in networks]


def clean_filters(filters: Mapping[str, Any] | Sequence[str] | None = None) -> str:
    """The `filters` parameter as JSON, every value in a list."""
    if filters is None:
        return "{}"
    if not isinstance(filters, Mapping):
        raise TypeError("filters must be a mapping")
    return json.dumps({k: v if isinstance(v, list) else [v] for k, v in filters.items()})


def mktar_from_dockerfile(fileobj: BytesIO | IO[bytes]) -> IO[bytes]:
    """A gzipped tar archive that holds `fileobj` as its Dockerfile, open at its beginning.

    The caller closes it.
    """
    import io  # noqa: PLC0415 - archives are rare: a client that only runs containers needs none
    import tarfile  # noqa: PLC0415
    import tempfile  # noqa: PLC0415

    archive = tempfile.NamedTemporaryFile()  # noqa: SIM115 - handed to the caller open
    with tarfile.open(mode="w:gz", fileobj=archive) as tar:
        if isinstance(fileobj, io.BytesIO):
            member = tarfile.TarInfo("Dockerfile")
            member.size = len(fileobj.getvalue())
            fileobj.seek(0)
        else:
            member = tar.gettarinfo(fileobj=fileobj, arcname="Dockerfile")
        tar.addfile(member, fileobj)
    archive.seek(0)
    return archive


def parse_content_type(ct: str) -> tuple[str, str, Mapping[str, str]]:
    """A Content-Type as type, subtype and parameters, all in lower case."""
    kind, *pieces = ct.split(";")
    main_type, slash, sub_type = kind.strip().partition("/")
    if not slash or "/" in sub_type:
        raise ValueError(f'Invalid mime-type component: "{kind}"')
    options: dict[str, str] = {}
    for piece in filter(None, map(str.strip, pieces)):
        name, equals, value = piece.partition("=")
        if not equals:
            raise ValueError(f'Invalid option component: "{piece}"')
        options[name.lower()] = value.lower()
    return main_type.lower(), sub_type.lower(), options


def compose_auth_header(auth: JSONObject | str | bytes, registry_addr: str | None = None) -> str:
    """The value of `X-Registry-Auth` for one registry.

    Args:
        auth: `{"username", "password"}`, `{"identitytoken"}`, `{"auth": …}`, or the base64 of
            `user:password` by itself.
        registry_addr: the registry's host, with its port and without a scheme.
    """
    if isinstance(auth, Mapping):
        if "identitytoken" not in auth and "auth" in auth:
            return compose_auth_header(auth["auth"], registry_addr)  # type: ignore[arg-type]  # checked below
        credentials: dict[str, Any] = dict(auth)
        if registry_addr and "identitytoken" not in auth:
            credentials["serveraddress"] = registry_addr
    elif isinstance(auth, str | bytes):
        username, colon, password = base64.b64decode(auth).decode().partition(":")
        if not colon:
            raise ValueError("auth must be the base64 of user:password; there is no colon in it")
        credentials = {
            "username": username,
            "password": password,
            "email": None,
            "serveraddress": registry_addr,
        }
    else:
        raise TypeError("auth must be base64 encoded string/bytes or a dictionary")
    return base64.urlsafe_b64encode(json.dumps(credentials).encode()).decode()


def registry_of(image: str) -> str:
    """The host part of an image's name, which credentials need."""
    registry, slash, _ = image.partition("/")
    if not slash:
        raise ValueError(
            f"Image should have registry host when auth information is provided: {image!r} has none"
        )
    return registry
