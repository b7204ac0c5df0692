"""The network before Kafka, PostgreSQL and the province: cut one way or both, half open, refused, flapping.

Every process of the product reaches them through a wire; Kafka advertises the wire's port. The rig itself goes past the
wires before PostgreSQL and the province.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from connectors.local.process import LOOPBACK, free_port, write_state
from consumers.province import keys
from govbus.chaos.cycles import CASES_A_FAULT, ROUND, Fault, rounds
from govbus.chaos.fleet import KINDS
from govbus.chaos.ground import Ground, ground, scratch
from govbus.chaos.rounds import Tell
from govbus.chaos.stage import Stage, stage
from govbus.chaos.wire import FAULTS, Wire

BROKEN_S = (0.5, 4.5)


@dataclass(frozen=True, slots=True)
class Wires:
    """One before each of the three."""

    kafka: Wire
    postgres: Wire
    province: Wire

    def named(self) -> dict[str, Wire]:
        """By what is behind them."""
        return {"kafka": self.kafka, "postgresql": self.postgres, "province": self.province}


def run(count: int, seed: int, tell: Tell) -> dict[str, Any]:
    """``count`` faults of the network, in rounds."""
    whole = count >= ROUND
    return rounds(setting, "network", count, seed, tell, ("relay", "worker", "consume", "push") if whole else ())


@contextlib.contextmanager
def setting(
    seed: int, count: int, planted: Mapping[str, Sequence[str]] | None = None
) -> Iterator[tuple[Stage, list[Fault]]]:
    """A round's bus behind wires; the faults in an order of the seed's own."""
    with (
        scratch() as home, wired(home) as (bus, wires),
        stage(bus, seed, CASES_A_FAULT * count, planted, through(bus, wires)) as made,
    ):  # fmt: skip
        found = [*faults(wires), started_into_a_cut(made, wires.kafka)]
        made.rng.shuffle(found)
        yield made, found


@contextlib.contextmanager
def wired(home: Path, settings: Mapping[str, str] | None = None) -> Iterator[tuple[Ground, Wires]]:
    """A bus whose broker advertises its wire; ``settings`` are PostgreSQL's."""
    port = free_port()
    write_state(home / "kafka" / "node-1" / "state.json", port=port, controller_port=free_port(taken={port}))
    with Wire(lambda: port) as kafka:
        advertised = {"advertised.listeners": f"CLIENT://{LOOPBACK}:{kafka.port}"}
        with ground(home, settings=settings, kafka=advertised) as bus:
            if bus.cluster.nodes[0].port != port:
                raise RuntimeError("the broker took another port than the one its wire leads to")
            with Wire(lambda: bus.postgres.port) as postgres, Wire(lambda: province_port(home)) as province:
                yield bus, Wires(kafka, postgres, province)


def through(bus: Ground, wires: Wires) -> dict[str, str]:
    """Settings that lead every process through the wires."""
    url = sa.engine.make_url(bus.database_url).set(port=wires.postgres.port)
    return {
        "GOVBUS_KAFKA": f"{LOOPBACK}:{wires.kafka.port}",
        "GOVBUS_DATABASE_URL": url.render_as_string(hide_password=False),
        "GOVBUS_PROVINCE_URL": f"http://{LOOPBACK}:{wires.province.port}",
        "GOVBUS_PROVINCE_PUBLIC_KEY": keys.load(bus.home / "province").public_key,
    }


def province_port(home: Path) -> int:
    """Where the province listens now, as it published it; port 0, which nobody answers, before that."""
    try:
        url = str(json.loads((home / "province" / keys.ADDRESS).read_text())["url"])
    except (OSError, ValueError):
        return 0
    return int(url.rpartition(":")[2])


def faults(wires: Wires) -> list[Fault]:
    """Every fault of every wire."""
    return [_fault(name, wire, number) for name, wire in wires.named().items() for number in range(len(FAULTS))]


def started_into_a_cut(made: Stage, wire: Wire) -> Fault:
    """Workers that start while Kafka does not answer, and whose first questions are then lost."""

    def broken() -> None:
        wire.set("cut towards the client")
        for name in [n for n in made.fleet.lives if KINDS[n] == "worker"]:
            made.fleet.kill(name)

    def mend() -> None:
        wire.set("open")
        wire.reset()

    return Fault("workers started into a cut", broken, mend, (5.0, 5.0))


def _fault(name: str, wire: Wire, number: int) -> Fault:
    """Half of the cuts end with what was sent arriving, half with the connections gone."""
    mode = FAULTS[number]

    def mend() -> None:
        wire.set("open")
        if number % 2:
            wire.reset()

    return Fault(f"{name} {mode}", lambda: wire.set(mode), mend, BROKEN_S)
