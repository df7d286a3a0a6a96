"""The query language of file lists."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
import sqlalchemy as sa
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sqlalchemy.engine import Connection

from vaka.errors import InvalidInput
from vaka_local.database import file_tags, files, metadata
from vaka_local.filequery import condition
from vaka_local.names import words

STORED = {
    "a": ("report_2024.csv", ["x"], datetime(2024, 1, 31, 10, 20, 30, tzinfo=UTC)),
    "b": ("data.zip", ["x", "y"], datetime(2024, 2, 1, tzinfo=UTC)),
    "c": ("fooBar.zip", ["z", "a b", 'q"q', "branchId-1"], datetime(2024, 2, 1, 12, tzinfo=UTC)),
}


@pytest.fixture(scope="module")
def connection() -> Iterator[Connection]:
    engine = sa.create_engine("sqlite://")
    with engine.connect() as connection:
        metadata.create_all(connection)
        connection.exec_driver_sql("PRAGMA case_sensitive_like = ON")
        for number, (name, tags, created) in enumerate(STORED.values(), 1):
            connection.execute(
                files.insert().values(
                    id=number,
                    project="1",
                    name=name,
                    name_lower=name.lower(),
                    name_words=f" {' '.join(words(name))} ",
                    created=created,
                    size_bytes=10 * number,
                    is_public=number == 1,
                    is_encrypted=True,
                    is_sliced=False,
                    run_id=None if number == 3 else f"{number}.5",
                )
            )
            for position, tag in enumerate(tags):
                connection.execute(
                    file_tags.insert().values(file_id=number, tag=tag, position=position)
                )
        yield connection
    engine.dispose()


def found(connection: Connection, query: str) -> str:
    ids = connection.scalars(sa.select(files.c.id).where(condition(query)).order_by(files.c.id))
    return "".join("abc"[number - 1] for number in ids)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", "abc"),
        ("  \n ", "abc"),
        ("tags:x", "ab"),
        ("tags:  x", "ab"),
        ('tags:"a b"', "c"),
        ('tags:"q\\"q"', "c"),
        ("tags:a\\ b", "c"),
        ("tags:branchId-1", "c"),
        ("tags:branchId*", "c"),
        ("tags:?", "abc"),
        ("tags:\\?", ""),
        ('tags:"?"', ""),
        ("tags:X*", ""),
        ("tags:_", ""),
        ("tags:x AND tags:y", "b"),
        ("tags:x && tags:y", "b"),
        ("tags:y OR tags:z", "bc"),
        ("tags:y || tags:z", "bc"),
        ("tags:y tags:z", "bc"),
        ("NOT tags:x", "c"),
        ("!tags:x", "c"),
        ("-tags:x", "c"),
        ("NOT NOT tags:x", "ab"),
        ("tags:x NOT tags:y", "a"),
        ("tags:x -tags:y", "a"),
        ("-tags:y tags:x", "a"),
        ("tags:x AND NOT tags:y", "a"),
        ("tags:x AND -tags:y", "a"),
        ("tags:x OR NOT tags:y", "abc"),
        ("NOT tags:x OR tags:y", "bc"),
        ("NOT tags:y NOT tags:z", "a"),
        ("tags:y OR tags:z AND tags:x", "b"),
        ("(tags:y OR tags:z) AND tags:x", "b"),
        ("tags:z OR tags:x AND tags:y", "bc"),
        ("+tags:x tags:z", "ab"),
        ("+tags:x +tags:y", "b"),
        ("+tags:x -tags:y tags:z", "a"),
        ("tags:(x y)", "ab"),
        ("tags:(x AND y)", "b"),
        ("tags:(x AND y NOT z)", "b"),
        ("tags:(x NOT y)", "a"),
        ("tags:(x AND (y OR z))", "b"),
        ("tags:(x OR id:3)", "abc"),
        ("NOT(tags:x)", "c"),
        ("id:1", "a"),
        ("id:(1 OR 2)", "ab"),
        ("id:>1", "bc"),
        ("id:> 1", "bc"),
        ("id:>=2", "bc"),
        ("id:<2", "a"),
        ("id:<=2", "ab"),
        ('id:"2"', "b"),
        ("id:>0 AND (NOT tags:x)", "c"),
        ("id:[2 TO 3]", "bc"),
        ("id:{1 TO 3}", "b"),
        ("id:[2 TO *]", "bc"),
        ("id:{* TO 2]", "ab"),
        ("id:[* TO *]", "abc"),
        ("id:*", "abc"),
        ("id:-1", ""),
        ("id:9223372036854775807", ""),
        ("sizeBytes:>10", "bc"),
        ("sizeBytes:[20 TO 20]", "b"),
        ("name:data.zip", "b"),
        ("name: data.zip", "b"),
        ("name:ZIP", "bc"),
        (".zip", "bc"),
        ("zip", "bc"),
        ("foobar", "c"),
        ("foo", ""),
        ("report 2024", "a"),
        ('"2024 csv"', "a"),
        ("name:*.zip", "bc"),
        ("name:d?ta*", "b"),
        ("name:report-2024*", "a"),
        ("name:%", ""),
        ("*", "abc"),
        ("...", ""),
        ("runId:1.5", "a"),
        ("runId:*5", "ab"),
        ("NOT runId:1.5", "bc"),
        ("isPublic:true", "a"),
        ("isPublic:0", "bc"),
        ('created:["2024-01-31T10:20:30+00:00" TO *]', "abc"),
        ('created:{"2024-01-31T10:20:30+00:00" TO *]', "bc"),
        ("created:[2024-01-31T11:20:30+01:00 TO 2024-01-31]", "a"),
        ("created:[* TO 2024-02-01]", "abc"),
        ("created:[* TO 2024-02-01}", "a"),
        ("created:2024-02-01", "bc"),
        ("created:>2024-01-31", "bc"),
        ("created:>=2024-02-01T12:00:00Z", "c"),
        ("created:<=2024-02-01T00:00:00+0000", "ab"),
        ("created:2024-02-01T12:00:00", "c"),
        ("created:2024-02-01T12:00:00.5", ""),
        ("created:*", "abc"),
        ("created:<9999-12-30", "abc"),
        ('(tags:"x") AND created:["2024-02-01T00:00:00+00:00" TO *]', "b"),
        ("ANDROID", ""),
        ("NOTES", ""),
        ("zip ORANGE", "bc"),
    ],
)
def test_queries_find(connection: Connection, query: str, expected: str) -> None:
    assert found(connection, query) == expected


@pytest.mark.scenario("storage-api", 30)
@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("tags[]:sd", "a term is missing or not understood"),
        ("tags:", "a term is missing"),
        ("tags: AND x", "a term is missing"),
        ("AND", "a term is missing"),
        ("x AND", "a term is missing"),
        ("x OR", "a term is missing"),
        ("OR x", "a term is missing"),
        ("x AND OR y", "a term is missing"),
        ("NOT", "a term is missing"),
        ("()", "a term is missing"),
        ("(x", "a parenthesis is not closed"),
        ("x)", "a closing parenthesis has no opening one"),
        ('"x', "a term is missing or not understood"),
        ("x\\", "a term is missing or not understood"),
        ("size:1", 'there is no field "size"'),
        ("http://x", 'there is no field "http"'),
        ("id:x", '"x" is not a number'),
        ("id:1*", '"1*" is not a number'),
        ("id:9223372036854775808", "is not a number"),
        ("id:[1 TO", "a term is missing or not understood"),
        ("id:[1 2]", "a term is missing or not understood"),
        ("tags:>x", 'the field "tags" cannot be compared with >'),
        ("name:[a TO b]", 'the field "name" cannot be compared with >='),
        ("isPublic:perhaps", '"perhaps" is neither true nor false'),
        ("created:yesterday", "is not a date or time"),
        ("created:9999-12-31", "is not a date or time"),
        ("(" * 60 + "x" + ")" * 60, "nested more than 50 deep"),
        ("x " * 501, "has more than 500 terms"),
        ("x," * 501, "has more than 500 terms"),
        ('"' + "x " * 600 + '" y', "has more than 500 terms"),
        ("x" * 10_001, "has more than 10000 characters"),
    ],
)
def test_queries_that_mean_nothing_say_why(query: str, reason: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        condition(query)

    assert caught.value.message.startswith("Failed to parse query ")
    assert reason in caught.value.message
    assert caught.value.path == "query"


TOKENS = ["tags:", "name:", "id:", "created:", "runId:", "isPublic:", "sizeBytes:", "x", '"', "\\",
          "(", ")", "[", "]", "{", "}", " ", " TO ", "*", "?", "AND", " AND ", "OR", " OR ", "NOT ",
          "-", "+", "!", "&&", "||", "1", "2024-01-31", ":", ">", "<", "=", "é", "\0", "%", "_",
          "'", "\n", "9" * 30, "~", "^"]  # fmt: skip


@settings(max_examples=500, deadline=None)
@given(
    query=st.one_of(
        st.text(max_size=40), st.lists(st.sampled_from(TOKENS), max_size=15).map("".join)
    )
)
@example(query="created:0001-01-01T00:00:00+23:00")
@example(query="created:2024-W01")
@example(query="id:\u0661")
def test_any_text_is_a_query_or_refused(connection: Connection, query: str) -> None:
    try:
        wanted = condition(query)
    except InvalidInput:
        return
    connection.execute(sa.select(files.c.id).where(wanted)).all()


def test_the_largest_query_that_is_allowed_can_be_run(connection: Connection) -> None:
    assert found(connection, " OR ".join(f"id:{number}" for number in range(500))) == "abc"
    assert found(connection, "(" * 50 + "zip" + ")" * 50) == "bc"
    assert found(connection, '"' + "zip " * 498 + '"') == "bc"
