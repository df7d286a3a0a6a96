"""Where the Docker Engine is: an address, and the certificates to reach it with."""

from __future__ import annotations

import hashlib
import json
import os
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from vaka.docker.exceptions import DockerContextInvalidError, DockerContextTLSError

SOCKETS = ("/run/docker.sock", "/var/run/docker.sock", "~/.docker/run/docker.sock")
DEFAULT_ADDRESS = "unix:///var/run/docker.sock"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One Docker Engine. Either `path` or `host` and `port` say where it listens."""

    address: str
    """As it was given, for messages."""
    path: str | None = None
    host: str = "localhost"
    port: int = 0
    ssl_context: ssl.SSLContext | None = None

    @property
    def base_url(self) -> str:
        """What request URLs begin with; for a socket the host says nothing."""
        if self.path is not None:
            return "http://localhost"
        scheme = "https" if self.ssl_context else "http"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{scheme}://{host}:{self.port}"


class Context(NamedTuple):
    """An endpoint that the `docker` command line has stored under a name."""

    name: str
    host: str
    tls_folder: Path
    skip_tls_verify: bool


def find_endpoint(
    url: str | None, context: str | None, ssl_context: ssl.SSLContext | None
) -> Endpoint:
    """The endpoint that arguments, environment and stored contexts lead to, in this order.

    `url`; `context`; `DOCKER_HOST`; `DOCKER_CONTEXT`; the command line's current context; the first
    socket there is; the system's socket.

    Raises:
        ValueError: the address is not of a form that can be used.
        DockerContextError: the context that was chosen is broken.
    """
    stored = None
    address = url
    if address is None:
        if context is None:
            address = os.environ.get("DOCKER_HOST") or None
        if address is None and (stored := _stored_context(context)):
            address = stored.host
    if address is None:
        paths = map(os.path.expanduser, SOCKETS)
        address = next((f"unix://{p}" for p in paths if Path(p).is_socket()), DEFAULT_ADDRESS)

    scheme, separator, rest = address.partition("://")
    if scheme == "unix" and rest:
        return Endpoint(address, path=rest)
    if not separator or scheme not in ("tcp", "http", "https"):
        raise ValueError(
            f"Docker Engine address {address!r} cannot be used: "
            "write unix:///path/to/docker.sock, tcp://host:port or https://host:port"
        )
    parts = urlsplit(address)
    if not parts.hostname or parts.path.strip("/") or parts.query:
        raise ValueError(
            f"Docker Engine address {address!r} must be a host and a port, as in tcp://host:2376"
        )
    tls = ssl_context
    if tls is None and stored is not None:
        tls = _context_tls(stored)
    if tls is None and os.environ.get("DOCKER_TLS_VERIFY", "0") not in ("", "0"):
        tls = _environment_tls()
    if tls is None and scheme == "https":
        tls = ssl.create_default_context()
    port = parts.port or (2376 if tls else 2375)
    return Endpoint(address, host=parts.hostname, port=port, ssl_context=tls)


def _stored_context(name: str | None) -> Context | None:
    folder = Path.home() / ".docker"
    name = name or os.environ.get("DOCKER_CONTEXT") or None
    if name is None:
        try:
            name = _read_object(folder / "config.json", None).get("currentContext")
        except FileNotFoundError:
            return None
    if name in (None, "", "default"):  # `default` has no files: it stands for what follows
        return None
    key = hashlib.sha256(name.encode()).hexdigest()
    meta = folder / "contexts/meta" / key / "meta.json"
    try:
        endpoint = _read_object(meta, name)["Endpoints"]["docker"]
        return Context(
            name=name,
            host=endpoint["Host"],
            tls_folder=folder / "contexts/tls" / key / "docker",
            skip_tls_verify=bool(endpoint.get("SkipTLSVerify", False)),
        )
    except FileNotFoundError as error:
        raise DockerContextInvalidError(
            f"{meta} is missing: create the context with `docker context create`", name
        ) from error
    except (KeyError, TypeError) as error:
        raise DockerContextInvalidError(f"{meta} has no Endpoints.docker.Host", name) from error


def _read_object(path: Path, name: str | None) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:
        raise DockerContextInvalidError(f"{path} cannot be read as JSON: {error}", name) from error
    if not isinstance(content, dict):
        raise DockerContextInvalidError(f"{path} does not hold a JSON object", name)
    return content


def _context_tls(context: Context) -> ssl.SSLContext | None:
    ca, cert, key = (context.tls_folder / f"{name}.pem" for name in ("ca", "cert", "key"))
    if not (ca.exists() or cert.exists()):
        return None
    try:
        tls = ssl.create_default_context(cafile=ca if ca.exists() else None)
        if cert.exists():
            tls.load_cert_chain(cert, key)
    except OSError as error:  # ssl.SSLError is one
        raise DockerContextTLSError(
            f"the certificates in {context.tls_folder} cannot be used: {error}", context.name
        ) from error
    if context.skip_tls_verify:
        tls.check_hostname = False
        tls.verify_mode = ssl.CERT_NONE
    return tls


def _environment_tls() -> ssl.SSLContext:
    folder = os.environ.get("DOCKER_CERT_PATH")
    if not folder:
        raise ValueError(
            "DOCKER_TLS_VERIFY is set: set DOCKER_CERT_PATH to the certificates' folder"
        )
    tls = ssl.create_default_context(cafile=Path(folder, "ca.pem"))
    tls.load_cert_chain(Path(folder, "cert.pem"), Path(folder, "key.pem"))
    return tls
