"""Host names: which service one stands for, and where clients reach which (storage-api.md section 2).

Some clients derive `queue.example.org` from `connection.example.org`, others follow the index. So a
service has a host of its own where the settings say that such names lead here, and a path on every host.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from vaka.errors import InvalidInput
from vaka_server.problems import Refused

if TYPE_CHECKING:
    from vaka_server.body import Request
    from vaka_server.settings import Settings

STORAGE = "connection"
SERVICES = {
    "queue": "/queue",
    "encryption": "/encryption",
    "sync-actions": "/sync-actions",
    "docker-runner": "",
    "syrup": "",
}
"""Services that clients find in the index, and their path below the server's own address."""
ABSENT = frozenset(
    {
        "ai",
        "billing",
        "data-science",
        "editor",
        "import",
        "metastore",
        "notification",
        "query",
        "scheduler",
    }
)
"""Services that clients look for at hosts of their own, and that are not here."""
ANY = "*"
_HOST = re.compile(r"(?P<name>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?P<port>:[0-9]{1,5})?")


@dataclass(frozen=True, slots=True)
class ServiceHost:
    """A host that stands for one service."""

    service: str
    suffix: str
    port: str
    """With its colon, or empty."""

    def beside(self, service: str) -> str:
        """The host of another service."""
        return f"{service}.{self.suffix}{self.port}"


class Hosts:
    """Reads the hosts of requests as the settings say."""

    def __init__(self, settings: Settings) -> None:
        """Raises `InvalidInput` for a setting that cannot be."""
        self._public = settings.public_url
        self._suffix = settings.host_suffix
        self._proxies = _networks(settings.trusted_proxies or "")
        if self._suffix is None and self._public is not None:
            name = urlsplit(self._public).hostname or ""
            if name.startswith(f"{STORAGE}."):
                self._suffix = name.removeprefix(f"{STORAGE}.")

    def find(self, host: str) -> ServiceHost | None:
        """What a host stands for; None when it says nothing."""
        found = _HOST.fullmatch(host)
        if found is None or self._suffix is None:
            return None
        service, _, suffix = found["name"].lower().rstrip(".").partition(".")
        if service != STORAGE and service not in SERVICES and service not in ABSENT:
            return None
        if not suffix or self._suffix not in {ANY, suffix}:
            return None
        return ServiceHost(service, suffix, found["port"] or "")

    def asked(self, request: Request) -> str:
        """The host that the client says it asked; it may be anything."""
        return self._forwarded(request, "X-Forwarded-Host") or request.headers.get("Host", "")

    def client(self, request: Request) -> str | None:
        """The address of who asks, as far as anybody who is trusted knows it."""
        return self._forwarded(request, "X-Forwarded-For") or request.remote_addr

    def base(self, request: Request) -> str:
        """Where clients reach the server, without a trailing slash.

        Raises:
            Refused: the request has no host, and nothing else says it.
        """
        if self._public is not None:
            return self._public.rstrip("/")
        host = self.asked(request)
        if not _HOST.fullmatch(host):
            raise Refused(400, "The request's Host is no host name.")
        found = self.find(host)
        return f"{self._scheme(request)}://{host if found is None else found.beside(STORAGE)}"

    def service_url(self, request: Request, service: str) -> str:
        """Where clients reach a service of `SERVICES`, without a trailing slash."""
        base = self.base(request)
        parts = urlsplit(base)
        found = self.find(parts.netloc)
        if found is None or found.service != STORAGE:
            return base + SERVICES[service]
        return f"{parts.scheme}://{found.beside(service)}"

    def is_proxy(self, address: str) -> bool:
        """Whether what a peer with this address says of its clients is believed."""
        try:
            parsed = ip_address(address)
        except ValueError:
            return False
        return any(parsed in network for network in self._proxies)

    def _scheme(self, request: Request) -> str:
        scheme = (self._forwarded(request, "X-Forwarded-Proto") or request.scheme).lower()
        return scheme if scheme in {"http", "https"} else request.scheme

    def _forwarded(self, request: Request, name: str) -> str | None:
        """What the nearest proxy says, when it is one that is trusted."""
        value = request.headers.get(name)
        if value is None or not self._proxies:
            return None
        client = request.scope.get("client")
        if not client or not self.is_proxy(client[0]):
            return None
        return value.rpartition(",")[2].strip() or None


def _networks(text: str) -> tuple[IPv4Network | IPv6Network, ...]:
    found = []
    for word in text.split(","):
        if not word.strip():
            continue
        try:
            found.append(ip_network(word.strip(), strict=False))
        except ValueError as error:
            raise InvalidInput(
                f"VAKA_TRUSTED_PROXIES: {word.strip()} is no address and no network."
            ) from error
    return tuple(found)
