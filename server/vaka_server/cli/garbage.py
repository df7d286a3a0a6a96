"""Commands on what nobody needs any more: gc plan, gc apply."""

from __future__ import annotations

from typing import Annotated

import typer

from vaka_server.cli import text
from vaka_server.cli.catalog import group
from vaka_server.cli.session import Session, command, remark, say

COLUMNS = {"kind": "KIND", "name": "NAME", "size": "BYTES", "reason": "WHY"}


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    gc = group(app, "gc", "What the installation has kept and nobody needs any more.")
    command(gc, "plan")(gc_plan)
    command(gc, "apply")(gc_apply)


async def gc_plan(session: Session) -> None:
    """Show what `apply` would remove, why, and how many bytes it takes. Nothing is removed."""
    async with session.client() as client:
        plan = await client.gc_plan()
    rows = [{**item, "size": text.size(item["bytes"])} for item in plan["items"]]
    if session.json:
        say(text.to_json(plan))
        return
    session.show_table(rows, COLUMNS)
    for kind, why in plan["failures"].items():
        remark(f"Cannot look for {kind}: {text.clean(why)}")
    say(f"{len(rows)} to remove, {text.size(plan['bytes'])}")


async def gc_apply(
    session: Session,
    timeout: Annotated[
        float | None, typer.Option(min=0, help="Seconds it may take, about.")
    ] = None,
) -> None:
    """Remove what `plan` shows, one after the other, and tell each step.

    It ends well whatever happened on the way: what failed is told, and tried again the next time.
    """

    def tell(line: str) -> None:
        if not session.json:
            say(text.clean(line))

    async with session.client() as client:
        report = await client.gc_apply(timeout, tell)
    if session.json:
        say(text.to_json(report))
    else:
        remark(f"{len(report['removed'])} removed, {text.size(report['bytes'])}")
