"""The published keboola-mcp-server, unmodified, over TLS with hosts that it derives itself."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.clients.mcp import Mcp

pytestmark = pytest.mark.docker

CIPHER = "KBC::ProjectSecure::"
EXTRACTOR = "ex-generic-v2"


def result(answer: Any) -> Any:
    """What a tool says, out of the wrapper that some have."""
    return answer.get("result", answer)


def configuration(mcp: Mcp, component: str, id_: str) -> Any:
    """All of a configuration."""
    wanted = [{"component_id": component, "configuration_id": id_}]
    (found,) = result(mcp.call("get_configs", configs=wanted))["configs"]
    return found


def make(mcp: Mcp, component: str, name: str, **content: Any) -> str:
    """The id of a new configuration."""
    made = mcp.call(
        "create_config",
        name=name,
        description="Made by a tool",
        component_id=component,
        **{"parameters": {}, **content},
    )
    assert made["success"] is True
    return str(made["configuration_id"])


def test_the_project_is_described(mcp: Mcp) -> None:
    info = mcp.call("get_project_info")

    assert info["project_name"] == "Beta"
    assert str(info["project_id"]) == mcp.account.project
    assert info["is_development_branch"] is False

    mcp.call("update_project_description", description="What it is for")
    assert mcp.call("get_project_info")["project_description"] == "What it is for"


def test_components_are_described(mcp: Mcp) -> None:
    (found,) = mcp.call("get_components", component_ids=[EXTRACTOR])["components"]

    assert (found["component_id"], found["component_type"]) == (EXTRACTOR, "extractor")


@pytest.mark.scenario("storage-api", 98)
@pytest.mark.scenario("storage-api", 104)
def test_configurations_are_made_and_changed(mcp: Mcp) -> None:
    deep = {"list": [], "object": {}, "n": [1, 2.5]}
    id_ = make(mcp, EXTRACTOR, "Made", parameters={"#password": "plain secret", "deep": deep})

    root = configuration(mcp, EXTRACTOR, id_)["configuration_root"]
    assert root["name"] == "Made"
    assert root["parameters"]["#password"].startswith(CIPHER)
    assert root["parameters"]["deep"] == deep

    of = {"component_id": EXTRACTOR, "configuration_id": id_}
    updates = [
        {"op": "set", "path": "deep.more", "value": 1},
        {"op": "set", "path": "#other", "value": "another"},
    ]
    mcp.call("update_config", **of, change_description="More", parameter_updates=updates)
    mcp.call("add_config_row", **of, name="Row", description="A row", parameters={"#row": "third"})
    stored = configuration(mcp, EXTRACTOR, id_)
    changed = stored["configuration_root"]
    assert changed["parameters"]["deep"] == {**deep, "more": 1}
    assert changed["parameters"]["#other"].startswith(CIPHER)
    assert changed["parameters"]["#password"] == root["parameters"]["#password"]
    assert changed["version"] == root["version"] + 2
    (row,) = stored["configuration_rows"]
    assert row["parameters"]["#row"].startswith(CIPHER)

    mcp.call(
        "update_config_row",
        **of,
        configuration_row_id=row["configuration_row_id"],
        change_description="Other",
        parameter_updates=[{"op": "set", "path": "open", "value": []}],
    )
    (row,) = configuration(mcp, EXTRACTOR, id_)["configuration_rows"]
    assert row["parameters"]["open"] == []
    assert row["version"] == 2

    (listed,) = result(mcp.call("get_configs", component_types=["extractor"]))[
        "components_with_configs"
    ]
    assert [each["configuration_root"]["configuration_id"] for each in listed["configs"]] == [id_]
    for secret in ("plain secret", "another", "third"):
        assert secret not in json.dumps(configuration(mcp, EXTRACTOR, id_))


@pytest.mark.scenario("storage-api", 109)
def test_jobs_are_run_and_their_logs_read(mcp: Mcp) -> None:
    outputs = [{"source": "words.csv", "destination": "out.c-words.words"}]
    storage = {"output": {"tables": outputs}}
    id_ = make(mcp, "vaka-test.tables", "Job", storage=storage)
    of = {"component_id": "vaka-test.tables", "configuration_id": id_}

    job = mcp.call("run_job", **of)
    done = mcp.until_job(job["id"])
    assert done["status"] == "success"

    listed = mcp.call("get_jobs", component_id="vaka-test.tables", config_id=id_)
    assert [each["id"] for each in result(listed)["jobs"]] == [job["id"]]
    (detail,) = result(mcp.call("get_jobs", job_ids=[job["id"]], include_logs=True))["jobs"]
    assert detail["logs_error"] is None
    assert "tables were written" in [each["message"] for each in detail["logs"]]


@pytest.mark.scenario("storage-api", 121)
def test_an_action_answers_while_the_caller_waits(mcp: Mcp) -> None:
    component = "vaka-test.actions"
    of = {"component_id": component, "configuration_id": make(mcp, component, "Action")}
    answered = result(mcp.call("run_sync_action", action_name="testConnection", **of))
    assert answered == {"status": "ok", "empty": {}, "list": []}

    refused = mcp.refused("run_sync_action", action_name="unknown", **of)
    assert "400" in refused
    assert f'Action "unknown" not defined for component "{component}"' in refused

    refuses = make(mcp, component, "Refuses", parameters={"refuse": True})
    of = {"component_id": component, "configuration_id": refuses}
    refused = mcp.refused("run_sync_action", action_name="refuse", **of)
    assert "400" in refused
    assert "No such account." in refused


@pytest.mark.scenario("storage-api", 89)
def test_buckets_and_tables_are_listed_and_described(mcp: Mcp) -> None:
    outputs = [{"source": "words.csv", "destination": "out.c-described.words"}]
    storage = {"output": {"tables": outputs}}
    id_ = make(mcp, "vaka-test.tables", "Described", storage=storage)
    of = {"component_id": "vaka-test.tables", "configuration_id": id_}
    assert mcp.until_job(mcp.call("run_job", **of)["id"])["status"] == "success"
    items = {
        "out.c-described": "A bucket",
        "out.c-described.words": "A table",
        "out.c-described.words.id": "A column",
    }

    for again in ("", " again"):
        updates = [{"item_id": key, "description": text + again} for key, text in items.items()]
        told = result(mcp.call("update_descriptions", updates=updates))
        assert (told["successful"], told["failed"]) == (3, 0), told

    listed = result(mcp.call("get_buckets"))["buckets"]
    (bucket,) = [each for each in listed if each["id"] == "out.c-described"]
    assert bucket["description"] == "A bucket again"
    (bucket,) = result(mcp.call("get_buckets", bucket_ids=["out.c-described"]))["buckets"]
    assert bucket["tables_count"] == 1
    (table,) = result(mcp.call("get_tables", bucket_ids=["out.c-described"]))["tables"]
    assert (table["id"], table["description"]) == ("out.c-described.words", "A table again")
    (table,) = result(mcp.call("get_tables", table_ids=["out.c-described.words"]))["tables"]
    assert table["rows_count"] == 2
    columns = {each["name"]: each.get("description") for each in table["columns"]}
    assert columns == {"id": "A column again", "word": None}


def test_items_are_found_by_their_names(mcp: Mcp) -> None:
    id_ = make(mcp, EXTRACTOR, "Searchable thing")

    found = mcp.call("search", patterns=["searchable"])

    assert [each["configuration_id"] for each in found["hits"]] == [id_]
    assert mcp.call("search", patterns=["nowhere at all"])["hits"] == []


def test_a_flow_is_made_and_changed(mcp: Mcp) -> None:
    id_ = make(mcp, EXTRACTOR, "Step")
    phases = [{"id": "first", "name": "First", "next": [{"id": "end", "goto": None}]}]
    job = {"type": "job", "componentId": EXTRACTOR, "configId": id_, "mode": "run"}
    tasks = [{"id": "task", "name": "Task", "phase": "first", "enabled": True, "task": job}]

    made = mcp.call(
        "create_conditional_flow",
        name="Flow",
        description="Some steps",
        phases=phases,
        tasks=tasks,
    )

    flow = made["configuration_id"]
    mcp.call(
        "modify_flow",
        configuration_id=flow,
        flow_type="keboola.flow",
        change_description="Another name",
        name="Renamed",
    )
    (found,) = result(mcp.call("get_flows", flow_ids=[flow]))["flows"]
    assert found["name"] == "Renamed"
    assert [each["id"] for each in found["configuration"]["phases"]] == ["first"]
    assert [each["task"]["config_id"] for each in found["configuration"]["tasks"]] == [id_]


def test_what_needs_a_warehouse_says_that_there_is_none(mcp: Mcp) -> None:
    assert mcp.refused("query_data", sql_query="SELECT 1", query_name="One")
