"""All three clients at the same time, each in a project of its own of one server.

Each makes things with the same names as the others, and then looks at all that it can see: names and
ids must be those of its own project only.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.clients.kbagent import PROJECT, Kbagent
from tests.clients.kbcstorage import Kbcstorage
from tests.clients.mcp import Mcp
from tests.clients.network import Network
from tests.clients.site import Site

TURNS = 3
COMPONENT = "keboola.runner-config-test"


@pytest.mark.docker
@pytest.mark.scenario("storage-api", 128)
@pytest.mark.scenario("storage-api", 129)
@pytest.mark.scenario("storage-api", 130)
def test_clients_of_three_projects_see_nothing_of_each_other(
    clients: dict[str, Path],
    secure: Site,
    network: Network,
    kbagent: Kbagent,
    mcp: Mcp,
    tmp_path: Path,
) -> None:
    account = secure.accounts["Gamma"]
    seen: dict[str, list[str]] = {"Alpha": [], "Beta": [], "Gamma": []}

    def command_line(turn: int) -> None:
        name = f"Alpha {turn}"
        words = ("--component-id", COMPONENT, "--name", name, "--push", "--no-files")
        kbagent.ask("config", "new", *PROJECT, *words, "--configuration", '{"parameters": {}}')
        path = kbagent.folder / "side.csv"
        path.write_text("who\nAlpha\n")
        table = ("--table-id", "in.c-side.words")
        kbagent.ask("storage", "upload-table", *PROJECT, *table, "--file", str(path))
        listed = kbagent.ask("config", "list", *PROJECT, "--component-id", COMPONENT)
        seen["Alpha"] += [each["config_name"] for each in listed["configs"]]
        target = kbagent.folder / "side-down.csv"
        kbagent.ask("storage", "download-table", *PROJECT, *table, "--output", str(target))
        seen["Alpha"] += target.read_text().replace('"', "").split()[1:]

    def tools(turn: int) -> None:
        mcp.call(
            "create_config",
            name=f"Beta {turn}",
            description="Side by side",
            component_id=COMPONENT,
            parameters={},
        )
        answer = mcp.call("get_configs", component_ids=[COMPONENT])
        (found,) = answer.get("result", answer)["components_with_configs"]
        seen["Beta"] += [each["configuration_root"]["name"] for each in found["configs"]]
        buckets = json.dumps(mcp.call("get_buckets"))
        assert "in.c-side" not in buckets

    with Kbcstorage(clients["kbcstorage"], secure, account, tmp_path, network) as library:

        def program(turn: int) -> None:
            seen["Gamma"] += library.play(f"side_by_side Gamma {turn}")

        def turns(work: Callable[[int], None]) -> None:
            for turn in range(TURNS):
                work(turn)

        with ThreadPoolExecutor() as pool:
            for done in [pool.submit(turns, each) for each in (command_line, tools, program)]:
                done.result()

    for project, names in seen.items():
        assert len(names) >= TURNS
        assert {name.split()[0] for name in names} == {project}
