"""TLS over a byte stream, with the one thing that anyio's own does not do: a half-close.

An attached container's standard input ends when the client closes its half of the connection. Over
TLS that is a `close_notify`, after which reading goes on. OpenSSL can do it, on one condition, which
`send_eof` meets: no decrypted bytes may be waiting when it is asked to.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

import anyio
from anyio.abc import ByteStream

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

CHUNK = 65536

_T = TypeVar("_T")


class TLSStream(ByteStream):
    """A client's side of a TLS connection over `transport`; `handshake` comes first."""

    def __init__(self, transport: ByteStream, context: ssl.SSLContext, hostname: str) -> None:
        self._transport = transport
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=hostname)
        self._early = bytearray()  # decrypted by `send_eof`, not yet asked for
        # Reading can have to send (a key update), and a record must not land inside another.
        self._sending = anyio.Lock()

    @property
    def extra_attributes(self) -> Mapping[Any, Callable[[], Any]]:
        return self._transport.extra_attributes

    async def handshake(self) -> None:
        """Agree on keys and check certificates; `ssl.SSLError` or an `OSError` when that fails."""
        await self._until_done(self._tls.do_handshake)
        await self._flush()

    async def receive(self, max_bytes: int = CHUNK) -> bytes:
        if self._early:
            data = bytes(self._early[:max_bytes])
            del self._early[:max_bytes]
            return data
        try:
            data = await self._until_done(lambda: self._tls.read(max_bytes))
        except ssl.SSLZeroReturnError:
            raise anyio.EndOfStream from None
        except ssl.SSLError as error:  # also an end without close_notify: something cut the line
            raise anyio.BrokenResourceError from error
        if not data:
            raise anyio.EndOfStream
        return data

    async def send(self, item: bytes) -> None:
        try:
            await self._until_done(lambda: self._tls.write(item))
        except ssl.SSLError as error:
            raise anyio.BrokenResourceError from error
        await self._flush()

    async def send_eof(self) -> None:
        """Say that nothing more will be sent; what the other side sends can still be read."""
        try:
            while data := self._tls.read(CHUNK):
                self._early += data
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError:
            return  # the other side has closed: it wants no goodbye
        try:
            self._tls.unwrap()
        except ssl.SSLWantReadError:
            pass  # ours is written, theirs comes when they are done
        except ssl.SSLError as error:
            raise anyio.BrokenResourceError from error
        await self._flush()

    async def aclose(self) -> None:
        await self._transport.aclose()

    async def _until_done(self, call: Callable[[], _T]) -> _T:
        while True:
            try:
                # Nothing is awaited between this and the return: cancelling a read loses no bytes.
                return call()
            except ssl.SSLWantReadError:
                await self._flush()
                try:
                    self._incoming.write(await self._transport.receive(CHUNK))
                except anyio.EndOfStream:
                    self._incoming.write_eof()
            except ssl.SSLError:
                await self._flush()  # the alert that tells the other side why
                raise

    async def _flush(self) -> None:
        if not self._outgoing.pending:
            return
        async with self._sending:
            if pending := self._outgoing.read():
                await self._transport.send(pending)
