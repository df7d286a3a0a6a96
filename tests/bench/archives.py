"""A debug job's snapshot beside the programs that everybody has: `zip snapshot`, `tar.zst snapshot`.

Our side writes the archive as a debug job does, secrets of its documents hidden. The other side is
`zip -1` and `tar | zstd -1 -T2` on the same folder: tables and two thousand files. Each archive is a new
file on the same disk. Both must hold the same names and as many bytes.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import tarfile
import time
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import trio
import zstandard
from tests.bench.measuring import Measure, at_least, interleave, temporary_folder
from tests.bench.rows import write_table

from vaka.actors.snapshot import DOCUMENTS, hide_secrets
from vaka.datafolder.archives import write_archive
from vaka.masking import Masker
from vaka.models.job import ArchiveFormat

MEGABYTES = 150
FILES = 2_000
FILE_BYTES = 4_000
NOISE_BYTES = 16 << 20
"""Of data that is packed already."""
ROUNDS = 5
ZIP_RATIO = 2.0
ZSTD_RATIO = 0.8
Listing = dict[str, int]


async def measure() -> list[Measure]:
    """Megabytes of the folder a second, each beside its reference."""
    with temporary_folder() as folder:
        source = folder / "data"
        await trio.to_thread.run_sync(_fill, source)
        size = sum(path.stat().st_size for path in source.rglob("*") if path.is_file()) / 1e6
        return [
            await _measure("zip", ZIP_RATIO, source, size, _zip, _list_zip),
            await _measure("tar.zst", ZSTD_RATIO, source, size, _tar_zstd, _list_tar_zstd),
        ]


async def _measure(
    form: ArchiveFormat,
    ratio: float,
    source: Path,
    size: float,
    reference: Callable[[Path, Path], None],
    listing: Callable[[Path], Listing],
) -> Measure:
    name = f"{form} snapshot"
    missing = [each for each in _PROGRAMS[form] if shutil.which(each) is None]
    if missing:
        words = ", ".join(missing)
        note = f"not measured: {words} cannot be found; apt-get install {words}"
        return Measure(
            name, 0.0, None, "MB/s", 0.0, f"ratio >= {ratio:g}", met=False, notes=(note,)
        )
    targets = source.with_name("ours"), source.with_name("theirs")

    async def timed(write: Callable[[Path, Path], None], target: Path, _: int) -> float:
        await trio.to_thread.run_sync(partial(target.unlink, missing_ok=True))
        began = time.perf_counter()
        await trio.to_thread.run_sync(write, source, target)
        return size / (time.perf_counter() - began)

    mine, others = await interleave(
        ROUNDS,
        partial(timed, partial(_ours, form), targets[0]),
        partial(timed, reference, targets[1]),
    )
    ours, theirs = (listing(target) for target in targets)
    # hiding secrets makes a document longer or shorter
    changed = {each for each in DOCUMENTS if each in ours}
    if {**ours, **dict.fromkeys(changed, 0)} != {**theirs, **dict.fromkeys(changed, 0)}:
        raise AssertionError(f"the two {form} archives do not hold the same files")
    kilobytes = [target.stat().st_size // 1_000 for target in targets]
    note = f"{size:,.0f} MB in {len(ours):,} entries; packed to {kilobytes[0]:,} and {kilobytes[1]:,} kB"
    return at_least(name, mine, others, "MB/s", ratio, note)


_PROGRAMS: dict[ArchiveFormat, tuple[str, ...]] = {"zip": ("zip",), "tar.zst": ("tar", "zstd")}


def _fill(source: Path) -> None:
    for name in ("in/tables", "in/files", "out/tables", "out/files"):
        (source / name).mkdir(parents=True)
    write_table(source / "in/tables/orders.csv", MEGABYTES)
    with (source / "in/tables/orders.csv").open("rb") as table:
        for number in range(FILES):
            (source / f"in/files/{number}.csv").write_bytes(table.read(FILE_BYTES))
    with Path("/dev/urandom").open("rb") as noise:
        (source / "in/files/packed.bin").write_bytes(noise.read(NOISE_BYTES))
    document = {"parameters": {"#password": "a secret of the bench"}}
    (source / "config.json").write_text(json.dumps(document))


def _ours(form: ArchiveFormat, source: Path, target: Path) -> None:
    masker = Masker(["a secret of the bench"])
    written = write_archive(
        source,
        target,
        format=form,
        rewrite=lambda path, data: hide_secrets(path, data, masker),
        rewritten=DOCUMENTS,
        limit=1 << 40,
    )
    if written.left_out.count:
        raise AssertionError(f"left out: {written.left_out.named}")


def _zip(source: Path, target: Path) -> None:
    subprocess.run(["zip", "-1", "-q", "-r", f"{target}.zip", "."], cwd=source, check=True)
    Path(f"{target}.zip").rename(target)


def _tar_zstd(source: Path, target: Path) -> None:
    with subprocess.Popen(["tar", "-cf", "-", "."], cwd=source, stdout=subprocess.PIPE) as tar:
        subprocess.run(["zstd", "-1", "-T2", "-q", "-o", target], stdin=tar.stdout, check=True)
    if tar.returncode:
        raise AssertionError("tar failed")


def _list_zip(target: Path) -> Listing:
    with zipfile.ZipFile(target) as archive:
        return {each.filename.rstrip("/"): each.file_size for each in archive.infolist()}


def _list_tar_zstd(target: Path) -> Listing:
    with (
        zstandard.open(target) as unpacked,
        tarfile.open(fileobj=unpacked, mode="r|") as archive,
    ):
        found = {each.name.removeprefix("./"): each.size for each in archive}
    found.pop(".", None)
    return found
