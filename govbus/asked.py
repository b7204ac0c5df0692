"""What is asked for on a command line, as the database has it; what nobody could have is refused, not found nowhere."""

from __future__ import annotations

import sys

from schemas.errors import Misconfigured

PRIVATE = "; - asks for it, for whoever is on the machine can read a command's words"


def department(text: str, option: str) -> str:
    """The code of a department given by code, name or alias; empty stays empty."""
    from connectors.validate import department_code

    code = department_code(text) if text else ""
    if code is None:
        raise Misconfigured(f"{option}: no department's code, name or alias; see the code set govbus.department")
    return code


def private(text: str, what: str) -> str:
    """What should not stand on a command line: for ``-`` a line of standard input, asked for unseen on a terminal."""
    if text != "-":
        return text
    if not sys.stdin.isatty():
        return sys.stdin.readline().strip()
    import typer

    return str(typer.prompt(what, hide_input=True, err=True))


def code(text: str, option: str, code_set: str) -> str:
    """A code of ``code_set``; empty stays empty."""
    from schemas import codesets

    if text and not codesets.known(code_set, text):
        known = ", ".join(codesets.load(code_set).values)
        raise Misconfigured(f"{option}: no code of {code_set}; there are {known}")
    return text


def topic(text: str, option: str) -> str:
    """The name of a topic; empty stays empty."""
    from schemas.topics import BY_NAME

    if text and text not in BY_NAME:
        raise Misconfigured(f"{option}: no topic; there are {', '.join(sorted(BY_NAME))}")
    return text
