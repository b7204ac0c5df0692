"""The province over HTTP: stores once, signs, keeps the newest revision, adds up several districts itself."""

from __future__ import annotations

import asyncio
import json
import socket
import stat
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from litestar.testing import TestClient

from consumers.province import app, keys
from consumers.province.store import Store
from schemas import receipts
from schemas.errors import Misconfigured

pytestmark = pytest.mark.stack
DAY = "2020-10-09"


@pytest.fixture
def client(postgres: Any, tmp_path: Path) -> Iterator[TestClient[Any]]:
    name = f"province_{uuid.uuid4().hex[:8]}"
    store = Store(sa.create_engine(postgres.create(name)), keys.load(tmp_path))
    store.create()
    with TestClient(app.build(store)) as made:
        yield made
    store.engine.dispose()
    postgres.drop(name)


def rating(project: str, score: int, region: str = "430903", **changes: Any) -> dict[str, Any]:
    body = {
        "projectNo": project, "serviceNumber": 1, "assessNumber": 1, "revision": 0, "operation": "I",
        "satisfaction": str(score), "pf": "4", "assessTime": f"{DAY} 15:20:00", "isDefault": False,
        "effectivEvalua": True, **changes,
    }  # fmt: skip
    return sealed("rating", region, body)


def rollup(revision: int, n5: int, n1: int, region: str = "430903") -> dict[str, Any]:
    body = {
        "scope": f"{region}////{DAY}", "scopeKind": "DISTRICT", "ratedOn": DAY, "revision": revision,
        "n1": n1, "n2": 0, "n3": 0, "n4": 0, "n5": n5, "total": n1 + n5, "good": n5, "bad": n1, "defaults": 0,
    }  # fmt: skip
    return sealed("rollup", region, body)


def sealed(kind: str, region: str, body: dict[str, Any], department: str = "HS-SCJGJ") -> dict[str, Any]:
    ids = {"event_id": str(uuid.uuid4()), "digest": str(uuid.uuid4())}
    record = {"kind": kind, **ids, "region": region, "department": department, "body": body}
    return {**record, "seal": receipts.seal(record)}


def send(client: TestClient[Any], *records: dict[str, Any], batch: str = "") -> Any:
    batch_id = batch or str(uuid.uuid4())
    request = {"protocol": "govbus-province/1", "batch_id": batch_id, "sender": "430903", "records": records}
    return client.post("/v1/batches", json=request, headers={"Idempotency-Key": batch_id})


def outcomes(response: Any) -> list[tuple[str, str]]:
    return [(r["outcome"], r["reason"]) for r in response.json()["receipt"]["records"]]


def test_a_batch_is_acknowledged_with_a_receipt_that_verifies_and_can_be_fetched(
    client: TestClient[Any],
) -> None:
    answer = send(client, rating("p1", 5)).json()
    key = client.get("/v1/key").json()["public_key"]
    assert receipts.signed_by(answer["receipt"], answer["signature"], key)
    assert client.get(f"/v1/receipts/{answer['receipt']['batch_id']}").json() == answer
    assert client.get(f"/v1/receipts/{uuid.uuid4()}").status_code == 404
    assert client.get("/health").json() == {"status": "ok"}


def test_the_same_batch_again_gets_the_same_receipt_and_another_content_is_a_conflict(
    client: TestClient[Any],
) -> None:
    one, batch = rating("p1", 5), str(uuid.uuid4())
    assert send(client, one, batch=batch).json() == send(client, one, batch=batch).json()
    assert send(client, rating("p2", 5), batch=batch).status_code == 409


def test_a_record_is_stored_once_and_another_digest_under_its_id_is_refused(client: TestClient[Any]) -> None:
    one = rating("p1", 5)
    other = {**one, "digest": str(uuid.uuid4())}
    other["seal"] = receipts.seal(other)
    assert outcomes(send(client, one)) == [("STORED", "")]
    assert outcomes(send(client, one)) == [("KNOWN", "")]
    assert outcomes(send(client, other)) == [("REFUSED", "conflict")]


def test_altered_and_senseless_records_are_refused_one_by_one(client: TestClient[Any]) -> None:
    altered = {**rating("p1", 5), "department": "HS-CZJ"}
    answer = send(client, altered, rating("p2", 6), rating("p3", 4))
    assert outcomes(answer) == [("REFUSED", "seal_mismatch"), ("REFUSED", "bad_body"), ("STORED", "")]


@pytest.mark.parametrize(
    "changes",
    [
        {"writingEvaluation": "\0"},
        {"projectNo": "p\0"},
        {"projectNo": "".join(chr(0x4E00 + n) for n in range(5_000))},
    ],
)
def test_a_record_that_no_table_takes_is_refused_and_its_neighbour_is_stored(
    client: TestClient[Any], changes: dict[str, Any]
) -> None:
    answer = send(client, rating("p1", 5, **changes), rating("p2", 4))
    assert outcomes(answer) == [("REFUSED", "bad_body"), ("STORED", "")]


@pytest.mark.parametrize("changes", [{"region": "\0"}, {"region": "4" * 161}, {"department": []}])
def test_a_record_must_name_who_sends_it(client: TestClient[Any], changes: dict[str, Any]) -> None:
    nameless = {**rating("p1", 5), **changes}
    answer = send(client, {**nameless, "seal": receipts.seal(nameless)})
    assert outcomes(answer) == [("REFUSED", "no_sender")]


def test_a_kind_that_is_no_text_is_an_unknown_one(client: TestClient[Any]) -> None:
    odd = {**rating("p1", 5), "kind": ["rating"]}
    assert outcomes(send(client, {**odd, "seal": receipts.seal(odd)})) == [("REFUSED", "unknown_kind")]


@pytest.mark.parametrize("more", ['NaN', '"\\ud800"', "[" * 33 + "1" + "]" * 33])
def test_what_json_in_utf8_does_not_have_is_no_batch(client: TestClient[Any], more: str) -> None:
    batch = str(uuid.uuid4())
    request = {"protocol": "govbus-province/1", "batch_id": batch, "sender": "430903", "records": [rating("p1", 5)]}
    content = json.dumps({**request, "more": "MORE"}).replace('"MORE"', more)
    answer = client.post("/v1/batches", content=content.encode(), headers={"Idempotency-Key": batch})
    assert answer.status_code == 400
    assert answer.json()["error"]


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b'{"protocol": "govbus-province/1", "records": []}'])
def test_what_is_no_batch_is_answered_with_the_fault(client: TestClient[Any], content: bytes) -> None:
    answer = client.post("/v1/batches", content=content, headers={"Idempotency-Key": "x"})
    assert answer.status_code == 400
    assert answer.json()["error"]


def test_several_districts_add_up_from_single_ratings(client: TestClient[Any]) -> None:
    send(client, rating("p1", 5), rating("p2", 1), rating("p1", 4, "430902"), rating("p9", 5, "430921"))
    whole = client.get("/v1/rollups", params={"scope": "province", "day": DAY}).json()["rows"]
    assert [(r["n1"], r["n4"], r["n5"], r["total"], r["bad"]) for r in whole] == [(1, 1, 2, 4, 1)]
    districts = client.get("/v1/rollups", params={"scope": "district", "day": DAY}).json()["rows"]
    assert [(r["region"], r["total"]) for r in districts] == [("430902", 1), ("430903", 2), ("430921", 1)]


def test_a_townships_ratings_are_its_districts_too(client: TestClient[Any]) -> None:
    send(client, rating("p1", 5), rating("p2", 1, "430903101"), rating("p3", 5, "430902"), rollup(1, 1, 1))
    answer = client.get("/v1/rollups", params={"scope": "district", "day": DAY, "region": "430903"}).json()
    assert [(r["region"], r["total"]) for r in answer["rows"]] == [("430903", 2)]
    assert [f["region"] for f in answer["findings"]] == ["430902"]  # has pushed no rollup
    departments = client.get("/v1/rollups", params={"scope": "department", "day": DAY}).json()["rows"]
    assert [(r["region"], r["total"]) for r in departments] == [("430902", 1), ("430903", 1), ("430903101", 1)]


def stands(project: str, revision: int, effective: bool, **changes: Any) -> dict[str, Any]:
    body = {"projectNo": project, "serviceNumber": 1, "assessNumber": 1, "revision": revision,
            "effectivEvalua": effective, **changes}  # fmt: skip
    return sealed("standing", "430903", body)


def day_of(client: TestClient[Any]) -> list[tuple[int, int]]:
    whole = client.get("/v1/rollups", params={"scope": "province", "day": DAY}).json()["rows"]
    return [(r["bad"], r["good"]) for r in whole]


def test_a_rating_that_its_district_took_out_does_not_count_whichever_comes_first(client: TestClient[Any]) -> None:
    send(client, stands("p1", 1, False), rating("p1", 1), rating("p1", 5, assessNumber=2), rating("p2", 1))
    assert day_of(client) == [(1, 1)]
    send(client, rating("p1", 2, revision=1, operation="U"), stands("p2", 1, False))
    assert day_of(client) == [(0, 1)]
    send(client, stands("p2", 2, True), stands("p1", 1, False, assessNumber=2))
    send(client, stands("p2", 1, False))  # an old word, late
    assert day_of(client) == [(1, 0)]
    assert outcomes(send(client, stands("p1", -1, True), stands("", 1, True))) == [("REFUSED", "bad_body")] * 2


def test_what_one_department_took_out_leaves_the_rating_of_another_that_numbered_alike(client: TestClient[Any]) -> None:
    send(client, rating("p1", 1), stands("p1", 1, False))
    other = sealed("rating", "430903", {**rating("p1", 5)["body"], "assessTime": f"{DAY} 16:00:00"}, "HS-ZJJ")
    send(client, other)
    assert day_of(client) == [(0, 1)]
    send(client, sealed("standing", "430903", stands("p1", 1, False)["body"], "HS-ZJJ"))
    assert day_of(client) == []


def test_corrections_withdrawals_re_ratings_and_defaults_count_once_in_any_order(
    client: TestClient[Any],
) -> None:
    send(client, rating("p1", 2, revision=1, operation="U"), rating("p1", 5))
    send(client, rating("p2", 5), rating("p2", 5, revision=1, operation="D"))
    send(client, rating("p3", 4, assessNumber=2), rating("p3", 1))
    send(client, rating("p4", 1), rating("p4", 5, isDefault=True))
    (row,) = client.get("/v1/rollups", params={"scope": "province", "day": DAY}).json()["rows"]
    assert (row["n1"], row["n2"], row["n4"], row["n5"], row["total"]) == (1, 1, 1, 0, 3)


def test_a_pushed_sum_that_is_not_the_sum_of_the_ratings_is_a_finding_until_corrected(
    client: TestClient[Any],
) -> None:
    send(client, rating("p1", 5), rating("p2", 1), rollup(1, 2, 0))
    (found,) = client.get("/v1/rollups", params={"day": DAY}).json()["findings"]
    assert (found["region"], found["pushed"]["bad"], found["computed"]["bad"]) == ("430903", 0, 1)
    send(client, rollup(3, 1, 1))
    send(client, rollup(2, 0, 0))
    assert client.get("/v1/rollups", params={"day": DAY}).json()["findings"] == []


def test_the_signing_key_is_its_owners_alone_and_stays_the_same(tmp_path: Path) -> None:
    first = keys.load(tmp_path / "home")
    path = tmp_path / "home" / keys.KEY
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert keys.load(tmp_path / "home").public_key == first.public_key
    path.chmod(0o644)
    with pytest.raises(Misconfigured, match="others"):
        keys.load(tmp_path / "home")


async def _accepted() -> tuple[int, int]:
    """Whether a connection that was accepted sends what it has at once, and one to a port that only has a number."""

    async def asked(listening: socket.socket) -> int:
        said: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        def accept(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            connection = writer.get_extra_info("socket")
            said.set_result(connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            writer.close()

        async with await asyncio.start_server(accept, sock=listening):
            _, writer = await asyncio.open_connection(*listening.getsockname())
            writer.close()
            return await asyncio.wait_for(said, 30)

    plain = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    plain.bind(("127.0.0.1", 0))
    return await asked(app.bind(0)), await asked(plain)


def test_an_answer_does_not_wait_for_the_senders_word_on_its_first_part() -> None:
    """Head and body are two parts; Nagle would hold the second back for the 40 ms of a delayed acknowledgement."""
    ours, plain = asyncio.run(_accepted())
    assert ours
    assert not plain
