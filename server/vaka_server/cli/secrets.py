"""Commands on secrets: encrypt, migrate, and the credentials that somebody granted a component."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from vaka_server.cli import text
from vaka_server.cli.client import Client, Document, Sealing
from vaka_server.cli.session import Session, Usage, command, remark, say

Form = Literal["text", "json"]
Input = Annotated[str, typer.Argument(metavar="[FILE]", help="File to read; - is the input.")]
AsText = Annotated[
    bool,
    typer.Option("--text", help="The input is one secret, less a line end at its end; not JSON."),
]
OfComponent = Annotated[str | None, typer.Option(help="Component that may read it.")]
OfProject = Annotated[str | None, typer.Option(help="Id of the project in which it may be read.")]
OfConfig = Annotated[
    str | None, typer.Option("--config", help="Configuration in which it may be read.")
]
OfBranchType = Annotated[str | None, typer.Option(help="default or dev.")]
Component = Annotated[str, typer.Argument(help="Id of the component.")]
Credentials = Annotated[str, typer.Argument(metavar="ID", help="Id of the credentials.")]


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    from vaka_server.cli.catalog import group  # noqa: PLC0415 - it uses what is here

    command(app, "encrypt")(encrypt)
    command(app, "migrate")(migrate)
    oauth = group(app, "oauth", "Credentials that somebody granted a component.")
    command(oauth, "put")(oauth_put)
    command(oauth, "show")(oauth_show)
    command(oauth, "delete")(oauth_delete)


async def encrypt(
    session: Session,
    file: Input = "-",
    component: OfComponent = None,
    project: OfProject = None,
    config: OfConfig = None,
    branch_type: OfBranchType = None,
    as_text: AsText = False,
) -> None:
    """Encrypt the values under # keys of a JSON document, or with --text one secret.

    The ids say where it can be read, and nowhere else: a component, with --project only in that
    project, with --config only in that configuration; --project alone is for all its components.
    """
    wanted = Sealing(_ids(component, project, config, branch_type), *_read(file, as_text))
    async with session.client() as client:
        _show(session, wanted, await client.encrypt(wanted))
    _tell_plain(wanted)


async def migrate(
    session: Session,
    file: Input = "-",
    component: OfComponent = None,
    project: OfProject = None,
    config: OfConfig = None,
    branch_type: OfBranchType = None,
    as_text: AsText = False,
) -> None:
    """Make the ciphers of a document anew: older ones, or in a narrower scope. All of them or none.

    A document with a secret in the clear is refused.
    """
    wanted = Sealing(_ids(component, project, config, branch_type), *_read(file, as_text))
    async with session.client() as client:
        _show(session, wanted, await client.migrate(wanted))


async def oauth_put(
    session: Session,
    component: Component,
    credentials: Credentials,
    file: Annotated[str, typer.Argument(help="File with the credentials in JSON; - is the input.")],
) -> None:
    """Keep credentials of a component, in place of any with this id. Their secrets are encrypted."""
    document = _document(_bytes(file), file)
    if not isinstance(document, dict):
        raise Usage(f"{file}: credentials are a JSON object.")
    async with session.client() as client:
        await client.put_credentials(component, credentials, document)
    _done(session, component, credentials, "kept")


async def oauth_show(session: Session, component: Component, credentials: Credentials) -> None:
    """Print credentials as they are kept, secrets encrypted."""
    async with session.client() as client:
        say(text.to_json(await client.credentials(component, credentials)))


async def oauth_delete(session: Session, component: Component, credentials: Credentials) -> None:
    """Forget credentials."""
    async with session.client() as client:
        await client.delete_credentials(component, credentials)
    _done(session, component, credentials, "forgotten")


async def sealed(client: Client, component: str, content: Any, *, plain: bool) -> Any:
    """A configuration as it is to be stored: with its secrets encrypted, unless `plain`.

    They are bound to the component and the project, so that copies of the configuration work.
    """
    from vaka.models.ciphers import has_plain_secrets  # noqa: PLC0415 - only what is used is loaded

    if plain or not has_plain_secrets(content):
        return content
    if not await client.can_encrypt():
        remark(
            "Secrets are stored as they are, for everybody to read: there are no keys here. "
            "See `vaka keys init`."
        )
        return content
    project: Document = await client.project()
    ids = {"componentId": component, "projectId": str(project["id"])}
    wanted = Sealing(ids, json.dumps(content).encode(), "json")
    return json.loads(await client.encrypt(wanted))


def _ids(
    component: str | None, project: str | None, config: str | None, branch_type: str | None
) -> dict[str, str]:
    given = {
        "componentId": component,
        "projectId": project,
        "configId": config,
        "branchType": branch_type,
    }
    empty = [name for name, value in given.items() if value == ""]
    if empty:
        raise Usage(f"{empty[0]} must not be empty.")
    return {name: value for name, value in given.items() if value is not None}


def _read(file: str, as_text: bool) -> tuple[bytes, Form]:
    if as_text and file == "-" and sys.stdin.isatty():
        secret: str = typer.prompt("Secret", hide_input=True, err=True)
        return secret.encode(), "text"
    content = _bytes(file)
    if as_text:
        return content.removesuffix(b"\n").removesuffix(b"\r"), "text"
    return content, "json"


def _bytes(file: str) -> bytes:
    return sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()


def _document(content: bytes, file: str) -> Any:
    try:
        return json.loads(content)
    except ValueError as error:
        raise Usage(f"{file}: this is not JSON: {error}.") from error


def _show(session: Session, wanted: Sealing, answer: bytes) -> None:
    """The answer as it came: numbers in it are written as they were."""
    shown = answer.decode()
    say(text.to_json(shown) if session.json and wanted.form == "text" else shown)


def _tell_plain(wanted: Sealing) -> None:
    """Say what looks like a secret and was left as it is."""
    from vaka.encryption import load_json, unnamed_secrets  # noqa: PLC0415

    for path in unnamed_secrets(load_json(wanted.body)) if wanted.form == "json" else ():
        remark(f"{text.clean(path)} stays as it is: what is in a list has no key.")


def _done(session: Session, component: str, credentials: str, word: str) -> None:
    session.show(
        {"component": component, "id": credentials},
        lambda: f"The credentials {text.clean(credentials)} of {text.clean(component)} are {word}.",
    )
