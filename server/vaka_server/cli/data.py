"""Commands on data: bucket, table, file."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from vaka_server.cli import text
from vaka_server.cli.catalog import group
from vaka_server.cli.client import Load, Select, Upload
from vaka_server.cli.session import Session, Usage, command, remark, say

TableId = Annotated[
    str, typer.Argument(metavar="TABLE", help="Id of the table: stage.c-bucket.name.")
]
Source = Annotated[Path, typer.Argument(metavar="FILE", help="File to send; - is the input.")]
Columns = Annotated[str | None, typer.Option(help="Only these, comma separated, in this order.")]
Where = Annotated[str | None, typer.Option(help="Only rows where: column=value, or != < <= > >=.")]
Changed = Annotated[
    str | None, typer.Option(help="Only rows changed since: a date, or words such as '-1 day'.")
]
OPERATORS = {"!=": "ne", "<=": "le", ">=": "ge", "=": "eq", "<": "lt", ">": "gt"}


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    bucket = group(app, "bucket", "Buckets: folders of tables.")
    command(bucket, "create")(bucket_create)
    command(bucket, "list")(bucket_list)
    table = group(app, "table", "Tables.")
    command(table, "load")(table_load)
    command(table, "export")(table_export)
    command(table, "preview")(table_preview)
    command(table, "list")(table_list)
    file = group(app, "file", "Files.")
    command(file, "upload")(file_upload)
    command(file, "download")(file_download)
    command(file, "list")(file_list)


# -- buckets ---------------------------------------------------------------------------------------


async def bucket_create(
    session: Session,
    stage: Annotated[str, typer.Argument(help="in or out.")],
    name: Annotated[str, typer.Argument(help="Its name; c- before it may be left out.")],
    description: Annotated[str, typer.Option(help="Description.")] = "",
) -> None:
    """Make a bucket."""
    if stage not in {"in", "out"}:
        raise Usage("The stage of a bucket is in or out.")
    async with session.client() as client:
        made = await client.create_bucket(stage, name.removeprefix("c-"), description)
    session.show(made, lambda: text.clean(made["id"]))


async def bucket_list(session: Session) -> None:
    """List buckets."""
    async with session.client() as client:
        found = await client.buckets()
    session.show_table(found, {"id": "BUCKET", "created": "CREATED", "description": "DESCRIPTION"})


# -- tables ----------------------------------------------------------------------------------------


async def table_load(
    session: Session,
    table: TableId,
    file: Source,
    incremental: Annotated[
        bool, typer.Option("--incremental", help="Add rows, or replace those of the same key.")
    ] = False,
    primary_key: Annotated[
        str | None, typer.Option(help="Columns of the key, comma separated.")
    ] = None,
    columns: Annotated[
        str | None, typer.Option(help="Names of the columns of a file without a header.")
    ] = None,
    delimiter: Annotated[str, typer.Option(help="Between fields; \\t is a tab.")] = ",",
    enclosure: Annotated[str, typer.Option(help="Around fields.")] = '"',
) -> None:
    """Load a CSV file, plain or gzip, into a table that is made when it is missing."""
    wanted = Load(
        table=table,
        path=_source(file),
        incremental=incremental,
        primary_key=None if primary_key is None else _words(primary_key),
        columns=_words(columns),
        delimiter="\t" if delimiter == "\\t" else delimiter,
        enclosure=enclosure,
    )
    async with session.client() as client:
        with session.progress(f"sending {file.name}") as progress:
            loaded = await client.load(wanted, progress)
    for warning in loaded["warnings"]:
        remark(f"Warning: {text.clean(warning)}")
    session.show(
        loaded,
        lambda: (
            f"Loaded {loaded['importedRowsCount']} rows; "
            f"{text.clean(loaded['tableId'])} has {loaded['totalRowsCount']}."
        ),
    )


async def table_export(
    session: Session,
    table: TableId,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File to write; else the output.")
    ] = None,
    columns: Columns = None,
    where: Where = None,
    changed_since: Changed = None,
    limit: Annotated[int | None, typer.Option(min=0)] = None,
    gzip: Annotated[bool, typer.Option("--gzip")] = False,
) -> None:
    """Write a table as CSV."""
    wanted = _select(table, columns, where, changed_since, limit, gzip)
    async with session.client() as client:
        with _target(output) as path, session.progress(f"fetching {table}") as progress:
            rows = await client.export(wanted, path, progress)
    if output is not None:
        answer = {"tableId": table, "rowsCount": rows, "output": str(output)}
        session.show(answer, lambda: f"Wrote {rows} rows to {output}.")


async def table_preview(
    session: Session,
    table: TableId,
    columns: Columns = None,
    where: Where = None,
    changed_since: Changed = None,
    limit: Annotated[int, typer.Option(min=0, max=1000)] = 10,
) -> None:
    """Show some rows of a table."""
    async with session.client() as client:
        found = await client.preview(_select(table, columns, where, changed_since, limit, False))
    rows = [{each["columnName"]: each["value"] for each in row} for row in found["rows"]]
    if session.json:
        say(text.to_json(rows))
    else:
        say(text.table(rows, {column: text.clean(column) for column in found["columns"]}))


async def table_list(
    session: Session,
    bucket: Annotated[str | None, typer.Argument(help="Only of this bucket.")] = None,
) -> None:
    """List tables."""
    async with session.client() as client:
        found = await client.tables(bucket)
    if session.json:
        say(text.to_json(found))
        return
    rows = [{**each, "size": text.size(each["dataSizeBytes"])} for each in found]
    columns = {
        "id": "TABLE",
        "rowsCount": "ROWS",
        "size": "SIZE",
        "primaryKey": "KEY",
        "lastImportDate": "LOADED",
    }
    session.show_table(rows, columns)


# -- files -----------------------------------------------------------------------------------------


async def file_upload(
    session: Session,
    file: Source,
    tag: Annotated[list[str] | None, typer.Option(help="Tag; may be repeated.")] = None,
    name: Annotated[str | None, typer.Option(help="Name; else the file's own.")] = None,
    permanent: Annotated[bool, typer.Option("--permanent", help="Keep it for ever.")] = False,
) -> None:
    """Store a file."""
    path = _source(file)
    wanted = Upload(path, name or file.name, tuple(tag or ()), is_permanent=permanent)
    async with session.client() as client:
        with session.progress(f"sending {file.name}") as progress:
            stored = await client.upload(wanted, progress)
    session.show(stored, lambda: str(stored["id"]))


async def file_download(
    session: Session,
    file: Annotated[int, typer.Argument(metavar="FILE", help="Id of the file.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File to write; else the output.")
    ] = None,
) -> None:
    """Fetch a file."""
    async with session.client() as client:
        with _target(output) as path, session.progress(f"fetching file {file}") as progress:
            found = await client.download(file, path, progress)
    if output is not None:
        session.show(found, lambda: f"Wrote {text.size(found['sizeBytes'])} to {output}.")


async def file_list(
    session: Session,
    tag: Annotated[
        list[str] | None, typer.Option(help="Files with any of these; may be repeated.")
    ] = None,
    query: Annotated[str, typer.Option(help="A query, as in tags:a AND name:b*.")] = "",
    limit: Annotated[int, typer.Option(min=1, max=10_000)] = 100,
) -> None:
    """List files, newest first."""
    async with session.client() as client:
        found = await client.files(tuple(tag or ()), query, limit)
    if session.json:
        say(text.to_json(found))
        return
    rows = [{**each, "size": text.size(each["sizeBytes"])} for each in found]
    columns = {"id": "FILE", "created": "CREATED", "size": "SIZE", "tags": "TAGS", "name": "NAME"}
    session.show_table(rows, columns)


# -- what options mean -----------------------------------------------------------------------------


def parse_where(condition: str | None) -> tuple[str | None, tuple[str, ...], str]:
    """Column, values and operator of `column=value`.

    Raises:
        Usage: there is no operator in it.
    """
    if condition is None:
        return None, (), "eq"
    found = [(condition.index(sign), -len(sign), sign) for sign in OPERATORS if sign in condition]
    if not found:
        raise Usage(f"--where: {condition!r} has none of {', '.join(OPERATORS)} in it.")
    # the first one in the text, and of two that begin there the longer
    position, length, sign = min(found)
    column, value = condition[:position].strip(), condition[position - length :].strip()
    values = tuple(value.split("|")) if sign in {"=", "!="} else (value,)
    return column, values, OPERATORS[sign]


def _select(
    table: str,
    columns: str | None,
    where: str | None,
    changed_since: str | None,
    limit: int | None,
    gzip: bool,
) -> Select:
    column, values, operator = parse_where(where)
    return Select(
        table=table,
        columns=_words(columns),
        where_column=column,
        where_values=values,
        where_operator=operator,
        changed_since=changed_since,
        limit=limit,
        gzip=gzip,
    )


def _words(text_: str | None) -> tuple[str, ...]:
    return tuple(word.strip() for word in (text_ or "").split(",") if word.strip())


def _source(file: Path) -> Path:
    return Path("/dev/stdin") if str(file) == "-" else file


def print_file(path: Path) -> None:
    """Print a file as it is, or to a terminal without anything that it would act on."""
    if sys.stdout.isatty():
        with path.open(encoding="utf-8", errors="replace", newline="\n") as lines:
            while part := lines.readline(1 << 16):
                sys.stdout.write(text.clean_lines(part))
    else:
        with path.open("rb") as file:
            shutil.copyfileobj(file, sys.stdout.buffer)
    sys.stdout.flush()


@contextmanager
def _target(output: Path | None) -> Iterator[Path]:
    """A file to write: it takes the place of `output`, or is printed, once it is complete."""
    folder = output.absolute().parent if output is not None else None
    with tempfile.TemporaryDirectory(prefix=".vaka-", dir=folder) as temporary:
        path = Path(temporary) / "output"
        yield path
        if output is None:
            print_file(path)
        else:
            path.replace(output)
