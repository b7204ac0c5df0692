"""``govbus province``: the province's own process, with its own database and key."""

from __future__ import annotations

from typing import Annotated

import typer

PORT = 8430


def register(app: typer.Typer) -> None:
    """Add the command to ``app``."""
    app.command("province")(province)


def province(
    port: Annotated[int, typer.Option(help="Port on 127.0.0.1; another one if it is in use.")] = PORT,
    database_url: Annotated[str, typer.Option(help="Its own database; from the settings if empty.")] = "",
) -> None:
    """Run the province's platform: verifies, stores once, acknowledges, sums up several districts."""
    import uvicorn
    from rich.console import Console

    from consumers.province import app, keys
    from consumers.province.store import Store
    from govbus.runtime import resolve
    from govbus.settings import load
    from streams.store import failpoints
    from streams.store.engine import connect

    given = load()
    failpoints.arm(given.failpoint)
    home = given.home / "province"
    url = database_url or given.province_database_url or resolve(given).province_database_url
    signer = keys.load(home)
    store = Store(connect(url), signer)
    store.create()
    sock = app.bind(port)
    listening = sock.getsockname()[1]
    console = Console(stderr=True)
    if listening != port:
        console.print(f"[yellow]port {port} is in use; the province listens on {listening}[/yellow]")
    keys.publish(home, f"http://127.0.0.1:{listening}", signer.public_key)
    console.print(f"province on http://127.0.0.1:{listening}")
    config = uvicorn.Config(app.build(store), log_level="warning", access_log=False, lifespan="off")
    uvicorn.Server(config).run(sockets=[sock])
