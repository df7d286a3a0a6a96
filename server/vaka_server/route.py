"""What a route is, and what its handler is given."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, cast

from quart_trio.wrappers import TrioResponse

from vaka.models.catalog import Project, Token
from vaka.models.moment import parse_moment
from vaka.models.storage import StorageScope
from vaka_server import documents
from vaka_server.access import Access
from vaka_server.body import Body, Request
from vaka_server.problems import Refused
from vaka_server.requests import FALSE, TRUE

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    from vaka import Engine
    from vaka_server.access import Gate
    from vaka_server.app import App
    from vaka_server.settings import Settings

Response = TrioResponse
Method = Literal["GET", "POST", "PUT", "DELETE"]


@dataclass(slots=True)
class Call:
    """One request to one route: who asks, for what, and the engine that knows."""

    app: App
    request: Request
    verified: Token | None
    """Who asks; None on public routes."""
    secret: str | None

    @property
    def engine(self) -> Engine:
        return self.app.engine

    @property
    def settings(self) -> Settings:
        return self.app.settings

    @property
    def gate(self) -> Gate:
        return self.app.gate

    @property
    def body(self) -> Body:
        return self.request.body

    @property
    def token(self) -> Token:
        """The token; only on routes that need one."""
        assert self.verified is not None  # noqa: S101 - the route's access rule has seen to it
        return self.verified

    @property
    def project(self) -> Project:
        return self.token.project

    @property
    def scope(self) -> StorageScope:
        """Whose storage the caller acts on."""
        token = self.token
        return StorageScope(
            project=token.project.id,
            run_id=self.request.headers.get("X-KBC-RunId"),
            token_id=token.id,
            token_description=token.description,
        )

    @property
    def base(self) -> str:
        """Where clients reach the server, without a trailing slash."""
        return self.settings.public_url or f"{self.request.scheme}://{self.request.host}"

    @property
    def spool_folder(self) -> Path:
        return self.app.spool_folder

    async def raw(self) -> bytes:
        """The whole body, which may not be larger than a JSON body may be."""
        return await self.body.read(self.settings.max_body_bytes)

    # -- query ---------------------------------------------------------------------------------

    def text(self, name: str) -> str | None:
        """A query parameter; None when it is missing or empty."""
        return self.request.args.get(name) or None

    def words(self, name: str) -> tuple[str, ...]:
        """A list: `name=a,b`, `name=a&name=b` or `name[]=a&name[]=b`."""
        given = self.request.args.getlist(f"{name}[]")
        for value in self.request.args.getlist(name):
            given.extend(value.split(","))
        return tuple(word for word in given if word)

    def whole(self, name: str, default: int, *, least: int = 0, most: int) -> int:
        """A whole number; `Refused` when it is none or out of range."""
        text = self.text(name)
        if text is None:
            return default
        if not (text.isascii() and text.isdigit() and least <= int(text[:19]) <= most):
            raise Refused(400, f"Parameter '{name}' must be a whole number from {least} to {most}.")
        return int(text)

    def flag(self, name: str, *, default: bool = False) -> bool:
        """Yes or no; `Refused` when it is neither."""
        text = self.request.args.get(name)
        if text is None:
            return default
        if text.lower() not in TRUE | FALSE:
            raise Refused(400, f"Parameter '{name}' must be true or false.")
        return text.lower() in TRUE

    def moment(self, name: str) -> datetime | None:
        """A time as an ISO date or words such as `-1 day`; `Refused` when it is none."""
        text = self.text(name)
        if text is None:
            return None
        try:
            return parse_moment(text)
        except ValueError as error:
            raise Refused(
                400,
                f"Parameter '{name}' must be a time such as '-1 day' or '2024-01-31T12:00:00Z'.",
            ) from error

    # -- answers -------------------------------------------------------------------------------

    def runner(self, value: Any, status: int = 200) -> Response:
        """An answer in the runner's JSON."""
        return Response(documents.php_json(value), status, content_type="application/json")

    def storage(self, value: Any, status: int = 200) -> Response:
        """An answer in Storage's JSON."""
        return Response(documents.plain_json(value), status, content_type="application/json")


Handler = Callable[..., Awaitable[Response]]


@dataclass(frozen=True)
class Route:
    """One method of one path: who may call it, what answers, and what the documentation says.

    `rule` is Quart's; its variables are passed to `handler` by name, after the `Call`. The rest is for
    `/openapi.json`: `body` and `answer` name schemas in `vaka_server.schemas`.
    """

    method: Method
    rule: str
    access: Access
    handler: Handler
    summary: str
    query: Mapping[str, str] = field(default_factory=dict)
    """Query parameters and what they mean."""
    body: str | None = None
    """Schema of the JSON body, or a media type for a body that is a stream of bytes."""
    answer: str | None = None
    """Schema of the answer, with `[]` behind for a list, or a media type."""
    status: int = 200
    """Of an answer that is no error."""

    @property
    def endpoint(self) -> str:
        return f"{self.method} {self.rule}"

    @property
    def __name__(self) -> str:  # Quart asks a view for it
        return self.endpoint

    async def __call__(self, **_: Any) -> Response:
        raise NotImplementedError("routes are called by App.dispatch_request")


def view_access(view: object) -> Access | None:
    """The access rule that a view carries, if any."""
    return cast("Access | None", getattr(view, "access", None))
