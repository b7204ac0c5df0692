"""``govbus province``: the province's own process, with its own database and key."""

from __future__ import annotations

from typing import Annotated

import typer

PORT = 8430


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
    store = Store(connect(url), signer)
    store.create()
    try:
        sock = app.bind(port, host)
    except OSError as error:
        raise Misconfigured(f"--host {host}: {error.strerror}; name an address of this machine") from None
    listening = sock.getsockname()[1]
    screen = console(stderr=True)
    if listening != port:
        screen.print(f"port {port} is in use; the province listens on {listening}", style="yellow")
    address = f"http://{host}:{listening}"
    keys.publish(home, address, signer.public_key)
    screen.print(f"province on {address}")
    config = uvicorn.Config(app.build(store), log_level="warning", access_log=False, lifespan="off")
    uvicorn.Server(config).run(sockets=[sock])
