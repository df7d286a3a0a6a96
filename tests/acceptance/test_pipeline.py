"""A realistic pipeline, written twice: with the published component library, and without any.

Three rows of one configuration sum orders by region and day. What they get is filtered, new rows only,
with rates from a file; what they leave is sliced, typed and loaded by key, after two processors. Two
runs; the result must be what an independent computation over all orders says.
"""

from __future__ import annotations

import csv
import io
import json
import random
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import trio
from tests.acceptance.images import Images
from tests.acceptance.projects import Project, open_project

from vaka import Status
from vaka.models.storage import ExportOptions, FileQuery, FileUpload, StorageScope, TableLoad

pytestmark = pytest.mark.docker

REGIONS = ("north", "south", "east")
RATES = {"north": "1", "south": "0.5", "east": "24.25"}
ORDERS, REVENUE = "in.c-shop.orders", "out.c-shop.revenue"
COLUMNS = ("order", "region", "day", "quantity", "price")
SCHEMA: list[dict[str, Any]] = [
    {"name": "region", "data_type": {"base": {"type": "STRING"}}, "primary_key": True},
    {"name": "day", "data_type": {"base": {"type": "DATE"}}, "primary_key": True},
    {"name": "orders", "data_type": {"base": {"type": "INTEGER"}}},
    {"name": "revenue", "data_type": {"base": {"type": "NUMERIC", "length": "20,4"}}},
    {"name": "note", "data_type": {"base": {"type": "STRING"}}},
]
"""What the component and its processors leave."""

SUMS = """
import csv
from collections import defaultdict
from decimal import Decimal

def sums(orders, rates):
    found = defaultdict(lambda: [0, Decimal(0)])
    with open(orders, newline="") as file:
        for row in csv.DictReader(file):
            entry = found[row["region"], row["day"]]
            entry[0] += 1
            entry[1] += int(row["quantity"]) * Decimal(row["price"]) * Decimal(rates[row["region"]])
    return [[region, day, *entry] for (region, day), entry in sorted(found.items())]

def write_slices(folder, rows, parts=2):
    for part in range(parts):
        with open(f"{folder}/part-{part}.csv", "w", newline="") as file:
            csv.writer(file).writerows(rows[part::parts])
"""
WITH_LIBRARY = f"""
import json
import os
{SUMS}
from keboola.component import CommonInterface
from keboola.component.dao import BaseType, ColumnDefinition

component = CommonInterface()
(orders,) = component.get_input_tables_definitions()
(rates,) = component.get_input_files_definitions(tags=["rates"])
rows = sums(orders.full_path, json.load(open(rates.full_path)))
runs = component.get_state_file().get("runs", 0) + 1
table = component.create_out_table_definition(
    "revenue.csv",
    is_sliced=True,
    destination=component.configuration.parameters["destination"],
    incremental=True,
    schema={{
        "region": ColumnDefinition(BaseType.string(), primary_key=True),
        "day": ColumnDefinition(BaseType.date(), primary_key=True),
        "orders": ColumnDefinition(BaseType.integer()),
        "revenue": ColumnDefinition(BaseType.numeric("20,4")),
    }},
)
os.makedirs(table.full_path)
write_slices(table.full_path, rows)
component.write_manifest(table)
component.write_state_file({{"runs": runs}})
print(f"run {{runs}}: {{len(rows)}} days")
"""
WITHOUT_LIBRARY = f"""
import glob
import json
import os
{SUMS}
config = json.load(open("/data/config.json"))
(orders,) = (path for path in glob.glob("/data/in/tables/*") if not path.endswith(".manifest"))
(rates,) = (path for path in glob.glob("/data/in/files/*") if not path.endswith(".manifest"))
rows = sums(orders, json.load(open(rates)))
runs = json.load(open("/data/in/state.json")).get("runs", 0) + 1
os.makedirs("/data/out/tables/revenue.csv")
write_slices("/data/out/tables/revenue.csv", rows)
manifest = {{
    "destination": config["parameters"]["destination"],
    "incremental": True,
    "schema": json.loads({json.dumps(SCHEMA[:4])!r}),
}}
json.dump(manifest, open("/data/out/tables/revenue.csv.manifest", "w"))
json.dump({{"runs": runs}}, open("/data/out/state.json", "w"))
print(f"run {{runs}}: {{len(rows)}} days")
"""
ROUNDS = """
import csv
import os
import shutil
from decimal import Decimal

for name in os.listdir("/data/in/tables"):
    source, target = f"/data/in/tables/{name}", f"/data/out/tables/{name}"
    if os.path.isfile(source):
        shutil.copy(source, target)
        continue
    os.makedirs(target)
    for part in os.listdir(source):
        with open(f"{source}/{part}", newline="") as read, open(f"{target}/{part}", "w") as write:
            out = csv.writer(write)
            for region, day, orders, revenue in csv.reader(read):
                out.writerow([region, day, orders, Decimal(revenue).quantize(Decimal("0.01"))])
"""
ADDS_A_NOTE = """
import csv
import json
import os

note = json.load(open("/data/config.json"))["parameters"]["note"]
for name in os.listdir("/data/in/tables"):
    source, target = f"/data/in/tables/{name}", f"/data/out/tables/{name}"
    if name.endswith(".manifest"):
        manifest = json.load(open(source))
        column = {"name": "note", "data_type": {"base": {"type": "STRING"}}}
        manifest["schema"].append(column)
        json.dump(manifest, open(target, "w"))
        continue
    os.makedirs(target)
    for part in os.listdir(source):
        with open(f"{source}/{part}", newline="") as read, open(f"{target}/{part}", "w") as write:
            csv.writer(write).writerows([*row, note] for row in csv.reader(read))
"""


@pytest.fixture
async def project(
    docker_host: str, images: Images, demo_images: Mapping[str, str], tmp_path: Path
) -> AsyncIterator[Project]:
    library = demo_images["demo-delays"]
    async with open_project(
        docker_host, images, library, tmp_path / "home", features=["new-native-types"]
    ) as project:
        yield project


def orders(days: range, seed: int) -> list[dict[str, str]]:
    """Orders of some days, the same for the same seed."""
    chance = random.Random(seed)
    return [
        {
            "order": f"{seed}-{number}",
            "region": chance.choice([*REGIONS, "west"]),
            "day": f"2026-03-{chance.choice(days):02}",
            "quantity": str(chance.randint(1, 9)),
            "price": f"{chance.randint(1, 99_999) / 100:.2f}",
        }
        for number in range(1500)
    ]


def expected(sold: list[dict[str, str]]) -> list[tuple[str, ...]]:
    """The independent computation: in cents, as integers."""
    counts: dict[tuple[str, str], int] = defaultdict(int)
    cents: dict[tuple[str, str], int] = defaultdict(int)
    for order in sold:
        if order["region"] in REGIONS:
            key = order["region"], order["day"]
            counts[key] += 1
            cents[key] += int(order["quantity"]) * int(order["price"].replace(".", ""))
    result = []
    for (region, day), total in cents.items():
        revenue = (Decimal(total) / 100 * Decimal(RATES[region])).quantize(Decimal("0.01"))
        count = counts[region, day]
        result.append((region, day, str(count), f"{revenue:.4f}", f"sold in the {region}"))
    return sorted(result)


async def load(project: Project, folder: Path, sold: list[dict[str, str]]) -> None:
    with io.StringIO(newline="") as text:
        writer = csv.DictWriter(text, COLUMNS)
        writer.writeheader()
        writer.writerows(sold)
        await trio.Path(folder / "orders.csv").write_text(text.getvalue(), newline="")
    await project.engine.storage.tables.load(
        StorageScope(project.id),
        [TableLoad(ORDERS, (folder / "orders.csv",), primary_key=("order",), incremental=True)],
    )


async def stored(project: Project, target: Path) -> list[tuple[str, ...]]:
    scope = StorageScope(project.id)
    await project.engine.storage.tables.export(scope, REVENUE, ExportOptions(header=False), target)
    text = await trio.Path(target).read_text()
    return sorted(tuple(row) for row in csv.reader(io.StringIO(text)))


async def set_up(project: Project, component: str, program: str, folder: Path) -> None:
    """The component with its processors, a configuration with three rows, and the rates."""
    await project.python(component, program, types="authoritative")
    await project.python("processor.rounds", ROUNDS)
    await project.python("processor.adds-note", ADDS_A_NOTE)
    (folder / "rates.json").write_text(json.dumps(RATES))
    for name in ("rates.json", "other.json"):
        upload = FileUpload(name, tags=("rates",) if name == "rates.json" else ("other",))
        await project.engine.storage.files.upload(
            StorageScope(project.id), upload, folder / "rates.json"
        )
    catalog = project.engine.catalog
    await catalog.create_configuration(
        project.id,
        component,
        "Revenue",
        config_id="revenue",
        configuration={"parameters": {"destination": REVENUE}},
    )
    for region in REGIONS:
        note = {"definition": {"component": "processor.adds-note"}}
        await catalog.create_row(
            project.id,
            component,
            "revenue",
            row_id=region,
            name=region,
            configuration={
                "storage": {
                    "input": {
                        "tables": [
                            {
                                "source": ORDERS,
                                "destination": "orders.csv",
                                "where_column": "region",
                                "where_values": [region],
                                "changed_since": "adaptive",
                            }
                        ],
                        "files": [{"tags": ["rates"], "processed_tags": [f"{region}-done"]}],
                    }
                },
                "processors": {
                    "after": [
                        {"definition": {"component": "processor.rounds"}},
                        {**note, "parameters": {"note": f"sold in the {region}"}},
                    ]
                },
            },
        )


@pytest.mark.scenario("runner", 245)
@pytest.mark.parametrize(
    "program", [WITH_LIBRARY, WITHOUT_LIBRARY], ids=["published library", "standard library"]
)
async def test_a_pipeline_agrees_with_an_independent_computation(
    project: Project, tmp_path: Path, program: str
) -> None:
    await set_up(project, "shop.revenue", program, tmp_path)
    sold: list[dict[str, str]] = []
    for run, days in enumerate((range(1, 15), range(15, 29)), 1):
        new = orders(days, seed=run)
        sold += new
        await load(project, tmp_path, new)
        outcome, lines = await project.run("shop.revenue", config="revenue", config_data=None)
        assert outcome.status is Status.SUCCESS, outcome
        # each row had its own state, and saw what was new since its own last run
        told = [line.message for line in lines if line.message.startswith("run ")]
        assert told == [f"run {run}: 14 days"] * len(REGIONS)
        assert await stored(project, tmp_path / f"{run}.csv") == expected(sold)
        assert [len(images) for images in outcome.result["images"]] == [3, 3, 3]

    table = await project.engine.storage.tables.table(StorageScope(project.id), REVENUE)
    assert table.is_typed
    assert set(table.primary_key) == {"region", "day"}
    found = await project.engine.storage.files.list_files(
        StorageScope(project.id), FileQuery(tags=("rates",))
    )
    assert [sorted(file.tags) for file in found] == [
        sorted(["rates", *(f"{region}-done" for region in REGIONS)])
    ]
    (other,) = await project.engine.storage.files.list_files(
        StorageScope(project.id), FileQuery(tags=("other",))
    )
    assert other.tags == ("other",)
