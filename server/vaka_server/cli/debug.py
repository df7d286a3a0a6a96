"""Commands on debug jobs: debug, snapshots."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any
from uuid import uuid4

import trio
import typer
from typer.core import TyperGroup

from vaka_server.cli import text
from vaka_server.cli.catalog import group
from vaka_server.cli.client import Client, Document, Run
from vaka_server.cli.jobs import (
    Branch,
    ComponentId,
    Config,
    ConfigData,
    JobId,
    Rows,
    Tag,
    exit_code,
    follow_to_end,
    request_body,
    tell_end,
)
from vaka_server.cli.session import Absent, Exit, Session, Usage, command, remark, say

FORMATS = ("zip", "tar.zst")
COLUMNS = {
    "row": "ROW",
    "stage": "SNAPSHOT",
    "component": "COMPONENT",
    "size": "SIZE",
    "entries": "ENTRIES",
    "leftOut": "LEFT OUT",
    "file": "FILE",
}
_SAFE = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,100}")


class _OrList(TyperGroup):
    """Takes `vaka snapshots JOB` for `vaka snapshots list JOB`."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and args[0].isdecimal():
            args = ["list", *args]
        return super().resolve_command(ctx, args)


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    command(app, "debug")(debug)
    snapshots = group(
        app,
        "snapshots",
        "What a debug job left of its stages: `vaka snapshots JOB` lists it.",
        cls=_OrList,
    )
    command(snapshots, "list")(snapshots_list)
    command(snapshots, "get")(snapshots_get)


async def debug(
    session: Session,
    component: ComponentId,
    config: Config = None,
    row: Rows = None,
    config_data: ConfigData = None,
    branch: Branch = None,
    tag: Tag = None,
    archive_format: Annotated[
        str | None, typer.Option("--format", help="How snapshots are packed: zip or tar.zst.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Folder for the snapshots; else debug-JOB."),
    ] = None,
    no_download: Annotated[
        bool, typer.Option("--no-download", help="Leave the snapshots where they are stored.")
    ] = False,
) -> Exit:
    """Run a component for real, store nothing of it, and fetch what each stage was given.

    A failed job's snapshots are fetched as well; the command ends as the job does.
    """
    body = request_body(config, row, config_data, branch)
    if archive_format not in {None, *FORMATS}:
        raise Usage(f"--format is {' or '.join(FORMATS)}.")
    if archive_format is not None:
        body["snapshotFormat"] = archive_format
    wanted = Run(component, body, tag, uuid4().hex, mode="debug")
    async with session.client(works=True) as client:
        job_id = int((await client.run(wanted))["id"])
        if not session.json:
            remark(f"Job {job_id} is stored.")
        if not await follow_to_end(session, client, job_id, interrupt_cancels=True):
            return Exit.INTERRUPTED
        job = await client.job(job_id)
        found = await _snapshots(client, job_id)
        if not no_download and found:
            folder = output or Path(f"debug-{job_id}")
            for each in found:
                path = folder / each.path
                await _fetch(session, client, each, path)
                each.fetched = path
    if session.json:
        say(text.to_json({**job, "snapshots": [each.document for each in found]}))
    else:
        tell_end(job)
        for each in found:
            say(str(each.fetched or each.path))
    return exit_code(job)


async def snapshots_list(session: Session, job: JobId) -> None:
    """List what a debug job left of its stages."""
    async with session.client() as client:
        await client.job(job)
        found = await _snapshots(client, job)
    if session.json:
        say(text.to_json([each.document for each in found]))
        return
    rows = [{**each.document, "size": text.size(each.size)} for each in found]
    session.show_table(rows, COLUMNS)
    for each in found:
        for left_out in each.left_out_paths:
            remark(text.clean(f"{each.path} is without {left_out}"))


async def snapshots_get(
    session: Session,
    job: JobId,
    stage: Annotated[str, typer.Argument(help="stage_0, stage_1 …, stage_output; or 0, output.")],
    row: Annotated[str | None, typer.Option(help="Of this row, when the job ran several.")] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="New folder; else JOB-STAGE.")
    ] = None,
) -> None:
    """Fetch a snapshot and unpack it into a new folder.

    Nothing that the archive says is believed: names that lead out of the folder, links and special
    files are refused, and so is one that would fill the disk.
    """
    async with session.client() as client:
        await client.job(job)
        found = _chosen(await _snapshots(client, job), job, stage, row)
        folder = output or Path(f"{job}-{found.stage}")
        if folder.exists():
            raise Usage(f"{folder} exists already. Name a new folder with --output.")
        with _beside(folder) as temporary:
            archive, unpacked = temporary / "archive", temporary / "unpacked"
            await _fetch(session, client, found, archive)
            unpacked.mkdir()
            await trio.to_thread.run_sync(partial(_unpack, archive, unpacked))
            unpacked.rename(folder)
    session.show({**found.document, "folder": str(folder)}, lambda: str(folder))


@dataclass
class _Snapshot:
    """One that a job has stored."""

    name: str
    row: str
    definition: int
    component: str
    file: int
    size: int
    entries: int
    left_out: int
    left_out_paths: list[str]
    fetched: Path | None = None

    @property
    def stage(self) -> str:
        return self.name.partition(".")[0]

    @property
    def path(self) -> Path:
        """Where it goes below a folder; an odd row id cannot lead it astray."""
        if not self.row:
            return Path(self.name)
        return Path(self.row if _SAFE.fullmatch(self.row) else f"row-{self.definition}", self.name)

    @property
    def document(self) -> Document:
        return {
            "name": self.name,
            "stage": self.stage,
            "row": self.row,
            "component": self.component,
            "file": self.file,
            "sizeBytes": self.size,
            "entries": self.entries,
            "leftOut": self.left_out,
            "leftOutPaths": self.left_out_paths,
        } | ({} if self.fetched is None else {"path": str(self.fetched)})


async def _snapshots(client: Client, job: int) -> list[_Snapshot]:
    """What a job has stored, in that order; of one that began anew, the last of each."""
    found: dict[tuple[int, str], _Snapshot] = {}
    async with aclosing(client.events(job, follow=False, kinds=("snapshot.stored",))) as events:
        async for event in events:
            data = event.data
            name = re.sub(r"[^A-Za-z0-9_.]", "_", str(data["name"]))  # it becomes a file's
            found[event.definition or 0, name] = _Snapshot(
                name,
                str(data["row"]),
                event.definition or 0,
                event.component or "",
                int(data["file_id"]),
                int(data["bytes"]),
                int(data["entries"]),
                int(data["left_out"]),
                list(data["left_out_paths"]),
            )
    return list(found.values())


def _chosen(found: list[_Snapshot], job: int, stage: str, row: str | None) -> _Snapshot:
    """The one that is meant.

    Raises:
        Absent: there is none, or none that could be meant.
        Usage: there are several.
    """
    if not found:
        raise Absent(f"Job {job} has no snapshots: only debug jobs have.")
    wanted = stage.removesuffix(".zip").removesuffix(".tar.zst")
    same = [each for each in found if each.stage in {wanted, f"stage_{wanted}"}]
    if row is not None:
        same = [each for each in same if each.row == row]
    if not same:
        known = ", ".join(dict.fromkeys(each.path.as_posix() for each in found))
        raise Absent(f"Job {job} has no such snapshot; it has {known}.")
    if len(same) > 1:
        rows = ", ".join(each.row for each in same)
        raise Usage(f"Job {job} ran several rows. Choose one with --row: {rows}.")
    return same[0]


async def _fetch(session: Session, client: Client, wanted: _Snapshot, path: Path) -> None:
    """Write an archive to `path`, whole or not at all."""
    with _beside(path) as temporary:
        part = temporary / "part"
        with session.progress(f"fetching {wanted.path}") as progress:
            await client.download(wanted.file, part, progress)
        part.replace(path)


@contextmanager
def _beside(path: Path) -> Iterator[Path]:
    """A folder on the disk of `path`, which can be moved there; gone with what is left in it."""
    parent = path.absolute().parent
    parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".vaka-", dir=parent) as temporary:
        yield Path(temporary)


def _unpack(archive: Path, folder: Path) -> None:
    from vaka.datafolder.archives import read_archive  # noqa: PLC0415 - slow

    read_archive(archive, folder, limit=shutil.disk_usage(folder).free * 9 // 10)
