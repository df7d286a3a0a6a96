"""The messages of the validator, one by one, and what it does to what is valid."""

from __future__ import annotations

from typing import Any

import pytest

from vaka.errors import InvalidInput
from vaka.models.tree import (
    ABSENT,
    Anything,
    Bool,
    Choice,
    Int,
    ListOf,
    MapOf,
    Node,
    Object,
    Scalar,
    absent_when_empty,
    invalid,
    null_as,
)

TREE = Object(
    children={
        "name": Scalar(non_empty=True),
        "some_key": Scalar(default="x"),
        "count": Int(minimum=1),
        "flag": Bool(default=False),
        "kind": Choice(words=("a", "b")),
        "tags": ListOf(item=Scalar()),
        "pair": ListOf(item=Scalar(), optional=True, minimum=2),
        "inner": Object(children={"must": Scalar(required=True)}),
        "free": Anything(),
        "map": MapOf(item=ListOf(item=Scalar()), optional=True),
    }
)


def refusal(tree: Node, value: Any, path: str = "root") -> InvalidInput:
    with pytest.raises(InvalidInput) as caught:
        tree.parse(value, path)
    return caught.value


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (
            {"zzzzzz": 1},
            'Unrecognized option "zzzzzz" under "root". Available options are "count", "flag", '
            '"free", "inner", "kind", "map", "name", "pair", "some_key", "tags".',
        ),
        ({"nme": 1}, 'Unrecognized option "nme" under "root". Did you mean "name"?'),
        ({"lag": 1}, 'Unrecognized option "lag" under "root". Did you mean "flag", "map", "tags"?'),
        (
            {"nme": 1, "zzzzzz": 2},
            'Unrecognized options "nme, zzzzzz" under "root". Did you mean "name"?',
        ),
        (
            {"inner": {"strange": 1}},
            'Unrecognized option "strange" under "root.inner". Available option is "must".',
        ),
        ({"flag": "1"}, 'Invalid type for path "root.flag". Expected "bool", but got "string".'),
        ({"flag": 1}, 'Invalid type for path "root.flag". Expected "bool", but got "int".'),
        ({"count": 1.5}, 'Invalid type for path "root.count". Expected "int", but got "float".'),
        ({"count": True}, 'Invalid type for path "root.count". Expected "int", but got "bool".'),
        ({"count": None}, 'Invalid type for path "root.count". Expected "int", but got "null".'),
        ({"tags": "a"}, 'Invalid type for path "root.tags". Expected "array", but got "string".'),
        ({"inner": 1}, 'Invalid type for path "root.inner". Expected "array", but got "int".'),
        (
            {"tags": ["a", {"b": 1}]},
            'Invalid type for path "root.tags.1". Expected "scalar", but got "array".',
        ),
        ({"kind": []}, 'Invalid type for path "root.kind". Expected "scalar", but got "array".'),
        ({"map": {"k": 1}}, 'Invalid type for path "root.map.k". Expected "array", but got "int".'),
        ({"inner": {}}, 'The child config "must" under "root.inner" must be configured.'),
        ({"inner": None}, 'The child config "must" under "root.inner" must be configured.'),
        ({"name": ""}, 'The path "root.name" cannot contain an empty value, but got "".'),
        ({"name": None}, 'The path "root.name" cannot contain an empty value, but got null.'),
        (
            {"kind": "c"},
            'The value "c" is not allowed for path "root.kind". Permissible values: "a", "b".',
        ),
        ({"pair": [1]}, 'The path "root.pair" should have at least 2 element(s) defined.'),
        (
            {"count": 0},
            'The value 0 is too small for path "root.count". Should be greater than or equal to 1',
        ),
        ("x", 'Invalid type for path "root". Expected "array", but got "string".'),
        (["x"], 'Unrecognized option "0" under "root". Available options are "count", "flag", '
            '"free", "inner", "kind", "map", "name", "pair", "some_key", "tags".'),
    ],
)  # fmt: skip
def test_a_fault_has_the_text_of_the_contract(value: Any, message: str) -> None:
    assert refusal(TREE, value).message == message


def test_a_rule_names_the_path_of_its_node() -> None:
    def never(value: Any, path: str) -> Any:
        raise invalid(path, "never")

    tree = Object(children={"a": ListOf(item=Scalar(rules=(never,)))})

    error = refusal(tree, {"a": ["x"]})

    assert error.message == 'Invalid configuration for path "root.a.0": never'
    assert error.path == "root.a.0"


def test_rules_run_in_order_and_children_before_parents() -> None:
    def append(letter: str) -> Any:
        return lambda value, _: value | {"seen": value.get("seen", "") + letter}

    tree = Object(
        children={"in": Object(extra="keep", rules=(append("a"), append("b")))},
        extra="keep",
        rules=(lambda value, _: value | {"seen": value["in"]["seen"] + "c"},),
    )

    assert tree.parse({"in": {}}, "root")["seen"] == "abc"


def test_an_unknown_key_is_told_before_a_missing_one() -> None:
    assert 'Unrecognized option "strange"' in refusal(TREE, {"inner": {"strange": 1}}).message


def test_defaults_are_added_after_the_given_keys_and_plain_objects_are_not() -> None:
    value = TREE.parse({"tags": None, "name": "n"}, "root")

    assert list(value.items()) == [("tags", []), ("name", "n"), ("some_key", "x"), ("flag", False)]


def test_null_is_the_empty_list_or_object_and_stays_null_as_a_scalar() -> None:
    value = TREE.parse({"tags": None, "map": None, "some_key": None, "free": None}, "root")

    assert (value["tags"], value["map"], value["some_key"], value["free"]) == ([], {}, None, None)


def test_null_for_a_boolean_or_choice_is_as_if_not_given() -> None:
    value = TREE.parse({"flag": None, "kind": None}, "root")

    assert value["flag"] is False
    assert "kind" not in value


def test_an_empty_list_is_an_empty_object_and_the_other_way_round() -> None:
    assert TREE.parse([], "root") == TREE.parse({}, "root")
    assert TREE.parse({"tags": {}}, "root")["tags"] == []


def test_an_object_in_place_of_a_list_gives_its_values() -> None:
    assert TREE.parse({"tags": {"0": "a", "2": "b"}}, "root")["tags"] == ["a", "b"]


def test_hyphens_are_read_as_underscores_unless_the_real_key_is_there() -> None:
    assert TREE.parse({"some-key": "y"}, "root")["some_key"] == "y"
    assert "some-key" in refusal(TREE, {"some-key": "y", "some_key": "z"}).message


def test_a_key_with_an_underscore_keeps_its_hyphens() -> None:
    tree = Object(children={"a_b_c": Scalar()})

    assert '"a-b_c"' in refusal(tree, {"a-b_c": 1}).message


def test_free_nodes_and_maps_keep_their_keys() -> None:
    value = {"free": {"a-b": {"c-d": 1}}, "map": {"e-f": []}}

    parsed = TREE.parse(value, "root")

    assert parsed["free"] == value["free"]
    assert parsed["map"] == value["map"]


def test_extra_keys_are_kept_or_dropped_where_the_tree_says_so() -> None:
    assert Object(extra="keep").parse({"x-y": 1}, "root") == {"x_y": 1}
    assert Object(extra="drop").parse({"x": 1}, "root") == {}


def test_values_are_replaced_or_dropped_before_they_are_checked() -> None:
    tree = Object(
        children={"a": Int(prepare=null_as(0)), "b": Scalar(prepare=absent_when_empty),
                  "c": ListOf(item=Scalar(), remove_empty=True)}
    )  # fmt: skip

    assert tree.parse({"a": None, "b": "", "c": []}, "root") == {"a": 0}


def test_the_given_document_and_the_defaults_are_never_changed() -> None:
    tree = Object(children={"a": Anything(default={"x": []}), "b": ListOf(item=Scalar())})
    given: dict[str, Any] = {}

    tree.parse(given, "root")["a"]["x"].append(1)

    assert given == {}
    assert tree.parse(given, "root") == {"a": {"x": []}, "b": []}


def test_a_node_that_is_not_there_is_absent_for_good() -> None:
    assert Bool().missing() is ABSENT
    assert ListOf(item=Scalar()).missing() == []


def test_huge_keys_and_many_keys_make_short_messages() -> None:
    assert len(refusal(TREE, {"k" * 1_000_000: 1}).message) < 1_000
    assert len(refusal(TREE, {f"key{n}": 1 for n in range(100_000)}).message) < 1_000
    assert len(refusal(TREE, {"kind": "v" * 1_000_000}).message) < 1_000
    assert len(refusal(TREE, {"map": {"k" * 1_000_000: 1}}).message) < 1_000


def test_deep_and_circular_documents_are_refused() -> None:
    deep: Any = []
    for _ in range(100_000):
        deep = [deep]
    circle: dict[str, Any] = {}
    circle["free"] = circle

    assert "nested deeper" in refusal(TREE, {"free": deep}).message
    assert "nested deeper" in refusal(TREE, circle).message
    while deep:  # taken apart here: the interpreter would do it recursively
        deep = deep.pop()
