"""Fills in the addresses nobody configured, from the local stack; every command that needs a bus starts
here.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from connectors.local.stack import Addresses, Stack
from govbus.screen import console as screen
from govbus.settings import Settings, load
from schemas import access
from schemas.errors import Retryable

if TYPE_CHECKING:
    import sqlalchemy as sa

    from connectors.local import jars

PROVINCE_ADDRESS = Path("province") / "address.json"
"""Below the home: where a province that runs on this machine writes its URL and public key."""


def local_stack(settings: Settings, console: Console | None = None, fetched: jars.Progress | None = None) -> Stack:
    """The local stack of an installation, saying what it does on standard error."""
    told = console or screen(stderr=True)
    return Stack(settings.home, say=lambda text: told.print(text, style="yellow"), progress=fetched)


def start(settings: Settings, console: Console | None = None, upgrade: bool = False) -> Addresses:
    """Starts the parts of the local stack that no setting replaces, with a progress bar while jars are
    fetched; ``upgrade``: brings the tables up to date while Kafka starts.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from streams.store import migrate

    told = console or screen(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=told, transient=True) as bar:
        task = bar.add_task("starting Kafka and PostgreSQL", total=None)

        def fetched(done: int, total: int) -> None:
            text = "fetching Kafka's jars" if done < total else "starting Kafka and PostgreSQL"
            bar.update(task, description=text, completed=done, total=total)

        ready = migrate.upgrade if upgrade else lambda _: None
        return local_stack(settings, told, fetched).up(not settings.kafka, not settings.database_url, ready)


def resolve(settings: Settings, prepare: bool = True) -> Settings:
    """Settings with every address filled in; starts the local stack for those that are empty.

    ``prepare``: what had to be started here also gets its tables and topics; what a setting names gets them of whoever
    runs it (``govbus db upgrade``, ``topics apply``). Where a province
    runs on this machine, its published URL and key are filled in too; otherwise they stay empty. From now on this
    process speaks to Kafka as the settings say.
    """
    access.use(settings.kafka_access())
    if not (settings.kafka and settings.database_url):
        settings = _with_local(settings, prepare)
    return with_province(settings)


def database_url(settings: Settings, prepare: bool = True) -> str:
    """The database's address, for commands that need no Kafka: nothing is started where a setting names it."""
    return settings.database_url or resolve(settings, prepare).database_url


@contextmanager
def district() -> Iterator[sa.Engine]:
    """The district's database of this installation, closed at the end."""
    from streams.store.engine import connect

    engine = connect(database_url(load()))
    try:
        yield engine
    finally:
        engine.dispose()


def prepare_bus(kafka: str, database_url: str, replication: int = 0) -> list[str]:
    """Brings tables and topics to what the code declares; returns what changed on the broker."""
    from connectors import topics_admin
    from streams.store import migrate

    migrate.upgrade(database_url)
    return topics_admin.apply(kafka, replication)


def resolve_ready(settings: Settings) -> Settings:
    """Like ``resolve``, with tables and topics brought up to date whatever was running before."""
    from connectors import topics_admin
    from streams.store import migrate

    access.use(settings.kafka_access())
    filled = settings
    if not (settings.kafka and settings.database_url):
        filled = _filled(settings, start(settings, upgrade=True))
    if settings.database_url:
        migrate.upgrade(settings.database_url)
    topics_admin.apply(filled.kafka, filled.replication)
    return with_province(filled)


def _with_local(settings: Settings, prepare: bool) -> Settings:
    from connectors import topics_admin
    from streams.store import migrate

    if prepare:  # whoever meant the district's bus would take these receipts for the district's
        unset = [f"GOVBUS_{name.upper()}" for name in ("kafka", "database_url") if not getattr(settings, name)]
        told = f"{' and '.join(unset)} not set: a bus of its own in {settings.home}/, started here if need be"
        screen(stderr=True, soft_wrap=True).print(told, style="yellow")
    parts = local_stack(settings).status()
    fresh = not all(part.running for part in parts if needed(part.name, settings))
    filled = _filled(settings, start(settings))
    if prepare and fresh and not settings.database_url:
        migrate.upgrade(filled.database_url)
    if prepare and fresh and not settings.kafka:
        topics_admin.apply(filled.kafka, filled.replication)
    return filled


def _filled(settings: Settings, found: Addresses) -> Settings:
    return settings.model_copy(
        update={
            "kafka": settings.kafka or found.kafka,
            "database_url": settings.database_url or found.database_url,
            "province_database_url": settings.province_database_url or found.province_database_url,
        }
    )


def needed(part: str, settings: Settings) -> bool:
    """Whether the local stack has to bring this part, because no setting names another."""
    return not (settings.database_url if part == "postgres" else settings.kafka)


def with_province(settings: Settings) -> Settings:
    """Fills the province's URL and key from what a province on this machine published, if neither is set."""
    path = settings.home / PROVINCE_ADDRESS
    if settings.province_url or not path.exists():
        return settings
    try:
        published = json.loads(path.read_text())
        update = {"province_url": published["url"]}
        if not settings.province_public_key:
            update["province_public_key"] = published["public_key"]
    except (json.JSONDecodeError, KeyError) as error:
        raise Retryable(f"{path} is not readable yet: {error}") from None
    return settings.model_copy(update=update)
