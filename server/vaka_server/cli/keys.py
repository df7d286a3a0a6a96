"""Commands on the key ring: keys init, status, add, activate, enable, retire, destroy.

They change the file, whether a server runs or not: it takes over what has changed. None of them shows
a key.
"""

from __future__ import annotations

import fcntl
import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vaka_server.cli import text
from vaka_server.cli.catalog import group
from vaka_server.cli.session import Session, Usage, command, say

if TYPE_CHECKING:
    from vaka.hooks import Catalog
    from vaka_keyring.ring import KeyRing
    from vaka_server.settings import Settings

COLUMNS = {"id": "KEY", "state": "STATE", "created": "CREATED", "check": "CHECK"}
Key = Annotated[str, typer.Argument(help="Id of the key.")]
NewKey = Annotated[
    str | None, typer.Option("--id", help="Id of the new key; without, the month it is made in.")
]


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    keys = group(app, "keys", "The keys that secrets are encrypted with.")
    command(keys, "init")(keys_init)
    command(keys, "status")(keys_status)
    command(keys, "add")(keys_add)
    command(keys, "activate")(keys_activate)
    command(keys, "enable")(keys_enable)
    command(keys, "retire")(keys_retire)
    command(keys, "destroy")(keys_destroy)


async def keys_init(session: Session, key_id: NewKey = None) -> None:
    """Make a key ring with one key. One that is there is never touched."""
    from vaka_keyring import ring  # noqa: PLC0415 - commands load only what they use

    path = _path(session)
    made = ring.new_ring(key_id)
    ring.write(path, made, create=True)
    document = {"path": str(path), "active": made.active.id}
    session.show(
        document, lambda: f"{path} is a new key ring. Make a backup of it, apart from the rest."
    )


async def keys_status(session: Session) -> None:
    """List the keys: states, dates, and values that tell whether two rings have the same key."""
    from vaka_keyring import ring  # noqa: PLC0415

    session.show_table(ring.statuses(ring.read(_path(session)).keys), COLUMNS)


async def keys_add(session: Session, key_id: NewKey = None) -> None:
    """Add a key, which only decrypts until it is activated: so that all servers know it first."""
    made = _changed(session, lambda ring: ring.added(key_id)).keys[-1].id
    session.show({"id": made}, lambda: made)


async def keys_activate(session: Session, key: Key) -> None:
    """Encrypt with this key from now on; the former one goes on to decrypt."""
    _changed(session, lambda ring: ring.activated(key))
    _told(session, key, "active")


async def keys_enable(session: Session, key: Key) -> None:
    """Let a retired key decrypt again."""
    _changed(session, lambda ring: ring.enabled(key))
    _told(session, key, "decrypt-only")


async def keys_retire(
    session: Session,
    key: Key,
    force: Annotated[
        bool, typer.Option("--force", help="Also when something is still encrypted with it.")
    ] = False,
) -> None:
    """Refuse what this key has encrypted, and keep the key: `enable` takes it back.

    Refused while configurations, rows, states or vault variables hold a cipher of it. They are looked
    through on the home, so no server may have it; OAuth credentials and older versions of
    configurations are not looked at.
    """
    from vaka.errors import Conflict  # noqa: PLC0415
    from vaka_keyring import ring  # noqa: PLC0415

    path = _path(session)
    ring.read(path).retired(key)  # what cannot be is told before anything is looked through
    if not force:
        used = (await _references(session.settings()))[key]
        if used:
            raise Conflict(
                f'{used} stored values are still encrypted with the key "{key}". Encrypt them again, or '
                "retire it with --force: they cannot be read then."
            )
    _changed(session, lambda ring: ring.retired(key))
    _told(session, key, "disabled")


async def keys_destroy(
    session: Session,
    key: Key,
    confirm: Annotated[
        str | None, typer.Option("--confirm", help="The id once more, in place of the question.")
    ] = None,
) -> None:
    """Remove a retired key for good: what it has encrypted is lost, on this machine.

    Its id stays in the ring, to tell why. Copies of the file are yours to destroy.
    """
    from vaka_keyring import ring  # noqa: PLC0415

    ring.read(_path(session)).destroyed(key)
    if confirm is None and session.is_watched:
        confirm = typer.prompt(f"Type the id {key} to destroy the key", err=True)
    if confirm != key:
        raise Usage(f'Not destroyed: confirm it with --confirm and the id of the key, "{key}".')
    _changed(session, lambda ring: ring.destroyed(key))
    _told(session, key, "destroyed")


def _path(session: Session) -> Path:
    from vaka_keyring import ring_path  # noqa: PLC0415

    if session.url:
        raise Usage("Keys are changed on the machine that has them; leave --url and VAKA_URL out.")
    settings = session.settings()
    if settings.key_ring_document is not None:
        raise Usage(
            "The key ring is in the setting key_ring_document; change it where it comes from."
        )
    return ring_path({"home": settings.home, "key_ring": settings.key_ring})


def _changed(session: Session, change: Callable[[KeyRing], KeyRing]) -> KeyRing:
    """The ring, changed and written; of two who change it at once, one waits."""
    from vaka_keyring import ring  # noqa: PLC0415

    path = _path(session)
    with _alone(path):
        found = change(ring.read(path))
        ring.write(path, found)
    return found


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    descriptor = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _told(session: Session, key: str, state: str) -> None:
    if session.json:
        say(text.to_json({"id": key, "state": state}))
    else:
        say(f"The key {text.clean(key)} is {state}.")


async def _references(settings: Settings) -> Counter[str]:
    """How many stored values each key of the ring has encrypted."""
    from vaka import Engine  # noqa: PLC0415
    from vaka.encryption import key_of  # noqa: PLC0415
    from vaka_keyring.provider import CODE  # noqa: PLC0415
    from vaka_server import home, logs  # noqa: PLC0415

    logs.configure("WARNING", "text")
    found: Counter[str] = Counter()
    config = settings.engine.model_copy(update={"worker": False})
    with home.hold(config.home, create=False):
        async with Engine(config) as engine:
            async for document in _documents(engine.catalog):
                stack: list[Any] = [document]
                while stack:
                    match stack.pop():
                        case dict() as members:
                            stack.extend(members.values())
                        case list() | tuple() as items:
                            stack.extend(items)
                        case value:
                            named = key_of(value)
                            if named is not None and named[0] == CODE:
                                found[named[1]] += 1
    return found


async def _documents(catalog: Catalog) -> Any:
    """Everything that holds secrets, of all projects and branches."""
    for project in await catalog.projects():
        development = [each for each in await catalog.branches(project.id) if not each.is_default]
        branches = [None, *(each.id for each in development)]
        for branch in branches:
            for variable in await catalog.vault_variables(project.id, branch=branch):
                yield variable.value
        for configuration in await catalog.configurations(project.id):
            ids = (project.id, configuration.component_id, configuration.id)
            whole = await catalog.configuration(*ids)
            yield whole.configuration
            for row in whole.rows:
                yield row.configuration
            for branch in branches:
                for row_id in (None, *(row.id for row in whole.rows)):
                    yield (await catalog.state(*ids, row_id, branch=branch)).value
