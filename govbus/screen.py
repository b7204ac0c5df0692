"""Where commands print: texts come from departments, so nothing in them is taken for markup or an emoji's name."""

from __future__ import annotations

from typing import Any

from rich.console import Console


def console(**options: Any) -> Console:
    """A console of rich that shows every text as it is; styles go by ``style=`` or ``rich.text.Text``."""
    return Console(markup=False, emoji=False, **options)
