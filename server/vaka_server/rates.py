"""How much is done for one client address in a while: for what anybody may ask without a token."""

from __future__ import annotations

import ipaddress
import math
from collections import OrderedDict
from typing import Final

import trio

from vaka_server.problems import Refused

KEPT: Final = 10_000
"""Addresses that are remembered; beyond, those that asked longest ago are forgotten."""
_NETWORK: Final = 64
"""Bits of an IPv6 address that one client cannot choose."""


class Rates:
    """What each client has left: as much as a minute brings, and then as it comes back."""

    def __init__(self, per_minute: int | None) -> None:
        """Allow so many units a minute and address; None: any number."""
        self._most = per_minute
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def admit(self, address: str | None) -> None:
        """Let a client go on, unless it has used up what it may.

        Raises:
            Refused: 429, with the seconds to wait.
        """
        left = self._of(_client(address))
        if self._most is not None and left <= 0:
            wait = math.ceil((1 - left) * 60 / self._most)
            raise Refused(
                429,
                f"Too many secrets were sent from this address; try again in {wait} s.",
                headers={"Retry-After": str(wait)},
            )

    def charge(self, address: str | None, units: int) -> None:
        """Take what a request costs, which may be more than is left; the debt is a minute at most."""
        if self._most is None:
            return
        client = _client(address)
        left = max(self._of(client) - units, float(-self._most))
        self._left[client] = (trio.current_time(), left)
        self._left.move_to_end(client)
        if len(self._left) > KEPT:
            self._left.popitem(last=False)

    def _of(self, client: str) -> float:
        most = float(self._most or 0)
        at, left = self._left.get(client, (0.0, most))
        return min(most, left + (trio.current_time() - at) * most / 60)


def _client(address: str | None) -> str:
    try:
        found = ipaddress.ip_address(address or "")
    except ValueError:
        return address or ""
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped is not None:
            return str(found.ipv4_mapped)
        return str(ipaddress.ip_network((found, _NETWORK), strict=False))
    return str(found)
