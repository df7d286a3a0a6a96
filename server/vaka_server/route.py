"""What a route is, and what its handler is given."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, cast

from quart_trio.wrappers import TrioResponse

from vaka.errors import AccessDenied
from vaka.models.catalog import Project, Token
from vaka.models.moment import parse_moment
from vaka.models.storage import StorageScope
from vaka.turns import beside
from vaka_server import access, documents
from vaka_server.access import Access
from vaka_server.body import Body, Request, parse_json, parse_object
from vaka_server.fields import INVALID, Fields, parse_form, read_fields
from vaka_server.problems import Dialect, Refused
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
STORAGE = "/v2/storage"
BRANCH = f"{STORAGE}/branch/<branch>"
"""Below it is what a branch has; the word `default` and the id of the default branch are the same."""
STORAGE_BRANCHES = "storage-branches"
"""Feature of projects whose Storage keeps the tables and files of branches apart."""
RUN_ID_LENGTH = 200
_WHOLE = re.compile(r"[0-9]{1,18}")


@dataclass(slots=True)
class Call:
    """One request to one route: who asks, for what, and the engine that knows."""

    app: App
    request: Request
    verified: Token | None
    """Who asks; None on public routes."""
    secret: str | None
    branch: str | None = None
    """Id of the development branch that the path names; None is the default branch."""
    subject: dict[str, str] = field(default_factory=dict, init=False)
    """Which things the call acts on, for the audit log: what the path names, and what was made."""
    noted: dict[str, Any] = field(default_factory=dict, init=False)
    """What else the audit log is told of the act; no secrets."""
    _query: Fields | None = field(default=None, init=False)
    _fields: Fields | None = field(default=None, init=False)

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
        """Whose storage the caller acts on; of a branch only where Storage keeps branches apart."""
        token = self.token
        is_kept_apart = (
            self.branch is not None
            and STORAGE_BRANCHES in token.project.features
            and self.engine.storage.keeps_branches_apart
        )
        return StorageScope(
            project=token.project.id,
            branch=self.branch if is_kept_apart else None,
            run_id=self.run_id,
            token_id=token.id,
            token_description=token.description,
            rights=access.storage_rights(token),
        )

    @property
    def run_id(self) -> str | None:
        """The run that the caller belongs to; `Refused` when the header cannot be one."""
        value = self.request.headers.get("X-KBC-RunId")
        if value is not None and not (len(value) <= RUN_ID_LENGTH and value.isprintable()):
            raise Refused(
                400,
                f"The header X-KBC-RunId must be printable, at most {RUN_ID_LENGTH} characters.",
            )
        return value or None

    @property
    def base(self) -> str:
        """Where clients reach the server, without a trailing slash."""
        return self.app.hosts.base(self.request)

    def service_url(self, service: str) -> str:
        """Where clients reach a service of the index, without a trailing slash."""
        return self.app.hosts.service_url(self.request, service)

    @property
    def spool_folder(self) -> Path:
        return self.app.spool_folder

    async def raw(self) -> bytes:
        """The whole body, which may not be larger than a JSON body may be."""
        return await self.body.read(self.settings.max_body_bytes)

    async def json(self) -> Any:
        """The value of the body, by `parse_json`."""
        raw = await self.raw()
        return await beside(raw, partial(parse_json, raw))

    async def json_object(self) -> dict[str, Any]:
        """The object of the body, by `parse_object`."""
        raw = await self.raw()
        return await beside(raw, partial(parse_object, raw))

    # -- what is asked ---------------------------------------------------------------------------

    @property
    def query(self) -> Fields:
        """The query string, by PHP's rules for brackets."""
        if self._query is None:
            self._query = Fields(parse_form(self.request.query_string))
        return self._query

    async def fields(self, *, code: str = INVALID) -> Fields:
        """The body, JSON, form or multipart; `code` is Storage's word for a bad value in it."""
        if self._fields is None:
            self._fields = await read_fields(
                self.body,
                self.request.headers.get("Content-Type", ""),
                limit=self.settings.max_body_bytes,
                folder=self.spool_folder,
                upload_limit=self.settings.max_upload_bytes,
            )
        self._fields.code = code
        return self._fields

    async def check_installation(self) -> None:
        """`AccessDenied` unless the caller is of the first project, whose admins run the server."""
        projects = await self.engine.catalog.projects()
        if self.project.id != min(projects, key=lambda each: (len(each.id), each.id)).id:
            raise AccessDenied("Only an admin of the installation's first project may do this.")

    def close(self) -> None:
        """Remove what was kept for this call only."""
        if self._fields is not None:
            self._fields.close()

    # -- what the token may ------------------------------------------------------------------------

    def may_use_bucket(self, bucket: str, *, write: bool = False) -> bool:
        """Whether the caller may read a bucket, or change it."""
        return access.may_use_bucket(self.token, bucket, write=write)

    def check_bucket(self, bucket: str, *, write: bool = False) -> None:
        """`AccessDenied` when the caller may not read a bucket, or not change it."""
        access.check_bucket(self.token, bucket, write=write)

    def may_use_component(self, component: str) -> bool:
        """Whether the caller may use the configurations of a component."""
        return access.may_use_component(self.token, component)

    def check_component(self, component: str) -> None:
        """`AccessDenied` when the caller may not use the configurations of a component."""
        access.check_component(self.token, component)

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
        if not (_WHOLE.fullmatch(text) and least <= int(text) <= most):
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
    branch: bool | Literal["only"] = False
    """Whether the route is also served below `BRANCH`, or only there; `rule` is without it."""
    dialect: Dialect | None = None
    """How errors are told; None: as the path says."""
    audit: str | None = None
    """Kind of the entry that the audit log gets when the call has succeeded, such as `token.created`."""
    is_in_branch: bool = False
    """Whether `rule` begins with `BRANCH`; its branch is `Call.branch`, and no argument."""

    def forms(self) -> Iterator[Route]:
        """The routes that are served for this one."""
        if self.branch != "only":
            yield replace(self, branch=False)
        if self.branch:
            yield replace(
                self,
                rule=BRANCH + self.rule.removeprefix(STORAGE),
                # what anybody may read of the installation takes a token to be found in a branch
                access=Access.READ if self.access is Access.PUBLIC else self.access,
                branch=False,
                is_in_branch=True,
            )

    @property
    def endpoint(self) -> str:
        return f"{self.method} {self.rule}"

    @property
    def __name__(self) -> str:  # Quart asks a view for it
        return self.endpoint

    async def __call__(self, **_: Any) -> Response:
        raise NotImplementedError("routes are called by App.dispatch_request")


def absent(
    method: Method,
    rule: str,
    what: str,
    *,
    branch: bool | Literal["only"] = False,
    dialect: Dialect | None = None,
) -> Route:
    """A route that is knowingly not there: 501, which no client tries again."""

    async def refuse(call: Call, **_: Any) -> Response:  # noqa: ARG001 - a handler's signature
        raise not_implemented(what)

    summary = f"Not supported: {what}"
    return Route(
        method, rule, Access.READ, refuse, summary, status=501, branch=branch, dialect=dialect
    )


def not_implemented(what: str) -> Refused:
    """What answers a request for something that is knowingly not there; `what` begins a sentence."""
    return Refused(501, f"{what} is not supported by this server.", code="notImplemented")


def view_access(view: object) -> Access | None:
    """The access rule that a view carries, if any."""
    return cast("Access | None", getattr(view, "access", None))
