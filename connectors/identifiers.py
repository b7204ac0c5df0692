"""Decides whether an identifier is well formed: USCC, citizen ID, licence identifier, item code.

Pure functions of text. Each returns the normalised identifier and what an operator should know about it
(``notes``), or raises ``ValueError`` with a text that never repeats the identifier: it may be personal. Reads
no clock, no network.
"""

from __future__ import annotations

import re
from datetime import date
from functools import lru_cache
from typing import NamedTuple

from stdnum.cn import ric, uscc
from stdnum.iso7064 import mod_37_36

USCC_SHAPE = re.compile(r"[0-9A-HJ-NPQRTUWXY]{2}[0-9]{6}[0-9A-HJ-NPQRTUWXY]{10}")
CITIZEN_SHAPE = re.compile(r"[1-9][0-9]{16}[0-9X]")
LICENCE_ROOT = "1.2.156.3005.2."
LICENCE_TYPE_SHAPE = re.compile(r"[0-9A-Z]{21}")
LICENCE_SHAPE = re.compile(r"[0-9A-Z]{21}\.[0-9A-Z]{6,18}\.[0-9A-Z]{1,32}\.[0-9]{3}\.[0-9A-Z]")
RESOURCE_SHAPE = re.compile(r"[1-3][0-9]{5}[0-9A-Z]{0,20}/[0-9]{1,8}")
SUPERVISION_SHAPE = re.compile(r"[0-9]{14}")
CHECKLIST_SHAPE = re.compile(r"[0-9A-Z]{18}[1-5][0-9A-Z]{0,31}")
ITEM_SHAPE = re.compile(r"[0-9A-Z][0-9A-Z_-]{0,49}")
ITEM_LENGTHS = (31, 33)
USCC_LENGTH = 18
ORGANISATION_WEIGHTS = (3, 7, 9, 10, 5, 8, 4, 2)


class Identifier(NamedTuple):
    """A well-formed identifier in its normal form, with notes in plain English (empty: nothing to say)."""

    value: str
    notes: tuple[str, ...] = ()


@lru_cache(maxsize=4_096)
def check_uscc(text: str) -> Identifier:
    """Unified social credit code, GB 32100-2015 (DOMAIN §1.4): outer check character is an error, inner one
    a note.
    """
    value = text.upper()
    if len(value) != USCC_LENGTH:
        raise ValueError(f"a USCC has 18 characters, this has {len(value)}")
    if not USCC_SHAPE.fullmatch(value):
        raise ValueError(
            "a USCC uses digits and capitals without I, O, S, V, Z, with a region code at places 3-8"
        )
    if uscc.calc_check_digit(value[:17]) != value[17]:
        raise ValueError("the check character (place 18) does not match")
    return Identifier(value, _normalised(text, value) + _organisation_notes(value))


def _organisation_notes(value: str) -> tuple[str, ...]:
    """GB 11714 check of the organisation code; some codes in use fail it, so it is a note only (DOMAIN
    §1.4).
    """
    total = sum(int(c, 36) * w for c, w in zip(value[8:16], ORGANISATION_WEIGHTS, strict=True))
    expected = {10: "X", 11: "0"}.get(11 - total % 11, str(11 - total % 11))
    return () if value[16] == expected else ("the organisation code's own check (place 17) does not match",)


def _normalised(text: str, value: str) -> tuple[str, ...]:
    return () if text == value else ("letters were turned to capitals",)


def capitals(text: str) -> Identifier:
    """A number of which no more is known than that its letters are capitals."""
    return Identifier(text.upper(), _normalised(text, text.upper()))


def check_citizen_id(text: str) -> Identifier:
    """Citizen ID, GB 11643-1999 (DOMAIN §1.5): shape, check character, a real date.

    The region is not compared with the year of birth: people carry codes of divisions that no longer exist.
    """
    value = text.upper()
    if len(value) != 18:
        raise ValueError(f"a citizen ID has 18 characters, this has {len(value)}")
    if not CITIZEN_SHAPE.fullmatch(value):
        raise ValueError("a citizen ID is 17 digits and a digit or X")
    try:
        date(int(value[6:10]), int(value[10:12]), int(value[12:14]))
    except ValueError:
        raise ValueError("places 7-14 are not a date that exists") from None
    if ric.calc_check_digit(value) != value[17]:
        raise ValueError("the check character (place 18) does not match")
    return Identifier(value, _normalised(text, value))


def check_licence_id(text: str) -> Identifier:
    """Electronic licence identifier, GB/T 36904-2018 with the ISO 7064 MOD 37,36 check character (DOMAIN
    §6.2).
    """
    value = text.upper()
    if not value.startswith(LICENCE_ROOT):
        raise ValueError(f"a licence identifier starts with {LICENCE_ROOT}")
    body = value.removeprefix(LICENCE_ROOT)
    if not LICENCE_SHAPE.fullmatch(body):
        raise ValueError(
            "after the root come type (21), issuer, serial (up to 32), version (3 digits), check character"
        )
    if not mod_37_36.is_valid(body.replace(".", "")):
        raise ValueError("the check character (the last place) does not match")
    return Identifier(value, _normalised(text, value))


def licence_parts(value: str) -> tuple[str, str, int]:
    """Type, issuer and version that a well-formed licence identifier names (DOMAIN §6.2)."""
    kind, issuer, _, version, _ = value.removeprefix(LICENCE_ROOT).split(".")
    return kind, issuer, int(version)


def check_licence_type(text: str) -> Identifier:
    """Type of a licence (证照类型代码), GB/T 36904-2018: 21 places (DOMAIN §6.2)."""
    value = text.upper()
    if not LICENCE_TYPE_SHAPE.fullmatch(value):
        raise ValueError("a licence type has 21 digits and capitals")
    return Identifier(value, _normalised(text, value))


def check_resource_code(text: str) -> Identifier:
    """Code of a data resource (信息资源代码): class, sequence (DOMAIN §7.2)."""
    value = text.upper()
    if not RESOURCE_SHAPE.fullmatch(value):
        raise ValueError("a resource code is 6 digits of which the first is 1 to 3, up to 20 digits or capitals, / and"
                         " a sequence of up to 8 digits")  # fmt: skip
    return Identifier(value, _normalised(text, value))


def check_supervision_item(text: str) -> Identifier:
    """Code of a supervision item (监管事项目录编码): 14 digits (DOMAIN §8.1)."""
    if not SUPERVISION_SHAPE.fullmatch(text):
        raise ValueError("a supervision item's code is 14 digits")
    return Identifier(text, ())


def check_checklist(text: str) -> Identifier:
    """Code of an implementation list (检查实施清单编码): the body's USCC, its level, more (DOMAIN §8.1)."""
    value = text.upper()
    if not CHECKLIST_SHAPE.fullmatch(value):
        raise ValueError("a checklist's code is a USCC, a level from 1 to 5, and digits or capitals")
    return Identifier(value, _normalised(text, value) + check_uscc(value[:18]).notes)


@lru_cache(maxsize=4_096)
def check_item_code(text: str) -> Identifier:
    """Item code (DOMAIN §2.2): 31 or 33 places are parsed (body's USCC, level, catalogue code, serial); other
    lengths up to 50 are codes of older platforms and only checked for their characters."""
    value = text.upper()
    if not ITEM_SHAPE.fullmatch(value):
        raise ValueError("an item code has 1 to 50 digits, capitals, - or _")
    if len(value) not in ITEM_LENGTHS:
        return Identifier(value, _normalised(text, value))
    try:
        body = check_uscc(value[:18])
    except ValueError as error:
        raise ValueError(f"places 1-18 must be the body's USCC: {error}") from None
    if value[18] not in "1234567":
        raise ValueError("place 19 must be a level, 1 to 7 (GB/T 39046 A.2)")
    if not value[19:].isdigit():
        raise ValueError("the catalogue code and the serial (places 20 onward) are digits")
    return Identifier(value, _normalised(text, value) + body.notes)


def check_issuer(text: str) -> Identifier:
    """Issuer of a licence: a USCC, or the region code that some systems still send (DOMAIN §6.2)."""
    return (
        Identifier(text, ("a region code stands for the issuer",))
        if re.fullmatch(r"[0-9]{6}", text)
        else check_uscc(text)
    )
