"""The `vaka` command."""

from __future__ import annotations

import gc
from typing import Final

GARBAGE: Final = (10_000, 10, 10)
"""When Python looks for cycles: a tenth as often as it would, which takes a seventh of the time that a
start takes, and holds a server up less while large documents are checked."""


def main() -> None:
    """Run the command that the arguments name, and exit with its code."""
    gc.set_threshold(*GARBAGE)
    from vaka_server.cli.main import create_cli  # noqa: PLC0415 - nothing before it is needed

    create_cli()()


if __name__ == "__main__":
    main()
