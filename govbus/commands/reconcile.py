"""``govbus reconcile``: prove that four places hold the same events, once each."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from consumers.reconcile import Progress, Report
    from govbus.settings import Settings

SHOWN = 20
PLACES = ("published", "carried", "applied", "acknowledged", "dead")


def register(app: typer.Typer) -> None:
    """Add the command to ``app``."""
    app.command("reconcile")(reconcile)


def reconcile(
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole report as JSON.")] = False,
    wait: Annotated[
        float, typer.Option(help="Look again for so many seconds while something differs.")
    ] = 0.0,
    no_province: Annotated[bool, typer.Option(help="Leave the province's receipts out.")] = False,
) -> None:
    """Prove published = carried = applied = acknowledged; exit code 0 only if it is so."""
    import json

    from govbus.runtime import resolve
    from govbus.settings import load

    settings = resolve(load())
    report = until_equal(lambda: run(settings, not no_province, quiet=as_json), wait)
    if as_json:
        typer.echo(json.dumps(report.plain(), ensure_ascii=False))
    else:
        show(report)
    raise typer.Exit(0 if report.equal else 1)


def run(settings: Settings, province: bool = True, quiet: bool = False) -> Report:
    """One comparison on a resolved bus, with progress on standard error unless ``quiet``."""
    from consumers.reconcile import reconcile as compare
    from schemas.errors import Misconfigured
    from streams.store.engine import connect

    if province and not settings.province_public_key:
        raise Misconfigured("no province is known: set GOVBUS_PROVINCE_PUBLIC_KEY, or ask with --no-province")
    engine = connect(settings.database_url)
    try:
        with bar(quiet) as progress:
            return compare(
                engine, settings.kafka, settings.province_public_key if province else None, progress
            )
    finally:
        engine.dispose()


def until_equal(look: Callable[[], Report], seconds: float) -> Report:
    """The first report that is equal, or the last within ``seconds``: events need time to arrive."""
    end = time.monotonic() + seconds
    report = look()
    while not report.equal and time.monotonic() < end:
        time.sleep(1.0)
        report = look()
    return report


@contextlib.contextmanager
def bar(quiet: bool) -> Iterator[Progress]:
    """A progress bar on standard error."""
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    from govbus.screen import console

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Bar(*columns, console=console(stderr=True), transient=True, disable=quiet) as bar:
        tasks = {name: bar.add_task(name, total=None) for name in ("Kafka", "receipts", "comparing")}
        yield lambda name, done, total: bar.update(tasks[name], completed=done, total=total)


def show(report: Report) -> None:
    """The report as tables for people."""
    from rich.table import Table

    from govbus.screen import console

    screen = console()
    table = Table("topic", *PLACES, title="published = carried = applied = acknowledged")
    for topic, counts in report.topics.items():
        if counts:
            table.add_row(topic, *(f"{counts[p]:,}" if p in counts else "-" for p in PLACES))
    screen.print(table)
    screen.print(
        f"{report.cells:,} cells (department x topic x hour) compared; "
        f"{report.duplicates:,} repeated deliveries; "
        f"{report.superseded:,} superseded ({report.unread:,} compacted away before the province's queue read them); "
        f"{report.expired:,} past retention; {report.under_way:,} published meanwhile, which the next comparison has"
    )
    _show_differences(screen, report)
    screen.print("equal" if report.equal else "NOT equal", style="green" if report.equal else "red")


def _show_differences(screen: Console, report: Report) -> None:
    from rich.table import Table

    for batch in report.forged:
        screen.print(f"receipt of batch {batch} is not signed by the province", style="red")
    if not report.differences:
        return
    table = Table("event id", "department", "topic", "difference", "reason", title="differences")
    for d in report.differences[:SHOWN]:
        table.add_row(d.event_id, d.department, d.topic, f"{d.kind} {d.place}", d.reason)
    screen.print(table)
    if (more := len(report.differences) - SHOWN) > 0:
        screen.print(f"and {more:,} more; --json names them")
    if report.unnamed:
        screen.print(f"and {report.unnamed:,} beyond the first {len(report.differences):,}, named nowhere")
    if any(d.reason.startswith("refused: ") for d in report.differences):
        screen.print("what the province refused goes to it again with govbus push --again, once the cause is mended")
