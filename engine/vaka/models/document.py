"""Reading and writing documents from outside: JSON or YAML, whatever a component may have made of them.

What `load_document` returns is plain JSON values, bounded in size, depth and number, so that nothing
that walks them later can be brought down by them. Whatever the bytes are, the only error is
`InvalidInput`.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Literal, NoReturn

import yaml
from yaml.composer import Composer
from yaml.constructor import ConstructorError, SafeConstructor
from yaml.parser import Parser
from yaml.reader import Reader
from yaml.resolver import BaseResolver
from yaml.scanner import Scanner

from vaka.errors import InvalidInput
from vaka.models.catalog import Json

Format = Literal["json", "yaml"]

MAX_JSON_BYTES = 16 << 20
"""A manifest of a thousand columns with metadata has about one megabyte."""
MAX_YAML_BYTES = 1 << 20
"""YAML is read about a hundred times slower than JSON."""
MAX_DEPTH = 200
"""Levels of nesting. Python's own stack ends near a thousand, and some of it is in use."""
MAX_VALUES = 200_000
"""Values in one document, counted as often as a YAML alias repeats them. Two thousand columns with ten
entries of metadata each have a third as many."""
MAX_YAML_NODES = 100_000
"""Values and keys in one YAML document, aliases counted once. Each takes 1 kB and 20 µs to read."""
MAX_NUMBER_BITS = 4096
"""Beyond, turning an integer into text is refused or slow."""
_SHOWN = 300
"""Characters of a parser's words that a message quotes."""


def load_document(data: bytes, format: Format = "json", *, max_bytes: int | None = None) -> Json:  # noqa: A002 - the document's format
    """The value that a JSON or YAML document holds.

    Raises:
        InvalidInput: the document is too large, too deep, not in its format, or holds what JSON
            cannot say (dates are read as text; infinity, binary values and sets are refused).
    """
    limit = max_bytes or (MAX_JSON_BYTES if format == "json" else MAX_YAML_BYTES)
    if len(data) > limit:
        raise InvalidInput(f"The document has {len(data)} bytes; at most {limit} are allowed.")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidInput(f"The document is not UTF-8: byte {error.start} is invalid.") from error
    try:
        value = _load_json(text) if format == "json" else _load_yaml(text)
    except RecursionError:
        raise InvalidInput(f"The document is nested deeper than {MAX_DEPTH} levels.") from None
    check_json(value)
    return value


def check_json(value: object, *, path: str = "") -> None:
    """Make sure that a value is what JSON can say, and within the limits of this module.

    Raises:
        InvalidInput: it is not.
    """
    where = f' under "{path}"' if path else ""
    stack: list[Iterator[object]] = [iter((value,))]
    count = 0
    while stack:
        for item in stack[-1]:
            count += 1
            if count > MAX_VALUES:
                raise InvalidInput(
                    f"The document{where} holds more than {MAX_VALUES} values.", path=path
                )
            match item:
                case None | bool():
                    continue
                case str() if _is_text(item):
                    continue
                case int() if item.bit_length() <= MAX_NUMBER_BITS:
                    continue
                case float() if math.isfinite(item):
                    continue
                case int() | float():
                    raise InvalidInput(
                        f"The document{where} holds a number that is not finite or too large.",
                        path=path,
                    )
                case list():
                    stack.append(iter(item))
                case dict() if all(isinstance(key, str) and _is_text(key) for key in item):
                    stack.append(iter(item.values()))
                case str() | dict():
                    raise InvalidInput(
                        f"The document{where} holds text that is not Unicode, or a key that is "
                        "not text.",
                        path=path,
                    )
                case _:
                    raise InvalidInput(
                        f"The document{where} holds a value of type {type(item).__name__}, which "
                        "JSON does not know.",
                        path=path,
                    )
            break
        else:
            stack.pop()
        if len(stack) > MAX_DEPTH + 1:
            raise InvalidInput(
                f"The document{where} is nested deeper than {MAX_DEPTH} levels.", path=path
            )


def _is_text(value: str) -> bool:
    """Whether a string can be written: half a surrogate pair cannot."""
    if value.isascii():
        return True
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def dump_document(value: Json, format: Format = "json") -> bytes:  # noqa: A002
    r"""A document as components get it.

    JSON has four spaces a level, `\/` for `/`, `\uXXXX` outside ASCII and no line break at its end.
    YAML has four spaces a level, ten levels of block style, and `{  }` for what is empty.
    """
    if format == "json":
        # a slash can stand only inside a string, where it may be escaped
        return json.dumps(value, indent=4, allow_nan=False).replace("/", "\\/").encode("ascii")
    if value is None or value in ([], {}):
        return b"{  }"
    lines: list[str] = []
    if isinstance(value, list | Mapping):
        _yaml_block(value, 0, lines)
    else:
        lines.append(_yaml_scalar(value))
    return ("\n".join(lines) + "\n").encode()


def _load_json(text: str) -> Json:
    def refuse(word: str) -> NoReturn:
        raise InvalidInput(f"{word} is not a JSON value.")

    if _count_values(text) > MAX_VALUES:  # before they take twenty times as much memory
        raise InvalidInput(f"The document holds more than {MAX_VALUES} values.")
    try:
        return json.loads(text, parse_constant=refuse)
    except json.JSONDecodeError as error:
        raise InvalidInput(f"{error.msg}: line {error.lineno}, column {error.colno}.") from error
    except ValueError as error:  # an integer with more digits than Python converts
        raise InvalidInput("The document holds a number that is too large.") from error


_STRING = re.compile(r'"(?:[^"\\]|\\.)*+"?', re.DOTALL)


def _count_values(text: str) -> int:
    """Values in a JSON text, give or take one for each empty list or object."""
    count = sum(text.count(mark) for mark in "[{,")
    if count > MAX_VALUES:  # some may stand in strings
        text = _STRING.sub("", text)
        count = sum(text.count(mark) for mark in "[{,")
    return count


class _PlainResolver(BaseResolver):
    """Knows the scalars of JSON only: a date stays text, and so do `yes` and `12:30`."""


class _PlainConstructor(SafeConstructor):
    """Makes JSON values only, and keeps keys as they are written."""

    yaml_constructors: ClassVar[dict[str | None, Any]] = {}
    yaml_multi_constructors: ClassVar[dict[str | None, Any]] = {}

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Leave `<<` alone: merging multiplies, and no JSON document has it."""

    def construct_mapping(self, node: yaml.Node, deep: bool = False) -> dict[Any, Any]:
        """A dictionary whose keys are the text of the keys, so `1: a` has the key `"1"`."""
        if not isinstance(node, yaml.MappingNode):
            raise ConstructorError(None, None, "expected a mapping", node.start_mark)
        mapping: dict[str, Any] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise ConstructorError(None, None, "a key must be text", key.start_mark)
            mapping[key.value] = self.construct_object(value, deep=deep)
        return mapping


def _construct_bool(self: SafeConstructor, node: yaml.ScalarNode) -> bool:
    return str(self.construct_scalar(node)).lower() == "true"


def _construct_int(self: SafeConstructor, node: yaml.ScalarNode) -> int:
    digits = str(self.construct_scalar(node))
    return int(digits, 0 if digits[1:2] in {"x", "o"} else 10)


def _construct_float(self: SafeConstructor, node: yaml.ScalarNode) -> float:
    return float(str(self.construct_scalar(node)).replace(".inf", "inf").replace(".nan", "nan"))


_TAG = "tag:yaml.org,2002:"
_IMPLICIT = (  # name, pattern, first characters ("" for the empty scalar)
    ("null", r"(?:~|null|Null|NULL|)", ["~", "n", "N", ""]),
    ("bool", r"(?:true|True|TRUE|false|False|FALSE)", list("tTfF")),
    ("int", r"(?:[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)", list("-+0123456789")),
    (
        "float",
        r"(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.inf|\.nan)",
        list("-+.0123456789"),
    ),
)
for _name, _pattern, _letters in _IMPLICIT:
    _PlainResolver.add_implicit_resolver(_TAG + _name, re.compile(f"^{_pattern}$"), _letters)
_PlainConstructor.yaml_constructors.update(
    {
        _TAG + "null": SafeConstructor.construct_yaml_null,
        _TAG + "bool": _construct_bool,
        _TAG + "int": _construct_int,
        _TAG + "float": _construct_float,
        _TAG + "str": SafeConstructor.construct_yaml_str,
        _TAG + "seq": SafeConstructor.construct_yaml_seq,
        _TAG + "map": SafeConstructor.construct_yaml_map,
        None: SafeConstructor.construct_undefined,
    }
)


class _PlainLoader(Reader, Scanner, Parser, Composer, _PlainConstructor, _PlainResolver):
    def __init__(self, stream: str) -> None:
        Reader.__init__(self, stream)
        Scanner.__init__(self)
        Parser.__init__(self)
        Composer.__init__(self)
        _PlainConstructor.__init__(self)
        _PlainResolver.__init__(self)
        self._nodes = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self._nodes += 1
        if self._nodes > MAX_YAML_NODES:
            raise InvalidInput(f"The document holds more than {MAX_YAML_NODES} values and keys.")
        return super().compose_node(parent, index)


def _load_yaml(text: str) -> Json:
    loader: _PlainLoader | None = None
    try:
        loader = _PlainLoader(text)
        return loader.get_single_data()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f": line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        what = ": ".join(part for part in (error.context, error.problem) if part)
        raise InvalidInput(f"{what[:_SHOWN]}{place}.") from error
    except yaml.YAMLError as error:
        raise InvalidInput(f"{str(error).splitlines()[0][:_SHOWN]}.") from error
    except ValueError as error:  # an explicit tag that does not fit, or too many digits
        raise InvalidInput("The document holds a number that cannot be read.") from error
    finally:
        if loader is not None:
            loader.dispose()


_INLINE_DEPTH = 10
_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_./]*(?:[ -][A-Za-z0-9_./]+)*")
_POINTLESS = re.compile(r"^(-?\d+)e")
_WORDS = {"null", "true", "false", "yes", "no", "on", "off", "y", "n"}
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufeff\ufffe\uffff]")


def _yaml_block(value: Json, depth: int, lines: list[str]) -> None:
    """Append a list or mapping that is not empty, its entries indented by `depth` levels."""
    indent = "    " * depth
    entries = (
        (("-", item) for item in value)
        if isinstance(value, list)
        else ((_yaml_scalar(key) + ":", item) for key, item in value.items())
    )
    for head, item in entries:
        if isinstance(item, list | Mapping) and item and depth + 1 < _INLINE_DEPTH:
            lines.append(indent + head)
            _yaml_block(item, depth + 1, lines)
        else:
            lines.append(f"{indent}{head} {_yaml_inline(item)}")


def _yaml_inline(value: Json) -> str:
    if isinstance(value, list | Mapping) and not value:
        return "{  }"
    if isinstance(value, list):
        return "[" + ", ".join(map(_yaml_inline, value)) + "]"
    if isinstance(value, Mapping):
        pairs = (f"{_yaml_scalar(key)}: {_yaml_inline(item)}" for key, item in value.items())
        return "{ " + ", ".join(pairs) + " }"
    return _yaml_scalar(value)


def _yaml_scalar(value: Json) -> str:
    if not isinstance(value, str):
        number = json.dumps(value, allow_nan=False)
        # older readers take a float for text when it has no point
        return _POINTLESS.sub(r"\1.0e", number)
    if _PLAIN.fullmatch(value) and value.lower() not in _WORDS:
        return value
    # a JSON string is a YAML string, but for characters that YAML wants escaped and JSON does not
    text = json.dumps(value, ensure_ascii=False)
    return _UNPRINTABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
