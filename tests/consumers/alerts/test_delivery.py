"""Alerts to those who subscribed: signed, checked, held, tried again, given up, and never lost to a kill."""

from __future__ import annotations

import contextlib
import email
import email.policy
import hashlib
import hmac
import json
import os
import signal
import socket
import socketserver
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from structlog.testing import capture_logs

from consumers.alerts import deliver, digest
from consumers.alerts.deliver import Deliverer, idempotency_key, redrive, retry_at, waiting
from consumers.alerts.digest import Mailbox
from consumers.alerts.queue import Queue, Subscription
from consumers.alerts.quiet import Quiet, minutes, slot
from consumers.alerts.webhook import Undelivered, Webhook, allowed, post
from govbus.commands.consume import delivering
from govbus.settings import Settings
from schemas import examples
from schemas.topics import ALERT
from streams.store.projection import Carried, Event

SECRET = b"sixteen-characters-at-least"
NIGHT = Quiet(minutes("22:00"), minutes("08:00"), frozenset({"YELLOW"}))


def ms(text: str) -> int:
    return int(datetime.fromisoformat(f"{text}+08:00").timestamp() * 1000)


def alert(n: int = 1, colour: str = "RED", **more: Any) -> Event:
    record = {
        "alert_id": str(uuid.UUID(int=n)), "alert_seq": 1, "event_type": "alert.issued", "region": "430903",
        "department": "HS-ZJJ", "case_no": f"c{n}", "kind_code": "CARD", "colour_code": colour, "issued_at": NOON,
        "received_at": NOON, "summary": f"红牌：办件 c{n} 已超过承诺时限", **more,
    }  # fmt: skip
    return Event(Carried(ALERT, 0, n, b"", b"", ()), uuid.UUID(int=n + 1000), uuid.uuid4(), record)


NOON = ms("2020-09-21 12:00")


@dataclass
class Receiver:
    """A subscriber: answers what it is told to, and remembers what it was sent."""

    answers: list[int] = field(default_factory=list)
    heard: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    kill: list[int] = field(default_factory=list)
    url: str = ""

    def hook(self, **more: Any) -> Webhook:
        return Webhook(**{"channel": "desk", "url": self.url, "secret": SECRET, "hosts": frozenset({"127.0.0.1"}),
                          "timeout_s": 5.0, "loopback": True, **more})  # fmt: skip


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            made.heard.append((dict(self.headers), body))
            if made.kill:
                os.kill(made.kill.pop(), signal.SIGKILL)
                return
            self.send_response(made.answers.pop(0) if made.answers else 200)
            self.send_header("Location", "http://127.0.0.1:9/elsewhere")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.url = f"http://127.0.0.1:{server.server_port}/alerts"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield made
    server.shutdown()
    server.server_close()


# --- one request ---


def test_a_delivery_is_signed_over_its_time_and_body(receiver: Receiver) -> None:
    post(receiver.hook(), "key-1", {"summary": "红牌"}, NOON)
    ((headers, body),) = receiver.heard
    assert body == '{"summary":"红牌"}'.encode()
    assert headers["Govbus-Timestamp"] == "1600660800"
    expected = hmac.new(SECRET, b"1600660800." + body, hashlib.sha256).hexdigest()
    assert headers["Govbus-Signature"] == f"v1={expected}"
    assert headers["Idempotency-Key"] == "key-1"


def test_a_redirect_is_not_followed(receiver: Receiver) -> None:
    receiver.answers = [307]
    with pytest.raises(Undelivered, match="307, no redirect is followed"):
        post(receiver.hook(), "key-1", {}, NOON)
    assert len(receiver.heard) == 1


def test_a_host_that_resolves_to_this_machine_is_not_called(receiver: Receiver) -> None:
    url = receiver.url.replace("http://127.0.0.1", "https://localhost")
    hook = receiver.hook(url=url, hosts=frozenset({"localhost"}), loopback=False)
    with pytest.raises(Undelivered, match="an address that may not be called"):
        post(hook, "key-1", {}, NOON)
    assert receiver.heard == []


def test_a_host_that_is_not_on_the_list_or_plain_http_is_not_called(receiver: Receiver) -> None:
    for hook in (receiver.hook(hosts=frozenset()), receiver.hook(loopback=False)):
        with pytest.raises(Undelivered, match="not allowed"):
            post(hook, "key-1", {}, NOON)
    assert receiver.heard == []


def test_a_subscriber_that_speaks_no_tls_gets_nothing(receiver: Receiver) -> None:
    with pytest.raises(Undelivered, match="no answer"):
        post(receiver.hook(url=receiver.url.replace("http:", "https:")), "key-1", {}, NOON)
    assert receiver.heard == []


LONG = f"{'a' * 64}.example"


@pytest.mark.parametrize(
    "url", ["https://desk.example/预警", "https://desk.example:99999/", f"https://{LONG}/", "https://[::1/x"]
)
def test_an_address_that_cannot_be_called_is_a_failed_attempt(receiver: Receiver, url: str) -> None:
    with pytest.raises(Undelivered, match="no answer"):
        post(receiver.hook(url=url, hosts=frozenset({"desk.example", LONG})), "key-1", {}, NOON)


@pytest.mark.parametrize("head", [b"Content-Length: 999", b"Connection: close", b"Transfer-Encoding: chunked"])
def test_who_answers_2xx_has_it_whatever_becomes_of_the_body(receiver: Receiver, head: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        dripping = threading.Thread(target=drip, args=(server, b"HTTP/1.1 200 OK\r\n" + head + b"\r\n\r\n"))
        dripping.start()
        post(receiver.hook(url=f"http://127.0.0.1:{server.getsockname()[1]}/", timeout_s=0.5), "key-1", {}, NOON)
        dripping.join()


def test_an_answer_that_drips_is_cut_when_the_time_for_the_whole_call_is_over(receiver: Receiver) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        dripping = threading.Thread(target=drip, args=(server, b"HTTP/1.1 200 OK\r\nX: "))
        dripping.start()
        began = time.monotonic()
        with pytest.raises(Undelivered, match="TimeoutError"):
            post(receiver.hook(url=f"http://127.0.0.1:{server.getsockname()[1]}/", timeout_s=0.5), "key-1", {}, NOON)
        assert time.monotonic() - began < 2.5
        dripping.join()


def drip(server: socket.socket, begun: bytes) -> None:
    """Answer one call with ``begun``, then a byte every 0.1 s for 4 s, then the end of the header."""
    with contextlib.suppress(OSError), server.accept()[0] as caller:
        caller.sendall(begun)
        for _ in range(40):
            time.sleep(0.1)
            caller.sendall(b"x")
        caller.sendall(b"\r\n\r\n")


@pytest.mark.parametrize(
    ("address", "yes"),
    [
        ("8.8.8.8", True), ("2606:4700::1111", True), ("127.0.0.1", False), ("::1", False), ("10.1.2.3", False),
        ("172.16.0.1", False), ("192.168.1.1", False), ("169.254.169.254", False), ("100.64.0.1", False),
        ("0.0.0.0", False), ("fd00::1", False), ("fe80::1%eth0", False), ("::ffff:10.0.0.1", False),
        ("64:ff9b::a00:1", False), ("2002:a00:1::", False), ("224.0.0.1", False), ("64:ff9b:1::a00:1", False),
        ("64:ff9b:1:ffff::1", False), ("fec0::1", False), ("feff::1", False), ("::10.0.0.1", False),
        ("::8.8.8.8", False),
    ],
)  # fmt: skip
def test_only_public_addresses_are_called(address: str, yes: bool) -> None:
    assert allowed(address, loopback=False) is yes


def test_loopback_is_called_only_where_a_test_says_so() -> None:
    assert allowed("127.0.0.1", loopback=True)
    assert allowed("::1", loopback=True)
    assert not allowed("10.0.0.1", loopback=True)


# --- quiet hours ---


@pytest.mark.parametrize(
    ("colour", "now", "until"),
    [
        ("YELLOW", "2020-09-21 23:00", "2020-09-22 08:00"),
        ("YELLOW", "2020-09-22 07:59", "2020-09-22 08:00"),
        ("YELLOW", "2020-09-22 08:00", "2020-09-22 08:00"),
        ("YELLOW", "2020-09-22 21:59", "2020-09-22 21:59"),
        ("RED", "2020-09-21 23:00", "2020-09-21 23:00"),
        ("RED_STATUTORY", "2020-09-22 03:00", "2020-09-22 03:00"),
    ],
)
def test_quiet_hours_hold_yellow_and_never_red(colour: str, now: str, until: str) -> None:
    assert NIGHT.alert_until(colour, ms(now)) == ms(until)


def test_without_quiet_hours_nothing_waits_and_a_digest_has_its_time() -> None:
    assert Quiet().until(NOON) == NOON
    assert slot(minutes("08:30"), ms("2020-09-21 08:29")) == ms("2020-09-20 08:30")
    assert slot(minutes("08:30"), ms("2020-09-21 08:30")) == ms("2020-09-21 08:30")


def test_the_waits_double_from_five_seconds_to_an_hour() -> None:
    assert [retry_at(n, 0) for n in (1, 2, 3, 10, 11, 50)] == [5_000, 10_000, 20_000, 2_560_000, 3_600_000, 3_600_000]


def test_the_tries_go_on_for_ten_days() -> None:
    waits = [retry_at(n, 0) for n in range(1, Settings.model_fields["webhook_attempts"].default)]
    assert 10 * 86_400_000 < sum(waits) < 10.1 * 86_400_000


# --- the queue ---


class Time:
    def __init__(self, at: int) -> None:
        self.now = at

    def __call__(self) -> int:
        return self.now


def queued(engine: sa.Engine, clock: Time, *events: Event, channel: Subscription | None = None) -> None:
    queue = Queue([channel or Subscription("desk")], NIGHT, 72 * 3_600_000, clock)
    with engine.begin() as tx:
        queue.apply(tx, list(events))


def rows(engine: sa.Engine, what: str) -> list[Any]:
    with engine.connect() as tx:
        return [tuple(r) for r in tx.execute(sa.text(f"SELECT {what} FROM delivery ORDER BY seq"))]


@pytest.mark.stack
def test_a_failed_delivery_is_tried_again_under_the_same_key_and_then_done(
    engine: sa.Engine, receiver: Receiver
) -> None:
    clock = Time(NOON)
    queued(engine, clock, alert(1), alert(1))
    receiver.answers = [500, 503, 200]
    work = Deliverer(engine, NIGHT, 5, clock)
    assert work.call(receiver.hook())
    assert not work.call(receiver.hook())
    for wait in (5_000, 10_000):
        clock.now += wait
        assert work.call(receiver.hook())
    assert [h["Idempotency-Key"] for h, _ in receiver.heard] == [idempotency_key("desk", uuid.UUID(int=1001))] * 3
    assert rows(engine, "attempts, last_error, done_at, dead_at") == [(3, "", NOON + 15_000, None)]
    assert json.loads(receiver.heard[0][1])["case_no"] == "c1"


@pytest.mark.stack
def test_after_too_many_failures_it_is_dead_shown_and_can_be_redriven(engine: sa.Engine, receiver: Receiver) -> None:
    clock = Time(NOON)
    queued(engine, clock, alert(1))
    receiver.answers = [500, 500]
    work = Deliverer(engine, NIGHT, 2, clock)
    for _ in range(3):
        work.call(receiver.hook())
        clock.now += 3_600_000
    assert len(receiver.heard) == 2
    with engine.begin() as tx:
        ((_, event_id, case_no, _, _, attempts, why, dead_at),) = waiting(tx, dead=True)
        assert (event_id, case_no, attempts, why) == (uuid.UUID(int=1001), "c1", 2, "the subscriber answered 500")
        assert dead_at == NOON + 3_600_000
        assert redrive(tx, "another") == 0
        assert redrive(tx, "desk") == 1
    assert work.call(receiver.hook())
    assert rows(engine, "attempts, dead_at, done_at IS NOT NULL") == [(1, None, True)]


@pytest.mark.stack
def test_a_subscriber_that_is_down_is_called_ever_more_rarely_however_much_waits_for_it(
    engine: sa.Engine, receiver: Receiver
) -> None:
    clock = Time(NOON)
    queued(engine, clock, *map(alert, range(1, 31)))
    receiver.answers = [503, 429, *[500] * 5]
    work = Deliverer(engine, NIGHT, 250, clock)
    called: list[int] = []
    for _ in range(210):
        if work.call(receiver.hook()):
            called.append((clock.now - NOON) // 1_000)
        clock.now += 1_000
    assert called == [0, 5, 15, 35, 75, 135, 195]
    clock.now = NOON + 255_000
    while work.call(receiver.hook()):
        pass
    assert sorted(rows(engine, "done_at")) == [(clock.now,)] * 30


@pytest.mark.stack
def test_what_a_subscriber_refuses_holds_up_no_other(engine: sa.Engine, receiver: Receiver) -> None:
    queued(engine, Time(NOON), alert(1), alert(2), alert(3))
    receiver.answers = [400, 413, 200]
    work = Deliverer(engine, NIGHT, 5, Time(NOON))
    while work.call(receiver.hook()):
        pass
    assert rows(engine, "case_no, last_error, done_at") == [
        ("c1", "the subscriber answered 400", None), ("c2", "the subscriber answered 413", None), ("c3", "", NOON),
    ]  # fmt: skip


@pytest.mark.stack
def test_at_night_a_red_card_goes_at_once_and_a_yellow_one_in_the_morning(
    engine: sa.Engine, receiver: Receiver
) -> None:
    clock = Time(ms("2020-09-21 23:00"))
    queued(engine, clock, alert(1, "YELLOW"), alert(2, "RED"))
    work = Deliverer(engine, NIGHT, 5, clock)
    while work.call(receiver.hook()):
        pass
    assert [json.loads(b)["case_no"] for _, b in receiver.heard] == ["c2"]
    clock.now = ms("2020-09-22 08:00")
    assert work.call(receiver.hook())
    assert [json.loads(b)["case_no"] for _, b in receiver.heard] == ["c2", "c1"]


@pytest.mark.stack
def test_only_what_a_subscriber_wants_and_nothing_old_is_queued(engine: sa.Engine) -> None:
    wanted = Subscription("desk", colours=frozenset({"RED"}), departments=frozenset({"HS-ZJJ"}))
    old = alert(4, received_at=NOON - 73 * 3_600_000)
    queued(engine, Time(NOON), alert(1), alert(2, "YELLOW"), alert(3, department="HS-GAFJ"), old, channel=wanted)
    assert rows(engine, "case_no") == [("c1",)]


def again(n: int, seq: int, event_type: str, **more: Any) -> Event:
    """A later statement about alert ``n``."""
    said = alert(n, alert_seq=seq, event_type=event_type, **more)
    return replace(said, event_id=uuid.UUID(int=1000 * (seq + 1) + n))


@pytest.mark.stack
def test_whoever_heard_of_an_alert_hears_that_it_went_to_another_and_was_taken_back(engine: sa.Engine) -> None:
    hall = Subscription("desk", departments=frozenset({"HS-ZWFWZX"}))
    queued(engine, Time(NOON), alert(1, department="HS-ZWFWZX"), alert(2, department="HS-ZJJ"), channel=hall)
    moved = again(1, 2, "alert.issued", department="HS-ZJJ")
    queued(engine, Time(NOON), moved, again(2, 2, "alert.revoked", department="HS-ZJJ"), channel=hall)
    long_ago = again(1, 3, "alert.retracted", department="HS-ZJJ", received_at=NOON - 73 * 3_600_000)
    queued(engine, Time(NOON), long_ago, channel=hall)  # an item's record put right: it never was late
    assert rows(engine, "case_no, body->>'event_type'") == [
        ("c1", "alert.issued"), ("c1", "alert.issued"), ("c1", "alert.retracted"),
    ]  # fmt: skip


@pytest.mark.stack
@pytest.mark.parametrize("order", [(0, 1, 2), (1, 2, 0), (1, 0, 2)])
def test_whoever_heard_of_a_card_hears_that_an_appeal_took_it_out_in_whatever_order(
    engine: sa.Engine, order: tuple[int, ...]
) -> None:
    """They travel in different partitions: who reads a backlog may meet the decision first."""
    cards, told = Subscription("desk", kinds=frozenset({"CARD"}), colours=frozenset({"RED"})), [alert(1), *decided(1)]
    queued(engine, Time(NOON), *decided(2)[:1], alert(2, "YELLOW"), channel=cards)
    for n in order:
        queued(engine, Time(NOON), told[n], channel=cards)
    assert sorted(rows(engine, "event_id")) == sorted((event.event_id,) for event in told)


def decided(n: int) -> list[Event]:
    """What is said of the decision on alert ``n``: that it was made, and that it stands no more; long ago."""
    about = {"kind_code": "RULING", "evidence": [str(uuid.UUID(int=n)), "act"], "received_at": NOON - 73 * 3_600_000}
    return [alert(n + 10, "NONE", **about), again(n + 10, 2, "alert.revoked", **about)]


@pytest.mark.stack
def test_who_comes_later_and_hears_of_a_card_hears_what_was_decided_of_it(engine: sa.Engine) -> None:
    first, later = Subscription("first", kinds=frozenset({"CARD"})), Subscription("later", kinds=frozenset({"CARD"}))
    queued(engine, Time(NOON), alert(1), *decided(1), channel=first)
    queued(engine, Time(NOON), again(1, 2, "alert.issued", department="HS-GAFJ"), channel=later)
    assert [kind for _, kind in rows(engine, "channel, body->>'kind_code'")[3:]] == ["CARD", "RULING", "RULING"]


@pytest.mark.stack
def test_the_last_red_card_before_nine_days_off_is_told_after_them(engine: sa.Engine) -> None:
    """The spring festival of 2026, from 15 to 23 February: nothing ran, and the card came due on the evening before."""
    hook = {"name": "desk", "url": "https://desk.example/", "secret": "s" * 32}
    queue, _ = delivering(Settings.model_validate({"webhooks": [hook]}), engine)
    assert queue is not None
    queue._clock = Time(ms("2026-02-24 08:30"))
    with engine.begin() as tx:
        queue.apply(tx, [alert(1, issued_at=ms("2026-02-14 17:01"), received_at=ms("2026-02-14 17:01"))])
    assert rows(engine, "channel, case_no") == [("desk", "c1")]


@pytest.mark.stack
def test_how_many_alerts_are_too_old_is_said_once_a_batch(engine: sa.Engine) -> None:
    reds, long_ago = Subscription("desk", colours=frozenset({"RED"})), NOON - 73 * 3_600_000
    with capture_logs() as said:
        queued(engine, Time(NOON), alert(1), channel=reds)
        assert said == []
        told = [alert(n, received_at=long_ago) for n in (2, 3)]
        followed = again(1, 2, "alert.revoked", received_at=long_ago)
        queued(engine, Time(NOON), *told, alert(4, "YELLOW", received_at=long_ago), followed, channel=reds)
    (line,) = said
    assert (line["event"], line["log_level"], line["statements"]) == ("delivery.too_old", "warning", 2)
    assert "c2" not in str(line)


@pytest.mark.stack
def test_a_decision_that_names_no_alert_goes_to_who_wants_it_and_holds_nobody_up(engine: sa.Engine) -> None:
    queued(engine, Time(NOON), alert(1, "NONE", kind_code="RULING", evidence=[]), alert(2))
    assert sorted(rows(engine, "case_no")) == [("c1",), ("c2",)]


@pytest.mark.stack
def test_two_that_queue_at_once_miss_no_decision(engine: sa.Engine) -> None:
    cards = Subscription("desk", kinds=frozenset({"CARD"}))
    other = threading.Thread(target=queued, args=(engine, Time(NOON), decided(1)[0]), kwargs={"channel": cards})
    with engine.begin() as tx:
        Queue([cards], NIGHT, 72 * 3_600_000, Time(NOON)).apply(tx, [alert(1)])
        other.start()
        other.join(0.5)
    other.join()
    assert sorted(rows(engine, "body->>'kind_code'")) == [("CARD",), ("RULING",)]


@pytest.mark.stack
def test_the_digest_lists_what_came_before_its_time_once_and_waits_for_the_quiet_hours(
    engine: sa.Engine, tmp_path: Path
) -> None:
    clock = Time(ms("2020-09-21 18:00"))
    queued(engine, clock, alert(1), alert(2, "YELLOW"), channel=Subscription("digest"))
    box = Mailbox(tmp_path, "", "govbus@heshan", ("leader@heshan", "desk@heshan"))
    work = Deliverer(engine, NIGHT, 5, clock)
    clock.now = ms("2020-09-22 07:45")
    assert not work.digest(box, minutes("07:30"))  # its time falls into the quiet hours
    assert list(tmp_path.iterdir()) == []
    clock.now = ms("2020-09-22 08:00")
    queued(engine, clock, alert(3), channel=Subscription("digest"))
    work.digest(box, minutes("07:30"))
    (path,) = tmp_path.glob("*.eml")
    assert list(tmp_path.iterdir()) == [path]
    mail = email.message_from_bytes(path.read_bytes(), policy=email.policy.default)
    assert mail["To"] == "leader@heshan, desk@heshan"
    assert mail["Subject"] == "政务服务效能监察摘要 2020-09-22：2 条"
    text = mail.get_content().splitlines()
    assert text[0] == "红牌发出 1 条；黄牌发出 1 条"
    assert text[2] == "09-21 12:00 区住建局 发出 红牌：办件 c1 已超过承诺时限"
    assert not work.digest(box, minutes("07:30"))
    assert rows(engine, "case_no, done_at IS NOT NULL") == [("c1", True), ("c2", True), ("c3", False)]


def test_a_digest_counts_alerts_and_not_words_and_lists_red_cards_and_bad_ratings_first() -> None:
    bad = {"kind_code": "BAD_RATING", "colour_code": "NONE", "summary": "差评：请联系核实"}
    moved = again(2, 2, "alert.issued", department="HS-GAFJ")
    told = [
        alert(1, "YELLOW", summary="黄牌：办件 c1"), alert(2), moved,
        alert(3, "NONE", kind_code="FINDING", summary="发现"),
        again(4, 1, "alert.issued", **bad), again(4, 2, "alert.issued", **bad), again(2, 3, "alert.revoked"),
        again(2, 4, "alert.issued"),
    ]  # fmt: skip
    mail = digest.message(Mailbox(None, "", "a@b", ("c@d",)), [e.record for e in told], NOON, 1)
    assert mail["Subject"].endswith("：5 条")
    assert mail.get_content().splitlines() == [
        "差评发出 1 条；监察发现发出 1 条；红牌发出 1 条；红牌撤销 1 条；黄牌发出 1 条",
        "",
        "09-21 12:00 区住建局 发出 红牌：办件 c2 已超过承诺时限",
        "09-21 12:00 赫山公安分局 更新 红牌：办件 c2 已超过承诺时限",
        "09-21 12:00 区住建局 发出 差评：请联系核实",
        "09-21 12:00 区住建局 更新 差评：请联系核实",
        "09-21 12:00 区住建局 撤销 红牌：办件 c2 已超过承诺时限",
        "09-21 12:00 区住建局 发出 红牌：办件 c2 已超过承诺时限",
        "09-21 12:00 区住建局 发出 黄牌：办件 c1",
        "09-21 12:00 区住建局 发出 发现",
    ]


@pytest.mark.stack
def test_a_digest_made_again_after_a_crash_is_the_same_file_and_message(
    engine: sa.Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Time(ms("2020-09-21 18:00"))
    queued(engine, clock, alert(1), channel=Subscription("digest"))
    box = Mailbox(tmp_path, "", "govbus@heshan", ("leader@heshan",))
    clock.now = ms("2020-09-22 08:40")
    work = Deliverer(engine, NIGHT, 5, clock)
    with monkeypatch.context() as dies:
        dies.setattr(deliver, "_DONE", sa.text("SELECT 1/0"))
        with pytest.raises(sa.exc.DBAPIError):
            work.digest(box, minutes("08:30"))
    (first,) = [(p.name, p.read_bytes()) for p in tmp_path.iterdir()]
    work.digest(box, minutes("08:30"))
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [first]
    assert rows(engine, "done_at") == [(clock.now,)]


@pytest.mark.stack
def test_a_directory_that_cannot_be_written_is_a_failed_attempt(engine: sa.Engine, tmp_path: Path) -> None:
    clock = Time(ms("2020-09-21 18:00"))
    queued(engine, clock, alert(1), channel=Subscription("digest"))
    (tmp_path / "taken").write_text("")
    clock.now = ms("2020-09-22 08:40")
    Deliverer(engine, NIGHT, 5, clock).digest(Mailbox(tmp_path / "taken", "", "a@b", ("c@d",)), minutes("08:30"))
    assert rows(engine, "attempts, last_error") == [(1, "no mail (FileExistsError)")]


class Post(socketserver.StreamRequestHandler):
    """A mail server of the few words that a client needs (RFC 5321); keeps what it was given."""

    def handle(self) -> None:
        server: Any = self.server
        self.wfile.write(b"220 post\r\n")
        for raw in self.rfile:
            word = raw[:4].upper()
            if word == b"DATA":
                self.wfile.write(b"354 go on\r\n")
                server.mails.append(b"".join(iter(self.rfile.readline, b".\r\n")))
            elif word != b"EHLO":
                server.words.append(raw.strip())
            refused = b"550 nobody here\r\n" if b"<closed@" in raw else b"250 ok\r\n"
            self.wfile.write(refused if word != b"QUIT" else b"221 bye\r\n")


@pytest.mark.stack
def test_a_mail_server_gets_the_digest_for_every_receiver(engine: sa.Engine) -> None:
    server: Any = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Post)
    server.mails, server.words = [], []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    clock = Time(ms("2020-09-21 18:00"))
    queued(engine, clock, alert(1), channel=Subscription("digest"))
    clock.now = ms("2020-09-22 08:40")
    box = Mailbox(None, f"127.0.0.1:{server.server_address[1]}", "govbus@heshan", ("leader@heshan", "desk@heshan"))
    Deliverer(engine, NIGHT, 5, clock).digest(box, minutes("08:30"))
    server.shutdown()
    server.server_close()
    assert [w for w in server.words if w.startswith(b"rcpt")] == [
        b"rcpt TO:<leader@heshan>", b"rcpt TO:<desk@heshan>"
    ]  # fmt: skip
    (mail,) = [email.message_from_bytes(m, policy=email.policy.default) for m in server.mails]
    assert "办件 c1 已超过承诺时限" in mail.get_content()
    assert rows(engine, "done_at IS NOT NULL") == [(True,)]


def test_a_receiver_whom_the_mail_server_refuses_is_told_of() -> None:
    server: Any = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Post)
    server.mails, server.words = [], []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    box = Mailbox(None, f"127.0.0.1:{server.server_address[1]}", "govbus@heshan", ("desk@heshan", "closed@heshan"))
    with capture_logs() as said:
        digest.send(box, digest.message(box, [alert().record], NOON, 1), NOON)
    server.shutdown()
    server.server_close()
    assert len(server.mails) == 1
    (line,) = said
    assert (line["event"], line["receivers"], line["of"], line["codes"]) == ("digest.refused", 1, 2, [550])
    assert "closed" not in str(line)


# --- the process, with a real broker ---


@pytest.mark.stack
def test_a_sender_killed_between_post_and_mark_sends_again_under_the_same_key(
    line: Any, wait_until: Any, receiver: Receiver, tmp_path: Path
) -> None:
    record = next(iter(examples.load(ALERT).values()))
    line.publish(ALERT, [{k: v for k, v in record.items() if k != "event_id"}])
    line.relay()
    hook = {"name": "desk", "url": receiver.url, "secret": SECRET.decode()}
    env = {
        **os.environ,
        "GOVBUS_KAFKA": line.kafka,
        "GOVBUS_DATABASE_URL": line.engine.url.render_as_string(hide_password=False),
        "GOVBUS_HOME": str(tmp_path),
        "GOVBUS_WEBHOOKS": json.dumps([hook]),
        "GOVBUS_WEBHOOK_HOSTS": '["127.0.0.1"]',
        "GOVBUS_WEBHOOK_LOOPBACK": "true",
        "GOVBUS_DELIVERY_MAX_AGE_HOURS": "1000000",
    }
    command = [sys.executable, "-m", "govbus.cli", "consume", "--only", "delivery"]
    first = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    receiver.kill.append(first.pid)
    assert first.wait(60) == -signal.SIGKILL
    assert line.scalar("SELECT attempts FROM delivery") == 0
    second = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: line.scalar("SELECT count(done_at) FROM delivery") == 1)
    finally:
        second.terminate()
        second.wait(20)
    keys = [h["Idempotency-Key"] for h, _ in receiver.heard]
    assert keys == [keys[0]] * 2
    assert json.loads(receiver.heard[1][1])["summary"] == record["summary"]
