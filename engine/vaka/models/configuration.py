"""A job's configuration: checked, normalised, merged with a row, and as its containers see it.

Root keys and their rules are those of mapping.md section 1; what goes into `config.json` is in its
section 2.5.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Self, cast

from vaka.errors import InvalidInput
from vaka.models.catalog import Json
from vaka.models.document import Format, check_json, dump_document
from vaka.models.mapping import (
    INPUT_FILE,
    INPUT_TABLE,
    OUTPUT_FILE,
    OUTPUT_TABLE,
    TABLE_FILES,
    FileOptions,
    table_files_options,
)
from vaka.models.tree import (
    ABSENT,
    Absent,
    Anything,
    Bool,
    Choice,
    Int,
    ListOf,
    Object,
    Scalar,
    absent_when_empty,
    invalid,
    is_blank,
    null_as,
    text,
)

RUN: Final = "run"
"""The action of every job; other actions are synchronous."""
ALWAYS_WRITTEN: Final = ("storage", "parameters", "image_parameters", "authorization")
"""Root keys that a configuration file in JSON always has, as `{}` when there is nothing."""
SHORTEST_SECRET: Final = 4
"""Characters of a component's secret that configurations are searched for."""
MAX_PROCESS_TIMEOUT: Final = 86_400
"""Seconds; a configuration cannot ask for more."""


def _boolean_or_null(value: Json, path: str) -> Json:
    if value is not None and not isinstance(value, bool):
        raise invalid(path, "must be boolean or null")
    return value


def _positive_or_null(value: Json, path: str) -> Json:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int):
        raise invalid(path, 'must be "null" or "int"')
    if value <= 0:
        raise invalid(path, "must be greater than 0")
    return value


def _one_secret(value: dict[str, Json], path: str) -> dict[str, Json]:
    if is_blank(value.get("#password")) == is_blank(value.get("#privateKey")):
        raise invalid(path, 'Exactly one of "password" or "privateKey" must be configured.')
    return value


def _runs_filter(value: dict[str, Json], path: str) -> dict[str, Json]:
    wanted = value.get("filter", {})
    if value["enabled"] and is_blank(wanted.get("date_since")) and "limit" not in wanted:
        raise invalid(path, 'At least one of "date_since" or "limit" parameters must be defined.')
    return value


def _custom_filter(value: dict[str, Json], path: str) -> dict[str, Json]:
    wanted = value.get("filter", {})
    ids = ("component_id", "config_id", "branch_id")
    if value["enabled"] and all(is_blank(wanted.get(key)) for key in ids):
        raise invalid(
            path, '"component_id", "config_id" and "branch_id" parameters must be defined.'
        )
    return value


def _id_text(value: Json) -> Json | Absent:
    if is_blank(value):
        return ABSENT
    return value if isinstance(value, list | dict) else text(value)


def _string(value: Json, path: str) -> Json:
    if not isinstance(value, str):
        raise invalid(path, "value must be a string")
    return value


def _auth_rule(value: dict[str, Json], path: str) -> dict[str, Json]:
    if ("auth" in value) != value["auth_required"]:
        raise invalid(path, '"auth" value must be configured (only) when "auth_required" is true')
    return value


def _known_providers(value: dict[str, Json], path: str) -> dict[str, Json]:
    known = {provider["id"] for provider in value["auth_providers"]}
    for index, rule in enumerate(value["auth_rules"]):
        unknown = [name for name in rule.get("auth", ()) if name not in known]
        if unknown:
            raise invalid(
                path,
                f"auth_rules.{index}.auth contains unknown auth providers: {', '.join(unknown)}",
            )
    return value


_NAME: Final = Scalar(required=True, non_empty=True, rules=(_string,))
_NAMES: Final = Scalar(non_empty=True, rules=(_string,))
_APP_PROXY: Final = Object(
    children={
        "auth_providers": ListOf(
            required=True,
            item=Object(
                extra="keep",
                children={
                    "id": _NAME,
                    "type": _NAME,
                    "allowed_roles": ListOf(item=_NAMES, optional=True, minimum=1),
                },
            ),
        ),
        "auth_rules": ListOf(
            required=True,
            minimum=1,
            item=Object(
                extra="keep",
                children={
                    "type": _NAME,
                    "auth_required": Bool(required=True),
                    "auth": ListOf(item=_NAMES, optional=True, minimum=1),
                },
                rules=(_auth_rule,),
            ),
        ),
    },
    rules=(_known_providers,),
)


def _app_proxy(value: Json, _: str) -> Json:
    # a document of its own in messages, wherever it stands; passed on as it is given
    _APP_PROXY.parse(value, "app_proxy")
    return value


_CREDENTIALS: Final = (
    *("host", "account", "warehouse", "database", "schema", "region", "user", "password"),
    *("privateKey", "container", "connectionString"),
)
_STORAGE: Final = Object(
    children={
        "input": Object(
            children={
                "tables": ListOf(item=INPUT_TABLE),
                "files": ListOf(item=INPUT_FILE),
                "read_only_storage_access": Anything(rules=(_boolean_or_null,)),
            }
        ),
        "output": Object(
            children={
                "tables": ListOf(item=OUTPUT_TABLE),
                "files": ListOf(item=OUTPUT_FILE),
                "table_files": TABLE_FILES,
                "default_bucket": Scalar(),
                "data_type_support": Choice(words=("authoritative", "hints", "none")),
                "table_modifications": Choice(words=("none", "non-destructive", "all")),
                "treat_values_as_null": ListOf(item=Scalar(), optional=True),
            }
        ),
    }
)
_PROCESSORS: Final = ListOf(
    item=Object(
        children={
            "definition": Object(
                required=True,
                children={
                    "component": Scalar(required=True, non_empty=True),
                    "tag": Scalar(prepare=absent_when_empty),
                },
            ),
            "parameters": Anything(default={}, prepare=null_as({})),
        }
    )
)
_RUNTIME: Final = Object(
    extra="keep",
    children={
        "safe": Anything(default=None, rules=(_boolean_or_null,)),
        "image_tag": Scalar(default=None),
        "process_timeout": Anything(default=None, rules=(_positive_or_null,)),
        "use_file_storage_only": Anything(default=None),
        "atomic_output": Bool(),
        "backend": Object(
            extra="drop",
            children={
                "type": Scalar(),
                "context": Scalar(),
                "workspace_credentials": Object(
                    prepare=null_as(ABSENT),
                    children={
                        "id": Scalar(required=True, non_empty=True),
                        "type": Choice(required=True, words=("snowflake",)),
                        "#password": Scalar(),
                        "#privateKey": Scalar(),
                    },
                    rules=(_one_secret,),
                ),
            },
        ),
    },
)
_ARTIFACTS: Final = Object(
    children={
        "options": Object(children={"zip": Bool(default=True)}),
        "runs": Object(
            children={
                "enabled": Bool(default=False),
                "filter": Object(children={"date_since": Scalar(), "limit": Int()}),
            },
            rules=(_runs_filter,),
        ),
        "custom": Object(
            children={
                "enabled": Bool(default=False),
                "filter": Object(
                    children={
                        "component_id": Scalar(),
                        "config_id": Scalar(),
                        "branch_id": Scalar(),
                        "date_since": Scalar(),
                        "limit": Int(),
                    }
                ),
            },
            rules=(_custom_filter,),
        ),
        "shared": Object(children={"enabled": Bool(default=False)}),
    }
)
CONFIGURATION: Final = Object(
    children={
        "parameters": Anything(),
        "storage": _STORAGE,
        "processors": Object(children={"before": _PROCESSORS, "after": _PROCESSORS}),
        "runtime": _RUNTIME,
        "variables_id": Scalar(prepare=_id_text),
        "variables_values_id": Scalar(prepare=_id_text),
        "shared_code_id": Scalar(prepare=_id_text),
        "shared_code_row_ids": ListOf(item=Scalar(prepare=_id_text), optional=True),
        "image_parameters": Anything(),
        "authorization": Object(
            children={
                "oauth_api": Object(
                    children={"id": Scalar(), "version": Scalar(), "credentials": Anything()}
                ),
                "workspace": Object(
                    children={
                        **dict.fromkeys(_CREDENTIALS, Scalar()),
                        "credentials": Anything(),
                    }
                ),
                "context": Scalar(),
                "app_proxy": Anything(prepare=null_as(ABSENT), rules=(_app_proxy,)),
            }
        ),
        "action": Scalar(),
        "artifacts": _ARTIFACTS,
    }
)


@dataclass(frozen=True, slots=True)
class ProcessorDefinition:
    """One processor of a configuration."""

    component: str
    tag: str | None = None
    """Image tag in place of the component's."""
    parameters: Json = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Runtime:
    """How a configuration wants to be run; no container sees it."""

    safe: bool | None = None
    image_tag: str | None = None
    process_timeout: int | None = None
    """Seconds for the main container, at most a day; None is the component's."""
    use_file_storage_only: bool = False
    backend_type: str | None = None
    backend_context: str | None = None
    workspace_credentials: Mapping[str, Json] | None = None
    extra: Mapping[str, Json] = field(default_factory=dict)
    """Every other key, such as `parallelism`."""
    atomic_output: bool | None = None
    """Whether all tables of a definition land together or none does; None is the engine's setting."""


@dataclass(frozen=True, slots=True)
class JobConfiguration:
    """A valid configuration, normalised. None of the documents in it is to be changed."""

    data: Mapping[str, Json]
    """The whole document, keys in the order given, defaults after them."""

    @classmethod
    def parse(cls, data: Json, *, root: str = "container") -> Self:
        """Check and normalise a configuration; `root` is what messages call it.

        Raises:
            InvalidInput: the configuration breaks a rule of mapping.md section 1.
        """
        return cls(cast(Mapping[str, Json], CONFIGURATION.parse(data, root)))

    @property
    def parameters(self) -> Json:
        """`{}` when there are none."""
        given = self.data.get("parameters")
        return {} if is_empty(given) else given

    @property
    def storage(self) -> Mapping[str, Json]:
        return cast(Mapping[str, Json], self.data.get("storage", {}))

    @property
    def input_tables(self) -> list[dict[str, Json]]:
        """Normalised items; `InputTable.parse` takes one."""
        return self._items("input", "tables")

    @property
    def input_files(self) -> list[dict[str, Json]]:
        """Normalised items; `InputFile.parse` takes one."""
        return self._items("input", "files")

    @property
    def output_tables(self) -> list[dict[str, Json]]:
        """Normalised items; `OutputTable.parse` takes one."""
        return self._items("output", "tables")

    @property
    def output_files(self) -> list[dict[str, Json]]:
        """Normalised items; `OutputFile.parse` takes one."""
        return self._items("output", "files")

    @property
    def output(self) -> Mapping[str, Json]:
        """`storage.output` with its options, or `{}`."""
        return cast(Mapping[str, Json], self.storage.get("output", {}))

    @property
    def default_bucket(self) -> str | None:
        """Bucket that takes the place of the component's default one."""
        return text(self.output.get("default_bucket")) or None

    @property
    def data_type_support(self) -> str | None:
        """`none`, `hints` or `authoritative`; None is what the component's definition says."""
        return text(self.output.get("data_type_support")) or None

    @property
    def treat_values_as_null(self) -> tuple[str, ...] | None:
        """Values that become null when a table is loaded; None when nothing is said about it."""
        values = self.output.get("treat_values_as_null")
        return None if values is None else tuple(text(value) for value in values)

    @property
    def table_files(self) -> FileOptions:
        """How tables are stored that are to be files."""
        return table_files_options(self.output.get("table_files"))

    @property
    def processors_before(self) -> tuple[ProcessorDefinition, ...]:
        return self._processors("before")

    @property
    def processors_after(self) -> tuple[ProcessorDefinition, ...]:
        return self._processors("after")

    @property
    def has_processors(self) -> bool:
        return any(self.data.get("processors", {}).values())

    @property
    def runtime(self) -> Runtime:
        data = self.data.get("runtime", {})
        backend = data.get("backend", {})
        timeout = data.get("process_timeout")
        return Runtime(
            safe=data.get("safe"),
            image_tag=text(data.get("image_tag")) or None,
            process_timeout=None if timeout is None else min(timeout, MAX_PROCESS_TIMEOUT),
            use_file_storage_only=bool(data.get("use_file_storage_only")),
            backend_type=text(backend.get("type")) or None,
            backend_context=text(backend.get("context")) or None,
            workspace_credentials=backend.get("workspace_credentials"),
            extra={key: value for key, value in data.items() if key not in _RUNTIME.children},
            atomic_output=data.get("atomic_output"),
        )

    def config_file(
        self,
        *,
        image_parameters: Json,
        action: str = RUN,
        workspace: Mapping[str, Json] | None = None,
        oauth_credentials: Json = None,
        format: Format = "json",  # noqa: A002 - the format that the document is written in
    ) -> dict[str, Json]:
        """What the main container's configuration file says.

        Args:
            image_parameters: the component's own, decrypted.
            action: what is run.
            workspace: credentials of the staging workspace, when there is one.
            oauth_credentials: those the broker gave; the configuration's own come first.
            format: only a file in JSON has all of `ALWAYS_WRITTEN`.

        Raises:
            InvalidInput: the configuration uses one of the component's secrets.
        """
        refuse_component_secrets(self.data, image_parameters)
        left_out = ("runtime", "processors")
        document = {key: value for key, value in self.data.items() if key not in left_out}
        if is_empty(document.get("storage")):
            document.pop("storage", None)
        else:
            document["storage"] = _without_empty_objects(document["storage"])
        return _finished_file(
            document,
            image_parameters=image_parameters,
            authorization=self._written_authorization(oauth_credentials),
            workspace=workspace,
            context=self.runtime.backend_context,
            action=action,
            format=format,
        )

    def processor_file(
        self,
        parameters: Json,
        *,
        image_parameters: Json,
        action: str = RUN,
        workspace: Mapping[str, Json] | None = None,
        format: Format = "json",  # noqa: A002
    ) -> dict[str, Json]:
        """What the configuration file of a processor says; `image_parameters` are its component's."""
        return _finished_file(
            {"parameters": parameters},
            image_parameters=image_parameters,
            authorization={},
            workspace=workspace,
            context=None,
            action=action,
            format=format,
        )

    def _written_authorization(self, oauth_credentials: Json) -> dict[str, Json]:
        given = self.data.get("authorization", {})
        credentials = given.get("oauth_api", {}).get("credentials")
        if credentials is None:
            credentials = oauth_credentials
        written: dict[str, Json] = {}
        if not is_empty(credentials):
            written["oauth_api"] = {"credentials": credentials}
        if "app_proxy" in given:
            written["app_proxy"] = given["app_proxy"]
        return written

    def _items(self, side: str, kind: str) -> list[dict[str, Json]]:
        return cast(list[dict[str, Json]], self.storage.get(side, {}).get(kind, []))

    def _processors(self, position: str) -> tuple[ProcessorDefinition, ...]:
        return tuple(
            ProcessorDefinition(
                component=text(item["definition"]["component"]),
                tag=text(item["definition"].get("tag")) or None,
                parameters=item["parameters"],
            )
            for item in self.data.get("processors", {}).get(position, ())
        )


def merge(configuration: Json, row: Json) -> Json:
    """A configuration row over its configuration (runner.md section 6). Neither is changed.

    Objects merge key by key and lists element by element, the row winning; anything else of the row
    replaces. An empty list or object of the row does not clear a list or object.

    Raises:
        InvalidInput: one of them is beyond the limits of a document.
    """
    check_json(configuration)
    check_json(row)
    return _merge(configuration, row)


def secrets(document: Json) -> list[str]:
    """Every value that has to be hidden: scalars under keys that begin with `#`, at any depth.

    In the order of the document and without repeats. Empty values are left out, and so are booleans:
    to hide one would be to hide every `true`.
    """
    return list(dict.fromkeys(value for _, value in secrets_with_paths(document)))


def secrets_with_paths(document: Json) -> Iterator[tuple[str, str]]:
    """Where each value stands that has to be hidden, keys joined by dots, and the value."""
    for path, value in _scalars(document):
        if path and path[-1].startswith("#") and not isinstance(value, bool) and text(value):
            yield ".".join(path), text(value)


def refuse_component_secrets(configuration: Json, image_parameters: Json) -> None:
    """Refuse a configuration that holds one of its component's secrets under a `#` key.

    Both are decrypted (mapping.md section 1.9). Secrets of a few characters are not looked for: they
    are in every configuration by chance (encryption.md section 7.3).

    Raises:
        InvalidInput: it does.
    """
    known = [each.encode() for each in secrets(image_parameters) if len(each) >= SHORTEST_SECRET]
    if not known:
        return
    for path, value in _scalars(configuration):
        if not path or not path[-1].startswith("#"):
            continue
        given = text(value).encode()
        if any(hmac.compare_digest(given, each) for each in known):
            where = ".".join(path)
            raise InvalidInput(
                f'Component secrets cannot be used in configurations (used in "{where}"). '
                "Please contact support if you need further explanation.",
                path=where,
            )


def dumps_config(document: Json, format: Format = "json") -> bytes:  # noqa: A002
    """A configuration or state file, byte for byte as components have always got it."""
    return dump_document(document, format)


def is_empty(value: Json) -> bool:
    """Whether a value is null or an empty list, object or string."""
    return value is None or value in ([], {}, "")


def _merge(configuration: Json, row: Json) -> Json:
    if isinstance(configuration, dict) and isinstance(row, dict):
        merged = dict(configuration)
        for key, value in row.items():
            merged[key] = _merge(configuration[key], value) if key in configuration else value
        return merged
    if isinstance(configuration, list) and isinstance(row, list):
        both = [_merge(mine, theirs) for mine, theirs in zip(configuration, row, strict=False)]
        return both + configuration[len(row) :] + row[len(configuration) :]
    if isinstance(configuration, list | dict) and isinstance(row, list | dict) and not row:
        return configuration
    return row


def _finished_file(
    document: dict[str, Json],
    *,
    image_parameters: Json,
    authorization: dict[str, Json],
    workspace: Mapping[str, Json] | None,
    context: str | None,
    action: str,
    format: Format,  # noqa: A002
) -> dict[str, Json]:
    """Put the runner's keys into a document; the order is that of mapping.md section 2.5."""
    document["image_parameters"] = image_parameters
    if workspace is not None:
        authorization["workspace"] = dict(workspace)
    if context is not None:
        authorization["context"] = context
    if authorization:
        document["authorization"] = authorization
    else:
        document.pop("authorization", None)
    document["action"] = action
    if format == "json":
        for key in ALWAYS_WRITTEN:
            if is_empty(document.get(key)):
                document[key] = {}
    return document


def _without_empty_objects(value: Json) -> Json:
    """`value` with `[]` for each empty object, as mapping has always been written."""
    if isinstance(value, Mapping):
        return {key: _without_empty_objects(item) for key, item in value.items()} or []
    if isinstance(value, list):
        return [_without_empty_objects(item) for item in value]
    return value


def _scalars(document: Json) -> Iterator[tuple[tuple[str, ...], Any]]:
    """(Path, value) of every scalar, in the order of the document."""
    stack: list[tuple[tuple[str, ...], Json]] = [((), document)]
    while stack:
        path, value = stack.pop()
        if isinstance(value, (dict, Mapping)):  # most are told by the first
            stack.extend(((*path, key), item) for key, item in reversed(list(value.items())))
        elif isinstance(value, list):
            indexed = reversed(list(enumerate(value)))
            stack.extend(((*path, str(index)), item) for index, item in indexed)
        else:
            yield path, value
