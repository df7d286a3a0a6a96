"""Commands on the installation: init, serve, worker, doctor."""

from __future__ import annotations

import gc
import os
import sys
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from vaka_server.cli import text
from vaka_server.cli.session import Exit, Session, command, remark, say

if TYPE_CHECKING:
    from vaka import EngineConfig
    from vaka_server.settings import Settings


SWITCH: Final = 0.001
"""Seconds that a busy thread keeps the others waiting: Python's own 0.005 are a request's whole time."""


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    command(app, "init")(init)
    command(app, "serve")(serve)
    command(app, "worker")(worker)
    command(app, "doctor")(doctor)


async def init(
    session: Session,
    keys: Annotated[
        bool, typer.Option(help="Make a key ring, which secrets are encrypted with.")
    ] = True,
) -> None:
    """Make a home and print its admin token, which is shown only now.

    A new home gets a key ring, in the file `keys`: keep a copy of it where you keep no copy of the rest.
    """
    from vaka import Engine  # noqa: PLC0415 - commands load only what they use
    from vaka_server import home, logs  # noqa: PLC0415 - commands load only what they use
    from vaka_server.bootstrap import first_token  # noqa: PLC0415

    logs.configure("WARNING", "text")
    wanted = session.settings()
    config = wanted.engine.model_copy(update={"worker": False})
    with home.hold(config.home, create=True):
        async with Engine(config) as engine:
            secret = await first_token(engine.catalog)
        made = None
        if secret is not None and keys and config.key_ring_document is None:
            made = _first_ring(config)
    path = str(config.home.absolute())
    if secret is None:
        document = {"home": path, "token": None, "keys": None}
        session.show(document, lambda: f"{path} is a home already.")
        return
    session.show(
        {"home": path, "token": secret, "keys": made},
        lambda: (
            f"{path} is a new home. Its admin token, shown only now, is for use over HTTP:\n{secret}"
            + (
                f"\nIts key ring is {made}: make a backup of it, apart from the rest."
                if made
                else ""
            )
        ),
    )


def _first_ring(config: EngineConfig) -> str | None:
    """Make the key ring where there is none, and tell where."""
    from vaka.errors import Conflict  # noqa: PLC0415
    from vaka_keyring import ring, ring_path  # noqa: PLC0415

    path = ring_path({"home": config.home, "key_ring": config.key_ring})
    try:
        ring.write(path, ring.new_ring(), create=True)
    except Conflict:
        return None
    return str(path)


async def serve(
    session: Session,
    host: Annotated[
        str | None, typer.Option(envvar="VAKA_ADDRESS", help="Address to listen on.")
    ] = None,
    port: Annotated[
        int | None, typer.Option(envvar="VAKA_PORT", help="Port to listen on; 0: any.")
    ] = None,
    worker: Annotated[
        bool | None,
        typer.Option(
            "--worker/--no-worker",
            envvar="VAKA_WORKER",
            help="Run jobs here, or leave them to `vaka worker`: then no Docker is needed.",
            show_default="--worker",
        ),
    ] = None,
    log_format: Annotated[
        str | None, typer.Option(envvar="VAKA_LOG_FORMAT", help="json or text.")
    ] = None,
    tls_certificate: Annotated[
        Path | None,
        typer.Option(envvar="VAKA_TLS_CERTIFICATE", help="Certificate in PEM: serve HTTPS."),
    ] = None,
    tls_key: Annotated[
        Path | None, typer.Option(envvar="VAKA_TLS_KEY", help="Its private key in PEM.")
    ] = None,
) -> None:
    """Serve the HTTP API until a signal comes; running jobs go on without it unless told otherwise.

    The first SIGTERM or Ctrl-C stops accepting requests and ends in good order, a second one at once.
    """
    from vaka_server import serve as server  # noqa: PLC0415

    wanted = session.settings(
        address=host,
        port=port,
        worker=worker,
        log_format=log_format,
        tls_certificate=tls_certificate,
        tls_key=tls_key,
    )
    _configure_log(wanted)

    def ready(answer: server.Ready) -> None:
        _settle()
        document = {"url": answer.url, "pid": os.getpid(), "token": answer.secret}
        if session.json:
            say(text.to_json(document))
            return
        say(f"Vaka answers at {answer.url}")
        if answer.secret is not None:
            say(f"Admin token, shown only now: {answer.secret}")

    await server.serve(wanted, ready=ready)


async def worker(
    session: Session,
    log_format: Annotated[
        str | None, typer.Option(envvar="VAKA_LOG_FORMAT", help="json or text.")
    ] = None,
) -> None:
    """Run the jobs that `vaka serve --no-worker` accepts, until a signal comes; no HTTP is spoken.

    Both name one job store, one Storage that several processes can use, and homes of their own.
    The first SIGTERM or Ctrl-C ends in good order, a second one at once.
    """
    from vaka_server import serve as server  # noqa: PLC0415

    wanted = session.settings(log_format=log_format)
    _configure_log(wanted)

    def ready() -> None:
        _settle()
        if session.json:
            say(text.to_json({"pid": os.getpid()}))
        else:
            say("Vaka runs jobs.")

    await server.work(wanted, ready=ready)


def _settle() -> None:
    """Prepare a process that is to answer for long, whatever its worker threads are busy with."""
    gc.freeze()  # what is loaded stays: no need to look through it for garbage again and again
    sys.setswitchinterval(SWITCH)


def _configure_log(wanted: Settings) -> None:
    """Log as the settings say, first of all about settings that are none."""
    from vaka_server import logs, settings  # noqa: PLC0415
    from vaka_server import serve as server  # noqa: PLC0415

    logs.configure(wanted.log_level, wanted.log_format)
    for name, meant in settings.unknown_variables().items():
        server.log.warning("setting.unknown", extra={"variable": name, "meant": meant})


async def doctor(session: Session) -> Exit:
    """Check whether this machine, or the server named by --url, can run jobs; say what to do."""
    from vaka_server.cli import doctor as checks  # noqa: PLC0415

    if session.url:
        examination = checks.examine_server(session.url, session.token)
    else:
        examination = checks.examine(session.settings())
    found: list[checks.Check] = []
    async with aclosing(examination) as stream:
        async for check in stream:
            found.append(check)
            if not session.json:
                say(f"{check.state:8} {check.name:12} {text.clean(check.detail)}")
                if check.state != "ok" and check.advice:
                    say(f"{'':22}→ {check.advice}")
    if session.json:
        say(text.to_json([check.document() for check in found]))
    failed = [check for check in found if check.state == "failed"]
    if failed and not session.json:
        remark(f"{len(failed)} of {len(found)} checks failed.")
    return Exit.APPLICATION if failed else Exit.OK
