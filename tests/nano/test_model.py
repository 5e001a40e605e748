"""The shipped nano model: opens with plain transformers, is small, and does what it is for."""

from random import Random

import numpy as np
import pytest
import torch
from nano_training.batches import listing_text
from nano_training.model import IMAGE_PIXELS, SPECIAL_TOKENS, load_nano, load_nano_processor
from nano_training.pool import phone_photo, training_photo
from nano_training.score import answers, recalls, value_scores, vectors
from PIL import Image
from transformers import AutoModel, AutoModelForImageTextToText, AutoTokenizer

from afmrl_cli.attributes.parse import parse_attributes
from afmrl_cli.attributes.prompt import attribute_prompt, chat_messages
from afmrl_cli.models.presets import nano_folder
from afmrl_cli.models.templates import QUERY_INSTRUCTION, TARGET_INSTRUCTION
from afmrl_cli.nano.garment import Garment, colour_variants, random_garment
from afmrl_cli.nano.render import render_photo


@pytest.fixture(scope="module")
def nano():
    return load_nano()


def photo(garment: Garment, number: int) -> Image.Image:
    return training_photo(garment, 1000 + number)


def test_weights_are_small_and_in_half_precision():
    path = nano_folder() / "model.safetensors"
    assert path.stat().st_size < 25_000_000
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        names = list(file.keys())
        assert {file.get_tensor(name).dtype for name in names} == {torch.float16}
    assert not any("lm_head" in name for name in names)  # tied to the embeddings


def test_plain_transformers_opens_the_folder():
    model = AutoModelForImageTextToText.from_pretrained(nano_folder(), dtype=torch.float32)
    assert type(model).__name__ == "Qwen2VLForConditionalGeneration"
    assert next(model.parameters()).dtype == torch.float32
    assert 5e6 < sum(p.numel() for p in model.parameters()) < 1e7
    assert model.config.text_config.max_position_embeddings >= 2048
    headless = AutoModel.from_pretrained(nano_folder())
    assert headless.dtype == torch.float32  # also when nobody asks
    assert torch.equal(headless.language_model.norm.weight, model.model.language_model.norm.weight)
    tokenizer = AutoTokenizer.from_pretrained(nano_folder())
    for token in SPECIAL_TOKENS:
        assert len(tokenizer(token, add_special_tokens=False)["input_ids"]) == 1
    assert (
        tokenizer.decode(tokenizer("Färska ägg, 12-pack; 3.5 × 2 €")["input_ids"]) == "Färska ägg, 12-pack; 3.5 × 2 €"
    )


def test_tokens_are_few():
    tokenizer = load_nano_processor().tokenizer
    assert len(tokenizer(attribute_prompt(""))["input_ids"]) <= 40
    listing = "Samsung wireless earbuds with charging case, 30 hour battery, black"
    assert len(tokenizer(listing)["input_ids"]) <= 20


def test_a_photo_of_any_size_costs_sixteen_tokens():
    processor = load_nano_processor()
    assert processor.tokenizer.padding_side == "left"
    text = processor.apply_chat_template(chat_messages("Which?", 1), add_generation_prompt=True, tokenize=False)
    for size in (112, 336, 448):
        picture = Image.new("RGB", (size, size), (200, 30, 30))
        inputs = processor(text=[text], images=[[picture]], return_tensors="pt")
        assert int((inputs["input_ids"] == processor.image_token_id).sum()) == 16
        assert inputs["image_grid_thw"].prod().item() * 14 * 14 == IMAGE_PIXELS


@pytest.mark.slow
def test_answers_on_new_products_parse_and_are_right(nano):
    model, processor = nano
    rng = Random("new products")
    garments = [random_garment(rng) for _ in range(60)]
    truth = [garment.attributes() for garment in garments]
    said = answers(model, processor, [""] * 60, [[photo(garment, 0)] for garment in garments])
    for text in said:
        parse_attributes(text)
    scores = value_scores(truth, said)
    assert scores["parseable"] == 1
    assert scores["micro"] >= 0.85, scores
    with_text = answers(
        model,
        processor,
        [listing_text(garment, rng, "Norrsken")[0] for garment in garments],
        [[photo(garment, 0), photo(garment, 1)] for garment in garments],
    )
    assert value_scores(truth, with_text)["micro"] >= 0.85
    by_phone = answers(model, processor, [""] * 60, [[phone_photo(garment, 1000)] for garment in garments])
    assert value_scores(truth, by_phone)["micro"] >= 0.75


def test_text_alone_is_answered_with_what_it_states(nano):
    model, processor = nano
    text = "Title: Navy striped dress with long sleeves\nDescription: Made with a v-neck and a knee length."
    said = parse_attributes(answers(model, processor, [text], [[]])[0])
    assert said["category"] == "dress"
    assert said["colour"] == "navy"
    assert said["sleeve"] == "long"
    assert "belt" not in said


@pytest.mark.slow
def test_another_photo_finds_the_product_among_its_variants(nano):
    model, processor = nano
    rng = Random("found again")
    garments = [twin for _ in range(50) for twin in colour_variants(rng)]
    blank, names = [""] * 100, [str(n) for n in range(100)]
    queried = vectors(model, processor, blank, [[photo(garment, 0)] for garment in garments], QUERY_INSTRUCTION)
    there = vectors(model, processor, blank, [[photo(garment, 1)] for garment in garments], TARGET_INSTRUCTION)
    assert np.allclose(np.linalg.norm(queried, axis=1), 1, atol=1e-5)
    assert recalls(queried, there, names, names)["R@1"] >= 0.6


@pytest.mark.slow
def test_words_find_the_photo(nano):
    model, processor = nano
    rng = Random("said")
    others = [random_garment(rng) for _ in range(60)]
    wanted = Garment(
        "dress", "navy", "striped", "white", neckline="round", sleeve="long", length="knee", belt="none", seed=77
    )
    photos = [[render_photo(garment, 3, 336)] for garment in (wanted, *others)]
    there = vectors(model, processor, [""] * len(photos), photos, TARGET_INSTRUCTION)
    queried = vectors(model, processor, ["navy striped dress with long sleeves"], [[]], QUERY_INSTRUCTION)
    assert 0 in np.argsort(-(queried @ there.T)[0])[:5]


def test_a_vector_does_not_depend_on_its_neighbours(nano):
    model, processor = nano
    garment = random_garment(Random(1))
    alone = vectors(model, processor, ["Title: Tee"], [[photo(garment, 0)]], TARGET_INSTRUCTION)
    among = vectors(
        model,
        processor,
        ["Title: Tee", "Title: A much longer text, so that the first row is padded.", ""],
        [[photo(garment, 0)], [], [photo(garment, 1), photo(garment, 2)]],
        TARGET_INSTRUCTION,
    )
    assert np.abs(alone[0] - among[0]).max() < 1e-5
