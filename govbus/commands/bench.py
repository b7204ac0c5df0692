"""``govbus bench``: benchmarks, beside peers and limits measured in the same run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from bench.given import Given
    from bench.registry import Bench

ALL = "all"


def register(app: typer.Typer) -> None:
    """Add the command to ``app``."""
    app.command("bench")(bench)


def bench(
    name: Annotated[str, typer.Argument(help="Which benchmark, or all; --list names them.")] = "ratings",
    events: Annotated[int, typer.Option(min=1000, help="Events to put into Kafka.")] = 1_000_000,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds; the report holds medians and spreads.")] = 5,
    peers: Annotated[str, typer.Option(help="Peers that shall run, by commas; 'none'; all if empty.")] = "",
    names: Annotated[bool, typer.Option("--list", help="Name the benchmarks and the peers, measure nothing.")] = False,
    write: Annotated[bool, typer.Option("--write", help="Bring performance.md up to date; 'all' does.")] = False,
    out: Annotated[Path, typer.Option(help="Where performance.md, its plots and results are written.")] = Path("docs"),
    as_json: Annotated[bool, typer.Option("--json", help="Print the report (of 'all': the list) as JSON.")] = False,
) -> None:
    """Measure on a Kafka and a PostgreSQL of its own; exit code 0 only if every target is met."""
    if names:
        _list()
        return
    chosen = _chosen(name)
    given = _given(events, rounds, peers)
    reports = []
    for each in chosen:
        if report := _measured_or_told(each, _sized(given, each, name), name):
            reports.append(report)
            if write or name == ALL:
                _write(report, out)
    _tell(reports, as_json, name == ALL)
    true = len(reports) == len(chosen) and all(met for r in reports for met in r["targets"].values())
    raise typer.Exit(0 if true else 1)


def _chosen(name: str) -> Sequence[Bench]:
    from bench.registry import BENCHES, BY_NAME
    from schemas.errors import Misconfigured

    if name == ALL:
        return BENCHES
    if name not in BY_NAME:
        raise Misconfigured(f"there is no benchmark {name!r}; there are: {', '.join(BY_NAME)}, {ALL}")
    return [BY_NAME[name]]


def _given(events: int, rounds: int, peers: str) -> Given:
    from bench.given import Given
    from bench.peers.table import NAMES
    from govbus.settings import load
    from schemas.errors import Misconfigured

    wanted = frozenset(peers.split(",")) - {"none"} if peers else None
    if unknown := (wanted or frozenset()) - set(NAMES):
        raise Misconfigured(f"there is no peer {', '.join(sorted(unknown))}; there are: {', '.join(NAMES)}")
    return Given(load().home.absolute() / "bench", events, rounds, wanted)


def _sized(given: Given, bench: Bench, name: str) -> Given:
    """One alone takes all of ``--events``; among all, its share."""
    return given.scaled(bench.share, bench.most_rounds) if name == ALL else given


def _write(report: Mapping[str, Any], out: Path) -> None:
    from bench.page import add

    typer.echo(f"written: {add(report, out)}", err=True)


def _list() -> None:
    from bench.peers.table import PEERS
    from bench.registry import BENCHES

    for word, rows in (("benchmark", BENCHES), ("peer", PEERS)):
        for row in rows:
            typer.echo(f"{word}\t{row.name}\t{row.says}")


def _measured_or_told(bench: Bench, given: Given, name: str) -> dict[str, Any] | None:
    """Among all, one that fails does not keep the others from being measured; it is told, and the exit code says so."""
    from schemas.errors import GovbusError

    try:
        return _measured(bench, given)
    except GovbusError as error:
        if name != ALL:
            raise
        typer.echo(f"{bench.name} failed: {error}", err=True)
        return None


def _measured(bench: Bench, given: Given) -> dict[str, Any]:
    """Run with a progress bar on standard error."""
    from dataclasses import replace

    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from govbus.screen import console

    parts = (TextColumn("{task.description:40}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*parts, console=console(stderr=True)) as progress:
        task = progress.add_task(f"{bench.name}: start Kafka, PostgreSQL", total=None)

        def tell(step: str, done: int, of: int) -> None:
            progress.update(task, description=f"{bench.name}: {step}", completed=done, total=of)

        return bench.run(replace(given, tell=tell))


def _tell(reports: Sequence[Mapping[str, Any]], as_json: bool, several: bool) -> None:
    import json

    if as_json:
        typer.echo(json.dumps(list(reports) if several else reports[0], ensure_ascii=False))
        return
    for report in reports:
        _show(report)


def _show(report: Mapping[str, Any]) -> None:
    from rich.table import Table
    from rich.text import Text

    from govbus.screen import console

    title = f"{report['name']}: {report['events']:,} events, {report['rounds']} rounds"
    table = Table("figure", "median", "least … greatest", "ours compared", title=title, title_justify="left")
    for row in _rows(report):
        table.add_row(*row)
    screen = console()
    screen.print(table)
    for peer, why in report["not_run"].items():
        screen.print(Text("not run", "yellow"), f"{peer}: {why}")
    for text, met in report["targets"].items():
        word, colour = ("met", "green") if met else ("missed", "red") if met is False else ("open", "yellow")
        screen.print(Text(f"{word:6}", colour), f" {text}")


def _rows(report: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    spread, rows = report["spread"], []
    for figure, value in report["ours"].items():
        rows.append((f"ours: {figure}", number(value), _between(spread["ours"], figure), ""))
    for peer, figures in report["peers"].items():
        ratio = f"{report['ratios'][peer]:.2f} x ({_between(spread['ratios'], peer, '{:.2f}'.format)})"
        rows.append((f"peer: {peer}", number(figures["rate"]), _between(spread["peers"][peer], "rate"), ratio))
    for limit, share in report["limits"].items():
        rate = report["limit_rates"][limit]
        rows.append((f"limit: {limit}", number(rate), _between(spread["limits"], limit), f"{share:.0%}"))
    return rows


def _between(spread: Mapping[str, Sequence[float]], name: str, show: Callable[[float], str] | None = None) -> str:
    if name not in spread:
        return ""
    return " … ".join((show or number)(value) for value in spread[name])


def number(value: float) -> str:
    """Short: no decimals from 100 on."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:,.2f}"
