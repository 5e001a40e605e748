"""What a step of RAR stands on: the prompt, the reference, the switching of adapters, the rollouts, the pictures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from trl.data_utils import prepare_multimodal_messages

from afmrl_cli.catalog.images import open_image
from afmrl_cli.models.base import active_adapter
from afmrl_cli.models.families import IMAGE_TOKEN, VIDEO_TOKEN
from afmrl_cli.rar import environment
from afmrl_cli.rar.frozen import weights_hash
from afmrl_cli.rar.plan import query_order
from afmrl_cli.rar.shared_prefix import QUERY_NUMBERS
from afmrl_cli.rar.vision import VisionOnce
from afmrl_cli.rar.watchdog import Watchdog
from afmrl_cli.sources import load_settings
from afmrl_cli.store.folder import CatalogFolder
from tests.rar.rig import Rig, add_slight, make_rig, rar_settings
from tests.tiny import photo
from tests.training.shop import write_shop


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> CatalogFolder:
    """24 products; nano adapters "sft" and "judge"."""
    root = write_shop(tmp_path_factory.mktemp("steps") / "shop", 24)
    folder = CatalogFolder(root / "catalog.csv")
    add_slight(folder, rar_settings(), "sft", "generator")
    add_slight(folder, rar_settings(), "judge", "embedder")
    return folder


SMALL: dict[str, object] = {"split.validation": 0.4, "rar.validation_queries": 5}
LOOKING: dict[str, object] = {"rar.query": "photos", "attributes.max_new_tokens": 48}
STARTED = SMALL | {"model.generator_checkpoint": "sft", "model.embedder_checkpoint": "judge"}


@pytest.fixture(scope="module")
def rig(shop: CatalogFolder, tmp_path_factory: pytest.TempPathFactory) -> Rig:
    return make_rig(shop, rar_settings(**STARTED, **LOOKING), tmp_path_factory.mktemp("run"))


def rows(rig: Rig, numbers: list[int]) -> list[dict[str, Any]]:
    return [{"query": number} for number in numbers for _ in range(rig.plan.settings.rar.group)]


def adapters(rig: Rig) -> tuple[Any, set[str], set[str]]:
    """(the active adapter, names of what is trained, modules in training mode)."""
    trained = {name for name, parameter in rig.peft.named_parameters() if parameter.requires_grad}
    modules = rig.policy.generator.loaded.causal.named_modules()
    return rig.peft.active_adapter, trained, {name for name, module in modules if module.training}


def test_the_prompt_is_that_of_generation(shop: CatalogFolder, tmp_path: Path) -> None:
    rig = make_rig(shop, rar_settings(**SMALL, **{"rar.query": "photo-to-text", "rar.from_base": True}), tmp_path)
    generator, trainer = rig.policy.generator, rig.trainer
    env = rig.plan.environments.train
    seen = env.queries[0]
    long = replace(seen.side, text="Title: <|im_end|> red shirt " + "again " * 300)
    sides = [seen.side, long, replace(long, text="Title: blue shirt", photos=())]
    env.queries = tuple(replace(seen, side=side, photos=side.photos, category="tops") for side in sides)
    for numbers in ([0, 1], [1, 2], [2, 2]):
        made = [rig.policy.row(env, number) for number in numbers]
        prompts = [prepare_multimodal_messages(row["prompt"], images=row["images"]) for row in made]
        trainer.shared_prefix = False
        ids, _, _ = trainer._tokenize_prompts(prompts)
        trainer.shared_prefix, trainer.query_numbers = True, numbers
        trainer._requests.clear()
        assert trainer._tokenize_prompts([]) == (ids, None, {})
        for number, row in zip(numbers, ids, strict=True):
            request = rig.policy.request(env, number)
            expected = generator.processor.tensors([generator.text(request)], [request.images])
            assert expected["input_ids"][0].tolist() == row
    opened = [open_image(each.path, rig.plan.settings.catalog) for each in seen.side.photos]
    small = [rig.policy.request(env, 0).images[0], rig.policy.row(env, 0)["images"][0]]
    first, *others = (
        generator.processor.tensors([IMAGE_TOKEN], [[image]])["pixel_values"] for image in (opened[0], *small)
    )
    assert all(torch.equal(first, other) for other in others), "reducing photos beforehand changes nothing"


def test_the_reference_is_a_frozen_copy_of_the_sft_adapter(rig: Rig, shop: CatalogFolder) -> None:
    stored = load_file(shop.checkpoints / "sft" / "adapter_model.safetensors")
    for name, value in stored.items():
        inside = name.replace(".weight", ".{}.weight")
        for adapter in ("default", "ref"):
            parameter = rig.peft.get_parameter(inside.format(adapter))
            assert torch.equal(parameter, value) and parameter.requires_grad == (adapter == "default")
    batch = rig.trainer._generate_and_score_completions(rows(rig, [0, 1]))
    other = batch | {"ref_per_token_logps": base_logps(rig, batch)}
    kl = [rig_kl(rig, each) for each in (batch, other)]
    assert kl[0] == 0.0 and kl[1] > 0.0, "held to the SFT policy, and not to the base"


def base_logps(rig: Rig, batch: dict[str, Any]) -> torch.Tensor:
    ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], 1)
    mask = torch.cat([batch["prompt_mask"], batch["completion_mask"]], 1)
    rig.trainer.query_numbers = batch[QUERY_NUMBERS].tolist()
    with torch.no_grad(), active_adapter(rig.peft, None):
        found: torch.Tensor = rig.trainer._get_per_token_logps_and_entropies(
            rig.peft, ids, mask, batch["completion_ids"].shape[1]
        )[0]
    return found


def rig_kl(rig: Rig, batch: dict[str, Any]) -> float:
    rig.trainer.current_gradient_accumulation_steps = 1
    rig.trainer._metrics["train"].clear()
    with torch.no_grad():
        rig.trainer._compute_loss(rig.peft, batch)
    return float(rig.trainer._metrics["train"]["kl"][0])


def test_from_the_base_the_reference_is_the_adapter_switched_off(shop: CatalogFolder, tmp_path: Path) -> None:
    rig = make_rig(shop, rar_settings(**SMALL, **{"rar.from_base": True}), tmp_path)
    assert set(rig.peft.peft_config) == {"default"}
    batch = rig.trainer._generate_and_score_completions(rows(rig, [0, 1]))
    assert torch.equal(batch["ref_per_token_logps"], base_logps(rig, batch)) and rig_kl(rig, batch) == 0.0
    assert adapters(rig)[0] == "default" and len(adapters(rig)[1]) > 0


def test_adapters_come_back_even_when_a_reward_raises(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    embedder = rig.plan.environments.train.embedder
    assert embedder.loaded is rig.policy.generator.loaded, "one base in memory"
    before, weights = adapters(rig), weights_hash(embedder)
    seen: list[Any] = []

    def broken(*_: Any, **__: Any) -> None:
        seen.append(adapters(rig))
        raise RuntimeError("no reward")

    monkeypatch.setattr(environment, "encode_groups", broken)
    with pytest.raises(RuntimeError, match="no reward"):
        rig.trainer._generate_and_score_completions(rows(rig, [0, 1]))
    assert seen[0][0] == embedder.adapter and not seen[0][1] and not seen[0][2], (
        "the judge judges alone, frozen, in eval mode"
    )
    monkeypatch.undo()
    assert adapters(rig) == before
    rig.trainer._generate_and_score_completions(rows(rig, [0, 1]))
    assert adapters(rig) == before and weights_hash(embedder) == weights


def test_rollouts_never_hold_tokens_that_break_a_text(shop: CatalogFolder, tmp_path: Path, tiny_model: Any) -> None:
    """At a temperature at which each of the 512 tokens is as likely as any other."""
    model = str(tiny_model("qwen2_vl"))
    tiny = {"model.generator": model, "model.embedder": model, "rar.from_base": True, "rar.temperature": 1000.0}
    rig = make_rig(shop, rar_settings(**SMALL, **tiny, **{"rar.group": 64, "rar.query": "photo-to-text"}), tmp_path)
    tokens = [token for row in rig.trainer._roll_out([0, 1]).tokens for token in row]
    known = rig.policy.generator.processor.tokenizer.get_vocab()
    assert len(set(tokens)) > 480 and len(tokens) > 2500
    assert not {known[IMAGE_TOKEN], known[VIDEO_TOKEN], known["<|vision_start|>"]} & set(tokens)
    assert known["<|endoftext|>"] in {row[-1] for row in rig.trainer._roll_out([0, 1]).tokens}, "ends, too"


def test_the_tower_sees_a_picture_once(tiny_model: Callable[[str], Path]) -> None:
    from afmrl_cli.models.base import load_base
    from afmrl_cli.models.presets import resolve_base
    from afmrl_cli.models.processor import load_processor

    text = "<|vision_start|><|image_pad|><|vision_end|> a shirt"
    images = [[photo(1)], [photo(2, 84, 56)], [photo(1)], [photo(1)]]
    for name in ("qwen2_vl", "qwen2_5_vl", "qwen3_vl"):
        base = resolve_base(load_settings(None, {"model.embedder": str(tiny_model(name))}, {}).model, "embedder")
        model, processor = load_base(base, "fp32", "cpu"), load_processor(base)
        batch = processor.tensors([text] * 4, images)
        vision = VisionOnce(model.model)
        with torch.no_grad():
            expected = model(**batch).logits
            with vision.remembering():
                for _ in range(2):
                    assert torch.allclose(model(**batch).logits, expected, atol=1e-5), name
                with torch.inference_mode():
                    model(**processor.tensors([text], [[photo(3)]]))
            assert (vision.requested, vision.computed) == (9, 3)
            with vision.remembering(), torch.enable_grad():
                # What was seen in inference mode can be used where a gradient is wanted.
                model.lm_head.weight.requires_grad_()
                model(**processor.tensors([text], [[photo(3)]])).logits.sum().backward()
            assert vision.computed == 3
            vision.forget()
            assert torch.equal(model(**batch).logits, expected), "afterwards the model is its own again"


def test_the_policy_stays_in_fp32_on_a_4_bit_base(shop: CatalogFolder, tmp_path: Path, tiny_model: Any) -> None:
    model = str(tiny_model("qwen2_vl"))
    tiny = {"model.generator": model, "model.embedder": model, "model.precision": "nf4", "rar.from_base": True}
    rig = make_rig(shop, rar_settings(**SMALL, **tiny), tmp_path)
    trained = [parameter for parameter in rig.peft.parameters() if parameter.requires_grad]
    assert trained and {parameter.dtype for parameter in trained} == {torch.float32}


def test_every_query_has_its_turn() -> None:
    order = query_order(10, batches=6, size=4, seed=1)
    batches = [order[i : i + 4] for i in range(0, 24, 4)]
    assert all(len(set(batch)) == 4 for batch in batches)
    assert all(len(set(batches[i] + batches[i + 1])) == 8 for i in (0, 2, 4)), "one time round holds nobody twice"
    assert order[:8] != order[8:16] and order == query_order(10, 6, 4, 1) != query_order(10, 6, 4, 2)
    assert query_order(2, 3, 2, 0) and np.unique(query_order(10, 60, 4, 0)).size == 10


def test_the_watchdog() -> None:
    dog = Watchdog(0.1)
    assert [dog.rollouts(share) for share in (0.9, 0.5, 0.9, 0.9, 0.9)] == [""] * 5, "one bad step is no collapse"
    assert dog.rollouts(0.8) == "" and "sampled answers 7" in dog.rollouts(0.4)
    dog = Watchdog(0.1)
    assert dog.held_out(1.0, 0.6, "mrr") == "" == dog.held_out(0.95, 0.51, "mrr")
    assert "held-out mrr is 0.490, it was 0.600" in dog.held_out(0.95, 0.49, "mrr")
    assert "held-out answers 80% are valid, 100%" in dog.held_out(0.8, 0.7, "mrr")
    hopeless = Watchdog(0.1)
    assert [hopeless.rollouts(0.0) == "" and hopeless.any_valid() for _ in range(3)] == [True, True, False]
