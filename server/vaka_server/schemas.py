"""Shapes of bodies and answers, for `/openapi.json` and for the tests that compare the two.

Handlers do not use them: what a body may be is decided by the rules of the specification, which no
schema can say (an empty list is an object, a number is a text), and answers are made in one place.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from vaka.models.catalog import Role
from vaka.models.job import Status

Scalar = str | int | float | bool
Object = dict[str, Any]
Strings = list[str]
Flag = bool | Literal[0, 1, "0", "1", "true", "false"]
Time = Annotated[str, Field(description="ISO 8601 with a zone")]


class Schema(BaseModel):
    model_config = ConfigDict(
        extra="forbid", use_attribute_docstrings=True, alias_generator=to_camel
    )


class RunnerError(Schema):
    """What the runner's paths answer to a request that fails."""

    status: Literal["error"]
    error: Literal["User error", "Application error", "Project is disabled"]
    code: int
    message: str
    exception_id: Annotated[str, Field(pattern="^docker-[0-9a-f]{32}$")]
    run_id: int


class StorageError(Schema):
    """What Storage's paths answer to a request that fails."""

    status: Literal["error", "maintenance"]
    error: str
    code: str
    exception_id: str
    reason: str | None = None
    context: Object | None = None


class ServiceError(Schema):
    """What the services beside Storage answer to a request that fails."""

    status: Literal["error", "maintenance"]
    error: str
    code: int
    exception_id: str
    reason: str | None = None
    context: Object


class Root(Schema):
    host: str
    components: dict[str, str]
    documentation: str


class Ready(Schema):
    status: Literal["ok", "unavailable"]
    reasons: dict[str, str] = {}
    warnings: list[str] = []


class Message(Schema):
    message: str


class RunRequest(Schema):
    """Which configuration to run."""

    config: Scalar | None = None
    """Id of a stored configuration."""
    config_data: Object | list[Any] | None = None
    """A whole configuration in place of the stored one."""
    row: Any = None
    """Id of one row of `config`."""
    config_row_ids: list[Scalar] | None = None
    """Ids of several rows of `config`."""
    parallelism: int | str | None = None
    """How many rows may run at a time: a number or `infinity`. Absent: as the configuration says."""
    branch_id: Scalar | None = None
    """Id of the branch to run in; absent or null: the default one."""
    tag: Scalar | None = None
    variable_values_id: Scalar | None = None
    variable_values_data: Object | None = None
    snapshot_format: Literal["", "zip", "tar.zst"] | None = None
    """For a debug job: how its snapshots are packed; absent: as the server is set."""
    mode: Any = None
    """Accepted, and always overwritten."""
    format: Any = None
    """Accepted, without effect."""
    component: Any = None
    """Accepted, and always the path's."""


class ActionRequest(Schema):
    """What an action works with."""

    model_config = ConfigDict(extra="ignore")

    config_data: Object | list[Any]
    """A whole configuration; a stored one cannot be named."""
    tag: Scalar | None = None
    """Tag of the image to run in place of the component's own."""
    branch_id: Scalar | None = None
    """Id of the branch that the action is told of; absent or null: the default one."""


class SyncAction(ActionRequest):
    """Which action of which component is to run, and what it works with."""

    component_id: str
    action: str


class SyncActions(Schema):
    """What a component can be asked for."""

    actions: list[str]


class JobCreated(Schema):
    id: Annotated[str, Field(pattern="^[0-9]+$")]
    url: str
    status: Status


class ProjectReference(Schema):
    id: int | str
    name: str


class TokenReference(Schema):
    id: str | None
    description: str | None


class Process(Schema):
    host: str | None
    pid: int | None


class Stage(Schema):
    """One container of a job."""

    attempt: int
    definition: int
    stage: int
    kind: Literal["before", "main", "after"]
    component: str
    container: str
    image: str
    image_id: str
    digests: Strings
    status: Literal["planned", "started", "exited", "collected"]
    planned_time: Time
    start_time: Time | None
    end_time: Time | None
    seconds: float | None
    exit_code: int | None
    out_of_memory: bool
    memory_peak_bytes: int | None
    stdout_bytes: int
    stderr_bytes: int


class Cause(Schema):
    kind: str
    evidence: Object


class Progress(Schema):
    attempt: int
    phase: str | None
    definition: int
    waits_for: str | None
    """Why a waiting job has not started; null in lists."""


class Traffic(Schema):
    in_bytes: int
    out_bytes: int


class Metrics(Schema):
    network: Traffic
    storage: Traffic
    backend: Any


class Job(Schema):
    """A job."""

    id: int
    run_id: str
    lock_name: str
    project: ProjectReference
    token: TokenReference
    component: Literal["docker"]
    command: Literal["run"]
    params: Object
    result: Object
    status: Status
    process: Process
    created_time: Time
    start_time: Time | None
    end_time: Time | None
    duration_seconds: int | None
    wait_seconds: int | None
    nesting_level: int
    error: Literal["user", "application"] | None
    error_note: str | None
    terminated_by: TokenReference
    encrypted: None
    usage: list[Object]
    is_finished: bool
    url: str
    metrics: Metrics | None = None
    """Only with `include=metrics`."""
    stages: list[Stage] | None = None
    """Only with `include=stages`, as the two below."""
    cause: Cause | None = None
    progress: Progress | None = None


class Duration(Schema):
    duration_sum: int
    """Seconds."""


class ProjectStatistics(Schema):
    jobs: Duration


class DayDuration(Duration):
    date: str


class DailyStatistics(Schema):
    jobs: list[DayDuration]


class Garbage(Schema):
    kind: str
    name: str
    reason: str
    bytes: int | None
    project: str | None
    before: str | None


class GarbagePlan(Schema):
    items: list[Garbage]
    bytes: int
    failures: dict[str, str]
    """What could not be looked at, by kind."""


class GarbageRequest(Schema):
    timeout: float | None = None
    """Seconds that it may take, about."""


class GarbageReport(Schema):
    removed: list[Garbage]
    bytes: int
    failures: list[str]
    timed_out: bool
    lines: list[str]
    """What was said of each step."""


class ErrorNote(Schema):
    error_note: str


class Service(Schema):
    id: str
    url: str


class Index(Schema):
    api: Literal["storage"]
    version: Literal["v2"]
    revision: str
    documentation: str
    services: list[Service]
    url_templates: dict[str, str]
    features: Strings
    stack: str
    components: list[Object] | None = None


class Creator(Schema):
    id: int | str
    description: str


class Token(Schema):
    model_config = ConfigDict(extra="allow")

    id: str
    description: str
    role: Role
    created: Time
    expires: Time | None
    is_master_token: bool
    bucket_permissions: dict[str, str]
    token: str | None = None
    """The secret: where it was made, and where it asks for itself."""
    owner: Object | None = None


class EventMembers(Schema):
    """What all events have."""

    id: str
    uuid: str
    event: str
    component: str
    message: str
    description: str
    type: Literal["info", "success", "warn", "error"]
    run_id: str | None
    created: Time
    params: Object
    results: Object
    performance: Object
    token: Object
    uri: str
    object_id: str | None
    object_type: str | None
    attachments: list[Object]


class Event(EventMembers):
    """Something that happened to a token."""

    configuration_id: str | None
    id_branch: int | None


class AuditEntry(Schema):
    """One act, of the audit log."""

    id: int
    time: Time
    kind: str
    project: str | None
    """Null: the installation's."""
    token: TokenReference
    """Who did it."""
    address: str | None
    subject: dict[str, str]
    """Which things it was done to, by their kind."""
    detail: Object


class ProjectDetail(Schema):
    model_config = ConfigDict(extra="allow")

    id: int | str
    name: str
    features: Strings
    limits: Object
    token: str | None = None
    """The secret of the first admin token: where the project was made."""


class NewProject(Schema):
    name: Annotated[str, Field(min_length=1)]
    features: Strings = []


class TokenChanges(Schema):
    description: str | None = None
    bucket_permissions: dict[str, Literal["read", "write"]] | None = None
    component_access: Strings | None = None
    can_manage_buckets: Flag | None = None
    """All buckets, also those that are made later, and all components."""
    can_read_all_file_uploads: Flag | None = None
    can_purge_trash: Flag | None = None


class NewToken(TokenChanges):
    """What is not given, the token may not."""

    role: Role | None = None
    """A token that may all that its role does, less the limits that are given."""
    expires_in: int | str | None = None
    """Seconds."""


class Component(Schema):
    model_config = ConfigDict(extra="allow")

    id: str
    type: str
    name: str
    description: str
    data: Object
    flags: Strings
    categories: Strings
    features: Strings
    configuration_schema: Object
    configuration_row_schema: Object
    uri: str


class NewComponent(Schema):
    model_config = ConfigDict(extra="allow")

    id: str | None = None
    type: str
    name: str
    data: Object


class Version(Schema):
    """A version of a configuration or row, with what was to be included."""

    version: int
    created: Time
    creator_token: Creator | None
    change_description: str
    is_deleted: bool
    is_disabled: bool
    version_identifier: str
    name: str | None = None
    description: str | None = None
    configuration: Any = None
    state: Any = None


class Row(Schema):
    id: str
    name: str
    description: str
    configuration: Any
    is_disabled: bool
    version: int
    created: Time
    creator_token: Creator | None
    change_description: str
    state: Any
    version_identifier: str


class VersionDetail(Version):
    configuration: Any
    rows_sort_order: Strings
    rows: list[Row]


class CurrentVersion(Schema):
    created: Time
    creator_token: Creator | None
    change_description: str
    version_identifier: str


class Configuration(Schema):
    id: str
    name: str
    description: str
    created: Time
    creator_token: Creator | None
    version: int
    change_description: str
    is_disabled: bool
    is_deleted: bool
    current_version: CurrentVersion
    configuration: Any = None
    rows_sort_order: Strings | None = None
    rows: list[Row] | None = None
    state: Any = None


class ConfigurationChanges(Schema):
    """Only what is given changes."""

    name: str | None = None
    description: str | None = None
    configuration: Object | str | None = None
    state: Object | str | None = None
    is_disabled: bool | str | None = None
    rows_sort_order: Strings | None = None
    change_description: str | None = None
    expected_version: int | None = None
    """Refuse the change when the current version is another one."""


class RowChanges(Schema):
    """Only what is given changes."""

    name: str | None = None
    description: str | None = None
    configuration: Object | str | None = None
    state: Object | str | None = None
    is_disabled: bool | str | None = None
    change_description: str | None = None


class Change(Schema):
    change_description: str | None = None
    """Why, for the list of versions."""


class Copy(Change):
    """What a copy is called; absent: as what it is copied from."""

    name: str | None = None
    description: str | None = None


class RowCopy(Change):
    target_config_id: str | int | None = None
    """Configuration of the same component that the copy is for; absent: the same one."""


class NewVersion(Schema):
    version: int


class NewId(Schema):
    id: str


class Remark(Schema):
    """One entry of the metadata of a configuration or branch."""

    id: str
    key: str
    value: str
    timestamp: Time


class NewRemark(Schema):
    key: Annotated[str, Field(min_length=1, max_length=255)]
    value: str


class NewRemarks(Schema):
    metadata: list[NewRemark]


class FoundConfiguration(Schema):
    id_component: str
    configuration_id: str
    metadata: list[Remark] | None = None


class FoundThing(Schema):
    id: str
    name: str
    type: str
    full_path: Object
    component_id: str | None = None
    organization_id: int
    project_id: int
    project_name: str
    created: Time


class Found(Schema):
    """What has a name that is searched for."""

    all: int
    items: list[FoundThing]
    by_type: dict[str, int]
    by_project: dict[str, str]


class DevBranch(Schema):
    """A branch as Storage's clients know it."""

    id: int | str
    name: str
    description: str
    is_default: bool
    created: Time
    creator_token: Object


class BranchChanges(Schema):
    name: str | None = None
    description: str | None = None


class Connection(Schema):
    backend: str
    host: str
    database: str
    # not `schema`, which a model has already
    schema_name: Annotated[str, Field(alias="schema")]
    warehouse: None
    user: str


class Workspace(Schema):
    """A workspace that is a record and no more."""

    id: int
    type: str
    name: str
    component: str
    configuration_id: str
    created: Time
    read_only_storage_access: bool
    connection: Connection
    creator_token: Creator | None


class NewWorkspace(Schema):
    read_only_storage_access: bool | str = False
    login_type: str | None = None
    backend: str | None = None


class NewConfiguration(Schema):
    name: str
    configuration_id: str | int | None = None
    description: str = ""
    configuration: Object | str | None = None
    state: Object | str | None = None
    is_disabled: bool | str = False
    change_description: str = ""


class NewRow(Schema):
    row_id: str | int | None = None
    name: str = ""
    description: str = ""
    configuration: Object | str | None = None
    state: Object | str | None = None
    is_disabled: bool | str = False
    change_description: str = ""


class State(Schema):
    state: Any
    version: int
    """0: none was stored yet."""


class NewState(Schema):
    state: Object | str
    expected_version: int | None = None


class Branch(Schema):
    """The default branch of a project, or a development branch."""

    id: str
    name: str
    description: str
    is_default: bool
    created: str


class NewBranch(Schema):
    name: str
    description: str = ""


class VaultVariable(Schema):
    """What a configuration names as `{{ vault.<name> }}`."""

    name: str
    value: str
    """A cipher when it is encrypted."""
    is_encrypted: bool
    branch: str | None
    """The development branch that it is of; null: of all that have none of this name."""


class NewVaultVariable(Schema):
    value: str | int | float
    is_encrypted: bool = False
    """`value` is a cipher, and jobs decrypt it."""
    branch: str | None = None


class Credentials(Schema):
    """Credentials that were granted to a component; values under `#` keys are ciphers."""

    model_config = ConfigDict(extra="allow")


class Bucket(Schema):
    model_config = ConfigDict(extra="allow")

    id: str
    name: str
    stage: Literal["in", "out"]
    display_name: str
    description: str
    created: Time
    backend: str
    tables: str | list[Object]
    """Where the tables are, or in the detail the tables."""


class NewBucket(Schema):
    name: str
    stage: Literal["in", "out"] = "in"
    description: str = ""
    display_name: str | None = None
    color: str | None = None


class BucketChanges(Schema):
    display_name: str | None = None
    color: str | None = None
    """Empty: none."""


class Table(Schema):
    model_config = ConfigDict(extra="allow")

    id: str
    name: str
    columns: Strings | None = None
    """In lists only when they are asked for."""
    primary_key: Strings
    created: Time
    last_import_date: Time | None
    last_change_date: Time | None
    rows_count: int | None
    data_size_bytes: int | None
    bucket: Object | None = None


class CsvDialect(Schema):
    """How a CSV file is to be read."""

    delimiter: str = ","
    enclosure: str = '"'
    escaped_by: str = ""


class NewTable(CsvDialect):
    """A table of a file, or of a snapshot."""

    name: str
    display_name: str | None = None
    data_file_id: Scalar | None = None
    snapshot_id: Scalar | None = None
    primary_key: Strings | str | None = None
    columns: Strings | None = None
    """The file's columns in order, when it has no header."""


class NewColumn(Schema):
    name: str
    definition: Object | None = None
    """Type, length, nullable and default; only of tables with types."""
    basetype: str | None = None


class NewTableDefinition(Schema):
    """A table without rows."""

    name: str
    display_name: str | None = None
    columns: list[NewColumn]
    primary_keys_names: Strings | None = None


class TableImport(CsvDialect):
    """How a file is loaded."""

    data_file_id: Scalar
    incremental: Flag = False
    columns: Strings | None = None
    without_headers: Flag = False
    ignored_lines_count: int = 0
    treat_values_as_null: Strings | None = None


class ImportResults(Schema):
    transaction: None
    warnings: list[Message]
    imported_columns: Strings
    new_columns: Strings
    total_rows_count: int
    imported_rows_count: int
    total_data_size_bytes: int
    timers: list[Any]


class RowFilter(Schema):
    column: str
    operator: Literal["eq", "ne", "neq", "gt", "ge", "lt", "le"] = "eq"
    values: list[Scalar]
    data_type: str | None = None


class RowOrder(Schema):
    column: str
    order: Literal["ASC", "DESC"] = "ASC"
    data_type: str | None = None


class RowSelection(Schema):
    """Some rows of a table."""

    where_column: str | None = None
    where_values: list[Scalar] | None = None
    where_operator: Literal["eq", "ne", "neq"] | None = None
    where_filters: list[RowFilter] | None = None
    changed_since: Scalar | None = None
    """Seconds, an ISO date or words such as `-2 days`."""
    changed_until: Scalar | None = None


class TableExport(RowSelection):
    columns: Strings | str | None = None
    limit: int | None = None
    order_by: list[RowOrder] | None = None
    gzip: Flag = False
    format: Literal["rfc", "raw", "escaped"] | None = None
    file_type: Literal["csv", "parquet"] | None = None
    """`parquet` is not supported."""
    include_internal_timestamp: Flag = False


class RowsToDelete(RowSelection):
    allow_truncate: Flag = False
    """Needed to delete all rows."""


class ColumnChanges(Schema):
    """Another length of a typed column, or whether it may be empty."""

    definition: Object | None = None
    length: Scalar | None = None
    nullable: Flag | None = None


class KeyColumns(Schema):
    columns: Strings | str


class TableChanges(Schema):
    display_name: str | None = None


class ColumnDescription(Schema):
    name: str
    description: str | None = None


class TableDescription(Schema):
    description: str | None = None
    columns: list[ColumnDescription] | None = None


class TableSwap(Schema):
    target_table_id: str


class NewSnapshot(Schema):
    description: str = ""


class Snapshot(Schema):
    id: str
    created_time: Time
    description: str
    data_size_bytes: int | None
    creator_token: Object
    table: Table


class ColumnNames(Schema):
    column_names: Strings


class DisplayName(Schema):
    display_name: str


class MetadataEntry(Schema):
    id: str
    key: str
    value: str
    provider: str
    timestamp: Time


class NewMetadataEntry(Schema):
    key: str
    value: Scalar
    column_name: str | None = None
    """Of a column's entry: which one it is of, where the list does not say."""


class NewMetadata(Schema):
    """What is said of a bucket or a column."""

    provider: str
    metadata: list[NewMetadataEntry]


class NewTableMetadata(Schema):
    """What is said of a table and its columns."""

    provider: str
    metadata: list[NewMetadataEntry] | None = None
    columns_metadata: dict[str, list[NewMetadataEntry]] | list[list[NewMetadataEntry]] | None = None


class TableMetadata(Schema):
    metadata: list[MetadataEntry]
    columns_metadata: dict[str, list[MetadataEntry]]


class LoadResult(Schema):
    table_id: str
    imported_rows_count: int
    total_rows_count: int
    created: bool
    repeated: bool
    """Whether an earlier try with the same key had loaded it."""
    new_columns: Strings
    warnings: Strings


class File(Schema):
    model_config = ConfigDict(extra="allow")

    id: int
    name: str
    created: Time
    size_bytes: int
    tags: Strings
    is_sliced: bool
    url: str
    """Where its content, or the manifest of a sliced file, can be read for hours without a token."""


class PreparedFile(File):
    abs_upload_params: Object
    """Where to send the content, and the signature that allows it."""


class PrepareFile(Schema):
    name: str
    size_bytes: int | None = None
    tags: Strings | None = None
    is_public: bool = False
    is_permanent: bool = False
    is_encrypted: bool = True
    is_sliced: bool = False
    notify: bool = False
    federation_token: bool = False
    content_type: str | None = None


class FileTag(Schema):
    tag: str


class StorageJobError(Schema):
    code: str
    message: str
    exception_id: str


class StorageJob(Schema):
    id: int
    status: Literal["waiting", "processing", "success", "error"]
    url: str
    table_id: str | None
    operation_name: str
    operation_params: Object
    created_time: Time
    start_time: Time | None
    end_time: Time | None
    run_id: str | None
    results: Any
    """What was made or counted; null until a job has succeeded."""
    creator_token: Object
    metrics: Object
    error: StorageJobError | None = None
    """Only when the job has failed."""


class NewQueueJob(Schema):
    model_config = ConfigDict(extra="ignore")

    component: str
    config: Scalar | None = None
    config_data: Object | list[Any] | None = None
    config_row_ids: Strings | None = None
    mode: Literal["run", "forceRun", "debug"] = "run"
    tag: Scalar | None = None
    branch_id: Scalar | None = None
    variable_values_id: Scalar | None = None
    variable_values_data: Object | None = None
    parallelism: Scalar | None = None
    backend: Object | None = None
    orchestration_job_id: Scalar | None = None
    parent_run_id: Scalar | None = None


class QueueJob(Schema):
    id: str
    run_id: str
    parent_run_id: str
    project: Object
    token: Object
    status: Literal[
        "created",
        "waiting",
        "processing",
        "terminating",
        "success",
        "warning",
        "error",
        "terminated",
        "cancelled",
    ]
    desired_status: Literal["processing", "terminating"]
    mode: Literal["run", "forceRun", "debug"]
    component: str
    config: str | None
    config_data: Object
    config_row_ids: Strings
    tag: str | None
    created_time: Time
    start_time: Time | None
    end_time: Time | None
    duration_seconds: int | None
    result: Object
    usage_data: list[Object]
    is_finished: bool
    url: str
    branch_id: str
    variable_values_id: str | None
    variable_values_data: Object
    backend: Object
    executor: str
    metrics: Object
    behavior: Object
    parallelism: str | None
    type: str
    orchestration_job_id: str | None
    orchestration_task_id: str | None
    only_orchestration_task_ids: Strings | None
    previous_job_id: str | None


class JobGroup(Schema):
    group: Object
    jobs: list[QueueJob]


class NewStorageEvent(Schema):
    component: str
    message: str
    type: Literal["info", "success", "warn", "error"] = "info"
    description: str | None = None
    configuration_id: Scalar | None = None
    run_id: Scalar | None = None
    params: Object | str | None = None
    results: Object | str | None = None
    duration: int | None = None


class StorageEventCreated(Schema):
    id: str
    uuid: str


class StorageEvent(EventMembers):
    """What a client said, or what happened in a job or to a table."""

    configuration_id: str
    id_branch: Scalar | None


class NewTrigger(Schema):
    component: str
    configuration_id: Scalar
    table_ids: Strings
    cool_down_period_minutes: int
    run_with_token_id: Scalar


class TriggerChanges(Schema):
    component: str | None = None
    configuration_id: Scalar | None = None
    table_ids: Strings | None = None
    cool_down_period_minutes: int | None = None
    run_with_token_id: Scalar | None = None


class Trigger(Schema):
    id: str
    run_with_token_id: int | str
    component: str
    configuration_id: str
    last_run: Time
    cool_down_period_minutes: int
    creator_token: Object
    tables: list[Object]


class Ticket(Schema):
    id: str
