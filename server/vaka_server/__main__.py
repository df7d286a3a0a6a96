"""The `vaka` command."""

from __future__ import annotations


def main() -> None:
    """Run the command that the arguments name, and exit with its code."""
    from vaka_server.cli.main import create_cli  # noqa: PLC0415 - nothing before it is needed

    create_cli()()


if __name__ == "__main__":
    main()
