"""Make the images that tests and demo need, without an image registry.

    images.py            make what is missing; one line for each image made
    images.py --json     the same, then print {"busybox": "vaka/busybox:<hash>", ...}

Debian's own packages are unpacked (their scripts do not run) and imported as one layer; Python
packages are fetched by pip on this machine and committed on top, so nothing is fetched inside. A
tag is a hash of all that goes in, so an image that exists is right; beside it each image has a
plain tag (`vaka/demo-delays:1`) for people and configurations, moved whenever the hash moves.
"""

from __future__ import annotations

import fcntl
import functools
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.parse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from docker_api import DEFAULT_HOST, Docker, DockerRefused, DockerUnreachable

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / ".cache/images"
DEMO = ROOT / "docs/examples/demo"
VENV_PYTHON = ROOT / ".venv/bin/python"

PLAIN_TAG = "1"

STDLIB = "/usr/lib/python3.11"
SITE = "/usr/local/lib/python3.11/dist-packages"
"""Where pip's packages lie in an image: Debian's Python looks there by itself."""


def _words(text: str) -> list[str]:
    return text.split()


PYTHON_PACKAGES = _words("""
    base-files busybox-static ca-certificates libc6 libgcc-s1 zlib1g libssl3 libffi8 libsqlite3-0
    libbz2-1.0 liblzma5 libexpat1 libuuid1 libcrypt1 libtinfo6 libncursesw6 libreadline8 libdb5.3
    libnsl2 libtirpc3 libgssapi-krb5-2 libkrb5-3 libk5crypto3 libkrb5support0 libcom-err2
    libkeyutils1 media-types tzdata python3.11 python3.11-minimal libpython3.11-minimal
    libpython3.11-stdlib
""")

APPLETS = _words("""
    [ ash awk base64 basename cat chgrp chmod chown cmp cp cut date dd df dirname du echo env expr
    false find free grep gunzip gzip head hostname httpd id ip kill killall ln ls md5sum mkdir
    mkfifo mknod mktemp more mount mv nc nproc nslookup od pgrep ping printf ps pwd readlink
    realpath rm rmdir sed seq setsid sh sha256sum sleep sort split stat stty sync tail tar tee test
    time timeout top touch tr true truncate umount uname uniq unlink uptime usleep vi watch wc wget
    which whoami xargs yes zcat
""")

LEFT_OUT = ("usr/share/doc/", "usr/share/man/", "usr/share/locale/", "usr/share/lintian/")

USERS = "root:x:0:0::/root:/bin/sh\nuser:x:1000:1000::/tmp:/bin/sh\n"
GROUPS = "root:x:0:\nuser:x:1000:\n"
ENVIRONMENT = "PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin PYTHONUNBUFFERED=1"


class NotMade(Exception):
    """An image cannot be made; the text says why and what to do."""


class PackagesOutdated(NotMade):
    """apt's lists do not lead to the packages: renewing the lists may help."""


@dataclass(frozen=True)
class Image:
    """One image: what goes in, and what makes it of that."""

    name: str
    inputs: tuple[str, ...]
    make: Callable[[Docker, str], None]

    @property
    def reference(self) -> str:
        """The reference that no other content ever gets."""
        recipe = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()
        content = json.dumps([self.name, architecture(), recipe, *self.inputs])
        return f"vaka/{self.name}:{hashlib.sha256(content.encode()).hexdigest()[:16]}"


def wanted_images() -> list[Image]:
    """All images, each after the one it stands on."""
    busybox = Image("busybox", versions(["busybox-static"]), make_busybox)
    pybase = Image("pybase", versions(PYTHON_PACKAGES), make_pybase)
    requirements = DEMO / "requirements.txt"
    programs = []
    for main_program in sorted((DEMO / "images").glob("*/main.py")):
        folder = main_program.parent
        parts = [requirements, *sorted(folder.glob("*.py"))]
        programs.append(
            Image(
                f"demo-{folder.name.replace('_', '-')}",
                (pybase.reference, *(part.read_text() for part in parts)),
                functools.partial(make_program, base=pybase.reference, folder=folder),
            )
        )
    return [busybox, pybase, *programs]


def main(arguments: list[str]) -> int:
    if arguments not in ([], ["--json"]):
        print(__doc__, file=sys.stderr)
        return 2
    try:
        docker = Docker()
        docker.ping()
    except DockerUnreachable as reason:
        address = os.environ.get("DOCKER_HOST") or DEFAULT_HOST
        print(
            f"[images] no Docker Engine answers at {address} ({reason}). Try: make docker",
            file=sys.stderr,
        )
        return 1
    try:
        made = ensure(docker)
    except (NotMade, DockerRefused, DockerUnreachable) as reason:
        print(f"[images] {reason}", file=sys.stderr)
        return 1
    if arguments:
        print(json.dumps(made))
    return 0


def ensure(docker: Docker) -> dict[str, str]:
    """Make what is missing; the reference of every image, by name."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # several test runs at a time: one makes, the others wait
        try:
            return make_missing(docker)
        except PackagesOutdated:
            if os.geteuid() != 0:
                raise
        candidates.cache_clear()
        apt("update", folder=CACHE)
        return make_missing(docker)


def make_missing(docker: Docker) -> dict[str, str]:
    wanted = wanted_images()
    for image in wanted:
        if not docker.exists(f"/images/{image.reference}/json"):
            started = time.monotonic()
            image.make(docker, image.reference)
            seconds = time.monotonic() - started
            print(f"[images] {image.reference} in {seconds:.1f} s", file=sys.stderr)
        query = urllib.parse.urlencode({"repo": f"vaka/{image.name}", "tag": PLAIN_TAG})
        docker.post(f"/images/{image.reference}/tag?{query}")
    return {image.name: image.reference for image in wanted}


# Layers from Debian's packages


def make_busybox(docker: Docker, reference: str) -> None:
    with layer(reference, ["busybox-static"]) as file:
        import_layer(docker, file, reference, ['CMD ["sh"]'])


def make_pybase(docker: Docker, reference: str) -> None:
    bare = f"{reference}-bare"
    with layer(reference, PYTHON_PACKAGES) as file:
        import_layer(docker, file, bare, [])
    # Debian's packages byte-compile on installation, which has not happened: without this each
    # container would compile what it imports, again and again.
    commit(docker, reference, base=bare, tar=None, compiled=[STDLIB], changes=['CMD ["python3"]'])
    docker.delete(f"/images/{bare}?noprune=true")


@contextmanager
def layer(reference: str, packages: list[str]) -> Iterator[Path]:
    """An archive of the root folder: the contents of `packages` and what makes them usable."""
    name, _, tag = reference.removeprefix("vaka/").partition(":")
    kept = CACHE / f"{name}-{tag.removesuffix('-bare')}.tar"
    if not kept.exists():  # kept for the next daemon
        for outdated in CACHE.glob(f"{name}-*.tar"):
            outdated.unlink()
        with tempfile.TemporaryDirectory(dir=CACHE) as folder:
            download(packages, Path(folder))
            write_root(sorted(Path(folder).glob("*.deb")), Path(folder) / "root.tar")
            (Path(folder) / "root.tar").rename(kept)
    yield kept


def download(packages: list[str], folder: Path) -> None:
    pinned = [f"{package}={candidates()[package]}" for package in packages]
    apt("download", *pinned, folder=folder)


def write_root(debs: list[Path], target: Path) -> None:
    seen: set[str] = set()
    certificates: list[bytes] = []
    with tarfile.open(target, "w") as root:
        for deb in debs:
            command = ["dpkg-deb", "--fsys-tarfile", str(deb)]
            with (
                subprocess.Popen(command, stdout=subprocess.PIPE) as unpacked,
                tarfile.open(fileobj=unpacked.stdout, mode="r|") as content,
            ):
                for member in content:
                    name = member.name.removeprefix("./")
                    if name == "." or f"{name}/".startswith(LEFT_OUT) or name in seen:
                        continue
                    seen.add(name)
                    member.uid = member.gid = 0
                    member.uname = member.gname = ""
                    data = content.extractfile(member) if member.isfile() else None
                    if data and name.startswith("usr/share/ca-certificates/mozilla/"):
                        certificates.append(data.read())
                        data = io.BytesIO(certificates[-1])
                    root.addfile(member, data)
            if unpacked.returncode != 0:
                raise NotMade(f"{' '.join(command)} ended with {unpacked.returncode}")
        folders = ["bin", "code", "data", "dev", "etc", "home", "proc", "root", "run", "sys", "tmp"]
        for name in folders:
            if name not in seen:
                mode = 0o1777 if name == "tmp" else 0o755
                add(root, name, kind=tarfile.DIRTYPE, mode=mode)
        for applet in APPLETS:
            if not seen & {f"bin/{applet}", f"usr/bin/{applet}"}:
                add(root, f"bin/{applet}", link="busybox")
        add(root, "etc/passwd", USERS.encode())
        add(root, "etc/group", GROUPS.encode())
        if "usr/bin/python3.11" in seen:
            add(root, "usr/bin/python3", link="python3.11")
            add(root, "usr/bin/python", link="python3.11")
            add(root, "etc/ssl/certs/ca-certificates.crt", b"".join(certificates))
            add(root, "usr/lib/ssl/cert.pem", link="/etc/ssl/certs/ca-certificates.crt")


def add(
    archive: tarfile.TarFile,
    name: str,
    content: bytes = b"",
    *,
    kind: bytes = tarfile.REGTYPE,
    mode: int = 0o755,
    link: str = "",
) -> None:
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = (tarfile.SYMTYPE, link) if link else (kind, "")
    entry.mode = 0o644 if entry.isfile() else mode
    entry.size = len(content)
    archive.addfile(entry, io.BytesIO(content))


def import_layer(docker: Docker, tar: Path, reference: str, changes: list[str]) -> None:
    repository, _, tag = reference.rpartition(":")
    settings = [f"ENV {ENVIRONMENT}", *changes]
    query = [("repo", repository), ("tag", tag), *(("changes", change) for change in settings)]
    docker.import_tar(tar, query)


# apt and dpkg


@functools.cache
def architecture() -> str:
    return run(["dpkg", "--print-architecture"]).strip()


@functools.cache
def candidates() -> dict[str, str]:
    """The version of each package that apt would fetch."""
    found: dict[str, str] = {}
    package = ""
    for line in run(["apt-cache", "policy", "--", *PYTHON_PACKAGES]).splitlines():
        if not line.startswith(" "):
            package = line.rstrip(":")
        elif line.startswith("  Candidate: ") and not line.endswith("(none)"):
            found[package] = line.removeprefix("  Candidate: ")
    return found


def versions(packages: list[str]) -> tuple[str, ...]:
    if missing := [package for package in packages if package not in candidates()]:
        raise PackagesOutdated(
            f"apt knows no package {', '.join(missing)}. The images are made of the packages of "
            "Debian 12: on one, run apt-get update as root"
        )
    return tuple(f"{package}={candidates()[package]}" for package in packages)


def apt(*arguments: str, folder: Path) -> None:
    options = ["-q", "-o", "Acquire::Retries=3", "-o", "DPkg::Lock::Timeout=300"]
    if os.geteuid() == 0:
        options += ["-o", "APT::Sandbox::User=root"]  # _apt may not write to our folders
    done = subprocess.run(
        ["apt-get", *options, *arguments],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
        check=False,
    )
    # A foreign source that cannot be renewed does not matter; a package that is not fetched does.
    if done.returncode != 0 and arguments[0] == "download":
        raise PackagesOutdated(f"apt-get download failed:\n{done.stdout[-2000:]}")


def run(command: list[str]) -> str:
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
    except FileNotFoundError:
        raise NotMade(
            f"there is no {command[0]}: the images are made of Debian 12's packages, on Debian 12"
        ) from None
    except subprocess.CalledProcessError as error:
        raise NotMade(f"{' '.join(command[:2])} failed: {error.stderr.strip()}") from error
    return done.stdout


# Layers of Python programs


def make_program(docker: Docker, reference: str, *, base: str, folder: Path) -> None:
    with tempfile.TemporaryDirectory(dir=CACHE) as work:
        tar = Path(work) / "layer.tar"
        with tarfile.open(tar, "w") as archive:
            add_tree(archive, site_packages(), SITE)
            for part in sorted(folder.glob("*.py")):
                add(archive, f"code/{part.name}", part.read_bytes())
        changes = ["WORKDIR /code", 'CMD ["python3", "-u", "/code/main.py"]']
        commit(docker, reference, base=base, tar=tar, compiled=[SITE], changes=changes)


def site_packages() -> Path:
    """The packages of the demo's requirements, fetched for the images' Python, not for ours."""
    requirements = DEMO / "requirements.txt"
    key = hashlib.sha256(requirements.read_bytes() + architecture().encode()).hexdigest()[:16]
    kept = CACHE / f"site-{key}"
    if not kept.exists():
        for outdated in CACHE.glob("site-*"):
            shutil.rmtree(outdated)
        if not VENV_PYTHON.exists():
            raise NotMade("there is no .venv whose pip could fetch packages. Try: make venv")
        with tempfile.TemporaryDirectory(dir=CACHE) as work:
            fetch = [
                *(str(VENV_PYTHON), "-m", "pip", "install", "-q", "--no-input", "--no-compile"),
                *("--disable-pip-version-check", "--root-user-action=ignore", "--no-deps"),
                *("--python-version", "3.11", "--only-binary", ":all:", "--require-hashes"),
                *("-r", str(requirements), "--target", f"{work}/site"),
            ]
            done = subprocess.run(
                fetch,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=600,
                check=False,
            )
            if done.returncode != 0:
                raise NotMade(f"pip could not fetch {requirements}:\n{done.stdout[-2000:]}")
            Path(work, "site").rename(kept)
    return kept


def add_tree(archive: tarfile.TarFile, folder: Path, target: str) -> None:
    for path in sorted(folder.rglob("*")):
        name = f"{target.lstrip('/')}/{path.relative_to(folder)}"
        if path.is_dir():
            add(archive, name, kind=tarfile.DIRTYPE)
        elif path.is_file():
            add(archive, name, path.read_bytes())


def commit(
    docker: Docker,
    reference: str,
    *,
    base: str,
    tar: Path | None,
    compiled: list[str],
    changes: list[str],
) -> None:
    """Make `reference` of `base`, the archive `tar` unpacked at `/`, and byte-code beside sources.

    The container that is committed has no network and ends by itself; no builder is involved, and
    every daemon can do this.
    """
    repository, _, tag = reference.rpartition(":")
    compile_all = ["python3", "-m", "compileall", "-q", *compiled]
    container = docker.post(
        "/containers/create",
        {
            "Image": base,
            "Cmd": compile_all,
            "HostConfig": {"NetworkMode": "none"},
        },
    )["Id"]
    try:
        if tar is not None:
            docker.put_tar(f"/containers/{container}/archive?path=/", tar)
        docker.post(f"/containers/{container}/start")
        code = docker.post(f"/containers/{container}/wait", timeout=300)["StatusCode"]
        if code != 0:
            raise NotMade(f"{reference}: {' '.join(compile_all)} ended with exit code {code}")
        query = [("container", container), ("repo", repository), ("tag", tag)]
        query += [("changes", change) for change in changes]
        docker.post(f"/commit?{urllib.parse.urlencode(query)}", {}, timeout=120)
    finally:
        docker.delete(f"/containers/{container}?force=true&v=true")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
