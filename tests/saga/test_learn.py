"""GRPO through the frozen language model, and the teacher's attention into the pooler: which gradient goes where."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch

from afmrl_cli.saga import rollouts
from afmrl_cli.saga.batch_pairs import Pair
from afmrl_cli.saga.grpo import advantages, grpo_loss
from afmrl_cli.saga.learn import learn, value_tokens
from afmrl_cli.saga.model import Saga
from afmrl_cli.saga.replay import Group, Photos, answer_logps, pack_groups
from afmrl_cli.saga.rollouts import JudgedPair
from afmrl_cli.saga.step import step
from afmrl_cli.training.adapter import trainable
from afmrl_cli.training.parallel import World, join_world, leave_world, sum_gradients
from tests.processes import run_two, tensors_of_two
from tests.saga.small import Small, make_small

FAMILIES = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_5")
MakeModel = Callable[[str], Path]


def loss_of(small: Small, photos: Photos) -> torch.Tensor:
    """L_GRPO of one pair, written down plainly."""
    asked = small.asked((0, 3), [1.0, 0.0, 0.0, 1.0])
    family = small.saga.judge.processor.family
    packed = pack_groups([asked.group], photos, small.saga.trunk, together=family.packs_answers)
    logps = answer_logps(small.saga.judge.loaded.causal, packed, small.saga.settings.temperature)
    tokens = sum(map(len, asked.group.answers))
    return grpo_loss(logps, packed.labels >= 0, torch.tensor(advantages([asked.rewards])[0]), tokens)


@pytest.mark.parametrize("architecture", FAMILIES)
def test_log_probabilities_are_those_of_a_plain_forward(
    architecture: str, tiny_model: MakeModel, tmp_path: Path
) -> None:
    small = make_small(tiny_model(architecture), tmp_path)
    with torch.no_grad():
        photos, trunk, causal = small.photos(), small.saga.trunk, small.saga.judge.loaded.causal
        group = small.asked((0, 3), [1.0, 0.0, 0.0]).group
        other = small.asked((5, 2), [1.0, 0.0], length=7).group
        packed = pack_groups([group, other], photos, trunk, together=small.saga.judge.processor.family.packs_answers)
        found = answer_logps(causal, packed, 0.7)
        at = 0
        for each in (group, other):
            for answer in each.answers:
                ids = torch.tensor([[*each.prompt, *answer]])
                kinds = (ids == trunk.config.image_token_id).int()
                shown = photos.shown(each.photos, trunk)
                mask = torch.ones_like(ids)
                scores = causal(input_ids=ids, attention_mask=mask, mm_token_type_ids=kinds, **shown).logits / 0.7
                plain = scores.log_softmax(-1)[0, len(each.prompt) - 1 : -1]
                plain = plain.gather(1, torch.tensor(answer)[:, None])[:, 0]
                assert torch.allclose(found[at, : len(answer)], plain, atol=1e-4)
                assert not found[at, len(answer) :].any(), "nothing where there is no token"
                at += 1


@pytest.mark.parametrize("architecture", FAMILIES)
def test_the_gradient_reaches_the_tower_through_the_language_model(
    architecture: str, tiny_model: MakeModel, tmp_path: Path
) -> None:
    """By finite differences along the gradient, in double precision; DeepStack's levels are part of it."""
    small = make_small(tiny_model(architecture), tmp_path)
    small.saga.judge.loaded.causal.double()
    small.saga.pooler.double()
    loss_of(small, small.photos()).backward()
    found = small.gradients()
    assert found and all(".visual." in name and "lora" in name for name in found), "the tower and nothing else"
    length = sum(float((each**2).sum()) for each in found.values()) ** 0.5
    parameters = dict(small.module.named_parameters())

    def moved(by: float) -> float:
        with torch.no_grad():
            for name, gradient in found.items():
                parameters[name].add_(by * gradient / length)
            loss = float(loss_of(small, small.photos()))
            for name, gradient in found.items():
                parameters[name].sub_(by * gradient / length)
        return loss

    step_length = 1e-4  # delta nets compute in single precision whatever the model is in
    slope = (moved(step_length) - moved(-step_length)) / (2 * step_length)
    assert length > 1e-6 and slope == pytest.approx(length, rel=5e-3)


def test_every_level_that_the_language_model_sees_gets_a_gradient(tiny_model: MakeModel, tmp_path: Path) -> None:
    small = make_small(tiny_model("qwen3_vl"), tmp_path)
    photos = small.photos()
    leaves = Photos([row.detach().requires_grad_() for row in photos.rows], photos.grids)
    loss_of(small, leaves).backward()
    width = small.saga.width
    for number in (0, 3):
        gradient = leaves.rows[number].grad
        assert gradient is not None and gradient.shape[1] > width, "DeepStack adds levels"
        assert all(part.abs().max() > 0 for part in gradient.split(width, dim=1))
    assert leaves.rows[1].grad is None or not leaves.rows[1].grad.any(), "a photo that no answer is about"


def test_anchoring_moves_the_pooler_alone(tiny_model: MakeModel, tmp_path: Path) -> None:
    small = make_small(tiny_model("qwen3_vl"), tmp_path, grpo=0.0, anchoring=0.5)
    photos = small.photos()
    leaves = Photos([row.detach().requires_grad_() for row in photos.rows], photos.grids)
    still = Photos([row.detach() for row in photos.rows], photos.grids)
    loss, losses = learn(small.saga, leaves, still, [small.asked((0, 3), [1.0, 0.0, 1.0, 0.0])])
    found = small.gradients()
    assert losses["anchoring"] > 0 and not losses["grpo"]
    assert float(loss) == pytest.approx(0.5 * losses["anchoring"]), "by its weight"
    assert set(found) == {"1.query", "1.key.weight"}, "the pooler's attention; not even what it makes of it"
    assert all(row.grad is None for row in leaves.rows)


def test_only_answers_that_were_rewarded_are_looked_at(tiny_model: MakeModel, tmp_path: Path) -> None:
    small = make_small(tiny_model("qwen2_vl"), tmp_path)
    asked = small.asked((0, 3), [1.0, 0.0])
    first, second = value_tokens(small.saga, asked, 0)
    text = asked.texts[0]
    whole = small.saga.judge.texts_so_far(list(asked.group.answers[0]))
    assert whole[first[-1]].startswith(text[:2]) and first[0] == 0 and second[0] >= first[-1]
    assert value_tokens(small.saga, asked, 1) == ([], [])


def test_pairs_that_are_missing_are_asked_for_at_once(
    tiny_model: MakeModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = make_small(tiny_model("qwen2_vl"), tmp_path)
    small.saga.settings = small.saga.settings.model_copy(update={"pairs": 4})
    differing = small.asked((0, 3), [1.0, 0.0])
    alike = small.asked((0, 3), [1.0, 1.0])
    rounds: list[int] = []

    def one_in_four(_saga: Saga, _photos: Photos, pairs: Sequence[Pair], seeds: object) -> list[JudgedPair]:
        rounds.append(len(pairs))
        return [alike if i % 4 else differing for i in range(len(pairs))]

    monkeypatch.setattr(rollouts, "sample_answers", one_in_four)
    without_end = itertools.repeat((0, 3, False))
    asked = rollouts.sample_pairs(small.saga, Photos((), small.grids), without_end, (0, 0))
    assert rounds == [4, 8]  # 3 more of which one in four differs are 12 pairs, but 3 times 4 are the most
    assert sum(each.differs for each in asked) == 3


def test_a_step_in_chunks_is_a_step_as_a_whole(tiny_model: MakeModel, tmp_path: Path) -> None:
    small = make_small(tiny_model("qwen2_vl"), tmp_path)

    def learned(photos: int, answers: int) -> dict[str, torch.Tensor]:
        own = {"chunk_photos": photos, "chunk_answers": answers}
        small.saga.settings = small.saga.settings.model_copy(update=own)
        photos_ = small.photos()
        rows = [row.detach().requires_grad_() for row in photos_.rows]
        still = [row.detach() for row in photos_.rows]
        chosen = [small.asked((0, 3), [1.0, 0.0, 0.0, 1.0]), small.asked((4, 5), [0.0, 1.0, 1.0, 1.0])]
        learn(small.saga, Photos(rows, small.grids), Photos(still, small.grids), chosen)
        torch.autograd.backward(
            [row for row, leaf in zip(photos_.rows, rows, strict=True) if leaf.grad is not None],
            [leaf.grad for leaf in rows if leaf.grad is not None],
        )
        torch.manual_seed(0)
        step(small.saga, small.batch, (0, 0), mined=True)
        return small.gradients()

    whole, parts = learned(8, 8), learned(2, 3)
    assert whole.keys() == parts.keys()
    for name, gradient in whole.items():
        assert torch.allclose(gradient, parts[name], atol=1e-5 + 1e-3 * float(gradient.abs().max())), name


def test_two_processes_have_the_gradient_of_one(
    tiny_model: MakeModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All three losses: of six photos each process has three, of three pairs about which answers differ two or one."""
    small = make_small(tiny_model("qwen3_vl"), tmp_path, pairs=3, grpo=0.7, anchoring=0.5)

    def known(_saga: Saga, _photos: Photos, pairs: Sequence[Pair], seeds: object) -> list[JudgedPair]:
        return [small.asked(pair[:2], [1.0, 0.0, 0.0, 1.0]) for pair in pairs]

    monkeypatch.setattr(rollouts, "sample_answers", known)

    def learnt(world: World) -> tuple[float, dict[str, float], dict[str, torch.Tensor]]:
        own = dataclasses.replace(small.batch, pictures=world.part(small.batch.pictures))
        loss, found = step(small.saga, own, (0, 0), mined=True, world=world)
        sum_gradients(trainable(small.module).values(), world)
        return float(loss), {**found.losses, **found.gradients}, small.gradients()

    loss, parts, expected = learnt(World())
    assert parts["grpo"] > 0 and parts["anchoring"] > 0

    def as_one_of_two(world: World) -> dict[str, torch.Tensor]:
        own_loss, own_parts, found = learnt(world)
        assert own_loss == pytest.approx(loss, rel=1e-4) and own_parts == pytest.approx(parts, rel=1e-3)
        return found

    for found in tensors_of_two(as_one_of_two, tmp_path):
        assert found.keys() == expected.keys()
        for name, gradient in expected.items():
            torch.testing.assert_close(found[name], gradient, atol=1e-4 * float(gradient.abs().max()), rtol=1e-3)


def test_answers_do_not_depend_on_who_asks_with_whom(tiny_model: MakeModel, tmp_path: Path) -> None:
    small = make_small(tiny_model("qwen2_vl"), tmp_path, pairs=2)
    pairs: list[Pair] = [(0, 1, True), (2, 4, False), (2, 3, True), (1, 5, False), (4, 5, True)]

    def texts(world: World, answers: int, seed: int = 0) -> list[str]:
        small.saga.settings = small.saga.settings.model_copy(update={"rollout_answers": answers})
        with torch.no_grad():
            photos = small.photos()
        asked = rollouts.sample_pairs(small.saga, photos, iter(pairs), (0, seed), world)
        assert [each.pair for each in asked] == pairs
        return [text for each in asked for text in each.texts]

    alone = texts(World(), 64)
    assert len(set(alone)) > len(pairs) and texts(World(), 64, seed=1) != alone
    assert texts(World(), 4) == alone, "a pair at a time"

    def ask() -> None:
        world = join_world()
        assert texts(world, 64) == alone
        leave_world(world)

    run_two(ask)


def test_a_pair_that_is_shown_the_other_way_round_is_another_prompt(tiny_model: MakeModel, tmp_path: Path) -> None:
    small = make_small(tiny_model("qwen2_vl"), tmp_path)
    with torch.no_grad():
        photos, answer = small.photos(), small.asked((0, 3), [1.0]).group.answers[0]
        prompts = [small.asked(pair, [1.0]).group.prompt for pair in ((0, 3), (3, 0))]
        assert len(prompts[0]) == len(prompts[1])
        made = [
            answer_logps(
                small.saga.judge.loaded.causal,
                pack_groups([Group(pair, prompt, [answer])], photos, small.saga.trunk, together=True),
                1.0,
            )
            for pair, prompt in zip(((0, 3), (3, 0)), prompts, strict=True)
        ]
    assert not torch.allclose(made[0], made[1], atol=1e-4)
