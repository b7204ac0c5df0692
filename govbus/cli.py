"""The command line: collects the commands and turns errors into exit codes."""

from __future__ import annotations

import importlib
import logging
import pkgutil
import sys

import typer
from rich.console import Console

from govbus import commands
from schemas.errors import GovbusError, Misconfigured


def build() -> typer.Typer:
    """The ``govbus`` application with every command registered."""
    about = "Event bus of a district's departments."
    app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, help=about)
    for module in pkgutil.iter_modules(commands.__path__):
        importlib.import_module(f"govbus.commands.{module.name}").register(app)
    return app


def main() -> None:
    """Entry point. Exit codes: 0 true, 1 not true or refused, 2 wrong usage, 78 misconfigured."""
    logging.getLogger("kafka").setLevel(logging.CRITICAL)  # says each failed attempt; we say what we wait for
    try:
        build()()
    except Misconfigured as error:
        Console(stderr=True).print(f"[red]misconfigured[/red]\n{error}")
        sys.exit(78)
    except GovbusError as error:
        Console(stderr=True).print(f"[red]{type(error).__name__}[/red] {error}")
        sys.exit(1)


if __name__ == "__main__":
    main()
