"""From what tasks raise to one verdict."""

from __future__ import annotations

import re

import pytest

from vaka._supervision import INTERNAL_ERROR, leaves, verdict
from vaka.errors import (
    ComponentCrashed,
    ContainerFailed,
    ContainerLost,
    DeadlineExceeded,
    ImageUnavailable,
    OutOfMemory,
    StoreUnavailable,
    UserError,
)
from vaka.models.job import CauseKind


def test_groups_are_unfolded_in_order() -> None:
    first, second, third = ValueError("1"), UserError("2"), KeyError("3")
    group = ExceptionGroup("", [first, ExceptionGroup("", [second, third])])
    assert list(leaves(group)) == [first, second, third]
    assert list(leaves(first)) == [first]


def test_our_own_fault_outranks_the_authors() -> None:
    told = verdict([UserError("yours"), KeyError("ours"), UserError("yours too")])
    assert told.error == "application"
    assert told.message == INTERNAL_ERROR
    assert "ours" in told.detail
    assert told.cause.kind is CauseKind.INTERNAL


def test_a_user_error_is_told_as_it_is() -> None:
    told = verdict([UserError("The table is missing.")])
    assert (told.error, told.message) == ("user", "The table is missing.")


@pytest.mark.scenario("runner", 28)
def test_each_occurrence_has_a_name_of_its_own() -> None:
    names = {verdict([UserError("x")]).exception_id for _ in range(50)}
    assert len(names) == 50
    assert all(re.fullmatch(r"docker-[0-9a-f]{32}", name) for name in names)


@pytest.mark.parametrize(
    ("fault", "kind", "evidence"),
    [
        (OutOfMemory("", limit=5, peak=None), CauseKind.OUT_OF_MEMORY, {"limit_bytes": 5}),
        (DeadlineExceeded("", seconds=9, setting="s"), CauseKind.TIMEOUT, {"setting": "s"}),
        (ContainerFailed("", exit_code=1), CauseKind.USER_ERROR, {"exit_code": 1}),
        (ContainerFailed("", exit_code=137), CauseKind.KILLED, {"exit_code": 137}),
        (ComponentCrashed("", exit_code=2), CauseKind.APPLICATION_ERROR, {"exit_code": 2}),
        (ComponentCrashed("", exit_code=139), CauseKind.KILLED, {"exit_code": 139}),
        (ContainerLost("", name="c"), CauseKind.CONTAINER_LOST, {"container": "c"}),
        (ImageUnavailable("", reference="r"), CauseKind.IMAGE_UNAVAILABLE, {"reference": "r"}),
        (StoreUnavailable("down"), CauseKind.STORAGE, {"detail": "down"}),
    ],
)
def test_a_cause_names_its_evidence(
    fault: Exception, kind: CauseKind, evidence: dict[str, object]
) -> None:
    cause = verdict([fault]).cause
    assert cause.kind is kind
    assert evidence.items() <= cause.evidence.items()
