"""What a peer says becomes a rate; what it counted wrong becomes no rate at all."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

from bench import counts, load
from bench.contest import Contest
from bench.given import Given
from bench.measure import report
from bench.peers.protocol import NotRun, Task, understand
from bench.peers.table import FAUST, PEERS, Peer
from bench.stand import Stand, stand
from schemas.topics import RATING

EVENTS = 2_000
LIAR = Path(__file__).with_name("lying_peer.py")


def test_a_rate_is_taken_from_the_first_count_to_the_durable_end() -> None:
    told = understand(
        ['{"began": 1.0}', '{"n": 0, "at": 2.0}', '{"n": 100, "at": 3.0}', '{"n": 900, "at": 4.0}',
         '{"n": 1100, "at": 5.0}', '{"durable": 8.0}', '{"dumped": true, "offsets": {"3": 17}}']
    )  # fmt: skip
    assert told is not None
    assert (told.rate, told.events, told.offsets) == (200.0, 1100, {3: 17})


def test_a_peer_that_tells_nothing_on_the_way_is_timed_from_where_it_began() -> None:
    told = understand(['{"began": 1.0}', '{"n": 600, "at": 2.9}', '{"durable": 3.0}', '{"dumped": true}'])
    assert told is not None
    assert (told.rate, told.offsets) == (300.0, None)


def test_what_is_no_word_of_the_protocol_is_ignored() -> None:
    lines = ["starting…", "[]", "{broken", '◐ {"n": 5, "at": 1.0}', '{"durable": 2.0}', '{"dumped": true}']
    told = understand(lines)
    assert told is not None
    assert told.events == 5


def test_a_peer_that_ends_before_its_counts_are_written_has_said_nothing() -> None:
    assert understand(['{"n": 5, "at": 1.0}', '{"durable": 2.0}']) is None


@pytest.fixture(scope="module")
def place() -> Iterator[Stand]:
    with stand() as ready:
        for _ in load.fill(ready.kafka, RATING, EVENTS):
            continue
        yield ready


def test_the_log_is_counted_up_to_given_offsets(place: Stand) -> None:
    ends = {0: 40, 5: 7}
    cells = counts.of_log(place.kafka, RATING, counts.RATING_FIELDS, ends)
    assert cells["n"].sum() == 47
    assert counts.of_log(place.kafka, RATING, counts.RATING_FIELDS)["n"].sum() == EVENTS


def test_a_peer_that_counts_right_has_a_rate_and_one_that_does_not_has_a_reason(place: Stand, tmp_path: Path) -> None:
    """Stock Faust counts for real; a liar counts one rating into the wrong cell; a third cannot be started."""
    faust = next(p for p in PEERS if p.name == FAUST)
    liar = Peer("liar", "", lambda _: [sys.executable, str(LIAR)])
    peers = [faust, liar, Peer("absent", "", _not_there), Peer("breaks", "", lambda _: [sys.executable, "-c", "1/0"])]
    whole = counts.of_log(place.kafka, RATING, counts.RATING_FIELDS)

    def ours(_: int) -> tuple[dict[str, float], dict[str, float], pl.DataFrame]:
        return {"rate": 1000.0}, {}, whole

    task = Task(RATING, counts.RATING_FIELDS, EVENTS)
    contest = Contest(place, Given(tmp_path, EVENTS, 1), task, peers, ours, lambda: {"limit": 2000.0})
    found = report("x", contest.rounds())
    assert list(found["peers"]) == list(found["ratios"]) == [FAUST]
    assert found["peers"][FAUST]["events"] == EVENTS
    assert found["not_run"]["absent"] == "there is no such thing"
    assert "ZeroDivisionError" in found["not_run"]["breaks"]
    assert found["not_run"]["liar"].startswith("it counted wrong: 2 of ")


def test_each_round_begins_with_another_and_measures_all(place: Stand, tmp_path: Path) -> None:
    order: list[str] = []

    def ours(number: int) -> tuple[dict[str, float], dict[str, float], None]:
        order.append(f"ours {number}")
        return {"rate": 1.0}, {"copy": 2.0}, None

    def limits() -> dict[str, float]:
        order.append("limits")
        return {"consume": 4.0}

    task = Task(RATING, counts.RATING_FIELDS, EVENTS)
    rounds = Contest(place, Given(tmp_path, EVENTS, 3), task, [], ours, limits).rounds()
    assert order == ["ours 0", "limits", "limits", "ours 1", "ours 2", "limits"]
    assert report("x", rounds)["limits"] == {"copy": 0.5, "consume": 0.25}


def _not_there(_: Path) -> list[str]:
    raise NotRun("there is no such thing")
