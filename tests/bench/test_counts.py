"""Cells are compared one by one, whoever counted them."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from bench.counts import differences, of_dump


def cells(*rows: tuple[str, int, int]) -> pl.DataFrame:
    return pl.DataFrame(list(rows), schema=["department", "day", "n"], orient="row")


def test_equal_cells_in_any_order_do_not_differ() -> None:
    assert differences(cells(("A", 1, 2), ("B", 1, 3)), cells(("B", 1, 3), ("A", 1, 2))) == 0


def test_a_missing_a_strange_and_a_wrong_cell_are_three_differences() -> None:
    expected = cells(("A", 1, 2), ("B", 1, 3), ("C", 1, 1))
    assert differences(expected, cells(("A", 1, 2), ("B", 1, 4), ("D", 1, 1))) == 3


def test_a_cell_that_a_peer_keeps_in_several_partitions_is_summed(tmp_path: Path) -> None:
    file = tmp_path / "dump"
    file.write_text('HS-ZJJ\t18262\t2\nHS-ZJJ\t18262\t5\n"odd\t18263\t1\n')
    assert differences(cells(("HS-ZJJ", 18262, 7), ('"odd', 18263, 1)), of_dump(file, ["department"])) == 0


def test_a_peer_that_wrote_nothing_misses_every_cell(tmp_path: Path) -> None:
    file = tmp_path / "dump"
    file.touch()
    assert differences(cells(("A", 1, 2)), of_dump(file, ["department"])) == 1
