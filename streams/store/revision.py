"""Whether the database's schema is the one that this release was written for. Decides who may not go on beside it.

An older worker beside a newer schema fails at nothing: it leaves columns at their defaults and marks unset, in silence.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import psycopg

from schemas.errors import Misconfigured

VERSIONS = Path(__file__).parent / "migrations" / "versions"


@cache
def known() -> tuple[str, ...]:
    """The revisions of this release's migrations, the newest last: their files are numbered."""
    return tuple(sorted(path.name.partition("_")[0] for path in VERSIONS.glob("*_*.py")))


def refuse_newer(found: str) -> None:
    """Raise ``Misconfigured`` where a newer release has migrated the database to ``found`` ("": no schema yet)."""
    if found and found not in known():
        raise Misconfigured(f"the database is at schema {found} of a newer release, this one knows {known()[-1]}: "
                            "start the newer release")  # fmt: skip


def check(connection: Any) -> None:
    """Raise ``Misconfigured`` unless the database behind psycopg's ``connection`` is at this release's schema."""
    try:
        row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    except psycopg.errors.UndefinedTable:
        row = None
    found = str(row[0]) if row else ""
    refuse_newer(found)
    if found != known()[-1]:
        raise Misconfigured("the database is not at the newest schema: govbus db upgrade")
