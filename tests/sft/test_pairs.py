"""Teaching pairs: what is drawn, what is asked and answered, whole runs, and the checkpoint as a reranker."""

from __future__ import annotations

import re
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from afmrl_cli.attributes.request import Generation
from afmrl_cli.catalog.problems import Problems
from afmrl_cli.cli.app import app
from afmrl_cli.cycle.checks import choose_targets
from afmrl_cli.errors import AfmrlError, DataError, ModelError
from afmrl_cli.listener import Silent
from afmrl_cli.models.embed_input import Item
from afmrl_cli.models.generator import load_generator
from afmrl_cli.models.reranker import VERDICTS, Side, pair_text
from afmrl_cli.saga.adjudicator import adjudicate, judging, read_adjudication
from afmrl_cli.saga.pairs import fixed_pairs, values_of
from afmrl_cli.saga.photos import load_photos
from afmrl_cli.saga.verdicts import share_of_right
from afmrl_cli.settings import Settings
from afmrl_cli.sft.pair_score import CUT_OFF, NO_VERDICT, PairScore, near_chance
from afmrl_cli.sft.pairs import PairExample, PairPlan
from afmrl_cli.sft.run import SFT, train_sft
from afmrl_cli.sft.trainer import IGNORED, TARGETS, WEIGHTS, Collator, loss_of, with_pictures
from afmrl_cli.store.checkpoints import Checkpoints
from afmrl_cli.store.folder import CatalogFolder
from afmrl_cli.training.adapter import add_trainable
from afmrl_cli.training.shell import start_job
from afmrl_cli.workspace import Workspace
from tests.conftest import kill_once
from tests.processes import copied, finished, run_two
from tests.tiny import photo, tiny_settings
from tests.training.shop import write_shop
from tests.training.test_run import Heard

from .test_run import metrics_of, run, weights

MakeSettings = Callable[..., Settings]


@pytest.fixture
def shop(tmp_path: Path) -> CatalogFolder:
    """40 products of two listings with two photos each, no two photos the same."""
    root = write_shop(tmp_path / "shop", 40, listings_each=2)
    for i, path in enumerate(sorted((root / "images").iterdir())):
        photo(i).save(path)
    return CatalogFolder(root / "catalog.csv")


@pytest.fixture
def settings(tiny_model: Callable[[str], Path]) -> MakeSettings:
    """`settings(**{"sft.steps": 4})`: a tiny Qwen2-VL, fp32, taught pairs of one colour or of two."""
    return tiny_settings(
        tiny_model("qwen2_vl"),
        {
            "split.validation": 0.25,
            "split.test": 0.1,
            "vision.classes": "attr_colour",
            "vision.max_new_tokens": 96,
            "vision.validation_pairs": 6,
            "sft.source": "pairs",
            "sft.batch_size": 4,
            "sft.chunk_size": 2,
            "sft.steps": 4,
            "sft.validate_every": 2,
            "sft.save_every": 1,
        },
    )


def plan_of(folder: CatalogFolder, settings: Settings, heard: Heard | None = None) -> PairPlan:
    plan: PairPlan = SFT.plan(start_job(SFT, Workspace(folder, settings, heard or Heard()))).content
    return plan


@pytest.mark.slow
def test_two_processes_learn_from_pairs_what_one_does(
    shop: CatalogFolder, settings: MakeSettings, tmp_path: Path
) -> None:
    both = copied(shop, tmp_path / "both")
    chosen = settings(**{"sft.lora_dropout": 0.0, "sft.batch_size": 8, "sft.steps": 2})
    one = run(shop, chosen)
    run_two(lambda: train_sft(Workspace(both, chosen, Silent())))
    two = finished(both)
    assert (two.details["before"], two.details["best"]) == (one.details["before"], one.details["best"])
    for found, expected in zip(metrics_of(two), metrics_of(one), strict=True):
        assert found == pytest.approx(expected, rel=1e-3)
    for name, tensor in weights(shop, one.checkpoint).items():
        torch.testing.assert_close(weights(both, two.checkpoint)[name], tensor, atol=1e-4, rtol=1e-2)


def test_half_of_the_pairs_are_of_one_class_and_the_others_near(shop: CatalogFolder, settings: MakeSettings) -> None:
    plan = plan_of(shop, settings(**{"sft.steps": 200}))
    drawn = [plan[i] for i in range(len(plan))]
    asked = [example for example in drawn if example.question is not None]
    assert 0.05 < 1 - len(asked) / len(drawn) < 0.15, "one in ten is the reranker's question"
    assert 0.42 < np.mean([example.pair.same for example in asked]) < 0.58
    for example in asked:
        first, second = example.pair.first, example.pair.second
        assert example.pair.same == (first.label == second.label) == (first.pairs["colour"] == second.pairs["colour"])
        assert first != second and (first.listing != second.listing or not example.pair.same)
        found = read_adjudication(example.answer, plan.words)
        assert found.same is example.pair.same and len(found.first) == len(found.second) == 3
        differs = [key for key in first.pairs if first.pairs[key] != second.pairs[key]]
        assert example.answer.splitlines()[2].strip() == (", ".join(differs) or "none")
    wrong = [example.pair for example in asked if not example.pair.same]
    shared = np.mean([len(values_of(pair.first) & values_of(pair.second)) for pair in wrong])
    photos = plan.known.photos
    any_pair = [len(values_of(a) & values_of(b)) for a in photos[::7] for b in photos[::5] if a.label != b.label]
    assert shared > np.mean(any_pair) + 0.3, "the nearest of several"
    products = [example.pair for example in drawn if example.question is None]
    assert all(pair.same == (pair.first.identity == pair.second.identity) for pair in products)


def test_pairs_are_drawn_anew_and_the_same_each_time(shop: CatalogFolder, settings: MakeSettings) -> None:
    plan, again = (plan_of(shop, settings(**{"sft.steps": 200})) for _ in range(2))
    assert [plan[i].answer for i in range(50)] == [again[i].answer for i in range(50)]
    epoch = plan.num_firsts
    firsts = [Counter(id(photo) for photo in (plan[i].pair.first, plan[i].pair.second)) for i in range(epoch)]
    assert len(firsts) == len(plan.known.photos)
    first, second = ([plan[i + start].listings for i in range(epoch)] for start in (0, epoch))
    assert first != second
    with pytest.raises(IndexError):
        plan[len(plan)]
    orders = {example.pair.first.listing < example.pair.second.listing for example in map(plan.__getitem__, range(99))}
    assert orders == {True, False}


def test_the_validation_pairs_are_those_that_train_vision_asks(shop: CatalogFolder, settings: MakeSettings) -> None:
    plan = plan_of(shop, settings())
    pairs = fixed_pairs(plan.photos.validation, 6)
    assert [example.pair for example in plan.validation] == pairs
    assert [pair.same for pair in pairs] == [True, False] * 3
    assert fixed_pairs(plan.photos.validation, 6) == pairs
    many = fixed_pairs(plan.photos.validation, 10_000)
    assert len(many) == 2 * len(plan.photos.validation.photos)


def test_a_row_is_what_the_generator_or_the_reranker_reads(shop: CatalogFolder, settings: MakeSettings) -> None:
    chosen = settings(**{"sft.steps": 50})
    plan, work = plan_of(shop, chosen), Workspace(shop, chosen, Silent())
    generator = load_generator(chosen.model, judging(chosen), Checkpoints(shop.checkpoints))
    collate = Collator(generator, work.task, chosen)
    asked = next(each for each in map(plan.__getitem__, range(200)) if each.question is not None)
    short = next(each for each in map(plan.__getitem__, range(200)) if each.question is None)
    batch = collate([asked, short])
    written: list[str] = []
    generate = generator.text
    generator.text = lambda request: written.append(generate(request)) or written[-1]  # type: ignore[method-assign, func-returns-value]
    shown = (asked.pair.first.photo.path, asked.pair.second.photo.path)
    adjudicate(generator, plan.question, plan.words, [shown], chosen.catalog)
    assert asked.row(generator, work.task, chosen).prompt == written[0] and plan.question.prompt in written[0]
    row = short.row(generator, work.task, chosen)
    sides = [Side("", (picture,)) for picture in row.photos]
    assert row.prompt == pair_text(generator.processor, plan.words, (sides[0], sides[1]))
    assert row.answer == plan.words[0 if short.pair.same else 1]
    sums = batch[WEIGHTS].sum(1).tolist()
    assert sums == pytest.approx([1, 1]) and not (batch[WEIGHTS][batch[TARGETS] == IGNORED]).any()


def test_each_line_weighs_the_same(shop: CatalogFolder, settings: MakeSettings) -> None:
    """By hand: the mean over answers, over lines, over the tokens of a line; and a line break ends its line."""
    chosen = settings()
    plan, work = plan_of(shop, chosen), Workspace(shop, chosen, Silent())
    generator = load_generator(chosen.model, judging(chosen), work.checkpoints)
    model = add_trainable(generator, chosen.sft, None, work.checkpoints, "CAUSAL_LM").eval()
    collate = Collator(generator, work.task, chosen)
    examples = [plan[i] for i in range(3)]
    tokenizer, total = generator.processor.tokenizer, 0.0
    with torch.no_grad():
        loss = loss_of(model, collate(examples), generator).item()
        for example in examples:
            inputs = with_pictures(collate([example]), generator)
            targets = inputs.pop(TARGETS)[0]
            inputs.pop(WEIGHTS)
            scores = model(**inputs).logits[0].log_softmax(-1)
            lines: list[list[float]] = [[]]
            for at in range(1, len(targets)):
                lines[-1].append(-scores[at - 1, targets[at]].item())
                if "\n" in tokenizer.decode([targets[at]]):
                    lines.append([])
            assert len(lines) == len(example.answer.split("\n"))
            total += float(np.mean([np.mean(line) for line in lines])) / len(examples)
    assert loss == pytest.approx(total, rel=1e-4)


def test_metrics_by_hand(shop: CatalogFolder, settings: MakeSettings) -> None:
    plan = plan_of(shop, settings())
    different = next(each for each in plan.validation if not each.pair.same)
    first = different.answer.splitlines()[0]
    score = PairScore()
    score.add(Generation(different.answer.strip(), False), 10, different)
    score.add(Generation(f"{first}\n{first}\n none\n {plan.words[0]}", False), 8, different)
    score.add(Generation(first, True), 3, different)
    score.add(Generation("", False), 3, different)
    found = score.metrics()
    assert (found["accuracy"], found["exact"], found["valid"], found["length"]) == (1 / 4, 1 / 4, 2 / 4, 6.0)
    assert score.failures == {CUT_OFF: 1, NO_VERDICT: 1}
    one, other = different.pair.first.pairs, different.pair.second.pairs
    alike = sum(one[key] == other[key] for key in other)
    assert found["attributes"] == pytest.approx((6 + 3 + alike) / 24)
    assert score.by_key()["colour"]["references"] == 8


def test_what_may_be_luck() -> None:
    assert near_chance(0.5, 10_000) and near_chance(0.56, 100) and near_chance(0.75, 8)
    assert not near_chance(0.75, 100) and not near_chance(0.6, 200)


@pytest.mark.slow
def test_killed_and_going_on_gives_the_same_weights(
    shop: CatalogFolder, settings: MakeSettings, tmp_path: Path
) -> None:
    shutil.copytree(shop.root, tmp_path / "other")
    other = CatalogFolder(tmp_path / "other" / "catalog.csv")
    chosen = settings(**{"sft.lora_dropout": 0.2, "sft.steps": 7, "sft.validate_every": 3})
    whole = run(shop, chosen)
    kill_once(lambda: list(other.runs.glob("*/state-3")), lambda: run(other, chosen))
    resumed = run(other, chosen)
    assert resumed.resumed_from >= 3
    for name, tensor in weights(shop, whole.checkpoint).items():
        assert torch.equal(weights(other, resumed.checkpoint)[name], tensor), name
    assert metrics_of(resumed) == metrics_of(whole)
    assert resumed.details == whole.details and run(other, chosen).already_done


def test_a_run_leaves_a_generator_that_reranks(shop: CatalogFolder, settings: MakeSettings) -> None:
    """One adapter, three uses: it answers about pairs, as often right as validation said, and it is a reranker."""
    heard = Heard()
    summary = run(shop, settings(), heard)
    assert summary.plan["words"] in [list(pair) for pair in VERDICTS] and summary.plan["classes"] == ["attr_colour"]
    assert any("pairs of" in line and "columns colour, neckline, series" in line for line in heard.said)
    manifest = Checkpoints(shop.checkpoints).get(summary.checkpoint)
    assert manifest.role == "generator" and manifest.judges
    assert str(summary.plan["question"]) in (shop.checkpoints / summary.checkpoint / "README.md").read_text()

    used = settings(**dict.fromkeys(("model.generator_checkpoint", "model.reranker_checkpoint"), summary.checkpoint))
    work = Workspace(shop, used, Silent())
    photos, plan = load_photos(work, Problems()), plan_of(shop, settings())
    judge = load_generator(used.model, judging(used), work.checkpoints)
    found = share_of_right(judge, plan.question, plan.words, photos.validation, used, Silent())
    assert found.asked == 6 and found.right / found.asked == pytest.approx(summary.details["best"]["accuracy"])
    assert 1 - found.unreadable / found.asked == pytest.approx(summary.details["best"]["valid"])
    pair = photos.validation.photos[0].photo.path, photos.validation.photos[-1].photo.path
    reranker = work.reranker()
    assert list(reranker.words) == summary.plan["words"]
    assert np.isfinite(reranker.score([(Item("", pair[:1]), Item("", pair[1:]))])).all()
    single = run(shop, settings(**{"sft.source": "columns", "sft.steps": 1, "attributes.max_new_tokens": 48}))
    with pytest.raises(ModelError, match="belongs to the generator, not to the reranker"):
        Workspace(shop, settings(**{"model.reranker_checkpoint": single.checkpoint}), Silent()).reranker()


def test_a_generic_question_and_photos_without_products(shop: CatalogFolder, settings: MakeSettings) -> None:
    """Without two photos of a product there is no reranker's question, and the checkpoint is no reranker."""
    head, *rows = shop.catalog.read_text().splitlines()
    kept = [re.sub(r"\|images[^,]+", "", row) for row in rows if row.partition(",")[0].endswith("-0")]
    shop.catalog.write_text("\n".join([head, *kept]) + "\n")
    heard = Heard()
    plan = plan_of(shop, settings(**{"vision.prompt": "generic", "sft.steps": 20}), heard)
    assert not plan.reranks and "words" not in plan.describe(None)
    assert any("the reranker's question is not taught" in line for line in heard.said)
    examples: list[PairExample] = [plan[i] for i in range(len(plan))]
    assert all(example.question is plan.question and example.answer.count("\n") == 1 for example in examples)
    assert "colour" not in plan.question.prompt


def test_a_dry_run_and_the_table(shop: CatalogFolder, tiny_model: Callable[[str], Path]) -> None:
    fixed = ["--generator", str(tiny_model("qwen2_vl")), "--source", "pairs", "--set", "vision.classes=attr_colour"]
    fixed += ["--steps", "1", "--batch-size", "2", "--set", "model.device=cpu", "--set", "vision.max_new_tokens=96"]
    words = ["train-sft", str(shop.root), *fixed, "--set", "vision.validation_pairs=2"]
    planned = CliRunner().invoke(app, [*words, "--dry-run"])
    assert planned.exit_code == 0, planned.output
    assert "measured:" in planned.output and not shop.runs.exists()
    trained = CliRunner().invoke(app, words)
    assert trained.exit_code == 0, trained.output
    assert "right verdicts" in trained.stdout and "neckline" in trained.stdout


def test_a_cycle_teaches_single_products(shop: CatalogFolder, settings: MakeSettings) -> None:
    assert choose_targets(Workspace(shop, settings(), Silent())) == "columns"


BAD: list[tuple[dict[str, object], type[AfmrlError], str]] = [
    (
        {"vision.max_new_tokens": 16},
        DataError,
        "attributes are known of photos of 0 classes.*longer than vision.max_new",
    ),
    ({"vision.classes": "", "attributes.keys.weight.values": ["light"]}, DataError, "0 classes.*no known attributes"),
    ({"vision.classes": "colr"}, AfmrlError, "'colr' is no column"),
]


@pytest.mark.parametrize(("changes", "kind", "message"), BAD)
def test_bad_input(
    shop: CatalogFolder, settings: MakeSettings, changes: dict[str, object], kind: type[AfmrlError], message: str
) -> None:
    with pytest.raises(kind, match=message) as error:
        run(shop, settings(**changes))
    assert error.value.hint and "\n" not in str(error.value) and not shop.runs.exists()
