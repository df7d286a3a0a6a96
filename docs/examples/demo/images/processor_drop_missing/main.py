"""A processor that drops the rows of tables which lack a value in given columns.

Parameters: `columns`, the names; `missing`, the texts that count as no value (the empty one and
"NA" by default). A table without these columns, every manifest, every file and whatever else lies
in the input folder arrive in the output folder as they were.
"""

import csv
import json
import logging
import shutil
import sys
from collections.abc import Collection
from pathlib import Path

from keboola.component import CommonInterface, UserException

log = logging.getLogger(__name__)


def main() -> None:
    interface = CommonInterface()
    parameters = interface.configuration.parameters
    columns = parameters.get("columns")
    missing = parameters.get("missing", ["", "NA"])
    if not columns or not isinstance(columns, list):
        raise UserException('Parameter "columns" must list at least one column.')

    data = Path(interface.data_folder_path)
    for source in sorted((data / "in/tables").iterdir()):
        target = data / "out/tables" / source.name
        if source.suffix == ".manifest":
            shutil.copyfile(source, target)
        elif source.is_dir():
            target.mkdir()
            for part in sorted(source.iterdir()):
                drop(part, target / part.name, header_of(source), columns, missing)
        else:
            drop(source, target, header_of(source), columns, missing)
    copy_the_rest(data)


def header_of(table: Path) -> list[str] | None:
    """The columns that the manifest gives to a table without a header row."""
    manifest = table.with_name(f"{table.name}.manifest")
    described = json.loads(manifest.read_text()) if manifest.exists() else {}
    if "id" in described or described.get("has_header"):  # an input table always has its header
        return None if table.is_file() else described.get("columns")
    named = [column["name"] for column in described.get("schema", [])]
    return described.get("columns") or named or None


def drop(
    source: Path,
    target: Path,
    header: list[str] | None,
    columns: list[str],
    missing: Collection[str],
) -> None:
    with (
        source.open(encoding="utf-8", newline="") as rows_in,
        target.open("w", encoding="utf-8", newline="") as rows_out,
    ):
        reader = csv.reader(rows_in, dialect="kbc")
        writer = csv.writer(rows_out, dialect="kbc")
        if header is None:
            header = next(reader, [])
            writer.writerow(header)
        checked = [header.index(column) for column in columns if column in header]
        read = kept = 0
        for row in reader:
            read += 1
            if not any(row[index] in missing for index in checked):
                writer.writerow(row)
                kept += 1
    log.info("%s: dropped %d of %d rows.", source.name, read - kept, read)


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
