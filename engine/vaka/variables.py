"""Variables and shared code: what stands in a configuration for something that is kept elsewhere.

Rules only, without any input or output (runner.md section 9): what the configurations of variables, of
their values and of shared code must look like, and what replaces what. Nothing here decrypts; a value
that is a cipher is inserted as one.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from vaka.errors import InvalidInput
from vaka.models.catalog import Json
from vaka.models.document import MAX_VALUES, check_json
from vaka.models.tree import Anything, ListOf, Object, Scalar, invalid, text
from vaka.mustache import LONGEST, broken, escaped, render

VARIABLES: Final = "keboola.variables"
"""Component whose configurations declare variables, and whose rows hold values."""
SHARED_CODE: Final = "keboola.shared-code"
"""Component whose configurations are libraries of code, a snippet a row."""
BUILT_IN: Final = {VARIABLES: "Variables", SHARED_CODE: "Shared code"}
"""Components that hold configurations and are never run, with their names."""
VAULT: Final = "vault."
"""What placeholders of the vault's variables begin with."""

_ROOT: Final = "configuration"
_SPACE: Final = r"(?:\s|\\[nrtbf])*"
_VAULT: Final = re.compile(rf"(?<!{{){{{{{_SPACE}vault\.([A-Za-z0-9_-]+){_SPACE}}}}}")
_SNIPPET: Final = re.compile(r"\{\{\s*([^{}\s]+)\s*\}\}")


def _code(value: Json, path: str) -> Json:
    """Code as a list of scalars; a single one is a list of one."""
    if isinstance(value, dict) or value is None:
        raise invalid(path, "must be a list of scalars")
    return value if isinstance(value, list) else [value]


_WORD: Final = Scalar(required=True, non_empty=True)
_DECLARATION: Final = Object(
    children={"variables": ListOf(item=Object(children={"name": _WORD, "type": _WORD}))}
)
_VALUES: Final = Object(
    children={"values": ListOf(item=Object(children={"name": _WORD, "value": _WORD}))}
)
_SHARED: Final = Object(
    children={
        "code_content": Anything(required=True, rules=(_code,)),
        "variables_id": Scalar(),
    }
)


@dataclass(frozen=True, slots=True)
class Resolved:
    """A configuration with its placeholders replaced."""

    configuration: Json
    used: Mapping[str, str]
    """Name to value of everything that was inserted, the vault's with their prefix."""
    missing: tuple[str, ...]
    """Names of placeholders that nothing is known for; they became empty, the vault's were left."""


def declared_names(document: Json) -> tuple[str, ...]:
    """The names that a variables configuration declares.

    Raises:
        InvalidInput: the configuration is malformed.
    """
    parsed = _parsed(_DECLARATION, document, "Variable configuration is invalid")
    return tuple(text(item["name"]) for item in parsed["variables"])


def given_values(document: Json) -> dict[str, str]:
    """Name to value of a row of values, or of values that come with a job.

    Raises:
        InvalidInput: the document is malformed.
    """
    parsed = _parsed(_VALUES, document, "Variable values configuration is invalid")
    return {text(item["name"]): text(item["value"]) for item in parsed["values"]}


def code_content(document: Json) -> tuple[Json, ...]:
    """The lines of a row of shared code.

    Raises:
        InvalidInput: the row is malformed.
    """
    problem = "Shared code configuration is invalid"
    lines = _parsed(_SHARED, document, problem)["code_content"]
    for index, line in enumerate(lines):
        if isinstance(line, list | dict):
            raise InvalidInput(
                f'{problem}: Invalid type for path "{_ROOT}.code_content.{index}". '
                'Expected "scalar", but got "array".',
                path=f"{_ROOT}.code_content.{index}",
            )
    return tuple(lines)


def check_declared(names: Sequence[str], values: Mapping[str, str]) -> None:
    """See that every declared variable has a value, used or not.

    Raises:
        InvalidInput: one has none.
    """
    for name in names:
        if name not in values:
            raise InvalidInput(f'No value provided for variable "{name}".', path=name)


def insert_shared_code(configuration: Json, snippets: Mapping[str, Sequence[Json]]) -> Json:
    """`configuration` with code in place of the elements that ask for it (section 9.7).

    Only lists of scalars are looked at. An element with a placeholder of a snippet is replaced whole, by
    the lines of all snippets it names, in the order of `snippets`.

    Raises:
        InvalidInput: the result has more values than a document may have.
    """
    return _Inserter(snippets).inserted(configuration)


class _Inserter:
    def __init__(self, snippets: Mapping[str, Sequence[Json]]) -> None:
        self._snippets = snippets
        self._left = MAX_VALUES

    def inserted(self, value: Json) -> Json:
        if isinstance(value, Mapping):
            return {key: self.inserted(item) for key, item in value.items()}
        if not isinstance(value, list):
            return value
        if any(isinstance(item, list | Mapping) for item in value):
            return [self.inserted(item) for item in value]
        return [line for item in value for line in self._lines(item)]

    def _lines(self, item: Json) -> Sequence[Json]:
        named = set(_SNIPPET.findall(item)) if isinstance(item, str) and "{{" in item else set()
        wanted = [lines for name, lines in self._snippets.items() if name in named]
        if not wanted:
            return [item]
        self._left -= sum(map(len, wanted))
        if self._left < 0:
            raise InvalidInput(
                f"With its shared code inserted, the configuration has more than {MAX_VALUES} values."
            )
        return [line for lines in wanted for line in lines]


def needs_vault(configuration: Json) -> bool:
    """Whether there is a placeholder of the vault in a configuration."""
    return any("vault." in word and _VAULT.search(word) for word in _strings(configuration))


def replace(
    configuration: Json, *, values: Mapping[str, str] | None, vault: Mapping[str, str]
) -> Resolved:
    """`configuration` with values in place of its placeholders (sections 9.4 and 9.6).

    Args:
        configuration: the whole, checked and normalised.
        values: those of the configuration's variables; None leaves placeholders other than the vault's
            as they are.
        vault: variables of the vault, by name without prefix.

    Raises:
        InvalidInput: what comes out is no configuration, or too large.
    """
    template = json.dumps(configuration, ensure_ascii=False, separators=(",", ":"))
    used: dict[str, str] = {}
    missing: dict[str, None] = {}
    # The vault's values go in last, and until then something stands for them that nobody could write:
    # whatever they hold is not looked at again.
    mark = secrets.token_hex(16)

    def stand_in(match: re.Match[str]) -> str:
        name = match[1]
        if name not in vault:
            missing[VAULT + name] = None
            return match[0]
        used[VAULT + name] = vault[name]
        return _stand_in(mark, name)

    result = _VAULT.sub(stand_in, template)
    if values is not None:
        rendered = render(result, values)
        result = rendered.text
        used |= rendered.used
        missing |= dict.fromkeys(rendered.missing)
    result = _with_vault(result, _stand_in(mark, "([A-Za-z0-9_-]+)"), vault)
    return Resolved(_document(result), used, tuple(missing))


def _stand_in(mark: str, name: str) -> str:
    return f"\ue000{mark}:{name}\ue000"


def _with_vault(template: str, pattern: str, vault: Mapping[str, str]) -> str:
    size = len(template)

    def value(match: re.Match[str]) -> str:
        nonlocal size
        inserted = escaped(vault[match[1]])
        size += len(inserted)
        if size > LONGEST:
            raise broken(f"it has more than {LONGEST} characters")
        return inserted

    return re.sub(pattern, value, template)


def _document(template: str) -> Json:
    """The configuration that a rendered text holds."""
    try:
        document = json.loads(template)
        check_json(document)
    except ValueError as error:
        raise broken("Syntax error") from error
    except RecursionError as error:
        raise broken("Maximum stack depth exceeded") from error
    except InvalidInput as error:
        raise broken(error.message) from error
    return document


def _parsed(node: Object, document: Json, problem: str) -> dict[str, Any]:
    try:
        parsed: dict[str, Any] = node.parse(document, _ROOT)
    except InvalidInput as error:
        raise InvalidInput(f"{problem}: {error.message}", path=error.path) from error
    return parsed


def _strings(value: Json) -> Iterator[str]:
    """Every text of a document, keys included."""
    stack: list[Json] = [value]
    while stack:
        match stack.pop():
            case str() as word:
                yield word
            case Mapping() as members:
                yield from members
                stack.extend(members.values())
            case list() as items:
                stack.extend(items)
            case _:
                pass
