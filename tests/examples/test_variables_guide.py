"""What the guide on variables shows does what the guide says."""

import json
import re
from pathlib import Path

from vaka.models.configuration import JobConfiguration
from vaka.variables import (
    BUILT_IN,
    check_declared,
    code_content,
    declared_names,
    given_values,
    insert_shared_code,
    replace,
)

GUIDE = (Path(__file__).resolve().parents[2] / "docs/guides/variables.md").read_text()
DECLARATION, VALUES, CONFIGURATION, SNIPPET, ARTIFACTS = (
    json.loads(each)
    for each in re.findall(r"^```json\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL)
)


def test_the_values_are_those_of_the_declaration_and_go_into_the_configuration() -> None:
    values = given_values(VALUES)
    check_declared(declared_names(DECLARATION), values)
    configuration = JobConfiguration.parse(CONFIGURATION)

    resolved = replace(configuration.data, values=values, vault={})

    assert JobConfiguration.parse(resolved.configuration).parameters == {
        "query": "SELECT * FROM sales WHERE city = 'Brno'"
    }
    assert all(f"`{component}`" in GUIDE for component in BUILT_IN)


def test_the_snippet_can_be_inserted() -> None:
    lines = code_content(SNIPPET)
    script = insert_shared_code({"script": ["{{ snippet }}"]}, {"snippet": lines})
    resolved = replace(script, values=given_values(VALUES), vault={})
    assert resolved.configuration == {"script": [lines[0], "SELECT 'Brno' AS city;"]}


def test_the_artifacts_are_asked_for_as_they_may_be() -> None:
    assert JobConfiguration.parse(ARTIFACTS).data["artifacts"]["runs"]["enabled"]
