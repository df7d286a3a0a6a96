"""The hostile images: what each does, and how its job has to end.

An image is busybox or Debian's Python with one program. `{outside}`, `{home}` and `{neighbour}` stand
for folders of the host that the program should never reach: one beside the home, the server's own home,
and the folder of another job that is running.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

TABLE = "a.csv"


@dataclass(frozen=True)
class Case:
    """One hostile image."""

    name: str
    program: str
    """A shell script, or a Python program when `is_python`."""
    ends: tuple[str, ...] = ("user",)
    """How the job may end: `success`, `terminated`, `user` for its author's error, or `application`
    where the contract has it so: exit codes of 2 and above."""
    says: str = ""
    """A pattern that the message of the error holds."""
    prints: str | None = None
    """A line that the job's log has to hold."""
    is_python: bool = False
    stores_table: bool = False
    """Whether `a.csv` is to become a table."""
    is_raced: bool = False
    """Whether somebody swaps files and links in the job's folder all the while."""
    is_cancelled: bool = False
    """Whether it is cancelled once it has printed `ready`."""
    mode: Literal["run", "debug"] = "run"
    after: str | None = None
    """The program of a processor that runs after it."""
    data: Mapping[str, Any] = field(default_factory=dict)
    """More of the component's definition."""
    features: tuple[str, ...] = ()

    @property
    def component(self) -> str:
        return f"hostile.{self.name}"

    @property
    def configuration(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        if self.stores_table:
            destination = f"out.c-hostile.{self.name}"
            found["storage"] = {
                "output": {"tables": [{"source": TABLE, "destination": destination}]}
            }
        if self.after is not None:
            found["processors"] = {"after": [{"definition": {"component": f"{self.component}-p"}}]}
        return found


def _link(name: str, target: str, place: str, **options: Any) -> Case:
    says = f"{re.escape(place)} is a symbolic link"
    script = f"echo 'id' > /data/out/tables/a.csv; rm -rf {place}; ln -s {target} {place}"
    return Case(f"link-{name}", script, says=says, stores_table=True, **options)


LINKS = (
    _link("table", "{outside}/secret", "/data/out/tables/a.csv"),
    _link("file", "/etc/passwd", "/data/out/files/a"),
    _link("process", "/proc/self/environ", "/data/out/files/environ"),
    _link("manifest", "{home}/vaka.db", "/data/out/tables/a.csv.manifest"),
    _link("state", "{neighbour}/data/out/files/secret", "/data/out/state.json"),
    _link("neighbour", "{neighbour}/data/out/files/secret", "/data/out/files/a"),
    _link("out", "{outside}", "/data/out"),
    _link("tables", "{outside}", "/data/out/tables"),
    _link("out-in-chain", "{outside}", "/data/out", after="true"),
    Case(
        "link-files-in-chain",
        "rmdir /data/out/files; ln -s {outside} /data/out/files",
        says="/data/in/files is a symbolic link",
        after="exit 7",
    ),
    Case(
        "link-slice",
        "mkdir /data/out/tables/a.csv; ln -s {outside}/secret /data/out/tables/a.csv/part;"
        ' echo \'{"columns": ["id"]}\' > /data/out/tables/a.csv.manifest',
        says="/data/out/tables/a.csv/part is a symbolic link",
        stores_table=True,
    ),
    Case(
        "link-in",
        "rm -rf /data/in /data/config.json && ln -s {outside} /data/in"
        " && ln -s {outside}/secret /data/config.json; echo done",
        ends=("success",),
        prints="done",
        mode="debug",
    ),
    Case(
        "link-tmp",
        "ln -s {outside} /tmp/a; ln -s / /tmp/b; mkfifo /tmp/c; echo done",
        ends=("success",),
        prints="done",
        after="ls /tmp | grep . && exit 1; true",
    ),
    Case(
        "loops",
        "cd /data/out/files; i=0; while [ $i -lt 200 ]; do mkdir d; cd d; ln -s .. up;"
        " ln -s /data all; i=$((i+1)); done; echo done",
        ends=("success",),
        prints="done",
        mode="debug",
    ),
    Case(
        "hard-links",
        "for f in /etc/hostname /etc/hosts /etc/resolv.conf /proc/1/environ /bin/busybox; do"
        " ln $f /data/out/files/ 2>/dev/null && echo linked $f; done; echo done",
        ends=("success",),
        prints="done",
    ),
    Case(
        "hard-links-as-root",
        "for f in /etc/hostname /etc/hosts /etc/resolv.conf /proc/1/environ /bin/busybox; do"
        " ln $f /data/out/files/ 2>/dev/null && echo linked $f; done; echo done",
        ends=("success",),
        prints="done",
        features=("container-root-user",),
    ),
)

SPECIAL = (
    Case("pipe", "mkfifo /data/out/files/a", says="/data/out/files/a is a named pipe"),
    Case(
        "pipe-state", "mkfifo /data/out/state.json", says=r"/data/out/state\.json is a named pipe"
    ),
    Case(
        "pipe-config",
        "rm -f /data/config.json; mkfifo /data/config.json; echo done",
        ends=("success",),
        after="test -f /data/config.json",
    ),
    Case(
        "socket",
        "import socket; socket.socket(socket.AF_UNIX).bind('/data/out/files/a')",
        says="/data/out/files/a is a socket",
        is_python=True,
    ),
    Case(
        "devices",
        "mknod /data/out/files/a c 1 5 || mknod /data/out/files/b b 8 0 || echo refused",
        ends=("success",),
        prints="refused",
    ),
    Case(
        "devices-as-root",
        "mknod /data/out/files/a c 1 5 || mknod /data/out/files/b b 8 0 || echo refused",
        ends=("success",),
        prints="refused",
        features=("container-root-user",),
    ),
    Case(
        "mounts-as-root",
        "mount -t proc p /data/out/files || mount --bind / /data/out || umount /data"
        " || echo refused",
        ends=("success",),
        prints="refused",
        features=("container-root-user",),
    ),
)

SIZES = (
    Case(
        "sparse-table",
        "echo id > /data/out/tables/a.csv; truncate -s 10995116277760 /data/out/tables/a.csv",
        says="claims 10995116277760 bytes",
        stores_table=True,
    ),
    Case(
        "sparse-file",
        "truncate -s 10995116277760 /data/out/files/a",
        says="claims 10995116277760 bytes",
    ),
    Case(
        "sparse-state",
        "truncate -s 10995116277760 /data/out/state.json",
        says=r"/data/out/state\.json has more than",
    ),
    Case(
        "sparse-manifest",
        "echo id > /data/out/tables/a.csv; truncate -s 10995116277760 /data/out/tables/a.csv.manifest",
        says=r"a\.csv\.manifest has more than",
        stores_table=True,
    ),
    Case(
        "sparse-debug",
        "truncate -s 10995116277760 /data/out/files/a; mkfifo /data/out/files/b; echo done",
        ends=("success",),
        prints="done",
        mode="debug",
    ),
    Case(
        "gzip-bomb-state",
        "head -c 20000000 /dev/zero | gzip > /data/out/state.json",
        says=r"Failed to parse state file \"/data/out/state\.json\"",
    ),
    Case(
        "zip-as-table",
        "import zipfile\n"
        "with zipfile.ZipFile('/data/out/tables/a.csv', 'w', 8) as z:\n"
        "    z.writestr('a', bytes(100_000_000))",
        is_python=True,
        stores_table=True,
        ends=("success", "user"),
    ),
    Case(
        "gzip-bomb-zeros",
        'mkdir /data/out/tables/a.csv; echo \'{"columns": ["id"]}\' >'
        " /data/out/tables/a.csv.manifest;"
        " head -c {zeros} /dev/zero | gzip > /data/out/tables/a.csv/part.gz",
        ends=("success", "user"),
        stores_table=True,
    ),
)

NAMES = (
    Case(
        "names",
        "import os\n"
        "names = ['new\\nline', '\\x1b[2Jclear', '\\u202egpj.exe', 'n' * 240, '\\u00e9' * 120,\n"
        "         '* [0-9] {a,b} ?', '-rf', '\\'\"; DROP TABLE files; --', '%2e%2e', 'a\\rb']\n"
        "for name in names:\n"
        "    open(b'/data/out/files/' + name.encode(), 'w').write('content')\n"
        "print('done')",
        ends=("success", "user"),
        prints="done",
        is_python=True,
    ),
    Case(
        "names-no-text",
        "open(b'/data/out/tables/\\xff\\n', 'w').write('id')",
        says=r"/data/out/tables/\\xff\\u000a is not UTF-8",
        is_python=True,
    ),
    Case(
        "names-as-tables",
        "for name in ['\\u202eab.csv', 'a;DROP TABLE x.csv', '..csv', 'x' * 240]:\n"
        "    open('/data/out/tables/' + name, 'w').write('id\\n1\\n')",
        is_python=True,
        data={"default_bucket": True},
    ),
    Case(
        "columns",
        "import csv\n"
        "names = ['\"; DROP TABLE t; --', 'a\\nb', '\\u202e', '', 'x' * 3000, '_timestamp']\n"
        "csv.writer(open('/data/out/tables/a.csv', 'w')).writerows([names, names])",
        ends=("success", "user"),
        is_python=True,
        stores_table=True,
    ),
)

PROTOCOLS = (
    "::set-output name=a::b",
    "::error file=x::y",
    "##vso[task.setvariable variable=a]b",
    "##teamcity[buildStatus status='FAILURE']",
    '{"kind": "job.finished", "level": "error", "status": "success"}',
    "data: x",
    "event: end",
    "HTTP/1.1 200 OK",
)
TALK = (
    Case(
        "escapes",
        "import sys\n"
        "for text in [b'\\x1b]0;title\\x07', b'\\x1b]52;c;cm0gLXJm\\x07', b'\\x1b[2J\\x1b[1;1H',\n"
        "             b'safe\\rOVER', b'\\x1b]8;;http://x/\\x1b\\\\link', '\\u202eabc'.encode(),\n"
        "             '\\x9b31m \\u2066'.encode(), b'\\xff\\xfe\\x00\\x01', b'\\x1bP0;0|x\\x1b\\\\']:\n"
        "    sys.stdout.buffer.write(text + b'\\n')\n"
        + "".join(f"print({line!r})\n" for line in PROTOCOLS)
        + "print('done')",
        ends=("success",),
        prints="::set-output name=a::b",
        is_python=True,
    ),
    Case(
        "escapes-as-error",
        "import sys; sys.stderr.write('\\x1b]52;c;cm0gLXJm\\x07 \\u202e::error::x\\r'); sys.exit(1)",
        is_python=True,
        says="error",
    ),
    Case(
        "escapes-as-crash",
        "import sys; sys.stderr.write('\\x1b[2J\\x1b]0;t\\x07'); sys.exit(2)",
        is_python=True,
        ends=("user", "application"),
    ),
    Case(
        "endless-line",
        "head -c {line} /dev/zero | tr '\\0' x",
        ends=("success",),
    ),
    Case(
        "endless-line-as-error",
        "head -c 10000000 /dev/zero | tr '\\0' x >&2; exit 1",
    ),
    Case(
        "flood",
        "yes \"$(head -c 1000 /dev/zero | tr '\\0' y)\" | head -c {flood}",
        ends=("success",),
    ),
    Case(
        "flood-of-lines",
        "yes '' | head -n {lines}; yes z | head -n {lines} >&2",
        ends=("success",),
    ),
)

PROCESSES = (
    Case(
        "fork-bomb",
        "import os, time\n"
        "end = time.monotonic() + 2\n"
        "while time.monotonic() < end:\n"
        "    try:\n"
        "        os.fork()\n"
        "    except OSError:\n"
        "        pass\n"
        "raise SystemExit(1)",
        is_python=True,
        ends=("user",),
        data={"memory": "128m"},
    ),
    Case(
        "daemons",
        "for i in 1 2 3 4 5; do (setsid sh -c 'trap \"\" TERM HUP; while :; do sleep 1; done'"
        " >/dev/null 2>&1 &); done; echo done",
        ends=("success",),
        prints="done",
    ),
    Case(
        "daemons-that-print",
        "(setsid sh -c 'trap \"\" TERM HUP; while :; do echo on; sleep 1; done' &); echo done",
        ends=("success",),
        prints="done",
    ),
    Case(
        "deaf",
        "trap '' TERM INT HUP QUIT; echo ready; while :; do sleep 1; done",
        ends=("terminated",),
        is_cancelled=True,
    ),
    Case(
        "kills-its-init",
        "kill -9 1; kill -STOP 1; kill -9 -1",
        ends=("success", "user", "application"),
        features=("container-root-user",),
    ),
    Case(
        "memory",
        "tail /dev/zero || true",
        says="out of memory",
        data={"memory": "32m"},
    ),
)


def _gelf(transport: str, program: str) -> Case:
    """A component that talks to its logger as no library would, and then in good order."""
    begin = (
        "import gzip, json, os, socket, zlib\n"
        "place = os.environ['KBC_LOGGER_ADDR'], int(os.environ['KBC_LOGGER_PORT'])\n"
        "bombs = [zlib.compress(bytes({bytes}), 9), gzip.compress(bytes({bytes}), 9)]\n"
        'deep = b\'{"version": "1.1", "short_message": \' + b\'[\' * 5_000\n'
        "odd = [b'\\xff' * 500, b'[]', b'null', b'{}', b'{\"short_message\": 1e999}', deep,\n"
        "       b'\\x78', b'\\x1f\\x8b\\x08', b'\\x1e\\x0f', b'\\x1e\\x0f' + bytes(10),\n"
        "       json.dumps({'short_message': '\\x1b[2J\\u202e', 'level': -7, 'host': []}).encode()]\n"
        "good = {'host': socket.gethostname(), 'short_message': 'last', 'version': '1.1', 'level': 6}\n"
        "good = json.dumps(good).encode()\n"
    )
    return Case(
        f"gelf-{transport}",
        begin + program + "\nprint('done')",
        ends=("success",),
        prints="done" if transport == "udp" else "last",  # a datagram may be lost
        is_python=True,
        data={
            "network": "bridge",
            "logging": {"type": "gelf", "gelf_server_type": transport},
        },
    )


GELF = (
    _gelf(
        "udp",
        "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
        "for each in [*odd, *(bomb[:60_000] for bomb in bombs)]:\n"
        "    s.sendto(each, place)\n"
        "for i in range({lines}):\n"  # no message of so many is ever whole
        "    head = b'\\x1e\\x0f' + i.to_bytes(8, 'big') + bytes([i % 7, 128])\n"
        "    s.sendto(head + b'x' * 1_000, place)\n"
        "for seq, count in [(5, 3), (0, 0), (255, 255), (127, 128), (127, 128)]:\n"
        "    s.sendto(b'\\x1e\\x0f' + b'i' * 8 + bytes([seq, count]) + b'x' * 60_000, place)\n"
        "for i in range(128):\n"  # a message of 7 MB
        "    s.sendto(b'\\x1e\\x0f' + b'j' * 8 + bytes([i, 128]) + b'x' * 60_000, place)\n"
        "s.sendto(good, place)",
    ),
    _gelf(
        "tcp",
        "open_ones = []\n"
        "for i in range(200):\n"  # more than may be open, and none of them says anything
        "    try:\n"
        "        open_ones.append(socket.create_connection(place, 5))\n"
        "    except OSError:\n"
        "        pass\n"
        "for each in open_ones: each.close()\n"
        "def send(*parts):\n"
        "    try:\n"
        "        with socket.create_connection(place, 30) as s:\n"
        "            for part in parts: s.sendall(part)\n"
        "    except OSError:\n"
        "        pass\n"
        "send(*(each + b'\\0' for each in odd))\n"
        "send(*(bomb + b'\\0' for bomb in bombs))\n"
        "send(*[b'x' * 1_000_000] * ({line} // 1_000_000))\n"  # a message without an end
        "send(bytes({line}))\n"  # nothing but ends
        "send(good + b'\\0')",
    ),
    _gelf(
        "http",
        "def send(*parts):\n"
        "    try:\n"
        "        with socket.create_connection(place, 30) as s:\n"
        "            for part in parts: s.sendall(part)\n"
        "            s.shutdown(socket.SHUT_WR); s.recv(1_000)\n"
        "    except OSError:\n"
        "        pass\n"
        "def post(body, length=None):\n"
        "    head = b'POST /gelf HTTP/1.1\\r\\nHost: a\\r\\nContent-Length: %d\\r\\n\\r\\n'\n"
        "    send(head % (len(body) if length is None else length), body)\n"
        "for each in [*odd, *bombs]: post(each)\n"
        "post(b'x' * {line}); post(b'x', 10**15); post(b'', 0)\n"
        "send(b'POST / HTTP/1.1\\r\\nHost: a\\r\\nTransfer-Encoding: chunked\\r\\n\\r\\n',\n"
        "     *[b'f4240\\r\\n' + b'x' * 1_000_000 + b'\\r\\n'] * ({line} // 1_000_000))\n"
        "send(b'POST / HTTP/1.1\\r\\n' + b'A: b\\r\\n' * 100_000); send(b'\\x16\\x03\\x01' * 1_000)\n"
        "post(good)",
    ),
)


def _document(name: str, place: str, content: str, **options: Any) -> Case:
    program = (
        "open('/data/out/tables/a.csv', 'w').write('id\\n1\\n')\n"
        f"open('/data/out/{place}', 'w').write({content})"
    )
    return Case(f"document-{name}", program, is_python=True, stores_table=True, **options)


DOCUMENTS = (
    _document("manifest-huge", "tables/a.csv.manifest", "' ' * (17 << 20)", says="more than"),
    _document("manifest-deep", "tables/a.csv.manifest", "'[' * 1_000_000", says=r"a\.csv"),
    _document("manifest-wide", "tables/a.csv.manifest", "'[' + '1,' * 2_000_000 + '1]'"),
    _document(
        "manifest-columns",
        "tables/a.csv.manifest",
        "'{\"columns\": [' + ','.join('\"c%d\"' % i for i in range(190_000)) + ']}'",
    ),
    _document(
        "manifest-keys",
        "tables/a.csv.manifest",
        '\'{"primary_key": ["\\\\u0000", "x\\\\"; DROP TABLE t"], "delimiter": ""}\'',
    ),
    _document(
        "manifest-schema",
        "tables/a.csv.manifest",
        '\'{"schema": [\' + \',\'.join(\'{"name": "c%d", "data_type": {"base": {"type": "STRING"}}}\''
        " % i for i in range({entries})) + ']}'",
    ),
    _document(
        "manifest-metadata",
        "tables/a.csv.manifest",
        '\'{"column_metadata": {\' + \',\'.join(\'"c%d": [{"key": "a", "value": "b"}]\''
        " % i for i in range({entries})) + '}}'",
        ends=("success", "user"),
    ),
    _document(
        "state-wide",
        "state.json",
        "'{\"a\": [' + ','.join('{\"#b\": \"s%d\"}' % i for i in range({entries})) + ']}'",
        says="more than 10000 values",
    ),
    _document("manifest-number", "tables/a.csv.manifest", "'{\"columns\": ' + '9' * 100_000 + '}'"),
    _document(
        "manifest-destination",
        "tables/a.csv.manifest",
        '\'{"destination": "../../../etc/passwd.a.b"}\'',
        ends=("success", "user"),
    ),
    _document("state-deep", "state.json", "'{\"a\":' * 100_000", says="nested deeper"),
    _document("state-huge", "state.json", "'\"' + 'x' * (17 << 20) + '\"'", says=r"state\.json"),
    _document(
        "state-surrogate",
        "state.json",
        "'{\"a\": \"' + chr(92) + 'ud800\"}'",
        says="Failed to parse state file",
    ),
    _document("usage-deep", "usage.json", "'[' * 100_000", says="nested deeper"),
    _document(
        "usage-huge", "usage.json", "'[' + '{},' * 400_000 + '{}]'", ends=("success", "user")
    ),
    _document("result-deep", "result.json", "'[' * 100_000", ends=("success", "user")),
)

RACES = tuple(
    Case(
        f"race-{mode}-{number}",
        "import os, pathlib\n"
        "pathlib.Path('/data/out/tables/a.csv').write_text('id\\n1\\n')\n"
        "for i in range(60):\n"
        "    pathlib.Path(f'/data/out/files/{i}').write_text('mine')\n"
        "    os.makedirs(f'/data/out/files/d{i}/e')\n"
        "open('/data/out/state.json', 'w').write('{}')",
        is_python=True,
        is_raced=True,
        stores_table=True,
        mode=mode,
        after="cp -r /data/in/. /data/out/ 2>/dev/null; true",
        ends=("success", "user"),
    )
    for mode in ("run", "debug")
    for number in range(2)
)


def many_files(count: int) -> Case:
    """A folder with so many empty files, which nobody asked for."""
    return Case(
        "many-files",
        "import os\n"
        "os.mkdir('/data/out/junk')\n"
        f"for i in range({count}):\n"
        "    os.close(os.open(f'/data/out/junk/{i}', os.O_CREAT))",
        is_python=True,
        ends=("success",),
    )


def many_outputs(count: int) -> Case:
    """So many files that would all be stored."""
    return Case(
        "many-outputs",
        "import os\n"
        f"for i in range({count}):\n"
        "    os.close(os.open(f'/data/out/files/{i}', os.O_CREAT))",
        is_python=True,
        says="/data/out/files has more than 100000 entries",
    )


def gzip_bomb(megabytes: int) -> Case:
    """Rows that take a thousand times the room when they are unpacked."""
    return Case(
        "gzip-bomb-rows",
        "import gzip, os\n"
        "os.mkdir('/data/out/tables/a.csv')\n"
        "open('/data/out/tables/a.csv.manifest', 'w').write('{\"columns\": [\"id\"]}')\n"
        "part = (b'x' * 999 + b'\\n') * 1000\n"
        "with gzip.open('/data/out/tables/a.csv/part.gz', 'w', 1) as bomb:\n"
        f"    for _ in range({megabytes}):\n"
        "        bomb.write(part)",
        is_python=True,
        stores_table=True,
        ends=("success", "user"),
    )


EVERY = (*LINKS, *SPECIAL, *SIZES, *NAMES, *TALK, *PROCESSES, *GELF, *DOCUMENTS, *RACES)
TWINS = {
    *("link-neighbour", "link-tables", "link-out-in-chain", "hard-links", "devices", "pipe-state"),
    *("sparse-file", "sparse-manifest", "zip-as-table", "columns", "escapes-as-crash", "daemons"),
    *("endless-line-as-error", "memory", "document-manifest-wide", "document-manifest-number"),
    *("document-manifest-destination", "document-state-huge", "document-usage-huge"),
    *(
        "document-manifest-metadata",
        "document-result-deep",
        "race-run-1",
        "race-debug-1",
        "kills-its-init",
    ),
}
"""Those that are so much like another one that the short form does without them."""
SHORT = (
    *(case for case in EVERY if case.name not in TWINS),
    many_files(2_000),
    gzip_bomb(10),
)
LONG = (*EVERY, many_files(1_000_000), many_outputs(100_001), gzip_bomb(2_000))
SIZES_SHORT = {
    "flood": 5_000_000,
    "line": 5_000_000,
    "lines": 5_000,
    "zeros": 30_000_000,
    "entries": 20_000,
    "bytes": 20_000_000,
}
"""What the names in programs stand for: bytes that `flood` prints, bytes of an endless line, lines,
bytes of zeros that are packed as a slice, entries of a document, bytes of zeros that are packed as a
message."""
SIZES_LONG = {
    "flood": 10_000_000_000,
    "line": 30_000_000,
    "lines": 20_000,
    "zeros": 300_000_000,
    "entries": 39_000,
    "bytes": 200_000_000,
}
