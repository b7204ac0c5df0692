"""``govbus demo``: the whole system on a simulated district, from publishers to receipts."""

from __future__ import annotations

import contextlib
import json
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

if TYPE_CHECKING:
    import sqlalchemy as sa
    from rich.console import Console
    from rich.live import Live

    from govbus.district.bus import Look
    from govbus.district.generator import Made
    from govbus.district.publishing import Departments
    from govbus.settings import Settings
    from govbus.supervisor import Child, Supervisor

T = TypeVar("T")
SAY_EVERY_S = 10.0
CHUNK = 100
LOOK_EVERY_S = 0.5
GENTLY_S = 0.15
"""Pause after each chunk until the first alert is on the screen."""
LIVE_PER_S = 500
LIVE_S = 10
LIVE_SEEN_S = 3.0
LIVE_TICK_S = 0.015
"""How often the live phase publishes what is due."""
SETTLE_S = 240.0
FIRST = (("worker", ("worker",)), ("relay", ("relay",)), ("alerts", ("consume", "--only", "alerts")))
THEN = (
    ("province", ("province",)), ("directory", ("consume", "--only", "directory")), ("push", ("push",)),
    ("desk", ("consume", "--only", "desk")),
)  # fmt: skip
THEN_NICE = 10
"""Whom nobody waits for steps back for the way from event to alert: all share a small server."""
THEN_AFTER_S = 4.0
"""What nobody waits for at first starts later, so that the first alert is not held up by it."""
LOOK_AROUND = ("govbus alerts watch", "govbus alerts list", "govbus rollup show", "govbus directory search 业务",
               "govbus dlq list", "govbus reconcile", "govbus status")  # fmt: skip


def register(app: typer.Typer) -> None:
    """Add the command to ``app``."""
    app.command("demo")(demo)


def demo(
    cases: Annotated[int, typer.Option(min=20, help="Cases of the simulated year.")] = 2_000,
    speed: Annotated[str, typer.Option(help="Simulated seconds per second, or max.")] = "max",
    seed: Annotated[int, typer.Option(help="The same seed gives the same district.")] = 430_903,
    leave: Annotated[bool, typer.Option("--exit", help="End when everything has settled.")] = False,
    report: Annotated[Path | None, typer.Option("--json", help="Write the report to this file.")] = None,
) -> None:
    """Run everything with a simulated district; the code is 0 only if all is proved equal."""
    from govbus.screen import console
    from schemas.errors import Misconfigured

    factor = _factor(speed)
    if factor is not None and factor <= 0:
        raise Misconfigured("--speed is a number above 0, or max")
    screen = console()
    try:
        true = _Show(screen, cases, seed, factor).run(report, leave)
    except KeyboardInterrupt:
        screen.print("interrupted: nothing is lost; the same command goes on where this one stopped")
        raise typer.Exit(130) from None
    raise typer.Exit(0 if true else 1)


def _factor(speed: str) -> float | None:
    from schemas.errors import Misconfigured

    if speed == "max":
        return None
    try:
        return float(speed)
    except ValueError:
        raise Misconfigured("--speed is a number above 0, or max") from None


@dataclass
class _Show:
    """One run of the demonstration. Raises ``Retryable`` naming what did not settle."""

    console: Console
    cases: int
    seed: int
    factor: float | None
    started: float = field(default_factory=time.monotonic)
    first_alert: float | None = None
    live_rate: float = 0.0
    waits: list[int] = field(default_factory=list)
    kafka: str = ""

    def run(self, report: Path | None, leave: bool) -> bool:
        """The whole demonstration; True if reconciliation, faults and oracle all agree."""
        from govbus.district.generator import make

        with ThreadPoolExecutor(1) as beside:
            making = beside.submit(make, self.seed, self.cases, min(LIVE_PER_S * LIVE_S, 10 * self.cases))
            settings, started = _bus()
        try:
            return self._on(settings, making.result(), report, leave)
        finally:
            self._stop(settings, started)

    def _stop(self, settings: Settings, started: Collection[str]) -> None:
        """Stop the parts of the local stack that this run started; what ran before goes on."""
        from govbus.runtime import local_stack

        if started and (stopped := local_stack(settings, self.console).down(started)):
            self.console.print(f"stopped {', '.join(stopped)}; the data stays in {settings.home} (govbus up)")

    def _on(self, settings: Settings, made: Made, report: Path | None, leave: bool) -> bool:
        from govbus.supervisor import Supervisor
        from streams.store.engine import connect

        self.kafka = settings.kafka
        repeated = _claim(settings, self.seed, self.cases)
        engine = connect(settings.database_url)
        children = _children(settings)
        with Supervisor(children, settings.home / "logs", on_end=self._tell) as supervisor:
            try:
                supervisor.wait_ready(60, [name for name, _ in FIRST])
                told = self._feed(engine, settings, made, repeated)
                outcome = self._prove(engine, settings, made, told)
                if report:
                    report.write_text(json.dumps(outcome, ensure_ascii=False, indent=2) + "\n")
                if not leave:
                    self._stay(supervisor)
            finally:
                engine.dispose()
        return bool(outcome["ok"])

    def _tell(self, ended: object) -> None:
        self.console.print(str(ended), style="yellow")

    # feeding

    def _feed(self, engine: sa.Engine, settings: Settings, made: Made, repeated: bool) -> Departments:
        """Publish the year, poison the log, then the live phase."""
        from govbus.district.publishing import Departments

        departments = Departments(engine, repeated)
        if repeated:
            self.console.print("this home already holds this district: every row will answer 'same'")
        with self._live() as live:
            self._year(engine, made, departments, live)
            _poison_once(settings, made, self._tell)
            self._settle(engine, live, "before the live phase")
            self._pace(engine, settings, made, departments)
            self._settle(engine, live, "after the live phase")
        return departments

    def _year(self, engine: sa.Engine, made: Made, departments: Departments, live: Live) -> None:
        rows = made.district.rows
        begun, shown = time.monotonic(), 0.0
        for start in range(0, len(rows), CHUNK):
            chunk = rows[start : start + CHUNK]
            self._wait_for(chunk[0].received_at - made.district.span.start, begun)
            self._patiently(engine, partial(departments.publish, chunk), partial(departments.publish, chunk, True))
            if self.first_alert is None:
                time.sleep(GENTLY_S)  # processes are still starting: leave them the machine
            if time.monotonic() - shown > LOOK_EVERY_S:
                shown = self._show(engine, live, f"publishing {start + len(chunk):,} of {len(rows):,} rows")

    def _patiently(self, engine: sa.Engine, act: Callable[[], T], again: Callable[[], T] | None = None) -> T:
        """``act`` until PostgreSQL and Kafka let it, saying what it waits for; from the second time ``again``."""
        from consumers.loop import passes

        told, attempt = 0.0, act
        while True:
            try:
                return attempt()
            except Exception as error:
                if not passes(error):
                    raise
                why = type(error).__name__
            if time.monotonic() - told > SAY_EVERY_S:
                told = time.monotonic()
                places = f"PostgreSQL at {engine.url.host}:{engine.url.port} or Kafka at {self.kafka}"
                self._tell(f"waiting for {places} ({why}); nothing is lost")
            attempt = again or act
            time.sleep(1.0)

    def _wait_for(self, simulated_ms: int, begun: float) -> None:
        """Hold back until the simulated moment, if a speed was asked for."""
        if self.factor is not None:
            time.sleep(max(0.0, begun + simulated_ms / 1000 / self.factor - time.monotonic()))

    def _pace(self, engine: sa.Engine, settings: Settings, made: Made, departments: Departments) -> None:
        """The live phase: a steady stream, so that latency is a working bus's, not a backlog's."""
        from govbus.district.watching import Watch

        with Watch(_environment(settings)) as watch:
            begun, sent, rows = time.monotonic(), 0, made.district.live
            while sent < len(rows):
                due = min(len(rows), 1 + int((time.monotonic() - begun) * LIVE_PER_S))
                watch.published(rows[sent:due])
                now = rows[sent:due]
                self._patiently(engine, partial(departments.publish, now), partial(departments.publish, now, True))
                sent = due
                time.sleep(LIVE_TICK_S)
            self.live_rate = len(rows) / max(time.monotonic() - begun, 0.001)
            self.waits = watch.waits(LIVE_SEEN_S)

    def _settle(self, engine: sa.Engine, live: Live, when: str) -> None:
        """Wait until nothing is under way, twice in a row; raises ``Retryable`` naming what is."""
        from govbus.district.bus import Settling
        from schemas.errors import Retryable

        end, calm = time.monotonic() + SETTLE_S, 0
        with self._patiently(engine, partial(Settling, engine, self.kafka)) as settling:
            while calm < 2:
                open_ends = self._patiently(engine, settling.unsettled)
                calm = calm + 1 if not open_ends else 0
                if open_ends and time.monotonic() > end:
                    raise Retryable(f"not settled {when} after {SETTLE_S:.0f} s: " + "; ".join(open_ends))
                self._show(engine, live, "settling: " + ("; ".join(open_ends[:3]) or "quiet"))
                time.sleep(LOOK_EVERY_S)

    # showing

    @contextlib.contextmanager
    def _live(self) -> Iterator[Live]:
        from rich.live import Live

        with Live(console=self.console, transient=True, auto_refresh=False) as live:
            yield live

    def _show(self, engine: sa.Engine, live: Live, doing: str) -> float:
        from govbus.district.bus import look

        seen = self._patiently(engine, partial(look, engine))
        if self.first_alert is None and (seen.bad or seen.cards):
            self.first_alert = time.monotonic() - self.started
            self.console.print(f"first card or alert after {self.first_alert:.1f} s")
        live.update(_progress(seen, doing), refresh=True)
        return time.monotonic()

    # proving

    def _prove(self, engine: sa.Engine, settings: Settings, made: Made, told: Departments) -> dict[str, Any]:
        """Reconcile, compare with the oracle, print and return the report."""
        from govbus import runtime
        from govbus.commands import reconcile
        from govbus.district import oracle
        from govbus.district.bus import look, percentile

        self.console.print("reconciling published = carried = applied = acknowledged …")
        found = reconcile.run(runtime.resolve(settings))  # the province has published its key by now
        expected = oracle.expect(made)
        differences = oracle.compare(engine, expected) + told.tally.surprises
        seen, waits = look(engine), self.waits
        outcome = {
            "counts": seen.published, "faults": seen.dead, "faults_expected": expected["dead"],
            "latency_ms": {
                "p50": percentile(waits, 0.5), "p99": percentile(waits, 0.99), "samples": len(waits),
                "rate": round(self.live_rate, 1),
            },
            "cards": seen.cards, "bad_ratings": seen.bad,
            "receipts": _receipts(engine), "first_alert_s": self.first_alert, "lag": 0,
            "seconds": round(time.monotonic() - self.started, 1), "oracle_differences": differences[:200],
            "reconcile": found.plain(),
        }  # fmt: skip
        outcome["ok"] = found.equal and seen.dead == expected["dead"] and not differences
        reconcile.show(found)
        _summary(self.console, outcome)
        return outcome

    def _stay(self, supervisor: Supervisor) -> None:
        self.console.print("running; Ctrl-C ends it. In another terminal:")
        for command in LOOK_AROUND:
            self.console.print(f"  {command}")
        supervisor.run()


# --- the bus and its processes ---


def _bus() -> tuple[Settings, set[str]]:
    """The bus, with its tables and topics, and with Kafka's own topic of groups under way; and the parts of the
    local stack that had to be started for it.
    """
    from connectors.topics_admin import wake_groups
    from govbus import runtime
    from govbus.settings import load

    given = load()
    before = _running(given)
    settings = runtime.resolve_ready(given)
    threading.Thread(target=wake_groups, args=(settings.kafka,), daemon=True).start()
    return settings, _running(given) - before


def _running(settings: Settings) -> set[str]:
    from govbus.runtime import local_stack

    return {part.name for part in local_stack(settings).status() if part.running}


def _children(settings: Settings) -> Sequence[Child]:
    from govbus.supervisor import Child

    env = _environment(settings)
    return [
        Child(name, [sys.executable, "-m", "govbus.cli", *words], env, _ready(name, settings), after, nice)
        for processes, after, nice in ((FIRST, 0.0, 0), (THEN, THEN_AFTER_S, THEN_NICE))
        for name, words in processes
    ]


def _environment(settings: Settings) -> dict[str, str]:
    """What a process of this bus finds in its environment; the simulated year is the clock."""
    return {
        "GOVBUS_KAFKA": settings.kafka, "GOVBUS_DATABASE_URL": settings.database_url,
        "GOVBUS_PROVINCE_DATABASE_URL": settings.province_database_url, "GOVBUS_HOME": str(settings.home),
        "GOVBUS_CLOCK": "watermark", "GOVBUS_WORKER_NAME": "worker",
    }  # fmt: skip


def _ready(name: str, settings: Settings) -> Callable[[], bool] | None:
    from govbus.runtime import PROVINCE_ADDRESS

    return (settings.home / PROVINCE_ADDRESS).exists if name == "province" else None


def _claim(settings: Settings, seed: int, cases: int) -> bool:
    """Whether this very district is already there; raises ``Misconfigured`` if something else is."""
    import sqlalchemy as sa

    from schemas.errors import Misconfigured
    from streams.store.engine import connect

    wanted = {"seed": seed, "cases": cases}
    known = _mark(settings)
    engine = connect(settings.database_url)
    with engine.connect() as tx:
        empty = tx.execute(sa.text("SELECT count(*) FROM outbox")).scalar_one() == 0
    engine.dispose()
    if not empty and {k: known.get(k) for k in wanted} != wanted:
        raise Misconfigured(
            f"{settings.home} already holds other events ({known or 'not of a demo'}); a demo "
            "compares with what it simulated: choose another GOVBUS_HOME, or the same --seed and --cases"
        )
    if empty:
        _mark(settings, wanted)
    return not empty


def _mark(settings: Settings, content: dict[str, Any] | None = None) -> dict[str, Any]:
    from govbus.settings import DEMO

    path = settings.home / DEMO
    if content is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))
    return dict(json.loads(path.read_text())) if path.exists() else {}


def _poison_once(settings: Settings, made: Made, say: Callable[[str], None]) -> None:
    """Send the records that bypass the publisher, once in a home: sent again they would count again."""
    from confluent_kafka import Producer

    from govbus.district.publishing import raws
    from schemas import access

    known = _mark(settings)
    if known.get("poisoned"):
        return
    producer = Producer(
        {
            "bootstrap.servers": settings.kafka,
            **access.current().confluent(),
            "partitioner": "murmur2_random",
            "acks": "all",
            "enable.idempotence": True,
            "message.timeout.ms": 0,
            "log_level": 0,
        }
    )
    for raw in raws(made.district.poison):
        producer.produce(raw.topic.name, raw.value, raw.key, headers=list(raw.headers))
    while left := producer.flush(10):
        say(f"waiting for Kafka at {settings.kafka} to take {left} records")
    _mark(settings, {**known, "poisoned": True})


# --- what people see ---


def _progress(seen: Look, doing: str) -> Any:
    from rich.table import Table

    table = Table("topic", "events", title=doing, title_justify="left")
    for topic, n in seen.published.items():
        table.add_row(topic, f"{n:,}")
    cards = ", ".join(f"{n:,} {colour}" for colour, n in seen.cards.items()) or "none yet"
    table.caption = f"cards: {cards} · bad ratings: {seen.bad:,} · not yet sent: {seen.unsent:,}"
    return table


def _receipts(engine: sa.Engine) -> dict[str, int]:
    import sqlalchemy as sa

    sql = "SELECT count(*), coalesce(sum(jsonb_array_length(body->'records')), 0) FROM receipt"
    with engine.connect() as tx:
        batches, records = tx.execute(sa.text(sql)).one()
    return {"batches": int(batches), "records": int(records)}


def _summary(console: Console, outcome: dict[str, Any]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table("what", "figure", title="the simulated district")
    for colour, n in outcome["cards"].items():
        table.add_row(f"cards {colour}", f"{n:,}")
    waits = outcome["latency_ms"]
    table.add_row("bad ratings on the desk", f"{outcome['bad_ratings']:,}")
    table.add_row("receipts (records)", f"{outcome['receipts']['batches']:,} ({outcome['receipts']['records']:,})")
    table.add_row("publish to alert, p50 / p99", f"{waits['p50']} / {waits['p99']} ms of {waits['samples']} alerts")
    table.add_row("live phase", f"{waits['rate']} events/s of {LIVE_PER_S} asked")
    for reason in sorted(outcome["faults"].keys() | outcome["faults_expected"].keys()):
        found, wanted = outcome["faults"].get(reason, 0), outcome["faults_expected"].get(reason, 0)
        colour = "green" if found == wanted else "red"
        table.add_row(f"dead letters {reason}", Text(f"{found} of {wanted} expected", colour))
    table.add_row("seconds", f"{outcome['seconds']}")
    console.print(table)
    for text in outcome["oracle_differences"][:20]:
        console.print(text, style="red")
    word = Text("all is as it must be", "green") if outcome["ok"] else Text("NOT as it must be", "red")
    console.print(word + ": reconcile, faults and the simulator's own knowledge")
