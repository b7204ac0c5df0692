"""What can go wrong in the simulation, by the names under which it is counted.

A kind that many seeds never draw is a blind spot, so the result of a run names it and is not clean.
"""

from __future__ import annotations

from typing import Literal

Moment = Literal["before a commit", "after a durable step"]
Where = Literal["anywhere", "before a commit", "after a durable step"]
WHERE: tuple[Where, ...] = ("anywhere", "before a commit", "after a durable step")
INTERLEAVED = "another's turn amid a transaction"
ZOMBIE = "commit of a zombie"
CARRIED_AGAIN = "record carried again"
RESET, UNCOMMITTED, AWAY, HOLE = "offset reset", "commits lost", "broker away", "hole in the log"
UNHEARD, UNTOLD = "no answer from Kafka", "Kafka's answer lost"
BROKEN, BROKEN_BEFORE, UNANSWERED = (
    "connection lost amid a transaction", "connection lost before a commit", "commit unanswered",
)  # fmt: skip
REFUSED, UNRECEIPTED = "province refuses", "province's answer lost"
LOST, TWICE, LATE = "chunk lost", "chunk delivered twice", "chunk delivered again later"
KINDS = (
    INTERLEAVED, *(f"{fault} {where}" for fault in ("kill", "freeze", "rebalance") for where in WHERE), ZOMBIE,
    CARRIED_AGAIN, LOST, TWICE, LATE, RESET, UNCOMMITTED, AWAY, HOLE, UNHEARD, UNTOLD,
    BROKEN, BROKEN_BEFORE, UNANSWERED, REFUSED, UNRECEIPTED,
)  # fmt: skip
