"""TensorBoard's own reader opens what a run wrote."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from afmrl_cli.listener import Silent
from afmrl_cli.settings import Settings
from afmrl_cli.store.folder import CatalogFolder
from afmrl_cli.training.run import train_agcl
from afmrl_cli.training.trainer import AgclTrainer
from afmrl_cli.workspace import Workspace

pytest.importorskip("tensorboard", reason="the extra tensorboard is not installed")


@pytest.mark.slow
def test_events_are_those_of_metrics_jsonl_also_after_a_break(
    shop: CatalogFolder, settings: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    chosen = settings(**{"agcl.tensorboard": True, "agcl.save_every": 2, "agcl.validate_every": 2})
    step = AgclTrainer.gradients

    def broken(self: AgclTrainer, *args: Any) -> Any:
        if self.state.global_step == 3:
            raise MemoryError
        return step(self, *args)

    monkeypatch.setattr(AgclTrainer, "gradients", broken)
    with pytest.raises(MemoryError):  # step 3 is written, and lies behind the last state
        train_agcl(Workspace(shop, chosen, Silent()))
    monkeypatch.undo()
    summary = train_agcl(Workspace(shop, chosen, Silent()))
    assert summary is not None and summary.resumed_from == 2

    assert len(list((summary.run / "tensorboard").iterdir())) == 2, "one file before the break, one after it"
    events = EventAccumulator(str(summary.run / "tensorboard")).Reload()
    rows = [json.loads(line) for line in (summary.run / "metrics.jsonl").read_text().splitlines()]
    for name, steps in (("loss", [1, 2, 3, 4, 5, 6]), ("eval_recall@1", [0, 2, 4, 6])):
        found = [(event.step, event.value) for event in events.Scalars(name)]
        assert [number for number, _ in found] == steps
        assert [value for _, value in found] == pytest.approx([row[name] for row in rows if name in row])
