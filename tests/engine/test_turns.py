import threading
import time
from functools import partial
from typing import Any

import pytest
import trio

from vaka.turns import MOST_BYTES, MOST_VALUES, beside, in_turn, is_large


@pytest.mark.parametrize(
    "document",
    [
        {str(n): n for n in range(MOST_VALUES + 1)},
        [[n] for n in range(MOST_VALUES // 2 + 1)],
        {"a": {"b": (None,) * (MOST_VALUES)}},
        bytes(MOST_BYTES + 1),
    ],
)
def test_a_document_of_many_values_or_bytes_is_large(document: object) -> None:
    assert is_large(document)


@pytest.mark.parametrize(
    "document", [None, 1, "a" * 9_999_999, {}, [*range(MOST_VALUES)], bytes(MOST_BYTES)]
)
def test_any_other_is_not(document: object) -> None:
    assert not is_large(document)


async def test_only_what_is_large_is_looked_at_in_a_thread() -> None:
    assert await beside({}, threading.get_ident) == threading.get_ident()
    assert await beside([0] * 9_999, threading.get_ident) != threading.get_ident()


async def test_one_thing_is_done_at_a_time_and_errors_come_bare() -> None:
    working: list[int] = []
    done: list[int] = []

    def work(number: int) -> None:
        working.append(number)
        time.sleep(0.001)  # others would come between
        assert working == [number]
        working.remove(number)
        done.append(number)

    async with trio.open_nursery() as nursery:
        for number in range(50):
            nursery.start_soon(in_turn, partial(work, number))
    assert sorted(done) == [*range(50)]

    def fails() -> Any:
        raise ValueError("bare")

    with pytest.raises(ValueError, match="bare"):
        await in_turn(fails)
