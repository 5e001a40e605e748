"""Stored files, damaged at random with a fixed seed: never a traceback, never another result."""

from __future__ import annotations

from pathlib import Path

import pytest
from benchmarks.corruptions import damaged, make, wrong

from tests.attributes.shop import answer
from tests.chat_server import chat_server


@pytest.mark.slow
def test_damaged_files_are_reported_or_made_again(tmp_path: Path) -> None:
    with chat_server() as server:
        server.script = answer
        shop = make(tmp_path / "whole/shop", server)
        counts = damaged(shop, 60, 1, tmp_path)
    assert not wrong(counts), "\n".join(wrong(counts))
    assert counts["told"] > 10 and counts["equal"] + counts["made again"] > 10
