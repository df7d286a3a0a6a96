"""Lets a class of tests have its own way to run them."""

import pytest
import trio


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let `trio(run=...)` of a class win over the mark that trio_mode puts on each test."""
    for item in items:
        for mark in item.iter_markers("trio"):
            if mark.kwargs.get("run", trio.run) is not trio.run:
                item.add_marker(pytest.mark.trio(run=mark.kwargs["run"]), append=False)
                break
