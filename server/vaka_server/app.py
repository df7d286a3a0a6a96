"""The HTTP application: the only place that joins Quart and the engine."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import quote, unquote
from uuid import uuid4

import trio
from quart.routing import QuartRule
from quart_trio import QuartTrio
from werkzeug.exceptions import NotFound
from werkzeug.routing import IntegerConverter

from vaka.errors import AccessDenied, AuthenticationFailed
from vaka.errors import NotFound as NoBranch
from vaka_server import body, documents, problems, routes
from vaka_server.access import Access, Gate
from vaka_server.audit import Witness
from vaka_server.body import Connection, Refusal, Request
from vaka_server.file_access import FileAccess, signing_key
from vaka_server.hosts import ABSENT, SERVICES, Hosts
from vaka_server.logs import context
from vaka_server.problems import Maintenance, Refused, path_dialect
from vaka_server.rates import Rates
from vaka_server.route import Call, Response, Route, not_implemented, view_access

if TYPE_CHECKING:
    from quart.ctx import RequestContext
    from quart.typing import ResponseReturnValue, ResponseTypes
    from quart.wrappers.base import BaseRequestWebsocket
    from werkzeug.exceptions import HTTPException
    from werkzeug.routing import MapAdapter

    from vaka import Engine
    from vaka.models.catalog import Token
    from vaka_server.settings import Settings

log = logging.getLogger(__name__)

HEADERS = (
    ("Access-Control-Allow-Origin", "*"),
    ("Access-Control-Allow-Methods", "*"),
    ("Access-Control-Allow-Headers", "*"),
    ("Cache-Control", "private, no-cache, no-store, must-revalidate"),
)
PREFLIGHT = {
    "Accept": "application/json",
    "Access-Control-Allow-Methods": "GET, POST, PUT, PATCH, DELETE, OPTIONS",
    "Access-Control-Allow-Headers": (
        "content-type, x-requested-with, x-requested-by, x-storageapi-url, x-storageapi-token, "
        "x-kbc-runid, x-user-agent"
    ),
    "Access-Control-Max-Age": "86400",
}
NOWHERE = "/\0"
"""A path that no route has: none is one variable alone."""


def create_app(engine: Engine, settings: Settings) -> App:
    """The application of an open engine, with the routes of its plugins."""
    app = App(engine, settings)
    app.add_routes(routes.all_routes())
    engine.plugins.server_routes(app)
    return app


class Followers:
    """Answers that last until something happens, so that stopping the server need not wait for it."""

    def __init__(self) -> None:
        self._waits: set[trio.CancelScope] = set()
        self.is_dismissed = False

    @contextmanager
    def wait(self) -> Iterator[None]:
        """Wait within it; left early when the followers are dismissed."""
        with trio.CancelScope() as scope:
            self._waits.add(scope)
            try:
                if self.is_dismissed:
                    scope.cancel()
                yield
            finally:
                self._waits.discard(scope)

    def dismiss(self) -> None:
        """End all waits, and those to come."""
        self.is_dismissed = True
        for scope in self._waits:
            scope.cancel()


class WholeNumber(IntegerConverter):
    """A part of a path that is a number which every store can hold; no route has any other."""

    regex = "[0-9]{1,18}"


class LazyRule(QuartRule):
    """A rule that makes its code for building URLs only when one is built, which nobody here does.

    That code is most of what a rule costs (1.5 ms of 2): hundreds of rules would delay each start.
    """

    def _compile_builder(self, append_unknown: bool = True) -> Callable[..., tuple[str, str]]:
        compile_builder = super()._compile_builder

        def build(rule: QuartRule, **values: Any) -> tuple[str, str]:
            builder: Callable[..., tuple[str, str]] = compile_builder(append_unknown)
            return builder(rule, **values)

        return build


class App(QuartTrio):
    """The application.

    Its own routes are `Route` objects. Views of plugins say who may call them by
    `vaka_server.access.requires`, and answer nobody otherwise.
    """

    request_class = Request
    url_rule_class = LazyRule  # type: ignore[assignment]  # as Quart itself does
    asgi_http_class = Connection
    asgi_websocket_class = Refusal

    def __init__(self, engine: Engine, settings: Settings) -> None:
        super().__init__("vaka_server", static_folder=None)
        self.engine = engine
        self.settings = settings
        self.gate = Gate(engine.catalog)
        self.hosts = Hosts(settings)
        lifetime = timedelta(seconds=settings.file_access_seconds)
        self.witness = Witness(engine)
        self.file_access = FileAccess(signing_key(engine.config.home), lifetime)
        self.spool_folder = engine.config.home / "uploads"
        self.followers = Followers()
        self.rates = Rates(settings.encrypt_rate)
        body.clear(self.spool_folder)
        self.config["RESPONSE_TIMEOUT"] = None  # a log is followed for as long as its job runs
        self.config["MAX_CONTENT_LENGTH"] = settings.max_body_bytes
        self.config["PROPAGATE_EXCEPTIONS"] = False
        # no client follows a redirect of a POST, so there is none to a path with or without a slash
        self.url_map.converters = {**self.url_map.converters, "int": WholeNumber}
        self.url_map.strict_slashes = False
        self.url_map.merge_slashes = False

    def add_routes(self, table: Iterable[Route]) -> None:
        """Serve these, each in all its forms."""
        for route in (form for each in table for form in each.forms()):
            self.add_url_rule(
                route.rule,
                route.endpoint,
                route,
                methods=[route.method],
                provide_automatic_options=False,
            )

    # -- one request ---------------------------------------------------------------------------

    def create_url_adapter(self, request: BaseRequestWebsocket | None) -> MapAdapter | None:
        """Find the route by the host's service and the path, whose parts are decoded once.

        A slash that is part of a name (`%2F`) stands as NUL until the route is found.
        """
        if not isinstance(request, Request):
            return super().create_url_adapter(request)
        decoded = _decoded(request)
        prefix = ""
        found = self.hosts.find(self.hosts.asked(request))
        if found is not None and found.service in ABSENT:
            request.absent_service, request.dialect = found.service, "service"
        elif found is not None and (prefix := SERVICES.get(found.service, "")):
            request.dialect = "service"
        request.routed_path = prefix + (decoded or request.path)
        path = NOWHERE if decoded is None else request.routed_path
        return self.url_map.bind("", request.root_path, None, request.scheme, request.method, path)

    async def full_dispatch_request(
        self, request_context: RequestContext | None = None
    ) -> ResponseTypes:
        request = self._request(request_context)
        restore = context.set({"request_id": uuid4().hex, "path": request.path})
        try:
            return await super().full_dispatch_request(request_context)
        finally:
            context.reset(restore)

    async def dispatch_request(
        self, request_context: RequestContext | None = None
    ) -> ResponseReturnValue:
        request = self._request(request_context)
        if request.method == "OPTIONS":
            return Response(b"", 200, PREFLIGHT, content_type="application/json")
        if request.absent_service is not None:
            raise _absent(request)
        if request.routing_exception is not None:
            raise request.routing_exception
        rule = request.url_rule
        if rule is None:
            raise NotFound
        view = self.view_functions[rule.endpoint]
        if isinstance(view, Route) and view.dialect is not None and request.dialect is None:
            request.dialect = view.dialect
        token, secret = await self._authorize(request, view_access(view))
        arguments = {
            name: value.replace("\0", "/") if isinstance(value, str) else value
            for name, value in (request.view_args or {}).items()
        }
        if isinstance(view, Route):
            call = Call(self, request, token, secret)
            if view.is_in_branch:
                call.branch = await self.branch_of(call.project.id, arguments.pop("branch"))
            try:
                answer = await view.handler(call, **arguments)
            finally:
                call.close()
            if view.audit is not None and answer.status_code < 400:
                address = self.hosts.client(request)
                subject = _subject(arguments) | call.subject
                await self.witness.acted(view.audit, call.token, address, subject, call.noted)
            return answer
        return await self.ensure_async(view)(**arguments)  # type: ignore[return-value]

    async def branch_of(self, project: str, name: str) -> str | None:
        """The development branch that `default` or an id names; None for the default one."""
        if name == "default":
            return None
        for each in await self.engine.catalog.branches(project):
            if each.id == name:
                return None if each.is_default else each.id
        raise NoBranch("Branch not found", kind="branch", id=name)

    async def _authorize(
        self, request: Request, access: Access | None
    ) -> tuple[Token | None, str | None]:
        """The caller's token, if the route needs one; raises unless the caller may go on."""
        if access is None:
            log.error("route.closed", extra={"rule": str(request.url_rule)})
            raise AccessDenied("The route does not say who may call it.")
        if access is Access.PUBLIC:
            return None, None
        secret = request.headers.get("X-StorageApi-Token")
        if not secret:
            if (request.dialect or path_dialect(request.routed_path)) != "runner":
                raise AuthenticationFailed("The header X-StorageApi-Token is missing.")
            raise Refused(400, "Missing StorageAPI token")
        if self.settings.maintenance is not None:
            raise Maintenance(self.settings.maintenance)
        address = self.hosts.client(request)
        try:
            token = await self.gate.token(secret)
        except AuthenticationFailed:
            await self.witness.refused(address, request.routed_path)
            raise
        await self.witness.used(token, address)
        if not access.allows(token):
            raise AccessDenied(f"Token {token.id} has the role {token.role}.")
        return token, secret

    async def handle_user_exception(
        self, error: BaseException
    ) -> HTTPException | ResponseReturnValue:
        if isinstance(error, BaseExceptionGroup):
            cancelled, failed = error.split(trio.Cancelled)
            if cancelled is not None and failed is None:
                # the caller went away: no failure, and nobody is there to be told
                while isinstance(error, BaseExceptionGroup):
                    error = error.exceptions[0]
                raise error
        if isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
            return await self.handle_user_exception(error.exceptions[0])
        document, status, headers = problems.body(error, self._request(None))
        return Response(
            documents.php_json(document), status, headers, content_type="application/json"
        )

    async def handle_exception(self, error: Exception) -> ResponseTypes:
        # what a plugin's own request hooks raise after the answer was made
        answer = await self.handle_user_exception(error)
        return await self.finalize_request(answer, from_error_handler=True)

    async def process_response(
        self, response: ResponseTypes, request_context: RequestContext | None = None
    ) -> ResponseTypes:
        response = await super().process_response(response, request_context)
        for name, value in HEADERS:
            response.headers.setdefault(name, value)
        return response

    def _request(self, request_context: RequestContext | None) -> Request:
        if request_context is None:
            from quart.globals import request_ctx  # noqa: PLC0415 - the slow path

            return cast("Request", request_ctx.request)
        return cast("Request", request_context.request)

    def log_exception(self, exception_info: Any) -> None:
        """Nothing: `problems` has logged it, with the id that the caller got."""


def _decoded(request: Request) -> str | None:
    """The path with each part decoded once; None when that gives no text."""
    raw = request.scope.get("raw_path") or quote(request.path).encode()
    try:
        parts = [unquote(part, errors="strict") for part in raw.decode("ascii").split("/")]
    except UnicodeDecodeError:
        return None
    if any("\0" in part for part in parts):
        return None
    return "/".join(part.replace("/", "\0") for part in parts)


def _subject(arguments: Mapping[str, Any]) -> dict[str, str]:
    """What a path names, by its kind."""
    return {name.removesuffix("_id"): str(value) for name, value in arguments.items()}


def _absent(request: Request) -> Exception:
    """What answers at the host of a service that is not here (storage-api.md section 2.3)."""
    is_documentation = request.routed_path.startswith("/docs/components/")
    if request.absent_service == "ai" and request.method == "GET" and is_documentation:
        return NotFound()  # clients then read the component from Storage
    return not_implemented(f"The service {request.absent_service}")
