"""Supervision records and hotline tickets: only what makes a record impossible is decided here. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from schemas.errors import Fault


def refusal(record: Mapping[str, Any]) -> Fault | None:
    """Why a ``supervision.behaviour.v1`` record cannot be: reported before it happened (DOMAIN §8.1,
    narrative 47).
    """
    reported_at = record["reported_at"]
    if reported_at is not None and reported_at < record["occurred_at"]:
        return Fault("report_before_check", "reported_at", "reported before it happened")
    return None
