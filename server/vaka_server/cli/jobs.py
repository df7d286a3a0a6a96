"""Commands on jobs and actions: run, action, jobs, show, logs, wait, cancel."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from uuid import uuid4

import trio
import typer

from vaka_server.cli import text
from vaka_server.cli.client import Act, Client, Document, JobFilter, Run
from vaka_server.cli.session import Exit, Session, Usage, command, remark, say

if TYPE_CHECKING:
    from vaka.models.event import Event

JobId = Annotated[int, typer.Argument(metavar="JOB", help="Id of the job.", min=1)]
ComponentId = Annotated[str, typer.Argument(help="Id of the component.")]
Config = Annotated[str | None, typer.Option(help="Id of a stored configuration.")]
Rows = Annotated[list[str] | None, typer.Option(help="Run only this row of it; may be repeated.")]
ConfigData = Annotated[
    str | None,
    typer.Option(help="A whole configuration: JSON, or @FILE, in place of the stored one."),
]
Branch = Annotated[str | None, typer.Option(help="Id of the branch to run in.")]
Tag = Annotated[str | None, typer.Option(help="Tag of the image to run.")]
COLUMNS = {
    "id": "JOB",
    "status": "STATUS",
    "what": "COMPONENT",
    "configuration": "CONFIG",
    "created": "CREATED",
    "took": "TOOK",
    "why": "MESSAGE",
}
MESSAGE_LENGTH = 60
TIME = "%H:%M:%S"


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    command(app, "run")(run)
    command(app, "action")(action)
    command(app, "jobs")(jobs)
    command(app, "show")(show)
    command(app, "logs")(logs)
    command(app, "wait")(wait)
    command(app, "cancel")(cancel)


async def run(
    session: Session,
    component: ComponentId,
    config: Config = None,
    row: Rows = None,
    parallel: Annotated[
        str | None, typer.Option(help="Rows to run at a time: a number, or 'infinity'.")
    ] = None,
    config_data: ConfigData = None,
    branch: Branch = None,
    tag: Tag = None,
    no_wait: Annotated[
        bool, typer.Option("--no-wait", help="Return once the job is stored.")
    ] = False,
    key: Annotated[
        str | None,
        typer.Option(help="Idempotency key: a second run with it gets the first one's job."),
    ] = None,
) -> Exit:
    """Run a component, show what it prints, and end as the job does.

    Interrupted (Ctrl-C) while it waits, a job on a server goes on; one in the embedded engine is
    cancelled.
    """
    body = request_body(config, row, config_data, branch)
    if parallel is not None:
        body["parallelism"] = parallel
    wanted = Run(component, body, tag, key or uuid4().hex)
    async with session.client(works=not no_wait) as client:
        job = await client.run(wanted)
        if no_wait:
            session.show(job, lambda: str(job["id"]))
            if client.is_embedded and not session.json:
                remark("It waits until `vaka serve`, `vaka wait` or another `vaka run` works here.")
            return Exit.OK
        if not session.json:
            remark(f"Job {job['id']} is stored.")
        return await follow(session, client, int(job["id"]))


async def action(
    session: Session,
    component: ComponentId,
    name: Annotated[str, typer.Argument(metavar="ACTION", help="Name of the action.")],
    config_data: Annotated[
        str, typer.Option(help="The whole configuration: JSON, or @FILE.")
    ] = "{}",
    branch: Annotated[str | None, typer.Option(help="Id of the branch to tell it of.")] = None,
    tag: Tag = None,
) -> Exit:
    """Run a component's synchronous action and print the JSON that it answers.

    Interrupted (Ctrl-C), it is cancelled and leaves nothing.
    """
    body: Document = {"configData": read_json(config_data, "--config-data")}
    if branch is not None:
        body["branchId"] = branch
    if tag is not None:
        body["tag"] = tag
    async with session.client(works=True) as client:

        async def answer() -> None:
            session.show(value := await client.act(wanted), lambda: text.to_json(value))

        wanted = Act(component, name, body)
        if not await _until_interrupted(answer):
            remark("The action is cancelled.")
            return Exit.INTERRUPTED
    return Exit.OK


async def jobs(
    session: Session,
    component: Annotated[str | None, typer.Option(help="Only of this component.")] = None,
    config: Annotated[str | None, typer.Option(help="Only of this configuration.")] = None,
    status: Annotated[
        list[str] | None, typer.Option(help="Only with this status; may be repeated.")
    ] = None,
    since: Annotated[
        str | None, typer.Option(help="Created since: a date, or words such as '-1 day'.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000)] = 20,
    offset: Annotated[int, typer.Option(min=0)] = 0,
    query: Annotated[
        str | None,
        typer.Option("--query", "-q", help="Query such as 'status:error durationSeconds:>120'."),
    ] = None,
) -> None:
    """List jobs, newest first."""
    wanted = JobFilter(component, config, tuple(status or ()), since, limit, offset, query)
    async with session.client() as client:
        found = await client.jobs(wanted)
    if session.json:
        say(text.to_json(found))
    else:
        session.show_table([_line(job) for job in found], COLUMNS)


async def show(session: Session, job: JobId) -> None:
    """Tell where a job is or why it ended, and what each of its stages did."""
    async with session.client() as client:
        document = await client.job(job)
        moved = [event async for event in _moves(client, job)] if not session.json else []
    session.show(document, lambda: describe(document, moved))


async def logs(
    session: Session,
    job: JobId,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on until the job has ended.")
    ] = False,
    all_events: Annotated[
        bool, typer.Option("--all", help="Show what the engine did, too.")
    ] = False,
) -> None:
    """Print what a job's containers printed, and the engine's warnings."""
    async with session.client(works=follow) as client:
        stream = client.events(job, follow=follow)
        async with aclosing(stream) as events:
            async for event in events:
                if session.json:
                    say(event.to_json())
                elif all_events or _is_told(event):
                    say(event_line(event))


async def wait(session: Session, job: JobId) -> Exit:
    """Wait for a job, show what it prints, and end as it does."""
    async with session.client(works=True) as client:
        return await follow(session, client, job, interrupt_cancels=False)


async def cancel(
    session: Session,
    job: JobId,
    no_wait: Annotated[
        bool, typer.Option("--no-wait", help="Return once the wish is stored.")
    ] = False,
) -> None:
    """End a job, and return when nothing of it lives."""
    async with session.client(works=True) as client:
        await client.cancel(job)
        if not no_wait:
            await _end(client, job)
        document = await client.job(job)
    session.show(document, lambda: f"Job {job} is {document['status']}. {text.explain(document)}")


# -- following -------------------------------------------------------------------------------------


async def follow(
    session: Session, client: Client, job_id: int, *, interrupt_cancels: bool = True
) -> Exit:
    """Show a job's events until it has ended; return what its end means."""
    if not await follow_to_end(session, client, job_id, interrupt_cancels=interrupt_cancels):
        return Exit.INTERRUPTED
    job = await client.job(job_id)
    if session.json:
        say(text.to_json(job))
    else:
        tell_end(job)
    return exit_code(job)


async def follow_to_end(
    session: Session, client: Client, job_id: int, *, interrupt_cancels: bool
) -> bool:
    """Show a job's events until it has ended; False when an interrupt came and the job goes on."""

    async def show_events() -> None:
        async with (
            aclosing(client.events(job_id, follow=True)) as events,
            _display(session) as display,
        ):
            async for event in events:
                display.event(event)

    if not await _until_interrupted(show_events):
        if not (client.is_embedded and interrupt_cancels):
            remark(f"Job {job_id} goes on; see `vaka wait {job_id}` and `vaka cancel {job_id}`.")
            return False
        remark(f"Cancelling job {job_id}.")
        await client.cancel(job_id)
        await _end(client, job_id)
    return True


def tell_end(job: Mapping[str, Any]) -> None:
    """Say how a job ended."""
    took = text.duration(job["durationSeconds"])
    remark(f"Job {job['id']} is {job['status']} after {took}. {text.explain(job)}")


async def _end(client: Client, job_id: int) -> None:
    """Return when a job has ended."""
    async with aclosing(client.events(job_id, follow=True, kinds=("job.finished",))) as events:
        async for _ in events:
            pass


async def _until_interrupted(work: Callable[[], Awaitable[None]]) -> bool:
    """Do `work`; False when a signal ended it early."""
    done = False
    async with trio.open_nursery() as nursery:
        await nursery.start(_cancel_on_signal, nursery.cancel_scope)
        await work()
        done = True
        nursery.cancel_scope.cancel()
    return done


async def _cancel_on_signal(
    scope: trio.CancelScope, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        task_status.started()
        async for _ in signals:
            scope.cancel()
            return


def exit_code(job: Mapping[str, Any]) -> Exit:
    """What a job's status means for who waits for it."""
    match job["status"]:
        case "cancelled" | "terminated":
            return Exit.CANCELLED
        case "error":
            return Exit.APPLICATION if job["error"] == "application" else Exit.USER
        case _:
            return Exit.OK


class _Display:
    """Prints log lines to standard output and, to a person, what goes on below them."""

    def __init__(self, session: Session, status: Any = None, console: Any = None) -> None:
        self._session = session
        self._status = status
        self._console = console

    def event(self, event: Event) -> None:
        if self._session.json:
            return
        if event.kind == "log" or event.level in {"warn", "error"}:
            self._line(event_line(event))
        elif self._status is not None and event.message:
            from rich.text import Text  # noqa: PLC0415 - only for people

            self._status.update(Text(text.clean(event.message)))  # which may look like markup

    def _line(self, line: str) -> None:
        if self._console is None:
            say(line)
        else:
            self._console.print(line, markup=False, highlight=False, soft_wrap=True)


@asynccontextmanager
async def _display(session: Session) -> AsyncIterator[_Display]:
    if session.json or not (sys.stdout.isatty() and sys.stderr.isatty()):
        yield _Display(session)
        return
    from rich.console import Console  # noqa: PLC0415 - only for people

    console = Console(emoji=False)
    with console.status("waiting") as status:
        yield _Display(session, status, console)


# -- words -----------------------------------------------------------------------------------------


def _is_told(event: Event) -> bool:
    """Whether an event is for who asked for the job, or only how the engine went about it."""
    return event.kind == "log" or event.level in {"warn", "error"}


def event_line(event: Event) -> str:
    """One event as one line without anything that a terminal would act on."""
    at = event.time.astimezone().strftime(TIME)
    mark = "·"
    if event.kind == "log":
        is_bad = event.stream == "stderr" or event.level in {"warn", "error"}
        mark = "!" if is_bad else " "
    return f"{at} {mark} {text.clean(event.message)}"


def describe(job: Mapping[str, Any], moved: list[Event]) -> str:
    """All that is known of a job, for people."""
    params = job["params"]
    lines = [
        f"Job {job['id']}: {job['status']}. {text.explain(job)}",
        "",
        f"component  {text.clean(str(params['component']))}",
    ]
    for name, member in (("config", "config"), ("row", "row"), ("tag", "tag")):
        if member in params:
            lines.append(f"{name:9}  {text.clean(str(params[member]))}")
    result = job["result"] or {}
    if result.get("rows"):
        ran = ", ".join(f"{each['id']} ({each['status']})" for each in result["rows"])
        lines.append(f"rows       {text.clean(ran)}")
    if result.get("configVersion") is not None:
        lines.append(f"version    {result['configVersion']} of the configuration")
    by = job["token"]["description"] or job["token"]["id"] or "-"
    lines += [
        f"created    {text.clock(job['createdTime'])} by {text.clean(str(by))}",
        f"started    {text.clock(job['startTime'])}",
        f"ended      {text.clock(job['endTime'])} after {text.duration(job['durationSeconds'])}",
    ]
    if job["process"]["host"]:
        lines.append(f"host       {text.clean(str(job['process']['host']))}")
    waits_for = (job.get("progress") or {}).get("waitsFor")
    if waits_for:
        lines.append(f"waits for  {text.clean(waits_for)}")
    if job["errorNote"]:
        lines.append(f"note       {text.clean(str(job['errorNote']))}")
    if moved:
        lines += ["", text.table([_move(event) for event in moved], _MOVES)]
    if job.get("stages"):
        lines += ["", text.table([_stage(stage) for stage in job["stages"]], _STAGES)]
    return "\n".join(lines)


_STAGES = {
    "place": "STAGE",
    "kind": "KIND",
    "image": "IMAGE",
    "status": "STATUS",
    "exit": "EXIT",
    "took": "TOOK",
    "started": "STARTED",
    "memory": "PEAK",
    "output": "OUTPUT",
}
_MOVES = {"what": "DATA", "name": "NAME", "bytes": "BYTES", "rows": "ROWS", "at": "AT"}
_DATA = {
    "input.table": "table in",
    "input.file": "file in",
    "output.table": "table out",
    "output.file": "file out",
    "state.stored": "state",
}


def _stage(stage: Mapping[str, Any]) -> Document:
    exit_text = text.cell(stage["exitCode"]) + (" out of memory" if stage["outOfMemory"] else "")
    return {
        "place": f"{stage['definition']}.{stage['stage']}",
        "kind": stage["kind"],
        "image": stage["image"],
        "status": stage["status"],
        "exit": exit_text,
        "took": text.duration(stage["seconds"]),
        "started": text.clock(stage["startTime"], TIME),
        "memory": text.size(stage["memoryPeakBytes"]),
        "output": text.size(stage["stdoutBytes"] + stage["stderrBytes"]),
    }


def _move(event: Event) -> Document:
    data = event.data
    return {
        "what": _DATA[event.kind],
        "name": next((data[key] for key in ("table", "name", "file", "id") if key in data), None),
        "bytes": text.size(data["bytes"]) if "bytes" in data else None,
        "rows": data.get("rows"),
        "at": event.time.astimezone().strftime(TIME),
    }


async def _moves(client: Client, job: int) -> AsyncIterator[Event]:
    """What came in and went out."""
    async with aclosing(client.events(job, follow=False, kinds=tuple(_DATA))) as events:
        async for event in events:
            yield event


def _line(job: Mapping[str, Any]) -> Document:
    message = text.clean(str((job["result"] or {}).get("message") or ""))
    if len(message) > MESSAGE_LENGTH:
        message = message[: MESSAGE_LENGTH - 1] + "…"
    return {
        "id": job["id"],
        "status": job["status"],
        "what": job["params"]["component"],
        "configuration": job["params"].get("config"),
        "created": text.clock(job["createdTime"]),
        "took": text.duration(job["durationSeconds"]),
        "why": message,
    }


def request_body(
    config: str | None, row: list[str] | None, config_data: str | None, branch: str | None
) -> Document:
    """The body of a request for a job.

    Raises:
        Usage: it names no configuration.
    """
    body: Document = {}
    if config is not None:
        body["config"] = config
    match row or []:
        case []:
            pass
        case [only]:
            body["row"] = only
        case several:
            body["configRowIds"] = several
    if config_data is not None:
        body["configData"] = read_json(config_data, "--config-data")
    if not body:
        raise Usage("Name a configuration with --config, or give one with --config-data.")
    if branch is not None:
        body["branchId"] = branch
    return body


def read_json(value: str, option: str) -> Any:
    """The JSON that an option gives, or the file that it names with `@`.

    Raises:
        Usage: it is not JSON.
    """
    content = Path(value[1:]).read_text() if value.startswith("@") else value
    try:
        return json.loads(content)
    except ValueError as error:
        raise Usage(f"{option}: this is not JSON: {error}.") from error
