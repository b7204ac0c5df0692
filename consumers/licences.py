"""What the licence index says of a licence or holder; EXPIRED is derived by date when read (DOMAIN §6.4)."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from streams.store.tables import licence

VALID = "VALID"
"""Status 有效 in the code set ``govbus.licence-standing``."""
EXPIRED = "EXPIRED"


def find(tx: sa.Connection, identifier: str = "", holder: str = "") -> list[Mapping[str, Any]]:
    """Licences by identifier, family or number, or all of a holder (any case); newest version first."""
    query = sa.select(licence).order_by(licence.c.family, licence.c.licence_version.desc())
    if holder:
        query = query.where(licence.c.holder_id == holder.upper())
    else:
        names = (licence.c.licence_id, licence.c.family, licence.c.licence_no)
        query = query.where(sa.or_(*(c == identifier for c in names)))
    return [dict(row) for row in tx.execute(query).mappings()]


def standing(row: Mapping[str, Any], today: datetime.date) -> str:
    """The status on ``today`` (a day in Asia/Shanghai): a valid licence past its last day is EXPIRED."""
    past = row["valid_to_on"] is not None and row["valid_to_on"] < today
    return EXPIRED if past and row["status"] == VALID else str(row["status"])
