"""Contracts in a Confluent-compatible schema registry, under the ids that govbus fixed. Decides no contract.

Registers in the registry's IMPORT mode, which alone lets a client choose ids; sets FULL_TRANSITIVE and gives
the subject back as READWRITE. Doing it again changes nothing. A subject that says something else is never
overwritten.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import httpx

from schemas.contracts import contract, golden_path, schema_id, version
from schemas.errors import Misconfigured, Retryable
from schemas.evolution import without_docs
from schemas.topics import TOPICS, Topic

TIMEOUT_S = 10.0
MISSING = 404


@dataclass(frozen=True, slots=True)
class Outcome:
    """What happened to one version of one subject."""

    subject: str
    version: int
    schema_id: int
    outcome: Literal["registered", "same"]


@dataclass(frozen=True, slots=True)
class Version:
    """One contract version on its way to the registry."""

    subject: str
    number: int
    identifier: int
    text: str


def register_contracts(url: str, transport: httpx.BaseTransport | None = None) -> list[Outcome]:
    """Every version of every contract in the registry at ``url``.

    Raises ``Misconfigured`` that lists all drift (nothing is written then) or names what the registry
    refused, and ``Retryable`` if it cannot be reached.
    """
    with httpx.Client(base_url=url.rstrip("/"), timeout=TIMEOUT_S, transport=transport) as registry:
        try:
            return _register(registry)
        except httpx.TransportError as error:
            raise Retryable(f"schema registry cannot be reached ({type(error).__name__})") from None


def _register(registry: httpx.Client) -> list[Outcome]:
    wanted = {topic.subject: list(_versions(topic)) for topic in TOPICS}
    held = {subject: _held(registry, subject) for subject in wanted}
    if drift := [d for s in wanted for d in _drift(s, wanted[s], held[s])]:
        raise Misconfigured(*drift)
    return [o for s in wanted for o in _register_subject(registry, s, wanted[s], held[s])]


def _versions(topic: Topic) -> Iterator[Version]:
    for number in range(1, version(topic) + 1):
        present = number == version(topic)
        text = (
            json.dumps(contract(topic)) if present else golden_path(topic, number).read_text(encoding="utf-8")
        )
        yield Version(topic.subject, number, schema_id(topic, number), text)


def _held(registry: httpx.Client, subject: str) -> dict[int, Any]:
    """What the registry holds of a subject: version number to its answer."""
    answer = registry.get(f"/subjects/{subject}/versions")
    if answer.status_code == MISSING:
        return {}
    return {n: _ok(registry.get(f"/subjects/{subject}/versions/{n}")).json() for n in _ok(answer).json()}


def _drift(subject: str, wanted: list[Version], held: dict[int, Any]) -> Iterator[str]:
    ours = {v.number: v for v in wanted}
    for number, answer in held.items():
        if number not in ours:
            yield f"{subject}: the registry holds version {number}, which govbus never published"
        elif answer["id"] != ours[number].identifier:
            yield f"{subject}: version {number} has id {answer['id']}, not {ours[number].identifier}"
        elif without_docs(json.loads(answer["schema"])) != without_docs(json.loads(ours[number].text)):
            yield f"{subject}: version {number} is another contract"


def _register_subject(
    registry: httpx.Client, subject: str, wanted: list[Version], held: dict[int, Any]
) -> list[Outcome]:
    missing = [v for v in wanted if v.number not in held]
    if missing:
        _ok(registry.put(f"/mode/{subject}", params={"force": "true"}, json={"mode": "IMPORT"}))
        try:
            for v in missing:
                body = {"schema": v.text, "schemaType": "AVRO", "id": v.identifier, "version": v.number}
                _ok(registry.post(f"/subjects/{subject}/versions", json=body))
        finally:
            _ok(registry.put(f"/mode/{subject}", params={"force": "true"}, json={"mode": "READWRITE"}))
        _ok(registry.put(f"/config/{subject}", json={"compatibility": "FULL_TRANSITIVE"}))
    return [
        Outcome(subject, v.number, v.identifier, "same" if v.number in held else "registered") for v in wanted
    ]


def _ok(answer: httpx.Response) -> httpx.Response:
    if answer.is_error:
        raise Misconfigured(
            f"schema registry refused {answer.request.method} {answer.request.url.path}: {answer.status_code}"
        )
    return answer
