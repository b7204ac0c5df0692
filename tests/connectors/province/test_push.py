"""The push against a real HTTP province, an honest one and one that lies in every way it can."""

from __future__ import annotations

import contextlib
import gzip
import json
import re
import ssl
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest
import sqlalchemy as sa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from connectors.province import format, line, push
from connectors.province.push import BATCH, IDLE_S, Acknowledged, Again, Idle, Outcome, Sender
from consumers.province.app import LARGEST
from consumers.province.keys import Signer
from consumers.province.store import OtherContent, Store, record
from schemas import receipts
from schemas.topics import UPLOAD
from streams.store import failpoints

pytestmark = pytest.mark.stack
HONEST = Signer(Ed25519PrivateKey.from_private_bytes(bytes(range(32))))
STRANGER = Signer(Ed25519PrivateKey.from_private_bytes(bytes(32)))
Answer = tuple[int, Mapping[str, str], Any]
Play = Callable[[dict[str, Any]], Answer]


class Province(ThreadingHTTPServer):
    """Stores honestly, then answers as its script of plays says; honestly when the script is over. ``refuses``: with
    what status it refuses records before that, 0 for those that it takes.
    """

    daemon_threads = True

    def __init__(self, store: Store) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.store, self.script, self.keys = store, list[Play](), list[str]()
        self.sent = list[list[str]]()
        self.largest, self.drip_s, self.only_continues = 0, 0.0, False
        self.refuses: Callable[[list[dict[str, Any]]], int] = lambda _: 0
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()


class Handler(BaseHTTPRequestHandler):
    server: Province
    protocol_version = "HTTP/1.1"  # the connection is kept, as a real platform keeps it

    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.keys.append(self.headers["Idempotency-Key"])
        self.server.largest = max(self.server.largest, len(content))
        request = json.loads(content)
        self.server.sent.append([r["body"]["projectNo"] for r in request["records"]])
        if status := self.server.refuses(request["records"]):
            return self._refuse(status)
        try:
            honest = self.server.store.accept(request, self.headers["Idempotency-Key"])
        except OtherContent:
            return self._refuse(409)
        play = self.server.script.pop(0) if self.server.script else lambda answer: (200, {}, answer)
        status, headers, answer = play(json.loads(json.dumps(honest)))
        body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        try:
            while self.server.only_continues:
                self.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                time.sleep(0.01)
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            for byte in body if self.server.drip_s else ():
                self.wfile.write(bytes([byte]))
                time.sleep(self.server.drip_s)
            self.wfile.write(b"" if self.server.drip_s else body)
        except OSError:
            self.close_connection = True

    def _refuse(self, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        return


def resigned(answer: dict[str, Any], signer: Signer = HONEST) -> Answer:
    return 200, {}, {**answer, "signature": signer.sign(receipts.canonical(answer["receipt"]))}


def wrong_digest(answer: dict[str, Any]) -> Answer:
    answer["receipt"]["records"][0]["digest"] = str(uuid.UUID(int=7))
    return resigned(answer)


def foreign_batch(answer: dict[str, Any]) -> Answer:
    answer["receipt"]["batch_id"] = str(uuid.UUID(int=7))
    return resigned(answer)


def one_left_out(answer: dict[str, Any]) -> Answer:
    answer["receipt"]["records"].pop()
    return resigned(answer)


def one_twice(answer: dict[str, Any]) -> Answer:
    answer["receipt"]["records"].append(answer["receipt"]["records"][0])
    return resigned(answer)


def one_foreign(answer: dict[str, Any]) -> Answer:
    answer["receipt"]["records"][0]["event_id"] = str(uuid.UUID(int=7))
    return resigned(answer)


def altered_after_signing(answer: dict[str, Any]) -> Answer:
    answer["receipt"]["received_at"] += 1
    return 200, {}, answer


def signed_by_a_stranger(answer: dict[str, Any]) -> Answer:
    return resigned(answer, STRANGER)


def outcome_in_a_list(answer: dict[str, Any]) -> Answer:
    answer["receipt"]["records"][0]["outcome"] = ["STORED"]
    return resigned(answer)


def reason_that_cannot_be_stored(answer: dict[str, Any]) -> Answer:
    answer["receipt"]["records"][0] |= {"outcome": "REFUSED", "reason": "bad\0"}
    return resigned(answer)


def reason_that_is_no_text(answer: dict[str, Any]) -> Answer:
    answer["receipt"]["records"][0] |= {"outcome": "REFUSED", "reason": {"code": 3}}
    return resigned(answer)


def a_number_that_comes_back_as_another(answer: dict[str, Any]) -> Answer:
    answer["receipt"]["more"] = 1e16
    return resigned(answer)


def not_json_object(_: dict[str, Any]) -> Answer:
    return 200, {}, ["thanks"]


LIES = [
    wrong_digest, foreign_batch, one_left_out, one_twice, one_foreign, altered_after_signing,
    signed_by_a_stranger, outcome_in_a_list, reason_that_cannot_be_stored, reason_that_is_no_text,
    a_number_that_comes_back_as_another, not_json_object,
]  # fmt: skip


@pytest.fixture
def province(postgres: Any) -> Iterator[Province]:
    from streams.store.engine import connect

    name = f"province_{uuid.uuid4().hex[:8]}"
    store = Store(connect(postgres.create(name), checked=False), HONEST)
    store.create()
    server = Province(store)
    yield server
    server.shutdown()
    server.server_close()
    store.engine.dispose()
    postgres.drop(name)


@pytest.fixture
def sender(engine: sa.Engine, province: Province) -> Sender:
    return new_sender(engine, province)


def new_sender(engine: sa.Engine, province: Province, seconds: float = 30.0) -> Sender:
    url = f"http://127.0.0.1:{province.server_port}"
    client = httpx.Client(timeout=seconds, trust_env=False)
    return Sender(engine, lambda: (url, HONEST.public_key), "430903", client, jitter=lambda: 1.0)


def queue(engine: sa.Engine, n: int, **changes: Any) -> None:
    """``n`` ratings in the queue."""
    from streams.store.tables import push_queue

    body = {
        "projectNo": "p", "serviceNumber": 1, "assessNumber": 1, "revision": 0, "operation": "I",
        "satisfaction": "5", "pf": "4", "evalDetail": "", "writingEvaluation": "", "areaCode": "430903",
        "assessTime": "2020-10-09 15:20:00", "deptCode": "x", "taskCode": "t", "isDefault": False,
        "effectivEvalua": True, "userName": "", **changes,
    }  # fmt: skip
    rows = [
        {
            "event_id": uuid.uuid4(), "topic": UPLOAD.name, "region": "430903", "department": "HS-ZRZYJ",
            "digest": uuid.uuid4(),
            "body": {**body, "projectNo": f"p{i}"},
        }
        for i in range(n)
    ]  # fmt: skip
    with engine.begin() as tx:
        tx.execute(sa.insert(push_queue), rows)


def drain(sender: Sender) -> list[Outcome]:
    """What became of every step until nothing is left to send."""
    outcomes: list[Outcome] = []
    while not isinstance(outcome := sender.step(), Idle):
        outcomes.append(outcome)
        assert len(outcomes) < 100, outcomes[-1]
    return outcomes


def count(engine: sa.Engine, what: str) -> int:
    with engine.connect() as tx:
        return int(tx.execute(sa.text(f"SELECT count(*) FROM {what}")).scalar_one())


def test_a_queue_leaves_in_batches_and_every_receipt_is_kept(
    engine: sa.Engine, sender: Sender, province: Province
) -> None:
    queue(engine, 501)
    outcomes = [sender.step() for _ in range(3)]
    assert [getattr(o, "records", None) for o in outcomes] == [500, 1, None]
    assert isinstance(outcomes[2], Idle)
    assert (count(engine, "push_queue"), count(engine, "receipt")) == (0, 2)
    assert count(province.store.engine, "province_rating") == 501


@pytest.mark.parametrize("lie", LIES, ids=lambda lie: lie.__name__)
def test_a_lie_is_not_a_receipt_and_the_same_batch_goes_again(
    engine: sa.Engine, sender: Sender, province: Province, lie: Play
) -> None:
    queue(engine, 3)
    province.script = [lie]
    first = sender.step()
    assert isinstance(first, Again)
    assert count(engine, "receipt") == 0
    assert isinstance(sender.step(), Acknowledged)
    assert province.keys[0] == province.keys[1]
    assert count(province.store.engine, "province_record") == 3


@pytest.mark.parametrize("head", [True, False], ids=["before its head", "after it"])
def test_an_answer_that_drips_is_no_answer(
    engine: sa.Engine, sender: Sender, province: Province, monkeypatch: pytest.MonkeyPatch, head: bool
) -> None:
    """Each piece comes in time, so no timeout of a single read is ever reached; the connection was used before."""
    queue(engine, 1)
    assert isinstance(sender.step(), Acknowledged)
    monkeypatch.setattr(line, "ANSWER_S", 0.3)
    queue(engine, 1)
    province.drip_s, province.only_continues = 0.01, head
    assert sender.step() == Again("no answer: ReadTimeout")
    province.drip_s, province.only_continues = 0.0, False
    assert isinstance(sender.step(), Acknowledged)


def test_an_answer_larger_than_any_receipt_is_none(
    engine: sa.Engine, sender: Sender, province: Province, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(line, "ANSWER_BYTES", 1_000)
    queue(engine, 1)
    province.script = [lambda answer: (200, {}, {**answer, "more": "x" * 1_000})]
    assert sender.step() == Again("not a receipt: the answer is over 1000 bytes")


def test_a_compressed_answer_is_not_unpacked(engine: sa.Engine, sender: Sender, province: Province) -> None:
    """Nobody asked for it, and a few hundred bytes may stand for gigabytes."""
    queue(engine, 1)
    packed = gzip.compress(gzip.compress(b" " * 1_000_000))
    province.script = [lambda _: (200, {"Content-Encoding": "gzip, gzip"}, packed)]
    assert sender.step() == Again("not a receipt: the answer is compressed, which was not asked for")
    assert isinstance(sender.step(), Acknowledged)


@pytest.mark.parametrize(
    "date", ["Mon, 01 Jan 2001 00:00:00 +99999999999999999", "Fri, 31 Dec 9999 23:59:59 -2359", "soon", "9" * 5000]
)
def test_whatever_time_a_province_names_the_push_goes_on(
    engine: sa.Engine, sender: Sender, province: Province, date: str
) -> None:
    queue(engine, 1)
    province.script = [lambda _: (503, {"Retry-After": date}, {})]
    busy = sender.step()
    assert 0 <= sender.wait(busy, 1) <= push.LONGEST_RETRY_AFTER_S
    assert isinstance(sender.step(), Acknowledged)


def test_long_records_leave_in_batches_that_a_platform_takes(
    engine: sa.Engine, sender: Sender, province: Province
) -> None:
    queue(engine, BATCH, writingEvaluation="差" * 7_000)
    while not isinstance(sender.step(), Idle):
        assert province.largest < LARGEST
    assert count(province.store.engine, "province_rating") == BATCH
    assert len(province.keys) == len(set(province.keys)) > 1


def test_a_batch_too_large_for_the_province_goes_in_halves_and_arrives_once(
    engine: sa.Engine, sender: Sender, province: Province
) -> None:
    """The province of this test stores what it refuses as too large: it will know the records again."""
    queue(engine, 5)
    province.script = [lambda _: (413, {}, {}), lambda _: (413, {}, {})]
    outcomes = [sender.step() for _ in range(6)]
    assert [isinstance(o, Again) and o.too_large for o in outcomes] == [True, True, False, False, False, False]
    assert [getattr(o, "records", None) for o in outcomes[2:]] == [1, 2, 2, None]
    assert (count(engine, "push_queue"), count(province.store.engine, "province_rating")) == (0, 5)


def test_how_much_a_province_takes_is_found_once_and_tried_a_tenth_more_after_each_full_batch(
    engine: sa.Engine, sender: Sender, province: Province
) -> None:
    queue(engine, 400)
    province.refuses = lambda records: 413 if len(records) > 60 else 0
    outcomes = drain(sender)
    taken = [o for o in outcomes if isinstance(o, Acknowledged)]
    assert [o.records for o in taken] == [50, 55, 60, 33, 36, 39, 42, 46, 39]
    assert len(outcomes) - len(taken) == 4  # of 400, 200, 100 and 66
    assert [sender.wait(o, 0) for o in taken] == [0.0] * 8 + [IDLE_S]
    assert [push._larger(*of) for of in ((1, 1), (31, 30), (495, 495), (BATCH, BATCH))] == [2, 31, BATCH, BATCH]


def test_a_record_too_large_for_the_province_waits_and_is_never_given_up(
    engine: sa.Engine, sender: Sender, province: Province
) -> None:
    queue(engine, 1)
    province.script = [lambda _: (413, {}, {})]
    assert isinstance(sender.step(), Again)
    assert isinstance(sender.step(), Acknowledged)
    assert province.keys[0] == province.keys[1]


def test_a_busy_province_is_waited_for_as_long_as_it_asks(
    engine: sa.Engine, sender: Sender, province: Province
) -> None:
    queue(engine, 1)
    province.script = [lambda _: (503, {"Retry-After": "7"}, {})]
    busy = sender.step()
    assert isinstance(busy, Again)
    assert sender.wait(busy, 1) == 7.0
    assert isinstance(sender.step(), Acknowledged)


def test_after_a_full_batch_the_next_one_follows_at_once_and_records_gather_otherwise(sender: Sender) -> None:
    full, part = (Acknowledged(uuid.uuid4(), records, 0) for records in (BATCH, BATCH - 1))
    assert [sender.wait(outcome, 0) for outcome in (full, part, Idle())] == [0.0, IDLE_S, IDLE_S]


def test_without_being_told_the_wait_doubles_up_to_a_minute(sender: Sender) -> None:
    again = Again("no answer")
    assert [sender.wait(again, n) for n in (1, 2, 3, 20)] == [0.5, 1.0, 2.0, 60.0]


def test_an_answer_lost_after_storing_changes_nothing(
    engine: sa.Engine, sender: Sender, province: Province
) -> None:
    queue(engine, 2)
    gone = threading.Event()

    def late(answer: dict[str, Any]) -> Answer:
        gone.wait(60)
        return 200, {}, answer

    province.script = [late]
    assert isinstance(new_sender(engine, province, seconds=0.5).step(), Again)
    gone.set()
    done = sender.step()
    assert isinstance(done, Acknowledged)
    assert (count(province.store.engine, "province_record"), done.refused) == (2, 0)
    assert count(province.store.engine, "province_batch") == 1


def test_a_batch_survives_a_restart_unchanged_while_the_queue_grows(
    engine: sa.Engine, sender: Sender, province: Province
) -> None:
    queue(engine, 2)
    province.script = [lambda _: (500, {}, {})]
    assert isinstance(sender.step(), Again)
    queue(engine, 3)
    restarted = new_sender(engine, province)
    first, second = restarted.step(), restarted.step()
    assert isinstance(first, Acknowledged)
    assert isinstance(second, Acknowledged)
    assert (first.records, second.records) == (2, 3)
    assert province.keys[0] == province.keys[1] != province.keys[2]


def test_a_batch_whose_sender_was_put_right_after_its_answer_was_lost_goes_as_another_and_is_known(
    engine: sa.Engine, sender: Sender, province: Province
) -> None:
    queue(engine, 2)
    province.script = [lambda _: (503, {}, {})]
    assert isinstance(sender.step(), Again)
    sender.region = "430904"
    assert sender.step() == Again("the province answers 409 Conflict", other_content=True)
    assert isinstance(sender.step(), Acknowledged)
    assert (count(engine, "push_queue"), count(province.store.engine, "province_record")) == (0, 2)
    assert province.keys[0] == province.keys[1] != province.keys[2]


def test_a_receipt_is_proof_under_a_former_key_and_given_again_under_the_present_one(
    engine: sa.Engine, sender: Sender, province: Province
) -> None:
    """The answer was lost, and then the province changed its key."""
    queue(engine, 1)
    province.script = [lambda _: (503, {}, {})]
    assert isinstance(sender.step(), Again)
    province.store = Store(province.store.engine, STRANGER)
    url, old = sender.address()
    assert sender.step() == Again("not a receipt: the signature is not the province's")
    sender.address = lambda: (url, f"{STRANGER.public_key},{old}")
    assert isinstance(sender.step(), Acknowledged)
    body = {"batch_id": "x"}
    for signer, genuine in ((HONEST, True), (STRANGER, True), (Signer(Ed25519PrivateKey.generate()), False)):
        assert receipts.signed_by(body, signer.sign(receipts.canonical(body)), sender.address()[1]) == genuine


def test_a_record_that_the_province_refuses_stays_with_its_reason_and_does_not_hold_up_others(
    engine: sa.Engine, sender: Sender
) -> None:
    queue(engine, 1, satisfaction="9")
    queue(engine, 1)
    done = sender.step()
    assert isinstance(done, Acknowledged)
    assert done.refused == 1
    assert isinstance(sender.step(), Idle)
    with engine.connect() as tx:
        assert tx.execute(sa.text("SELECT refused_reason FROM push_queue")).scalar_one() == "bad_body"


def filtered(*projects: str, status: int = 403) -> Callable[[list[dict[str, Any]]], int]:
    """A filter before the province that takes no request with one of ``projects`` in it."""
    return lambda records: status if any(r["body"]["projectNo"] in projects for r in records) else 0


def refused(engine: sa.Engine) -> list[tuple[str, str]]:
    """What is set aside: project number and reason."""
    query = "SELECT body ->> 'projectNo', refused_reason FROM push_queue WHERE refused_reason IS NOT NULL ORDER BY seq"
    with engine.connect() as tx:
        return [(project, reason) for project, reason in tx.execute(sa.text(query))]


@pytest.mark.parametrize("status", [400, 403, 422])
def test_a_record_that_a_filter_never_takes_is_set_aside_once_others_are_taken_and_goes_again_when_asked(
    engine: sa.Engine, sender: Sender, province: Province, status: int
) -> None:
    queue(engine, 8)
    province.refuses = filtered("p3", status=status)
    drain(sender)
    assert refused(engine) == [("p3", f"http {status}")]
    assert (count(engine, "push_queue"), count(province.store.engine, "province_rating")) == (1, 7)
    alone = [key for key, sent in zip(province.keys, province.sent, strict=True) if sent == ["p3"]]
    assert len(alone) == 2
    assert len(set(alone)) == 1
    with engine.begin() as tx:
        assert (push.refused(tx), push.again(tx, f"http {status}")) == ({f"http {status}": 1}, 1)
    province.refuses = filtered()
    assert isinstance(sender.step(), Acknowledged)
    assert province.keys[-1] not in alone
    assert (count(engine, "push_queue"), count(province.store.engine, "province_rating")) == (0, 8)


@pytest.mark.parametrize("bad", [(), ("p0",), ("p4",), ("p0", "p2", "p3"), ("p7", "p18")], ids=str)
def test_while_everything_is_refused_nothing_is_set_aside_and_a_few_are_tried_and_afterwards_only_the_bad_stay(
    engine: sa.Engine, sender: Sender, province: Province, bad: tuple[str, ...]
) -> None:
    queue(engine, 20)
    province.refuses = lambda _: 401
    outcomes = [sender.step() for _ in range(40)]
    assert {o.why for o in outcomes if isinstance(o, Again)} == {"the province answers 401 Unauthorized"}
    assert [sender.wait(outcomes[-1], n) for n in (1, 7, 8, 40)] == [0.5, 32.0, 60.0, 60.0]
    assert (refused(engine), count(engine, "push_queue")) == ([], 20)
    assert {sent[0] for sent in province.sent if len(sent) == 1} == {f"p{i}" for i in range(push.MOST_DOUBTED)}
    province.refuses = filtered(*bad)
    drain(sender)
    assert refused(engine) == [(project, "http 403") for project in bad]
    assert count(province.store.engine, "province_rating") == 20 - len(bad)


def test_the_only_record_keeps_its_batch_while_it_is_refused_and_lets_a_later_one_pass(
    engine: sa.Engine, sender: Sender, province: Province
) -> None:
    queue(engine, 1, writingEvaluation="bad")
    province.refuses = lambda records: 403 if records[0]["body"]["writingEvaluation"] else 0
    assert all(isinstance(sender.step(), Again) for _ in range(12))
    assert len(set(province.keys)) == 1
    queue(engine, 1)
    drain(sender)
    assert refused(engine) == [("p0", "http 403")]
    assert (count(engine, "push_queue"), count(province.store.engine, "province_rating")) == (1, 1)


def test_a_record_refused_again_after_an_outage_is_not_set_aside_by_what_was_taken_before_it(
    engine: sa.Engine, sender: Sender, province: Province
) -> None:
    """Refused, another taken, no answer, then an expired permission: nothing was taken since."""
    queue(engine, 3)
    sender.most = 1
    answers = iter([401, 0, 503, 401, 401, 401])
    province.refuses = lambda _: next(answers, 0)
    assert [type(sender.step()) for _ in range(6)] == [Again, Acknowledged, *[Again] * 4]
    drain(sender)
    assert (refused(engine), count(province.store.engine, "province_rating")) == ([], 3)


@pytest.mark.parametrize("status", [408, 425, 429, 500])
def test_a_status_that_asks_to_wait_gives_no_batch_up(
    engine: sa.Engine, sender: Sender, province: Province, status: int
) -> None:
    queue(engine, 3)
    province.refuses = lambda _: status
    assert all(isinstance(sender.step(), Again) for _ in range(12))
    assert (len(set(province.keys)), refused(engine)) == (1, [])


class Killed(BaseException):
    """kill -9, as far as a thread can have it."""


@pytest.mark.parametrize("place", ["push.after_form", "push.after_post", "push.before_keep_commit", "push.after_keep"])
@pytest.mark.parametrize("everything", [False, True])
def test_whoever_dies_at_any_step_sets_aside_what_is_never_taken_and_nothing_else(
    engine: sa.Engine, province: Province, monkeypatch: pytest.MonkeyPatch, place: str, everything: bool
) -> None:
    """Killed at every step of the first one in turn, with a new process after each."""
    queue(engine, 8)
    province.refuses = (lambda _: 401) if everything else filtered("p3")
    passed = 0

    def reach(name: str) -> None:
        nonlocal passed
        passed += name == place
        if passed > life:
            raise Killed

    monkeypatch.setattr(failpoints, "reach", reach)
    for life in range(12):  # noqa: B007
        passed, restarted = 0, new_sender(engine, province)
        with contextlib.suppress(Killed):
            for _ in range(20):
                restarted.step()
    monkeypatch.undo()
    assert refused(engine) == ([] if everything else [("p3", "http 403")])
    province.refuses = filtered("p3")
    drain(new_sender(engine, province))
    assert refused(engine) == [("p3", "http 403")]
    assert (count(engine, "push_queue"), count(province.store.engine, "province_rating")) == (1, 7)


def test_what_was_refused_goes_again_when_asked_under_an_id_the_province_has_not_answered_yet(
    engine: sa.Engine, sender: Sender, province: Province
) -> None:
    queue(engine, 1)
    with engine.connect() as tx:
        taken = {"event_id": tx.execute(sa.text("SELECT event_id FROM push_queue")).scalar_one()}
    other = {name: uuid.uuid4() for name in ("digest", "batch_id")}
    with province.store.engine.begin() as tx:
        body = {"kind": "rating", "region": "x", "department": "y", "body": {}}
        tx.execute(sa.insert(record), {**taken, **other, **body})
    for _ in range(2):
        outcome = sender.step()
        assert isinstance(outcome, Acknowledged)
        assert outcome.refused == 1
        assert isinstance(sender.step(), Idle)
        with engine.begin() as tx:
            assert (push.refused(tx), push.waiting(tx)) == ({"conflict": 1}, 0)
            assert (push.again(tx, "bad_body"), push.again(tx, "conflict"), push.waiting(tx)) == (0, 1, 1)
    with province.store.engine.begin() as tx:
        tx.execute(sa.delete(record))
    outcome = sender.step()
    assert isinstance(outcome, Acknowledged)
    assert (outcome.records, outcome.refused) == (1, 0)
    assert (count(engine, "push_queue"), count(engine, "receipt")) == (0, 3)


def test_a_province_that_is_not_there_is_waited_for(engine: sa.Engine) -> None:
    queue(engine, 1)
    sender = Sender(engine, lambda: ("http://127.0.0.1:9", HONEST.public_key), "430903")
    outcome = sender.step()
    assert isinstance(outcome, Again)
    assert "no answer" in outcome.why


def test_a_certificate_that_nobody_trusts_is_said_to_be_that(
    engine: sa.Engine, province: Province, authority: Any
) -> None:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(*authority("stranger").certificate("province"))
    province.socket = tls.wrap_socket(province.socket, server_side=True)
    queue(engine, 1, writingEvaluation="personal")
    url = f"https://127.0.0.1:{province.server_port}/secret"
    outcome = Sender(engine, lambda: (url, HONEST.public_key), "430903").step()
    assert isinstance(outcome, Again)
    assert outcome.why.startswith("no answer: ConnectError: ")
    assert "certificate verify failed" in outcome.why
    assert not {"secret", "personal"} & set(re.findall(r"\w+", outcome.why))


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (httpx.ConnectError("Name or service not known"), "ConnectError: Name or service not known"),
        (httpx.ReadError(""), "ReadError"),
        (httpx.RemoteProtocolError("illegal status line: bytearray(b'projectNo')"), "RemoteProtocolError"),
        (httpx.WriteError("x" * 1_000), f"WriteError: {'x' * 288}"),
    ],
)
def test_what_is_said_of_a_broken_line_is_short_and_quotes_nothing_that_was_sent(
    engine: sa.Engine, province: Province, error: httpx.HTTPError, why: str
) -> None:
    def breaks(_: httpx.Request) -> httpx.Response:
        raise error

    queue(engine, 1)
    sender = new_sender(engine, province)
    sender.client = httpx.Client(transport=httpx.MockTransport(breaks))
    assert sender.step() == Again(f"no answer: {why}")


def test_the_databases_on_both_sides_are_asked_the_same_for_batches_of_every_size(
    engine: sa.Engine, sender: Sender, province: Province
) -> None:
    """A text of its own for every number of records is kept by both ends of each connection: memory grows for hours."""
    asked = {size: _asked(engine, sender, province, size) for size in (2, 3, 5)}
    assert asked[2] == asked[3] == asked[5]
    assert len(asked[2]) > 10


def _asked(engine: sa.Engine, sender: Sender, province: Province, size: int) -> set[str]:
    queue(engine, size)
    heard: set[str] = set()

    def hear(*told: Any) -> None:
        heard.add(told[2])

    for side in (engine, province.store.engine):
        sa.event.listen(side, "before_cursor_execute", hear)
    drain(sender)
    for side in (engine, province.store.engine):
        sa.event.remove(side, "before_cursor_execute", hear)
    return heard


def test_a_batch_id_is_a_function_of_its_events_in_order() -> None:
    a, b = uuid.UUID(int=1), uuid.UUID(int=2)
    assert format.batch_id("1", [a, b]) == format.batch_id("1", [a, b])
    assert len({format.batch_id(*of) for of in (("1", [a, b]), ("1", [b, a]), ("2", [a, b]))}) == 3
    assert len({format.batch_id("1", [a, b], tried) for tried in range(3)} | {format.batch_id("1", [a, b])}) == 3
