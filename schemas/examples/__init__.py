"""Fictitious records of every topic, one file a situation: documentation and test vectors at once.

A file gives the fields that the situation is about; the rest take the contract's defaults. All numbers of
people, bodies and licences are synthetic.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from schemas.readable import from_json
from schemas.topics import Topic

HERE = Path(__file__).parent


def load(topic: Topic) -> dict[str, dict[str, Any]]:
    """The topic's examples by situation, as the codec takes them (without defaults filled in)."""
    return {
        path.stem: from_json(topic, json.loads(path.read_text(encoding="utf-8")))
        for path in sorted((HERE / topic.name).glob("*.json"))
    }
