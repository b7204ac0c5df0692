"""A province of moods: the real one, in its own process, that is slow, refuses, answers twice, late, or lies.

Its mood is a file that the rig writes; every lie but the forged one bears the province's genuine signature, because a
province that lies has its own key. Runs as ``python -m govbus.chaos.planted moody -- govbus.cli province``.
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Literal, get_args

Mood = Literal[
    "good", "slow", "refuses 500", "refuses 503", "refuses 429", "answers twice", "answers late", "breaks off",
    "talks nonsense", "forges", "signs other content", "names strangers", "leaves records out", "repeats records",
    "invents outcomes", "stores nothing",
]  # fmt: skip
FILE = "mood"
LIES: tuple[Mood, ...] = (
    "forges", "signs other content", "names strangers", "leaves records out", "repeats records", "invents outcomes"
)  # fmt: skip
"""Every one of them must be recognised by the receipt alone."""
UNSEEN: Mood = "stores nothing"
"""A genuine receipt for what was not kept: no receipt can show it; only the province's own database can."""
PASSING: tuple[Mood, ...] = tuple(m for m in get_args(Mood) if m not in ("good", UNSEEN))
SLOW_S, LATE_S = 0.4, 2.5
HASTE_S = 1.0
"""How long a hasty sender waits for an answer; the product's own patience is longer than a cycle."""
Answer = Callable[..., Awaitable[Any]]


def tell(home: Path, mood: Mood) -> None:
    """Let the province of ``home`` be in this mood from the next request on."""
    place = home / "province"
    place.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft = place / f"{FILE}.new"
    draft.write_text(mood)
    draft.replace(place / FILE)


def make_moody() -> None:
    """Put moods into the province of this process."""
    from consumers.province import app
    from govbus.settings import load

    take, place = app._take, load().home / "province" / FILE

    async def moody(store: Any, content: bytes, key: str) -> Any:
        mood = place.read_text() if place.exists() else "good"
        return await _answer(take, store, content, key, mood)

    app._take = moody


def make_hasty() -> None:
    """Let the sender of this process wait for an answer only ``HASTE_S``."""
    import httpx

    from connectors.province import line

    line.TIMEOUT = httpx.Timeout(HASTE_S)


async def _answer(take: Answer, store: Any, content: bytes, key: str, mood: str) -> Any:
    from litestar import Response

    if mood.startswith("refuses"):
        return Response({"error": "not now"}, status_code=int(mood.split()[1]))
    if mood == "slow":
        await asyncio.sleep(SLOW_S)
    if mood == "talks nonsense":
        return Response("<html>maintenance</html>", media_type="text/html")
    if mood == UNSEEN:
        return Response(_unkept(store, content))
    answer = await take(store, content, key)
    if mood == "answers twice":
        answer = await take(store, content, key)
    if mood == "answers late":
        await asyncio.sleep(LATE_S)
    if mood == "breaks off":
        return Response(b'{"receipt": {', media_type="application/json")
    return Response(LYING[mood](store, answer.content)) if mood in LYING else answer


def _signed(store: Any, answer: Mapping[str, Any], records: list[Any]) -> dict[str, Any]:
    """The receipt with other records, genuinely signed."""
    from schemas import receipts

    body = {**answer["receipt"], "records": records}
    return {"receipt": body, "signature": store.signer.sign(receipts.canonical(body))}


def _stranger(like: Mapping[str, Any]) -> dict[str, Any]:
    return {**like, "event_id": str(uuid.uuid4())}


def _lie(change: Callable[[list[Any]], list[Any]]) -> Callable[[Any, Mapping[str, Any]], dict[str, Any]]:
    return lambda store, answer: _signed(store, answer, change(list(answer["receipt"]["records"])))


LYING: Mapping[str, Callable[[Any, Mapping[str, Any]], dict[str, Any]]] = {
    "forges": lambda store, answer: {**answer, "signature": store.signer.sign(b"something else")},
    "signs other content": _lie(lambda records: [{**records[0], "digest": str(uuid.uuid4())}, *records[1:]]),
    "names strangers": _lie(lambda records: [*records, _stranger(records[0])]),
    "leaves records out": _lie(lambda records: records[1:]),
    "repeats records": _lie(lambda records: [*records, records[0]]),
    "invents outcomes": _lie(lambda records: [{**records[0], "outcome": "ON ITS WAY"}, *records[1:]]),
}


def _unkept(store: Any, content: bytes) -> dict[str, Any]:
    """The genuine answer to a batch, of which nothing is kept."""
    import json

    from consumers.province.store import _shape

    request = json.loads(content)
    batch_id, records = _shape(request, request["batch_id"])
    with contextlib.closing(store.engine.connect()) as tx:
        answer: dict[str, Any] = store._judge(tx, batch_id, str(request["sender"]), records, "")
        tx.rollback()
    return answer
