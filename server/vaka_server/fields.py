"""What a request's body or query says, as one tree whatever its encoding (storage-api.md section 1.3).

Storage's clients send the same call as JSON, as a form with PHP's brackets, or as multipart. Everything
here is bounded: fields are counted before they are taken apart, brackets nest only so deep, text stays
below the limit of a JSON body, and a file goes to the disk as it comes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, overload
from urllib.parse import unquote_plus

import trio
from werkzeug.exceptions import RequestEntityTooLarge
from werkzeug.http import parse_options_header
from werkzeug.sansio.multipart import Data, Epilogue, Field, File, MultipartDecoder, NeedData

from vaka.models.json_text import NotJson, parse_json_text
from vaka.models.moment import parse_moment
from vaka.turns import beside
from vaka_server.body import parse_object, spool_file
from vaka_server.problems import Refused

if TYPE_CHECKING:
    from datetime import datetime

    from vaka_server.body import Body

Tree = dict[str, Any]
List = list[Any]

MOST_FIELDS = 100_000
"""Fields of one request: the metadata of a few thousand columns, with room."""
MOST_LEVELS = 32
"""Brackets behind one name."""
PART_HEAD = 1 << 16
"""Bytes that the headers of a part, or what stands before the first one, may have."""
FILE_PART = "data"
"""The one name that a file may have in a multipart body."""

_NAME = re.compile(r"([^\[]+)((?:\[[^\]]*\])*)", re.DOTALL)
_KEY = re.compile(r"\[([^\]]*)\]", re.DOTALL)
_INDEX = re.compile(r"0|[1-9][0-9]{0,15}")
_NUMBER = re.compile(r"[+-]?[0-9]{1,18}")
_MALFORMED = "malformedRequest"
NOT_JSON = "validation.invalidConfigurationFormat"
"""Storage's word for a configuration or state that is no JSON."""
INVALID = "storage.validation"
"""Storage's word for a bad value, where it has no better one."""


class Repeated(tuple[str, ...]):
    """The values of a plain name that was sent more than once; the last one counts as its value."""

    __slots__ = ()


@dataclass
class Fields:
    """The members of a body or a query, each read as what it must be.

    A member that is null is not there. Values that cannot be raise `Refused`, with `code` as Storage's
    word.
    """

    tree: Mapping[str, Any]
    files: Mapping[str, Path] = field(default_factory=dict)
    """Files of a multipart body by the name of their part; they are gone when the call has ended."""
    code: str = INVALID

    def __contains__(self, name: str) -> bool:
        return self.get(name) is not None

    def get(self, name: str) -> Any:
        """The value as it came: text from forms, anything from JSON; None when it is not there."""
        value = self.tree.get(name)
        return value[-1] if isinstance(value, Repeated) else value

    @overload
    def text(self, name: str, default: str) -> str: ...
    @overload
    def text(self, name: str, default: None = None) -> str | None: ...
    def text(self, name: str, default: str | None = None) -> str | None:
        """A text, which may be empty; numbers count as texts."""
        value = self.get(name)
        return default if value is None else self._text(value, name)

    def required(self, name: str, *, code: str | None = None) -> str:
        """A text that must be there and not be empty."""
        value = self.text(name)
        if not value:
            raise Refused(400, f"{name}: is required.", code=code or self.code)
        return value

    def flag(self, name: str, default: bool = False) -> bool:
        """Yes or no: a boolean, 1 or 0, or `true` or `false` in any case."""
        value = self.get(name)
        if value is None or isinstance(value, bool):
            return default if value is None else value
        word = str(value).lower() if isinstance(value, str | int) else ""
        if word not in {"1", "true", "0", "false"}:
            raise self._bad(name, "must be true or false.")
        return word in {"1", "true"}

    @overload
    def whole(self, name: str, default: int, *, least: int = 0, most: int) -> int: ...
    @overload
    def whole(self, name: str, default: None, *, least: int = 0, most: int) -> int | None: ...
    def whole(self, name: str, default: int | None, *, least: int = 0, most: int) -> int | None:
        """A whole number from `least` to `most`, as number or as text."""
        value = self.get(name)
        if value is None:
            return default
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        text = "" if isinstance(value, bool) else str(value) if isinstance(value, str | int) else ""
        if not (_NUMBER.fullmatch(text) and least <= int(text) <= most):
            raise self._bad(name, f"must be a whole number from {least} to {most}.")
        return int(text)

    def words(self, name: str) -> tuple[str, ...]:
        """A list of texts, or texts with commas between them; without empty ones."""
        value = self.tree.get(name)
        if value is None:
            return ()
        if isinstance(value, list):
            found = [self._text(each, f"{name}.{index}") for index, each in enumerate(value)]
        elif isinstance(value, Repeated):
            found = [word for each in value for word in self._text(each, name).split(",")]
        else:
            found = self._text(value, name).split(",")
        return tuple(word for word in found if word)

    def list(self, name: str) -> List:
        """A list; one value is a list of one, and what is not there is empty."""
        value = self.tree.get(name)
        if value is None:
            return []
        if isinstance(value, list | Repeated):
            return list(value)
        return [value]

    def texts(self, name: str) -> List:
        """A list of texts."""
        return [self._text(each, f"{name}.{i}") for i, each in enumerate(self.list(name))]

    def mapping(self, name: str) -> Tree:
        """An object; an empty list is an empty one, and so is what is not there."""
        value = self.get(name)
        if value is None or value == []:
            return {}
        if not isinstance(value, dict):
            raise self._bad(name, "must be an object.")
        return value

    def json(self, name: str, *, code: str = NOT_JSON) -> Any:
        """An object or a list, or a text that holds one as JSON; None when it is not there."""
        value = self.get(name)
        if isinstance(value, str):
            try:
                value = parse_json_text(value)
            except NotJson as error:
                raise self._bad(name, f"is not JSON ({error}).", code) from error
            if not isinstance(value, dict | list):
                raise self._bad(name, "must hold a JSON object.", code)
        if value is not None and not isinstance(value, dict | list):
            raise self._bad(name, "must be a JSON object, or a text that holds one.", code)
        return value

    def moment(self, name: str) -> datetime | None:
        """A time as an ISO date, a Unix timestamp or words such as `-1 day`."""
        text = self.text(name)
        if not text:
            return None
        try:
            return parse_moment(text)
        except ValueError as error:
            reason = "must be a time such as '-1 day' or '2024-01-31T12:00:00Z'."
            raise self._bad(name, reason) from error

    def close(self) -> None:
        """Remove the files."""
        for path in self.files.values():
            path.unlink(missing_ok=True)

    def _text(self, value: Any, name: str) -> str:
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise self._bad(name, "must be a text.")
        text = str(value)
        if "\0" in text:
            raise self._bad(name, "must not hold a NUL character.")
        return text

    def _bad(self, name: str, reason: str, code: str | None = None) -> Refused:
        return Refused(400, f"{name}: {reason}", code=code or self.code)


# -- forms -----------------------------------------------------------------------------------------


class _Array:
    """One of PHP's arrays, while its members come."""

    __slots__ = ("_next", "members")

    def __init__(self) -> None:
        self.members: dict[str | int, Any] = {}
        self._next = 0

    def key(self, text: str) -> str | int:
        """The key that stands for `text` between brackets; nothing there is the next number."""
        if text and not _INDEX.fullmatch(text):
            return text
        index = int(text) if text else self._next
        self._next = max(self._next, index + 1)
        return index

    def finished(self) -> Any:
        """A list when all keys are numbers, in their order and without gaps; else an object."""
        done = {
            key: value.finished() if isinstance(value, _Array) else value
            for key, value in self.members.items()
        }
        if all(isinstance(key, int) for key in done):
            return [done[key] for key in sorted(done, key=int)]
        return {str(key): value for key, value in done.items()}


class Form:
    """Puts the fields of a form together by PHP's rules."""

    def __init__(self) -> None:
        self._members: dict[str, Any] = {}
        self._count = 0

    def add(self, name: str, value: str) -> None:
        """Take the next field.

        Raises:
            Refused: it is one too many, or its brackets nest too deep.
        """
        self._count += 1
        if self._count > MOST_FIELDS:
            raise too_many()
        found = _NAME.match(name)
        if found is None or (not found[2] and found.end() < len(name)):
            keys: List = []  # no brackets, or none that are whole: the name is what it is
        else:
            name, keys = found[1], _KEY.findall(found[2])
        if len(keys) > MOST_LEVELS:
            raise Refused(400, f"A field nests more than {MOST_LEVELS} deep.", code=_MALFORMED)
        if not keys:
            self._plain(name, value)
            return
        array = self._members.get(name)
        if not isinstance(array, _Array):
            array = self._members[name] = _Array()
        *outer, last = keys
        for text in outer:
            key = array.key(text)
            inner = array.members.get(key)
            if not isinstance(inner, _Array):
                inner = array.members[key] = _Array()
            array = inner
        array.members[array.key(last)] = value

    def _plain(self, name: str, value: str) -> None:
        before = self._members.get(name)
        match before:
            case list():
                before.append(value)
            case str():
                self._members[name] = [before, value]
            case _:
                self._members[name] = value

    def tree(self) -> Tree:
        """All fields that came."""
        done: Tree = {}
        for name, value in self._members.items():
            match value:
                case _Array():
                    done[name] = value.finished()
                case list():
                    done[name] = Repeated(value)
                case _:
                    done[name] = value
        return done


def parse_form(raw: bytes) -> Tree:
    """The tree of a form body or a query string.

    Raises:
        Refused: it is not UTF-8, or has too many fields, or too deep ones.
    """
    if raw.count(b"&") >= MOST_FIELDS:
        raise too_many()
    form = Form()
    try:
        for pair in raw.decode().split("&"):
            if pair:
                name, _, value = pair.partition("=")
                form.add(unquote_plus(name, errors="strict"), unquote_plus(value, errors="strict"))
    except UnicodeDecodeError as error:
        raise Refused(400, "The request's fields are not UTF-8.", code=_MALFORMED) from error
    return form.tree()


def too_many() -> Refused:
    """More fields than a request may have."""
    return Refused(400, f"The request has more than {MOST_FIELDS} fields.", code=_MALFORMED)


# -- bodies ----------------------------------------------------------------------------------------


async def read_fields(
    body: Body,
    content_type: str,
    *,
    limit: int,
    folder: Path,
    upload_limit: int | None = None,
) -> Fields:
    """A body as fields; its files go below `folder`, and `Fields.close` removes them.

    Without a content type a body counts as JSON, and an empty one as no fields.

    Raises:
        Refused: it cannot be read.
        RequestEntityTooLarge: its text has more than `limit` bytes, or a file more than `upload_limit`.
    """
    kind, options = parse_options_header(content_type)
    if kind == "multipart/form-data":
        boundary = options.get("boundary", "").encode("ascii", "replace")
        if not 0 < len(boundary) <= 200:
            raise Refused(400, "The multipart body names no boundary.", code=_MALFORMED)
        reader = _Multipart(boundary, folder, limit, upload_limit)
        try:
            return await reader.read(body)
        except BaseException:
            reader.forget()
            raise
    raw = await body.read(limit)
    if not raw or raw == b"[]":  # PHP's clients do not tell an empty object from an empty list
        return Fields({})
    if kind == "application/x-www-form-urlencoded":
        return Fields(await beside(raw, partial(parse_form, raw)))
    if kind in {"", "application/json"} or kind.endswith("+json"):
        return Fields(await beside(raw, partial(parse_object, raw)))
    raise Refused(
        400,
        f"A body of type {kind[:100]} is not understood: send application/json, "
        "application/x-www-form-urlencoded or multipart/form-data.",
        code=_MALFORMED,
    )


class _Multipart:
    """Reads one multipart body: text into a form, files onto the disk."""

    def __init__(self, boundary: bytes, folder: Path, limit: int, upload_limit: int | None) -> None:
        self._decoder = MultipartDecoder(boundary, max_parts=MOST_FIELDS)
        self._folder = folder
        self._limit = limit
        self._upload_limit = upload_limit
        self._form = Form()
        self._files: dict[str, Path] = {}
        self._text_size = 0
        self._name = ""
        self._text: list[bytes] | None = None
        self._stream: BinaryIO | None = None
        self._file_size = 0

    async def read(self, body: Body) -> Fields:
        try:
            async for part in body:
                self._decoder.receive_data(part)
                await self._take()
            self._decoder.receive_data(None)
            await self._take()
        except (ValueError, AttributeError) as error:
            # the decoder's own checks are these and, for a part without its line break, an attribute
            raise Refused(400, "The multipart body is malformed.", code=_MALFORMED) from error
        finally:
            if self._stream is not None:
                self._stream.close()
        return Fields(self._form.tree(), self._files)

    def forget(self) -> None:
        """Remove what was written."""
        for path in self._files.values():
            path.unlink(missing_ok=True)

    async def _take(self) -> None:
        """Work through what the decoder has understood so far."""
        while True:
            match self._decoder.next_event():
                case NeedData():
                    if len(self._decoder.buffer) > PART_HEAD:
                        raise Refused(
                            400, "The multipart body's headers are too large.", code=_MALFORMED
                        )
                    return
                case Epilogue():
                    return
                case Field(name=name):
                    self._begin(name)
                    self._text = []
                case File(name=name):
                    await self._begin_file(name)
                case Data(data=data, more_data=more):
                    await self._data(data, is_last=not more)

    def _begin(self, name: str | None) -> None:
        if not name:
            raise Refused(400, "A part of the multipart body has no name.", code=_MALFORMED)
        self._name = name

    async def _begin_file(self, name: str | None) -> None:
        self._begin(name)
        if name != FILE_PART or name in self._files:
            raise Refused(
                400, f"A multipart body may hold one file, named {FILE_PART}.", code=_MALFORMED
            )
        self._files[FILE_PART], self._stream = await trio.to_thread.run_sync(
            spool_file, self._folder
        )

    async def _data(self, data: bytes, *, is_last: bool) -> None:
        if self._stream is not None:
            self._file_size += len(data)
            if self._upload_limit is not None and self._file_size > self._upload_limit:
                raise RequestEntityTooLarge(
                    f"The request's file is larger than {self._upload_limit} bytes."
                )
            await trio.to_thread.run_sync(self._stream.write, data)
            if is_last:
                self._stream.close()
                self._stream = None
            return
        if self._text is None:
            return
        self._text_size += len(data)
        if self._text_size > self._limit:
            raise RequestEntityTooLarge(f"The request's text is larger than {self._limit} bytes.")
        self._text.append(data)
        if is_last:
            self._form.add(self._name, b"".join(self._text).decode())
            self._text = None
