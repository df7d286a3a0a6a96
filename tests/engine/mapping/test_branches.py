"""Development branches, by prefixes in one Storage and in a Storage that keeps them apart."""

import json
from dataclasses import replace
from typing import Any

import pytest
from tests.engine.mapping.conftest import CONTEXT, SCOPE, Desk, values

from vaka.errors import ApplicationError, MappingFailed
from vaka.mapping.branches import PRODUCTION, JobBranch
from vaka.models.mapping import InputFile
from vaka.models.state import JobState, TableState
from vaka.models.storage import FileQuery, StorageScope

T = "in.c-main.t"
OWN = "in.c-123-main.t"
OTHERS = {"123": "Mine", "456": "Theirs"}
PREFIXED = JobBranch("123", "Mine", default="1", others=OTHERS)
MAIN = JobBranch(is_kept_apart=True, default="1", others=OTHERS)
KEPT_APART = replace(MAIN, id="123", name="Mine")
HERE = replace(SCOPE, branch="123")
THERE = replace(SCOPE, branch="456")


# -- where a branch has its objects ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("table_id", "own"),
    [
        ("in.c-main.t", "in.c-123-main.t"),
        ("out.main.t", "out.123-main.t"),
        ("in.c-c-x.t", "in.c-123-c-x.t"),
        ("in.c-.t", "in.c-123-.t"),
    ],
)
def test_a_branchs_prefix_stands_in_the_name_of_the_bucket(table_id: str, own: str) -> None:
    assert PREFIXED.table(table_id) == own
    assert PRODUCTION.table(table_id) == MAIN.table(table_id) == KEPT_APART.table(table_id)
    assert KEPT_APART.table(table_id) == table_id
    assert (PREFIXED.tag("t"), KEPT_APART.tag("t"), PRODUCTION.tag("t")) == ("123-t", "t", "t")


@pytest.mark.parametrize("table_id", ["t", "c-main.t", "in.c-main.t.u", "in..t", ""])
def test_what_is_no_table_id_has_no_place_in_a_branch(table_id: str) -> None:
    with pytest.raises(ApplicationError) as caught:
        PREFIXED.table(table_id)
    assert caught.value.message == f'Invalid destination: "{table_id}"'


def test_only_a_storage_that_keeps_branches_apart_is_told_of_them() -> None:
    told = [branch.scope(SCOPE) for branch in (PRODUCTION, PREFIXED, MAIN, KEPT_APART)]
    assert told == [SCOPE, SCOPE, SCOPE, HERE]


# -- input tables ----------------------------------------------------------------------------------


async def mark(desk: Desk, bucket: str, branch: str) -> None:
    """Say whose a bucket is, as output mapping does."""
    await desk.backend.tables.write_metadata(
        SCOPE, bucket, "system", {"KBC.createdBy.branch.id": branch}
    )


@pytest.mark.scenario("mapping", 86)
async def test_a_branchs_own_table_is_read_in_the_place_of_productions(desk: Desk) -> None:
    await desk.table(T, [("1", "production")])
    await desk.table("in.c-main.u", [("1", "production")])
    await desk.table(OWN, [("1", "branch")])
    await mark(desk, "in.c-123-main", "123")

    await desk.stage_tables(
        {"source": T, "destination": "t.csv"},
        {"source": "in.c-main.u", "destination": "u.csv"},
        {"source": T},
        branch=PREFIXED,
    )

    assert desk.read("tables/t.csv") == '"Id","Name"\n"1","branch"\n'
    assert desk.read("tables/u.csv") == '"Id","Name"\n"1","production"\n'
    assert json.loads(desk.read("tables/t.csv.manifest"))["id"] == OWN
    # the name that a table has without a destination is of what is read
    assert desk.read(f"tables/{OWN}") == desk.read("tables/t.csv")
    told = [line for line in desk.reports.lines if "dev input" in line]
    assert told == [f'Using dev input "{OWN}" instead of "{T}".'] * 2
    # and without the branch it is production's
    await desk.stage_tables({"source": T, "destination": "t.csv"})
    assert desk.read("tables/t.csv") == '"Id","Name"\n"1","production"\n'


async def test_a_source_branch_is_ignored_where_names_tell_branches_apart(desk: Desk) -> None:
    await desk.table(T, [("1", "production")])
    item = {"source": T, "destination": "t", "source_branch_id": "456"}
    for branch in (PRODUCTION, PREFIXED):
        await desk.stage_tables(item, branch=branch)
        assert desk.read("tables/t") == '"Id","Name"\n"1","production"\n'


async def test_a_bucket_of_a_branch_that_the_mapping_names_itself_is_refused(desk: Desk) -> None:
    await desk.table(T, [])
    await desk.table(OWN, [])
    await desk.table("in.c-456-main.t", [])
    await mark(desk, "in.c-123-main", "123")
    await mark(desk, "in.c-456-main", "456")
    for source in (OWN, "in.c-456-main.t"):
        with pytest.raises(MappingFailed, match="come from a development branch"):
            await desk.stage_tables({"source": source}, branch=PREFIXED)
        await desk.stage_tables({"source": source}, branch=PREFIXED, dev_mapping_allowed=True)


async def test_a_missing_table_is_told_by_the_name_in_the_mapping(desk: Desk) -> None:
    await desk.table(T, [])
    for branch in (PREFIXED, KEPT_APART):
        with pytest.raises(MappingFailed, match=r"^Cannot import data .*none.*in\.c-main\b"):
            await desk.stage_tables({"source": "in.c-main.none"}, branch=branch)
    with pytest.raises(ApplicationError, match='Invalid destination: "none"'):
        await desk.stage_tables({"source": "none"}, branch=PREFIXED)
    assert desk.inputs == []


@pytest.mark.scenario("mapping", 87)
async def test_a_branch_that_is_kept_apart_reads_its_own_tables_and_else_productions(
    desk: Desk,
) -> None:
    await desk.table(T, [("1", "production")])
    await desk.table("in.c-main.u", [("1", "production")])
    await desk.table(T, [("1", "mine")], scope=HERE)
    await desk.table(T, [("1", "theirs")], scope=THERE)

    await desk.stage_tables(
        {"source": T, "destination": "t"},
        {"source": "in.c-main.u", "destination": "u"},
        {"source": T, "destination": "theirs", "source_branch_id": "456"},
        {"source": T, "destination": "main", "source_branch_id": 1},
        branch=KEPT_APART,
    )

    expected = {"t": "mine", "u": "production", "theirs": "theirs", "main": "production"}
    for name, value in expected.items():
        assert desk.read(f"tables/{name}") == f'"Id","Name"\n"1","{value}"\n'
        assert json.loads(desk.read(f"tables/{name}.manifest"))["name"] in {"t", "u"}
    assert [line for line in desk.reports.lines if " branch " in line] == [
        f'Using dev input "{T}" from branch "123" instead of default branch "1".',
        'Using fallback to default branch "1" for input "in.c-main.u".',
        f'Using input "{T}" from dev branch "456".',
        f'Using input "{T}" from default branch "1".',
    ]


async def test_the_default_branch_of_a_storage_that_keeps_them_apart_says_what_it_reads(
    desk: Desk,
) -> None:
    await desk.table(T, [("1", "production")])
    await desk.table(T, [("1", "mine")], scope=HERE)
    await desk.stage_tables({"source": T, "destination": "t"}, branch=MAIN)
    assert desk.read("tables/t") == '"Id","Name"\n"1","production"\n'
    assert f'Using fallback to default branch "1" for input "{T}".' in desk.reports.lines
    with pytest.raises(MappingFailed) as caught:
        await desk.stage_tables({"source": T, "source_branch_id": "789"}, branch=MAIN)
    assert caught.value.message == 'Cannot import data from Storage API: Branch "789" not found'
    with pytest.raises(MappingFailed, match=r"^Cannot import data .*in\.c-main"):
        await desk.stage_tables(
            {"source": "in.c-main.none", "source_branch_id": "456"}, branch=MAIN
        )


@pytest.mark.scenario("mapping", 85)
async def test_buckets_of_branches_are_not_looked_for_where_branches_are_kept_apart(
    desk: Desk,
) -> None:
    await desk.table(T, [("1", "a")])
    await mark(desk, "in.c-main", "123")
    for branch in (MAIN, KEPT_APART):
        assert (await desk.stage_tables({"source": T}, branch=branch)).rows == 1


# -- adaptive reads --------------------------------------------------------------------------------


@pytest.mark.scenario("mapping", 106)
async def test_what_was_read_of_a_branchs_own_table_is_remembered_under_its_name(
    desk: Desk,
) -> None:
    item = {"source": T, "destination": "t", "changed_since": "adaptive"}
    await desk.table(T, [("1", "production")])
    before = await desk.stage_tables(item, branch=PREFIXED)
    assert [entry.source for entry in before.state] == [T]

    await desk.table(OWN, [("1", "a"), ("2", "b")])
    await mark(desk, "in.c-123-main", "123")
    first = await desk.stage_tables(item, branch=PREFIXED)
    assert [entry.source for entry in first.state] == [OWN]
    assert len(desk.read("tables/t").splitlines()) == 3

    await desk.table(OWN, [("3", "c")], incremental=True)
    second = await desk.stage_tables(
        item, branch=PREFIXED, state=JobState(input_tables=first.state)
    )
    assert desk.read("tables/t") == '"Id","Name"\n"3","c"\n'

    # what was stored under production's name stands for the branch's own table as well
    renamed = tuple(TableState(T, entry.last_import_date) for entry in second.state)
    third = await desk.stage_tables(item, branch=PREFIXED, state=JobState(input_tables=renamed))
    assert desk.read("tables/t") == '"Id","Name"\n'
    assert third.state == second.state


async def test_a_state_is_of_the_name_where_branches_are_kept_apart(desk: Desk) -> None:
    item = {"source": T, "destination": "t", "changed_since": "adaptive"}
    await desk.table(T, [("1", "a")], scope=HERE)
    first = await desk.stage_tables(item, branch=KEPT_APART)
    assert [entry.source for entry in first.state] == [T]
    await desk.stage_tables(item, branch=KEPT_APART, state=JobState(input_tables=first.state))
    assert desk.read("tables/t") == '"Id","Name"\n'


# -- input files -----------------------------------------------------------------------------------


@pytest.mark.scenario("mapping", 128)
async def test_files_with_the_branchs_tags_are_read_in_the_place_of_others(desk: Desk) -> None:
    await desk.file("production", "p", "t")
    item = {"tags": ["t"], "changed_since": "adaptive"}
    only_production = await desk.stage_files(item, branch=PREFIXED)
    assert only_production.files == 1
    assert not any("dev tags" in line for line in desk.reports.lines)

    desk.clear()
    own = await desk.file("own", "o", "123-t")
    result = await desk.stage_files(item, branch=PREFIXED)
    assert desk.inputs == [f"files/{own}_own", f"files/{own}_own.manifest"]
    assert 'Using dev tags "123-t" instead of "t".' in desk.reports.lines
    # the tags as configured are what the item is known by
    (entry,) = result.state
    assert (entry.tags, entry.last_import_id) == (({"name": "t"},), str(own))
    again = await desk.stage_files(item, branch=PREFIXED, state=JobState(input_files=result.state))
    assert again.files == 0
    assert again.state == result.state


async def test_one_of_several_tags_is_enough_for_the_branchs(desk: Desk) -> None:
    await desk.file("production", "p", "b")
    own = await desk.file("own", "o", "123-a")
    await desk.stage_files({"tags": ["a", "b"]}, branch=PREFIXED)
    assert desk.inputs == [f"files/{own}_own", f"files/{own}_own.manifest"]
    assert 'Using dev tags "123-a, 123-b" instead of "a, b".' in desk.reports.lines


def source(*names: str, **options: Any) -> dict[str, Any]:
    """A mapping of files with all these tags, less those that begin with `!`."""
    rules = [
        {"name": name.removeprefix("!"), "match": "exclude" if name[0] == "!" else "include"}
        for name in names
    ]
    return {"source": {"tags": rules}, **options}


@pytest.mark.scenario("mapping", 129)
async def test_excluded_tags_are_the_branchs_when_the_job_sets_them(desk: Desk) -> None:
    for name, *tags in (
        ("plain", "123-in"),
        ("done", "123-in", "done"),
        ("own_done", "123-in", "123-done"),
    ):
        await desk.file(name, "x", *tags)

    async def names(**options: Any) -> set[str]:
        desk.clear()
        await desk.stage_files(source("in", "!done", **options), branch=PREFIXED)
        found = {name.partition("_")[2] for name in desk.inputs}
        return {name for name in found if not name.endswith(".manifest")}

    assert await names(processed_tags=["done"]) == {"plain", "done"}
    assert 'Using dev source tags "123-in" instead of "in".' in desk.reports.lines
    assert await names() == {"plain", "own_done"}
    assert await names(processed_tags=["other"]) == {"plain", "own_done"}


async def test_excluded_tags_are_the_branchs_also_when_the_included_ones_are_not(
    desk: Desk,
) -> None:
    await desk.file("plain", "x", "in", "done")
    await desk.file("own", "x", "in", "123-done")
    await desk.stage_files(source("in", "!done", processed_tags=["done"]), branch=PREFIXED)
    assert [name.partition("_")[2] for name in desk.inputs] == ["plain", "plain.manifest"]
    assert not any("dev source tags" in line for line in desk.reports.lines)


async def test_all_included_tags_are_the_branchs_or_none_is(desk: Desk) -> None:
    await desk.file("half", "x", "123-a", "b")
    await desk.file("production", "x", "a", "b")
    await desk.stage_files(source("a", "b"), branch=PREFIXED)
    assert [name.partition("_")[2] for name in desk.inputs] == ["production", "production.manifest"]


@pytest.mark.scenario("mapping", 130)
@pytest.mark.parametrize("branch", [PREFIXED, KEPT_APART])
async def test_a_query_is_refused_in_a_development_branch(desk: Desk, branch: JobBranch) -> None:
    with pytest.raises(MappingFailed) as caught:
        await desk.stage_files({"query": "id:>0"}, branch=branch)
    assert caught.value.message == (
        "Invalid file mapping, the 'query' attribute is unsupported in the dev/branch context."
    )
    await desk.stage_files({"query": "id:>0"}, branch=MAIN)


@pytest.mark.scenario("mapping", 131)
async def test_processed_tags_of_source_tags_are_refused_where_branches_are_kept_apart(
    desk: Desk,
) -> None:
    with pytest.raises(MappingFailed) as caught:
        await desk.stage_files(source("a", processed_tags=["b"]), branch=KEPT_APART)
    assert caught.value.message == (
        'The "processed_tags" property is not supported for development storage.'
    )
    await desk.stage_files({"tags": ["a"], "processed_tags": ["b"]}, branch=KEPT_APART)


@pytest.mark.scenario("mapping", 132)
@pytest.mark.parametrize("item", [{"tags": ["a", "b"]}, source("a", "b", "!c")])
async def test_files_come_from_the_branch_that_is_kept_apart_or_from_the_default_one(
    desk: Desk, item: dict[str, Any]
) -> None:
    await desk.file("production", "p", "a", "b")
    await desk.stage_files(item, branch=KEPT_APART)
    assert [name.partition("_")[2] for name in desk.inputs] == ["production", "production.manifest"]
    assert 'Using files from default branch "1" for tags "a, b".' in desk.reports.lines

    desk.clear()
    await desk.file("mine", "m", "a", "b", scope=HERE)
    await desk.stage_files(item, branch=KEPT_APART)
    assert [name.partition("_")[2] for name in desk.inputs] == ["mine", "mine.manifest"]
    assert 'Using files from development branch "123" for tags "a, b".' in desk.reports.lines


async def test_files_by_id_are_of_the_branch_that_is_kept_apart(desk: Desk) -> None:
    production = await desk.file("production", "p")
    mine = await desk.file("mine", "m", scope=HERE)
    item = {"file_ids": [production, mine]}
    await desk.stage_files(item, branch=KEPT_APART)
    assert desk.inputs == [f"files/{mine}_mine", f"files/{mine}_mine.manifest"]
    assert "File input mapping kept unchanged." in desk.reports.lines
    desk.clear()
    await desk.stage_files(item, branch=PREFIXED)
    assert desk.inputs == [
        f"files/{production}_production",
        f"files/{production}_production.manifest",
    ]


# -- outputs ---------------------------------------------------------------------------------------


@pytest.mark.scenario("mapping", 156)
@pytest.mark.scenario("mapping", 204)
async def test_outputs_of_a_branch_have_its_prefix_or_are_in_the_branch(desk: Desk) -> None:
    desk.write("tables/t.csv", '"Id"\n"1"\n')
    item = {"source": "t.csv", "destination": "out.c-b.t"}

    outputs = await desk.store(item, branch=PREFIXED)
    assert [table.id for table in outputs.tables] == ["out.c-123-b.t"]
    assert await desk.rows("out.c-123-b.t") == [("1",)]
    assert not await desk.has_table("out.c-b.t")

    await desk.store(item, branch=KEPT_APART)
    assert await desk.rows("out.c-b.t", HERE) == [("1",)]
    assert not await desk.has_table("out.c-b.t")

    for table, scope in (("out.c-123-b.t", SCOPE), ("out.c-b.t", HERE)):
        detail = await desk.backend.tables.table(scope, table)
        bucket = await desk.backend.tables.bucket(scope, detail.bucket)
        who = {"component": CONTEXT.component_id, "configuration": CONTEXT.config_id}
        created = {f"KBC.createdBy.{kind}.id": each for kind, each in who.items()}
        created["KBC.createdBy.branch.id"] = "123"
        updated = {key.replace("createdBy", "lastUpdatedBy"): each for key, each in created.items()}
        assert values(bucket.metadata, "system") == created
        assert values(detail.metadata, "system") == created | updated

    # the next run of the branch may go on there, and production has no branch
    await desk.store(item, branch=PREFIXED, key="job-2-0")
    await desk.store(item, branch=MAIN, key="job-3-0")
    bucket = await desk.backend.tables.bucket(SCOPE, "out.c-b")
    assert "KBC.createdBy.branch.id" not in values(bucket.metadata, "system")


@pytest.mark.scenario("mapping", 157)
async def test_a_branch_does_not_write_into_buckets_that_are_not_its_own(desk: Desk) -> None:
    await desk.table("out.c-123-b.old", [])
    desk.write("tables/t.csv", '"Id"\n"1"\n')
    desk.write("files/f", "x")
    item = {"source": "t.csv", "destination": "out.c-b.t"}

    with pytest.raises(MappingFailed) as caught:
        await desk.store(item, branch=PREFIXED)
    assert caught.value.message == (
        'Trying to create a table in the development bucket "out.c-123-b" on branch "Mine" '
        '(ID "123"), but the bucket is not assigned to any development branch.'
    )

    await mark(desk, "out.c-123-b", "12345")
    with pytest.raises(MappingFailed) as caught:
        await desk.store(item, branch=PREFIXED)
    assert caught.value.message == (
        'Trying to create a table in the development bucket "out.c-123-b" on branch "Mine" '
        '(ID "123"). The bucket metadata marks it as assigned to branch with ID "12345".'
    )
    assert not await desk.has_table("out.c-123-b.t")
    assert await desk.backend.files.list_files(SCOPE, FileQuery()) == []


@pytest.mark.parametrize("died_after", ["create_bucket", "load"])
async def test_a_job_in_a_branch_that_was_interrupted_goes_on(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, died_after: str
) -> None:
    desk.write("tables/t.csv", '"Id"\n"1"\n')
    item = {"source": "t.csv", "destination": "out.c-b.t", "incremental": True}
    call = getattr(desk.backend.tables, died_after)

    async def and_die(*args: Any, **options: Any) -> None:
        await call(*args, **options)
        raise RuntimeError("killed")

    with monkeypatch.context() as context:
        context.setattr(desk.backend.tables, died_after, and_die)
        with pytest.raises(RuntimeError, match="killed"):
            await desk.store(item, branch=PREFIXED)
    outputs = await desk.store(item, branch=PREFIXED)

    assert outputs.errors == ()
    assert await desk.rows("out.c-123-b.t") == [("1",)]
    bucket = await desk.backend.tables.bucket(SCOPE, "out.c-123-b")
    assert values(bucket.metadata, "system")["KBC.createdBy.branch.id"] == "123"


async def test_a_branch_writes_into_buckets_of_any_name(desk: Desk) -> None:
    await desk.table("out.plain.t", [])
    desk.write("tables/t.csv", '"Id"\n"1"\n')
    item = {"source": "t.csv", "destination": "out.plain.t"}
    for key in ("1", "2"):
        await desk.store(item, branch=PREFIXED, key=key)
    assert await desk.rows("out.123-plain.t") == [("1",)]
    assert await desk.rows("out.plain.t") == []


@pytest.mark.scenario("mapping", 227)
@pytest.mark.parametrize(
    ("branch", "scope", "prefix"), [(PREFIXED, SCOPE, "123-"), (KEPT_APART, HERE, "")]
)
async def test_files_of_a_branch_carry_its_tags_or_are_in_the_branch(
    desk: Desk, branch: JobBranch, scope: StorageScope, prefix: str
) -> None:
    desk.write("files/f", "x")
    outputs = await desk.store(files=[{"source": "f", "tags": ["chart", "other"]}], branch=branch)
    (file,) = await desk.backend.files.list_files(scope, FileQuery())
    assert outputs.files == (file.id,)
    tags = ["chart", "other", "componentId: keboola.demo", "configurationId: 42", "runId: 7.8"]
    assert list(file.tags) == [f"{prefix}{tag}" for tag in tags]


@pytest.mark.scenario("mapping", 229)
async def test_processed_tags_are_the_branchs_or_none_where_branches_are_kept_apart(
    desk: Desk,
) -> None:
    async def tags_after(branch: JobBranch, *tags: str, scope: StorageScope = SCOPE) -> list[str]:
        number = await desk.file("f", "x", *tags, scope=scope)
        item = {"tags": ["new"], "processed_tags": ["downloaded"]}
        await desk.store(branch=branch, input_files=[InputFile.parse(item)])
        found = await desk.backend.files.file(scope, number)
        return list(found.tags)

    assert await tags_after(PRODUCTION, "new") == ["new", "downloaded"]
    assert await tags_after(PREFIXED, "new") == ["new", "123-downloaded"]
    assert await tags_after(PREFIXED, "123-new") == ["123-new", "123-downloaded"]
    assert await tags_after(KEPT_APART, "new", scope=HERE) == ["new"]
    assert await tags_after(MAIN, "new") == ["new"]
