"""`vaka serve` and `vaka worker`: an engine, with HTTP around it or without, until a signal comes."""

from __future__ import annotations

import logging
import os
import signal
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass

import trio
from hypercorn.trio import serve as serve_http
from hypercorn.trio import tcp_server

from vaka import Engine
from vaka.errors import ApplicationError, InvalidInput
from vaka_server import home
from vaka_server.app import create_app
from vaka_server.bootstrap import first_token
from vaka_server.connections import BoundedConfig, Connections, give_up_unread, prepare
from vaka_server.hosts import Hosts
from vaka_server.settings import Settings

log = logging.getLogger(__name__)

BACKLOG = 512
RECEIVE = 1 << 18
"""Bytes that are read from a connection at a time. A file of 200 MB comes with a third of the work that
hypercorn's own 64 KiB cost, which it has no setting for."""
KEEP_ALIVE = 75.0
"""Seconds that a connection without a request stays open: longer than the pools of clients keep it."""


@dataclass(frozen=True, slots=True)
class Ready:
    """What a server says when it answers."""

    url: str
    secret: str | None
    """The admin token of a new home."""


async def serve(
    settings: Settings,
    *,
    ready: Callable[[Ready], None],
    task_status: trio.TaskStatus[Ready] = trio.TASK_STATUS_IGNORED,
    stop: trio.Event | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT (or `stop`); a second signal ends the process at once.

    After the first one no request is accepted, those under way have `graceful_timeout` seconds, and
    running jobs end as `settings.shutdown` says.

    Raises:
        InvalidInput: the settings of TLS are not whole.
        HomeInUse: another process works in the home.
        ApplicationError: the address is taken, the certificate cannot be used, or a part of the
            engine cannot be opened.
    """
    stop = stop or trio.Event()
    check_tls(settings)
    with home.hold(settings.home, create=True) as held, listen(settings) as listener:
        url = settings.public_url or address(listener, settings.scheme)
        held.announce(url=url)
        async with trio.open_nursery() as nursery:
            await nursery.start(_watch_signals, stop)
            async with Engine(settings.engine) as engine:
                secret = await first_token(engine.catalog)
                app = create_app(engine, settings)
                config = hypercorn_config(settings, listener)
                listener.close()  # hypercorn's copy is the only one: when it closes, nobody listens
                answer = Ready(url, secret)
                ready(answer)
                task_status.started(answer)
                log.info("server.started", extra={"url": url})

                async def stopping() -> None:
                    await stop.wait()
                    app.followers.dismiss()

                await serve_http(app, config, shutdown_trigger=stopping)
                log.info("server.stopping", extra={"jobs": settings.shutdown})
            nursery.cancel_scope.cancel()
    log.info("server.stopped")


async def work(
    settings: Settings, *, ready: Callable[[], None], stop: trio.Event | None = None
) -> None:
    """Run the jobs that others accept, without HTTP; signals are heard as `serve` hears them.

    Raises:
        InvalidInput: nobody else can reach this engine's job store or Storage.
        HomeInUse: another process works in the home.
        ApplicationError: a part of the engine cannot be opened.
    """
    stop = stop or trio.Event()
    check_shared(settings)
    with home.hold(settings.home, create=True):
        async with trio.open_nursery() as nursery:
            await nursery.start(_watch_signals, stop)
            async with Engine(settings.engine.model_copy(update={"worker": True})):
                ready()
                log.info("worker.started")
                await stop.wait()
                log.info("worker.stopping", extra={"jobs": settings.shutdown})
            nursery.cancel_scope.cancel()
    log.info("worker.stopped")


def check_shared(settings: Settings) -> None:
    """Return when other processes can use what these settings name.

    Raises:
        InvalidInput: they cannot; the message says what to set.
    """
    if settings.store_url is None:
        raise InvalidInput(
            "A worker runs the jobs of a server on the same job store: name the store with "
            "VAKA_STORE_URL, here and for `vaka serve --no-worker`. Alone on a home, `vaka serve` "
            "does both."
        )
    if settings.effective_storage_url.startswith("local://"):
        raise InvalidInput(
            "A worker cannot use the embedded Storage, whose tables belong to one process: name a "
            "Storage that several processes can use with VAKA_STORAGE_URL, here and for `vaka serve "
            "--no-worker`. The embedded catalog can be shared: VAKA_CATALOG_URL may be local://."
        )


def listen(settings: Settings) -> socket.socket:
    """A listening socket, before anything that takes time or makes files.

    Raises:
        ApplicationError: the address cannot be had.
    """
    where = f"{settings.address}:{settings.port}"
    try:
        family, kind, protocol, _, target = socket.getaddrinfo(
            settings.address, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise ApplicationError(f"Cannot listen on {where}: {error.strerror}.") from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        give_up_unread(listener)
        listener.bind(target)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise ApplicationError(
            f"Cannot listen on {where}: {error.strerror}. Stop what listens there, or choose another "
            "address with --host and --port (VAKA_ADDRESS, VAKA_PORT)."
        ) from error
    return listener


def check_tls(settings: Settings) -> None:
    """Return when what the settings say of TLS can be used.

    Raises:
        InvalidInput: there is a certificate without a key, or a key without a certificate.
        ApplicationError: one of them cannot be read, or they do not belong together.
    """
    if settings.tls_certificate is None and settings.tls_key is None:
        return
    if settings.tls_certificate is None or settings.tls_key is None:
        raise InvalidInput(
            "HTTPS needs both VAKA_TLS_CERTIFICATE and VAKA_TLS_KEY; only one of them is set."
        )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(settings.tls_certificate, settings.tls_key, password=_no_password)
    except (OSError, ValueError) as error:  # an SSLError is an OSError
        raise ApplicationError(
            f"Cannot serve HTTPS with {settings.tls_certificate} and {settings.tls_key}: {error}."
        ) from error


def _no_password() -> str:
    raise ValueError("the key is encrypted, and must not be")


def address(listener: socket.socket, scheme: str = "http") -> str:
    """Where a listener is reached from this machine."""
    host, port = listener.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - shown, not bound
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def hypercorn_config(settings: Settings, listener: socket.socket) -> BoundedConfig:
    """How HTTP is spoken on `listener`."""
    tcp_server.MAX_RECV = RECEIVE
    config = BoundedConfig()
    config.connections = Connections(prepare(), Hosts(settings).is_proxy)
    # hypercorn closes what it is given, and `listen`'s caller closes its own
    config.bind = [f"fd://{os.dup(listener.fileno())}"]
    config.backlog = BACKLOG
    config.keep_alive_timeout = KEEP_ALIVE
    config.keep_alive_max_requests = 1 << 30
    config.graceful_timeout = settings.graceful_timeout
    config.include_server_header = False
    if settings.tls_certificate is not None:
        config.certfile = str(settings.tls_certificate)
        config.keyfile = str(settings.tls_key)
    config.errorlog = logging.getLogger("hypercorn.error")
    config.accesslog = None
    return config


async def _watch_signals(
    stop: trio.Event, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """Ask for a stop at the first signal; at the second let it do what signals do."""
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        task_status.started()
        async for number in signals:
            if stop.is_set():
                log.warning("server.killed", extra={"signal": signal.Signals(number).name})
                signal.signal(number, signal.SIG_DFL)
                # everything that must survive is in the store, as after a power cut
                os.kill(os.getpid(), number)
            log.info("server.stop_requested", extra={"signal": signal.Signals(number).name})
            stop.set()
