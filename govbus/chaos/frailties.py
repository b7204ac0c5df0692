"""Planted mistakes that only a fault from outside brings to light; one for each part that breaks the world.

As in ``planted``: patches for a child process, unknown to the product.
"""

# mypy: disable-error-code="assignment,method-assign,arg-type,attr-defined"
from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

PAYLOADS = 80


def decode_errors_escape() -> None:
    """What fastavro raises at damaged bytes leaves the decoder."""
    import io

    import fastavro

    from schemas import codec

    codec._read = lambda found, value: fastavro.schemaless_reader(
        io.BytesIO(value[codec.FRAME_BYTES :]), found.schema, None
    )


def impatient() -> None:
    """The worker takes an absent database for the end."""
    from streams.agents import line

    @contextmanager
    def at_the_end() -> Iterator[None]:
        yield

    line.retryable = at_the_end


def delivery_errors_unread() -> None:
    """The relay gives up a record after a moment, and takes what the producer then tells it for success."""
    from connectors import relay

    real = relay.Producer
    hasty = {"message.timeout.ms": 300, "enable.idempotence": False, "enable.gapless.guarantee": False}
    relay.Producer = lambda settings, **rest: real({**settings, **hasty}, **rest)

    def recorder(seq: int, landed: list[Any], _: list[str]) -> Callable[[Any, Any], None]:
        def record(error: Any, message: Any) -> None:
            place = (None, None) if error is not None else (message.partition(), message.offset())
            landed.append(relay.Landed(seq, *place))

        return record

    relay._recorder = recorder
    relay.Relay._refuse_below_floors = lambda *_: None  # where they landed is not always known


def receipts_not_compared() -> None:
    """A receipt with the right signature is believed, whatever it acknowledges."""
    from schemas import receipts

    receipts._check_records = lambda *_: None


def found(part: str, seed: int, planted: Mapping[str, Sequence[str]]) -> list[str]:
    """What ``part`` finds wrong with the bug in the processes."""
    from govbus.chaos import database, moods, network, poison, province
    from govbus.chaos.cycles import round_of

    if part == "poison":
        faults: list[str] = poison.run(PAYLOADS, seed, lambda *_: None, planted)["faults"]
        return faults
    settings = {"database": (database.setting, 4), "network": (network.setting, 18),
                "province": (province.setting, len(moods.PASSING))}  # fmt: skip
    setting, count = settings[part]
    found: list[str] = round_of(setting(seed, count, planted), count, seed)["faults"]
    return found

