"""The demo's programs, each in its own image over a data folder made by hand, as the engine would.

The rows are few and made up: what the real data must give is the demo's own business.
"""

import asyncio
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiodocker
import pytest

pytestmark = pytest.mark.docker

USER = f"{os.geteuid() or 1000}:{os.getegid() or 1000}"

FLIGHTS = """month,carrier,origin,dep_delay,arr_delay
1,AA,JFK,10,20
1,AA,JFK,-5,-20
1,AA,JFK,NA,NA
1,B6,JFK,3,NA
2,B6,JFK,0,16
3,B6,JFK,1,15
"""

Stage = Callable[..., tuple[int, str]]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data folder with the flights, a file, and a manifest for each."""
    data = tmp_path / "data"
    for folder in ("in/tables", "in/files", "in/user", "out/tables", "out/files"):
        (data / folder).mkdir(parents=True)
    (data / "in/tables/flights.csv").write_text(FLIGHTS)
    header = FLIGHTS.partition("\n")[0].split(",")
    manifest = {"id": "in.c-demo.flights", "name": "flights", "columns": header}
    (data / "in/tables/flights.csv.manifest").write_text(json.dumps(manifest))
    (data / "in/files/7_carriers.json").write_text(json.dumps({"AA": "Ann", "B6": "Bob"}))
    (data / "in/files/7_carriers.json.manifest").write_text(
        json.dumps({"id": 7, "name": "carriers.json", "tags": ["carriers"], "is_sliced": False})
    )
    return data


@pytest.fixture
def stage(docker_host: str, demo_images: dict[str, str], data: Path, tmp_path: Path) -> Stage:
    """Runs one image over the data folder; gives its exit code and everything it printed."""

    def run(image: str, parameters: dict[str, object]) -> tuple[int, str]:
        config = {"parameters": parameters, "storage": {}, "image_parameters": {}, "action": "run"}
        (data / "config.json").write_text(json.dumps(config))
        for path in [tmp_path, data, *data.rglob("*")]:
            path.chmod(0o777 if path.is_dir() else 0o666)
        return asyncio.run(_container(docker_host, demo_images[image], data))

    return run


async def _container(host: str, image: str, data: Path) -> tuple[int, str]:
    config: dict[str, Any] = {
        "Image": image,
        "User": USER,
        "Env": ["KBC_DATADIR=/data/", "KBC_STACKID=vaka.invalid", "KBC_RUNID=1"],
        "HostConfig": {
            "NetworkMode": "none",
            "Binds": [f"{data}:/data"],
            "Memory": 256 << 20,
            "CapDrop": ["ALL"],
            "SecurityOpt": ["no-new-privileges"],
        },
    }
    async with aiodocker.Docker(url=host) as docker:
        container = await docker.containers.create(config)
        try:
            await container.start()
            ended = await container.wait(timeout=120)
            lines = await container.log(stdout=True, stderr=True)
            return ended["StatusCode"], "".join(lines)
        finally:
            await container.delete(force=True)


def move_on(data: Path) -> None:
    """What the engine does between two stages."""
    shutil.rmtree(data / "in")
    (data / "out/state.json").unlink(missing_ok=True)
    (data / "out").rename(data / "in")
    for folder in ("out/tables", "out/files", "in/user"):
        (data / folder).mkdir(parents=True, exist_ok=True)


def test_the_processor_before_drops_rows_and_keeps_everything_else(
    stage: Stage, data: Path
) -> None:
    (data / "in/user/note.txt").write_text("kept")
    before = {
        path.relative_to(data / "in"): path.read_bytes()
        for path in (data / "in").rglob("*")
        if path.is_file() and path.name != "flights.csv"
    }

    code, log = stage("demo-processor-drop-missing", {"columns": ["dep_delay", "arr_delay"]})

    assert code == 0, log
    assert "flights.csv: dropped 2 of 6 rows." in log
    rows = (data / "out/tables/flights.csv").read_text().splitlines()
    assert [row.replace('"', "") for row in rows] == [
        line for line in FLIGHTS.splitlines() if "NA" not in line
    ]
    for path, content in before.items():
        assert (data / "out" / path).read_bytes() == content


def test_the_component_goes_on_where_its_state_says(stage: Stage, data: Path) -> None:
    stage("demo-processor-drop-missing", {"columns": ["dep_delay", "arr_delay"]})
    move_on(data)
    (data / "in/state.json").write_text("{}")

    code, log = stage("demo-delays", {"late_minutes": 15, "months_per_run": 2})

    assert code == 0, log
    assert "This is run 1; no month is done yet." in log
    first = (data / "out/tables/delays.csv").read_text()
    assert first == ("JFK,AA,1,Ann,2,1,2.50,0.00,20\nJFK,B6,2,Bob,1,1,0.00,16.00,16\n")
    manifest = json.loads((data / "out/tables/delays.csv.manifest").read_text())
    assert manifest["primary_key"] == ["origin", "carrier", "month"]
    assert manifest["incremental"] is True
    assert manifest["columns"][:4] == ["origin", "carrier", "month", "carrier_name"]
    state = json.loads((data / "out/state.json").read_text())
    assert state == {"runs": 1, "last_month": 2}

    (data / "in/state.json").write_text(json.dumps(state))
    code, log = stage("demo-delays", {"late_minutes": 15, "months_per_run": 2})

    assert code == 0, log
    assert "This is run 2; the months up to 2 are done." in log
    rows = (data / "out/tables/delays.csv").read_text().splitlines()
    months = [row.split(",")[2] for row in rows]
    assert months == ["2", "3"]
    assert json.loads((data / "out/state.json").read_text()) == {"runs": 2, "last_month": 4}


def test_the_processor_after_adds_its_column_to_rows_and_manifest(stage: Stage, data: Path) -> None:
    (data / "in/tables/bare.csv").write_text("a,b\n1,2\n")
    (data / "in/tables/parts").mkdir()
    (data / "in/tables/parts/one").write_text("1,2\n")
    (data / "in/tables/parts.manifest").write_text(json.dumps({"columns": ["a", "b"]}))

    code, log = stage("demo-processor-add-row-hash", {})

    assert code == 0, log
    out = data / "out/tables"
    digest = "11f0530a8259fffb"
    assert (out / "bare.csv").read_text().splitlines() == ["a,b,row_hash", f"1,2,{digest}"]
    assert (out / "parts/one").read_text() == f"1,2,{digest}\n"
    assert json.loads((out / "parts.manifest").read_text()) == {"columns": ["a", "b", "row_hash"]}
    header = (out / "flights.csv").read_text().splitlines()[0]
    assert header.endswith(",arr_delay,row_hash")
    assert (data / "out/files/7_carriers.json").exists()


@pytest.mark.parametrize(
    ("image", "parameters", "message"),
    [
        ("demo-delays", {"late_minutes": 0}, 'Parameter "late_minutes" must be a whole number'),
        ("demo-processor-drop-missing", {}, 'Parameter "columns" must list at least one column.'),
        ("demo-processor-add-row-hash", {"column": 1}, 'Parameter "column" must be the name'),
    ],
)
def test_a_wrong_parameter_is_the_users_error(
    stage: Stage, image: str, parameters: dict[str, object], message: str
) -> None:
    code, log = stage(image, parameters)

    assert code == 1
    assert message in log
