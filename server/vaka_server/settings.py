"""The server's settings, from the environment: `VAKA_` and the name in capitals.

Every setting of the engine (`vaka.config.EngineConfig`) is one, and those below. A setting may also be
read from a file, by its name with `_FILE` behind: for URLs that carry a password.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, SecretStr
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from vaka import EngineConfig
from vaka.errors import InvalidInput

PREFIX = "VAKA_"
CLIENT_VARIABLES = frozenset({"VAKA_URL", "VAKA_TOKEN", "VAKA_TOKEN_FILE"})
"""What the command line reads when it talks to a server."""


class Settings(BaseSettings, EngineConfig):
    """Settings of one server. Times are seconds, sizes bytes."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="forbid", frozen=True)

    address: str = "127.0.0.1"
    """Address to listen on. Loopback, because the API can run any image as any user of the daemon;
    0.0.0.0 opens it to the network."""
    port: Annotated[int, Field(ge=0, le=65_535)] = 8080
    """Port to listen on; 0 takes a free one."""
    public_url: str | None = None
    """Where clients reach the server, without a trailing slash; None: what the request's Host says.
    With a host that begins with `connection.` the services have hosts of their own beside it."""
    host_suffix: str | None = None
    """What follows the service's name in the hosts `connection.…`, `queue.…`, `encryption.…` and so on;
    `*` takes any. None: what follows `connection.` in `public_url`; without that, the host says nothing
    and each service is below its own path."""
    tls_certificate: Path | None = None
    """Certificate to serve HTTPS with, in PEM, those of its issuers behind it; it needs `tls_key`. None:
    plain HTTP, for loopback or behind a proxy that speaks TLS."""
    tls_key: Path | None = None
    """Private key of `tls_certificate`, in PEM and without a password."""
    trusted_proxies: str | None = None
    """Addresses or networks, separated by commas, whose X-Forwarded-Proto, -Host and -For count."""
    max_body_bytes: Annotated[int, Field(ge=1_024)] = 16 << 20
    """Largest JSON body. Configurations of several megabytes exist, larger ones are a mistake."""
    max_upload_bytes: Annotated[int, Field(ge=1)] | None = None
    """Largest table or file that is sent in one request; None: as much as the disk holds."""
    file_access_seconds: Annotated[float, Field(ge=3600)] = 43_200.0
    """How long at least the URL of a file, and credentials for its content, can be used: half a day, as
    clients expect. Who deletes the file ends it at once."""
    maintenance: str | None = None
    """A reason: every call that needs a token is answered 503 with it."""
    encrypt_rate: Annotated[int, Field(ge=1)] | None = 60_000
    """Secrets, and kilobytes around them, that one address may have encrypted or migrated in a minute.
    Nobody needs a token for it, and each may cost an answer of a key service; None: any number."""
    operator_token: Annotated[SecretStr, Field(min_length=16)] | None = None
    """Secret that lets who has it migrate ciphers of any project."""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    log_format: Literal["json", "text"] = "json"
    graceful_timeout: Annotated[float, Field(ge=0)] = 5.0
    """How long requests that are being answered may go on after the first signal to stop."""
    shutdown: Literal["drain", "adopt", "stop"] = "adopt"
    """What stopping the server does to running jobs: wait for them, leave their containers to the
    next start (the default: an upgrade ends no job), or cancel them."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the base class's signature
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, _Files(settings_cls)

    @property
    def scheme(self) -> Literal["http", "https"]:
        """What the server speaks itself; a proxy before it may speak another."""
        return "http" if self.tls_certificate is None else "https"

    @property
    def engine(self) -> EngineConfig:
        """The engine's part; what it tells components of the server is where clients find it."""
        values = {name: getattr(self, name) for name in EngineConfig.model_fields}
        if "storage_api_url" not in self.model_fields_set:
            values["storage_api_url"] = (
                self.public_url or f"{self.scheme}://{self.address}:{self.port}"
            )
        return EngineConfig(**values)


class _Files(PydanticBaseSettingsSource):
    """Reads `VAKA_<NAME>_FILE`: a path whose content, less white space around it, is the value."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:  # noqa: ARG002
        name = f"{PREFIX}{field_name.upper()}"
        path = os.environ.get(f"{name}_FILE")
        if path is None:
            return None, field_name, False
        if name in os.environ:
            raise InvalidInput(f"Both {name} and {name}_FILE are set; unset one of them.")
        try:
            return Path(path).read_text().strip(), field_name, False
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidInput(f"{name}_FILE: cannot read {path}: {error}") from error

    def __call__(self) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for name, field in self.settings_cls.model_fields.items():
            value, key, _ = self.get_field_value(field, name)
            if value is not None:
                values[key] = value
        return values


def unknown_variables(environment: Mapping[str, str] | None = None) -> dict[str, str | None]:
    """Variables that look like ours and are not, each with the name that may have been meant."""
    known = {name.upper() for name in Settings.model_fields}
    known |= {f"{name}_FILE" for name in known}
    known |= {name.removeprefix(PREFIX) for name in CLIENT_VARIABLES}
    given = os.environ if environment is None else environment
    found = {name.removeprefix(PREFIX) for name in given if name.startswith(PREFIX)}
    meant = {name: difflib.get_close_matches(name, known, 1) for name in sorted(found - known)}
    return {
        f"{PREFIX}{name}": f"{PREFIX}{words[0]}" if words else None for name, words in meant.items()
    }


def load(**overrides: Any) -> Settings:
    """The settings of this process; `overrides` that are not None win.

    Raises:
        InvalidInput: a value cannot be; the message names the variable.
    """
    from pydantic import ValidationError  # noqa: PLC0415 - already loaded by the base class

    try:
        return Settings(**{name: value for name, value in overrides.items() if value is not None})
    except ValidationError as error:
        reasons = "; ".join(
            f"{PREFIX}{'_'.join(str(part) for part in issue['loc']).upper()}: {issue['msg']}"
            for issue in error.errors()
        )
        raise InvalidInput(f"The settings are not valid: {reasons}.") from error
