"""A processor that adds a column with a hash of the row to every table.

Parameter `column` names it (`row_hash` by default). The hash is the first 16 hexadecimal digits of
the SHA-256 of the row's fields, joined by the character U+001F. The manifest, where there is one,
learns of the column; files and whatever else lies in the input folder arrive as they were.
"""

import csv
import hashlib
import json
import logging
import shutil
import sys
from pathlib import Path
from typing import Any

from keboola.component import CommonInterface, UserException

log = logging.getLogger(__name__)

DIGITS = 16


def main() -> None:
    interface = CommonInterface()
    column = interface.configuration.parameters.get("column", "row_hash")
    if not column or not isinstance(column, str):
        raise UserException('Parameter "column" must be the name of a column.')

    data = Path(interface.data_folder_path)
    for source in sorted((data / "in/tables").iterdir()):
        if source.suffix == ".manifest":
            continue
        target = data / "out/tables" / source.name
        manifest = source.with_name(f"{source.name}.manifest")
        described = json.loads(manifest.read_text()) if manifest.exists() else None
        headed = source.is_file() and has_header(described or {})
        if source.is_dir():
            target.mkdir()
            rows = sum(add(part, target / part.name, None) for part in sorted(source.iterdir()))
        else:
            rows = add(source, target, column if headed else None)
        if described is not None:
            describe(described, column)
            target.with_name(manifest.name).write_text(json.dumps(described))
        log.info("%s: hashed %d rows.", source.name, rows)
    copy_the_rest(data)


def has_header(described: dict[str, Any]) -> bool:
    """Whether a file's first row names its columns; an input table's manifest has an id."""
    if "id" in described or described.get("has_header"):
        return True
    return not described.get("columns") and not described.get("schema")


def describe(described: dict[str, Any], column: str) -> None:
    if described.get("columns"):
        described["columns"].append(column)
    if described.get("schema"):
        described["schema"].append({"name": column})


def add(source: Path, target: Path, header: str | None) -> int:
    """Copy the rows, each with its hash; the number of rows, `header`'s own not counted."""
    with (
        source.open(encoding="utf-8", newline="") as rows_in,
        target.open("w", encoding="utf-8", newline="") as rows_out,
    ):
        reader = csv.reader(rows_in, dialect="kbc")
        writer = csv.writer(rows_out, dialect="kbc")
        if header is not None:
            writer.writerow([*next(reader, []), header])
        rows = 0
        for row in reader:
            digest = hashlib.sha256("\x1f".join(row).encode()).hexdigest()
            writer.writerow([*row, digest[:DIGITS]])
            rows += 1
    return rows


def copy_the_rest(data: Path) -> None:
    """Copy all but the tables; contents only, as the folders may belong to somebody else."""
    for source in sorted((data / "in").rglob("*")):
        inside = source.relative_to(data / "in")
        if inside.parts[0] == "tables":
            continue
        target = data / "out" / inside
        if source.is_dir():
            target.mkdir(exist_ok=True)
        else:
            shutil.copyfile(source, target)


if __name__ == "__main__":
    try:
        main()
    except UserException as error:
        print(error, file=sys.stderr)
        sys.exit(1)
    except Exception:
        log.exception("The processor failed.")
        sys.exit(2)
