"""A server of its own under attack: canaries around it, and a watch on how it feels."""

from __future__ import annotations

import json
import os
import re
import secrets
import statistics
import threading
import time
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from tests.acceptance.conftest import PATIENCE, Server
from tests.acceptance.images import Images, Program
from tests.hostile.images import Case

NEIGHBOUR = """
echo {canary} > /data/out/files/secret; echo ready
while [ ! -e /tmp/wake ]; do sleep 0.2; done
"""
WAIT = 7_200.0
"""Seconds in which a job ends, at the latest."""


@dataclass
class Watch:
    """How long `/readyz` took, and how much memory the server had."""

    seconds: list[float] = field(default_factory=list)
    rss: list[int] = field(default_factory=list)
    """Bytes."""
    failures: list[str] = field(default_factory=list)
    busy: int = 0
    """How often the answer was that the daemon has none: a figure of the machine."""

    @property
    def p99(self) -> float:
        return statistics.quantiles(self.seconds, n=100)[98] if len(self.seconds) > 1 else 0.0

    @property
    def growth(self) -> int:
        """Bytes by which memory was larger than at the beginning."""
        return max(self.rss) - self.rss[0]


@dataclass
class Ending:
    """What became of a job."""

    resource: dict[str, Any]
    events: list[dict[str, Any]]
    """Empty when nobody wants to know what it printed."""

    @property
    def how(self) -> str:
        """`success`, `terminated`, or the kind of the error."""
        return str(self.resource["error"] or self.resource["status"])

    @property
    def message(self) -> str:
        return str((self.resource.get("result") or {}).get("message"))

    @property
    def lines(self) -> list[str]:
        return [event["message"] for event in self.events if event["kind"] == "log"]


class Site:
    """A server whose components are hostile."""

    def __init__(self, folder: Path, images: Images, pybase: str, server: Server) -> None:
        self.images = images
        self.server = server
        self._pybase = pybase
        self.folder = folder
        self.canary = f"canary-{secrets.token_hex(8)}"
        self.outside = folder / "outside"
        self.outside.mkdir()
        self.outside.chmod(0o777)
        for name in ("secret", "d", "tables"):
            path = self.outside / name
            path.write_text(self.canary)
            path.chmod(0o666)
        server.settings |= {"HOSTILE_CANARY": self.canary, "VAKA_STOP_GRACE": "1"}
        self.neighbour = 0

    @property
    def places(self) -> dict[str, str]:
        """What the names in programs stand for."""
        return {
            "{outside}": str(self.outside),
            "{home}": str(self.server.home),
            "{neighbour}": str(self.server.home / "jobs" / str(self.neighbour)),
        }

    def open(self) -> None:
        """Start the server, and the job that others should not reach."""
        self.server.start()
        program = self._program(NEIGHBOUR, is_python=False, canary=self.canary)
        (image,) = self.images.make([program])
        self._put({"id": "hostile.neighbour"}, image)
        self.neighbour = self._submit("hostile.neighbour", {"configData": {}}, "run")
        self.server.wait_for_line(str(self.neighbour), "ready")
        self._before = _seen(self.outside)

    def close(self) -> None:
        with suppress(OSError):
            (self.server.home / "jobs" / str(self.neighbour) / "tmp" / "wake").touch()
        self.server.close()
        self.images.remove_all(self.server.instance)

    # -- jobs ------------------------------------------------------------------------------------

    def _programs(self, case: Case, **values: str | int) -> dict[str, Program]:
        """What the images of a case are made of, by component."""
        found = {case.component: self._program(case.program, is_python=case.is_python, **values)}
        if case.after is not None:
            found[f"{case.component}-p"] = self._program(case.after, is_python=False, **values)
        return found

    def _program(self, program: str, *, is_python: bool, **values: str | int) -> Program:
        for name, value in {**self.places, **{f"{{{k}}}": v for k, v in values.items()}}.items():
            program = program.replace(name, str(value))
        if is_python:
            return self._pybase, ("python3", "-c", program)
        return self.images.shell(program)

    def _put(self, given: dict[str, Any], image: str) -> None:
        """Register a component."""
        uri, _, tag = image.partition(":")
        kind = "processor" if given["id"].endswith("-p") else "application"
        definition = {"type": "dockerhub", "uri": uri, "tag": tag}
        data = {"definition": definition, "network": "none", **given.pop("data", {})}
        document = {"type": kind, "name": given["id"], **given, "data": data}
        answer = self.server.http.put(
            f"{self.server.url}/v2/storage/components/{given['id']}",
            json=document,
            headers={"X-StorageApi-Token": self.server.token},
        )
        assert answer.is_success, answer.text

    def _submit(self, component: str, body: dict[str, Any], mode: str) -> int:
        answer = self.server.post(f"/docker/{component}/{mode}", body)
        assert answer.status_code == 202, answer.text
        return int(answer.json()["id"])

    def run(self, cases: Sequence[Case], **values: str | int) -> dict[str, Ending]:
        """Run the jobs of these cases, all together; how each ended."""
        jobs: dict[str, int] = {}
        programs: dict[str, Program] = {}
        for case in cases:
            programs |= self._programs(case, **values)
        images = dict(zip(programs, self.images.make([*programs.values()]), strict=True))
        with self._racing() as raced:
            for case in cases:
                more = {"data": dict(case.data), "features": list(case.features)}
                self._put({"id": case.component, **more}, images[case.component])
                if case.after is not None:
                    self._put({"id": f"{case.component}-p"}, images[f"{case.component}-p"])
                body: dict[str, Any] = {"configData": case.configuration}
                if case.data.get("default_bucket"):
                    configs = f"/v2/storage/components/{case.component}/configs"
                    made = self.server.post(configs, {"name": "C", "configurationId": "c"})
                    assert made.is_success, made.text
                    body = {"config": "c"}
                jobs[case.name] = self._submit(case.component, body, case.mode)
                if case.is_raced:
                    raced.append(jobs[case.name])
                if case.is_cancelled:
                    self.server.wait_for_line(str(jobs[case.name]), "ready")
                    self.server.post(f"/queue/job/{jobs[case.name]}/kill")
            return {
                case.name: self._ended(jobs[case.name], is_read=case.prints is not None)
                for case in cases
            }

    def _ended(self, job: int, *, is_read: bool) -> Ending:
        """What became of a job, and what it printed when that `is_read`: floods take long to read."""
        deadline = time.monotonic() + WAIT
        while not (resource := self.server.get(f"/queue/job/{job}").json())["isFinished"]:
            assert time.monotonic() < deadline, f"job {job} does not end: {resource}"
            time.sleep(0.1)
        if not is_read:
            return Ending(resource, [])
        events = self.server.get(f"/queue/jobs/{job}/events")
        return Ending(resource, [json.loads(line) for line in events.text.split("\n") if line])

    @contextmanager
    def _racing(self) -> Iterator[list[int]]:
        """Within it, somebody swaps things in the folders of the jobs in the list."""
        raced: list[int] = []
        done = threading.Event()

        def swap() -> None:
            while not done.is_set():
                for job in raced:
                    self._swap(self.server.home / "jobs" / str(job) / "data")
                done.wait(0.001)

        thread = threading.Thread(target=swap)
        thread.start()
        try:
            yield raced
        finally:
            done.set()
            thread.join()

    def _swap(self, data: Path) -> None:
        """Put a link where a file or folder is, and the file or folder back, as fast as it goes."""
        spare = data.parent / "tmp" / f"spare-{secrets.token_hex(4)}"
        for name in ("out/files/1", "out/files/d1", "out/tables", "out/state.json", "in", "out"):
            place = data / name
            with suppress(OSError):
                place.rename(spare)
                target = self.outside if spare.is_dir() else self.outside / "secret"
                with suppress(OSError):
                    place.symlink_to(target)
                with suppress(OSError):
                    place.unlink()
                spare.rename(place)

    # -- what is to be seen afterwards -----------------------------------------------------------

    def disturbed(self) -> list[str]:
        """What of the canaries was read, changed or removed; nothing is how it has to be."""
        found = [] if _seen(self.outside) == self._before else [f"{self.outside} was changed"]
        own = self.server.home / "jobs" / str(self.neighbour)
        secret = own / "data/out/files/secret"
        if not secret.is_file() or self.canary not in secret.read_text():
            found.append("the neighbour's file was changed")
        for path in _files(self.server.home):
            if own in path.parents:
                continue
            found += [f"{path} holds the canary" for text in _contents(path) if self._told in text]
        return found

    @property
    def _told(self) -> bytes:
        return self.canary.encode()

    def rss(self) -> int:
        """Bytes of memory that the server's process has."""
        return rss(self.server.pid)

    @contextmanager
    def watch(self) -> Iterator[Watch]:
        """Ask `/readyz` all the while."""
        with watching(self.server) as watch:
            yield watch


@contextmanager
def watching(server: Server) -> Iterator[Watch]:
    """Within it, a server is asked whether it is ready, all the while."""
    watch = Watch(rss=[rss(server.pid)])
    done = threading.Event()

    def ask() -> None:
        with httpx.Client(timeout=PATIENCE) as client:
            while not done.is_set():
                begun = time.perf_counter()
                try:
                    answer = client.get(f"{server.url}/readyz")
                except httpx.HTTPError as error:
                    watch.failures.append(repr(error))
                else:
                    watch.seconds.append(time.perf_counter() - begun)
                    if "no answer within" in answer.text:
                        watch.busy += 1
                    elif answer.status_code != 200:
                        watch.failures.append(answer.text)
                with suppress(OSError):
                    watch.rss.append(rss(server.pid))
                done.wait(0.05)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield watch
    finally:
        done.set()
        thread.join()


def rss(pid: int) -> int:
    """Bytes of memory that a process has."""
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1]) << 10


def _seen(folder: Path) -> dict[str, Any]:
    """All of a folder that a change would show in, but for the times of reading."""
    return {
        str(path): (status.st_mode, status.st_uid, status.st_gid, status.st_ino, status.st_mtime_ns)
        + ((path.read_bytes(),) if path.is_file() else ())
        for path in (folder, *sorted(folder.rglob("*")))
        for status in (path.lstat(),)
    }


def _files(folder: Path) -> Iterator[Path]:
    for where, _, names in os.walk(folder):
        yield from (Path(where) / name for name in names)


def _contents(path: Path) -> Iterable[bytes]:
    """What a file holds, and the members of a ZIP file too."""
    try:
        if not path.is_file() or path.is_symlink():
            return
        yield path.read_bytes()
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                yield from (archive.read(name) for name in archive.namelist())
    except (OSError, zipfile.BadZipFile):
        return
