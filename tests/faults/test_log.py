"""A broker's log that is torn, made again, or rotten, under real processes: said, waited for, mended, nothing lost.

The long form is `make chaos` (`--logs`, `--brokers`); waits end when nothing moves, not after a length of time.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from connectors.local.broker import Cluster
from connectors.local.postgres import Postgres
from govbus.chaos import cuts, logfile
from govbus.chaos.cycles import last_words
from govbus.chaos.ground import Ground
from govbus.chaos.stage import stage

CASES = 160


@pytest.fixture
def lossy(postgres: Postgres, stack_directory: Path) -> Iterator[Ground]:
    """A bus of its own whose broker's log may be lost."""
    from connectors import topics_admin

    name = f"lossy_{uuid.uuid4().hex[:8]}"
    home = stack_directory / name
    with Cluster(home / "kafka", tied=True) as cluster:
        topics_admin.apply(cluster.bootstrap)
        url, province = postgres.create(name, template="govbus_template"), postgres.create(f"{name}_p", role=name)
        yield Ground(cluster.bootstrap, url, province, home, cluster, postgres)
    postgres.drop(name)
    postgres.drop(f"{name}_p")


@pytest.mark.stack
def test_a_torn_log_a_rotten_batch_and_a_topic_made_again_lose_nothing(lossy: Ground) -> None:
    with stage(lossy, 11, CASES) as made:
        figures = cuts.cuts(made, ("rot", "recreate", "tear"))
        verdict = made.finish()
    assert figures["wrong"] == []
    assert figures["events_lost_by_the_broker"] > 10
    assert figures["noticed"] == 3
    assert verdict["shown"] == {}
    assert verdict["clean"], verdict.get("failed")
    assert [(end.name, last_words(made, end.name)) for end in made.ends] == []


def test_a_segment_is_cut_within_a_batch_and_a_flipped_bit_flips_back(tmp_path: Path) -> None:
    from aiokafka.record.default_records import DefaultRecordBatchBuilder

    def batch(base: int, count: int) -> bytes:
        builder = DefaultRecordBatchBuilder(2, 0, 0, -1, -1, -1, 10_000)
        for offset in range(count):
            builder.append(offset, 10**12, b"k", b"v", [])
        return base.to_bytes(8, "big") + bytes(builder.build())[8:]

    path = tmp_path / "00000000000000000000.log"
    whole = batch(0, 3) + batch(3, 2)
    path.write_bytes(whole)
    assert [(b.first, b.last) for b in logfile.batches(path)] == [(0, 2), (3, 4)]
    assert logfile.damage(path, 1) == 3
    assert path.read_bytes() != whole
    logfile.flip_at(path, 3)
    assert path.read_bytes() == whole
    assert logfile.tear(path, 1) == 3
    assert [(b.first, b.last) for b in logfile.batches(path)] == [(0, 2)]
    assert path.stat().st_size > len(batch(0, 3)), "the rest of the torn batch is there"
