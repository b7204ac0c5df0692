"""Every setting of govbus, typed, with its default; the only reader of the environment (prefix ``GOVBUS_``)."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from schemas.errors import Misconfigured


class Settings(BaseSettings):
    """Settings of one installation. Durations are in seconds unless the name says otherwise."""

    model_config = SettingsConfigDict(env_prefix="GOVBUS_", frozen=True, extra="ignore")

    kafka: str = ""
    """Bootstrap servers, ``host:port[,host:port]``; empty: the local stack."""
    database_url: str = ""
    """SQLAlchemy URL of PostgreSQL (``postgresql+psycopg://…``); empty: the local stack."""
    home: Path = Path(".govbus")
    """Where the local stack keeps its data, logs and state."""
    region: str = "430903"
    """Region code (GB/T 2260) of the district that owns this bus."""
    clock: Literal["wall", "watermark"] = "wall"
    """What timers take for now: the wall clock, or the events' own ``received_at`` watermark (simulation)."""
    timer_settle_ms: int = 200
    """How long after a due time the timer waits for evidence that is still on its way, in milliseconds."""
    worker_name: str = ""
    """Name of this worker in its group, unlike any other's; empty: a restart waits for the session timeout."""
    province_url: str = ""
    """Base URL of the province's platform; empty: the local stack's."""
    province_database_url: str = ""
    """Database of the province's own process; empty: the local stack's. Only ``govbus province`` reads it."""
    province_public_key: str = ""
    """Hex Ed25519 public key that the province signs receipts with; empty: the local stack's."""
    replication: int = 0
    """Replication factor that ``topics apply`` asks for; 0: as many as there are brokers, three at most."""
    failpoint: str = ""
    """For the fault rig: the place (``streams.store.failpoints``), ``name[:n][@later]``, at which the process dies."""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"


def load() -> Settings:
    """Settings from the environment; raises ``Misconfigured`` that lists every fault at once."""
    try:
        return Settings()
    except ValidationError as error:
        raise Misconfigured(
            *(f"GOVBUS_{'.'.join(map(str, e['loc'])).upper()}: {e['msg']}" for e in error.errors(include_input=False))
        ) from None
