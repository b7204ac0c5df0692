"""``govbus province``: the province's own process, with its own database and key."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer

PORT = 8430
FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 10.0


def register(app: typer.Typer) -> None:
    """Add the command to ``app``."""
    app.command("province")(province)


def province(
    port: Annotated[int, typer.Option(help="Port; another one if it is in use.")] = PORT,
    host: Annotated[str, typer.Option(help="Address of this machine that it listens on, without TLS.")] = "127.0.0.1",
    database_url: Annotated[str, typer.Option(help="Its own database; from the settings if empty.")] = "",
) -> None:
    """Run the province's platform: verifies, stores once, acknowledges, sums up several districts."""
    import uvicorn

    from consumers.province import app, keys
    from consumers.province.store import Store
    from govbus.runtime import resolve
    from govbus.screen import console
    from govbus.settings import load
    from schemas.errors import Misconfigured
    from streams.store import failpoints
    from streams.store.engine import connect

    given = load()
    failpoints.arm(given.failpoint)
    home = given.home / "province"
    url = database_url or given.province_database_url or resolve(given).province_database_url
    signer = keys.load(home)
    store = Store(connect(url, checked=False), signer)
    screen = console(stderr=True, soft_wrap=True)
    patiently(store.create, lambda words: screen.print(words, style="yellow"))
    try:
        sock = app.bind(port, host)
    except OSError as error:
        raise Misconfigured(f"--host {host}: {error.strerror}; name an address of this machine") from None
    listening = sock.getsockname()[1]
    if listening != port:
        screen.print(f"port {port} is in use; the province listens on {listening}", style="yellow")
    address = f"http://{host}:{listening}"
    keys.publish(home, address, signer.public_key)
    screen.print(f"province on {address}")
    config = uvicorn.Config(app.build(store), log_level="warning", access_log=False, lifespan="off")
    uvicorn.Server(config).run(sockets=[sock])


def patiently(create: Callable[[], None], say: Callable[[str], None]) -> None:
    """``create`` as soon as its database answers; raises what waiting does not mend (``Misconfigured`` too)."""
    import time

    from govbus import outages
    from schemas.errors import Retryable

    pause = FIRST_WAIT_S
    while True:
        try:
            return create()
        except Exception as error:
            known = outages.explained(error)
            if not isinstance(known, Retryable):
                raise
        say(f"waiting: {known}; trying again in {pause:.1f} s")
        time.sleep(pause)
        pause = min(pause * 2, LONGEST_WAIT_S)
