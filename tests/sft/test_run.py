"""Whole runs of `train-sft` on a tiny model: what is learnt, what is written, going on after a kill."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import Qwen2VLModel
from typer.testing import CliRunner

from afmrl_cli.attributes.open_requests import open_request
from afmrl_cli.attributes.request import Generation
from afmrl_cli.attributes.task import load_task
from afmrl_cli.catalog.problems import Problems
from afmrl_cli.catalog.product import Product
from afmrl_cli.cli.app import app
from afmrl_cli.errors import AfmrlError, DataError, ModelError, UsageError
from afmrl_cli.listener import Silent
from afmrl_cli.models.base import Bases, Cache
from afmrl_cli.models.generator import LocalGenerator, load_generator
from afmrl_cli.models.presets import resolve_base
from afmrl_cli.settings import Settings
from afmrl_cli.sft.corpus import Example
from afmrl_cli.sft.plan import make_plan
from afmrl_cli.sft.run import train_sft
from afmrl_cli.sft.score import Score
from afmrl_cli.sft.targets import Target
from afmrl_cli.sft.trainer import IGNORED, Collator, SftTrainer, better, with_pictures
from afmrl_cli.store.checkpoints import Checkpoints
from afmrl_cli.store.files import hash_file, parse_json
from afmrl_cli.store.folder import CatalogFolder
from afmrl_cli.training.adapter import add_trainable, trainable
from afmrl_cli.training.parallel import World
from afmrl_cli.training.shell import TrainingSummary
from afmrl_cli.workspace import Workspace
from tests.conftest import kill_once
from tests.processes import copied, finished, kill_one, run_two
from tests.tiny import ARCHITECTURES, LINEAR_LAYERS
from tests.training.test_run import Heard

from .test_targets import corpus_of

MakeSettings = Callable[..., Settings]


def run(folder: CatalogFolder, settings: Settings, heard: Heard | None = None, **options: bool) -> TrainingSummary:
    summary = train_sft(Workspace(folder, settings, heard or Heard()), **options)
    assert summary is not None
    return summary


def metrics_of(summary: TrainingSummary) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (summary.run / "metrics.jsonl").read_text().splitlines()]


def weights(folder: CatalogFolder, name: str) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = load_file(folder.checkpoints / name / "adapter_model.safetensors")
    return found


def collator_of(folder: CatalogFolder, settings: Settings) -> tuple[Collator, LocalGenerator, list[Example]]:
    generator = load_generator(settings.model, settings.attributes, Checkpoints(folder.checkpoints))
    task = load_task(settings.attributes, folder.root)
    return Collator(generator, task, settings), generator, corpus_of(folder, settings).train[:3]


def test_the_prompt_is_generations_own(shop: CatalogFolder, settings: MakeSettings) -> None:
    """Token by token and pixel by pixel what generation reads, then the answer and the end of the turn."""
    chosen = settings(**{"attributes.keys.colour.description": "main one", "sft.columns": "attr_colour"})
    collate, generator, examples = collator_of(shop, chosen)
    batch = collate(examples)
    requests = [open_request(collate.task, example.product, chosen, Problems()) for example in examples]
    read: list[dict[str, torch.Tensor]] = []
    tensors = generator.vision.tensors

    def spy(*args: Any) -> dict[str, torch.Tensor]:
        read.append(tensors(*args))
        return read[-1]

    generator.vision.tensors = spy  # type: ignore[assignment, method-assign]
    generator.generate([request for request in requests if request is not None])
    by_rows = {tuple(_row(batch_, i)): batch_ for batch_ in read if batch_ for i in range(len(batch_["input_ids"]))}
    end = generator.processor.tokenizer.convert_tokens_to_ids("<|im_end|>")
    for i, example in enumerate(examples):
        answer = [*generator.processor.tokenizer(example.target.text)["input_ids"], end]
        row = _row(batch, i)
        assert row[-len(answer) :] == answer
        assert tuple(row[: -len(answer)]) in by_rows
        labels = batch["labels"][i].tolist()
        assert labels == [IGNORED] * (len(labels) - len(answer)) + answer and labels[0] == IGNORED
    shown = with_pictures(batch, generator)["pixel_values"]
    assert {len(r["pixel_values"]) for r in read if r} == {len(shown)}
    pixels = torch.cat([r["pixel_values"] for r in read if r]).flatten().sort().values
    assert torch.equal(pixels, shown.flatten().sort().values)


def _row(batch: dict[str, torch.Tensor], i: int) -> list[int]:
    ids: list[int] = batch["input_ids"][i][batch["attention_mask"][i] == 1].tolist()
    return ids


def test_the_loss_is_that_of_the_answer_alone(shop: CatalogFolder, settings: MakeSettings) -> None:
    collate, generator, examples = collator_of(shop, settings())
    model = add_trainable(generator, settings().sft, None, Checkpoints(shop.checkpoints), "CAUSAL_LM").eval()
    batch = collate(examples)
    with torch.no_grad():
        loss = model(**with_pictures(batch, generator)).loss.item()
        total, number = 0.0, 0
        for example in examples:  # one by one, scores of all positions
            alone = collate([example])
            answer = (alone["labels"] != IGNORED).sum().item()
            inputs = {k: v for k, v in with_pictures(alone, generator).items() if k not in ("labels", "logits_to_keep")}
            scores = model(**inputs).logits[0].log_softmax(-1)
            ids = alone["input_ids"][0]
            for at in range(len(ids) - answer, len(ids)):
                total -= scores[at - 1, ids[at]].item()
                number += 1
    assert loss == pytest.approx(total / number, rel=1e-5)


def test_a_run_teaches_and_attributes_uses_it(shop: CatalogFolder, settings: MakeSettings) -> None:
    """One answer for all is soon learnt by heart, photos or not: from nothing valid to everything right."""
    changes: dict[str, object] = {
        "sft.columns": "attr_kind",
        "sft.steps": 24,
        "sft.validate_every": 12,
        "sft.learning_rate": 0.02,
        "attributes.max_new_tokens": 16,
    }
    text = shop.catalog.read_text().splitlines()
    shop.catalog.write_text("\n".join([text[0] + ",attr_kind", *(line + ",shirt" for line in text[1:])]) + "\n")
    heard = Heard()
    summary = run(shop, settings(**changes), heard)
    assert summary.checkpoint == "generator-1"
    assert (
        summary.details["before"]["accuracy"] == 0.0
        and summary.details["best"]["accuracy"] == summary.details["best"]["exact"] == 1.0
    )
    assert summary.details["best"]["keys"] == {
        "kind": {"references": summary.plan["validation_products"], "exact": 1, "accuracy": 1}
    }
    assert any("targets from columns kind" in line for line in heard.said)
    rows = metrics_of(summary)
    assert [row["step"] for row in rows if "loss" in row] == [*range(1, 25)]
    assert [row["step"] for row in rows if "eval_accuracy" in row] == [0, 12, 24]
    losses = [row["loss"] for row in rows if "loss" in row]
    assert losses[-1] < 0.2 * losses[0]
    assert {path.name.partition("-")[0] for path in summary.run.iterdir()} == {
        "best", "curve.svg", "done.json", "metrics.jsonl", "plan.json", "settings.json",
    }  # fmt: skip

    manifest = Checkpoints(shop.checkpoints).get("generator-1")
    assert manifest.role == "generator" and manifest.metrics["accuracy.kind"] == 1.0
    assert manifest.settings["sft"]["source"] == "columns"
    card = (shop.checkpoints / "generator-1" / "README.md").read_text()
    assert "train-sft" in card and str(shop.root) not in card
    _serves(shop, "generator-1")

    model = settings().model.generator
    words = ["--set", "model.device=cpu", "--set", "attributes.max_new_tokens=16", "--generator", model, "--json"]
    used = CliRunner().invoke(
        app, ["attributes", str(shop.root), *words, "--set", "model.generator_checkpoint=generator-1"]
    )
    assert used.exit_code == 0, used.output
    assert json.loads(used.stdout)["valid"] == 40
    again = run(shop, settings(**changes))
    assert again.already_done and again.checkpoint == "generator-1" and again.details == summary.details


def _serves(shop: CatalogFolder, name: str) -> None:
    """What vLLM asks of an adapter: a rank that it knows, linear layers of the language model only, plain LoRA."""
    config = json.loads((shop.checkpoints / name / "adapter_config.json").read_text())
    assert config["r"] in (8, 16, 32, 64, 128, 256, 320, 512) and config["task_type"] == "CAUSAL_LM"
    assert not config["use_dora"] and config["bias"] == "none" and not config["modules_to_save"]
    tensors = weights(shop, name)
    layer = r"base_model\.model\.model\.language_model\.layers\.\d+\.(self_attn|mlp)\.[a-z]+_proj\.lora_[AB]\.weight"
    assert len(tensors) == 2 * LINEAR_LAYERS and all(re.fullmatch(layer, key) for key in tensors)


def test_of_equals_the_one_with_more_valid_answers_is_kept() -> None:
    unparsable, parsable, right = ({"accuracy": a, "valid": v} for a, v in ((0.0, 0.1), (0.0, 1.0), (0.2, 0.5)))
    assert better(parsable, unparsable, "accuracy") and not better(unparsable, parsable, "accuracy")
    assert better(right, parsable, "accuracy") and not better(right, right, "accuracy")


@pytest.mark.slow
def test_killed_and_going_on_gives_the_same_weights(
    shop: CatalogFolder, settings: MakeSettings, tmp_path: Path
) -> None:
    shutil.copytree(shop.root, tmp_path / "other")
    other = CatalogFolder(tmp_path / "other" / "catalog.csv")
    chosen = settings(**{"sft.lora_dropout": 0.2, "sft.steps": 9, "sft.save_every": 2, "sft.validate_every": 4})
    whole = run(shop, chosen)

    kill_once(lambda: list(other.runs.glob("*/state-4")), lambda: run(other, chosen))
    assert not Checkpoints(other.checkpoints).list()
    heard = Heard()
    resumed = run(other, chosen, heard)
    assert resumed.resumed_from >= 4 and any("going on after step" in line for line in heard.said)
    for name, tensor in weights(shop, whole.checkpoint).items():
        assert torch.equal(weights(other, resumed.checkpoint)[name], tensor), name
    assert metrics_of(resumed) == metrics_of(whole)
    assert (resumed.details["before"], resumed.details["best"]) == (whole.details["before"], whole.details["best"])


def test_two_processes_learn_and_choose_what_one_does(
    shop: CatalogFolder, settings: MakeSettings, tmp_path: Path
) -> None:
    """Each has half of a step's answers in two chunks, of other lengths, and half of what is validated on."""
    both = copied(shop, tmp_path / "both")
    few = {"sft.batch_size": 8, "sft.steps": 2, "sft.validate_every": 2, "sft.validation_products": 5}
    chosen = settings(**{"sft.lora_dropout": 0.0, **few})
    one = run(shop, chosen)
    run_two(lambda: train_sft(Workspace(both, chosen, Silent())))
    two = finished(both)
    assert two.run.name != one.run.name, "with dropout the number of processes is part of the result"
    assert two.details["best"]["step"] == one.details["best"]["step"]
    assert (two.details["before"], two.details["best"]) == (one.details["before"], one.details["best"])
    for found, expected in zip(metrics_of(two), metrics_of(one), strict=True):
        assert found == pytest.approx(expected, rel=1e-3)
    for name, tensor in weights(shop, one.checkpoint).items():
        torch.testing.assert_close(weights(both, two.checkpoint)[name], tensor, atol=1e-4, rtol=1e-2)


def test_a_loss_that_is_no_number_in_one_process_ends_both(
    shop: CatalogFolder, settings: MakeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the products of the whole step, which the first process writes down."""
    plain = SftTrainer.compute_loss

    def broken(self: SftTrainer, *args: Any, **named: Any) -> Any:
        loss = plain(self, *args, **named)
        return loss if self.world.first or self.state.global_step < 1 else loss * float("nan")

    def work() -> None:
        with pytest.raises(ModelError, match=r"step 2: training broke down \(loss nan\) on products S"):
            train_sft(Workspace(shop, settings(), Silent()))

    monkeypatch.setattr(SftTrainer, "compute_loss", broken)
    run_two(work)
    (place,) = shop.runs.glob("*/failed-batch.json")
    assert len(parse_json(place.read_text())["products"]) == 4


@pytest.mark.slow
def test_one_of_two_processes_is_killed_and_both_go_on(
    shop: CatalogFolder, settings: MakeSettings, tmp_path: Path
) -> None:
    other = copied(shop, tmp_path / "other")
    chosen = settings(**{"sft.lora_dropout": 0.2, "sft.steps": 9, "sft.save_every": 2, "sft.validate_every": 4})
    run_two(lambda: train_sft(Workspace(shop, chosen, Silent())))
    kill_one(lambda: list(other.runs.glob("*/state-4")), lambda: train_sft(Workspace(other, chosen, Silent())))
    assert not Checkpoints(other.checkpoints).list()
    run_two(lambda: train_sft(Workspace(other, chosen, Silent())))
    whole, resumed = finished(shop), finished(other)
    assert metrics_of(resumed) == metrics_of(whole) and resumed.details == whole.details
    for name, tensor in weights(shop, whole.checkpoint).items():
        assert torch.equal(weights(other, resumed.checkpoint)[name], tensor), name


@pytest.mark.slow
def test_a_photo_is_encoded_once(shop: CatalogFolder, settings: MakeSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    """In two epochs and three looks at the validation products; a second run finds all of them stored, and gives the
    very weights of the first.
    """
    seen: list[int] = []
    look = Qwen2VLModel.get_image_features

    def spy(self: Any, pixel_values: Any, image_grid_thw: Any, *args: Any, **named: Any) -> Any:
        seen.append(len(image_grid_thw))
        return look(self, pixel_values, image_grid_thw, *args, **named)

    monkeypatch.setattr(Qwen2VLModel, "get_image_features", spy)
    changes: dict[str, object] = {"sft.steps": 0, "sft.epochs": 2, "sft.validate_every": 3}
    changes |= {"sft.max_products": 12, "sft.validation_products": 5}
    corpus = corpus_of(shop, settings(**changes))
    products = [example.product for example in corpus.train + corpus.validation]
    photos = {hash_file(path) for product in products for path in product.images}
    first = run(shop, settings(**changes))
    assert sum(seen) == len(photos) > 20
    second = run(shop, settings(**changes), force=True)
    assert sum(seen) == len(photos)
    trained = weights(shop, first.checkpoint)
    assert all(torch.equal(trained[name], tensor) for name, tensor in weights(shop, second.checkpoint).items())

    seen.clear()
    plain = run(shop, settings(**changes, **{"cache.vision": False}), force=True)
    assert sum(seen) > 2 * len(photos), "as without a store, in every epoch and every look"
    losses = [[row["loss"] for row in metrics_of(each) if "loss" in row] for each in (second, plain)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_gradients_with_stored_photos(
    name: str, shop: CatalogFolder, settings: MakeSettings, tmp_path: Path, tiny_model: Callable[[str], Path]
) -> None:
    chosen = settings(**{"model.generator": str(tiny_model(name)), "sft.lora_dropout": 0.0})
    cache, found = Cache(tmp_path / "cache", chosen.cache, Silent()), []
    examples = corpus_of(shop, chosen).train[:3]
    for bases in (Bases(), Bases(cache), Bases(cache)):
        checkpoints = Checkpoints(shop.checkpoints)
        generator = load_generator(chosen.model, chosen.attributes, checkpoints, bases=bases)
        model = add_trainable(generator, chosen.sft, None, checkpoints, "CAUSAL_LM").train()
        batch = Collator(generator, load_task(chosen.attributes, shop.root), chosen)(examples)
        loss = model(**with_pictures(batch, generator)).loss
        loss.backward()
        generator.vision.flush()
        slopes = {name: p.grad for name, p in trainable(model).items() if p.grad is not None}
        found.append((loss.item(), slopes, generator.vision.images_encoded))
    (plain, expected, _), (first, gradient, looked), (second, again, none) = found
    assert looked == len({hash_file(path) for each in examples for path in each.product.images}) and none == 0
    assert 0 < abs(first - plain) < 1e-3 * plain and first == second
    assert len(expected) == len(trainable(model))
    for parameter, slope in expected.items():
        assert (gradient[parameter] - slope).norm() <= 5e-3 * slope.norm(), parameter
        assert torch.equal(gradient[parameter], again[parameter])


def test_any_chunk_divides_a_step(shop: CatalogFolder, settings: MakeSettings) -> None:
    def chunk(batch: int, most: int, processes: int = 1) -> int:
        chosen = settings(**{"sft.batch_size": batch, "sft.chunk_size": most})
        base = resolve_base(chosen.model, "generator")
        plan = make_plan(corpus_of(shop, chosen), load_task(chosen.attributes, shop.root), chosen, base)
        return plan.chunk(World(0, processes))

    assert [chunk(8, 4), chunk(6, 4), chunk(5, 4), chunk(2, 4)] == [4, 3, 1, 2]
    assert [chunk(8, 8, 2), chunk(12, 4, 2)] == [4, 3], "of what a process has of it"
    with pytest.raises(UsageError, match=r"sft\.batch_size = 9 can't be divided among 2 processes"):
        chunk(9, 4, 2)


@pytest.mark.slow
def test_the_chunk_size_changes_memory_not_the_result(shop: CatalogFolder, settings: MakeSettings) -> None:
    """The loss counts tokens over the whole step; another chunk also draws other dropout, which is off here."""
    changes: dict[str, object] = {"sft.lora_dropout": 0.0, "sft.steps": 3, "split.validation": 0.0}
    small = run(shop, settings(**changes, **{"sft.chunk_size": 1}))
    rows = metrics_of(small)
    large = run(shop, settings(**changes, **{"sft.chunk_size": 4}), force=True)
    assert large.run == small.run and large.checkpoint != small.checkpoint
    for one, other in zip(rows, metrics_of(large), strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-4)


def test_without_validation_products(shop: CatalogFolder, settings: MakeSettings) -> None:
    heard = Heard()
    summary = run(shop, settings(**{"split.validation": 0.0, "sft.steps": 2}), heard)
    assert summary.checkpoint and summary.details["best"] == {}
    assert any("the last step's adapter is kept" in line for line in heard.said)


@pytest.mark.slow
def test_killed_before_the_checkpoint_was_stored(
    shop: CatalogFolder, settings: MakeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last step is done and saved: the next run only finishes, with the adapter that was trained."""
    changes: dict[str, object] = {"split.validation": 0.0, "sft.steps": 2}
    whole = run(shop, settings(**changes))
    trained = weights(shop, whole.checkpoint)
    shutil.rmtree(whole.run)
    shutil.rmtree(shop.checkpoints)

    def die(*args: Any) -> None:
        raise RuntimeError("dead")

    monkeypatch.setattr(Checkpoints, "add", die)
    with pytest.raises(RuntimeError, match="dead"):
        run(shop, settings(**changes))
    monkeypatch.undo()
    finished = run(shop, settings(**changes))
    assert finished.resumed_from == 2 and finished.checkpoint == "generator-1"
    for name, tensor in weights(shop, "generator-1").items():
        assert torch.equal(trained[name], tensor), name


@pytest.mark.slow
def test_four_bits(shop: CatalogFolder, settings: MakeSettings) -> None:
    """QLoRA: the base in NF4 learns as the fp32 one does, and the adapter is the same plain one."""
    changes: dict[str, object] = {"split.validation": 0.0, "sft.steps": 3, "sft.columns": "attr_colour"}
    full = run(shop, settings(**changes))
    quantised = run(shop, settings(**changes, **{"model.precision": "nf4"}))
    assert quantised.run != full.run
    losses = [[row["loss"] for row in metrics_of(each)] for each in (full, quantised)]
    assert losses[1] == pytest.approx(losses[0], rel=0.1) and losses[1][-1] < losses[1][0]
    assert weights(shop, quantised.checkpoint).keys() == weights(shop, full.checkpoint).keys()
    assert {tensor.dtype for tensor in weights(shop, quantised.checkpoint).values()} == {torch.float32}


@pytest.mark.slow
def test_going_on_from_a_checkpoint(shop: CatalogFolder, settings: MakeSettings) -> None:
    first = run(shop, settings(**{"sft.steps": 2}))
    more: dict[str, object] = {"model.generator_checkpoint": first.checkpoint, "sft.steps": 3, "sft.name": "second"}
    second = run(shop, settings(**more))
    assert Checkpoints(shop.checkpoints).get("second").parent == first.checkpoint
    assert metrics_of(second)[1]["loss"] < metrics_of(first)[1]["loss"], "it starts where that was"
    with pytest.raises(ModelError, match="'second' exists already"):
        run(shop, settings(**more, **{"sft.seed": 1}))


def test_dry_run_trains_nothing(shop: CatalogFolder, settings: MakeSettings) -> None:
    summary = run(shop, settings(), dry_run=True)
    assert summary.estimate is not None and summary.estimate.peak_bytes > 0
    assert summary.estimate.whole_seconds == pytest.approx(6 * summary.estimate.step_seconds)
    assert summary.plan["steps"] == 6 and not summary.run.exists() and not shop.checkpoints.exists()


def test_a_photo_that_is_broken_is_reported_and_left_out(shop: CatalogFolder, settings: MakeSettings) -> None:
    corpus = corpus_of(shop, settings())
    product = corpus.train[0].product
    product.images[0].write_bytes(b"no photo")
    heard = Heard()
    assert run(shop, settings(**{"sft.steps": 1}), heard).checkpoint
    assert any("unreadable image" in line and product.images[0].name in line for line in heard.said)


BAD: list[tuple[dict[str, object], type[AfmrlError], str]] = [
    ({"sft.source": "teacher"}, DataError, "no attributes by a teacher"),
    ({"model.generator_checkpoint": "generator-9"}, ModelError, "no checkpoint 'generator-9'"),
    ({"attributes.keys.colour.values": ["mauve"]}, DataError, "outside schema"),
]


@pytest.mark.parametrize(("changes", "kind", "message"), BAD)
def test_bad_input(
    shop: CatalogFolder, settings: MakeSettings, changes: dict[str, object], kind: type[AfmrlError], message: str
) -> None:
    with pytest.raises(kind, match=message) as error:
        run(shop, settings(**changes))
    assert error.value.hint and "\n" not in str(error.value)
    assert not shop.runs.exists()


def test_words_that_the_base_cannot_tell_apart(shop: CatalogFolder, settings: MakeSettings) -> None:
    """None at random weights; two rows of the output layer made the same are found, and reported."""
    from afmrl_cli.sft.vocabulary import indistinct, warn_of_indistinct

    _, generator, _ = collator_of(shop, settings())
    answers = [example.target.text for example in corpus_of(shop, settings()).train]
    assert indistinct(generator, answers) == (0.0, [])
    tokens = generator.processor.tokenizer(": ;")["input_ids"]
    with torch.no_grad():
        head = generator.loaded.causal.get_output_embeddings().weight
        head[tokens[1]] = 2 * head[tokens[0]]
    share, words = indistinct(generator, answers)
    assert share > 0.1
    heard = Heard()
    warn_of_indistinct(generator, answers, heard)
    assert len(heard.said) == 1 and all(word in heard.said[0] for word in words)


def test_metrics(shop: CatalogFolder, settings: MakeSettings) -> None:
    """By hand: two products, three pairs, one answer that the parser refuses."""
    keys = {"attributes.keys.colour.values": ["Red", "blue"], "attributes.keys.material.multiple": True}
    task = load_task(settings(**keys).attributes, shop.root)
    score = Score()
    first = Example(Product("1"), Target({"colour": "Red", "material": "wool, silk"}))
    score.add(Generation("Colour: red; material: silk, wool", False), 10, first, task)
    score.add(
        Generation("colour: blue; colour: red", False), 6, Example(Product("2"), Target({"colour": "blue"})), task
    )
    third = Example(Product("3"), Target({"colour": "blue"}))
    score.add(Generation("colour: blue; material: wool", False), 8, third, task)
    assert score.metrics() == {"accuracy": 3 / 4, "exact": 1 / 4, "valid": 2 / 3, "length": 8.0, "extra": 1 / 3}
    assert score.failures == {"repeated key": 1}
    assert score.by_key() == {
        "colour": {"references": 3, "exact": 1 / 3, "accuracy": 2 / 3},
        "material": {"references": 1, "exact": 0.0, "accuracy": 1.0},
    }
