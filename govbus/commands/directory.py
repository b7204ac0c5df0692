"""``govbus directory``: the shared data directory, searched."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from consumers.directory.view import Hit

FRESHNESS = {"FRESH": "green", "DUE": "yellow", "STALE": "red", "BROKEN": "bold white on red"}
NAMES = {"FRESH": "及时", "DUE": "应更新", "STALE": "逾期", "BROKEN": "中断"}


def register(app: typer.Typer) -> None:
    """Add the group to ``app``."""
    group = typer.Typer(no_args_is_help=True, help="The shared data directory.")
    group.command("search")(search)
    group.callback()(lambda: None)
    app.add_typer(group, name="directory")


def search(
    words: Annotated[list[str] | None, typer.Argument(help="Words to find; all of them; none: every entry.")] = None,
    share_type: Annotated[str, typer.Option(help="1 unconditional, 2 conditional, 3 not shared.")] = "",
    department: Annotated[str, typer.Option(help="Only this department: its code, name or an alias.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print the hits as JSON.")] = False,
) -> None:
    """Search the directory; exit code 1 if nothing is found. 检索政务数据资源共享目录."""
    import json

    from consumers.directory import view
    from govbus import asked
    from govbus.runtime import district
    from schemas.clock import wall_clock

    office = asked.department(department, "--department")
    with district() as engine, engine.connect() as tx:
        hits = view.search(tx, words or [], wall_clock(), share_type, office)
    if as_json:
        typer.echo(json.dumps([plain(h) for h in hits], ensure_ascii=False))
    else:
        show(hits)
    raise typer.Exit(0 if hits else 1)


def plain(hit: Hit) -> dict[str, Any]:
    """A hit as JSON: the entry with rank and freshness."""
    return {"rank": hit.rank, "freshness": hit.freshness, **hit.entry}


def show(hits: list[Hit]) -> None:
    """The hits as a table."""
    from rich.table import Table
    from rich.text import Text

    from govbus.screen import console
    from schemas import codesets

    types = codesets.load("govbus.share-type").values
    table = Table(title=f"{len(hits)} 项")
    for name in ("资源代码", "名称", "提供部门", "共享类型", "共享条件", "更新"):
        table.add_column(name, overflow="fold")
    for hit in hits:
        entry = hit.entry
        state = Text.assemble((NAMES[hit.freshness], FRESHNESS[hit.freshness]), " 有异议" if entry["disputed"] else "")
        share = types.get(entry["share_type_code"], entry["share_type_code"])
        title, department = entry["title"], codesets.name(codesets.DEPARTMENTS, entry["department"])
        table.add_row(entry["resource_code"], title, department, share, entry["share_condition"], state)
    console().print(table)
