"""The page of a run of `train-vision`: curves, and where pooler and language model attend."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lxml import html
from PIL import Image

from afmrl_cli.listener import Silent
from afmrl_cli.models.base import Bases
from afmrl_cli.saga.anchoring import teacher_attention
from afmrl_cli.saga.learn import attention_of
from afmrl_cli.saga.maps import Answer, Map, Mapped, answer_about, by_chance, mapped_photos, one_by_class, partner
from afmrl_cli.saga.page import MOST_POINTS, PAGE, draw_charts, scale_of, thinned, write_page
from afmrl_cli.saga.photos import LabelledPhoto, PhotoSet
from afmrl_cli.saga.plan import Plan
from afmrl_cli.saga.replay import pack_groups
from afmrl_cli.saga.run import VISION, load_judge, make_saga
from afmrl_cli.store.folder import CatalogFolder
from afmrl_cli.training.pairs import Photo
from afmrl_cli.training.shell import start_job
from afmrl_cli.vision_settings import VisionSettings
from afmrl_cli.workspace import Workspace
from tests.cli.calls import call, document
from tests.saga.small import make_small
from tests.saga.test_run import PLAIN, SMALL, MakeSettings, plan_of, run

MakeModel = Callable[[str], Path]
MARKUP = '<script>alert("1")</script> & more'


def parsed(folder: Path) -> Any:
    """The page in `folder`, which holds no script and asks nobody for anything."""
    page = html.parse(folder / PAGE).getroot()
    assert not page.xpath("//script | //link | //iframe | //@onload | //@onclick")
    asked = page.xpath("//@src | //@href")
    assert asked and all(re.match("data:image/jpeg;base64,|#photo-[0-9]+$", each) for each in asked)
    return page


def maps_of(page: Any, name: str) -> list[list[float]]:
    """The shares of every map of that name, as they stand in the page."""
    return [
        [float(title.partition(",")[0]) for title in each.xpath(".//rect/title/text()")]
        for each in page.xpath(f"//g[@class='{name}']")
    ]


def test_a_run_by_metric_learning_alone_shows_its_curves_and_the_pooler_on_ten_photos(
    shop: CatalogFolder, settings: MakeSettings
) -> None:
    summary = run(shop, settings(**SMALL | PLAIN))
    page = parsed(summary.run)
    assert page.xpath("//figcaption/b/text()")[:2] == ["metric learning", "validation"], "nothing was asked"
    rows = [json.loads(line) for line in (summary.run / "metrics.jsonl").read_text().splitlines()]
    lines = [each.split() for each in page.xpath("//polyline/@points")]
    assert [len(line) for line in lines] == [4, 3, 3], "steps, recall@1, recall@4"
    heights = [float(each.split(",")[1]) for each in lines[0]]
    losses = [row["metric"] for row in rows if "metric" in row]
    assert np.argsort(heights).tolist() == np.argsort(losses)[::-1].tolist(), "what is higher stands above"
    betas = maps_of(page, "beta")
    assert len(betas) == len(page.xpath("//image")) == 10 and not maps_of(page, "alpha")
    assert all(sum(beta) == pytest.approx(1, abs=1e-4) and len(beta) == 4 for beta in betas)
    assert len(set(page.xpath("//h3/text()"))) == min(
        10, len(plan_of(shop, settings(**SMALL)).photos.validation.classes)
    )
    best, before = summary.details["metrics"]["recall@1"], summary.details["before"]["recall@1"]
    assert page.xpath("//p[@class='lead']/b/text()") == [f"{100 * best:.1f} %", f"{100 * before:.1f} %"]


def test_the_command_names_the_page(shop: CatalogFolder, tiny_model: MakeModel, monkeypatch: Any) -> None:
    monkeypatch.chdir(shop.root)
    own = {**SMALL, **PLAIN, "vision.steps": 1, "model.generator": tiny_model("qwen2_vl"), "model.device": "cpu"}
    words = ["train-vision", *(word for key, value in own.items() for word in ("--set", f"{key}={value}"))]
    dry = document(*words, "--dry-run")
    assert "page" not in dry and not Path(dry["run"]).exists()
    page = Path(document(*words)["page"])
    assert page.name == PAGE and page.is_file()
    assert str(page) in call(*words).output.replace("\n", ""), "of a run that was done before, too"


def test_where_pairs_are_asked_about_ten_answers_are_shown_always_the_same(
    shop: CatalogFolder, settings: MakeSettings, tmp_path: Path
) -> None:
    job = start_job(VISION, Workspace(shop, settings(**SMALL | {"vision.rollout_answers": 8}), Silent()))
    plan: Plan = VISION.plan(job).content
    saga, tower = make_saga(job, plan, load_judge(job, plan, Bases()))
    tower.eval()
    photos = mapped_photos(saga, plan)
    assert photos == mapped_photos(saga, plan) and len(photos) == 10
    answers = [each.answer for each in photos]
    assert [each.same for each in answers if each] == [True, False] * 5
    assert all((each.of == each.answer.of) == each.answer.same for each in photos if each.answer)
    (tmp_path / "metrics.jsonl").write_text(
        '{"step": 0, "eval_recall@1": 0.5, "eval_recall@4": 0.6}\n'
        '{"step": 1, "loss": 2, "metric": 1, "grpo": -0.5, "anchoring": 1.5, "pairs": 4, "differing": 3, "right": 1}\n'
    )
    write_page(tmp_path, "catalog.csv", plan, 1, saga.layer + 1, photos)
    page = parsed(tmp_path)
    assert page.xpath("//pre/text()") == [each.text or "(nothing)" for each in answers if each]
    losses = ["all losses", "metric learning", "GRPO", "anchoring"]
    assert page.xpath("//div[@class='charts']//b/text()") == [*losses, "validation", "answers"]


def test_what_shop_and_generator_wrote_is_text_in_the_page(
    shop: CatalogFolder, settings: MakeSettings, tmp_path: Path, tiny_model: MakeModel
) -> None:
    small = make_small(tiny_model("qwen2_vl"), tmp_path)
    one, two = small.batch.pictures[:2]
    answer = Answer(two, MARKUP, False, MARKUP, "wrong", Map(2, 2, [0.7, 0.1, 0.1, 0.1]))
    shown = Mapped(one, MARKUP, MARKUP, Map(2, 2, [0.25] * 4), answer)
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": 2, "metric": 1, "grpo": -0.5, "anchoring": 0.1}\n')
    write_page(tmp_path, MARKUP, plan_of(shop, settings(**SMALL)), 1, 3, [shown])
    page = parsed(tmp_path)
    assert page.xpath("//h3/text()") == [MARKUP] == page.xpath("//pre/text()")
    assert page.xpath("//p[text()=$listing]", listing=MARKUP)
    assert maps_of(page, "beta") == [[0.25] * 4] and maps_of(page, "alpha") == [[0.7, 0.1, 0.1, 0.1]]
    densities = [float(each) for each in page.xpath("//rect[@fill-opacity]/@fill-opacity")]
    assert densities[:4] == [0] * 4, "as mean pooling has it: the photo alone"
    assert densities[4] > densities[5] > 0 and densities[5] == densities[6]
    # 0.7 of four parts is 2.8 times the mean, so the scale ends at 3.
    assert "3 × and more" in page.xpath("//div[@class='ends']/span/text()")
    assert "2.80 × the mean" in page.xpath("//figure[last()]/figcaption")[-1].text_content()


def test_a_map_has_the_rows_and_columns_of_its_photo(
    shop: CatalogFolder, settings: MakeSettings, tiny_model: MakeModel, tmp_path: Path
) -> None:
    """A photo of 84 x 56 pixels is two rows of three tokens: what changes at the left of the second is the fourth."""
    small = make_small(tiny_model("qwen2_5_vl"), tmp_path)
    judge, wide = small.saga.judge, small.batch.pictures[1]
    assert wide.image is not None and wide.image.size == (84, 56)
    assert judge.processor.token_grid(wide.grid) == (2, 3)
    changed = np.asarray(wide.image).copy()
    changed[28:, :28] = 255
    with torch.no_grad():
        pictures = [wide, replace(wide, image=Image.fromarray(changed))]
        before, after = (small.saga.features(judge.vision.show([each]))[0] for each in pictures)
    assert int((after - before).norm(dim=1).argmax()) == 3
    shown = Mapped(wide, "a", "b", Map(2, 3, [0.1, 0.1, 0.1, 0.5, 0.1, 0.1]), None)
    (tmp_path / "metrics.jsonl").write_text("")
    write_page(tmp_path, "c", plan_of(shop, settings(**SMALL | PLAIN)), 1, 3, [shown])
    page = parsed(tmp_path)
    assert page.xpath("//g[@class='beta']/../@viewbox | //g[@class='beta']/../@viewBox") == ["0 0 3 2"]
    most = page.xpath("//g[@class='beta']/rect[@class='more']")
    assert [(each.get("x"), each.get("y")) for each in most] == [("0", "1")]


@pytest.mark.parametrize("architecture", ["qwen2_vl", "qwen3_5"])
def test_the_teachers_map_is_of_the_values_written_about_photo_1(
    architecture: str, tiny_model: MakeModel, tmp_path: Path
) -> None:
    small = make_small(tiny_model(architecture), tmp_path)
    saga, trunk = small.saga, small.saga.trunk
    with torch.no_grad():
        photos = small.photos()
    labelled = [LabelledPhoto(Photo(Path("x"), (1, 1), str(i)), "a", "a", label) for i, label in enumerate((0, 0, 1))]
    labelled += labelled
    asked = small.asked((3, 0), [0.0, 1.0])
    found = answer_about(saga, photos, asked, small.batch.pictures, labelled, ["cat", "dog"])
    assert (found.of, found.same, found.text, found.verdict) == ("cat", True, asked.texts[0], "cut off")
    assert found.alpha is not None and (found.alpha.rows, found.alpha.columns) == (2, 3)
    assert sum(found.alpha.shares) == pytest.approx(1, abs=1e-5)
    with torch.no_grad():
        packed = pack_groups([replace(asked.group, answers=asked.group.answers[:1])], photos, trunk, together=False)
        kept: list[torch.Tensor] = []
        attention = trunk.language_model.layers[saga.layer].self_attn
        hook = attention.register_forward_hook(lambda module, given, made: kept.append(made[1]))
        trunk.set_attn_implementation("eager")
        saga.judge.loaded.causal.model(**packed.inputs, use_cache=False)
        trunk.set_attn_implementation("sdpa")
        hook.remove()
    image = (packed.inputs["input_ids"][0] == trunk.config.image_token_id).nonzero()[:, 0]
    ends = [len(text) for text in saga.judge.texts_so_far(list(asked.group.answers[0]))]
    tokens = [i for i, end in enumerate(ends) if (ends[i - 1] if i else 0) < 2 and end > 0]
    weights = kept[0][0][:, [len(asked.group.prompt) + i for i in tokens]]
    assert torch.allclose(torch.tensor(found.alpha.shares), teacher_attention(weights, image[:6]), atol=1e-5)
    silent = replace(asked, read=[replace(each, first=(), second=()) for each in asked.read])
    assert attention_of(saga, photos, silent) == []
    assert answer_about(saga, photos, silent, small.batch.pictures, labelled, ["cat", "dog"]).alpha is None


def test_the_photos_are_of_different_products_and_classes_and_always_the_same() -> None:
    def photo(number: int, listing: str, label: int) -> LabelledPhoto:
        return LabelledPhoto(Photo(Path("x"), (1, 1), str(number)), listing, listing, label)

    photos = PhotoSet([photo(i, "abcdef"[i // 3], i // 6) for i in range(18)], ["x", "y", "z"])
    order = one_by_class(photos, by_chance(photos, 0))
    assert sorted(order) == list(range(18)) and order == one_by_class(photos, by_chance(photos, 0))
    assert order != one_by_class(photos, by_chance(photos, 1))
    for begin, end in ((0, 3), (3, 6)):
        assert {photos.photos[i].label for i in order[begin:end]} == {0, 1, 2}
    assert len({photos.photos[i].identity for i in order[:6]}) == 6, "before any product comes twice"
    for i in order:
        other = photos.photos[partner(photos, i, order)]
        assert other.label == photos.photos[i].label and other.listing != photos.photos[i].listing


def test_long_curves_are_means_and_shares_are_of_what_was_asked() -> None:
    points = [(float(i), float(i % 2)) for i in range(2 * MOST_POINTS)]
    assert len(thinned(points)) == MOST_POINTS and thinned(points)[3] == (6.5, 0.5)
    assert thinned([]) == [] and thinned(points[:5]) == points[:5]
    rows = [
        {"step": 1, "loss": 1.0, "pairs": 8.0, "differing": 2.0, "right": 0.5},
        {"step": 2, "loss": 3.0, "pairs": 0.0, "differing": 0.0},
    ]
    charts = {chart["title"]: chart for chart in draw_charts(rows, VisionSettings(), 2)}
    assert set(charts) == {"all losses", "answers"}, "what has no numbers has no chart"
    words = {line["name"]: line["words"] for line in charts["answers"]["lines"]}
    assert words["pairs whose answers differ"] == "from 25 % to 25 %" and words["right answers"] == "from 50 % to 50 %"
    assert [row["words"] for row in charts["all losses"]["rows"]] == ["1", "2", "3"]


def test_the_scale_of_maps_is_one_for_all() -> None:
    assert scale_of([Map(1, 4, [0.25] * 4)]) == 1.1 and scale_of([]) == 1.1
    assert scale_of([Map(1, 4, [0.25] * 4), Map(1, 4, [0.7, 0.1, 0.1, 0.1])]) == 3
    assert scale_of([Map(1, 100, [1.0] + [0.0] * 99)]) == 16
