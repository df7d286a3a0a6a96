"""The `vaka` command."""

from __future__ import annotations

from importlib import metadata
from typing import Annotated

import typer

from vaka_server.cli import catalog, data, debug, garbage, jobs, keys, secrets, system

BUILT_IN = frozenset({"keyring", "legacy", "local"})
"""Plugins of this distribution; none of them has commands."""


def _version(asked: bool) -> None:
    if asked:
        typer.echo(metadata.version("vaka"))
        raise typer.Exit


def create_cli() -> typer.Typer:
    """The command with everything, also what plugins add."""
    app = typer.Typer(
        name="vaka",
        help="Runs container images as data workers.",
        no_args_is_help=True,
        add_completion=True,
        rich_markup_mode=None,  # plain help, without loading what formats it
        pretty_exceptions_enable=False,
    )
    app.callback()(_options)
    system.register(app)
    jobs.register(app)
    debug.register(app)
    catalog.register(app)
    data.register(app)
    garbage.register(app)
    keys.register(app)
    secrets.register(app)
    _add_plugins(app)
    return app


def _options(
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version.", is_eager=True, callback=_version),
    ] = False,
) -> None:
    """Runs container images as data workers."""


def _add_plugins(app: typer.Typer) -> None:
    """Let installed plugins add commands; without any, nothing is loaded for it."""
    if {entry.name for entry in metadata.entry_points(group="vaka")} <= BUILT_IN:
        return
    from vaka import Engine, EngineConfig  # noqa: PLC0415 - rarely needed, and slow

    Engine(EngineConfig()).plugins.cli(app)
