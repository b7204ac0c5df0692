"""The province's platform over HTTP: batches in, signed receipts out, sums for who asks. Trusts no sender."""

from __future__ import annotations

import json
import socket
import uuid
from datetime import date
from typing import Annotated, Any

from litestar import Litestar, Request, Response, get, post
from litestar.params import Parameter

from consumers.province import sums
from consumers.province.store import BadBatch, OtherContent, Store

LARGEST = 8 * 1024 * 1024
"""Bytes of a batch at most."""


def build(store: Store) -> Litestar:
    """The application on ``store``."""

    @post("/v1/batches", status_code=200)
    async def batches(request: Request[Any, Any, Any]) -> Response[Any]:
        return await _take(store, await request.body(), request.headers.get("Idempotency-Key", ""))

    @get("/v1/receipts/{batch_id:uuid}", sync_to_thread=True)
    def receipt(batch_id: uuid.UUID) -> Response[Any]:
        answer = store.receipt(batch_id)
        return Response(answer) if answer else Response({"error": "no such batch"}, status_code=404)

    @get("/v1/rollups", sync_to_thread=True)
    def rollups(  # "scope" itself is Litestar's word for the connection
        day: date,
        level: Annotated[sums.Scope, Parameter(query="scope")] = "province",
        region: Annotated[str, Parameter(max_length=9)] = "",
    ) -> dict[str, Any]:
        with store.engine.connect() as tx:
            rows, found = sums.sums(tx, level, day, region), sums.findings(tx, day)
        return {"scope": level, "day": day.isoformat(), "rows": rows, "findings": found}

    @get("/v1/key", sync_to_thread=False)
    def key() -> dict[str, str]:
        return {"algorithm": "Ed25519", "public_key": store.signer.public_key}

    @get("/health", sync_to_thread=True)
    def health() -> dict[str, str]:
        with store.engine.connect() as tx:
            tx.exec_driver_sql("SELECT 1")
        return {"status": "ok"}

    handlers = [batches, receipt, rollups, key, health]
    return Litestar(handlers, openapi_config=None, request_max_body_size=LARGEST, logging_config=None)


async def _take(store: Store, content: bytes, key: str) -> Response[Any]:
    """Accept a batch: 200 with the signed receipt, 400 malformed, 409 a batch id with another content."""
    from anyio.to_thread import run_sync

    try:
        request = json.loads(content)
    except (ValueError, RecursionError):
        return Response({"error": "not JSON"}, status_code=400)
    try:
        return Response(await run_sync(store.accept, request, key))
    except BadBatch as error:
        return Response({"error": str(error)}, status_code=400)
    except OtherContent as error:
        return Response({"error": str(error)}, status_code=409)


def bind(port: int, host: str = "127.0.0.1") -> socket.socket:
    """A socket on ``port`` of ``host``, or on a free one if it is in use (or 0); raises ``OSError`` if ``host`` is none
    of this machine.
    """
    # asyncio lets an answer go in two segments without waiting 40 ms between them only where TCP is told by its name
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((host, port))
    except OSError:
        sock.bind((host, 0))
    return sock
