"""A component's definition, checked and with its defaults (runner.md section 3)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Final, Literal, Self

from vaka.errors import (
    ApplicationError,
    InvalidDefinition,
    InvalidInput,
    NotAllowed,
    NotFound,
    UserError,
)
from vaka.models.catalog import Component, Json
from vaka.models.document import Format, dump_document
from vaka.models.tree import (
    Anything,
    Bool,
    Choice,
    Int,
    ListOf,
    MapOf,
    Object,
    Rule,
    Scalar,
    empty_as,
    invalid,
    quoted,
    text,
)

DEFAULT_MEMORY: Final = "256m"
DEFAULT_TIMEOUT: Final = 3_600
ImageType = Literal["dockerhub", "quayio", "aws-ecr"]
Network = Literal["none", "bridge", "no-internet"]
DataTypesSupport = Literal["authoritative", "hints", "none"]
Verbosity = Literal["none", "camouflage", "normal", "verbose"]

WORKSPACE: Final = "workspace-"
"""What the staging kinds begin with that keep tables in a database schema."""
_WORKSPACES: Final = ("workspace-snowflake", "workspace-redshift", "workspace-bigquery")
STAGING_INPUTS: Final = ("local", "s3", "abs", "none", *_WORKSPACES)
STAGING_OUTPUTS: Final = ("local", "none", *_WORKSPACES)
DEFAULT_VERBOSITY: Final[Mapping[int, Verbosity]] = {
    100: "none",
    200: "normal",
    250: "normal",
    300: "normal",
    400: "normal",
    500: "camouflage",
    550: "camouflage",
    600: "camouflage",
}
"""By internal level number (runner.md section 4.10.4)."""


def _one_of(what: str, *words: str) -> Rule:
    def rule(value: Json, path: str) -> Json:
        if value not in words:
            raise invalid(path, f"Invalid {what} {quoted(value)}.")
        return value

    return rule


def _verbosity_rule(value: Json, path: str) -> Json:
    if value not in ("none", "camouflage", "normal", "verbose"):
        raise invalid(path, f"Invalid verbosity {quoted(value)}.")
    return value


def _levels_rule(value: dict[str, Json], path: str) -> dict[str, Json]:
    for level in value:
        if not level.isascii() or not level.isdigit() or int(level[:9]) not in DEFAULT_VERBOSITY:
            raise invalid(path, f"Invalid log level {quoted(level)}.")
    return value


_DEFINITION: Final = Object(
    extra="drop",
    children={
        "definition": Object(
            required=True,
            extra="drop",
            children={
                "type": Scalar(
                    required=True,
                    rules=(_one_of("image type", "dockerhub", "quayio", "aws-ecr"),),
                ),
                "uri": Scalar(required=True, non_empty=True),
                "tag": Scalar(default="latest", prepare=empty_as("latest")),
                "digest": Scalar(default="", prepare=empty_as("")),
                "name": Scalar(),
                "repository": Object(
                    extra="drop",
                    children={
                        "region": Scalar(),
                        "username": Scalar(),
                        "#password": Scalar(),
                        "server": Scalar(),
                    },
                ),
            },
        ),
        "memory": Scalar(default=DEFAULT_MEMORY, prepare=empty_as(DEFAULT_MEMORY)),
        "process_timeout": Int(default=DEFAULT_TIMEOUT, minimum=0),
        "configuration_format": Scalar(
            default="json", rules=(_one_of("configuration_format", "json", "yaml"),)
        ),
        "forward_token": Bool(default=False),
        "forward_token_details": Bool(default=False),
        "default_bucket": Bool(default=False),
        "default_bucket_stage": Scalar(
            default="in", rules=(_one_of("default_bucket_stage", "in", "out"),)
        ),
        "image_parameters": Anything(),
        "network": Scalar(
            default="bridge", rules=(_one_of("network type", "none", "bridge", "no-internet"),)
        ),
        "synchronous_actions": ListOf(item=Scalar()),
        "logging": Object(
            extra="drop",
            children={
                "type": Scalar(
                    default="standard", rules=(_one_of("logging type", "standard", "gelf"),)
                ),
                "verbosity": MapOf(
                    item=Scalar(rules=(_verbosity_rule,)), optional=True, rules=(_levels_rule,)
                ),
                "gelf_server_type": Scalar(
                    default="tcp", rules=(_one_of("GELF server type", "tcp", "udp", "http"),)
                ),
                "no_application_errors": Bool(default=False),
            },
        ),
        "staging_storage": Object(
            extra="drop",
            children={
                "input": Choice(words=STAGING_INPUTS, default="local"),
                "output": Choice(words=STAGING_OUTPUTS, default="local"),
            },
        ),
    },
)
_EXTRA: Final = Object(
    extra="drop",
    children={
        "dataTypesConfiguration": Object(
            extra="drop",
            children={
                "dataTypesSupport": Choice(words=("authoritative", "hints", "none"), default="none")
            },
        )
    },
)


@dataclass(frozen=True, slots=True)
class Logging:
    """How a component logs, and how much of it becomes events."""

    type: Literal["standard", "gelf"] = "standard"
    verbosity: Mapping[int, Verbosity] = field(default_factory=lambda: dict(DEFAULT_VERBOSITY))
    """Every level has one; levels that the definition leaves out have the default."""
    gelf_server_type: Literal["tcp", "udp", "http"] = "tcp"
    no_application_errors: bool = False
    """Exit codes above 1 are errors of the user."""


@dataclass(frozen=True, slots=True)
class ComponentDefinition:
    """What to run and how. Values are final: defaults are filled in."""

    id: str
    """Component id; for a bare image the image as it was named."""
    uri: str
    image_type: ImageType = "dockerhub"
    default_tag: str = "latest"
    digest: str = ""
    """Hex part of the image's expected `sha256:` repository digest, or empty."""
    replicated_name: str | None = None
    """Path of the image in a replicated registry (`definition.name`)."""
    region: str = "us-east-1"
    """Of an `aws-ecr` registry."""
    pinned: str | None = None
    """Full reference of a bare image that names its digest; a tag given later replaces it."""
    features: tuple[str, ...] = ()
    memory: str = DEFAULT_MEMORY
    """As written, for messages."""
    memory_bytes: int = 256 << 20
    process_timeout: float = DEFAULT_TIMEOUT
    """Seconds one container may run; 0 is no limit."""
    configuration_format: Format = "json"
    forward_token: bool = False
    forward_token_details: bool = False
    default_bucket: bool = False
    default_bucket_stage: Literal["in", "out"] = "in"
    image_parameters: Json = field(default_factory=dict)
    """As stored: values under `#` keys are ciphers."""
    network: Network = "bridge"
    synchronous_actions: tuple[str, ...] = ()
    logging: Logging = field(default_factory=Logging)
    staging_input: str = "local"
    staging_output: str = "local"
    data_types_support: DataTypesSupport = "none"
    command: tuple[str, ...] | None = None
    """Of a bare image: what to run instead of the image's own command."""

    @classmethod
    def parse(cls, component: Component) -> Self:
        """The definition of a registered component.

        Keys that are not known are ignored at every level.

        Raises:
            InvalidDefinition: the definition cannot be used, with the text of runner.md section 3.5.
        """
        try:
            data = _DEFINITION.parse(_plain(component.data), "component")
            extra = _EXTRA.parse(_plain(component.extra), "component")
            memory = text(data["memory"])
            memory_bytes = parse_memory(memory)
        except InvalidInput as error:
            raise InvalidDefinition(
                "Component definition is invalid. Verify the deployment setup and the repository "
                f"settings in the Developer Portal. Detail: {error.message}"
            ) from error
        definition = data["definition"]
        staging = data.get("staging_storage", {})
        return cls(
            id=component.id,
            uri=text(definition["uri"]),
            image_type=definition["type"],
            default_tag=text(definition["tag"]),
            digest=text(definition["digest"]).removeprefix("sha256:"),
            replicated_name=text(definition.get("name")) or None,
            region=text(definition.get("repository", {}).get("region")) or "us-east-1",
            features=component.features,
            memory=memory,
            memory_bytes=memory_bytes,
            process_timeout=data["process_timeout"],
            configuration_format=data["configuration_format"],
            forward_token=data["forward_token"],
            forward_token_details=data["forward_token_details"],
            default_bucket=data["default_bucket"],
            default_bucket_stage=data["default_bucket_stage"],
            image_parameters=data.get("image_parameters") or {},
            network=data["network"],
            synchronous_actions=tuple(text(action) for action in data["synchronous_actions"]),
            logging=_logging(data.get("logging", {})),
            staging_input=staging.get("input", "local"),
            staging_output=staging.get("output", "local"),
            data_types_support=extra.get("dataTypesConfiguration", {}).get(
                "dataTypesSupport", "none"
            ),
        )

    @classmethod
    def for_image(
        cls,
        image: str,
        *,
        command: tuple[str, ...] | None = None,
        timeout: float | None = None,
        memory: str | None = None,
        network: Literal["none", "bridge"] = "none",
    ) -> Self:
        """The definition of a job that only names an image.

        `timeout` is seconds, 0 for no limit; None for it and for `memory` means a component's default.

        Raises:
            InvalidInput: the reference or the memory limit cannot be read.
        """
        uri, tag, digest = split_reference(image)
        return cls(
            id=image,
            uri=uri,
            default_tag=tag or "latest",
            digest=digest,
            pinned=image if digest else None,
            memory=memory or DEFAULT_MEMORY,
            memory_bytes=parse_memory(memory or DEFAULT_MEMORY),
            process_timeout=DEFAULT_TIMEOUT if timeout is None else timeout,
            network=network,
            command=command,
        )

    def check_action(self, action: str) -> None:
        """Do nothing for a synchronous action that the component declares.

        Raises:
            NotFound: it declares none of that name.
            NotAllowed: the action is `run`, which only jobs run.
        """
        if action not in self.synchronous_actions:
            raise NotFound(f"Action '{action}' not found", kind="action", id=action)
        if action == "run":
            raise NotAllowed("Action 'run' not allowed")

    @property
    def sanitised_id(self) -> str:
        """The id with `-` for whatever is not a letter, digit or `-`, as buckets are named after."""
        return re.sub(r"[^A-Za-z0-9-]", "-", self.id)

    @property
    def runs_as_root(self) -> bool:
        """Whether containers run as the image's own user."""
        return "container-root-user" in self.features

    @property
    def no_swap(self) -> bool:
        """Whether the memory limit holds for memory and swap together."""
        return "no-swap" in self.features

    @property
    def keeps_connections_alive(self) -> bool:
        """Whether the container's idle TCP connections are probed every minute."""
        return "container-tcpkeepalive-60s-override" in self.features

    @property
    def extension(self) -> Literal["json", "yml"]:
        """Ending of the names of configuration, state and usage files."""
        return "yml" if self.configuration_format == "yaml" else "json"

    def dump(self, document: Json) -> bytes:
        """A document in the format that the component reads."""
        return dump_document(document, self.configuration_format)

    def image_reference(self, tag: str | None = None, *, replica: str | None = None) -> str:
        """What to pull and run; `tag`, when not empty, takes the place of the component's.

        `replica` is the registry that stands in for Amazon's, or None.

        Raises:
            UserError: no image can have such a tag, so no registry is asked for it.
            ApplicationError: the definition does not say where the replica has the image.
        """
        if tag and not _TAG.fullmatch(tag):
            raise UserError(f"Image {quoted(f'{self.id}:{tag}')} not found in the registry.")
        if replica and self.image_type == "aws-ecr":
            if not self.replicated_name:
                raise ApplicationError(
                    f'Component "{self.id}" is missing definition.name, cannot resolve replicated '
                    "registry image id."
                )
            return f"{replica.rstrip('/')}/{self.replicated_name}:{tag or self.default_tag}"
        if self.pinned is not None and not tag:
            return self.pinned
        registry = "quay.io/" if self.image_type == "quayio" else ""
        return f"{registry}{self.uri}:{tag or self.default_tag}"

    def default_bucket_id(self, config_id: str | None) -> str | None:
        """Bucket for outputs that name none, or None when the component has no such bucket.

        Raises:
            UserError: the component wants one and there is no configuration to name it after.
        """
        if not self.default_bucket:
            return None
        if not config_id:
            raise UserError("Configuration ID not set, but is required for default_bucket option.")
        return f"{self.default_bucket_stage}.c-{self.sanitised_id}-{config_id}"

    def check_staging(self, *, has_processors: bool = False) -> None:
        """Refuse staging kinds that do not go together (mapping.md section 8.2).

        With input staging `none` nothing is mapped and no processor runs, so nothing is refused.

        Raises:
            InvalidDefinition: input and output are not the same workspace kind.
            UserError: processors cannot work on what is not in the data folder.
        """
        staged = (self.staging_input, self.staging_output)
        if self.staging_input == "none":
            return
        mixed = any(kind.startswith(WORKSPACE) for kind in staged) and len(set(staged)) > 1
        if mixed and self.staging_output != "none":
            raise InvalidDefinition(
                f'Component staging setting mismatch - input: "{self.staging_input}", '
                f'output: "{self.staging_output}".'
            )
        if has_processors and self.staging_input != "local":
            raise UserError(
                f"Processors cannot be used with component {self.id} because it does not use local "
                "staging storage."
            )


def _plain(document: Json) -> Json:
    return dict(document) if isinstance(document, Mapping) else document


def _logging(data: Mapping[str, Any]) -> Logging:
    given = {int(level): value for level, value in data.get("verbosity", {}).items()}
    return Logging(
        type=data.get("type", "standard"),
        verbosity={**DEFAULT_VERBOSITY, **given},
        gelf_server_type=data.get("gelf_server_type", "tcp"),
        no_application_errors=data.get("no_application_errors", False),
    )


_SIZE = re.compile(r"(\d{1,18}(?:\.\d{1,9})?) ?(?:([kmgtp])?i?b?)", re.IGNORECASE | re.ASCII)
_SHIFTS = {"": 0, "k": 10, "m": 20, "g": 30, "t": 40, "p": 50}


def parse_memory(size: str) -> int:
    """Bytes of a Docker size such as `256m`, `1.5g` or `1000000`: units are powers of 1024.

    Where memory is computed from a job's container size (runner.md section 11.1), the same letters
    are powers of 1000; that is a rule of that computation, not of definitions.

    Raises:
        InvalidInput: it is no size, or none above zero.
    """
    found = _SIZE.fullmatch(size.strip())
    count = int(Fraction(found[1]) * 2 ** _SHIFTS[(found[2] or "").lower()]) if found else 0
    if not 0 < count < 1 << 63:
        raise InvalidInput(f"Value {quoted(size.lower())} is not understood", path="memory")
    return count


_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}", re.ASCII)
_REFERENCE = re.compile(
    r"(?P<uri>[A-Za-z0-9][A-Za-z0-9._-]*(?::\d+(?=/))?(?:/[a-z0-9._-]+)*)"
    rf"(?::(?P<tag>{_TAG.pattern}))?"
    r"(?:@sha256:(?P<digest>[0-9a-f]{64}))?",
    re.ASCII,
)


def split_reference(image: str) -> tuple[str, str, str]:
    """(Name, tag, hex digest) of an image reference; tag and digest are empty when not given.

    A colon is a port when a slash follows it. The id of a local image, `sha256:<hex>`, reads as a
    name with a tag, and comes out the same when it is put together again.

    Raises:
        InvalidInput: it is not a reference.
    """
    found = _REFERENCE.fullmatch(image)
    if found is None:
        raise InvalidInput(f"{quoted(image)} is not the reference of an image.", path="image")
    return found["uri"], found["tag"] or "", found["digest"] or ""
