"""Development branches: which objects of Storage a job in one reads and writes.

A Storage may keep branches apart itself: names are then the same in all of them, and what a branch does
not have is read from the default one. In any other Storage a branch's objects stand beside those of
production and carry its id in their names and tags. Either way production is never written to from a
branch, and is read only where the branch has nothing of its own.

Source: mapping.md sections 4.2, 5.5, 6.10 and 7.5.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from vaka.errors import ApplicationError, InvalidInput, MappingFailed, NotFound
from vaka.hooks import MappingBackend
from vaka.mapping.filters import tag_query
from vaka.models.mapping import InputFile, InputTable, TagRule
from vaka.models.storage import BucketDetail, FileQuery, MetadataEntry, StorageScope, TableDetail

BRANCH_KEYS = frozenset({"KBC.createdBy.branch.id", "KBC.lastUpdatedBy.branch.id"})
"""Metadata of a bucket that name the development branch it belongs to."""


@dataclass(frozen=True, slots=True)
class JobBranch:
    """The branch that a job runs in, and how its Storage keeps branches."""

    id: str | None = None
    """None in the default branch."""
    name: str = ""
    is_kept_apart: bool = False
    """Whether Storage itself keeps the branches of the project apart."""
    default: str = "default"
    """Id of the default branch, as the job's author knows it."""
    others: Mapping[str, str] = field(default_factory=dict)
    """Id to name of the project's development branches."""

    @property
    def prefixes(self) -> bool:
        """Whether the branch's objects carry its id."""
        return self.id is not None and not self.is_kept_apart

    def scope(self, scope: StorageScope) -> StorageScope:
        """`scope` in this branch, as the backend is told."""
        return replace(scope, branch=self.id if self.is_kept_apart else None)

    def bucket(self, bucket_id: str) -> str:
        """Where the branch has its own bucket of this name."""
        if not self.prefixes:
            return bucket_id
        stage, _, name = bucket_id.partition(".")
        system = "c-" if name.startswith("c-") else ""
        return f"{stage}.{system}{self.id}-{name.removeprefix(system)}"

    def table(self, table_id: str) -> str:
        """Where the branch has its own table of this name.

        Raises:
            ApplicationError: this is no table id, so that there is no such place.
        """
        if not self.prefixes:
            return table_id
        bucket, _, name = table_id.rpartition(".")
        if table_id.count(".") != 2 or not all(table_id.split(".")):
            raise ApplicationError(f'Invalid destination: "{table_id}"')
        return f"{self.bucket(bucket)}.{name}"

    def tag(self, tag: str) -> str:
        """How a file of the branch carries this tag."""
        return f"{self.id}-{tag}" if self.prefixes else tag

    def tags(self, tags: Iterable[str]) -> tuple[str, ...]:
        """`tag` for each."""
        return tuple(map(self.tag, tags))

    def check_bucket(self, bucket: BucketDetail) -> None:
        """Refuse to write to a bucket that is there and not this branch's.

        Raises:
            MappingFailed: it belongs to another branch, or to none.
        """
        if not self.prefixes:
            return
        found = next((entry.value for entry in bucket.metadata if entry.key in BRANCH_KEYS), None)
        text = (
            f'Trying to create a table in the development bucket "{bucket.id}" on branch '
            f'"{self.name}" (ID "{self.id}")'
        )
        if found is None:
            raise MappingFailed(
                f"{text}, but the bucket is not assigned to any development branch."
            )
        if found != self.id:
            raise MappingFailed(
                f'{text}. The bucket metadata marks it as assigned to branch with ID "{found}".'
            )


PRODUCTION = JobBranch()
"""The default branch of a Storage that does not keep branches apart."""


@dataclass(frozen=True, slots=True)
class FoundTable:
    """A table that a job reads, and where it is."""

    detail: TableDetail
    scope: StorageScope
    is_own: bool = False
    """Whether it stands in for the table that the mapping names, as the branch's own."""
    note: str | None = None
    """What the author is told about where it is."""


async def find_table(
    item: InputTable, *, backend: MappingBackend, scope: StorageScope, branch: JobBranch
) -> FoundTable:
    """The table that a mapping item means in this branch.

    Raises:
        UserError: it is not there, or cannot be read.
        ApplicationError: its id is none.
    """
    if branch.is_kept_apart:
        return await _find_kept_apart(item, backend, scope, branch)
    own = branch.table(item.source)
    if own != item.source:
        detail = await _table_or_none(backend, scope, own)
        if detail is not None:
            note = f'Using dev input "{own}" instead of "{item.source}".'
            return FoundTable(detail, scope, is_own=True, note=note)
    return FoundTable(await backend.tables.table(scope, item.source), scope)


async def _find_kept_apart(
    item: InputTable, backend: MappingBackend, scope: StorageScope, branch: JobBranch
) -> FoundTable:
    source, wanted = item.source, item.source_branch_id
    default = replace(scope, branch=None)
    if wanted == branch.default:
        detail = await backend.tables.table(default, source)
        return FoundTable(
            detail, default, note=f'Using input "{source}" from default branch "{wanted}".'
        )
    if wanted is not None:
        if wanted not in branch.others:
            raise NotFound(f'Branch "{wanted}" not found', kind="branch", id=wanted)
        there = replace(scope, branch=wanted)
        detail = await backend.tables.table(there, source)
        return FoundTable(detail, there, note=f'Using input "{source}" from dev branch "{wanted}".')
    if branch.id is not None:
        here = branch.scope(scope)
        own = await _table_or_none(backend, here, source)
        if own is not None:
            note = (
                f'Using dev input "{source}" from branch "{branch.id}" instead of default '
                f'branch "{branch.default}".'
            )
            return FoundTable(own, here, is_own=True, note=note)
    note = f'Using fallback to default branch "{branch.default}" for input "{source}".'
    return FoundTable(await backend.tables.table(default, source), default, note=note)


async def _table_or_none(
    backend: MappingBackend, scope: StorageScope, table_id: str
) -> TableDetail | None:
    try:
        return await backend.tables.table(scope, table_id)
    except (NotFound, InvalidInput):  # a name may become too long by what marks the branch
        return None


async def foreign_buckets(
    found: Sequence[FoundTable], *, backend: MappingBackend, branch: JobBranch
) -> list[str]:
    """Buckets that a mapping names itself and that belong to a development branch.

    What stands in for a table of production as the branch's own is meant to be read.
    """
    if branch.is_kept_apart:
        return []
    result: list[str] = []
    buckets = {each.detail.bucket: each.scope for each in found if not each.is_own}
    for bucket_id, scope in buckets.items():
        try:
            bucket = await backend.tables.bucket(scope, bucket_id)
        except NotFound:
            continue  # the export says what is wrong
        if belongs_to_a_branch(bucket.metadata):
            result.append(bucket_id)
    return result


def belongs_to_a_branch(metadata: Iterable[MetadataEntry]) -> bool:
    """Whether a bucket's metadata say that it is a development branch's."""
    return any(entry.key in BRANCH_KEYS for entry in metadata)


@dataclass(frozen=True, slots=True)
class FoundFiles:
    """Where the files are that a job reads, and what they are to be asked for by."""

    item: InputFile
    """With the tags that the branch's files carry."""
    scope: StorageScope
    note: str | None = None
    """What the author is told about where they are."""


async def find_files(
    item: InputFile, *, backend: MappingBackend, scope: StorageScope, branch: JobBranch
) -> FoundFiles:
    """What a mapping item means in this branch.

    Raises:
        UserError: files cannot be listed, or not as the item asks.
    """
    if branch.id is None:
        return FoundFiles(item, scope)
    if item.query:
        raise MappingFailed(
            "Invalid file mapping, the 'query' attribute is unsupported in the dev/branch context."
        )
    if branch.is_kept_apart:
        return await _files_kept_apart(item, backend, scope, branch)
    return await _files_with_prefix(item, backend, scope, branch)


async def _files_kept_apart(
    item: InputFile, backend: MappingBackend, scope: StorageScope, branch: JobBranch
) -> FoundFiles:
    here = branch.scope(scope)
    if item.source_tags and item.processed_tags:
        raise MappingFailed(
            'The "processed_tags" property is not supported for development storage.'
        )
    if item.file_ids:
        return FoundFiles(item, here, note="File input mapping kept unchanged.")
    included = _included(item)
    names = ", ".join(item.tags or (rule.name for rule in included or item.source_tags))
    if await _has_files(backend, here, item.tags, included or item.source_tags):
        note = f'Using files from development branch "{branch.id}" for tags "{names}".'
        return FoundFiles(item, here, note)
    note = f'Using files from default branch "{branch.default}" for tags "{names}".'
    return FoundFiles(item, replace(scope, branch=None), note)


async def _files_with_prefix(
    item: InputFile, backend: MappingBackend, scope: StorageScope, branch: JobBranch
) -> FoundFiles:
    if item.tags:
        own = branch.tags(item.tags)
        if await _has_files(backend, scope, own, ()):
            old, new = ", ".join(item.tags), ", ".join(own)
            return FoundFiles(
                replace(item, tags=own), scope, f'Using dev tags "{new}" instead of "{old}".'
            )
        return FoundFiles(item, scope)
    note: str | None = None
    prefixed = {
        TagRule(tag, "exclude"): TagRule(branch.tag(tag), "exclude") for tag in item.processed_tags
    }
    included = _included(item)
    marked = tuple(replace(rule, name=branch.tag(rule.name)) for rule in included)
    if marked and await _has_files(backend, scope, (), marked):
        prefixed |= dict(zip(included, marked, strict=True))
        old, new = (", ".join(rule.name for rule in rules) for rules in (included, marked))
        note = f'Using dev source tags "{new}" instead of "{old}".'
    rules = tuple(prefixed.get(rule, rule) for rule in item.source_tags)
    return FoundFiles(replace(item, source_tags=rules), scope, note)


def _included(item: InputFile) -> tuple[TagRule, ...]:
    return tuple(rule for rule in item.source_tags if rule.match == "include")


async def _has_files(
    backend: MappingBackend, scope: StorageScope, tags: tuple[str, ...], rules: Sequence[TagRule]
) -> bool:
    query = FileQuery(tags=tags, query=tag_query(rules), limit=1)
    return bool(await backend.files.list_files(scope, query))
