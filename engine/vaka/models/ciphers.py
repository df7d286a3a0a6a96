"""Ciphers as texts: which prefixes there are, what each is bound to, which values are secret.

A scalar under a key that begins with `#` is a secret. It is either a cipher, which begins with one of
`PREFIXES`, or in the clear; in the clear it is written down nowhere. Source: encryption.md section 2.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, Literal

from vaka.errors import InvalidInput
from vaka.models.catalog import Json

BOUND_IDS: Final = ("stackId", "componentId", "projectId", "configurationId", "branchType")
"""What a cipher can be bound to, in the order of the scope bits, lowest first."""
_STACK, _COMPONENT, _PROJECT, _CONFIGURATION, _BRANCH = BOUND_IDS

FAMILIES: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "Secure": (_STACK,),
        "ComponentSecure": (_STACK, _COMPONENT),
        "ProjectSecure": (_STACK, _COMPONENT, _PROJECT),
        "ConfigSecure": (_STACK, _COMPONENT, _PROJECT, _CONFIGURATION),
        "ProjectWideSecure": (_STACK, _PROJECT),
        "BranchTypeSecure": (_STACK, _COMPONENT, _PROJECT, _BRANCH),
        "ProjectWideBranchTypeSecure": (_STACK, _PROJECT, _BRANCH),
        "BranchTypeConfigSecure": BOUND_IDS,
    }
)
"""Families of ciphers that are made, and the ids each is bound to."""
_CLOUDS: Final = ("", "KV", "GKMS")
LEGACY_PREFIXES: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "KBC::Encrypted==": (),
        "KBC::ComponentEncrypted==": (_COMPONENT,),
        "KBC::ComponentProjectEncrypted==": (_COMPONENT, _PROJECT),
    }
)
"""Prefixes that are read and never written."""
PREFIXES: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        **{
            f"KBC::{family}{cloud}::": bound
            for cloud in _CLOUDS
            for family, bound in FAMILIES.items()
        },
        **LEGACY_PREFIXES,
    }
)
"""All 27 known prefixes, and the ids that a cipher of each is bound to."""
_KNOWN: Final = frozenset(PREFIXES)
WRITTEN_PREFIXES: Final = frozenset(f"KBC::{family}::" for family in FAMILIES)
"""Those that are written."""

BranchType = Literal["default", "dev"]
_LONGEST_ID: Final = 255
_PARAMETERS: Final = {
    "component": "componentId",
    "project": "projectId",
    "configuration": "configId",
    "branch_type": "branchType",
}


@dataclass(frozen=True, slots=True)
class Scope:
    """Where something is encrypted or decrypted: the ids of the current context, less the stack.

    Raises:
        InvalidInput: an id is empty, has more than 255 bytes, or holds what no id holds.
    """

    component: str | None = None
    project: str | None = None
    configuration: str | None = None
    branch_type: str | None = None

    def __post_init__(self) -> None:
        for attribute, parameter in _PARAMETERS.items():
            value = getattr(self, attribute)
            if value is not None:
                _check_id(parameter, value)
        if self.branch_type not in {None, "default", "dev"}:
            raise InvalidInput(
                'The branchType parameter must be "default" or "dev".', path="branchType"
            )

    @property
    def family(self) -> str:
        """The family that values of this scope are encrypted in: it binds all the ids given.

        Raises:
            InvalidInput: no family binds just these.
        """
        if self.project is None:
            if self.configuration is not None:
                raise InvalidInput(
                    "The configId parameter must be used together with projectId.", path="configId"
                )
            if self.branch_type is not None:
                raise InvalidInput(
                    "The branchType parameter must be used together with projectId.",
                    path="branchType",
                )
            return "Secure" if self.component is None else "ComponentSecure"
        if self.component is None:
            if self.configuration is not None:
                raise InvalidInput(
                    "The configId parameter must be used together with componentId.",
                    path="configId",
                )
            return (
                "ProjectWideSecure" if self.branch_type is None else "ProjectWideBranchTypeSecure"
            )
        if self.configuration is None:
            return "ProjectSecure" if self.branch_type is None else "BranchTypeSecure"
        return "ConfigSecure" if self.branch_type is None else "BranchTypeConfigSecure"


def _check_id(parameter: str, value: str) -> None:
    if value == "":
        raise InvalidInput(f'Parameter "{parameter}" must not be empty.', path=parameter)
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        size = _LONGEST_ID + 1
    if size > _LONGEST_ID or any(char < " " or "\x7f" <= char < "\xa0" for char in value):
        raise InvalidInput(
            f'Parameter "{parameter}" must have at most {_LONGEST_ID} bytes of UTF-8 and no control '
            "characters.",
            path=parameter,
        )


@dataclass(frozen=True, slots=True)
class CipherScope:
    """What one cipher is bound to: its prefix, and the ids that the prefix demands."""

    prefix: str
    ids: Mapping[str, str]
    """By the names of `BOUND_IDS`; only those that are bound."""
    bits: int = field(init=False)
    """One bit an id that is bound, in the order of `BOUND_IDS`."""
    encoded: bytes = field(init=False)
    """All of it as bytes that no other scope has (encryption.md section 10.2, `S`)."""

    def __post_init__(self) -> None:
        bits = sum(1 << n for n, name in enumerate(BOUND_IDS) if name in self.ids)
        parts = [b"runner-cipher/v1/scope\0", _sized(self.prefix)]
        parts += [_sized(self.ids[name]) if name in self.ids else b"\xff\xff" for name in BOUND_IDS]
        object.__setattr__(self, "bits", bits)
        object.__setattr__(self, "encoded", b"".join(parts))

    @property
    def family(self) -> str:
        """The prefix without what is the same in all of them."""
        return self.prefix.removeprefix("KBC::").removesuffix("::")


def _sized(text: str) -> bytes:
    data = text.encode()
    return len(data).to_bytes(2, "big") + data


def cipher_scope(prefix: str, scope: Scope, stack: str) -> CipherScope | None:
    """What a cipher of this prefix is bound to here; None when the scope lacks an id of it."""
    here = {
        _STACK: stack,
        _COMPONENT: scope.component,
        _PROJECT: scope.project,
        _CONFIGURATION: scope.configuration,
        _BRANCH: scope.branch_type,
    }
    ids: dict[str, str] = {}
    for name in PREFIXES.get(prefix, ()):
        value = here[name]
        if value is None:
            return None
        ids[name] = value
    return CipherScope(prefix, MappingProxyType(ids))


def split_cipher(value: str) -> tuple[str, str] | None:
    """The prefix and the body of a value that begins with a known prefix, else None."""
    if not value.startswith("KBC::"):
        return None
    end = value.find("::", 5) + 2
    prefix = value[:end]
    if prefix not in _KNOWN:
        end = value.find("==", 5) + 2
        prefix = value[:end]
        if prefix not in LEGACY_PREFIXES:
            return None
    return prefix, value[end:]


def family_of(prefix: str) -> str | None:
    """The family of a prefix, whichever key service it names; None when it is of the old ones."""
    name = prefix.removeprefix("KBC::").removesuffix("::")
    for cloud in _CLOUDS:
        if name.removesuffix(cloud) in FAMILIES:
            return name.removesuffix(cloud)
    return None


def is_cipher(value: Json) -> bool:
    """Whether a value begins with a known prefix, whatever comes after it."""
    return isinstance(value, str) and split_cipher(value) is not None


def refuse_plain_secrets(document: Json, what: str) -> None:
    """Refuse to store a document with a secret in the clear; `what` is what messages call it.

    Raises:
        InvalidInput: names the key, never the value.
    """
    for path, value in _secrets(document):
        if value not in (None, "") and not is_cipher(value):
            raise InvalidInput(
                f'The value of "{path}" of {what} must be encrypted before it is stored. Give it '
                "encrypted.",
                path=path,
            )


def has_plain_secrets(document: Json) -> bool:
    """Whether a document has a secret in the clear."""
    return any(value not in (None, "") and not is_cipher(value) for _, value in _secrets(document))


def _secrets(document: Json) -> Iterator[tuple[str, Json]]:
    """(Dotted path, value) of every scalar under a marked key."""
    stack: list[tuple[str, bool, Json]] = [("", False, document)]
    while stack:
        path, is_marked, value = stack.pop()
        match value:
            case Mapping():
                stack.extend(
                    (f"{path}.{key}" if path else key, key.startswith("#"), item)
                    for key, item in value.items()
                )
            case list() | tuple():
                stack.extend((f"{path}.{n}", False, item) for n, item in enumerate(value))
            case _ if is_marked:
                yield path, value
