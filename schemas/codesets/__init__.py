"""Code sets as data: one TOML file each, with its source. Decides which codes exist and how sets translate.

A bare code means nothing (GB/T 39046 ``1`` is the best rating, the platform's ``1`` the worst), so every
function takes the set's id with the code. Files are read on first use, not at import.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

HERE = Path(__file__).parent
DEPARTMENTS = "govbus.department"


@dataclass(frozen=True, slots=True)
class CodeSet:
    """One set: ``values`` maps code to Chinese name; ``canonical`` maps its codes to those of
    ``canonical_set``; ``nearest`` maps codes of that set which this one cannot say to the nearest it can;
    ``reasoned``: the codes that must give their reason.
    """

    id: str
    title: str
    source: str
    values: Mapping[str, str]
    canonical_set: str = ""
    canonical: Mapping[str, str] = field(default_factory=dict)
    nearest: Mapping[str, str] = field(default_factory=dict)
    reasoned: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Department:
    """A department: stable code, present name, credit code (USCC, GB 32100-2015) and other names in
    documents.
    """

    code: str
    name: str
    uscc: str
    aliases: tuple[str, ...]


@cache
def ids() -> tuple[str, ...]:
    """Ids of all sets, sorted."""
    return tuple(sorted(path.name.removesuffix(".toml") for path in HERE.glob("*.toml")))


@cache
def load(set_id: str) -> CodeSet:
    """The set of that id; raises ``KeyError`` if there is none."""
    raw = _raw(set_id)
    canonical = raw.get("canonical", {})
    values = raw["values"] if "values" in raw else {c: d["name"] for c, d in raw["departments"].items()}
    return CodeSet(
        id=raw["id"],
        title=raw["title"],
        source=raw["source"],
        values=MappingProxyType(values),
        canonical_set=canonical.get("set", set_id),
        canonical=MappingProxyType(canonical.get("codes") or {code: code for code in values}),
        nearest=MappingProxyType(raw.get("nearest", {})),
        reasoned=frozenset(raw.get("reasoned", ())),
    )


def known(set_id: str, code: str) -> bool:
    """Whether the set exists and holds the code."""
    return set_id in ids() and code in load(set_id).values


def name(set_id: str, code: str) -> str:
    """Chinese name of the code; the code itself if it is unknown."""
    return load(set_id).values.get(code, code) if set_id in ids() else code


def alert_name(kind: str, colour: str) -> str:
    """红牌, 黄牌, 差评, …: what a supervisor calls an alert."""
    return name("govbus.card-colour", colour) if kind == "CARD" else name("govbus.alert-kind", kind)


def canonical(set_id: str, code: str) -> str | None:
    """The code in the set's canonical set (itself where it has no other); None for an unknown set or code."""
    return load(set_id).canonical.get(code) if set_id in ids() else None


def from_canonical(set_id: str, code: str) -> str | None:
    """The code of ``set_id`` whose canonical code is ``code``; None if the set cannot say it."""
    return next((own for own, shared in load(set_id).canonical.items() if shared == code), None)


def nearest(set_id: str, code: str) -> str:
    """``from_canonical``, or the nearest code that the set has; empty if it has none like it."""
    own = from_canonical(set_id, code)
    return own if own is not None else load(set_id).nearest.get(code, "")


@cache
def departments() -> Mapping[str, Department]:
    """All departments by code (DOMAIN §1.3)."""
    return MappingProxyType(
        {
            code: Department(code, d["name"], d["uscc"], tuple(d["aliases"]))
            for code, d in _raw(DEPARTMENTS)["departments"].items()
        }
    )


@cache
def bodies() -> Mapping[str, str]:
    """The code of every department by its credit code (DOMAIN §1.3)."""
    return MappingProxyType({d.uscc: code for code, d in departments().items()})


def _raw(set_id: str) -> dict[str, Any]:
    if set_id not in ids():
        raise KeyError(set_id)
    return tomllib.loads((HERE / f"{set_id}.toml").read_text(encoding="utf-8"))
