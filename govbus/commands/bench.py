"""``govbus bench``: benchmarks, each against peers and limits measured in the same run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer


def register(app: typer.Typer) -> None:
    """Add the command to ``app``."""
    app.command("bench")(bench)


def bench(
    name: Annotated[str, typer.Argument(help="Which benchmark: ratings.")] = "ratings",
    events: Annotated[int, typer.Option(min=1000, help="Ratings to put into Kafka.")] = 1_000_000,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds; the report holds medians.")] = 2,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Measure on a Kafka and a PostgreSQL of its own; exit code 0 only if every target is met."""
    import json

    from schemas.errors import Misconfigured

    if name != "ratings":
        raise Misconfigured(f"there is no benchmark {name!r}; there is: ratings")
    found = _measured(events, rounds)
    if as_json:
        typer.echo(json.dumps(found, ensure_ascii=False))
    else:
        _show(found)
    raise typer.Exit(0 if all(found["targets"].values()) else 1)


def _measured(events: int, rounds: int) -> dict[str, Any]:
    """Run with a progress bar on standard error."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from bench import ratings

    parts = (TextColumn("{task.description:24}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*parts, console=Console(stderr=True)) as progress:
        task = progress.add_task("start Kafka, PostgreSQL", total=None)

        def tell(step: str, done: int, of: int) -> None:
            progress.update(task, description=step, completed=done, total=of)

        return ratings.run(events, rounds, tell)


def _show(found: Mapping[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(
        "figure",
        "events/s",
        "compared",
        title=f"{found['name']}: {found['events']:,} events",
        title_justify="left",
    )
    for figure in ("rate", "rate_from_start", "rate_with_uploads"):
        table.add_row(f"ours: {figure}", f"{found['ours'][figure]:,.0f}", "")
    for peer, figures in found["peers"].items():
        table.add_row(f"peer: {peer}", f"{figures['rate']:,.0f}", f"ours is {found['ratios'][peer]:.1f} x")
    for limit, share in found["limits"].items():
        table.add_row(f"limit: {limit}", f"{found['limit_rates'][limit]:,.0f}", f"ours reaches {share:.0%}")
    console = Console()
    console.print(table)
    for text, met in found["targets"].items():
        console.print(f"[green]met[/green]  {text}" if met else f"[red]missed[/red]  {text}")
