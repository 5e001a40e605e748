"""The teacher's layer, watched while a forward runs: the same weights as eager attention gives away."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from afmrl_cli.saga.replay import answer_logps, pack_groups
from afmrl_cli.saga.watch import Watch, teacher_layer, watching
from tests.saga.small import make_small
from tests.tiny import make_tiny

MakeModel = Callable[[str], Path]


@pytest.mark.parametrize("architecture", ["qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_5"])
def test_it_sees_what_eager_attention_gives_away_and_changes_nothing(
    architecture: str, tiny_model: MakeModel, tmp_path: Path
) -> None:
    small = make_small(tiny_model(architecture), tmp_path)
    trunk, causal = small.saga.trunk, small.saga.judge.loaded.causal
    groups = [small.asked((0, 3), [1.0, 0.0]).group, small.asked((5, 2), [1.0], length=7).group]
    with torch.no_grad():
        packed = pack_groups(groups, small.photos(), trunk, together=small.saga.judge.processor.family.packs_answers)
        rows, places = packed.groups[:, 0], packed.places[:, 3]
        plain = answer_logps(causal, packed, 1.0)
        watch = Watch(rows, places)
        with watching(trunk, small.saga.layer, watch):
            seen = answer_logps(causal, packed, 1.0)
        kept: list[torch.Tensor] = []
        attention = trunk.language_model.layers[small.saga.layer].self_attn
        hook = attention.register_forward_hook(lambda module, given, made: kept.append(made[1]))
        trunk.set_attn_implementation("eager")
        answer_logps(causal, packed, 1.0)
        trunk.set_attn_implementation("sdpa")
        hook.remove()
    assert torch.equal(plain, seen), "the forward is the one that it was"
    assert not hasattr(attention, "watch") and attention.config is trunk.language_model.layers[-1].self_attn.config
    weights = watch.weights
    assert weights is not None
    expected = torch.stack([kept[0][row, :, at] for row, at in zip(rows.tolist(), places.tolist(), strict=True)], 1)
    assert torch.allclose(weights, expected, atol=1e-5)
    assert torch.allclose(weights.sum(-1), torch.ones(weights.shape[:2]), atol=1e-5)


def test_the_layer_is_at_seven_tenths_of_the_depth_and_has_attention(tmp_path: Path) -> None:
    deep = make_small(make_tiny("qwen2_vl", tmp_path / "deep", layers=10), tmp_path).saga.trunk
    assert teacher_layer(deep) == 6, "the seventh of ten"
    assert teacher_layer(deep, 3) == 2, "counted from 1"
    hybrid = make_small(make_tiny("qwen3_5", tmp_path / "hybrid", layers=8), tmp_path).saga.trunk
    there = [i for i, layer in enumerate(hybrid.language_model.layers) if hasattr(layer, "self_attn")]
    assert teacher_layer(hybrid) in there and len(there) < 8
