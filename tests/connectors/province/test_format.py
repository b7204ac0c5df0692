"""What the province is sent is in the province's codes."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest

from connectors.province import format
from schemas import codesets
from schemas.topics import ROLLUP
from streams.store import tally_few

PF = {
    "PC": "1", "MOBILE": "2", "QR": "3", "TABLET": "4", "HALL": "5", "PHONE": "6", "SMS": "7", "WINDOW": "5",
    "POST": "", "OTHER": "",
}  # fmt: skip


def rollup(channel: str) -> dict[str, Any]:
    """A record of rating.rollup.v1 as the bus carries it: of one channel, or of all if ``channel`` is empty."""
    counts = dict.fromkeys(("n1", "n2", "n3", "n4", "n5", "total", "good", "bad", "defaults"), 0)
    return {
        "scope": f"430903/HS-ZJJ/item/{channel}/2020-10-09", "scope_kind_code": "CELL", "item_code": "item",
        "channel_set": "govbus.channel", "channel_code": channel, "rated_on": date(2020, 10, 9), "revision": 1,
        **counts,
    }  # fmt: skip


@pytest.mark.parametrize(("channel", "pf"), PF.items())
def test_a_rollup_says_its_channel_in_the_codes_of_the_platform(channel: str, pf: str) -> None:
    assert format.body(ROLLUP, rollup(channel))["pf"] == pf


def test_a_rollup_of_all_channels_names_none() -> None:
    assert format.body(ROLLUP, rollup(""))["pf"] == ""


def test_ratings_and_their_rollups_say_the_same_channel_and_none_is_forgotten() -> None:
    assert tally_few.pf() == PF
    assert PF.keys() == codesets.load("govbus.channel").values.keys()
