"""`make hostile`: the long form of the tests of this folder, with figures.

`images` runs every hostile image, larger than the tests have it, against one server, which is asked all
the while whether it is ready. `traced` runs those that lead elsewhere against a server below `strace`,
and looks at each file that it opened. `requests` sends every hostile request. `fuzz` feeds every parser
by atheris. Without a part all of them run.
"""

from __future__ import annotations

import argparse
import json
import re
import secrets
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from tests.acceptance.conftest import Server
from tests.acceptance.images import Images
from tests.bench.daemon import BASE_IMAGE
from tests.hostile import requests
from tests.hostile.images import LINKS, LONG, RACES, SIZES_LONG, SPECIAL, Case
from tests.hostile.parsers import PARSERS
from tests.hostile.site import Ending, Site, Watch, watching

ROOT = Path(__file__).resolve().parents[2]
DOCKER_HOST = "unix:///var/run/docker.sock"
DUCKDB = 256 << 20
"""Bytes that DuckDB may take, so that what else grows is seen; else a quarter of the machine."""
SLOWEST = 0.2
"""Seconds that 99 of 100 answers of `/readyz` may take: a figure of the machine, and so of no test."""
SYSTEM = ("/proc", "/dev", "/sys", "/etc", "/usr", "/lib", "/lib64", "/bin", "/run", "/var", "/tmp")
CALLS = "open,openat,openat2,creat,rename,renameat,renameat2,link,linkat,unlink,unlinkat,truncate"


class TracedServer(Server):
    """A server below `strace`, which writes down what it opens."""

    @property
    def trace(self) -> Path:
        return self.home.parent / "trace"

    def start(self) -> None:
        if not self.token:
            super().start()
            self.kill()
        plain = self.command
        watched = ("-D", "-f", "-qq", "-y", "-e", f"trace={CALLS}", "-o", str(self.trace))
        self.command = ("strace", *watched, *plain)  # type: ignore[assignment]
        try:
            super().start()
        finally:
            self.command = plain


@contextmanager
def site(kind: type[Server], pybase: str) -> Iterator[Site]:
    """A server of this kind, with its canaries."""
    folder = Path(tempfile.mkdtemp(prefix="vaka-hostile-"))
    (folder / "home").mkdir()
    server = kind(folder / "home", f"test-{secrets.token_hex(4)}")
    storage = f"local://{folder}/home/storage?memory_bytes={DUCKDB}"
    server.settings["VAKA_STORAGE_URL"] = storage
    try:
        with (
            closing(Images(DOCKER_HOST, BASE_IMAGE)) as images,
            closing(Site(folder, images, pybase, server)) as opened,
        ):
            opened.open()
            yield opened
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def references() -> dict[str, str]:
    """The images that the hostile ones are made from."""
    command = [sys.executable, str(ROOT / ".ci/images.py"), "--json"]
    made = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, str] = json.loads(made.stdout)
    return found


def judged(case: Case, ending: Ending) -> list[str]:
    """What is wrong with how a case ended."""
    is_right = ending.how in case.ends and re.search(case.says, ending.message)
    if is_right and (case.prints is None or case.prints in ending.lines):
        return []
    return [f"{case.name}: {ending.how}: {ending.message[:300]}"]


def run_images(options: argparse.Namespace) -> list[str]:
    with site(Server, options.pybase) as opened:
        with opened.watch() as watch:
            flood = options.flood or SIZES_LONG["flood"]
            endings = opened.run(LONG, **SIZES_LONG | {"flood": flood})
        wrong = [each for case in LONG for each in judged(case, endings[case.name])]
        wrong += opened.disturbed() + watch.failures
        print(f"images: {len(endings)} cases, {_felt(watch)}, {len(wrong)} wrong")
        if watch.p99 > SLOWEST:
            wrong.append(f"/readyz took {watch.p99:.3f} s at the 99th percentile")
        return wrong


def run_traced(options: argparse.Namespace) -> list[str]:
    cases = (*LINKS, *SPECIAL, *RACES)
    with site(TracedServer, options.pybase) as opened:
        server = opened.server
        assert isinstance(server, TracedServer)
        endings = opened.run(cases)
        wrong = [each for case in cases for each in judged(case, endings[case.name])]
        wrong += opened.disturbed()
        trace = server.trace.read_text(errors="replace")
        found, strange = strangers(trace, opened)
        print(f"traced: {len(cases)} cases, {found} files opened, {len(strange)} of them strange")
        return [*wrong, *strange]


def strangers(trace: str, opened: Site) -> tuple[int, list[str]]:
    """How many openings a trace has, and those that are of nothing that a server has to open.

    With `-y` the trace says what a descriptor really leads to, whatever the name was.
    """
    own = (str(opened.server.home), str(ROOT), sys.prefix, sys.base_prefix)
    known = (*own, *SYSTEM, sysconfig.get_paths()["stdlib"], "/", "socket:", "pipe:", "anon_inode:")
    found, strange = 0, []
    for line in trace.splitlines():
        match = re.search(r"(?:openat2?|open|creat)\(.*= \d+<(.*)>$", line)
        if match is None:
            if str(opened.outside) in line.partition("= ")[0] and "= -1" not in line:
                strange.append(line[:300])
            continue
        found += 1
        target = match[1].removesuffix(" (deleted)")
        is_known = any(
            target == each or target.startswith(f"{each}/") for each in known if each != "/"
        )
        if str(opened.outside) in target or not (is_known or target == "/"):
            strange.append(line[:300])
    return found, strange


def run_requests(options: argparse.Namespace) -> list[str]:
    wrong: list[str] = []
    with site(Server, options.pybase) as opened:
        server = opened.server
        described = requests.operations(server.get("/openapi.json").json())
        with (
            watching(server) as watch,
            closing(requests.Client.of(server)) as client,
        ):
            for kind in ("paths", "queries", "bodies", "members"):
                asked = getattr(requests, f"in_{kind}")(described)
                wrong += [each for each in (client.wrong(*one) for one in asked) if each]
            for name, data in requests.RAW.items():
                if re.search(rb"^HTTP/1\.1 5..", client.raw(data), re.MULTILINE):
                    wrong.append(name)
        wrong += watch.failures
        if not client.is_known:
            wrong.append("a request has taken the client's token away: nothing after it counts")
        print(
            f"requests: {client.count} to {len(described)} routes, {_felt(watch)}, {len(wrong)} wrong"
        )
    return wrong


def run_fuzz(options: argparse.Namespace) -> list[str]:
    wrong, executions = [], 0
    for name in PARSERS:
        with tempfile.TemporaryDirectory(prefix="vaka-fuzz-") as folder:
            command = [
                sys.executable,
                "-m",
                "tests.hostile.fuzz",
                name,
                folder,
                str(options.seconds),
            ]
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        said = re.search(r"number_of_executed_units: (\d+)", done.stderr)
        count = int(said[1]) if said else 0
        executions += count
        print(f"  {name}: {count} executions", flush=True)
        if done.returncode != 0 or not count:
            wrong.append(f"{name}: {done.stderr[-2_000:]}")
    print(f"fuzz: {executions} executions of {len(PARSERS)} parsers, {len(wrong)} wrong")
    return wrong


def _felt(watch: Watch) -> str:
    grown = watch.growth >> 20
    busy = f" ({watch.busy} without the daemon)" if watch.busy else ""
    load = Path("/proc/loadavg").read_text().split()[1]
    return (
        f"/readyz p99 {watch.p99 * 1_000:.0f} ms of {len(watch.seconds)}{busy}, memory +{grown} MiB, "
        f"load {load}"
    )


PARTS: dict[str, Callable[[argparse.Namespace], list[str]]] = {
    "images": run_images,
    "traced": run_traced,
    "requests": run_requests,
    "fuzz": run_fuzz,
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="make hostile", description=__doc__)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], metavar="part")
    parser.add_argument("--seconds", type=int, default=30, help="of fuzzing, for each parser")
    parser.add_argument("--flood", type=int, help="bytes that the image `flood` prints")
    options = parser.parse_args()
    options.pybase = references()["pybase"]
    wrong = [each for part in options.parts or PARTS for each in PARTS[part](options)]
    for each in wrong:
        print(f"WRONG: {each}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
