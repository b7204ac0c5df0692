"""``govbus publish``: a department's file onto the bus, with a result for every row."""

from __future__ import annotations

import itertools
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from connectors.intake.files import Row, Source
    from connectors.publisher import Publisher, RowResult
    from schemas.topics import Topic

SHOWN = 20
"""Rows that are listed with their faults when the report is for people."""
CHUNK = 1_000
OPENING = '{"results": ['
"""How a report in JSON begins."""


def register(app: typer.Typer) -> None:
    """Add the command to ``app``."""
    app.command("publish")(publish)


def publish(
    topic: Annotated[str, typer.Argument(help="Topic, such as service.rating.v1.")],
    file: Annotated[Path, typer.Argument(help="JSON Lines (.jsonl), CSV (.csv) or XLSX (.xlsx).")],
    dept: Annotated[str, typer.Option(help="Publishing department: code, name or alias.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check every row, write nothing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON to standard output.")] = False,
    region: Annotated[str, typer.Option(help="Region code (GB/T 2260); the installation's if empty.")] = "",
    encoding: Annotated[Literal["utf-8", "gb18030"], typer.Option(help="Encoding of a text file.")] = "utf-8",
    wait: Annotated[float, typer.Option(help="Seconds to wait for a database that is away.")] = 600,
) -> None:
    """Publish FILE to TOPIC. Exit code 0 only if every row stands on the bus; sending a file again is safe."""
    from govbus.screen import console
    from schemas.errors import Rejected

    report = Report(topic, dept, dry_run, as_json)
    job = Job(topic, file, dept, region, encoding, dry_run, wait, console(stderr=True))
    try:
        for result in _results(job):
            report.add(result)
        report.finished = True
    except Rejected as error:
        report.refuse(error)
    finally:  # whatever ended it: what stands on the bus by then is told with its receipts
        report.show()
    if not report.accepted:
        raise typer.Exit(1)


@dataclass(frozen=True, slots=True)
class Job:
    """What was asked for on the command line; ``errors`` is where progress and waits are told."""

    topic: str
    file: Path
    dept: str
    region: str
    encoding: str
    dry_run: bool
    wait: float
    errors: Console


def _results(job: Job) -> Iterator[RowResult]:
    """Every row's result; raises ``Rejected`` for what concerns the file as a whole."""
    from connectors.intake import files
    from connectors.publisher import Publisher
    from govbus import runtime, settings
    from streams.store.engine import connect

    topic = inbound(job.topic)
    configured = settings.load()
    region = job.region or configured.region
    source = files.open_rows(job.file, topic, job.encoding)
    Publisher(None, job.dept, region)  # an unknown department is told before anything starts
    engine = None if job.dry_run else connect(runtime.database_url(configured))
    try:
        publisher = Publisher(engine, job.dept, region)
        yield from _with_progress(source, _by_chunk(job, publisher, topic, source), job.errors)
    finally:
        if engine is not None:
            engine.dispose()


def inbound(name: str) -> Topic:
    """The inbound topic of that name; raises ``Rejected`` (unknown_topic) that lists them."""
    from schemas.errors import Fault, Rejected
    from schemas.topics import INBOUND

    for topic in INBOUND:
        if topic.name == name:
            return topic
    names = ", ".join(t.name for t in INBOUND)
    raise Rejected(
        Fault("unknown_topic", "", "is no topic that departments publish to", f"use one of {names}")
    )


def _by_chunk(job: Job, publisher: Publisher, topic: Topic, source: Source) -> Iterator[RowResult]:
    numbered = source.rows()
    while chunk := list(itertools.islice(numbered, CHUNK)):
        rows = [row for _, row in chunk]
        for (number, _), result in zip(chunk, _stored(job, publisher, topic, rows), strict=True):
            yield replace(result, row=number)


def _stored(job: Job, publisher: Publisher, topic: Topic, rows: list[Row]) -> list[RowResult]:
    if job.dry_run:
        return list(publisher.check(topic, rows))
    return patiently(lambda: publisher.publish(topic, rows), job.wait, job.errors)


def patiently(work: Callable[[], list[RowResult]], seconds: float, errors: Console) -> list[RowResult]:
    """Do ``work`` again while the database is away, up to ``seconds``; safe because publishing is
    idempotent.
    """
    from schemas.errors import Retryable

    until, pause = time.monotonic() + seconds, 0.5
    while True:
        try:
            return work()
        except Retryable as error:
            if time.monotonic() + pause > until:
                why = f"{error}; gave up after {seconds:.0f} s; publish the same file again later"
                raise Retryable(why) from error
            errors.print(f"waiting: {error}; trying again in {pause:.1f} s", style="yellow")
            time.sleep(pause)
            pause = min(pause * 2, 10.0)


def _with_progress(source: Source, results: Iterator[RowResult], errors: Console) -> Iterator[RowResult]:
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    # not redirected: results for machines are written to standard output meanwhile
    with Progress(*columns, console=errors, transient=True, redirect_stdout=False) as bar:
        task = bar.add_task("publishing", total=source.total)
        for count, result in enumerate(results, 1):
            if count % CHUNK == 1:
                bar.update(task, completed=source.done, description=f"{count} rows")
            yield result


class Report:
    """What became of the file: counts always, every row for JSON (``every``), the first bad rows for people.

    A row's JSON is written as soon as it is known, so that the report of a long file needs no memory. ``finished``:
    every row has its result; False where something ended the publishing before.
    """

    def __init__(self, topic: str, department: str, dry_run: bool, every: bool) -> None:
        self._head = {"topic": topic, "department": department, "dry_run": dry_run}
        self._every = every
        self.finished = False
        self._outcomes: Counter[str] = Counter()
        self._results: list[RowResult] = []
        self._file_faults: list[dict[str, str]] = []

    @property
    def accepted(self) -> bool:
        """True if there was at least one row and every row was accepted."""
        if not self.finished:
            return False
        bad = self._file_faults or self._outcomes["refused"] or self._outcomes["conflict"]
        return bool(self._outcomes) and not bad

    def add(self, result: RowResult) -> None:
        """Count one row."""
        if self._every:
            before = ",\n" if self._outcomes else OPENING
            typer.echo(before + json.dumps(as_json(result), ensure_ascii=False), nl=False)
        elif not result.accepted and len(self._results) < SHOWN:
            self._results.append(result)
        self._outcomes[result.outcome] += 1

    def refuse(self, error: Any) -> None:
        """Note why the file as a whole cannot be published."""
        self._file_faults = [_fault(f) for f in error.faults]

    def show(self) -> None:
        """Print the report to standard output."""
        if self.finished and not self._outcomes and not self._file_faults:
            none, mend = "the file holds no rows", "check the export that made it"
            self._file_faults = [{"reason": "bad_row", "field": "", "text": none, "mend": mend}]
        if self._every:
            before = "" if self._outcomes else OPENING
            typer.echo(f"{before}],\n{json.dumps(self._summary(), ensure_ascii=False)[1:]}")
        else:
            self._print()

    def _summary(self) -> dict[str, Any]:
        """What JSON says behind the rows' results; values of rows stand in neither."""
        return {
            **self._head,
            "accepted": self.accepted,
            "finished": self.finished,
            "rows": self._outcomes.total(),
            "outcomes": dict(self._outcomes),
            "faults": self._file_faults,
        }

    def _print(self) -> None:
        from rich.text import Text

        from govbus.screen import console

        screen = console()
        for fault in self._file_faults:
            screen.print(Text(fault["reason"], "red"), _line(fault), soft_wrap=True)
        bad = self._outcomes["refused"] + self._outcomes["conflict"]
        for result in self._results:
            screen.print(f"row {result.row}: {result.outcome}", style="red")
            for fault in map(_fault, result.faults):
                screen.print(f"  {fault['reason']} {_line(fault)}", soft_wrap=True)
        if bad > SHOWN:
            screen.print(f"… and {bad - SHOWN} more; --json lists every row")
        counts = ", ".join(f"{n} {outcome}" for outcome, n in sorted(self._outcomes.items()))
        screen.print(f"{self._outcomes.total()} rows: {counts or 'nothing published'}")
        if not self.finished and not self._file_faults:
            screen.print("the file was not read to its end; publish it again: what stands on the bus answers same")


def as_json(result: RowResult) -> dict[str, Any]:
    """One row's result as JSON."""
    return {
        "row": result.row,
        "outcome": result.outcome,
        "event_id": str(result.event_id) if result.event_id else None,
        "receipt": result.receipt,
        "faults": [_fault(f) for f in result.faults],
        "differing": list(result.differing),
        "notes": list(result.notes),
    }


def _fault(fault: Any) -> dict[str, str]:
    return {"reason": fault.reason, "field": fault.field, "text": fault.text, "mend": fault.mend}


def _line(fault: dict[str, str]) -> str:
    mend = f" ({fault['mend']})" if fault["mend"] else ""
    return f"{fault['field']} {fault['text']}{mend}".strip()
