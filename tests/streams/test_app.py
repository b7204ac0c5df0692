"""The Faust application, before anything is connected."""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa

from streams.agents import projections
from streams.app import create_app


def test_faust_keeps_no_account_of_acknowledged_chunks_which_would_grow_for_ever(tmp_path: Path) -> None:
    app = create_app("localhost:1", sa.create_engine("postgresql+psycopg://"), projections(), tmp_path)
    agents = list(app.agents.values())
    assert len(agents) == len(projections())
    assert not [agent.name for agent in agents if agent.channel.acks]
