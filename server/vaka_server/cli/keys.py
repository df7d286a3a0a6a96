"""Commands on the key ring: keys init, status, add, activate, reencrypt, enable, retire, destroy.

They change the file, whether a server runs or not: it takes over what has changed. None of them shows
a key.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from vaka_server.cli import text
from vaka_server.cli.catalog import group
from vaka_server.cli.session import Session, Usage, command, say

if TYPE_CHECKING:
    from vaka import Engine
    from vaka.models.reencryption import ReencryptionReport
    from vaka_keyring.ring import KeyRing
    from vaka_server.settings import Settings

COLUMNS = {"id": "KEY", "state": "STATE", "created": "CREATED", "check": "CHECK"}
FAMILIES = ("ProjectSecure", "ConfigSecure")
BOOKMARK = "reencryption.json"
"""In the home: how far a pass came that was interrupted."""
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
    command(keys, "reencrypt")(keys_reencrypt)
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

    Refused while anything stored needs it: `vaka keys reencrypt` says what, and changes that. It is
    looked through on the home, so no server may have it. Older versions of configurations are not
    looked at.
    """
    from vaka.errors import Conflict  # noqa: PLC0415
    from vaka_keyring import ring  # noqa: PLC0415
    from vaka_keyring.provider import NAME  # noqa: PLC0415

    path = _path(session)
    ring.read(path).retired(key)  # what cannot be is told before anything is looked through
    if not force:
        async with _engine(session.settings()) as engine:
            found = await engine.reencrypt(dry_run=True)
        used = found.key_values(NAME, key)
        if used:
            raise Conflict(
                f'{used} stored values are still encrypted with the key "{key}". Encrypt them again '
                "with `vaka keys reencrypt --apply`, or retire it with --force: they cannot be read "
                "then."
            )
    _changed(session, lambda ring: ring.retired(key))
    _told(session, key, "disabled")


async def keys_reencrypt(
    session: Session,
    apply: Annotated[
        bool, typer.Option("--apply", help="Do it. Without, only say what would be done.")
    ] = False,
    legacy_family: Annotated[
        str, typer.Option(help="Of older ciphers: ProjectSecure or ConfigSecure.")
    ] = "ProjectSecure",
) -> None:
    """Encrypt with the active key what older keys or older formats have encrypted.

    Configurations, rows, states, variables of the vault, credentials and jobs that wait, of all
    projects; each in the scope that it has. A document that holds something that cannot be read is
    left as it is, and named. It may be interrupted: the next time it goes on from there.
    """
    if legacy_family not in FAMILIES:
        raise Usage(f"--legacy-family is one of {' and '.join(FAMILIES)}.")
    settings = session.settings()
    async with _engine(settings) as engine:
        place = _Bookmark(
            settings.home / BOOKMARK, [await engine.encryption.active_key(), legacy_family]
        )
        report = await engine.reencrypt(
            dry_run=not apply,
            legacy_family=cast("Any", legacy_family),
            after=place.read() if apply else (),
            on_document=place.write if apply else lambda cursor: None,  # noqa: ARG005
        )
        if apply:
            place.remove()
    session.show(report.to_json(), lambda: _report_text(report))


class _Bookmark:
    """How far a pass has come, in a file; of another key or family it counts for nothing."""

    def __init__(self, path: Path, about: list[Any]) -> None:
        self._path = path
        self._about = json.loads(json.dumps(about))

    def read(self) -> tuple[str, ...]:
        try:
            kept = json.loads(self._path.read_text())
        except (OSError, ValueError):
            return ()
        match kept:
            case {"about": about, "after": [*after]} if about == self._about:
                return tuple(str(each) for each in after)
        return ()

    def write(self, cursor: tuple[str, ...]) -> None:
        # one that is lost or half written costs nothing but time
        self._path.write_text(json.dumps({"about": self._about, "after": cursor}))

    def remove(self) -> None:
        self._path.unlink(missing_ok=True)


def _report_text(report: ReencryptionReport) -> str:
    rows = [
        {
            "prefix": each.origin.prefix or "(none)",
            "provider": each.origin.provider,
            "key": each.origin.key_id or "",
            "values": each.values,
            "outdated": each.outdated,
        }
        for each in report.counts
    ]
    columns = {
        "prefix": "PREFIX",
        "provider": "PROVIDER",
        "key": "KEY",
        "values": "VALUES",
        "outdated": "OUTDATED",
    }
    lines = [text.table(rows, columns)] if rows else []
    lines += [
        f"left: {text.clean(each.document)}, {text.clean(each.path or 'itself')}: {each.reason}"
        for each in report.left
    ]
    if report.is_dry_run:
        lines.append(
            f"{report.outdated} of {report.documents} documents would be encrypted again: --apply."
        )
    else:
        lines.append(f"{report.changed} of {report.documents} documents were encrypted again.")
    return "\n".join(lines)


@asynccontextmanager
async def _engine(settings: Settings) -> AsyncIterator[Engine]:
    """The engine on the home, without running anything."""
    from vaka import Engine  # noqa: PLC0415
    from vaka_server import home, logs  # noqa: PLC0415

    logs.configure("WARNING", "text")
    config = settings.engine.model_copy(update={"worker": False})
    with home.hold(config.home, create=False):
        async with Engine(config) as engine:
            yield engine


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
