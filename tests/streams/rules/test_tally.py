"""What is said of bad ratings of one visit, against the rule as it reads (DOMAIN §5.7)."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from streams.rules.tally import Rating, is_bad, told_of


def rating(
    number: int, department: str, assess_no: int, revision: int, operation: str, score: int, default: bool
) -> Rating:
    return Rating(
        UUID(int=number), "430903", department, "C1", 1, assess_no, revision, operation, "ITEM", "GOV_HALL", score,
        default, 1_600_000_000_000, 1_600_000_000_000,
    )  # fmt: skip


def amends(later: Rating, earlier: Rating) -> bool:
    """The same publisher's correction or withdrawal."""
    same = (later.department, later.assess_no) == (earlier.department, earlier.assess_no)
    return same and not later.is_default and later.revision > earlier.revision


def pair_by_pair(old: Sequence[Rating], new: Sequence[Rating]) -> Iterator[Rating]:
    yield from filter(is_bad, new)
    for later in (*old, *new):
        before = [b for b in (*old, *new) if is_bad(b) and amends(later, b)]
        if before and not is_bad(later) and (later in new or all(b in new for b in before)):
            yield later


TOLD = st.tuples(
    st.sampled_from(["HS-SLJ", "HS-ZRZYJ"]), st.integers(1, 2), st.integers(0, 4), st.sampled_from("IUD"),
    st.sampled_from([1, 2, 5]), st.booleans(),
)  # fmt: skip


@given(st.lists(TOLD, max_size=8), st.lists(TOLD, max_size=5))
def test_the_same_is_said_as_when_each_word_is_held_against_each_other(old: list[Any], new: list[Any]) -> None:
    stored = [rating(n, *one) for n, one in enumerate(old)]
    fresh = [rating(100 + n, *one) for n, one in enumerate(new)]
    assert list(told_of(stored, fresh)) == list(pair_by_pair(stored, fresh))


def test_eight_times_the_stored_corrections_take_no_twenty_times_as_long() -> None:
    def cost(stored: int) -> float:
        old = [rating(n, "HS-SLJ", 1, n, "U", 1 + 4 * (n % 2), False) for n in range(stored)]
        began = time.process_time()
        assert len(list(told_of(old, [rating(stored, "HS-SLJ", 1, stored, "U", 5, False)]))) == 1
        return max(time.process_time() - began, 1e-4)

    cost(10)
    assert cost(2_400) < 20 * cost(300)
