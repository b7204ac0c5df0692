"""``govbus licence``: the index of electronic licences."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from govbus.asked import PRIVATE, private

RUN = re.compile(r"(?<![0-9])(?:[0-9]{17}[0-9Xx]|[0-9]{8}(?:0[1-9]|1[0-2])(?:0[1-9]|[12][0-9]|3[01])[0-9]{3}(?![0-9]))")
"""What may be a citizen's number, of 18 or 15 places, at the beginning of a run of digits."""


def register(app: typer.Typer) -> None:
    """Add the group to ``app``."""
    group = typer.Typer(no_args_is_help=True, help="Electronic licences.")
    group.command("show")(show)
    group.callback()(lambda: None)
    app.add_typer(group, name="licence")


def show(
    identifier: Annotated[str, typer.Argument(help=f"Licence identifier, family or number{PRIVATE}.")] = "",
    holder: Annotated[str, typer.Option(help=f"All licences of this holder (identity code){PRIVATE}.")] = "",
    full: Annotated[bool, typer.Option(help="Show a person unmasked too.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """Show a licence's versions or a holder's licences; exit code 1 if there is none. 查询电子证照."""
    import json
    from datetime import datetime

    from consumers import licences
    from govbus.runtime import district
    from schemas.clock import SHANGHAI
    from schemas.errors import Misconfigured

    if bool(identifier) == bool(holder):
        raise Misconfigured("give either an identifier or --holder")
    identifier, holder = private(identifier, "证照标识或编号"), private(holder, "持证主体代码")
    with district() as engine, engine.connect() as tx:
        found = licences.find(tx, identifier, holder)
    today = datetime.now(SHANGHAI).date()
    rows = [plain(r, licences.standing(r, today), full) for r in found]
    if as_json:
        typer.echo(json.dumps(rows, ensure_ascii=False, default=str))
    else:
        _table(rows)
    raise typer.Exit(0 if rows else 1)


def plain(row: Mapping[str, Any], standing: str, full: bool) -> dict[str, Any]:
    """A licence for a screen: its standing today, and its holder, masked if it may be a person, unless ``full``; the
    holder's number too where it is the licence's own, as on an identity card.
    """
    from streams.rules import mask

    shown = {**row, "standing": standing}
    if full:
        return shown
    shown["holder_name"], shown["holder_id"] = mask.holder(row["holder_name"], row["holder_id"])
    numbers = ("licence_no", "family", "licence_id")
    hidden = {row["holder_id"]: shown["holder_id"]}
    hidden |= {hit: mask.citizen_id(hit) for n in numbers for hit in RUN.findall(row[n]) if _is_citizens(hit)}
    for name, (number, masked) in itertools.product(numbers, hidden.items()):
        shown[name] = shown[name].replace(number, masked) if number else shown[name]
    return shown


def _is_citizens(number: str) -> bool:
    from connectors.identifiers import check_citizen_id

    if len(number) == 15:
        return True
    try:
        return bool(check_citizen_id(number))
    except ValueError:
        return False


def _table(rows: list[dict[str, Any]]) -> None:
    from rich.table import Table

    from govbus.screen import console
    from schemas import codesets

    table = Table(title=f"{len(rows)} 件")
    for name in ("证照标识", "类型", "版本", "持证主体", "证件号码", "状态", "有效期止", "来源"):
        table.add_column(name, overflow="fold")
    origins = codesets.load("govbus.licence-origin").values
    names = codesets.load("govbus.licence-standing").values
    for r in rows:
        ends = str(r["valid_to_on"] or "长期")
        holder, standing = (r["holder_name"], r["holder_id"]), names.get(r["standing"], r["standing"])
        origin = origins.get(r["origin"], r["origin"]) + (" 有异议" if r["disputed"] else "")
        table.add_row(r["licence_id"], r["type_name"], str(r["licence_version"]), *holder, standing, ends, origin)
    console().print(table)
