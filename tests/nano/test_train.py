"""The training on a very small model: steps of every stage, interruption, and the fast forward against the real one."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from nano_training.batches import BatchSampler, all_values, label_of, shake, tokenizer_texts
from nano_training.model import build_config, build_processor, build_tokenizer
from nano_training.pool import PoolPlan, make_pool, pool_garments
from nano_training.rows import Row, patches_of, read_rows, vision_forward
from nano_training.train import PHONE, Lessons, Plan, Trainer, pair_loss
from PIL import Image
from transformers import Qwen2VLForConditionalGeneration

POOL = PoolPlan(styles=12, studio=2, phone=1, seed=9)


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer(tokenizer_texts(listings=300))


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    return make_pool(tmp_path_factory.mktemp("pool"), POOL, processes=1)


def small(tokenizer):
    torch.manual_seed(0)
    return Qwen2VLForConditionalGeneration(build_config(tokenizer, width=64, layers=1, depth=1))


def trainer(tokenizer, pool, folder: Path, steps=(2, 2, 2, 2), first=0) -> Trainer:
    folder.mkdir(exist_ok=True)
    plan = Plan(steps=steps, batch_vision=8, batch_answer=6, batch_both=6, batch_phone=6)
    lessons = Lessons(BatchSampler(pool_garments(POOL), POOL, tokenizer, seed=0), pool)
    return Trainer(small(tokenizer), lessons, lessons, plan, folder, first=first)


def weights(one: Trainer) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in one.model.state_dict().items()}


@pytest.mark.slow
def test_interrupted_training_ends_with_the_same_weights(tokenizer, pool, tmp_path):
    whole = trainer(tokenizer, pool, tmp_path / "whole")
    before = weights(whole)
    whole.run()
    after = weights(whole)
    assert whole.stage == 4
    assert any((before[name] != after[name]).any() for name in before if "visual" in name)
    assert any((before[name] != after[name]).any() for name in before if "language_model" in name)

    saved = trainer(tokenizer, pool, tmp_path / "saved")
    saved.run(stop_after=3)
    saved.save()
    saved = trainer(tokenizer, pool, tmp_path / "saved")
    assert (saved.stage, saved.step) == (1, 1)
    saved.run()
    # Killed without a word: what stands on disk is the checkpoint at the start of the third stage.
    killed = trainer(tokenizer, pool, tmp_path / "killed")
    killed.run(stop_after=5)
    killed = trainer(tokenizer, pool, tmp_path / "killed")
    assert (killed.stage, killed.step) == (2, 0)
    killed.run()
    for resumed in (saved, killed):
        for name, value in weights(resumed).items():
            assert torch.equal(value, after[name]), name


def test_first_stage_leaves_the_language_model_alone(tokenizer, pool, tmp_path):
    one = trainer(tokenizer, pool, tmp_path, steps=(2, 0, 0, 0))
    before = weights(one)
    one.run(stop_after=2)
    same = {name for name, value in weights(one).items() if torch.equal(value, before[name])}
    assert all("visual" not in name for name in same)
    assert all("visual" in name for name in set(before) - same)


@pytest.mark.slow
def test_a_few_steps_on_one_batch_bring_every_loss_down(tokenizer, pool, tmp_path):
    one = trainer(tokenizer, pool, tmp_path, steps=(1, 1, 400, 1))
    one.stage = 2
    one.optimizer = one._optimizer()
    batch = one.lessons.sampler.batch(0, 6, pairs=6)
    one._batch = lambda: batch  # type: ignore[method-assign]
    first = one._one_step()
    for _ in range(60):
        last = one._one_step()
    assert last["answer"] < 0.5 * first["answer"]
    assert last["pairs"] < first["pairs"]


def test_the_last_stage_begins_the_same_with_a_model_as_after_the_others(tokenizer, pool, tmp_path):
    whole = trainer(tokenizer, pool, tmp_path / "whole", steps=(1, 1, 1, 2))
    whole.run(stop_after=3)
    last = trainer(tokenizer, pool, tmp_path / "last", steps=(1, 1, 1, 2), first=PHONE)
    last.model.load_state_dict(whole.model.state_dict())
    last._begin()
    whole.run()
    last.run()
    for name, value in weights(whole).items():
        assert torch.equal(value, weights(last)[name]), name


def test_the_log_is_json_lines(tokenizer, pool, tmp_path):
    one = trainer(tokenizer, pool, tmp_path, steps=(25, 1, 1, 1))
    one.run()
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert {key: lines[0][key] for key in ("stage", "step")} == {"stage": "vision", "step": 25}
    assert set(all_values()) <= set(lines[0])
    assert sum(line.get("event") == "stage done" for line in lines) == 4


@pytest.mark.slow
def test_pool_is_the_same_however_it_was_drawn(pool, tmp_path):
    half = make_pool(tmp_path, POOL, processes=2)
    assert (np.asarray(half) == np.asarray(pool)).all()
    (tmp_path / "pool-12x1+1-seed9.json").write_text('{"done": []}')  # a killed run's: nothing is known to be whole
    again = make_pool(tmp_path, POOL, processes=1)
    assert (np.asarray(again) == np.asarray(pool)).all()


def test_batches_depend_on_the_step_alone(tokenizer):
    one, other = (BatchSampler(pool_garments(POOL), POOL, tokenizer, seed=0) for _ in range(2))
    other.batch(1, 6, pairs=6)
    a, b = one.batch(7, 6, pairs=6), other.batch(7, 6, pairs=6)
    assert (a.answers, a.queries, a.targets) == (b.answers, b.queries, b.targets)
    assert (a.photos == b.photos).all()


def test_pairs_never_share_a_picture_and_always_have_one(tokenizer):
    sampler = BatchSampler(pool_garments(POOL), POOL, tokenizer, seed=0)
    for step in range(40):
        batch = sampler.batch(step, 6, pairs=6)
        for query, target in zip(batch.queries, batch.targets, strict=True):
            assert query.pictures or target.pictures
            assert not set(query.pictures) & set(target.pictures)


def test_photos_by_phone_are_answered_and_in_no_pair(tokenizer):
    sampler = BatchSampler(pool_garments(POOL), POOL, tokenizer, seed=0)
    answered = 0
    for step in range(20):
        batch = sampler.batch(step, 6, pairs=3)
        by_phone = {n for n, photo in enumerate(batch.photos) if photo % POOL.photos >= POOL.studio}
        assert len(batch.queries) == len(batch.targets) == 3
        for row in batch.queries + batch.targets:
            assert not by_phone & set(row.pictures)
        answered += sum(bool(by_phone & set(row.pictures)) for row in batch.answers)
    assert answered > 40


def test_labels_name_the_values(tokenizer):
    for garment in pool_garments(POOL):
        labels = dict(zip(all_values(), label_of(garment), strict=True))
        named = {key: all_values()[key][n] for key, n in labels.items() if n >= 0}
        assert named == garment.attributes()


def test_shaking_moves_and_mirrors_but_keeps_the_pixels(pool):
    photos = np.asarray(pool[:6])
    moved = shake(photos, 0, 1)
    assert (moved != photos).any()
    assert (np.sort(moved, axis=None) == np.sort(photos, axis=None)).all()


def test_pair_loss_by_hand():
    queries = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    targets = torch.tensor([[3.0, 0.0], [0.0, 1.0]])
    # Cosines 1 on the diagonal and 0 off it: -log(e^1 / (e^1 + e^0)) in both directions at temperature 1.
    assert pair_loss(queries, targets, 1.0).item() == pytest.approx(np.log(1 + np.exp(-1)), abs=1e-6)


def test_the_fast_forward_is_the_models_own(tokenizer, pool):
    model, processor = small(tokenizer), build_processor(tokenizer)
    photos = [Image.fromarray(np.asarray(pool[n])) for n in range(3)]
    slot = "<|vision_start|><|image_pad|><|vision_end|>"
    texts = [f"{slot}{slot}two pictures of a dress", f"a {slot} and words after it", "words alone"]
    inputs = processor(text=texts, images=[photos[:2], photos[2:], []], padding=True, return_tensors="pt")
    with torch.no_grad():
        own = model.model(**inputs).last_hidden_state
        logits = model(**inputs).logits
        seen = vision_forward(model.model.visual, patches_of(np.stack([np.asarray(pool[n]) for n in range(3)])))
        tokens = [ids[mask.bool()].tolist() for ids, mask in zip(inputs.input_ids, inputs.attention_mask, strict=True)]
        rows = [Row(tokens[0], [0, 1], 4), Row(tokens[1], [2]), Row(tokens[2], [])]
        last, predicting, wanted = read_rows(model, rows, seen, chunk=2)
    assert (last - own[:, -1]).abs().max() < 1e-5
    assert (predicting - own[0, -5:-1]).abs().max() < 1e-5
    assert wanted.tolist() == tokens[0][-4:]
    again = predicting @ model.model.language_model.embed_tokens.weight.T
    assert (again - logits[0, -5:-1]).abs().max() < 1e-5
