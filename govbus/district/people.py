"""Fictitious people, firms and identifiers, valid check characters; born in 1900, nobody is alive."""

from __future__ import annotations

import random
from dataclasses import dataclass

from stdnum.cn import ric, uscc
from stdnum.iso7064 import mod_37_36

SURNAMES = "王李张刘陈杨黄赵周吴徐孙马朱胡郭何高林罗"
GIVEN = "伟芳娜敏静丽强磊军洋勇艳杰娟涛明超秀霞平刚桂"
FIRM_TYPES = ("91", "92", "93")
ORGANISATION_WEIGHTS = (3, 7, 9, 10, 5, 8, 4, 2)
LICENCE_ROOT = "1.2.156.3005.2"


@dataclass(frozen=True, slots=True)
class Party:
    """An applicant or holder: ``type_code`` of GA/T 2000.156."""

    name: str
    applicant_type: str
    type_code: str
    number: str


def citizen(rng: random.Random, region: str) -> Party:
    """A person with a valid citizen ID (GB 11643-1999)."""
    body = f"{region}1900{rng.randint(1, 12):02d}{rng.randint(1, 28):02d}{rng.randint(1, 999):03d}"
    name = rng.choice(SURNAMES) + "".join(rng.choices(GIVEN, k=rng.randint(1, 2)))
    return Party(name, "1", "111", body + ric.calc_check_digit(body + "0"))


def firm(rng: random.Random, region: str) -> Party:
    """A firm with a valid USCC (GB 32100-2015)."""
    organisation = f"MA{rng.randint(0, 999_999):06d}"
    total = sum(int(c, 36) * w for c, w in zip(organisation, ORGANISATION_WEIGHTS, strict=True))
    inner = {10: "X", 11: "0"}.get(11 - total % 11, str(11 - total % 11))
    body = rng.choice(FIRM_TYPES) + region + organisation + inner
    name = f"益阳{rng.choice(GIVEN)}{rng.choice(GIVEN)}商贸有限公司"
    return Party(name, "2", "001", body + uscc.calc_check_digit(body))


def licence_id(type_code: str, issuer: str, serial: str, version: int) -> str:
    """Identifier of an electronic licence (GB/T 36904-2018, ISO 7064 MOD 37,36)."""
    parts = (type_code, issuer, serial, f"{version:03d}")
    return ".".join((LICENCE_ROOT, *parts, mod_37_36.calc_check_digit("".join(parts))))


def spoiled(text: str) -> str:
    """``text`` with a wrong last character."""
    return text[:-1] + ("1" if text[-1] != "1" else "2")
