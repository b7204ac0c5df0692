"""Planted bugs: each the kind of mistake that loses, doubles or garbles events, put into a child process from outside.

``python -m govbus.chaos.planted NAME … -- MODULE ARGUMENTS`` patches the product in memory and runs the module as
``python -m`` would. The product itself knows nothing of it. A rig that does not catch every one of them proves
nothing by finding the product clean.
"""

# mypy: disable-error-code="assignment,method-assign,arg-type,attr-defined"
from __future__ import annotations

import runpy
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from threading import get_ident
from typing import Any

from govbus.chaos import frailties
from govbus.chaos.moods import make_hasty, make_moody

Patch = Callable[[], None]
Hold = Callable[[Any, Sequence[Any]], None]
"""Keeps in hand what the product would write in the transaction that it is given."""


@dataclass(frozen=True, slots=True)
class Bug:
    """``text``: what the mistake is. ``kinds``: the processes it is put into. ``provoke``: what brings it to light:
    failpoints to die at, or a word that ``govbus.chaos.bites`` knows.
    """

    text: str
    kinds: tuple[str, ...]
    patch: Patch
    provoke: tuple[str, ...] = ()
    cases: int = 60
    """Of the year that flows meanwhile."""
    by: str = ""
    """What the oracle must say of it, where it says more than one thing."""
    stalls: bool = False
    """Whether to stall for good is how this bug shows: with any other one a rig that stalls has caught nothing."""


HALTING = "worker-1"
"""The worker that halts by itself where a bug says so; the others take over."""

# --- worker ---


def _cursor_before_effects() -> None:
    from streams.store import applier, failpoints, steps
    from streams.store.lot import Lot

    def apply_batch(engine: Any, projection: Any, carried: Any, since: Any = None, *_: Any) -> Any:
        lot = Lot.of(projection.topic, carried)
        with engine.begin() as tx:
            first = applier._first(lot)
            start = {p: min((since or {}).get(p, o), o) for p, o in first.items()}
            at = applier.lock(tx, projection.name, projection.topic, start)
            applier._refuse_gaps(projection.topic, start, at)
            fresh = applier._above(lot, at)
            at = applier._advance(tx, projection, fresh, at, {}) if len(fresh) else at
        failpoints.reach("apply.after_lock")
        with engine.begin() as tx:
            if len(fresh):
                applier._fold(tx, projection, fresh, None)
            steps.take_watermarks(tx)
        return applier.Applied(at, len(fresh), 0)

    applier.apply_batch = apply_batch


def _afterwards(keep: Callable[[Any, list[Any]], Any], place: str, lasting: Callable[[Any], bool]) -> Hold:
    """Let each thread of the worker write what it holds in a transaction of its own after each commit, and die nowhere
    but at ``place`` with something ``lasting`` in hand: what a later word makes good would not be missed, nor what
    another thread has not committed.
    """
    from streams.store import applier, failpoints

    held: dict[int, list[Any]] = defaultdict(list)

    reach, failpoints.reach = failpoints.reach, lambda _: None

    def later(applying: Callable[..., Any]) -> Callable[..., Any]:
        def applied(engine: Any, *args: Any, **kwargs: Any) -> Any:
            held.pop(get_ident(), None)  # what was rolled back
            done = applying(engine, *args, **kwargs)
            kept = held.pop(get_ident(), [])
            if any(map(lasting, kept)):
                reach(place)
            with engine.begin() as tx:
                keep(tx, kept)
            return done

        return applied

    for name in ("apply_batch", "tick_all", "aside"):
        setattr(applier, name, later(getattr(applier, name)))
    return lambda _, found: held[get_ident()].extend(found)


def _decisions_after_commit() -> None:
    from streams.store import outbox, steps

    steps.say = _afterwards(
        lambda tx, kept: outbox.enqueue(tx, [outbox.row(s.topic, s.record) for s in kept]),
        "tick.after_state", lambda said: said.record["event_type"] == "rating.uploaded",
    )  # fmt: skip


def _dead_letters_after_commit() -> None:
    from streams.store import steps

    steps.bury = _afterwards(steps.bury, "apply.after_commit", bool)


def _cursor_not_locked() -> None:
    import sqlalchemy as sa

    from streams.store import applier

    applier._SELECT_LOCKED = sa.text(str(applier._SELECT_LOCKED).replace(" FOR UPDATE", ""))


def _random_alert_ids() -> None:
    import uuid

    from streams.rules import cards

    derived = cards.derived_id
    cards.derived_id = lambda kind, *parts: uuid.uuid4() if kind == "alert" else derived(kind, *parts)


def _poison_skipped() -> None:
    from streams.store import steps

    def bury(*_: Any) -> None:
        """A refused record leaves no trace."""

    steps.bury = bury


def _ids_trusted() -> None:
    from streams.store import frames, steps

    def check(*_: Any) -> None:
        """Whatever id the header claims is believed."""

    steps._check_id = check
    frames.steps._check_id = check


def _reads_from_the_end() -> None:
    from streams import transport
    from streams.store import applier

    async def seek_to_committed(self: Any) -> Any:
        ends = await self.end_offsets(self.assignment())
        self._asked.clear()
        self._wanted.update(ends)
        return ends

    def refuse_gaps(*_: Any) -> None:
        """Skipped records are not missed."""

    transport.ChunkConsumer.seek_to_committed = seek_to_committed
    applier._refuse_gaps = refuse_gaps


def _ratings_not_deduplicated() -> None:
    import uuid

    import polars as pl

    from streams.store import tally

    stored, effects = tally._stored, tally._effects

    def forgetful(tx: Any, cases: str) -> Any:
        return stored(tx, cases).clear()

    def under_new_ids(new: Any, old: Any, upload: bool, out: Any) -> Any:
        ids = pl.Series("event_id", [str(uuid.uuid4()) for _ in range(len(new))])
        return effects(new.with_columns(ids), old, upload, out)

    tally._stored, tally._effects, tally.FEW = forgetful, under_new_ids, 0  # all of them by column


# --- relay ---


def _flush_not_awaited() -> None:
    from connectors import relay

    def send(self: Any, rows: Any, _: Any) -> Any:
        self._hand_over(rows, [], [])
        return [relay.Landed(row.seq, None, None) for row in rows]

    relay.Sender.send = send
    relay.Relay._refuse_below_floors = lambda *_: None  # where they landed is not known


def _newest_first() -> None:
    from connectors import relay

    relay._UNSENT = relay._UNSENT.replace("WHERE before < %s ORDER BY seq", "WHERE before < %s ORDER BY seq DESC")


def _marked_before_sent() -> None:
    from connectors import relay
    from streams.store import failpoints

    send = relay.Sender.send

    def marked(self: Any, raw: Any, stop: Any) -> int:
        found = raw.execute(relay._UNSENT, (self._rows, relay.BATCH_BYTES), binary=True)
        rows = [relay.Unsent(*row) for row in found.fetchall()]
        if not rows:
            return 0
        self._sender = self._sender or relay.Sender(self._bootstrap)
        self._mark(raw, [relay.Landed(row.seq, None, None) for row in rows])
        failpoints.reach("relay.after_read")
        self._mark(raw, send(self._sender, rows, stop.is_set))
        return len(rows)

    relay.Relay._forward = marked


def _lost_log_unnoticed() -> None:
    from connectors import relay

    def await_intact(*_: Any) -> None:
        """Whatever the log has lost, go on."""

    relay.Relay._await_intact = await_intact


# --- consumers and push ---


def _position_before_effect() -> None:
    from consumers import loop
    from streams.store import failpoints

    def commit(self: Any, chunks: Any) -> Any:
        with self.engine.begin() as tx:
            self._lock(tx, sorted(chunks))
            self._advance(tx, chunks, [])
        failpoints.reach("consume.after_lock")
        fresh = [r for p in sorted(chunks) for r in chunks[p].carried]
        with self.engine.begin() as tx:
            self.effect.apply(tx, loop.decode_rows(fresh)[0])
        return {}

    loop.Loop.commit = commit


def _forgotten_before_the_receipt() -> None:
    import sqlalchemy as sa

    from connectors.province import push
    from streams.store.tables import push_queue

    post = push.Sender._post

    def posted(self: Any, url: str, batch_id: Any, rows: Any) -> Any:
        with self.engine.begin() as tx:
            tx.execute(sa.delete(push_queue).where(push_queue.c.batch_id == batch_id))
        push.failpoints.reach("push.after_form")
        return post(self, url, batch_id, rows)

    push.Sender._post = posted


def _receipts_believed() -> None:
    from schemas import receipts

    def check(answer: Any, *_: Any) -> Any:
        return answer["receipt"]

    receipts.check = check


def _liar() -> None:
    from consumers.province import keys

    sign = keys.Signer.sign

    def forged(self: Any, content: bytes) -> str:
        return sign(self, content + b"?")

    keys.Signer.sign = forged


def _answer_before_commit() -> None:
    from consumers.province import store

    judge = store.Store._judge

    def judged(self: Any, tx: Any, batch_id: Any, sender: str, records: Any, content: str) -> Any:
        answer = judge(self, tx, batch_id, sender, records, content)
        tx.rollback()
        return answer

    store.Store._judge = judged


# --- ledger ---


def _xor_ledger() -> None:
    from consumers import reconcile

    xors = reconcile._SUMS.replace("sum(", "bit_xor(")

    def summed(relation: str, by: str, groups: str) -> str:
        hashed = f"SELECT *, sha256(uuid_send(event_id) || uuid_send(digest)) AS h FROM {relation}"
        return f"SELECT {by}, 0 AS n, {xors} FROM ({hashed}) hashed GROUP BY {groups}"

    reconcile._summed = summed


# --- publisher ---


def _failure_swallowed() -> None:
    from connectors import publisher

    store = publisher._store

    def stored(engine: Any, checked: Any) -> Any:
        try:
            return store(engine, checked)
        except Exception:
            return [c.result if c.ready is None else publisher._answered(c.result, _fine(c)) for c in checked]

    def _fine(checked: Any) -> Any:
        return publisher.Enqueued(checked.result.event_id, "new", "")

    publisher._store = stored


# --- the world's ---

KILLS, KILLS_COLUMNS, SLOW = b"KILLS-THE-DECODER", b"KILLS-ONLY-COLUMNS", b"SLOW-TO-DECODE"
"""Texts in a record at which the fragile decoder dies, dies when it reads by column, or takes long."""
SLOW_S = 2.0


def _fragile() -> None:
    """A decoder in native code that ends the process at some bytes, as no exception would."""
    import polars as pl

    from schemas import codec
    from streams.store import tally

    read_row, read_columns = codec._read, pl.read_avro

    def by_row(found: Any, value: bytes) -> Any:
        _die_at(value, KILLS)
        time.sleep(SLOW_S if SLOW in value else 0.0)
        return read_row(found, value)

    def by_column(source: Any, *rest: Any, **more: Any) -> Any:
        _die_at(source.getvalue(), KILLS, KILLS_COLUMNS)
        return read_columns(source, *rest, **more)

    codec._read, pl.read_avro = by_row, by_column
    tally.FEW = 0  # few ratings too go by column here


def _die_at(value: bytes, *marks: bytes) -> None:
    if any(mark in value for mark in marks):
        import ctypes

        ctypes.string_at(0)  # a segmentation fault


def _halting() -> None:
    """A worker that halts by itself between reading which ratings are known and writing new ones, until the rig wakes
    it.
    """
    import os
    import signal

    from streams.store import tally_few

    new = tally_few._new

    def halted(*given: Any) -> Any:
        found = new(*given)
        if found and os.environ.get("GOVBUS_WORKER_NAME") == HALTING:
            os.kill(os.getpid(), signal.SIGSTOP)
        return found

    tally_few._new = halted


LIAR, FRAGILE, HALTS = "liar", "fragile", "halts"
WORLD: Mapping[str, Patch] = {
    LIAR: _liar, FRAGILE: _fragile, HALTS: _halting, "moody": make_moody, "hasty": make_hasty,
}  # fmt: skip
"""No bugs of ours: a province whose receipts are forged, or that has moods; a decoder that kills; a worker that the
machine halts; a sender in haste.
"""

LOST = "published but not on its topic"
BUGS: Mapping[str, Bug] = {
    "cursor-before-effects": Bug(
        "the worker commits its position before the effects (acknowledges before the commit)",
        ("worker",), _cursor_before_effects, ("apply.after_lock",),
    ),
    "decisions-after-commit": Bug(
        "decisions are put into the outbox after the commit",
        ("worker",), _decisions_after_commit, ("tick.after_state",),
    ),
    "dead-letters-after-commit": Bug(
        "dead letters are written outside the transaction",
        ("worker",), _dead_letters_after_commit, ("poison",),
    ),
    "cursor-not-locked": Bug(
        "the cursor is read and not locked", ("worker",), _cursor_not_locked, ("halt",), cases=1_500
    ),
    "random-alert-ids": Bug(
        "an alert's id is drawn, not derived", ("worker",), _random_alert_ids, ("rebuild",)
    ),
    "xor-ledger": Bug("the ledger adds up by XOR: two of the same cancel", (), _xor_ledger, ("ledger",)),
    "poison-skipped": Bug("a refused record leaves no dead letter", ("worker",), _poison_skipped),
    "ids-trusted": Bug("the id in the header is believed", ("worker",), _ids_trusted),
    "reads-from-the-end": Bug(
        "a worker starts at the end of the log and does not mind gaps",
        ("worker",), _reads_from_the_end, ("kill",), cases=400,
    ),
    "no-dedupe": Bug(
        "ratings that were carried twice are counted twice (+= without knowing what was counted)",
        ("worker",), _ratings_not_deduplicated, ("relay.after_send",),
    ),
    "flush-not-awaited": Bug(
        "the relay marks as sent what Kafka has not acknowledged",
        ("relay",), _flush_not_awaited, ("relay.after_mark",), by=LOST,
    ),
    "newest-first": Bug("the relay sends a batch in the wrong order", ("relay",), _newest_first),
    "marked-before-sent": Bug(
        "the relay marks before it sends", ("relay",), _marked_before_sent, ("relay.after_read",), by=LOST
    ),
    "lost-log-unnoticed": Bug(
        "the relay sends on into a log that has lost records", ("relay",), _lost_log_unnoticed, ("tear",),
        stalls=True,
    ),
    "position-before-effect": Bug(
        "a consumer commits its position before its effect",
        ("consume", "push"), _position_before_effect, ("consume.after_lock",),
    ),
    "forgotten-before-the-receipt": Bug(
        "the queue forgets a batch before its receipt is here",
        ("push",), _forgotten_before_the_receipt, ("push.after_form",),
    ),
    "answer-before-commit": Bug("the province signs for what it has not stored", ("province",), _answer_before_commit),
    "receipts-believed": Bug(
        "a receipt is believed without looking at its signature", ("push",), _receipts_believed, ("liar",)
    ),
    "failure-swallowed": Bug(
        "the publisher swallows an exception and says new although the database was away",
        ("feed",), _failure_swallowed, ("disconnect",),
    ),
    "decode-errors-escape": Bug(
        "an exception of the decoder leaves it", ("worker",), frailties.decode_errors_escape, ("part:poison",),
        stalls=True,
    ),
    "impatient": Bug("the worker does not wait for the database", ("worker",), frailties.impatient, ("part:database",)),
    "delivery-errors-unread": Bug(
        "the relay takes a delivery error for success",
        ("relay",), frailties.delivery_errors_unread, ("part:network",), by=LOST,
    ),
    "receipts-not-compared": Bug(
        "a receipt is not compared with what was sent", ("push",), frailties.receipts_not_compared, ("part:province",)
    ),
}  # fmt: skip


def _nothing() -> None:
    """No bug."""


SOUND: Mapping[str, Bug] = {
    f"nothing, {word}": Bug(f"what brings a bug to light ({word}), no bug", (), _nothing, (word,), cases, stalls=True)
    for word, cases in {"halt": 1_500, "kill": 400, "disconnect": 60, "rebuild": 60, "poison": 60, "tear": 60}.items()
}
"""What is done to bring bugs to light and is done nowhere else: without a bug it must show nothing."""


def main() -> None:
    """Patch, then run the module that is named behind ``--``."""
    names, module, *arguments = _split(sys.argv[1:])
    for name in names:
        (WORLD[name] if name in WORLD else BUGS[name].patch)()
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def _split(words: Sequence[str]) -> list[Any]:
    at = list(words).index("--")
    return [words[:at], *words[at + 1 :]]


if __name__ == "__main__":
    main()
