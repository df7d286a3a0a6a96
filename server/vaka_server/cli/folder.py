"""A project's configurations as a folder of JSON files that can be kept in a repository.

The folder comes from anywhere, so everything below it is opened relative to a descriptor, without
following links, and is bounded in size and number. Names are made from ids and must be those that this
module makes of them. Nothing is written or read that has a secret in the clear.
"""

from __future__ import annotations

import errno
import json
import os
import re
import stat
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote
from uuid import uuid4

from vaka.errors import InvalidInput
from vaka.models.ciphers import is_cipher, refuse_plain_secrets
from vaka.models.json_text import NotJson, parse_json_text

FORMAT: Final = "vaka-project"
VERSION: Final = 1
PROJECT: Final = "project.json"
VARIABLES: Final = "variables.json"
CONFIGURATIONS: Final = "configurations"
CONFIGURATION: Final = "configuration.json"
ROWS: Final = "rows"
MOST_ENTRIES: Final = 100_000
MOST_BYTES: Final = 32 << 20
"""Of one file."""
ALL_BYTES: Final = 1 << 30
_LONGEST_NAME: Final = 100
_OPEN: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC

Parts = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Row:
    """A row of a configuration."""

    id: str
    name: str
    description: str
    is_disabled: bool
    configuration: Any


@dataclass(frozen=True, slots=True)
class Config:
    """A configuration with its rows in their order, and what is said of it."""

    component: str
    id: str
    name: str
    description: str
    is_disabled: bool
    configuration: Any
    rows: tuple[Row, ...] = ()
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Variable:
    """A variable of the vault; `value` is a cipher when it is encrypted."""

    name: str
    value: str
    is_encrypted: bool


@dataclass(frozen=True, slots=True)
class Content:
    """What a folder holds of a project."""

    configs: Mapping[tuple[str, str], Config]
    variables: Mapping[str, Variable]
    metadata: Mapping[str, str]
    """What is said of the project."""


# -- writing ---------------------------------------------------------------------------------------


def write(path: Path, content: Content) -> tuple[int, int, int]:
    """Make a folder say what `content` does; how many files are new or changed, same, and gone.

    A folder that is not there is made. Files that the folder has beside those of this module stay.

    Raises:
        InvalidInput: `content` has a secret in the clear, or the folder is none of a project's.
    """
    check_secrets(content)
    files = _files(content)
    path.mkdir(parents=True, exist_ok=True)
    with _root(path) as root:
        before = _existing(root, path)
        written = 0
        for parts, text in files.items():
            written += _write(root, parts, text)
        gone = [parts for parts in before if parts not in files]
        for parts in gone:
            _remove(root, parts)
    return written, len(files) - written, len(gone)


def check_secrets(content: Content) -> None:
    """Raise `InvalidInput` when something has a secret in the clear; it names the key, not the value."""
    for config in content.configs.values():
        where = f"configuration {config.id} of {config.component}"
        refuse_plain_secrets(config.configuration, where)
        for row in config.rows:
            refuse_plain_secrets(row.configuration, f"row {row.id} of {where}")
    for variable in content.variables.values():
        if variable.is_encrypted and not is_cipher(variable.value):
            raise InvalidInput(f"The value of the variable {variable.name} is not encrypted.")


def _files(content: Content) -> dict[Parts, bytes]:
    """Each file of the folder."""
    files: dict[Parts, Any] = {
        (PROJECT,): {
            "format": FORMAT,
            "version": VERSION,
            "metadata": dict(sorted(content.metadata.items())),
        },
        (VARIABLES,): [
            {"name": each.name, "value": each.value, "isEncrypted": each.is_encrypted}
            for _, each in sorted(content.variables.items())
        ],
    }
    components = _names(component for component, _ in content.configs)
    for component, folder in components.items():
        own = {each.id: each for each in content.configs.values() if each.component == component}
        for config_id, name in _names(own).items():
            here = (CONFIGURATIONS, folder, name)
            config = own[config_id]
            files[*here, CONFIGURATION] = {
                "component": component,
                "id": config_id,
                "name": config.name,
                "description": config.description,
                "isDisabled": config.is_disabled,
                "metadata": dict(sorted(config.metadata.items())),
                "rows": [row.id for row in config.rows],
                "configuration": config.configuration,
            }
            rows = {row.id: row for row in config.rows}
            for row_id, file in _names(rows).items():
                files[*here, ROWS, f"{file}.json"] = {
                    "id": row_id,
                    "name": rows[row_id].name,
                    "description": rows[row_id].description,
                    "isDisabled": rows[row_id].is_disabled,
                    "configuration": rows[row_id].configuration,
                }
    return {parts: _text(document) for parts, document in files.items()}


def _text(document: Any) -> bytes:
    try:
        text = json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False)
        return f"{text}\n".encode()
    except UnicodeEncodeError:  # half a character, which only an escape can write
        return f"{json.dumps(document, indent=2)}\n".encode()


def _names(ids: Iterable[str]) -> dict[str, str]:
    """A file name for each id; those that differ only in case get names that differ in more."""
    given = dict.fromkeys(ids)
    alike = Counter(_plain_name(each).lower() for each in given)
    return {
        each: _plain_name(each) if alike[_plain_name(each).lower()] == 1 else _long_name(each)
        for each in given
    }


def _plain_name(thing_id: str) -> str:
    name = quote(thing_id, safe="", errors="surrogatepass").replace("~", "%7E")
    if name.startswith("."):
        name = f"%2E{name[1:]}"
    return name if len(name) <= _LONGEST_NAME else _long_name(thing_id)


def _long_name(thing_id: str) -> str:
    """A name that no other id has, however long the id is."""
    start = quote(thing_id[:20], safe="", errors="surrogatepass").replace("~", "%7E")
    start = re.sub(r"^\.", "%2E", start)[:60]
    digest = sha256(thing_id.encode("utf-8", "surrogatepass")).hexdigest()[:24]
    return f"{start}~{digest}"


def _existing(root: int, path: Path) -> list[Parts]:
    """The files that an earlier export has left, once it is certain that the folder is one."""
    with os.scandir(root) as entries:
        names = {entry.name for entry in entries}
    if not names - {".git"}:
        return []
    if PROJECT not in names:
        raise InvalidInput(
            f"{path} has other things in it and no {PROJECT}: export into an empty folder."
        )
    reader = _Reader(root, path)
    reader.project()
    return [parts for parts, _ in reader.walk()]


def _write(root: int, parts: Parts, text: bytes) -> bool:
    """Write a file unless it says that already; whether it was written."""
    *folders, name = parts
    with _opened(root, folders, make=True) as folder:
        try:
            if _read(folder, name, MOST_BYTES) == text:
                return False
        except FileNotFoundError:
            pass
        temporary = f".{uuid4().hex}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        with os.fdopen(os.open(temporary, flags, 0o666, dir_fd=folder), "wb") as file:
            file.write(text)
        os.replace(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
        return True


def _remove(root: int, parts: Parts) -> None:
    """Remove a file, and the folders that are empty without it."""
    *folders, name = parts
    with _opened(root, folders) as folder:
        os.unlink(name, dir_fd=folder)
    while len(folders) > 1:
        *above, last = folders
        try:
            with _opened(root, above) as folder:
                os.rmdir(last, dir_fd=folder)
        except OSError as error:
            if error.errno != errno.ENOTEMPTY:
                raise
            return
        folders = above


# -- reading ---------------------------------------------------------------------------------------


def read(path: Path) -> Content:
    """What a folder holds.

    Raises:
        InvalidInput: it is no project's folder, or something in it is not as this module writes it.
    """
    with _root(path) as root:
        content = _Reader(root, path).content()
    check_secrets(content)
    return content


class _Reader:
    """Reads one folder, and counts what it reads."""

    def __init__(self, root: int, path: Path) -> None:
        self._root = root
        self._path = path
        self._entries = 0
        self._bytes = 0

    def content(self) -> Content:
        metadata = self.project()
        configs: dict[tuple[str, str], Config] = {}
        documents = {parts: self._document(parts) for parts, _ in self.walk()}
        for parts, document in documents.items():
            if parts[-1] == CONFIGURATION and len(parts) == 4:
                config = self._config(parts, document, documents)
                configs[config.component, config.id] = config
        return Content(configs, self._variables(documents.get((VARIABLES,), [])), metadata)

    def project(self) -> dict[str, str]:
        """What is said of the project, once it is certain that the folder is one's."""
        document = _members(
            self._document((PROJECT,)), PROJECT, {"format": str, "version": int, "metadata": dict}
        )
        if document["format"] != FORMAT or document["version"] != VERSION:
            raise InvalidInput(
                f"{self._path / PROJECT}: this version reads folders of the format {FORMAT} "
                f"{VERSION} only."
            )
        return _texts(document["metadata"], PROJECT)

    def walk(self) -> Iterator[tuple[Parts, int]]:
        """Each file of the folder, and how large it is; whatever should not be there is refused."""
        for name in (PROJECT, VARIABLES):
            yield from self._file((name,), is_optional=True)
        for component in self._folders((CONFIGURATIONS,), is_optional=True):
            for config in self._folders((CONFIGURATIONS, component)):
                here = (CONFIGURATIONS, component, config)
                for name in self._list(here):
                    if name not in {CONFIGURATION, ROWS}:
                        raise self._odd((*here, name))
                yield from self._file((*here, CONFIGURATION))
                for row in self._list((*here, ROWS), is_optional=True):
                    if not row.endswith(".json"):
                        raise self._odd((*here, ROWS, row))
                    yield from self._file((*here, ROWS, row))

    def _config(self, parts: Parts, document: Any, all_documents: Mapping[Parts, Any]) -> Config:
        where = "/".join(parts)
        kinds: dict[str, type] = {"component": str, "id": str, **_KINDS, "metadata": dict}
        members = _members(document, where, {**kinds, "rows": list})
        self._check_name(parts[1], members["component"], parts)
        self._check_name(parts[2], members["id"], parts)
        here = (*parts[:3], ROWS)
        rows: dict[str, Row] = {}
        for each, row in all_documents.items():
            if each[:-1] == here:
                found = _members(row, "/".join(each), {"id": str, **_KINDS})
                self._check_name(each[-1].removesuffix(".json"), found["id"], each)
                rows[found["id"]] = Row(
                    found["id"],
                    found["name"],
                    found["description"],
                    found["isDisabled"],
                    found["configuration"],
                )
        order = members["rows"]
        if len(order) != len(rows) or any(not isinstance(r, str) or r not in rows for r in order):
            raise InvalidInput(f'{self._path / where}: "rows" must name each file in {ROWS} once.')
        return Config(
            members["component"],
            members["id"],
            members["name"],
            members["description"],
            members["isDisabled"],
            members["configuration"],
            tuple(rows[row_id] for row_id in order),
            _texts(members["metadata"], where),
        )

    def _variables(self, document: Any) -> dict[str, Variable]:
        if not isinstance(document, list):
            raise InvalidInput(f"{self._path / VARIABLES}: must be a list.")
        kinds: dict[str, type] = {"name": str, "value": str, "isEncrypted": bool}
        found = [_members(each, VARIABLES, kinds) for each in document]
        return {
            each["name"]: Variable(each["name"], each["value"], each["isEncrypted"])
            for each in found
        }

    def _check_name(self, name: str, thing_id: str, parts: Parts) -> None:
        if name not in {_plain_name(thing_id), _long_name(thing_id)}:
            raise InvalidInput(
                f'{self._path.joinpath(*parts)}: the name "{name}" does not stand for the id '
                f'"{thing_id}"; it would be "{_plain_name(thing_id)}".'
            )

    # -- the file system ---------------------------------------------------------------------------

    def _document(self, parts: Parts) -> Any:
        *folders, name = parts
        with self._telling(parts), _opened(self._root, folders) as folder:
            data = _read(folder, name, MOST_BYTES)
            self._bytes += len(data)
            if self._bytes > ALL_BYTES:
                raise InvalidInput(f"{self._path} has more than {ALL_BYTES} bytes.")
            return parse_json_text(data.decode())

    def _file(self, parts: Parts, *, is_optional: bool = False) -> Iterator[tuple[Parts, int]]:
        *folders, name = parts
        try:
            with self._telling(parts, is_optional), _opened(self._root, folders) as folder:
                found = os.stat(name, dir_fd=folder, follow_symlinks=False)
        except FileNotFoundError:
            return
        if not stat.S_ISREG(found.st_mode):
            raise InvalidInput(f"{self._path.joinpath(*parts)} is no regular file.")
        yield parts, found.st_size

    def _folders(self, parts: Parts, *, is_optional: bool = False) -> list[str]:
        return self._list(parts, is_optional=is_optional)

    def _list(self, parts: Parts, *, is_optional: bool = False) -> list[str]:
        """The names in a folder, sorted, without those that begin with a dot."""
        names: list[str] = []
        try:
            with (
                self._telling(parts, is_optional),
                _opened(self._root, parts) as folder,
                os.scandir(folder) as entries,
            ):
                for entry in entries:
                    self._entries += 1
                    if self._entries > MOST_ENTRIES:
                        raise InvalidInput(f"{self._path} has more than {MOST_ENTRIES} entries.")
                    if not entry.name.startswith("."):
                        names.append(entry.name)
        except FileNotFoundError:
            return []
        return sorted(names)

    def _odd(self, parts: Parts) -> InvalidInput:
        return InvalidInput(f"{self._path.joinpath(*parts)} does not belong there.")

    @contextmanager
    def _telling(self, parts: Parts, is_optional: bool = False) -> Iterator[None]:
        """Say where something is not as it should be; what is optional may not be there."""
        where = self._path.joinpath(*parts)
        try:
            yield
        except FileNotFoundError as error:
            if is_optional:
                raise
            raise InvalidInput(f"{where} is not there.") from error
        except OSError as error:
            if error.errno in {errno.ELOOP, errno.ENOTDIR}:
                raise InvalidInput(f"{where} is a link, or not what it should be.") from error
            raise
        except UnicodeDecodeError as error:
            raise InvalidInput(f"{where} is not UTF-8.") from error
        except NotJson as error:
            raise InvalidInput(f"{where} is not JSON: {error}.") from error


_KINDS: Final[dict[str, type]] = {
    "name": str,
    "description": str,
    "isDisabled": bool,
    "configuration": object,
}


def _members(document: Any, where: str, kinds: Mapping[str, type]) -> dict[str, Any]:
    """An object with just these members."""
    if not isinstance(document, dict) or set(document) != set(kinds):
        raise InvalidInput(f"{where}: must be an object with just {', '.join(kinds)}.")
    for name, kind in kinds.items():
        if not isinstance(document[name], kind):
            raise InvalidInput(f'{where}: "{name}" must be of type {kind.__name__}.')
    return document


def _texts(value: Mapping[str, Any], where: str) -> dict[str, str]:
    if not all(isinstance(each, str) for each in value.values()):
        raise InvalidInput(f"{where}: metadata must be texts.")
    return dict(value)


@contextmanager
def _root(path: Path) -> Iterator[int]:
    """The folder that was named, which may be a link."""
    root = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield root
    finally:
        os.close(root)


@contextmanager
def _opened(root: int, folders: Iterable[str], *, make: bool = False) -> Iterator[int]:
    """A folder below the root, none of its parents a link."""
    here = os.dup(root)
    try:
        for name in folders:
            if make:
                with _there_already():
                    os.mkdir(name, dir_fd=here)
            below = os.open(name, _OPEN | os.O_DIRECTORY, dir_fd=here)
            os.close(here)
            here = below
        yield here
    finally:
        os.close(here)


@contextmanager
def _there_already() -> Iterator[None]:
    try:
        yield
    except FileExistsError:
        return


def _read(folder: int, name: str, limit: int) -> bytes:
    """A regular file's bytes."""
    with os.fdopen(os.open(name, _OPEN, dir_fd=folder), "rb", buffering=0) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise InvalidInput(f"{name} is no regular file.")
        parts: list[bytes] = []
        size = 0
        while data := file.read(1 << 20):
            size += len(data)
            if size > limit:
                raise InvalidInput(f"{name} has more than {limit} bytes.")
            parts.append(data)
        return b"".join(parts)
