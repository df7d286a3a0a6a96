"""The rules of placeholders and shared code, without a catalog."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vaka.errors import InvalidInput
from vaka.models.configuration import JobConfiguration
from vaka.mustache import LONGEST
from vaka.variables import (
    check_declared,
    code_content,
    declared_names,
    given_values,
    insert_shared_code,
    needs_vault,
    replace,
)

BROKEN = "Variable replacement resulted in invalid configuration, error: "


def parameters(text: str, values: dict[str, str] | None, **vault: str) -> Any:
    """What becomes of a text among the parameters of a configuration."""
    resolved = replace({"parameters": {"a": text}}, values=values, vault=vault)
    return resolved.configuration["parameters"]["a"]


# -- placeholders ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("foo is {{ foo }} and {{ other }}.", "foo is bar and ."),
        ("{{foo}}{{  foo\t}}{{\nfoo }}", "barbarbar"),
        ("{{& foo }}, {{{ foo }}} and {{{foo}}}", "bar, bar and bar"),
        ("{{#foo}}yes, {{.}}{{/foo}}{{#none}}no{{/none}}", "yes, bar"),
        ("{{^foo}}no{{/foo}}{{^none}}yes{{/none}}", "yes"),
        ("{{#empty}}no{{/empty}}{{#zero}}no{{/zero}}{{^zero}}0{{/zero}}", "0"),
        ("{{#foo}}a{{#none}}b{{foo}}{{/none}}c{{/foo}}", "ac"),
        ("a{{! a {{ comment }}b", "ab"),
        ("{{=<< >>=}}{{ foo }} << foo >><<={{ }}=>> {{ foo }}", "{{ foo }} bar bar"),
        ("a{{> partial }}b", "ab"),
        ("{{ foo }", "{{ foo }"),
        ("{{{ foo }}", "{{{ foo }}"),
        ("{ {{ foo }} }}", "{ bar }}"),
        ("{{ žluť }} {{ a/b }} {{ a.b }}", "ž slash dot"),
        ("{{}}{{ }}", ""),
        ("{{ foo", "{{ foo"),
        ("{", "{"),
    ],
)
def test_placeholders_are_mustache(text: str, result: str) -> None:
    values = {
        "foo": "bar",
        "empty": "",
        "zero": "0",
        "žluť": "ž",
        "a/b": "slash",
        "a.b": "dot",
    }
    assert parameters(text, values) == result


@pytest.mark.scenario("runner", 226)
@pytest.mark.parametrize("value", ['"', "a\nb\r\n\tc", "\\", '\\"', "&<>'", "ž😀\u2028", "\x00"])
def test_any_value_arrives_unchanged(value: str) -> None:
    assert parameters("<{{ v }}>", {"v": value}) == f"<{value}>"
    assert parameters("<{{ vault.v }}>", None, v=value) == f"<{value}>"


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_can_be_a_value_and_is_not_looked_at_again(value: str) -> None:
    assert parameters("{{ v }}", {"v": value}) == value
    assert parameters("{{ vault.v }}{{ v }}", {"v": ""}, v=value) == value


@given(
    st.dictionaries(
        st.text(st.sampled_from('a{}#/^ vault."\\\n')), st.text(st.sampled_from('a{}#/^!=<> "\\n'))
    )
)
def test_whatever_a_configuration_holds_it_is_rendered_or_refused(document: Any) -> None:
    try:
        result = replace(document, values={"a": '"'}, vault={"a": "}}"}).configuration
    except InvalidInput as error:
        result = str(error)
    assert isinstance(result, dict) or result.startswith(BROKEN)


def test_keys_and_every_part_of_a_configuration_are_rendered() -> None:
    given = {
        "parameters": {"{{ k }}": ["{{ v }}", 1, None, True]},
        "storage": {"input": {"tables": [{"source": "in.c-{{ v }}.t", "destination": "t"}]}},
        "processors": {"after": [{"definition": {"component": "{{ v }}"}}]},
        "runtime": {"image_tag": "{{ v }}"},
    }

    resolved = replace(given, values={"k": "key", "v": "value"}, vault={})

    configuration = JobConfiguration.parse(resolved.configuration)
    assert configuration.parameters == {"key": ["value", 1, None, True]}
    assert configuration.input_tables[0]["source"] == "in.c-value.t"
    assert configuration.processors_after[0].component == "value"
    assert configuration.runtime.image_tag == "value"
    assert resolved.used == {"k": "key", "v": "value"}


def test_a_section_may_reach_over_several_strings() -> None:
    given = {"a": ["{{#yes}}b", "c{{/yes}}", "{{#no}}d{{/no}}"]}

    assert replace(given, values={"yes": "1"}, vault={}).configuration == {"a": ["b", "c", ""]}


def test_braces_of_the_document_are_no_tags() -> None:
    given: dict[str, Any] = {"a": {"b": {"c": "{{ open"}}, "d": "shut }} {{ v }}", "e": [{"f": {}}]}

    resolved = replace(given, values={"v": "1"}, vault={})

    assert resolved.configuration == given | {"d": "shut }} 1"}
    assert resolved.missing == ()


def test_what_is_missing_is_named_once_in_its_order() -> None:
    text = "{{ b }}{{ a }}{{{ b }}}{{ v }}{{#none}}{{ c }}{{/none}}{{ vault.y }}{{ vault.x }}"

    resolved = replace({"a": text}, values={"v": "1"}, vault={"x": "2"})

    assert resolved.missing == ("vault.y", "b", "a")
    assert resolved.used == {"vault.x": "2", "v": "1"}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{{{ v }}}", "Syntax error"),
        ("{{#v}}", 'the section "v" is not closed'),
        ("{{/v}}", '"/v" closes no section'),
        ("{{#v}}{{#w}}{{/v}}{{/w}}", '"/v" closes no section'),
        ("{{=a=}}", "delimiters are changed by two words, such as {{=<< >>=}}"),
    ],
)
def test_what_is_no_configuration_any_more_is_refused(text: str, reason: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parameters(text, {"v": '"', "w": "1"})
    assert caught.value.message == BROKEN + reason


def test_a_small_configuration_cannot_become_a_huge_one() -> None:
    value = "x" * 100_000
    for values, vault in (({"v": value}, {}), (None, {"v": value})):
        text = ("{{ v }}" if values else "{{ vault.v }}") * (2 + LONGEST // len(value))
        with pytest.raises(InvalidInput, match="characters"):
            replace({"a": text}, values=values, vault=vault)


@pytest.mark.parametrize("text", ["{{", "{{{", "{{#", "{{ a", "}}", "{{=", "{{!", "\\\\{{"])
def test_what_is_never_closed_stays_however_much_there_is(text: str) -> None:
    """Looking for the end from every beginning anew would take hours."""
    given = {"a": text * 300_000, "b": "}}", "c": "{{ v }}"}

    assert replace(given, values={"v": "1"}, vault={}).configuration == given | {"c": "1"}


# -- the vault -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("{{ vault.a }}{{vault.a}}{{\tvault.a }}", "111"),
        ("{{ vault.b-_2 }}", "2"),
        ("{{{ vault.a }}}", "{{{ vault.a }}}"),
        ("{{ vault.a b }}", "{{ vault.a b }}"),
        ("{{ Vault.a }} {{ a }}", "{{ Vault.a }} {{ a }}"),
    ],
)
def test_placeholders_of_the_vault_need_no_variables(text: str, result: str) -> None:
    assert parameters(text, None, **{"a": "1", "b-_2": "2"}) == result


def test_the_vault_is_needed_where_it_is_named() -> None:
    for document in ({"{{ vault.a }}": 1}, {"a": [{"b": "x{{vault.a}}"}]}):
        assert needs_vault(document)
    for other in ({"a": "vault.a"}, {"a": "{{{ vault.a }}}"}, {"a": "{{ vault. }}"}, {}):
        assert not needs_vault(other)


def test_a_value_of_the_vault_may_look_like_anything() -> None:
    for value in ("{{ v }}", "{{=<< >>=}}", "{{#v}}", "\ue000x\ue000"):
        assert parameters("{{ vault.a }}{{ v }}", {"v": "1"}, a=value) == value + "1"


# -- documents -------------------------------------------------------------------------------------


@pytest.mark.scenario("runner", 223)
def test_a_declaration_must_be_well_formed() -> None:
    assert declared_names({"variables": [{"name": "a", "type": "string"}]}) == ("a",)
    assert declared_names({}) == ()
    for document, detail in (
        ({"invalid": 1}, 'Unrecognized option "invalid" under "configuration"'),
        (
            {"variables": [{"name": "a"}]},
            'The child config "type" under "configuration.variables.0"',
        ),
        ({"variables": [{"name": "", "type": "string"}]}, "cannot contain an empty value"),
        ({"variables": "a"}, 'Invalid type for path "configuration.variables"'),
    ):
        with pytest.raises(InvalidInput) as caught:
            declared_names(document)
        assert caught.value.message.startswith("Variable configuration is invalid: ")
        assert detail in caught.value.message


@pytest.mark.scenario("runner", 223)
def test_values_must_be_well_formed() -> None:
    fine = {"values": [{"name": "a", "value": "1"}, {"name": "b", "value": 2}]}
    assert given_values(fine) == {"a": "1", "b": "2"}
    for document, detail in (
        ({"invalid": 1}, 'Unrecognized option "invalid" under "configuration"'),
        ({"values": [{"name": "a"}]}, 'The child config "value" under "configuration.values.0"'),
        ({"values": [{"name": "", "value": "1"}]}, "cannot contain an empty value"),
        ({"values": [{"name": "a", "value": ["1"]}]}, 'Expected "scalar", but got "array".'),
    ):
        with pytest.raises(InvalidInput) as caught:
            given_values(document)
        assert caught.value.message.startswith("Variable values configuration is invalid: ")
        assert detail in caught.value.message


@pytest.mark.scenario("runner", 225)
def test_every_declared_variable_has_a_value_used_or_not() -> None:
    check_declared(["a"], {"a": "", "b": "1"})
    with pytest.raises(InvalidInput) as caught:
        check_declared(["a", "b", "c"], {"a": "1"})
    assert caught.value.message == 'No value provided for variable "b".'


# -- shared code -----------------------------------------------------------------------------------


def test_shared_code_takes_the_place_of_whole_elements() -> None:
    snippets = {"one": ("a", "b"), "two": ("c {{ v }}",)}
    given = {
        "script": ["before", "-- {{ one }} lost", "{{two}}{{ one }}", "{{ foreign }}", 5, None],
        "text": "{{ one }}",
        "mixed": ["{{ one }}", {"script": ["{{ two }}"]}],
        "none": [],
    }

    assert insert_shared_code(given, snippets) == {
        "script": ["before", "a", "b", "a", "b", "c {{ v }}", "{{ foreign }}", 5, None],
        "text": "{{ one }}",
        "mixed": ["{{ one }}", {"script": ["c {{ v }}"]}],
        "none": [],
    }


def test_code_is_a_list_of_scalars_or_one() -> None:
    assert code_content({"code_content": ["a", 1], "variables_id": "5"}) == ("a", 1)
    assert code_content({"code_content": "a"}) == ("a",)
    for document, detail in (
        ({}, 'The child config "code_content" under "configuration" must be configured.'),
        ({"code_content": "a", "invalid": 1}, 'Unrecognized option "invalid"'),
        ({"code_content": ["a", ["b"]]}, 'Invalid type for path "configuration.code_content.1"'),
        ({"code_content": {"a": 1}}, "must be a list of scalars"),
    ):
        with pytest.raises(InvalidInput) as caught:
            code_content(document)
        assert caught.value.message.startswith("Shared code configuration is invalid: ")
        assert detail in caught.value.message


def test_a_small_script_cannot_become_a_huge_one() -> None:
    with pytest.raises(InvalidInput, match="more than 200000 values"):
        insert_shared_code({"a": ["{{ x }}"] * 10_000}, {"x": ["line"] * 10_000})
