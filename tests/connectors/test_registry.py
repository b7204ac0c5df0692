"""Registering contracts: under our own ids, once, and never over something else.

The registry here is a small HTTP server of our own that keeps to Confluent's documented answers (ids may be
chosen in IMPORT mode only; 42201, 42205 and 404 as documented). A real registry was not run.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from connectors.registry import register_contracts
from schemas.contracts import contract
from schemas.errors import Misconfigured, Retryable
from schemas.topics import ALERT, CASE, HANDLING, ITEM, RATING, TOPICS, UPLOAD


class Registry(ThreadingHTTPServer):
    """Subjects, modes and compatibility in memory; ``writes`` lists what changed them."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.subjects: dict[str, dict[int, dict[str, Any]]] = {}
        self.modes: dict[str, str] = {}
        self.levels: dict[str, str] = {}
        self.writes: list[str] = []
        self.refuses = False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    """The five endpoints that registering needs."""

    server: Registry

    def do_GET(self) -> None:
        _, _, subject, _, *number = self.path.split("/")
        versions = self.server.subjects.get(subject)
        if versions is None:
            return self.answer(404, {"error_code": 40401})
        return self.answer(200, versions[int(number[0])] if number else sorted(versions))

    def do_PUT(self) -> None:
        kind, subject = self.path.split("?")[0].strip("/").split("/")
        body = self.body()
        if kind == "mode":
            self.server.modes[subject] = body["mode"]
        else:
            self.server.levels[subject] = body["compatibility"]
        return self.answer(200, body)

    def do_POST(self) -> None:
        subject, body = self.path.split("/")[2], self.body()
        if self.server.refuses:
            return self.answer(422, {"error_code": 42201})
        if "id" in body and self.server.modes.get(subject) != "IMPORT":
            return self.answer(422, {"error_code": 42205})
        self.server.writes.append(subject)
        kept = {"subject": subject, "version": body["version"], "id": body["id"], "schema": body["schema"]}
        self.server.subjects.setdefault(subject, {})[body["version"]] = kept
        return self.answer(200, {"id": body["id"]})

    def body(self) -> Any:
        return json.loads(self.rfile.read(int(self.headers["Content-Length"])))

    def answer(self, status: int, body: Any) -> None:
        text = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/vnd.schemaregistry.v1+json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: Any) -> None:
        """Keep the test's output quiet."""


@pytest.fixture
def registry() -> Iterator[Registry]:
    with Registry() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


EARLIER = {ITEM: (1, 1001), CASE: (2,), HANDLING: (6,), ALERT: (10,), UPLOAD: (12,)}
"""Schema ids of versions before the present one."""


def test_every_contract_is_registered_under_its_own_id_and_the_subject_is_left_writable(
    registry: Registry,
) -> None:
    outcomes = register_contracts(registry.url)

    assert [(o.subject, o.schema_id, o.outcome) for o in outcomes] == [
        (t.subject, number, "registered") for t in TOPICS for number in (*EARLIER.get(t, ()), t.schema_id)
    ]
    kept = registry.subjects[RATING.subject][1]
    assert (kept["id"], json.loads(kept["schema"])) == (3, contract(RATING))
    assert set(registry.modes.values()) == {"READWRITE"}
    assert set(registry.levels.values()) == {"FULL_TRANSITIVE"}


def test_registering_again_changes_nothing(registry: Registry) -> None:
    register_contracts(registry.url)
    registry.writes.clear()

    assert {o.outcome for o in register_contracts(registry.url)} == {"same"}
    assert registry.writes == []


def test_a_registry_that_holds_other_explanations_of_the_same_contract_is_left_as_it_is(registry: Registry) -> None:
    register_contracts(registry.url)
    registry.writes.clear()
    kept = registry.subjects[RATING.subject][1]
    explained = json.loads(kept["schema"])
    assert explained["fields"][0]["doc"]
    explained["fields"][0]["doc"] = explained["doc"] = "as an earlier release explained it"
    kept["schema"] = json.dumps(explained)

    assert {o.outcome for o in register_contracts(registry.url)} == {"same"}
    assert registry.writes == []


def test_drift_is_an_error_that_lists_every_subject_and_writes_nothing(registry: Registry) -> None:
    register_contracts(registry.url)
    registry.writes.clear()
    registry.subjects[RATING.subject][1]["id"] = 77
    registry.subjects[TOPICS[0].subject][1]["schema"] = '"string"'
    registry.subjects[TOPICS[1].subject][2] = registry.subjects[TOPICS[1].subject][1]
    del registry.subjects[TOPICS[5].subject]

    with pytest.raises(Misconfigured) as refused:
        register_contracts(registry.url)

    assert len(refused.value.problems) == 3
    assert any("id 77, not 3" in p for p in refused.value.problems)
    assert registry.writes == []


def test_a_refusal_is_told_and_the_subject_is_left_writable(registry: Registry) -> None:
    registry.refuses = True

    with pytest.raises(Misconfigured, match="422"):
        register_contracts(registry.url)

    assert set(registry.modes.values()) == {"READWRITE"}


def test_a_registry_that_is_away_is_worth_another_try() -> None:
    with pytest.raises(Retryable, match="cannot be reached"):
        register_contracts("http://127.0.0.1:9")
