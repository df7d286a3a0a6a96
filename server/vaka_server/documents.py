"""What the engine knows, as the JSON documents of the API. The command line shows the same ones.

Shapes: runner.md section 2.1 for jobs, storage-api.md sections 3, 4, 6, 7 and 10 for the rest.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from vaka.models.audit import AuditEntry
from vaka.models.catalog import (
    Branch,
    Component,
    Configuration,
    ConfigurationRow,
    ConfigurationVersion,
    Project,
    State,
    Token,
    VaultVariable,
    Workspace,
)
from vaka.models.client_event import ClientEvent
from vaka.models.event import Event
from vaka.models.job import JobRecord, StageRecord
from vaka.models.operation import NO_TRANSFER, Done, Operation
from vaka.models.storage import (
    BucketDetail,
    ColumnDefinition,
    FileDetail,
    LoadResult,
    MetadataEntry,
    SnapshotDetail,
    TableDetail,
)
from vaka.models.trigger import Trigger

Document = dict[str, Any]

SERVICE = "docker"
"""What every job has as its `component`: the service, not the component that runs."""

JOB_TYPE = "standard"
"""The type of every job in the newer queue: there are no orchestrations."""

_PHP = {"<": "\\u003C", ">": "\\u003E", "'": "\\u0027", "&": "\\u0026", "/": "\\/"}
"""None of them is part of JSON outside of a string."""


def php_json(value: Any) -> bytes:
    """JSON as the runner's responses have it: ASCII, with HTML's special characters escaped."""
    text = json.dumps(value, separators=(",", ":"))
    if '\\"' in text:  # an escaped quote, or an escaped backslash at the end of a string
        text = text.replace("\\\\", "\0").replace('\\"', "\\u0022").replace("\0", "\\\\")
    for mark, escaped in _PHP.items():
        text = text.replace(mark, escaped)
    return text.encode()


def plain_json(value: Any) -> bytes:
    """JSON as Storage's responses have it."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode(
        "utf-8", "surrogatepass"
    )


# -- jobs ------------------------------------------------------------------------------------------


def job(
    record: JobRecord,
    project: Project,
    base: str,
    *,
    include: Iterable[str] = (),
    waits_for: str | None = None,
) -> Document:
    """The job resource. `include` adds `metrics`, and of our own `stages`, `cause` and `progress`.

    `waits_for` is what the engine says of a waiting job, a part of `progress`.
    """
    by = record.terminated_by or {}
    document: Document = {
        "id": record.id,
        "runId": record.run_id,
        "lockName": record.lock_name,
        "project": {"id": number(project.id), "name": project.name},
        "token": {"id": record.token_id, "description": record.token_description},
        "component": SERVICE,
        "command": "run",
        "params": params(record),
        "result": dict(record.result),
        "status": record.status.value,
        "process": {"host": record.host, "pid": record.pid},
        "createdTime": moment(record.created),
        "startTime": moment(record.started),
        "endTime": moment(record.ended),
        "durationSeconds": record.duration_seconds,
        "waitSeconds": record.wait_seconds,
        "nestingLevel": record.nesting_level,
        "error": record.error,
        "errorNote": record.error_note,
        "terminatedBy": {"id": by.get("id"), "description": by.get("description")},
        "encrypted": None,
        "usage": [dict(usage) for usage in record.usage],
        "isFinished": record.status.is_finished,
        "url": job_url(base, record.id),
    }
    if "metrics" in include:
        document["metrics"] = metrics(record)
    if "stages" in include:
        document["stages"] = [stage(each) for each in record.stages]
        document["cause"] = (
            None
            if record.cause is None
            else {"kind": record.cause.kind.value, "evidence": dict(record.cause.evidence)}
        )
        document["progress"] = {
            "attempt": record.attempt,
            "phase": None if record.phase is None else record.phase.value,
            "definition": record.definition,
            "waitsFor": waits_for,
        }
    return document


def queue_job(record: JobRecord, project: Project, base: str, *, default_branch: str) -> Document:
    """A job as the newer queue shows it (storage-api.md section 13.1); `base` is the queue's."""
    spec = record.spec
    moved = metrics(record)["storage"]
    stops = record.stop_requested or record.terminated_by is not None
    size = spec.get("container_type")
    return {
        "id": str(record.id),
        "runId": record.run_id,
        "parentRunId": record.run_id.rpartition(".")[0],
        "project": {"id": project.id, "name": project.name},
        "token": {"id": record.token_id, "description": record.token_description},
        "status": record.status.value,
        "desiredStatus": "terminating" if stops else "processing",
        "mode": record.mode.value,
        "component": record.component,
        "config": record.config,
        "configData": spec.get("config_data") or {},
        "configRowIds": _row_ids(spec),
        "tag": spec.get("tag"),
        "createdTime": moment(record.created),
        "startTime": moment(record.started),
        "endTime": moment(record.ended),
        "durationSeconds": record.duration_seconds,
        "result": _queue_result(record),
        "usageData": [dict(usage) for usage in record.usage],
        "isFinished": record.status.is_finished,
        "url": f"{base}/jobs/{record.id}",
        "branchId": spec.get("branch") or default_branch,
        "variableValuesId": spec.get("variable_values_id"),
        "variableValuesData": spec.get("variable_values_data") or {"values": []},
        "backend": {} if size is None else {"containerType": size},
        "executor": "dind",
        "metrics": {
            "storage": {
                "inputTablesBytesSum": moved["inBytes"],
                "outputTablesBytesSum": moved["outBytes"],
            },
            "backend": {"size": size},
        },
        "behavior": {"onError": None},
        "parallelism": None if spec.get("parallelism") is None else str(spec["parallelism"]),
        "type": JOB_TYPE,
        "orchestrationJobId": spec.get("orchestration"),
        "orchestrationTaskId": None,
        "onlyOrchestrationTaskIds": None,
        "previousJobId": None,
    }


def _row_ids(spec: Mapping[str, Any]) -> list[str]:
    """The rows that a job was asked for, in whichever of two ways."""
    row = spec.get("row")
    one = [str(row)] if isinstance(row, str | int) and not isinstance(row, bool) and row else []
    return [*one, *spec.get("rows", ())]


def _queue_result(record: JobRecord) -> Document:
    result = dict(record.result)
    if record.error is not None:
        result["error"] = {"type": record.error}
    return result


def job_url(base: str, job_id: int) -> str:
    """Where a job is; `base` is the server's, without a trailing slash."""
    return f"{base}/queue/job/{job_id}"


def params(record: JobRecord) -> Document:
    """What the job was asked for, less what was not given."""
    spec = record.spec
    given: Document = {}
    for name, member in (
        ("config", "config"),
        ("row", "row"),
        ("configRowIds", "rows"),
        ("parallelism", "parallelism"),
        ("branchId", "branch"),
        ("configData", "config_data"),
        ("tag", "tag"),
        ("variableValuesId", "variable_values_id"),
        ("variableValuesData", "variable_values_data"),
        ("snapshotFormat", "snapshot_format"),
    ):
        value = spec.get(member)
        if value is not None and (value or name != "configRowIds"):
            given[name] = value
    given["component"] = record.component
    given["mode"] = record.mode.value
    return given


def metrics(record: JobRecord) -> Document:
    """Bytes that the job moved."""
    known = record.metrics
    return {
        "network": {"inBytes": 0, "outBytes": 0, **known.get("network", {})},
        "storage": {"inBytes": 0, "outBytes": 0, **known.get("storage", {})},
        "backend": known.get("backend"),
    }


def stage(record: StageRecord) -> Document:
    """One container of a job."""
    seconds = None
    if record.started_at is not None and record.finished_at is not None:
        seconds = (record.finished_at - record.started_at).total_seconds()
    return {
        "attempt": record.attempt,
        "definition": record.definition,
        "stage": record.stage,
        "kind": record.kind,
        "component": record.component,
        "container": record.container,
        "image": record.image,
        "imageId": record.image_id,
        "digests": list(record.digests),
        "status": record.status.value,
        "plannedTime": moment(record.planned_at),
        "startTime": moment(record.started_at),
        "endTime": moment(record.finished_at),
        "seconds": seconds,
        "exitCode": record.exit_code,
        "outOfMemory": record.oom_killed,
        "memoryPeakBytes": record.memory_peak_bytes,
        "stdoutBytes": record.stdout_bytes,
        "stderrBytes": record.stderr_bytes,
    }


def action(value: Any) -> Any:
    """What an action answered, less what clients of the runner never get to see."""
    if not isinstance(value, dict):
        return value
    return {name: member for name, member in value.items() if name != "component"}


# -- catalog ---------------------------------------------------------------------------------------


def dev_branch(value: Branch) -> Document:
    """A branch as Storage shows it: its id is a number."""
    made_by = _creator(value.creator_token_id, value.creator_token_description)
    return {**branch(value), "id": number(value.id), "creatorToken": made_by or {}}


def branch(value: Branch) -> Document:
    """A branch."""
    return {
        "id": value.id,
        "name": value.name,
        "description": value.description,
        "isDefault": value.is_default,
        "created": storage_moment(value.created),
    }


def vault_variable(value: VaultVariable) -> Document:
    """A variable of the vault."""
    return {
        "name": value.name,
        "value": value.value,
        "isEncrypted": value.is_encrypted,
        "branch": value.branch,
    }


def token(value: Token, base: str, *, secret: str | None = None, owner: bool = True) -> Document:
    """A token; `secret` is shown to the one who sent it or has just made it."""
    document: Document = {
        "id": value.id,
        "created": storage_moment(value.created),
        "refreshed": storage_moment(value.refreshed or value.created),
        "description": value.description,
        "uri": f"{base}/v2/storage/tokens/{value.id}",
        "role": value.role.value,
        "isMasterToken": value.is_master,
        "canManageBuckets": value.can_manage_buckets,
        "canManageTokens": value.is_master,
        "canReadAllFileUploads": value.can_read_all_file_uploads,
        "canPurgeTrash": value.may_write and value.can_purge_trash,
        "canManageProtectedDefaultBranch": False,
        "canCreateJobs": value.may_run,
        "expires": storage_moment(value.expires),
        "isExpired": value.expires is not None and value.expires <= datetime.now(UTC),
        "isDisabled": False,
        "dailyCapacity": 0,
        "bucketPermissions": dict(value.bucket_permissions or {}),
    }
    if value.creator_token_id is not None and not value.is_master:
        document["creatorToken"] = {
            "id": number(value.creator_token_id),
            "description": value.creator_token_description,
        }
    if secret is not None:
        document["token"] = secret
    if value.component_access is not None:
        document["componentAccess"] = list(value.component_access)
    if owner:
        document["organization"] = {"id": "1"}
        document["owner"] = project(value.project)
        if value.is_master:
            document["admin"] = {
                "id": number(value.id),
                "name": value.description,
                "role": "admin",
                "features": [],
                "isOrganizationMember": True,
            }
    return document


def audit_entry(value: AuditEntry) -> Document:
    """An entry of the audit log."""
    return {
        "id": value.id,
        "time": moment(value.moment),
        "kind": value.kind,
        "project": value.project,
        "token": {"id": value.token_id, "description": value.token_description},
        "address": value.address,
        "subject": dict(value.subject),
        "detail": dict(value.detail),
    }


def audit_event(value: AuditEntry, base: str) -> Document:
    """The same as an event of Storage's."""
    token = value.subject.get("token")
    return _event(
        str(value.id),
        event=f"storage.{value.kind}",
        component="storage",
        message=value.kind,
        run_id=None,
        created=value.moment,
        configuration_id=None,
        params=value.detail,
        token=(value.token_id, value.token_description),
        uri=f"{base}/v2/storage/tokens/{token}/events",
        about=("token", token),
    )


def project(value: Project) -> Document:
    """A project, as the owner of a token."""
    return {
        "id": number(value.id),
        "name": value.name,
        "type": "production",
        "region": "local",
        "created": storage_moment(value.created),
        "expires": None,
        "features": list(value.features),
        "dataSizeBytes": 0,
        "rowsCount": 0,
        "hasMysql": False,
        "hasRedshift": False,
        "hasSynapse": False,
        "hasSnowflake": True,
        "hasExasol": False,
        "hasTeradata": False,
        "hasBigquery": False,
        "defaultBackend": "snowflake",
        "assignedBackends": ["snowflake"],
        "hasTryModeOn": "0",
        "limits": {
            name: {"name": name, "value": limit} for name, limit in sorted(value.limits.items())
        },
        "metrics": {},
        "isDisabled": False,
        "dataRetentionTimeInDays": 7,
        "billedMonthlyPrice": None,
        "fileStorageProvider": "azure",
    }


def totals(tables: Iterable[TableDetail]) -> Document:
    """How much tables have in all, as a project or a bucket shows it."""
    known = list(tables)
    return {
        "dataSizeBytes": sum(each.data_size_bytes or 0 for each in known),
        "rowsCount": sum(each.rows_count or 0 for each in known),
    }


def component(value: Component, base: str) -> Document:
    """A registered component; what its document has beyond the known members comes last."""
    document: Document = {
        "id": value.id,
        "type": value.type,
        "name": value.name,
        "description": value.description,
        "longDescription": None,
        "version": 1,
        "hasUI": False,
        "hasRun": False,
        "ico32": "",
        "ico64": "",
        "ico128": "",
        "data": value.data,
        "flags": [],
        "categories": [],
        "features": list(value.features),
        "configurationSchema": {},
        "configurationRowSchema": {},
        "emptyConfiguration": {},
        "emptyConfigurationRow": {},
        "uiOptions": {},
        "configurationDescription": None,
        "documentationUrl": None,
        "dataTypesConfiguration": {},
        "processorConfiguration": {},
        "expiredOn": None,
    }
    document |= {
        name: extra
        for name, extra in value.extra.items()
        if name not in {"id", "type", "name", "data", "features", "uri"}
    }
    document["uri"] = f"{base}/docker/{value.id}"
    return document


def component_summary(document: Document) -> Document:
    """A component without its details (storage-api.md section 2.1)."""
    names = ("id", "name", "type", "ico64", "ico128", "features", "flags", "description")
    return {name: document[name] for name in (*names, "categories")}


def configuration(
    value: Configuration,
    *,
    states: Mapping[tuple[str, str, str | None], State] | None = None,
    details: bool = True,
) -> Document:
    """A configuration; without `details` the bare list form."""
    document: Document = {
        "id": value.id,
        "name": value.name,
        "description": value.description,
        "created": storage_moment(value.created),
        "creatorToken": _creator(value.creator_token_id, value.creator_token_description),
        "version": value.version,
        "changeDescription": value.change_description,
        "isDisabled": value.is_disabled,
        "isDeleted": value.is_deleted,
        "currentVersion": {
            "created": storage_moment(value.updated or value.created),
            "creatorToken": _creator(value.updated_token_id, value.updated_token_description),
            "changeDescription": value.change_description,
            "versionIdentifier": value.version_identifier,
        },
    }
    if details:
        known = states or {}
        here = (value.component_id, value.id)
        document["configuration"] = _object(value.configuration)
        document["rowsSortOrder"] = list(value.rows_sort_order)
        document["rows"] = [row(each, known.get((*here, each.id))) for each in value.rows]
        document["state"] = state(known.get((*here, None)))["state"]
    return document


def row(value: ConfigurationRow, stored: State | None = None) -> Document:
    """A configuration row."""
    return {
        "id": value.id,
        "name": value.name,
        "description": value.description,
        "configuration": _object(value.configuration),
        "isDisabled": value.is_disabled,
        "version": value.version,
        "created": storage_moment(value.created),
        "creatorToken": _creator(value.creator_token_id, value.creator_token_description),
        "changeDescription": value.change_description,
        "state": state(stored)["state"],
        "versionIdentifier": value.version_identifier,
    }


def state(value: State | None) -> Document:
    """A state with its version."""
    return {
        "state": _object(value.value if value else None),
        "version": value.version if value else 0,
    }


def version(
    value: ConfigurationVersion,
    *,
    include: Collection[str] = ("name", "description"),
    state: State | None = None,
) -> Document:
    """A version of a configuration or row, with what `include` names.

    States have no versions: `state` is the one of now.
    """
    document: Document = {
        "version": value.version,
        "created": storage_moment(value.created),
        "creatorToken": _creator(value.creator_token_id, value.creator_token_description),
        "changeDescription": value.change_description,
        "isDeleted": False,
        "isDisabled": value.is_disabled,
        "versionIdentifier": value.version_identifier,
    }
    shown = {
        "name": value.name,
        "description": value.description,
        "configuration": _object(value.configuration),
        "state": _object(state.value if state else None),
    }
    return document | {name: each for name, each in shown.items() if name in include}


def version_detail(value: Configuration) -> Document:
    """A configuration as it was in a version."""
    document = configuration(value)
    created = document.pop("currentVersion")
    return {
        **{name: document[name] for name in ("version", "changeDescription", "isDeleted")},
        **{name: document[name] for name in ("name", "description", "isDisabled")},
        "created": created["created"],
        "creatorToken": created["creatorToken"],
        "versionIdentifier": created["versionIdentifier"],
        **{name: document[name] for name in ("configuration", "rowsSortOrder", "rows")},
    }


def remarks(entries: Iterable[MetadataEntry]) -> list[Document]:
    """Metadata of a configuration or branch, which has no provider."""
    return [
        {
            "id": entry.id,
            "key": entry.key,
            "value": entry.value,
            "timestamp": storage_moment(entry.timestamp),
        }
        for entry in entries
    ]


def workspace(value: Workspace) -> Document:
    """A workspace, of which there is no more than the record."""
    name = f"WORKSPACE_{value.id}"
    return {
        "id": value.id,
        "type": "table",
        "name": name,
        "component": value.component_id,
        "configurationId": value.config_id,
        "created": storage_moment(value.created),
        "readOnlyStorageAccess": value.is_read_only,
        "connection": {
            "backend": "snowflake",
            "host": "",
            "database": "MAIN",
            "schema": name,
            "warehouse": None,
            "user": "none",
        },
        "creatorToken": _creator(value.creator_token_id, value.creator_token_description),
    }


# -- storage ---------------------------------------------------------------------------------------


EXTRAS = frozenset(
    {"attributes", "metadata", "columns", "columnMetadata", "buckets", "sourceMetadata"}
)
"""What clients may ask for with `include`, or leave out."""


def bucket(
    value: BucketDetail,
    base: str,
    *,
    backend: str,
    tables: Sequence[TableDetail] | None = None,
    counted: Sequence[TableDetail] | None = None,
    include: Collection[str] = EXTRAS,
) -> Document:
    """A bucket; with `tables` its detail, without the list form, where `tables` is an address.

    `counted` are the tables that it has, where they are known and not to be shown: without both, there
    are no counts in the document.
    """
    uri = f"{base}/v2/storage/buckets/{value.id}"
    document: Document = {
        "uri": uri,
        "id": value.id,
        "name": value.name,
        "displayName": value.display_name or value.name.removeprefix("c-"),
        "stage": value.stage,
        "description": value.description,
        "tables": f"{uri}/tables",
        "created": storage_moment(value.created),
        "updated": storage_moment(value.last_change_date or value.created),
        "lastChangeDate": storage_moment(value.last_change_date),
        "isReadOnly": False,
        "isMaintenance": False,
        "backend": backend,
        "sharing": None,
        "hasExternalSchema": False,
        "databaseName": None,
        "path": f"main.{value.id}",
        "backendPath": ["MAIN", value.id],
        "color": value.color,
        "owner": None,
        "isLinkedBucket": False,
        "linkedBy": [],
        "bucketSharingAllowed": False,
    }
    known = counted if tables is None else tables
    if known is not None:
        document |= totals(known)
        document["tablesCount"] = len(known)
    if tables is not None:
        shown = frozenset(include) - {"buckets"}
        document["tables"] = [table(each, base, backend=backend, include=shown) for each in tables]
    if "attributes" in include:
        document["attributes"] = []
    if "metadata" in include:
        document["metadata"] = metadata(value.metadata)
    return document


def table(
    value: TableDetail,
    base: str,
    *,
    backend: str,
    bucket_of: BucketDetail | None = None,
    counted: Sequence[TableDetail] | None = None,
    include: Collection[str] = EXTRAS,
) -> Document:
    """A table; with `bucket_of` also its bucket, where that is to be included.

    `counted` are the tables of the bucket, where they are known.
    """
    document: Document = {
        "uri": f"{base}/v2/storage/tables/{value.id}",
        "id": value.id,
        "name": value.name,
        "displayName": value.display_name or value.name,
        "transactional": False,
        "primaryKey": list(value.primary_key),
        "indexType": None,
        "indexKey": [],
        "distributionType": None,
        "distributionKey": list(value.distribution_key),
        "syntheticPrimaryKeyEnabled": False,
        "indexedColumns": list(value.primary_key),
        "created": storage_moment(value.created),
        "lastImportDate": storage_moment(value.last_import_date),
        "lastChangeDate": storage_moment(value.last_change_date),
        "rowsCount": value.rows_count,
        "dataSizeBytes": value.data_size_bytes,
        "isAlias": value.is_alias,
        "isAliasable": True,
        "isTyped": value.is_typed,
        "timestampType": "MANAGED",
        "tableType": "table",
        "path": f"main.{value.id}",
    }
    if "attributes" in include:
        document["attributes"] = []
    if "columns" in include:
        document["columns"] = list(value.columns)
    if "metadata" in include:
        document["metadata"] = metadata(value.metadata)
    if "columnMetadata" in include:
        document["columnMetadata"] = column_metadata(value)
    if value.is_typed and "columns" in include:
        document["definition"] = {
            "primaryKeysNames": list(value.primary_key),
            "columns": [_column(each) for each in value.definitions],
        }
    if bucket_of is not None and "buckets" in include:
        document["bucket"] = bucket(
            bucket_of, base, backend=backend, counted=counted, include={"attributes", "metadata"}
        )
        document["bucket"].pop("tables")
    if value.source is not None:
        document["sourceTable"] = table(value.source, base, backend=backend, include=include)
    return document


def column_metadata(value: TableDetail) -> Document:
    """What is said of a table's columns, by their names."""
    return {column: metadata(entries) for column, entries in value.column_metadata.items()}


def snapshot(value: SnapshotDetail, base: str, *, backend: str) -> Document:
    """A snapshot, with the table as it was."""
    return {
        "id": value.id,
        "createdTime": storage_moment(value.created),
        "description": value.description,
        "dataSizeBytes": value.table.data_size_bytes,
        "creatorToken": _creator(value.creator_token_id, value.creator_token_description),
        "table": table(value.table, base, backend=backend),
    }


def _column(value: ColumnDefinition) -> Document:
    """What is known of a column of a typed table."""
    document: Document = {"name": value.name, "canBeFiltered": True}
    if value.base_type is not None:
        document["basetype"] = value.base_type
    document["definition"] = {
        "type": value.type or "VARCHAR",
        "length": value.length,
        "nullable": value.nullable,
        "default": value.default,
    }
    return document


def preview(columns: Sequence[str], rows: Sequence[Sequence[str | None]]) -> Document:
    """Some rows of a table."""
    cut = 16_384
    return {
        "columns": list(columns),
        "rows": [
            [
                {
                    "columnName": column,
                    "value": None if value is None else value[:cut],
                    "isTruncated": value is not None and len(value) > cut,
                }
                for column, value in zip(columns, values, strict=True)
            ]
            for values in rows
        ],
    }


def load_result(value: LoadResult) -> Document:
    """What a load has done."""
    return {
        "tableId": value.table_id,
        "importedRowsCount": value.imported_rows,
        "totalRowsCount": value.total_rows,
        "created": value.created,
        "repeated": value.repeated,
        "newColumns": list(value.new_columns),
        "warnings": list(value.warnings),
    }


def file(value: FileDetail, url: str) -> Document:
    """A file; `url` is where its content can be read."""
    return {
        "id": value.id,
        "created": storage_moment(value.created),
        "isPublic": value.is_public,
        "isSliced": value.is_sliced,
        "isEncrypted": value.is_encrypted,
        "name": value.name,
        "fileType": "csv" if value.name.removesuffix(".gz").endswith(".csv") else None,
        "url": url,
        "provider": "azure",
        "region": "local",
        "sizeBytes": value.size_bytes,
        "tags": list(value.tags),
        "maxAgeDays": value.max_age_days,
        "runId": value.run_id,
        "runIds": [] if value.run_id is None else [value.run_id],
        "creatorToken": _creator(value.creator_token_id, value.creator_token_description),
    }


def attachment(name: str) -> str:
    """The header that makes a browser keep a file, under its name, instead of showing it."""
    plain = re.sub(r"[^A-Za-z0-9._-]", "_", name)
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name)}"


def client_event(value: ClientEvent, base: str) -> Document:
    """An event that a client sent."""
    said = value.said
    names = ("ext", said.component, said.configuration_id)
    return _event(
        str(value.id),
        uuid=value.uuid,
        event=".".join(name for name in names if name),
        component=said.component,
        message=said.message,
        description=said.description,
        type_=said.type,
        run_id=said.run_id,
        created=value.created,
        configuration_id=said.configuration_id,
        params=said.params,
        results=said.results,
        performance={} if said.duration is None else {"duration": said.duration},
        token=(said.token_id, said.token_description),
        branch=said.branch,
        uri=f"{base}/v2/storage/events/{value.id}",
    )


def job_event(value: Event, record: JobRecord, base: str) -> Document:
    """What happened in a job, as an event of Storage."""
    event_id = f"{record.id}.{value.seq}"
    types = {"warn": "warn", "error": "error"}
    return _event(
        event_id,
        event=f"ext.{record.component}.{record.config or ''}".rstrip("."),
        component=record.component,
        message=value.message,
        type_=types.get(value.level, "info"),
        run_id=record.run_id,
        created=value.time,
        configuration_id=record.config or "",
        params={"kind": value.kind, "level": value.level},
        results=value.data,
        token=(record.token_id, record.token_description),
        branch=record.spec.get("branch"),
        uri=f"{base}/v2/storage/events/{event_id}",
    )


def operation_event(value: Operation, base: str) -> Document:
    """A storage job that has ended, as an event of the table or bucket that it was about."""
    failed = value.error is not None
    return _event(
        str(value.id),
        event=f"storage.{value.kind}{'Failed' if failed else 'Done'}",
        component="storage",
        message=f"{value.kind} has ended." if value.error is None else value.error.message,
        type_="error" if failed else "success",
        run_id=value.run_id,
        created=value.ended,
        configuration_id="",
        params=value.params,
        token=(value.token_id, value.token_description),
        branch=value.branch,
        uri=f"{base}/v2/storage/jobs/{value.id}",
        about=("table", value.table_id),
    )


def _event(
    event_id: str,
    *,
    event: str,
    component: str | None,
    message: str,
    run_id: str | None,
    created: datetime | None,
    configuration_id: str | None,
    params: Mapping[str, Any],
    token: tuple[str | None, str | None],
    uri: str,
    uuid: str | None = None,
    description: str = "",
    type_: str = "info",
    results: Mapping[str, Any] | None = None,
    performance: Mapping[str, Any] | None = None,
    branch: str | None = None,
    about: tuple[str | None, str | None] = (None, None),
) -> Document:
    """An event as Storage has it (storage-api.md section 11.1); `about` is an object's type and id."""
    object_type, object_id = about
    return {
        "id": event_id,
        "uuid": uuid or event_id,
        "event": event,
        "component": component,
        "message": message,
        "description": description,
        "type": type_,
        "runId": run_id,
        "created": storage_moment(created),
        "configurationId": configuration_id,
        "params": dict(params),
        "results": dict(results or {}),
        "performance": dict(performance or {}),
        "token": {"id": token[0], "name": token[1]},
        "idBranch": branch,
        "uri": uri,
        "objectId": object_id,
        "objectType": object_type,
        "attachments": [],
    }


def trigger(value: Trigger) -> Document:
    """A trigger (storage-api.md section 11.2)."""
    wanted = value.wanted
    return {
        "id": str(value.id),
        "runWithTokenId": number(wanted.run_with_token_id),
        "component": wanted.component,
        "configurationId": wanted.config,
        "lastRun": storage_moment(value.last_run or value.created),
        "coolDownPeriodMinutes": wanted.cool_down_minutes,
        "creatorToken": {"id": wanted.token_id, "description": wanted.token_description},
        "tables": [{"tableId": table} for table in wanted.tables],
    }


def storage_job(value: Operation, base: str, *, backend: str) -> Document:
    """An operation on Storage (storage-api.md section 5.1)."""
    done = value.results
    transfer = done.transfer if done is not None else NO_TRANSFER
    document: Document = {
        "id": value.id,
        "status": value.status.value,
        "url": f"{base}/v2/storage/jobs/{value.id}",
        "tableId": value.table_id,
        "operationName": value.kind,
        "operationParams": dict(value.params),
        "createdTime": storage_moment(value.created),
        "startTime": storage_moment(value.started),
        "endTime": storage_moment(value.ended),
        "runId": value.run_id,
        "results": None if done is None else _storage_results(done, base, backend),
        "creatorToken": {"id": value.token_id, "description": value.token_description},
        "metrics": {
            "inCompressed": transfer.in_compressed,
            "inBytes": transfer.in_bytes,
            "inBytesUncompressed": 0 if transfer.in_compressed else transfer.in_bytes,
            "outCompressed": transfer.out_compressed,
            "outBytes": transfer.out_bytes,
            "outBytesUncompressed": 0 if transfer.out_compressed else transfer.out_bytes,
        },
    }
    if value.error is not None:
        document["error"] = {
            "code": value.error.code,
            "message": value.error.message,
            "exceptionId": value.error.exception_id,
        }
    return document


def _storage_results(done: Done, base: str, backend: str) -> Any:
    if done.table is not None:
        return table(done.table, base, backend=backend, bucket_of=done.bucket)
    if done.bucket is not None:
        return bucket(done.bucket, base, backend=backend)
    return done.value


# -- values ----------------------------------------------------------------------------------------


def moment(value: datetime | None) -> str | None:
    """A time as the queue writes it: `2024-03-01T10:20:30+00:00`."""
    return None if value is None else value.isoformat(timespec="seconds")


def storage_moment(value: datetime | None) -> str | None:
    """A time as Storage writes it: `2024-03-01T10:20:30+0000`."""
    return None if value is None else value.strftime("%Y-%m-%dT%H:%M:%S%z")


def number(text: str) -> int | str:
    """An id as an integer, where it is one."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 18 else text


def _creator(token_id: str | None, description: str | None) -> Document | None:
    if token_id is None:
        return None
    return {"id": number(token_id), "description": description or ""}


def metadata(entries: Iterable[MetadataEntry]) -> list[Document]:
    """What is said of a bucket, a table or a column."""
    return [
        {
            "id": entry.id,
            "key": entry.key,
            "value": entry.value,
            "provider": entry.provider,
            "timestamp": storage_moment(entry.timestamp),
        }
        for entry in entries
    ]


def _object(value: Any) -> Any:
    return {} if value is None else value
