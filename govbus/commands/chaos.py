"""``govbus chaos``: breaks a bus of its own on purpose and says what became of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer


def register(app: typer.Typer) -> None:
    """Add the command to ``app``."""
    app.command("chaos")(chaos)


def chaos(
    kills: Annotated[
        int | None, typer.Option(min=0, help="How many times kill -9, in all; 100 unless another part is asked for.")
    ] = None,
    workers: Annotated[
        int, typer.Option(min=0, help="How many times kill -9 a worker, each while 4,000 events flow.")
    ] = 0,
    seeds: Annotated[int, typer.Option(min=0, help="How many seeds of the deterministic simulation.")] = 0,
    first_seed: Annotated[int, typer.Option(min=0, help="The simulation's first seed.")] = 0,
    zombies: Annotated[int, typer.Option(min=0, help="How many workers to stop past their session.")] = 0,
    brokers: Annotated[int, typer.Option(min=0, help="How often to kill or stop brokers of three.")] = 0,
    logs: Annotated[int, typer.Option(min=0, help="How often a single broker's log loses or damages records.")] = 0,
    upgrades: Annotated[int, typer.Option(min=0, help="How many rolling upgrades.")] = 0,
    poison: Annotated[int, typer.Option(min=0, help="How many records that no department would send.")] = 0,
    database: Annotated[int, typer.Option(min=0, help="How many faults of PostgreSQL.")] = 0,
    network: Annotated[int, typer.Option(min=0, help="How many faults of the network.")] = 0,
    province: Annotated[int, typer.Option(min=0, help="How many moods of the province.")] = 0,
    soak: Annotated[int, typer.Option(min=0, help="How many minutes of ordinary load.")] = 0,
    planted: Annotated[bool, typer.Option("--planted", help="Plant bugs and see that each is caught.")] = False,
    parts: Annotated[str, typer.Option(help="Of what is asked for, only these, separated by commas.")] = "",
    seed: Annotated[int, typer.Option(help="The first round's seed; each further round takes the next.")] = 1,
    report: Annotated[Path | None, typer.Option(help="Directory in which reliability.md is kept up.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the results as JSON.")] = False,
) -> None:
    """Run the fault rig on a Kafka and a PostgreSQL of its own; exit code 0 only if nothing was lost or doubled and,
    with --planted, every planted bug was caught. Ctrl-C keeps what is done.
    """
    import json

    from govbus.chaos.planted import BUGS

    asked = {
        "workers": workers, "seeds": seeds, "zombies": zombies, "brokers": brokers, "logs": logs,
        "upgrades": upgrades, "poison": poison, "database": database, "network": network, "province": province,
        "soak": soak, "planted": len(BUGS) if planted else 0,
    }  # fmt: skip
    wanted = {"kills": kills if kills is not None else 0 if any(asked.values()) else 100, **asked}
    chosen = _chosen(wanted, parts)
    results = _run(chosen, {"seeds": first_seed}, seed, report)
    if as_json:
        typer.echo(json.dumps(results, ensure_ascii=False))
    else:
        _show(results)
    raise typer.Exit(0 if results.keys() == chosen.keys() and all(r["clean"] for r in results.values()) else 1)


def _chosen(wanted: Mapping[str, int], parts: str) -> dict[str, int]:
    """What is asked for, and of it only ``parts``; raises ``Misconfigured`` for a part that is not asked for."""
    from schemas.errors import Misconfigured

    asked = {name: count for name, count in wanted.items() if count}
    names = [name.strip() for name in parts.split(",") if name.strip()]
    if unknown := [name for name in names if name not in asked]:
        raise Misconfigured(f"--parts {', '.join(unknown)}: not asked for; asked for are {', '.join(asked)}")
    return {name: count for name, count in asked.items() if not names or name in names}


def _run(wanted: Mapping[str, int], first: Mapping[str, int], seed: int, report: Path | None) -> dict[str, Any]:
    """The parts wanted, with a progress bar on standard error; each is kept in the report as soon as it is there."""
    import time

    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from govbus.chaos import report as page
    from govbus.chaos.rig import PARTS
    from govbus.screen import console

    results: dict[str, Any] = {}
    told = {name: (part.text, part.target) for name, part in PARTS.items()}
    columns = (TextColumn("{task.description:24}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console(stderr=True)) as progress:
        task = progress.add_task("starting", total=None)

        def tell(step: str, done: int, of: int) -> None:
            progress.update(task, description=step, completed=done, total=of)

        for name, count in wanted.items():
            part, began = PARTS[name], time.monotonic()
            try:
                found = part.run(count, first.get(name, seed), tell)
            except KeyboardInterrupt:
                break
            took = round(time.monotonic() - began, 1)
            said = {"text": part.text, "target": part.target, "asked": count, "done": found.get(part.done, count)}
            results[name] = {**said, "took_s": took, **found}
            if report is not None:
                page.merge(report, name, results[name], told)
            if found.get("interrupted"):
                break
    return results


def _show(results: Mapping[str, Any]) -> None:
    from rich.text import Text

    from govbus.screen import console

    screen = console()
    for found in results.values():
        word = Text("clean", "green") if found["clean"] else Text("not clean", "red")
        screen.print(word, f" {found['text']}  (target: {found['target']})")
        for name, value in found.items():
            if isinstance(value, Mapping):
                screen.print(f"  {name}:", *(f"\n    {key}: {inner}" for key, inner in value.items()))
            elif name not in ("text", "target", "clean"):
                screen.print(f"  {name}: {value}")
