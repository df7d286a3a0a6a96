"""The hooks, and what the plugin costs when nobody uses it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import vaka_local
from vaka.errors import InvalidInput
from vaka_local.catalog import LocalCatalog
from vaka_local.storage import LocalStorage


def test_local_urls_are_ours() -> None:
    assert isinstance(vaka_local.vaka_mapping_backend("local:///a/b"), LocalStorage)
    assert isinstance(vaka_local.vaka_catalog("local:///a/b"), LocalCatalog)


@pytest.mark.parametrize("url", ["https://storage", "sqlite:///x", "", "localhost", "local:/a"])
def test_other_urls_are_passed_on(url: str) -> None:
    assert vaka_local.vaka_mapping_backend(url) is None
    assert vaka_local.vaka_catalog(url) is None


def test_bounds_can_be_set_in_the_url() -> None:
    storage = vaka_local.vaka_mapping_backend("local:///a#b%20c?memory_bytes=1000000000&threads=3")

    assert isinstance(storage, LocalStorage)
    assert storage._home == Path("/a#b%20c")
    assert (storage._duck._memory, storage._duck._threads) == (1_000_000_000, 3)


@pytest.mark.parametrize(
    "url",
    ["local://", "local://relative/path", "local:///a?threads=0", "local:///a?threads=x",
     "local:///a?threads=", "local:///a?thread=1"],
)  # fmt: skip
def test_a_url_that_cannot_be_is_refused(url: str) -> None:
    for hook in (vaka_local.vaka_mapping_backend, vaka_local.vaka_catalog):
        with pytest.raises(InvalidInput) as caught:
            hook(url)
        assert url in caught.value.message


IDLE = """
import sys, trio, vaka_local
home = sys.argv[1]

async def main():
    storage = vaka_local.vaka_mapping_backend("local://" + home)
    catalog = vaka_local.vaka_catalog("local://" + home)
    await storage.open()
    await catalog.open()
    await catalog.create_project("a")
    assert "duckdb" not in sys.modules
    await catalog.aclose()
    await storage.aclose()

trio.run(main)
"""


def test_an_idle_storage_does_not_load_duckdb(tmp_path: Path) -> None:
    environment = {"PYTHONPATH": ":".join(sys.path)}
    subprocess.run(
        [sys.executable, "-W", "error", "-c", IDLE, str(tmp_path)], env=environment, check=True
    )


LARGE = """
import resource, sys, trio
from pathlib import Path
from vaka.models.storage import ExportOptions, StorageScope, TableLoad
from vaka_local.storage import LocalStorage

home, path, scope = Path(sys.argv[1]), Path(sys.argv[2]), StorageScope("1")

async def main():
    storage = LocalStorage(home, memory_bytes=128 << 20, threads=2)
    await storage.open()
    for incremental in (False, True):
        load = TableLoad("in.c-a.t", (path,), primary_key=("id",), incremental=incremental)
        (result,) = await storage.tables.load(scope, [load])
    assert result.total_rows == int(sys.argv[3])
    await storage.tables.export(scope, "in.c-a.t", ExportOptions(), home / "out")
    await storage.aclose()
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)

trio.run(main)
"""


def test_memory_does_not_grow_with_a_table(tmp_path: Path) -> None:
    """A load, an update of all rows and an export, of 10 and of 200 MB."""
    peaks = []
    for rows in (100_000, 2_000_000):
        path, home = tmp_path / f"csv-{rows}", tmp_path / f"home-{rows}"
        with path.open("w") as file:
            file.write("id,value\n")
            for number in range(rows):
                file.write(f"{number},{number * 7919 % 1_000_003:090d}\n")
        done = subprocess.run(
            [sys.executable, "-c", LARGE, str(home), str(path), str(rows)],
            env={"PYTHONPATH": ":".join(sys.path)},
            stdout=subprocess.PIPE,
            check=True,
        )
        peaks.append(int(done.stdout) * 1024)

        assert path.stat().st_size > 95 * rows
    assert peaks[1] - peaks[0] < 100_000_000
