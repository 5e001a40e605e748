"""What a method has to say so that a cycle trains by it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from afmrl_cli.cycle import plan
from afmrl_cli.cycle.folds import FoldPlan
from afmrl_cli.methods import METHODS
from afmrl_cli.settings import Settings


def test_a_method_is_found_by_the_section_of_its_settings() -> None:
    for name, method in METHODS.items():
        section = getattr(Settings(), name)
        fields = {*type(section).model_fields, *section.constants()}
        assert method.samples in fields and method.not_the_result <= fields, name
        assert {"seed", "steps", "name", "save_every"} <= fields, "what the shell and a cycle set"
        assert method.uses(Settings()) <= {"generator", "embedder", "columns", "targets", "texts", "verdicts"}


def test_a_fifth_method_of_the_table_is_in_every_round(monkeypatch: pytest.MonkeyPatch) -> None:
    fifth = replace(METHODS["rar"], name="fifth", title="Fifth")
    monkeypatch.setattr(plan, "EVERY_ROUND", [*plan.EVERY_ROUND, fifth])
    names = [name for name, _, _ in plan.planned(Settings(), FoldPlan(None, 1), taught=False, scored=["validation"])]
    assert names[-3:] == ["1-fifth", "1-fifth-attributes", "1-fifth-score"]
    assert names[: names.index("1-fifth")][-3:] == ["1-rar", "1-rar-attributes", "1-rar-score"]
