"""What requests mean: the rules that the HTTP API and the command line share."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import Any, Literal, cast

from pydantic import ValidationError

from vaka.errors import InvalidInput
from vaka.models.catalog import Role
from vaka.models.job import ActionSpec, ArchiveFormat, JobSpec, Mode
from vaka_server.problems import Refused

log = logging.getLogger(__name__)

TRUE, FALSE = {"1", "true", "yes", "on"}, {"0", "false", "no", "off", ""}
OPERATORS = {"eq": "eq", "ne": "ne", "neq": "ne", "gt": "gt", "ge": "ge", "lt": "lt", "le": "le"}
"""Operators of filters as clients write them, and the engine's word for each."""
PARAMETERS = (
    "component",
    "config",
    "row",
    "configData",
    "mode",
    "tag",
    "format",
    "variableValuesId",
    "variableValuesData",
)
NEWER_PARAMETERS = ("configRowIds", "parallelism", "branchId", "snapshotFormat")
"""Of the newer job API, and our own; taken here as well."""
CHANGES = {
    "name": "name",
    "description": "description",
    "configuration": "configuration",
    "isDisabled": "is_disabled",
    "rowsSortOrder": "rows_sort_order",
}
"""Members of a body that change a configuration, and the catalog's word for each."""

# -- jobs ------------------------------------------------------------------------------------------


def job_spec(
    given: Mapping[str, Any], component: str, mode: Mode = Mode.RUN, tag: str | None = None
) -> JobSpec:
    """What a request's members ask for, less who asks; `tag` is the path's.

    Raises:
        InvalidInput: with the words of runner.md section 1.6.2, checks 4 to 9.
    """
    config, row, data = given.get("config"), given.get("row"), given.get("configData")
    if config == "" and data is not None:
        config = None  # sent by forms that leave it empty
    rows = given.get("configRowIds")
    if (row is not None or rows) and config is None:
        raise InvalidInput("Specify both 'row' and 'config'.")
    if config == "" or config is False or (config is None and data is None):
        raise InvalidInput("Specify 'config' or 'configData'.")
    if config is not None and data is not None:
        log.info("job.configuration_overridden", extra={"component": component})
    for name in given:
        if name not in PARAMETERS + NEWER_PARAMETERS:
            raise InvalidInput(
                f"Parameter '{name}' is not allowed. Allowed params are '{','.join(PARAMETERS)}'"
            )
    if data is not None:
        data = _object(data, "configData")
    if isinstance(config, dict | list):
        raise InvalidInput("Body parameter 'config' is not a number.")
    if not _falsy(given.get("tag")):
        tag = tag or _scalar(given["tag"], "tag")
    variables = given.get("variableValuesData")
    if not _falsy(variables):
        variables = _object(variables, "variableValuesData")
    values_id = given.get("variableValuesId")
    try:
        return JobSpec(
            component=component,
            config=None if config is None else _scalar(config, "config"),
            config_data=data,
            row=row,
            rows=_row_ids(rows),
            parallelism=_parallelism(given.get("parallelism")),
            branch=_branch(given.get("branchId")),
            tag=tag,
            mode=mode,
            variable_values_id=None
            if _falsy(values_id)
            else _scalar(values_id, "variableValuesId"),
            variable_values_data=None if _falsy(variables) else variables,
            snapshot_format=_archive_format(given.get("snapshotFormat")),
        )
    except ValidationError as error:
        raise InvalidInput(f"The job cannot be created: {error.errors()[0]['msg']}.") from error


def action_spec(given: Mapping[str, Any], component: str, action: str) -> ActionSpec:
    """What a request for a synchronous action asks for, less who asks.

    A stored configuration is no part of it: `config` is ignored.

    Raises:
        InvalidInput: with the words of runner.md section 1.10.
    """
    data = given.get("configData")
    if data is None:
        raise InvalidInput("Attribute 'configData' missing in request body")
    tag = given.get("tag")
    return ActionSpec(
        component=component,
        action=action,
        config_data=_object(data, "configData"),
        tag=None if _falsy(tag) else _scalar(tag, "tag"),
        branch=_branch(given.get("branchId")),
    )


def _row_ids(value: Any) -> tuple[str, ...]:
    """The rows that are asked for; none is all of them."""
    if _falsy(value):
        return ()
    if not isinstance(value, list):
        raise InvalidInput(
            'Invalid type for path "job.configRowIds". '
            f'Expected "array", but got "{type(value).__name__}".'
        )
    return tuple(_scalar(each, f"configRowIds.{index}") for index, each in enumerate(value))


def _branch(value: Any) -> str | None:
    """Id of the branch to run in; `default` and what is empty are the default one."""
    return None if _falsy(value) or value == "default" else _scalar(value, "branchId")


def _archive_format(value: Any) -> ArchiveFormat | None:
    """How a debug job packs its snapshots; None is as the engine is set."""
    match value:
        case None | "":
            return None
        case "zip" | "tar.zst":
            return cast("ArchiveFormat", value)
    raise InvalidInput('The "snapshotFormat" of a job must be "zip" or "tar.zst".')


def _parallelism(value: Any) -> int | Literal["infinity"] | None:
    match value:
        case None | "":
            return None
        case "infinity":
            return "infinity"
        case str() if value.isascii() and value.isdigit():
            return int(value[:9])
        case int() if value >= 0 and not isinstance(value, bool):
            return value
    raise InvalidInput('The "parallelism" of a job must be a whole number or "infinity".')


def _falsy(value: Any) -> bool:
    return value in (None, "", "0", 0, False, [], {})


def _object(value: Any, name: str) -> dict[str, Any]:
    if value == []:  # an empty object of clients that do not tell the two apart
        return {}
    if not isinstance(value, dict):
        raise InvalidInput(f"Body parameter '{name}' is not an object.")
    return value


def _scalar(value: Any, name: str) -> str:
    """A scalar as text, written as the reference writes it."""
    if isinstance(value, dict | list):
        raise InvalidInput(f"Body parameter '{name}' is not a string.")
    if isinstance(value, bool):
        return "1" if value else ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


# -- configurations --------------------------------------------------------------------------------


def changes_of(given: Mapping[str, Any]) -> dict[str, Any]:
    """The members that change something, by the catalog's names; nothing for what was not sent."""
    changes: dict[str, Any] = {}
    for name, word in CHANGES.items():
        if given.get(name) is None:
            continue
        if name == "configuration":
            changes[word] = stored_object(given, name)
        elif name == "isDisabled":
            changes[word] = flag(given, name)
        elif name == "rowsSortOrder":
            changes[word] = [str(each) for each in given[name]]
        else:
            changes[word] = str(given[name])
    return changes


def stored_object(given: Mapping[str, Any], name: str) -> Any:
    """A configuration or state: an object, or text that holds one.

    Raises:
        Refused: it is neither.
    """
    value = given.get(name)
    if value is None:
        return {}
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError as error:
            raise _not_json(name) from error
    if not isinstance(value, dict | list):
        raise _not_json(name)
    return value


def flag(given: Mapping[str, Any], name: str) -> bool:
    """A boolean as clients write it."""
    value = given.get(name)
    if value is None or isinstance(value, bool):
        return bool(value)
    word = str(value).lower()
    if word not in TRUE | FALSE:
        raise Refused(400, f"{name}: must be true or false.")
    return word in TRUE


def expected_version(given: Mapping[str, Any]) -> int | None:
    """The version that a change is meant for; None is any."""
    value = given.get("expectedVersion")
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int):
        raise Refused(400, "expectedVersion: must be a whole number.")
    return value


def _not_json(name: str) -> Refused:
    return Refused(400, f"{name}: is not JSON.", code="validation.invalidConfigurationFormat")


def token_role(value: Any) -> Role:
    """A role by its name; `Refused` when there is none of it."""
    try:
        return Role(value)
    except ValueError as error:
        raise Refused(400, f"role: must be one of {', '.join(Role)}.") from error
