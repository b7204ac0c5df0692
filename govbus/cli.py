"""The command line: collects the commands and turns errors into exit codes."""

from __future__ import annotations

import importlib
import logging
import pkgutil
import sys
from importlib import metadata
from typing import Annotated, NoReturn

import typer
from rich.text import Text

from govbus import commands, outages
from govbus.screen import console
from schemas.errors import GovbusError, Misconfigured
from streams.store import heap


def build() -> typer.Typer:
    """The ``govbus`` application with every command registered."""
    app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False)
    app.callback()(_options)
    for module in pkgutil.iter_modules(commands.__path__):
        importlib.import_module(f"govbus.commands.{module.name}").register(app)
    return app


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"govbus {metadata.version('govbus')}")
        raise typer.Exit


def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Event bus of a district's departments."""


def main() -> None:
    """Entry point. Exit codes: 0 true, 1 not true or refused, 2 wrong usage, 78 misconfigured."""
    heap.keep_small()
    logging.getLogger("kafka").setLevel(logging.CRITICAL)  # says each failed attempt; we say what we wait for
    try:
        build()()
    except GovbusError as error:
        _end(error)
    except Exception as error:
        known = outages.explained(error)
        if known is None:
            raise  # a mistake of ours: its traceback is wanted
        _end(known)


def _end(error: GovbusError) -> NoReturn:
    """Say what is wrong and end with the code that tells scripts whether waiting helps."""
    wrong = isinstance(error, Misconfigured)
    title = Text("misconfigured\n" if wrong else f"{type(error).__name__} ", "red")
    console(stderr=True, soft_wrap=True).print(title, Text(str(error)), sep="")
    sys.exit(78 if wrong else 1)


if __name__ == "__main__":
    main()
