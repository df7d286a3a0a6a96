"""Images."""

from __future__ import annotations

import json
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Any, Literal, overload

from vaka.docker.types import SENTINEL, unless_given
from vaka.docker.utils import clean_filters, clean_map, compose_auth_header, registry_of

if TYPE_CHECKING:
    from vaka.docker._response import Response
    from vaka.docker.docker import Docker
    from vaka.docker.types import JSON, Body, JSONObject, JSONs, Timeout

    Auth = JSONObject | str | bytes | None

NO_CREDENTIALS = "e30="
"""An empty object, for calls that want the header even where there is nothing to put in."""


class DockerImages:
    """The images of a daemon.

    `auth` is a mapping of `username` and `password`, of `identitytoken`, or the base64 of
    `user:password`; it goes to the registry that the image's name begins with.

    `pull`, `push`, `build` and `import_image` report progress as the daemon's objects: a list to await,
    or, with `stream=True`, an async iterator, which `aclose` ends early.
    The daemon can begin well and fail later: then `DockerStreamError` is raised where the error stands.
    """

    def __init__(self, docker: Docker) -> None:
        self.docker = docker

    async def list(self, *, filters: Mapping[str, Any] | str | None = None, **params: Any) -> JSONs:
        """The images that pass `filters`: `reference`, `label`, `dangling`, `before`, `since`.

        `params` are `all` (those that others were made of, too) and `digests`.
        """
        if isinstance(filters, str):
            warnings.warn(
                "filters as a JSON text is deprecated: pass a mapping, {'dangling': ['true']}",
                DeprecationWarning,
                stacklevel=2,
            )
            params["filters"] = filters
        elif filters is not None:
            params["filters"] = clean_filters(filters)
        found: JSONs = await self.docker._http.call("GET", "images/json", params=params)
        return found

    async def inspect(self, name: str) -> JSON:
        """All that the daemon knows of an image: `Id`, `RepoTags`, `RepoDigests`, `Config` and more.

        Raises:
            DockerNotFound: it is not here.
        """
        data: JSON = await self.docker._http.call("GET", f"images/{name}/json")
        return data

    async def get(self, name: str) -> JSON:
        """Deprecated: `inspect`."""
        warnings.warn(
            "images.get is deprecated; use images.inspect", DeprecationWarning, stacklevel=2
        )
        return await self.inspect(name)

    async def history(self, name: str) -> JSONs:
        """What the image was made of, the newest layer first."""
        layers: JSONs = await self.docker._http.call("GET", f"images/{name}/history")
        return layers

    async def distribution(self, name: str, *, auth: Auth = None) -> JSON:
        """What the registry has under a name now, without pulling: `Descriptor` and `Platforms`.

        Raises:
            DockerNotFound: there is no such tag.
            DockerError: 401 and 403 for credentials, 500 when the registry cannot be asked.
        """
        header = NO_CREDENTIALS if auth is None else compose_auth_header(auth, registry_of(name))
        data: JSON = await self.docker._http.call(
            "GET", f"distribution/{name}/json", headers={"X-Registry-Auth": header}
        )
        return data

    @overload
    async def pull(
        self,
        from_image: str,
        *,
        auth: Auth = None,
        tag: str | None = None,
        repo: str | None = None,
        platform: str | None = None,
        stream: Literal[False] = False,
        timeout: Timeout = SENTINEL,
    ) -> JSONs: ...
    @overload
    def pull(
        self,
        from_image: str,
        *,
        auth: Auth = None,
        tag: str | None = None,
        repo: str | None = None,
        platform: str | None = None,
        stream: Literal[True],
        timeout: Timeout = SENTINEL,
    ) -> AsyncIterator[JSON]: ...
    def pull(
        self,
        from_image: str,
        *,
        auth: Auth = None,
        tag: str | None = None,
        repo: str | None = None,
        platform: str | None = None,
        stream: bool = False,
        timeout: Timeout = SENTINEL,
    ) -> Any:
        """Fetch an image from its registry; nothing but a question, when it is here already.

        Args:
            from_image: its name, perhaps with `:tag` or `@sha256:…`.
            auth: see the class.
            tag: `latest` when neither this nor the name says; `""` fetches every tag there is.
            repo: the repository name for what is imported.
            platform: `os[/arch[/variant]]`.
            stream: see the class.
            timeout: seconds the whole call may take.

        Raises:
            DockerNotFound: there is no such image, or not for these credentials.
            DockerServerError: the registry refuses or cannot be asked.
            DockerStreamError: it failed on the way.
        """
        if tag is None and not _says_which(from_image):
            tag = "latest"
        params = {"fromImage": from_image, "repo": repo, "tag": tag, "platform": platform}
        headers = None
        if auth is not None:
            headers = {"X-Registry-Auth": compose_auth_header(auth, registry_of(from_image))}

        async def connect() -> Response:
            given = {key: value for key, value in params.items() if value}
            return await self.docker._http.open(
                "POST",
                "images/create",
                params=given,
                headers=headers,
                timeout=unless_given(timeout),
            )

        return _progress(connect, stream=stream)

    @overload
    async def push(
        self,
        name: str,
        *,
        auth: Auth = None,
        tag: str | None = None,
        stream: Literal[False] = False,
        timeout: Timeout = SENTINEL,
    ) -> JSONs: ...
    @overload
    def push(
        self,
        name: str,
        *,
        auth: Auth = None,
        tag: str | None = None,
        stream: Literal[True],
        timeout: Timeout = SENTINEL,
    ) -> AsyncIterator[JSON]: ...
    def push(
        self,
        name: str,
        *,
        auth: Auth = None,
        tag: str | None = None,
        stream: bool = False,
        timeout: Timeout = SENTINEL,
    ) -> Any:
        """Send an image to its registry. Its last object has `aux` with `Tag`, `Digest` and `Size`.

        Raises:
            DockerStreamError: the registry refused, for credentials too.
        """
        params = {"tag": tag} if tag else None
        header = NO_CREDENTIALS if auth is None else compose_auth_header(auth, registry_of(name))

        async def connect() -> Response:
            return await self.docker._http.open(
                "POST",
                f"images/{name}/push",
                params=params,
                headers={"X-Registry-Auth": header},
                timeout=unless_given(timeout),
            )

        return _progress(connect, stream=stream)

    async def tag(self, name: str, repo: str, *, tag: str | None = None) -> bool:
        """Give an image one more name, `repo` and `tag` (`latest` when none is given); True."""
        params = {"repo": repo, "tag": tag} if tag else {"repo": repo}
        await self.docker._http.call("POST", f"images/{name}/tag", params=params)
        return True

    async def delete(self, name: str, *, force: bool = False, noprune: bool = False) -> JSONs:
        """Remove a name of an image, and the image with its last name: `Untagged`, `Deleted`.

        Args:
            name: a name, or an id.
            force: also when it has other names, or a stopped container uses it.
            noprune: keep the untagged images that it was made of.

        Raises:
            DockerConflict: it is in use.
        """
        params = {"force": force, "noprune": noprune}
        done: JSONs = await self.docker._http.call("DELETE", f"images/{name}", params=params)
        return done

    async def prune(self, *, filters: Mapping[str, Any] | None = None) -> JSON:
        """Remove the unused images that pass `filters` (`dangling`, `until`, `label`); says which."""
        params = None if filters is None else {"filters": clean_filters(filters)}
        answer: JSON = await self.docker._http.call(
            "POST", "images/prune", params=params, timeout=None
        )
        return answer

    async def prune_builds(
        self,
        *,
        reserved_space: int | None = None,
        max_used_space: int | None = None,
        min_free_space: int | None = None,
        all_builds: bool | None = None,
        filters: Mapping[str, Any] | None = None,
    ) -> JSON:
        """Remove what builds have kept; says which. The three sizes, in bytes, are of API 1.48."""
        params = {
            "reserved-space": reserved_space,
            "max-used-space": max_used_space,
            "min-free-space": min_free_space,
            "all": all_builds,
            "filters": None if filters is None else clean_filters(filters),
        }
        answer: JSON = await self.docker._http.call(
            "POST", "build/prune", params=clean_map(params), timeout=None
        )
        return answer

    @overload
    async def build(
        self,
        *,
        remote: str | None = None,
        fileobj: Body | None = None,
        path_dockerfile: str | None = None,
        tag: str | None = None,
        quiet: bool = False,
        nocache: bool = False,
        buildargs: Mapping[str, str] | None = None,
        pull: bool = False,
        rm: bool = True,
        forcerm: bool = False,
        labels: Mapping[str, str] | None = None,
        platform: str | None = None,
        stream: Literal[False] = False,
        encoding: str | None = None,
        timeout: Timeout = SENTINEL,
    ) -> JSONs: ...
    @overload
    def build(
        self,
        *,
        remote: str | None = None,
        fileobj: Body | None = None,
        path_dockerfile: str | None = None,
        tag: str | None = None,
        quiet: bool = False,
        nocache: bool = False,
        buildargs: Mapping[str, str] | None = None,
        pull: bool = False,
        rm: bool = True,
        forcerm: bool = False,
        labels: Mapping[str, str] | None = None,
        platform: str | None = None,
        stream: Literal[True],
        encoding: str | None = None,
        timeout: Timeout = SENTINEL,
    ) -> AsyncIterator[JSON]: ...
    def build(
        self,
        *,
        remote: str | None = None,
        fileobj: Body | None = None,
        path_dockerfile: str | None = None,
        tag: str | None = None,
        quiet: bool = False,
        nocache: bool = False,
        buildargs: Mapping[str, str] | None = None,
        pull: bool = False,
        rm: bool = True,
        forcerm: bool = False,
        labels: Mapping[str, str] | None = None,
        platform: str | None = None,
        stream: bool = False,
        encoding: str | None = None,
        timeout: Timeout = SENTINEL,
    ) -> Any:
        """Build an image from a context, with the daemon's own builder.

        Args:
            remote: where the context is: a Git repository's or an archive's URL.
            fileobj: the context as a tar archive, sent as it is read. Exactly one of the two.
            encoding: how `fileobj` is compressed (`gzip`, `identity`), needed with it.
            path_dockerfile: the Dockerfile's path in the context.
            tag: the image's name.
            quiet: report its id only.
            nocache: build every step anew.
            buildargs: values for the Dockerfile's `ARG`s.
            pull: ask the registry for a newer base image.
            rm: remove the containers of steps that went well.
            forcerm: remove those of failed steps too.
            labels: labels for the image.
            platform: `os[/arch[/variant]]`.
            stream: see the class.
            timeout: seconds the whole call may take.

        Raises:
            DockerStreamError: a step failed.
        """
        if remote is None and fileobj is None:
            raise ValueError("You need to specify either remote or fileobj")
        if fileobj is not None and remote is not None:
            raise ValueError("You cannot specify both fileobj and remote")
        headers = None
        if fileobj is not None:
            if not encoding:
                raise ValueError("You need to specify an encoding")
            headers = {"Content-Type": "application/x-tar", "Content-Encoding": encoding}
        params = {
            "t": tag,
            "rm": rm,
            "q": quiet,
            "pull": pull,
            "remote": remote,
            "nocache": nocache,
            "forcerm": forcerm,
            "dockerfile": path_dockerfile,
            "buildargs": json.dumps(dict(buildargs)) if buildargs else None,
            "labels": json.dumps(dict(labels)) if labels else None,
            "platform": platform or None,
        }

        async def connect() -> Response:
            return await self.docker._http.open(
                "POST",
                "build",
                params=clean_map(params),
                headers=headers,
                body=fileobj,
                timeout=unless_given(timeout),
            )

        return _progress(connect, stream=stream)

    def export_image(
        self, name: str, timeout: Timeout = SENTINEL
    ) -> AbstractAsyncContextManager[Response]:
        """An image as a tar archive to read: `async with` it, then iterate or `read(n)`."""
        return self._export(name, unless_given(timeout))

    @asynccontextmanager
    async def _export(self, name: str, timeout: Timeout) -> AsyncIterator[Response]:
        path = f"images/{name}/get"
        async with await self.docker._http.open("GET", path, timeout=timeout) as response:
            yield response

    def import_image(self, data: Body, stream: bool = False, timeout: Timeout = SENTINEL) -> Any:
        """Take in the images of an archive that `export_image` made. See the class for `stream`."""

        async def connect() -> Response:
            return await self.docker._http.open(
                "POST",
                "images/load",
                headers={"Content-Type": "application/x-tar"},
                body=data,
                timeout=unless_given(timeout),
            )

        return _progress(connect, stream=stream)


def _says_which(image: str) -> bool:
    name = image.rpartition("/")[2]
    return ":" in name or "@" in name


def _progress(connect: Callable[[], Awaitable[Response]], *, stream: bool) -> Any:
    from vaka.docker._response import Objects  # noqa: PLC0415 - HTTP is loaded with the client

    items = Objects(connect, raise_errors=True)
    return items if stream else items.all()
