"""The query language of job lists, on both databases."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sqlalchemy.engine import Connection

from vaka.errors import InvalidInput
from vaka.models.job import JobQuery, Status
from vaka.models.query import LONGEST
from vaka.store import JobStore
from vaka.store._records import _RECORD
from vaka.store._search import DEEPEST, FIELDS, MOST_TERMS, condition
from vaka.store.schema import job_specs, jobs, metadata

from .support import START, Clock, claim_one, fence, new_job

ODD = "100% of a_b\\c 'quoted' \"twice\" \x00 \ud83d é 🙂 *"
"""A message with everything that a pattern, JSON or a database may take for its own."""


async def some_jobs(store: JobStore, clock: Clock) -> dict[str, int]:
    """A failed, a successful, a running, a cancelled and a waiting job."""
    made = {}
    clock.now = START
    failed = await store.submit(
        new_job(
            component="acme.ex-db",
            config="254",
            parent_run_id="123",
            spec={"component": "acme.ex-db", "row": "7", "tag": "1.1"},
            token_id="12",
            token_description="Me@Example.com",
        )
    )
    made["failed"] = failed.id
    _, right = await claim_one(store)
    clock.advance(200)
    await store.finish(right, Status.ERROR, result={"message": ODD}, error="user")
    await store.set_error_note(failed.id, "Wrong Password")
    clock.now = START + timedelta(days=1)
    made["good"] = (await store.submit(new_job(component="acme.wr", config="x y"))).id
    clock.advance(5)
    record, _ = await claim_one(store)
    clock.advance(60)
    await store.finish(fence(record), Status.SUCCESS, result={"message": "processing finished"})
    clock.now = START + timedelta(days=2)
    made["running"] = (await store.submit(new_job(component="acme.wr"))).id
    await claim_one(store)
    made["cancelled"] = (await store.submit(new_job(component="other"))).id
    await store.request_stop(made["cancelled"], {"id": "9", "description": 'the "boss"'})
    made["waiting"] = (await store.submit(new_job(component="other"))).id
    await store.submit(new_job(project="2", component="acme.ex-db", config="254"))
    return made


ALL = {"failed", "good", "running", "cancelled", "waiting"}

QUERIES: dict[str, set[str]] = {
    "params.component:acme.ex-db params.config:254": {"failed"},
    "status:error": {"failed"},
    "-status:success": ALL - {"good"},
    "NOT status:success !status:error": ALL - {"good", "failed"},
    "NOT -status:success": {"good"},
    "durationSeconds:>120": {"failed"},
    "durationSeconds:<=60": {"good"},
    "durationSeconds:[60 TO 200}": {"good"},
    "durationSeconds:{60 TO 200]": {"failed"},
    "durationSeconds:65": set(),
    "waitSeconds:5": {"good"},
    "startTime:[2026-03-01 TO 2026-03-02]": {"failed", "good"},
    "startTime:[2026-03-01 TO 2026-03-02}": {"failed"},
    "endTime:[2026-03-02 TO *]": {"good", "cancelled"},
    "endTime:[* TO *]": {"failed", "good", "cancelled"},
    "endTime:{2026-03-01 TO *]": {"good", "cancelled"},
    "createdTime:2026-03-01": {"failed"},
    "createdTime:2026-03-01T12:00": {"failed"},
    "createdTime:2026-03-01T12:00:00Z": {"failed"},
    'createdTime:"2026-03-01 13:00:00+01:00"': {"failed"},
    "createdTime:2026-03-01T12:00:01Z": set(),
    "createdTime:<2026-03-02": {"failed"},
    "createdTime:>=2026-03-02": ALL - {"failed"},
    "createdTime:<now": ALL,
    "params.component:(acme.wr OR other)": ALL - {"failed"},
    "params.component:(acme.wr other)": set(),
    "params.component:(acme.* -acme.wr)": {"failed"},
    "runId:123.*": {"failed"},
    "runId:123": set(),
    "parentRunId:123": {"failed"},
    "nestingLevel:1": {"failed"},
    "nestingLevel:<1": ALL - {"failed"},
    "token.description:me@example.com": {"failed"},
    "token.id:12": {"failed"},
    'params.config:"x y"': {"good"},
    r"params.config:x\ y": {"good"},
    "params.config:x?y": {"good"},
    "params.component:ACME.WR": set(),
    "params.component:a*.w?": {"good", "running"},
    "params.row:7 params.tag:1.*": {"failed"},
    "params.mode:run": ALL,
    "component:docker": ALL,
    "component:acme.wr": set(),
    "command:run": ALL,
    "error:user": {"failed"},
    "-error:user": ALL - {"failed"},
    "errorNote:password": {"failed"},
    "_exists_:errorNote": {"failed"},
    "_missing_:params.config": {"running", "cancelled", "waiting"},
    "params.config:*": {"failed", "good"},
    "isFinished:false": {"running", "waiting"},
    "isFinished:true": {"failed", "good", "cancelled"},
    "terminatedBy.id:9": {"cancelled"},
    r'terminatedBy.description:"the \"boss\""': {"cancelled"},
    "result.message:finished": {"good"},
    'result.message:"100% of"': {"failed"},
    "result.message:a_b": {"failed"},
    "result.message:a%b": set(),
    r"result.message:a_b\\c": {"failed"},
    r"result.message:\*": {"failed"},
    "result.message:'quoted'": {"failed"},
    "result.message:é": {"failed"},
    "result.message:100*quoted": {"failed"},
    "process.host:host-of-first": {"failed", "good", "running"},
    "finished": {"good"},
    "acme.wr": {"good", "running"},
    "error": {"failed"},
    '"Wrong password"': {"failed"},
    "wrong AND password": {"failed"},
    "wrong && nothing": set(),
    "status:error OR status:success": {"failed", "good"},
    "status:error || status:success params.component:none": {"failed"},
    "(status:error OR status:success) +params.component:acme.wr": {"good"},
    "": ALL,
    "   ": ALL,
    "*": ALL,
    "((status:(waiting)))": {"waiting"},
    "status:waiting\nproject.id:1": {"waiting"},
}


async def test_a_query_finds_what_it_says(store: JobStore, clock: Clock) -> None:
    made = await some_jobs(store, clock)
    names = {id_: name for name, id_ in made.items()}
    for query, expected in QUERIES.items():
        found = await store.jobs(JobQuery(project="1", search=query))
        assert {names[job.id] for job in found} == expected, query
    found = await store.jobs(JobQuery(project="1", search=f"id:{made['good']}"))
    assert [job.id for job in found] == [made["good"]]
    # a condition on the list itself holds beside it
    both = JobQuery(project="1", search="params.component:acme.*", statuses=(Status.SUCCESS,))
    assert [job.id for job in await store.jobs(both)] == [made["good"]]


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("status:", "a term is missing"),
        ("a OR", "a term is missing"),
        ("AND a", "a term is missing"),
        ("(a", "a parenthesis is not closed"),
        ("a)", "a closing parenthesis has no opening one"),
        ("()", "a term is missing"),
        ("nonsense:1", 'there is no field "nonsense"; there are id, runId, '),
        ("status:(error token.id:1)", "within the values of another one"),
        ("*error", "may not begin with a wildcard"),
        ("status:?rror", "may not begin with a wildcard"),
        ("status:a*b*c*d", "more than 2 wildcards"),
        ("durationSeconds:long", '"long" is not a whole number'),
        ("durationSeconds:[a TO 2]", '"a" is not a whole number'),
        ("id:1.5", "is not a whole number"),
        ("startTime:yesterda", "is not a moment such as"),
        ("startTime:[2026-13-01 TO *]", "is not a moment such as"),
        ("createdTime:9999-12-31", "is not a moment such as"),
        ("[1 TO 2]", "needs a field"),
        (">5", "needs a field"),
        ("status:[a TO b", "not understood"),
        ("status:>a*", "has a wildcard"),
        ("errorNote:>a", "a text has no order"),
        ("component:>a", "has no order"),
        ("isFinished:maybe", "true or false"),
        ("status:error^2", "not supported"),
        ("status:error~", "not supported"),
        ('"wrong password"~3', "not supported"),
        ("_exists_:nothing", "is asked of a field"),
        ('"open', "not understood"),
        ("a\x00b", "cannot be part of a query"),
        ("a\ud800b", "cannot be part of a query"),
        ("(" * (DEEPEST + 2) + "a" + ")" * (DEEPEST + 2), f"more than {DEEPEST} deep"),
        ("a " * (MOST_TERMS + 1), f"more than {MOST_TERMS} terms"),
        ("a" * (LONGEST + 1), f"more than {LONGEST} characters"),
    ],
)
def test_a_query_that_cannot_be_understood_is_refused(query: str, words: str) -> None:
    with pytest.raises(InvalidInput, match=words) as caught:
        condition(query)
    assert caught.value.message.startswith('Failed to parse query "')
    assert " at character " in caught.value.message


# -- whatever is asked ----------------------------------------------------------------------------


@pytest.fixture(
    scope="module", params=["sqlite", pytest.param("postgresql", marks=[pytest.mark.postgresql])]
)
def connection(request: pytest.FixtureRequest) -> Iterator[Connection]:
    """A connection to the tables of the store with one job in them."""
    url = "sqlite://"
    if request.param == "postgresql":
        url = request.getfixturevalue("postgresql_url")
    engine = sa.create_engine(url)
    with engine.connect() as opened, opened.begin() as transaction:
        if request.param == "postgresql":
            opened.execute(sa.text("CREATE SCHEMA searching"))
            opened.execute(sa.text("SET LOCAL search_path TO searching"))
        metadata.create_all(opened)
        opened.execute(
            sa.insert(jobs).values(
                id=1,
                run_id="1",
                project="1",
                component="c",
                mode="run",
                status="error",
                created=START,
                started=START,
                ended=START,
                lock_name="l",
                memory_bytes=1,
                attempt=1,
                definition=0,
                result={"message": ODD},
                terminated_by={"id": None, "description": ODD},
            )
        )
        opened.execute(
            sa.insert(job_specs).values(job_id=1, spec={"row": [ODD], "n": float("inf")})
        )
        yield opened
        transaction.rollback()
    engine.dispose()


WORDS = st.sampled_from(
    ["(", ")", "AND", "OR", "NOT", "-", "+", "!", "*", "?", '"', "\\", "[", "]", "{", "}", " TO ",
     ":", ">", "<=", "^", "~", "'", ";", "--", "%", "_", "1", "now", "2026-01-01", " ", "a*"]
)  # fmt: skip
PIECES = st.one_of(WORDS, st.sampled_from([f"{name}:" for name in FIELDS]), st.text(max_size=8))


@given(query=st.one_of(st.text(max_size=60), st.lists(PIECES, max_size=12).map("".join)))
@example(query="'; DROP TABLE jobs; --")
@example(query="status:error') OR ('1'='1")
@example(query='result.message:"a\\\'); DELETE FROM jobs"')
@example(query="id:99999999999999999999999")
@example(query="id:9999999999999999999")
@example(query="params.row:*\x7f")
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_text_finds_jobs_or_is_refused(connection: Connection, query: str) -> None:
    try:
        wanted = condition(query)
    except InvalidInput:
        return
    statement = _RECORD.where(wanted)
    rows = connection.execute(statement).all()
    # a negation finds what the query does not: nothing is neither
    others = connection.execute(_RECORD.where(sa.not_(wanted))).all()
    assert len(rows) + len(others) == 1


@given(value=st.text(alphabet=st.characters(exclude_categories=["Cs"], exclude_characters="\x00")))
@settings(max_examples=100, deadline=None)
def test_a_quoted_value_is_found_exactly(connection: Connection, value: str) -> None:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    with connection.begin_nested() as savepoint:
        connection.execute(sa.update(jobs).values(component=value, error_note=f"<{value}>"))
        for name in ("params.component", "errorNote"):
            wanted = condition(f'{name}:"{escaped}"')
            assert connection.execute(_RECORD.where(wanted)).all(), (name, value)
        savepoint.rollback()
