"""Where clients find the content of files, and what lets them (storage-api.md sections 4.3 and 4.5).

A file's content is in a container of its own, as blobs. Whoever knows its name and has a signature may
use it, without a token: the signature says for which container or blob, for what, and until when. It is
made with a key that only this installation has, so nothing has to be remembered to check one.
"""

from __future__ import annotations

import base64
import hmac
import os
import re
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal
from urllib.parse import quote, urlencode
from uuid import uuid4

from vaka.errors import ApplicationError, InvalidInput
from vaka.models.storage import FileDetail, StorageScope
from vaka_server.documents import storage_moment
from vaka_server.problems import Refused

Permission = Literal["r", "w", "l"]

ACCOUNT = "kbc.blob.core.windows.net"
"""The first part of the path of all containers: clients cut the URL of a slice after its last words."""
MANIFEST = "manifest"
KEY_FILE = "signing.key"
PERIOD = timedelta(hours=1)
"""Signatures begin and end at multiples of it, so that the same URL is given for a while."""
_VERSION = "2017-11-09"
_PREFIX = "files-"
_LONGEST = 63
_KEY_BYTES = 32
_REMEMBERED = 1024


@dataclass(frozen=True, slots=True)
class Place:
    """The content of one file, as its clients address it."""

    scope: StorageScope
    file_id: int
    container: str

    def blob_name(self, detail: FileDetail) -> str:
        """The blob of a file; of a sliced one, what the names of all its blobs begin with."""
        if detail.is_sliced:
            return f"{detail.id}."
        return f"{detail.id}.{re.sub(r'[^A-Za-z0-9._-]', '_', detail.name)}"


class FileAccess:
    """Names of containers, and signatures for them."""

    def __init__(
        self,
        key: bytes,
        lifetime: timedelta,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """Sign with `key`; what is signed can be used for `lifetime` at least."""
        self._key = key
        self._lifetime = lifetime
        self._clock = clock
        self._names: OrderedDict[str, str] = OrderedDict()

    # -- names -------------------------------------------------------------------------------------

    def place(self, scope: StorageScope, file_id: int) -> Place:
        """The container of a file: nobody can guess its name.

        Raises:
            InvalidInput: the ids of project and branch are too long for the name of a container.
        """
        ids = [scope.project] if scope.branch is None else [scope.project, scope.branch]
        words = "-".join([*map(_word, ids), str(file_id)])
        name = f"{_PREFIX}{words}-{self._tag(words)}"
        if len(name) > _LONGEST:
            raise InvalidInput(f"The id of project {scope.project} is too long for a container.")
        return Place(StorageScope(scope.project, scope.branch), file_id, name)

    def find(self, container: str) -> Place | None:
        """What a container's name stands for; None when it is none of ours."""
        words, _, tag = container.removeprefix(_PREFIX).rpartition("-")
        *ids, file_id = words.split("-")
        if not container.startswith(_PREFIX) or not (1 <= len(ids) <= 2):
            return None
        if not hmac.compare_digest(tag.encode(), self._tag(words).encode()):
            return None
        project, *branch = map(_unword, ids)
        scope = StorageScope(project, branch[0] if branch else None)
        return Place(scope, int(file_id), container)

    def _tag(self, words: str) -> str:
        digest = hmac.digest(self._key, b"container\n" + words.encode(), "sha256")
        return base64.b32encode(digest[:10]).decode().lower()

    async def blob_name(
        self, place: Place, detail: Callable[[StorageScope, int], Awaitable[FileDetail]]
    ) -> str:
        """`Place.blob_name`, for which `detail` is asked only when nobody has asked before.

        It never changes: a file keeps its id, its name, and whether it is sliced.
        """
        name = self._names.get(place.container)
        if name is None:
            name = place.blob_name(await detail(place.scope, place.file_id))
            self._names[place.container] = name
            if len(self._names) > _REMEMBERED:
                self._names.popitem(last=False)
        return name

    # -- what is given out -------------------------------------------------------------------------

    def upload_parameters(self, place: Place, detail: FileDetail, base: str) -> dict[str, object]:
        """What `files/prepare` answers beside the file."""
        return {
            "absUploadParams": {
                "blobName": place.blob_name(detail),
                "accountName": "kbc",
                "container": place.container,
                "absCredentials": self._credentials(place, base, "rwl"),
            }
        }

    def read_parameters(self, place: Place, detail: FileDetail, base: str) -> dict[str, object]:
        """What a file's detail has with credentials."""
        return {
            "absPath": {"container": place.container, "name": place.blob_name(detail)},
            "absCredentials": self._credentials(place, base, "rl"),
        }

    def url(self, place: Place, detail: FileDetail, base: str) -> str:
        """Where a file's content, or the manifest of a sliced one, can be read by anybody."""
        blob = place.blob_name(detail) + (MANIFEST if detail.is_sliced else "")
        signature = urlencode(self._signature(place.container, blob, "r"))
        return f"{endpoint(base)}/{place.container}/{quote(blob)}?{signature}"

    def _credentials(self, place: Place, base: str, permissions: str) -> dict[str, object]:
        signature = self._signature(place.container, None, permissions)
        return {
            "SASConnectionString": (
                f"BlobEndpoint={endpoint(base)};SharedAccessSignature={urlencode(signature)}"
            ),
            "expiration": storage_moment(self._end()),
        }

    def _signature(self, container: str, blob: str | None, permissions: str) -> dict[str, str]:
        values = {
            "sv": _VERSION,
            "sr": "c" if blob is None else "b",
            "st": _written(self._start()),
            "se": _written(self._end()),
            "sp": permissions,
        }
        return {**values, "sig": self._sign(container, blob, values)}

    def _start(self) -> datetime:
        now = self._clock()
        return now - (now - datetime.min.replace(tzinfo=UTC)) % PERIOD

    def _end(self) -> datetime:
        return self._start() + PERIOD + self._lifetime

    def _sign(self, container: str, blob: str | None, values: Mapping[str, str]) -> str:
        parts = [container, "" if blob is None else blob]
        parts += [values[name] for name in ("sv", "sr", "st", "se", "sp")]
        text = "".join(f"{len(part)}:{part}\n" for part in parts)
        digest = hmac.digest(
            self._key, b"signature\n" + text.encode("utf-8", "surrogatepass"), "sha256"
        )
        return base64.urlsafe_b64encode(digest).decode().rstrip("=")

    # -- what is shown -----------------------------------------------------------------------------

    def check(
        self, container: str, blob: str | None, query: Mapping[str, str], permission: Permission
    ) -> Place:
        """The content that a request may use in this way; `blob` is None for the container itself.

        Raises:
            Refused: 403, with the protocol's word.
        """
        values = {name: query.get(name, "") for name in ("sv", "sr", "st", "se", "sp")}
        signed_blob = blob if values["sr"] == "b" else None
        expected = self._sign(container, signed_blob, values)
        if not hmac.compare_digest(
            expected.encode(), query.get("sig", "").encode("utf-8", "replace")
        ):
            raise _forbidden("AuthenticationFailed", "The signature is not valid.")
        place = self.find(container)
        if place is None:
            raise _forbidden("AuthenticationFailed", "The signature is of another installation.")
        now = _written(self._clock())  # of equal length, so texts compare as the moments do
        if not values["st"] <= now < values["se"]:
            raise _forbidden("AuthenticationFailed", "The signature has expired.")
        if permission not in values["sp"] or (blob is None and values["sr"] != "c"):
            raise _forbidden(
                "AuthorizationPermissionMismatch", "The signature does not allow this."
            )
        return place


def endpoint(base: str) -> str:
    """Where all containers are, for clients that reach the server at `base`."""
    return f"{base}/{ACCOUNT}"


def signing_key(home: Path) -> bytes:
    """The key of an installation, made when there is none.

    Raises:
        ApplicationError: it cannot be read or written, or is not a key.
    """
    path = home / KEY_FILE
    try:
        if not path.exists():
            _write_key(path)
        key = path.read_bytes()
    except OSError as error:
        raise ApplicationError(
            f"The signing key {path} cannot be used: {error.strerror}."
        ) from error
    if len(key) != _KEY_BYTES:
        raise ApplicationError(
            f"{path} is not a signing key: it has {len(key)} bytes. Remove it, and a new one is made; "
            "URLs of files that were given out are not valid then."
        )
    return key


def _write_key(path: Path) -> None:
    path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
    unfinished = path.with_name(f"{KEY_FILE}.{uuid4().hex}")
    try:
        fd = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "wb") as file:
            file.write(os.urandom(_KEY_BYTES))
            file.flush()
            os.fsync(fd)
        with suppress(FileExistsError):  # of another process that began at the same time
            os.link(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def _word(id_: str) -> str:
    """An id as a part of a container's name: letters in lower case and digits, and read back."""
    if re.fullmatch(r"[0-9]+", id_):
        return id_
    return "x" + base64.b32encode(id_.encode()).decode().rstrip("=").lower()


def _unword(word: str) -> str:
    if not word.startswith("x"):
        return word
    text = word[1:].upper()
    return base64.b32decode(text + "=" * (-len(text) % 8)).decode()


def _written(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _forbidden(code: str, message: str) -> Refused:
    return Refused(403, message, code=code)
