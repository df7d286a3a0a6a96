"""How a command is run: which installation it is about, how it answers, how it ends."""

from __future__ import annotations

import inspect
import logging
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from enum import IntEnum
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, get_type_hints

import trio
import typer

from vaka_server.cli import text
from vaka_server.cli.client import Client, Progress

if TYPE_CHECKING:
    from vaka_server.settings import Settings

log = logging.getLogger(__name__)


class Exit(IntEnum):
    """Exit codes (design.md section 8)."""

    OK = 0
    USER = 1
    """A job failed and its author can mend it, or what was asked for cannot be done."""
    USAGE = 2
    APPLICATION = 3
    """A job, the server or the engine failed, and an operator must look."""
    CANCELLED = 4
    NO_SERVER = 5
    """There is no server, or the home is not there or in use."""
    INTERRUPTED = 130
    """Ctrl-C; a job that the command was following goes on. The number that shells use."""


class Usage(Exception):
    """The command line itself cannot be."""


class Absent(Exception):
    """What was asked for is not there."""


@dataclass(frozen=True)
class Session:
    """What the options that every command has say."""

    url: str | None
    token: str | None
    home: Path | None
    json: bool

    @property
    def is_watched(self) -> bool:
        """Whether a person looks at what is going on."""
        return not self.json and sys.stderr.isatty()

    @asynccontextmanager
    async def client(self, *, works: bool = False) -> AsyncIterator[Client]:
        """The installation: a server when one is named, else the engine on the home.

        With `works` the embedded engine runs jobs while this is open.
        """
        if self.url:
            from vaka_server.cli.http import HttpClient  # noqa: PLC0415 - only what is used is loaded

            async with HttpClient(self.url, self.token) as server:
                yield server
            return
        from vaka_server import logs  # noqa: PLC0415
        from vaka_server.cli.embedded import EmbeddedClient  # noqa: PLC0415

        logs.configure("WARNING", "text")
        async with EmbeddedClient(self.settings(), works=works) as engine:
            yield engine

    def settings(self, **overrides: Any) -> Settings:
        """The settings of this machine; `overrides` that are not None win.

        Raises:
            Usage: the environment or an option says what cannot be.
        """
        from vaka.errors import InvalidInput  # noqa: PLC0415
        from vaka_server import settings  # noqa: PLC0415

        try:
            return settings.load(home=self.home, **overrides)
        except InvalidInput as error:
            raise Usage(error.message) from error

    def show(self, document: Any, for_people: Callable[[], str]) -> None:
        """Print an answer: its document with `--json`, else words."""
        say(text.to_json(document) if self.json else for_people())

    def show_table(self, rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str]) -> None:
        """Print a list."""
        self.show(rows, lambda: text.table(rows, columns) if rows else "(none)")

    @contextmanager
    def progress(self, label: str) -> Iterator[Progress]:
        """Show how far a transfer is, to a person."""
        if not self.is_watched:
            yield lambda done, total: None  # noqa: ARG005
            return
        from rich.console import Console  # noqa: PLC0415

        console = Console(stderr=True)
        if not self.url:  # done in one go, here: there is nothing to count
            from rich.text import Text  # noqa: PLC0415

            with console.status(Text(text.clean(label))):  # a name may look like rich's markup
                yield lambda done, total: None  # noqa: ARG005
            return
        from rich.progress import (  # noqa: PLC0415
            BarColumn,
            DownloadColumn,
            TextColumn,
            TimeRemainingColumn,
            TransferSpeedColumn,
        )
        from rich.progress import Progress as Bars  # noqa: PLC0415

        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
        )
        with Bars(*columns, console=console, transient=True) as bars:
            task = bars.add_task(text.clean(label), total=None)
            yield lambda done, total: bars.update(task, completed=done, total=total)


def say(words: str) -> None:
    """Print to standard output, without anything that a terminal acts on; line breaks stay."""
    sys.stdout.write(f"{text.clean_lines(words)}\n")
    sys.stdout.flush()


def remark(words: str) -> None:
    """Print to standard error, in the same way."""
    sys.stderr.write(f"{text.clean_lines(words)}\n")
    sys.stderr.flush()


Command = Callable[..., Awaitable[Exit | None]]

_COMMON: dict[str, tuple[Any, Any]] = {
    "url": (
        Annotated[
            str | None,
            typer.Option("--url", envvar="VAKA_URL", help="Server; without one, this machine."),
        ],
        None,
    ),
    "token": (
        Annotated[
            str | None,
            typer.Option(
                "--token", envvar="VAKA_TOKEN", help="Token for the server.", show_envvar=True
            ),
        ],
        None,
    ),
    "home": (
        Annotated[
            Path | None,
            typer.Option("--home", envvar="VAKA_HOME", help="Home folder on this machine."),
        ],
        None,
    ),
    "json": (Annotated[bool, typer.Option("--json", help="Answer in JSON.")], False),
}


def command(app: typer.Typer, name: str) -> Callable[[Command], Command]:
    """Register an async function as a command; it gets a `Session` first, then its own options."""

    def register(function: Command) -> Command:
        own = inspect.signature(function)
        hints = get_type_hints(function, include_extras=True)
        parameters = [
            parameter.replace(annotation=hints[parameter.name])
            for parameter in list(own.parameters.values())[1:]
        ]
        common = [
            inspect.Parameter(
                option, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=default
            )
            for option, (annotation, default) in _COMMON.items()
        ]

        @wraps(function)
        def run(**options: Any) -> NoReturn:
            session = Session(**{option: options.pop(option) for option in _COMMON})
            raise typer.Exit(run_command(function, session, options))

        signature = inspect.Signature(
            [*(p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in parameters), *common]
        )
        run.__signature__ = signature  # type: ignore[attr-defined]
        run.__annotations__ = {p.name: p.annotation for p in [*parameters, *common]}
        del run.__wrapped__  # typer must see our own signature
        app.command(name)(run)
        return function

    return register


def run_command(function: Command, session: Session, options: Mapping[str, Any]) -> Exit:
    """Run a command to its exit code; what it raises is told in one line."""
    session = _with_token_file(session)
    try:
        # an interrupt is for the command, wherever in the engine it comes
        return (
            trio.run(
                _call, function, session, options, restrict_keyboard_interrupt_to_checkpoints=True
            )
            or Exit.OK
        )
    except BaseException as error:  # noqa: BLE001 - what is none of ours is raised again
        return _told(_only(error), session)


async def _call(function: Command, session: Session, options: Mapping[str, Any]) -> Exit | None:
    return await function(session, **options)


def _told(error: BaseException, session: Session) -> Exit:
    """Say what went wrong, and which exit code that is."""
    match error:
        case KeyboardInterrupt():
            remark("Interrupted.")
            return Exit.INTERRUPTED
        case BrokenPipeError():  # nobody reads any further, as with `| head`
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return Exit.OK
        case Usage():
            code = Exit.USAGE
        case Absent() | OSError():
            code = Exit.USER
        case Exception():
            code = _engine_exit(error)
        case _:
            raise error
    message = text.clean(_words(error))
    kind = code.name.lower()
    remark(text.to_json({"error": message, "kind": kind}) if session.json else f"Error: {message}")
    return code


def _engine_exit(error: Exception) -> Exit:
    """The exit code for an error of the engine or the server; anything else is a bug, and logged."""
    from vaka.errors import EngineError, HomeInUse, NotFound, UserError  # noqa: PLC0415 - slow
    from vaka_server.cli.http import NoServer  # noqa: PLC0415

    if isinstance(error, HomeInUse | NoServer) or (
        isinstance(error, NotFound) and error.kind == "home"
    ):
        return Exit.NO_SERVER
    if isinstance(error, UserError):
        return Exit.USER
    if not isinstance(error, EngineError):
        logging.basicConfig()
        log.error("command.failed", exc_info=error)
    return Exit.APPLICATION


def _words(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error) or type(error).__name__


def _only(error: BaseException) -> BaseException:
    """The one error in a group; a group of several is itself."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    if isinstance(error, BaseExceptionGroup):
        # an interrupt outranks what it brought down
        interrupt, _ = error.split(KeyboardInterrupt)
        if interrupt is not None:
            return KeyboardInterrupt()
    return error


def _with_token_file(session: Session) -> Session:
    path = os.environ.get("VAKA_TOKEN_FILE")
    if session.token is None and path:
        return Session(session.url, Path(path).read_text().strip(), session.home, session.json)
    return session
