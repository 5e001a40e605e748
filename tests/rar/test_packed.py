"""A step in which a group runs its prompt once is TRL's step: answers, log-probabilities, loss, gradients."""

from __future__ import annotations

import ast
import copy
import hashlib
import inspect
import shutil
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from trl import GRPOTrainer
from trl.data_utils import prepare_multimodal_messages
from trl.trainer.utils import add_fused_lm_head

from afmrl_cli.models.presets import NANO
from afmrl_cli.rar.packed import Rows, groups_of
from afmrl_cli.rar.rollout import Drawing, uniform
from afmrl_cli.rar.shared_prefix import QUERY_NUMBERS
from afmrl_cli.rar.trainer import RarTrainer, Rollouts
from afmrl_cli.store.folder import CatalogFolder
from afmrl_cli.training.adapter import trainable
from tests.rar.rig import Rig, add_slight, make_rig, rar_settings
from tests.tiny import ARCHITECTURES
from tests.training.shop import write_shop

TinyModel = Callable[[str], Path]
Changes = dict[str, object]
LOSSES = ("dr_grpo", "dapo", "bnpo", "grpo")


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> CatalogFolder:
    """16 products of two listings with two photos."""
    root = write_shop(tmp_path_factory.mktemp("packed") / "shop", 16, listings_each=2)
    return CatalogFolder(root / "catalog.csv")


def make(shop: CatalogFolder, run: Path, model: str, changes: Changes | None = None, cache: Path | None = None) -> Rig:
    """Four queries: two photos, none, and one each with the same words; an adapter that changes numbers; four answers
    each, of different lengths.
    """
    few: dict[str, object] = {
        "split.validation": 0.4,
        "rar.prompts": 4,
        "rar.from_base": True,
        "rar.validation_queries": 5,
    }
    both = {"model.generator": model, "model.embedder": model, "attributes.max_new_tokens": 12, "rar.chunk_answers": 8}
    rig = make_rig(shop, rar_settings(**(few | both | {"rar.query": "listings"} | (changes or {}))), run, cache)
    env = rig.plan.environments.train
    seen = env.queries[0]
    photos, others = seen.side.photos, env.queries[3].side.photos
    long = replace(seen.side, text="Title: red shirt with long sleeves\nBrand: none")
    sides = [
        long,
        replace(long, text="Title: blue hood", photos=()),
        *(replace(seen.side, photos=p[:1]) for p in (photos, others)),
    ]
    env.queries = tuple(replace(seen, side=side, photos=side.photos) for side in sides)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in trainable(rig.peft).values():
            parameter.normal_(std=0.05)
    return rig


@pytest.fixture(scope="module", params=[*ARCHITECTURES, NANO])
def rig(request: pytest.FixtureRequest, shop: CatalogFolder, tiny_model: TinyModel, tmp_path_factory: Any) -> Rig:
    model = request.param if request.param == NANO else str(tiny_model(request.param))
    return make(shop, tmp_path_factory.mktemp("run"), model)


@pytest.fixture
def trainer(rig: Rig) -> Iterator[RarTrainer]:
    kept = {name: getattr(rig.trainer, name) for name in ("shared_prefix", "loss_type", "num_iterations")}
    yield rig.trainer
    for name, value in kept.items():
        setattr(rig.trainer, name, value)


def some_answers(trainer: RarTrainer) -> Rollouts:
    """Four answers to each query, with 1 to 12 tokens; two of a group are alike."""
    rng = torch.Generator().manual_seed(0)
    rollouts = trainer._roll_out([0, 1, 2, 3])
    lengths = torch.randint(1, 13, (16,), generator=rng).tolist()
    rollouts.tokens = [torch.randint(20, 500, (length,), generator=rng).tolist() for length in lengths]
    rollouts.tokens[1] = rollouts.tokens[0]
    rollouts.rewards = [replace(each, value=float(i % 3)) for i, each in enumerate(rollouts.rewards)]
    return rollouts


def step(trainer: RarTrainer, rollouts: Rollouts) -> tuple[dict[str, Any], dict[str, torch.Tensor], list[float]]:
    """(what TRL scored, the gradient of a whole step, its loss, KL and entropy)."""
    trainer._roll_out = lambda numbers: rollouts  # type: ignore[method-assign]
    scored: dict[str, Any] = {}
    score = trainer._generate_and_score_completions

    def remember(inputs: Any) -> Any:
        scored.update(score(inputs))
        return dict(scored)

    trainer._generate_and_score_completions = remember  # type: ignore[method-assign]
    trainer._buffered_inputs, trainer._step = None, 0
    trainer._metrics["train"].clear()
    parts = trainer.args.steps_per_generation
    trainer.current_gradient_accumulation_steps = parts
    trainer.model.zero_grad(set_to_none=True)
    torch.manual_seed(3)
    losses = []
    try:
        for _ in range(parts):
            inputs = trainer._prepare_inputs([{"query": i} for i in range(4) for _ in range(4)])
            loss = trainer.compute_loss(trainer.model, inputs)
            loss.backward()
            losses.append(loss.item())
            trainer._step += 1
    finally:
        del trainer._roll_out, trainer._generate_and_score_completions
    gradient = {
        name: parameter.grad for name, parameter in trainable(trainer.model).items() if parameter.grad is not None
    }
    chunks = len(trainer._metrics["train"]["kl"])
    trainer.pool_metrics()
    metrics = [trainer._metrics["train"][name] for name in ("kl", "entropy")]
    assert chunks == parts and all(len(values) == 1 for values in metrics)
    metrics = [values[0] for values in metrics]
    return scored, gradient, [sum(losses), *metrics]


def assert_equal_steps(trainer: RarTrainer, rollouts: Rollouts, tolerance: float = 1e-4) -> None:
    found = []
    for value in (True, False):
        trainer.shared_prefix = value
        found.append(step(trainer, rollouts))
    (ours, gradient, figures), (stock, expected, theirs) = found
    pictures = {"pixel_values", "image_grid_thw", "mm_token_type_ids", "num_images"}
    assert ours.keys() - {QUERY_NUMBERS} == stock.keys() - pictures
    for name, value in stock.items():
        if isinstance(value, torch.Tensor) and name not in pictures:
            assert torch.allclose(ours[name].float(), value.float(), rtol=1e-4, atol=1e-5), name
    # The chunks hold other rows, and so other numbers of tokens: loss, KL and entropy of the whole step are the same.
    assert figures == pytest.approx(theirs, rel=tolerance, abs=1e-6)
    assert len(expected) == len(trainable(trainer.model))
    for name, slope in expected.items():
        assert slope.norm() > 0, name
        assert (gradient[name] - slope).norm() <= tolerance * slope.norm(), name


def test_a_step_is_that_of_trl(rig: Rig, trainer: RarTrainer) -> None:
    """For every loss, on the policy's first step and (with old log-probabilities) on later ones."""
    rollouts = some_answers(trainer)
    for loss in LOSSES if "qwen2_vl" in str(rig.plan.base.folder) else LOSSES[-1:]:
        trainer.loss_type = loss
        trainer.num_iterations = 1 if loss in ("dr_grpo", "bnpo") else 2
        assert_equal_steps(trainer, rollouts)


def sample_by_trl(trainer: RarTrainer, numbers: list[int]) -> list[list[int]]:
    """Answers as TRL samples them, each with a prompt of its own, but drawn by our numbers."""
    model, seeds = trainer.model, [(trainer.args.seed, trainer.state.global_step + 1, number) for number in numbers]
    drawing = Drawing(torch.cat([uniform(seed, 4, 12) for seed in seeds]), trainer.rar.temperature)
    kept, trainer.generation_config = trainer.generation_config, copy.deepcopy(trainer.generation_config)
    trainer.generation_config.update(do_sample=False, temperature=1.0, top_k=50)
    model.generate = partial(type(model).generate, model, logits_processor=[drawing])
    shares, trainer.shared_prefix = trainer.shared_prefix, False
    prompts = [prepare_multimodal_messages(row["prompt"], images=row["images"]) for row in trainer._rows(numbers)]
    ids, images, fields = trainer._tokenize_prompts(prompts)
    trainer.shared_prefix = shares
    made: list[list[int]] = GRPOTrainer._generate_single_turn(trainer, ids, images, fields, trainer.num_generations)[0]
    del model.generate
    trainer.generation_config = kept
    return made


def test_answers_are_those_of_trl(rig: Rig, trainer: RarTrainer) -> None:
    """Every token is drawn from the same scores."""
    head = rig.policy.generator.loaded.causal.lm_head
    seen: list[list[torch.Tensor]] = []
    made = []
    for draw in (trainer._sample, partial(sample_by_trl, trainer)):
        seen.append([])
        handle = head.register_forward_hook(lambda _, __, output: seen[-1].append(output[:, -1].detach()))
        made.append(draw([0, 1, 2, 3]))
        handle.remove()
    assert made[0] == made[1] and len({len(row) for row in made[0]}) > (rig.plan.base.name == NANO)
    assert len(seen[0]) == len(seen[1]) == 12
    for ours, stock in zip(*seen, strict=True):
        assert torch.allclose(ours, stock, rtol=0, atol=1e-4)
    never = set(rig.policy.generator.never)
    assert never and not never & {token for row in made[0] for token in row}


def test_the_answers_to_a_query_do_not_depend_on_what_is_sampled_beside_it(trainer: RarTrainer) -> None:
    kept, calls = trainer.rar, []
    head = trainer.policy.generator.loaded.causal.lm_head
    handle = head.register_forward_hook(lambda _, __, output: calls.append(len(output)))
    try:
        whole = trainer._sample([0, 1, 2, 3])
        assert set(calls) == {16}
        calls.clear()
        trainer.rar = kept.model_copy(update={"rollout_answers": 4})
        assert trainer._sample([0, 1, 2, 3]) == whole and set(calls) == {4}
    finally:
        trainer.rar = kept
        handle.remove()
    groups = [whole[i : i + 4] for i in range(0, 16, 4)]
    assert trainer._sample([3, 1]) == groups[3] + groups[1] and trainer._sample([2]) == groups[2]
    trainer.state.global_step += 1
    later = trainer._sample([2])
    trainer.state.global_step -= 1
    assert later != groups[2] and len({tuple(row) for row in groups[2]}) > 1, "other answers at each step"


def test_tokens_are_drawn_by_their_probability() -> None:
    """By hand, at the borders of each token's part of [0, 1), and as shares of many."""
    scores = torch.tensor([0.5, 0.2, 0.0, 0.3]).log()
    numbers = torch.tensor([0.0, 0.499, 0.501, 0.699, 0.701, 0.999])
    drawn = Drawing(numbers[:, None], 1.0)(torch.empty(0), scores.expand(6, 4)).argmax(1)
    assert drawn.tolist() == [0, 0, 1, 1, 3, 3], "never what is forbidden"
    drawing = Drawing(uniform((3, 1, 4), 20_000, 2), 0.5)
    for _ in range(2):
        shares = drawing(torch.empty(0), scores.expand(20_000, 4)).argmax(1).bincount(minlength=4) / 20_000
        assert shares == pytest.approx(torch.tensor([25, 4, 0, 9]) / 38, abs=0.015), "halved: squares"
    hit = torch.tensor([[-torch.inf, 0.0, -torch.inf]])
    for number in (0.0, 1 - 2**-23):
        assert Drawing(torch.tensor([[number]]), 1.0)(torch.empty(0), hit).argmax() == 1


def test_random_numbers_follow_from_the_seed() -> None:
    numbers = uniform((0, 1, 2), 3, 5)
    assert numbers.shape == (3, 5) and numbers.min() > 0 and numbers.max() < 1
    assert torch.equal(numbers, uniform([0, 1, 2], 3, 5)) and len(set(numbers.flatten().tolist())) == 15
    for other in ((1, 1, 2), (0, 2, 2), (0, 1, 3)):
        assert not torch.equal(numbers, uniform(other, 3, 5))


def test_prompts_are_those_of_afmrl_attributes(trainer: RarTrainer) -> None:
    """Written by TRL itself, too: thinking is closed in them."""
    for trainer.shared_prefix in (True, False):
        scored = trainer._generate_and_score_completions([{"query": i} for i in range(4) for _ in range(4)])
        for i in range(4):
            ours = trainer.prompt_tokens(i)
            assert scored["prompt_ids"][4 * i, -len(ours) :].tolist() == ours
            assert scored["prompt_mask"][4 * i].sum() == len(ours)


ROUNDED = 5e-3
"""Of what comes from features of 11 bits."""


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_step_with_stored_pictures(name: str, shop: CatalogFolder, tiny_model: TinyModel, tmp_path: Path) -> None:
    """The policy's photos come from the store that the gallery has filled: same step but for rounding, and the tower
    sees none of them; without what is stored, the very same numbers again.
    """
    model = str(tiny_model(name))
    plain = make(shop, tmp_path / "plain", model)
    kept = make(shop, tmp_path / "kept", model, cache=tmp_path / "cache")
    vision = kept.policy.generator.vision
    assert vision.store is not None and len(vision.store)
    before = vision.images_encoded
    rollouts = some_answers(plain.trainer)
    made = [step(rig.trainer, rollouts) for rig in (plain, kept)]
    sampled = kept.trainer._sample([0, 1, 2, 3])
    assert vision.images_encoded == before
    (expected, slopes, losses), (scored, gradient, ours) = made
    assert ours == pytest.approx(losses, rel=ROUNDED) and ours != losses
    assert torch.allclose(scored["ref_per_token_logps"], expected["ref_per_token_logps"], atol=ROUNDED)
    for parameter, slope in slopes.items():
        assert (gradient[parameter] - slope).norm() <= ROUNDED * slope.norm(), parameter

    for shard in vision.store.folder.iterdir():
        vision.store._forget(shard.name)
    assert kept.trainer._sample([0, 1, 2, 3]) == sampled
    assert vision.images_encoded == before + 3, "two photos of one query, one of another; the first is also the third's"
    again = step(kept.trainer, rollouts)
    assert again[2] == ours and all(torch.equal(again[1][name], slope) for name, slope in gradient.items())
    assert vision.images_encoded == before + 3


def test_a_group_runs_its_prompt_once(trainer: RarTrainer) -> None:
    """Tokens that run, padding included, in sampling and in the reference's log-probabilities (delta nets: there each
    answer's own).
    """
    rollouts = some_answers(trainer)
    loaded = trainer.policy.generator.loaded
    trunk: list[int] = []
    hook = loaded.trunk.language_model.register_forward_pre_hook(
        lambda _, __, named: trunk.append(named["inputs_embeds"].shape[:2].numel()), with_kwargs=True
    )
    trainer._sample([0, 1, 2, 3])
    width = trunk[0] // 4
    assert trunk[1:] == [16] * 12, "after the prompts, one token an answer at a time"
    trunk.clear()
    trainer._roll_out = lambda numbers: rollouts  # type: ignore[method-assign]
    try:
        trainer._generate_and_score_completions([{"query": i} for i in range(4) for _ in range(4)])
    finally:
        del trainer._roll_out
        hook.remove()
    rows, answers = (4, 4) if trainer.packs_answers else (16, 1)
    longest = max(sum(map(len, rollouts.tokens[i : i + answers])) - answers for i in range(0, 16, answers))
    assert len(trunk) == 2 and sum(trunk) <= rows * (width + 1 + longest), "the reference's pass: two groups at a time"


@pytest.mark.parametrize("precision", ["fp32", pytest.param("nf4", marks=pytest.mark.slow)])
def test_with_a_reference_adapter_and_recomputed_activations(
    shop: CatalogFolder, tmp_path: Path, tiny_model: TinyModel, precision: str
) -> None:
    """On a 4-bit base too, the layers whose activations are computed again are those of TRL's step."""
    model = str(tiny_model("qwen2_vl"))
    started: Changes = {
        "rar.from_base": False,
        "model.generator_checkpoint": "sft",
        "rar.activation_checkpointing": True,
    }
    settings = rar_settings(**{"model.generator": model, "model.embedder": model})
    root = shutil.copytree(shop.root, tmp_path / "shop")
    folder = CatalogFolder(root / "catalog.csv")
    add_slight(folder, settings, "sft", "generator")
    rig = make(folder, tmp_path / "run", model, started | {"model.precision": precision})
    again: list[bool] = []
    layer = rig.policy.generator.loaded.trunk.language_model.layers[0]
    layer.mlp.register_forward_pre_hook(lambda *_: again.append(torch.is_grad_enabled()))
    rollouts = some_answers(rig.trainer)
    assert len(again) >= 13 and not any(again), "sampling keeps its cache"
    again.clear()
    scored = step(rig.trainer, rollouts)[0]
    assert again.count(True) == 4, "two parts, each forward twice"
    assert (scored["ref_per_token_logps"] != 0).any()
    rig.trainer.query_numbers = scored[QUERY_NUMBERS].tolist()
    with torch.no_grad():
        old = rig.trainer._get_per_token_logps_and_entropies(rig.peft, *whole(scored))[0]
    assert (old - scored["ref_per_token_logps"]).abs().max() > 1e-3, "the reference is another adapter"
    assert_equal_steps(rig.trainer, rollouts)


def whole(scored: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor, int]:
    ids = torch.cat([scored["prompt_ids"], scored["completion_ids"]], 1)
    mask = torch.cat([scored["prompt_mask"], scored["completion_mask"]], 1)
    return ids, mask, scored["completion_ids"].shape[1]


def test_rows_of_one_query_are_a_group() -> None:
    """In any order of the rows; two queries with the same words and other photos are two groups."""
    ids = torch.tensor([[0, 5, 6, 9], [0, 5, 6, 8], [0, 5, 6, 9], [4, 5, 6, 9]])
    rows = Rows(ids, torch.ones_like(ids), 1, [7, 3, 7, 1])
    assert groups_of(rows) == [[0, 2], [1], [3]]
    assert groups_of(rows[1:]) == [[0], [1], [2]] and rows.prompt == 3


def test_what_it_does_not_know_is_refused(rig: Rig) -> None:
    ids = torch.ones(2, 4, dtype=torch.long)
    for named in ({"compute_aux_loss": True}, {"image_sizes": ids}):
        with pytest.raises(ValueError, match=r"rar\.shared_prefix knows nothing of"):
            rig.trainer._get_per_token_logps_and_entropies(rig.peft, ids, ids, 2, **named)


# TRL

LOGPS = (
    "self model input_ids attention_mask logits_to_keep batch_size compute_entropy compute_aux_loss pixel_values "
    "image_grid_thw num_images pixel_attention_mask spatial_shapes num_tiles image_sizes token_type_ids "
    "mm_token_type_ids image_position_ids"
)
SIGNATURES = {
    "_prepare_inputs": "self generation_batch",
    "_generate_and_score_completions": "self inputs",
    "_compute_loss": "self model inputs",
    "_generate_single_turn": "self prompt_ids images multimodal_fields num_generations has_tool_images",
    "_tokenize_prompts": "self prompts",
    "_get_per_token_logps_and_entropies": LOGPS,
}
"""The methods of GRPOTrainer that RarTrainer overrides or calls, and their parameters in TRL 1.16."""
SOURCES = {
    "_prepare_inputs": "6de74aaff4c9",
    "_get_per_token_logps_and_entropies": "2f6e32c617df",
}
"""Hashes of those that RarTrainer does in its own way, without comments and docstrings, in TRL 1.16."""


def source_hash(function: Any) -> str:
    """Of what the function does: comments, docstring and layout left out."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(inspect.unwrap(function)))).body[0]
    assert isinstance(tree, ast.FunctionDef)
    tree.decorator_list = []
    if ast.get_docstring(tree) is not None:
        tree.body = tree.body[1:]
    return hashlib.sha256(ast.unparse(tree).encode()).hexdigest()[:12]


def test_trl_still_is_what_the_trainer_leans_on() -> None:
    import trl

    advice = (
        f"in TRL {trl.__version__}: read what changed, bring src/afmrl_cli/rar/shared_prefix.py and packed.py "
        "into line, and only then note it here"
    )
    for name, expected in SIGNATURES.items():
        method = getattr(GRPOTrainer, name, None)
        assert method is not None, f"GRPOTrainer.{name} is gone {advice}"
        found = " ".join(inspect.signature(method).parameters)
        assert found == expected, f"GRPOTrainer.{name} takes other parameters ({found}) {advice}"
    for name, expected in SOURCES.items():
        found = source_hash(getattr(GRPOTrainer, name))
        assert found == expected, f"GRPOTrainer.{name} does something else ({found}) {advice}"
    head = inspect.getsource(add_fused_lm_head)
    for part in ("getattr(self, backbone_attr)(*args, **kwargs)", "if shift_labels is None", "temperature,"):
        assert part in head, f"the fused head has no {part!r} any more {advice}"
    score = inspect.getsource(GRPOTrainer._generate_and_score_completions)
    assert score.count("self._get_per_token_logps_and_entropies(") == 3, f"old and reference passes moved {advice}"
    assert "self._get_per_token_logps_and_entropies(" in inspect.getsource(GRPOTrainer._compute_loss), advice
    for part in ("self._generate(prompts)", "self._calculate_rewards(inputs, prompts", "forward_kwargs = {}"):
        assert part in score, f"_generate_and_score_completions has no {part!r} any more {advice}"
