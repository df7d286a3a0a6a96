"""A job whose tables are in a third party's storage: a program for the environment that has both.

Reads its settings as JSON from the command line, and prints as JSON what became of the job.
"""

import inspect
import json
import sys
from pathlib import Path
from typing import Any

import trio

from vaka import Engine, EngineConfig, JobSpec
from vaka.models.storage import ExportOptions, StorageScope, TableLoad

COMPONENT = "example.copy"


async def main(settings: dict[str, str]) -> dict[str, Any]:
    home = Path(settings["home"])
    config = EngineConfig(
        home=home,
        instance=settings["instance"],
        storage_url=f"sqlite-tables://{settings['database']}",
        catalog_url=f"local://{home}/catalog",
        runtime_url=settings["runtime_url"],
    )
    async with Engine(config) as engine:
        project = await engine.catalog.create_project("example")
        await engine.catalog.put_component(component(settings["image"]))
        await engine.catalog.create_configuration(
            project.id, COMPONENT, "Copy", config_id="copy", configuration=CONFIGURATION
        )
        scope = StorageScope(project=project.id)
        source = home / "source.csv"
        source.write_text('id,name\n1,"Ann, ""A."""\n2,Bob\n3,Cyd\n')
        await engine.storage.tables.load(scope, [TableLoad("in.c-main.people", (source,))])
        job = await engine.submit(JobSpec(component=COMPONENT, config="copy", project=project.id))
        outcome = await job.wait()
        columns, rows = await engine.storage.tables.preview(
            scope, "out.c-main.copy", ExportOptions()
        )
        return {
            "storage": type(engine.storage).__name__,
            "files": [inspect.getfile(Engine), inspect.getfile(type(engine.storage))],
            "status": outcome.status,
            "message": outcome.message,
            "columns": columns,
            "rows": sorted(rows),
        }


def component(image: str) -> dict[str, Any]:
    uri, _, tag = image.rpartition(":")
    definition = {"type": "dockerhub", "uri": uri, "tag": tag}
    return {
        "id": COMPONENT,
        "type": "application",
        "name": "Copy",
        "data": {"definition": definition, "network": "none"},
    }


CONFIGURATION = {
    "storage": {
        "input": {
            "tables": [
                {
                    "source": "in.c-main.people",
                    "destination": "people.csv",
                    "where_column": "id",
                    "where_operator": "ne",
                    "where_values": ["3"],
                }
            ]
        },
        "output": {
            "tables": [
                {
                    "source": "people.csv",
                    "destination": "out.c-main.copy",
                    "primary_key": ["id"],
                    "incremental": True,
                }
            ]
        },
    }
}

if __name__ == "__main__":
    print(json.dumps(trio.run(main, json.loads(sys.argv[1]))))
