"""Containers: the collection, and one of them."""

from __future__ import annotations

import base64
import codecs
import json
import shlex
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, overload

from vaka.docker.exceptions import DockerContainerError, DockerError, DockerNotFound
from vaka.docker.execs import Exec
from vaka.docker.logs import DockerLog
from vaka.docker.stream import Output, Stream
from vaka.docker.types import SENTINEL, unless_given
from vaka.docker.utils import clean_filters, clean_map, identical

if TYPE_CHECKING:
    import tarfile
    from typing import Self

    from vaka.docker._response import Response
    from vaka.docker.docker import Docker
    from vaka.docker.stream import Duplex, Source
    from vaka.docker.types import JSON, Body, JSONObject, PortInfo, Timeout


class DockerContainers:
    """The containers of a daemon."""

    def __init__(self, docker: Docker) -> None:
        self.docker = docker

    async def list(self, **kwargs: Any) -> list[DockerContainer]:
        """Containers, the running ones unless `all=True`; also `limit`, `size` and `filters`."""
        found = await self.docker._http.call("GET", "containers/json", params=kwargs)
        return [DockerContainer(self.docker, **container) for container in found]

    async def create_or_replace(self, name: str, config: JSONObject) -> DockerContainer:
        """The container `name`, made of `config`; another one of that name is stopped and removed."""
        try:
            container = await self.get(name)
        except DockerNotFound:
            return await self.create(config, name=name)
        if identical(config, container._container):
            return container
        if container._container.get("State", {}).get("Running", False):
            await container.stop()
        await container.delete()
        return await self.create(config, name=name)

    async def create(self, config: JSONObject, *, name: str | None = None) -> DockerContainer:
        """A container that is created and not started; it knows no more than its id yet.

        Raises:
            DockerNotFound: the image is not here.
            DockerConflict: the name is taken.
            DockerServerError, DockerConnectionLost: it may have been created: look the name up.
        """
        params = {"name": name} if name else None
        made = await self.docker._http.call("POST", "containers/create", params=params, json=config)
        container = DockerContainer(self.docker, id=made["Id"])
        container._tty = bool(config.get("Tty", False))
        return container

    async def run(
        self,
        config: JSONObject,
        *,
        auth: JSONObject | str | bytes | None = None,
        name: str | None = None,
    ) -> DockerContainer:
        """A container, created and started; its image is pulled, with `auth`, if it is not here.

        Raises:
            DockerContainerError: it was created, has `container_id`, and could not be started.
        """
        try:
            container = await self.create(config, name=name)
        except DockerNotFound as error:  # a network may be what is not found
            if "Image" not in config or "image" not in error.message.lower():
                raise
            await self.docker.images.pull(str(config["Image"]), auth=auth)
            container = await self.create(config, name=name)
        try:
            await container.start()
        except DockerError as error:
            raise DockerContainerError(error.status, error.message, container.id) from error
        return container

    async def get(self, container_id: str, **kwargs: Any) -> DockerContainer:
        """The container of this id or name, with all that inspecting it says.

        Raises:
            DockerNotFound: there is none.
        """
        data = await self.docker._http.call("GET", f"containers/{container_id}/json", params=kwargs)
        return DockerContainer(self.docker, **data)

    def container(self, container_id: str, **kwargs: Any) -> DockerContainer:
        """The container of this id or name, without asking the daemon."""
        return DockerContainer(self.docker, **{"id": container_id, **kwargs})

    def exec(self, exec_id: str) -> Exec:
        """The exec of this id, without asking the daemon."""
        return Exec(self.docker, exec_id)

    async def prune(self, *, filters: Mapping[str, Any] | None = None) -> JSON:
        """Remove the stopped containers that pass `filters` (`until`, `label`); says which."""
        params = None if filters is None else {"filters": clean_filters(filters)}
        answer: JSON = await self.docker._http.call("POST", "containers/prune", params=params)
        return answer


@dataclass(frozen=True, slots=True)
class Archive:
    """A path of a container as a tar archive that is being read."""

    stat: JSON
    """`name`, `size`, `mode`, `mtime` and `linkTarget` of the path itself."""
    content: Response
    """The archive: iterate over it, or `read(n)`."""


class Exit:
    """The end of a container, which the daemon has been asked to tell."""

    def __init__(self, response: Response) -> None:
        self._response = response
        self._body = b""

    async def result(self) -> JSON:
        """`StatusCode`, and `Error` when the daemon has one, once the container has ended.

        Cancelling it loses nothing: call it again.
        """
        while data := await self._response.receive():
            self._body += data
        return self._response.parse(self._body)  # type: ignore[no-any-return]  # an object


class DockerContainer:
    """One container: its id, what is known of it (`container["State"]`), and what can be done.

    What is known is as old as the call that made this object, or the last `show`.
    """

    def __init__(self, docker: Docker, **kwargs: Any) -> None:
        self.docker = docker
        self._container: JSON = kwargs
        found = kwargs.get("id") or kwargs.get("ID") or kwargs.get("Id")
        if found is None:
            raise ValueError("DockerContainer should be initialized with explicit container ID.")
        self._id: str = found
        self._tty: bool | None = None
        self.logs = DockerLog(docker, self)

    @property
    def id(self) -> str:
        return self._id

    async def show(self, **kwargs: Any) -> JSON:
        """All that the daemon knows of the container; `size=True` adds its sizes."""
        data: JSON = await self._call("GET", "json", params=kwargs)
        self._container = data
        return data

    async def start(self, **kwargs: Any) -> None:
        """Start it; nothing when it runs.

        Raises:
            DockerError: 400 and the like, with the runtime's words, when its command cannot be run.
        """
        await self._call("POST", "start", params=kwargs)

    async def stop(
        self, *, t: int | None = None, signal: str | None = None, timeout: Timeout = SENTINEL
    ) -> None:
        """Stop it; nothing when it does not run.

        Args:
            t: seconds until it is killed; None takes the container's own (10, unless set).
            signal: what it is asked with; None takes the container's own. API 1.42 and newer.
            timeout: seconds the whole call may take.
        """
        params = clean_map({"t": t, "signal": signal})
        await self._call("POST", "stop", params=params, timeout=unless_given(timeout))

    async def restart(self, *, t: int | None = None, timeout: Timeout = SENTINEL) -> None:
        """Stop it, with `t` seconds until it is killed, and start it."""
        params = clean_map({"t": t})
        await self._call("POST", "restart", params=params, timeout=unless_given(timeout))

    async def kill(self, *, signal: str | None = None, timeout: Timeout = SENTINEL) -> None:
        """Send it a signal, by name or number; KILL when none is given.

        Raises:
            DockerConflict: it does not run.
        """
        params = clean_map({"signal": signal})
        await self._call("POST", "kill", params=params, timeout=unless_given(timeout))

    async def wait(self, *, timeout: Timeout = SENTINEL, **kwargs: Any) -> JSON:
        """`StatusCode`, and `Error` when the daemon has one, once it has ended.

        `condition` is `not-running` (at once for one that is not started), `next-exit` or `removed`.
        For one that is about to be started, `waiting` leaves no gap.
        """
        result: JSON = await self._call(
            "POST", "wait", params=kwargs, timeout=unless_given(timeout)
        )
        return result

    @asynccontextmanager
    async def waiting(
        self, *, condition: Literal["not-running", "next-exit", "removed"] = "next-exit"
    ) -> AsyncIterator[Exit]:
        """Wait from before the start: entered once the daemon is watching, the end told by `result`.

        ```python
        async with container.waiting() as exit:
            await container.start()
            status = (await exit.result())["StatusCode"]
        ```
        """
        opening = self._open("POST", "wait", params={"condition": condition}, timeout=None)
        async with await opening as response:
            yield Exit(response)

    async def delete(
        self,
        *,
        force: bool = False,
        v: bool = False,
        link: bool = False,
        timeout: Timeout = SENTINEL,
    ) -> None:
        """Remove it, and return once it is gone.

        Args:
            force: kill it first, if it runs.
            v: remove its anonymous volumes too.
            link: remove the link of this name, not the container.
            timeout: seconds the whole call may take.

        Raises:
            DockerNotFound: it is gone already.
            DockerConflict: it runs, or somebody else is removing it.
        """
        params = {key: True for key, on in (("force", force), ("v", v), ("link", link)) if on}
        path = f"containers/{self._id}"
        await self.docker._http.call("DELETE", path, params=params, timeout=unless_given(timeout))

    async def rename(self, newname: str) -> None:
        """Give it another name."""
        await self._call("POST", "rename", params={"name": newname})

    async def pause(self) -> None:
        """Freeze its processes."""
        await self._call("POST", "pause")

    async def unpause(self) -> None:
        """Let its processes go on."""
        await self._call("POST", "unpause")

    async def resize(self, *, h: int, w: int) -> None:
        """Tell its terminal a new size, in characters."""
        await self._call("POST", "resize", params={"h": h, "w": w})

    async def top(self, *, ps_args: str | None = None) -> JSON:
        """Its processes: `Titles`, and `Processes` with as many columns, as the host's ps says."""
        answer: JSON = await self._call("GET", "top", params=clean_map({"ps_args": ps_args}))
        return answer

    async def port(self, private_port: int | str) -> list[PortInfo] | None:
        """Where a port of it (`80`, `"53/udp"`) is published; None when it is not."""
        if "NetworkSettings" not in self._container:
            await self.show()
        ports = self._container.get("NetworkSettings", {}).get("Ports")
        if ports is None:  # with the host's network
            return None
        port = str(private_port)
        names = [port] if "/" in port else [f"{port}/tcp", f"{port}/udp"]
        found: list[PortInfo] | None = next((ports[n] for n in names if ports.get(n)), None)
        return found

    # What it prints and reads

    @overload
    async def log(
        self,
        *,
        stdout: bool = False,
        stderr: bool = False,
        follow: Literal[False] = False,
        timeout: Timeout = SENTINEL,
        **kwargs: Any,
    ) -> list[str]: ...
    @overload
    def log(
        self,
        *,
        stdout: bool = False,
        stderr: bool = False,
        follow: Literal[True],
        timeout: Timeout = SENTINEL,
        **kwargs: Any,
    ) -> AsyncIterator[str]: ...
    def log(
        self,
        *,
        stdout: bool = False,
        stderr: bool = False,
        follow: bool = False,
        timeout: Timeout = SENTINEL,
        **kwargs: Any,
    ) -> Any:
        """What its log holds, as text: a list to await, or with `follow` an async iterator.

        A piece is what the container wrote at once, mostly a line. Bytes that are no UTF-8 are left
        out; `output` gives them as they are. `aclose` ends the iterator early.

        Args:
            stdout: with standard output. At least one of the two is needed.
            stderr: with standard error.
            follow: go on until the container ends.
            timeout: seconds the whole call may take.
            kwargs: `since`, `until` (seconds since 1970), `timestamps`, `tail` (lines, or `"all"`).
        """
        if not stdout and not stderr:
            raise TypeError("Need one of stdout or stderr")
        params = {"stdout": stdout, "stderr": stderr, "follow": follow, **kwargs}
        texts = _Texts(self._log_output(params, timeout))
        return texts if follow else texts.all()

    def output(
        self,
        *,
        logs: bool = True,
        follow: bool = True,
        stdout: bool = True,
        stderr: bool = True,
        since: float | None = None,
        until: float | None = None,
        timestamps: bool = False,
        tail: int | Literal["all"] = "all",
    ) -> Output:
        """What it prints, as messages of a stream's number and bytes.

        Args:
            logs: True reads its log: all that was printed since the container was made. False reads
                from the container itself, and needs no log: what is printed from the moment that the
                `Output` is entered, be it before the start, until the end; reading slowly slows the
                container.
            follow: go on until the container ends. The log of one that does not run is not followed,
                not even if it is about to start: for that one there is `logs=False`. Docker 20.10
                mostly leaves a last line without a line end out of what it follows; the log itself has
                it, and so has a second reading, without `follow`, after the end.
            stdout: with standard output.
            stderr: with standard error.
            since: seconds since 1970; of logs only, as are the other three.
            until: seconds since 1970.
            timestamps: begin every line with its time.
            tail: how many lines to begin with.
        """
        if logs:
            params = {
                "stdout": stdout,
                "stderr": stderr,
                "follow": follow,
                "timestamps": timestamps,
            }
            extra = clean_map({"since": since, "until": until})
            return self._log_output(params | extra | {"tail": str(tail)}, SENTINEL)
        if not follow or timestamps or tail != "all" or since is not None or until is not None:
            raise ValueError(
                "only logs can be read without following, cut or stamped: use logs=True"
            )

        async def connect() -> tuple[Source, bool]:
            return await self._attach(stdout=stdout, stderr=stderr)

        return Output(self.docker, connect)

    def attach(
        self,
        *,
        stdout: bool = False,
        stderr: bool = False,
        stdin: bool = False,
        detach_keys: str | None = None,
        logs: bool = False,
        timeout: Timeout = SENTINEL,
    ) -> Stream:
        """A connection to its output and standard input, made when it is entered or first used.

        It may be made before the container is started. `timeout` is of making it.

        Args:
            stdout: with standard output.
            stderr: with standard error.
            stdin: with standard input, which must have been opened at creation.
            detach_keys: what a person at its terminal types to let go of it.
            logs: begin with what was printed before.
            timeout: seconds that connecting may take.
        """

        async def connect() -> tuple[Duplex, bool]:
            return await self._attach(
                stdout=stdout,
                stderr=stderr,
                stdin=stdin,
                logs=logs,
                detach_keys=detach_keys,
                timeout=timeout,
            )

        return Stream(self.docker, connect)

    async def _attach(
        self,
        *,
        stdout: bool,
        stderr: bool,
        stdin: bool = False,
        logs: bool = False,
        detach_keys: str | None = None,
        timeout: Timeout = SENTINEL,
    ) -> tuple[Duplex, bool]:
        params = {
            "stream": True,
            "stdout": stdout,
            "stderr": stderr,
            "stdin": stdin,
            "logs": logs,
            "detachKeys": detach_keys or "",
        }
        tty = await self._has_tty()
        path = f"containers/{self._id}/attach"
        hijacked = await self.docker._http.hijack(
            path, params=params, timeout=unless_given(timeout)
        )
        return hijacked, tty

    def _log_output(self, params: Mapping[str, Any], timeout: Timeout) -> Output:
        async def connect() -> tuple[Source, bool]:
            tty = await self._has_tty()
            return await self._open(
                "GET", "logs", params=params, timeout=unless_given(timeout)
            ), tty

        return Output(self.docker, connect)

    async def _has_tty(self) -> bool:
        """Whether its output is a terminal's and so is not framed; it was decided at creation."""
        if self._tty is None:
            config = self._container.get("Config") or (await self.show())["Config"]
            self._tty = bool(config["Tty"])
        return self._tty

    @overload
    def stats(
        self, *, stream: Literal[True] = True, timeout: Timeout = SENTINEL
    ) -> AsyncIterator[JSON]: ...
    @overload
    async def stats(self, *, stream: Literal[False], timeout: Timeout = SENTINEL) -> list[JSON]: ...
    def stats(self, *, stream: bool = True, timeout: Timeout = SENTINEL) -> Any:
        """Its use of processors, memory, network and disks: one a second, or a list of one to await."""
        from vaka.docker._response import Objects  # noqa: PLC0415 - HTTP is loaded with the client

        async def connect() -> Response:
            params = {"stream": stream}
            return await self._open("GET", "stats", params=params, timeout=unless_given(timeout))

        items = Objects(connect, raise_errors=False)
        return items if stream else items.all()

    async def exec(
        self,
        cmd: str | Sequence[str],
        stdout: bool = True,
        stderr: bool = True,
        stdin: bool = False,
        tty: bool = False,
        privileged: bool = False,
        user: str = "",
        environment: Mapping[str, str] | Sequence[str] | None = None,
        workdir: str | None = None,
        detach_keys: str | None = None,
    ) -> Exec:
        """Another command to run in it, not started yet.

        Args:
            cmd: words, or a text that is split as a shell would.
            stdout: whether its `start` connects standard output.
            stderr: whether it connects standard error.
            stdin: whether it connects standard input.
            tty: give it a terminal.
            privileged: give it every capability.
            user: `uid:gid` or a name; empty for the container's own.
            environment: what to add to the container's own, as a mapping or as `NAME=value`.
            workdir: empty for the container's own.
            detach_keys: what a person at its terminal types to let go of it.
        """
        if isinstance(environment, Mapping):
            environment = [f"{name}={value}" for name, value in environment.items()]
        config = {
            "Cmd": shlex.split(cmd) if isinstance(cmd, str) else list(cmd),
            "AttachStdout": stdout,
            "AttachStderr": stderr,
            "AttachStdin": stdin,
            "Tty": tty,
            "Privileged": privileged,
            "User": user or "",
            "Env": None if environment is None else list(environment),
            "WorkingDir": workdir or "",
            "DetachKeys": detach_keys or "",
        }
        made = await self._call("POST", "exec", json=config)
        return Exec(self.docker, made["Id"], tty=tty)

    # Its files

    async def get_archive(self, path: str) -> tarfile.TarFile:
        """A file or folder of it as an open tar archive, in memory: for small ones."""
        import io  # noqa: PLC0415 - see `get_archive_stream`: most clients never open an archive
        import tarfile  # noqa: PLC0415

        async with self.get_archive_stream(path) as archive:
            return tarfile.open(mode="r", fileobj=io.BytesIO(await archive.content.read()))

    @asynccontextmanager
    async def get_archive_stream(self, path: str) -> AsyncIterator[Archive]:
        """A file or folder of it as a tar archive that is read as it comes.

        Raises:
            DockerNotFound: the path, or the container, does not exist.
            DockerStreamTruncated: while reading, when the archive is not whole.
        """
        async with await self._open(
            "GET", "archive", params={"path": path}, timeout=None
        ) as content:
            stat = base64.b64decode(content.headers.get("x-docker-container-path-stat", "e30="))
            yield Archive(stat=json.loads(stat), content=content)

    async def put_archive(self, path: str, data: Body) -> str:
        """Unpack a tar archive into its folder `path`; an empty text when it is done.

        `data` may be bytes, an open file or an async iterable of bytes, compressed or not; the last two
        are sent as they are read, and stay the caller's to close.
        """
        headers = {"Content-Type": "application/x-tar"}
        params = {"path": path}
        return str(await self._call("PUT", "archive", params=params, body=data, headers=headers))

    async def commit(
        self,
        *,
        repository: str | None = None,
        tag: str | None = None,
        message: str | None = None,
        author: str | None = None,
        changes: str | Sequence[str] | None = None,
        config: dict[str, Any] | None = None,
        pause: bool = True,
        timeout: Timeout = SENTINEL,
    ) -> JSON:
        """An image of the container as it is; `Id` names it.

        Args:
            repository: the image's name; None for none.
            tag: the image's tag.
            message: a comment that is kept with the image.
            author: who made it.
            changes: Dockerfile instructions to apply.
            config: the container configuration that the image carries.
            pause: freeze the container meanwhile.
            timeout: seconds the whole call may take.
        """
        if changes is not None and not isinstance(changes, str):
            changes = "\n".join(changes)
        params = {
            "container": self._id,
            "pause": pause,
            "repo": repository,
            "tag": tag,
            "comment": message,
            "author": author,
            "changes": changes,
        }
        answer: JSON = await self.docker._http.call(
            "POST", "commit", params=clean_map(params), json=config, timeout=unless_given(timeout)
        )
        return answer

    async def _call(self, method: str, verb: str, **kwargs: Any) -> Any:
        return await self.docker._http.call(method, f"containers/{self._id}/{verb}", **kwargs)

    async def _open(self, method: str, verb: str, **kwargs: Any) -> Response:
        return await self.docker._http.open(method, f"containers/{self._id}/{verb}", **kwargs)

    def __getitem__(self, key: str) -> Any:
        return self._container[key]

    def __contains__(self, key: str) -> bool:
        return key in self._container


class _Texts:
    """The messages of an output as text, each stream's bytes decoded by themselves."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._decoders: dict[int, codecs.IncrementalDecoder] = {}

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> str:
        while True:
            stream, data = await anext(self._output)
            if stream not in self._decoders:
                self._decoders[stream] = codecs.getincrementaldecoder("utf-8")(errors="ignore")
            if text := self._decoders[stream].decode(data):
                return text

    async def aclose(self) -> None:
        await self._output.aclose()

    async def all(self) -> list[str]:
        async with self._output:
            return [text async for text in self]
