"""The published client kbcstorage, unmodified, against a server on the loopback."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from tests.clients.kbcstorage import Kbcstorage
from tests.clients.process import client_environment
from tests.clients.site import Site, tail

SUITE_TIME_LIMIT = 300
"""Seconds for all of the client's own tests: they make some hundred calls."""

SCENARIOS: dict[str, tuple[int, ...]] = {
    "token_is_verified": (12,),
    "workspaces_are_refused_without_a_second_try": (11,),
    "file_is_uploaded_with_tags": (22,),
    "federation_token_brings_credentials": (23,),
    "file_comes_back_as_it_was": (24,),
    "file_is_compressed": (25,),
    "empty_file_comes_back": (26,),
    "large_file_goes_in_blocks": (27,),
    "deleted_file_is_gone": (28,),
    "files_are_listed": (29,),
    "jobs_are_listed": (43,),
    "bucket_is_created": (50,),
    "missing_bucket_is_told_at_once": (51,),
    "bucket_is_dropped_with_its_tables": (53,),
    "tables_of_a_bucket_are_listed": (59,),
    "table_is_created": (60,),
    "table_is_created_with_a_key": (61,),
    "table_is_loaded": (62,),
    "rows_of_a_known_key_are_replaced": (63,),
    "table_is_previewed": (65,),
    "table_is_exported_to_a_file": (67,),
    "table_is_exported_into_storage": (68,),
    "empty_table_is_exported": (69,),
    "repeated_export_is_the_same_file": (70,),
    "table_is_deleted": (85,),
    "failing_import_tells_why": (),
    "other_csv_is_read": (),
    "table_metadata_is_upserted": (87,),
    "branch_metadata_is_a_list": (92,),
    "configuration_metadata_is_kept": (93,),
    "components_are_listed": (94,),
    "configuration_lives_and_dies": (95,),
    "configuration_comes_back_from_the_trash": (96,),
    "trigger_lives_and_dies": (122,),
}
"""What the client plays, and the scenarios of storage-api.md that each shows."""


@pytest.mark.docker
@pytest.mark.parametrize(
    "scenario",
    [
        pytest.param(name, marks=[pytest.mark.scenario("storage-api", each) for each in numbers])
        for name, numbers in SCENARIOS.items()
    ],
)
def test_kbcstorage_works_unmodified(kbcstorage: Kbcstorage, scenario: str) -> None:
    kbcstorage.play(scenario)


@pytest.mark.docker
@pytest.mark.scenario("storage-api", 127)
def test_the_clients_own_tests_pass(clients: dict[str, Path], plain: Site, tmp_path: Path) -> None:
    environment = clients["kbcstorage"]
    modules = [file.stem for file in (environment / "suite/tests/functional").glob("test_*.py")]
    wanted = [name for name in sorted(modules) if not name.startswith("test_workspaces")]
    assert len(wanted) >= 9
    settings = {
        "KBC_TEST_API_URL": plain.url,
        "KBC_TEST_TOKEN": plain.accounts["Alpha"].token,
        "SKIP_ABS_TESTS": "1",
        "PYTHONPATH": str(environment / "suite"),
    }

    done = subprocess.run(
        [
            *(str(environment / "bin/python"), "-m", "unittest"),
            *(f"tests.functional.{name}" for name in wanted),
        ],
        env=client_environment(tmp_path, settings),
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SUITE_TIME_LIMIT,
        check=False,
    )

    assert done.returncode == 0, f"{done.stderr}\n{tail(plain.log)}"
    ran = re.search(r"Ran (\d+) tests", done.stderr)
    assert ran is not None
    assert int(ran[1]) >= 40
