"""A step on a real (tiny) Qwen2-VL with photos: chunks, processes, precision, and what is trained."""

from __future__ import annotations

import multiprocessing
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from afmrl_cli.errors import UsageError
from afmrl_cli.listener import Silent
from afmrl_cli.models.base import Cache
from afmrl_cli.settings import Settings
from afmrl_cli.store.folder import CatalogFolder
from afmrl_cli.training.gradcache import token_chunks
from afmrl_cli.training.loss import choose_loss
from afmrl_cli.training.parallel import World
from afmrl_cli.training.step import batch_loss
from tests.conftest import alone
from tests.training.rig import Rig, make_rig, save_gradients

MakeSettings = Callable[..., Settings]
ALONE = World()


def read(rig: Rig) -> list[str]:
    """What the embedder reads in a step."""
    sides, texts = rig.reader.texts(rig.batch.pairs)
    assert len(sides) == len(texts)
    return list(texts)


def big_batch(rig: Rig, settings: Settings) -> dict[str, torch.Tensor]:
    """Gradients of the same chunks with all their graphs in memory at once, and plain backpropagation."""
    sides, texts = rig.reader.texts(rig.batch.pairs)
    chunks = token_chunks(rig.reader.lengths(sides, texts), settings.agcl.chunk_tokens)
    assert len(chunks) > 2
    torch.manual_seed(11)
    rows: dict[int, torch.Tensor] = {}
    for chunk in chunks:
        vectors = rig.reader.embedder.unit_vectors(rig.reader.tensors(sides, texts, chunk))
        rows.update(zip(chunk, vectors, strict=True))
    vectors = torch.stack([rows[i] for i in range(len(sides))])
    _, gradient = batch_loss(vectors.detach(), rig.batch, choose_loss(settings.agcl), ALONE)
    names = list(rig.parameters)
    return dict(zip(names, torch.autograd.grad(vectors, list(rig.parameters.values()), gradient), strict=True))


@pytest.mark.parametrize(("checkpointing", "template"), [(False, "plain"), (True, "plain"), (False, "gme")])
def test_chunks_equal_the_big_batch(
    shop: CatalogFolder, settings: MakeSettings, checkpointing: bool, template: str
) -> None:
    own = {"agcl.activation_checkpointing": checkpointing, "model.embed_template": template}
    chosen = settings(**{"agcl.lora_dropout": 0.3, **own})
    rig = make_rig(shop, chosen)
    assert all(text.endswith(("\n", "assistant\n<|endoftext|>")[template == "gme"]) for text in read(rig))
    expected = big_batch(rig, chosen)
    _, found = rig.gradients(chosen, ALONE)
    assert max(float(g.abs().max()) for g in expected.values()) > 1e-3
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("model", ["qwen2_vl", "qwen2_5_vl", "qwen3_vl", pytest.param("nano", marks=pytest.mark.slow)])
def test_stored_features_give_the_same_gradients(
    shop: CatalogFolder, settings: MakeSettings, tiny_model: Callable[[str], Path], tmp_path: Path, model: str
) -> None:
    base = "" if model == "nano" else str(tiny_model(model))
    chosen = settings(**{"model.embedder": base, "agcl.lora_dropout": 0.3})
    loss, expected = make_rig(shop, chosen).gradients(chosen, ALONE)
    seen: list[int] = []

    def gradients() -> tuple[float, dict[str, torch.Tensor]]:
        rig = make_rig(shop, chosen, Cache(tmp_path / "cache", chosen.cache, Silent()))
        tower = rig.reader.embedder.loaded.trunk.visual
        tower.register_forward_pre_hook(lambda _, args, kwargs: seen.append(len(kwargs["grid_thw"])), with_kwargs=True)
        return rig.gradients(chosen, ALONE)

    first_loss, first = gradients()
    photos = len({photo.content for pair in make_rig(shop, chosen).batch.pairs for photo in pair.query.photos})
    assert photos <= sum(seen), "the second pass of a step asks the store"
    looked = sum(seen)
    again_loss, again = gradients()
    assert sum(seen) == looked, "and so does the second epoch"
    assert first_loss == pytest.approx(loss, rel=1e-2) and again_loss == first_loss
    largest = max(float(gradient.abs().max()) for gradient in expected.values())
    for name, gradient in expected.items():
        torch.testing.assert_close(again[name], first[name], atol=0, rtol=0)
        torch.testing.assert_close(first[name], gradient, atol=1e-2 * largest, rtol=0)


def test_only_the_language_model_is_trained(shop: CatalogFolder, settings: MakeSettings) -> None:
    rig = make_rig(shop, settings())
    assert len(rig.parameters) == 2 * 7 * 2, "A and B of seven layers in two blocks"
    assert all("language_model" in name and "visual" not in name for name in rig.parameters)
    assert all(parameter.dtype == torch.float32 for parameter in rig.parameters.values())


def test_nf4(shop: CatalogFolder, settings: MakeSettings) -> None:
    chosen = settings(**{"model.precision": "nf4"})
    loss, gradients = make_rig(shop, chosen).gradients(chosen, ALONE)
    assert loss > 0 and all(torch.isfinite(gradient).all() for gradient in gradients.values())


def test_two_processes_equal_one(shop: CatalogFolder, settings: MakeSettings, tmp_path: Path) -> None:
    chosen = settings(**{"agcl.lora_dropout": 0.0})
    loss, expected = make_rig(shop, chosen).gradients(chosen, ALONE)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}
    # Forked: importing the libraries again takes longer than the step.
    processes = [
        multiprocessing.get_context("fork").Process(
            target=alone,
            args=(
                save_gradients,
                shop,
                chosen,
                tmp_path / "out",
                place | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            ),
        )
        for rank in range(2)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    for rank in range(2):
        found = load_file(tmp_path / f"out-{rank}.safetensors")
        assert found.pop("loss").item() == pytest.approx(loss, abs=1e-5)
        assert found.keys() == expected.keys()
        for name, gradient in expected.items():
            torch.testing.assert_close(found[name], gradient, atol=1e-5, rtol=1e-4)


def test_a_batch_that_can_not_be_divided() -> None:
    with pytest.raises(UsageError, match=r"agcl\.batch_size = 9 can't be divided among 2 processes"):
        World(0, 2).share(9, "agcl.batch_size")
    assert list(World(1, 2).share(8, "agcl.batch_size")) == [4, 5, 6, 7]
    with pytest.raises(UsageError, match=r"vision\.batch_size = 3 can't be divided among 4 processes"):
        World(0, 4).need_one_each(3, "vision.batch_size")
    assert [list(World(rank, 3).part("abcde")) for rank in range(3)] == [["a", "d"], ["b", "e"], ["c"]]


def test_infonce_ignores_weights_and_similarity(shop: CatalogFolder, settings: MakeSettings) -> None:
    rig, n = make_rig(shop, settings()), 8
    vectors = torch.nn.functional.normalize(torch.randn(2 * n, 16), dim=1)
    plain = settings(**{"agcl.loss": "infonce"}).agcl
    loss, _ = batch_loss(vectors, rig.batch, choose_loss(plain), ALONE)
    expected = torch.nn.functional.cross_entropy(vectors[:n] @ vectors[n:].T / 0.05, torch.arange(n))
    assert loss.value.item() == pytest.approx(expected.item(), rel=1e-5)
    weighted, _ = batch_loss(vectors, rig.batch, choose_loss(settings().agcl), ALONE)
    assert weighted.value.item() != pytest.approx(expected.item(), rel=1e-3)


def test_our_default_and_the_papers_form(shop: CatalogFolder, settings: MakeSettings) -> None:
    rig, n = make_rig(shop, settings()), 8
    vectors = torch.nn.functional.normalize(torch.randn(2 * n, 6, dtype=torch.float64), dim=1)
    cosines, eye = vectors[:n] @ vectors[n:].T, torch.eye(n, dtype=torch.bool)
    weights = 1 + torch.tanh(torch.as_tensor(rig.batch.bm25))
    above = (cosines > cosines.diagonal()[:, None] + 0.1) & ~eye
    assert above.any() and not rig.batch.known.any()
    ours = cosines / 0.05 + weights.masked_fill(eye, 0.0)
    papers = (cosines / 0.02 + weights).masked_fill(above, -torch.inf)
    flags = {"agcl.weights": "paper", "agcl.mask": True, "agcl.temperature": 0.02}
    for logits, chosen in ((ours, settings()), (papers, settings(**flags))):
        loss, _ = batch_loss(vectors, rig.batch, choose_loss(chosen.agcl), ALONE)
        expected = torch.nn.functional.cross_entropy(logits, torch.arange(n))
        assert loss.value.item() == pytest.approx(expected.item(), rel=1e-9)


def test_the_gradient_is_that_of_the_loss(shop: CatalogFolder, settings: MakeSettings) -> None:
    rig = make_rig(shop, settings())
    vectors = torch.nn.functional.normalize(torch.randn(16, 6, dtype=torch.float64), dim=1)
    agcl = settings(**{"agcl.temperature": 0.5, "agcl.mask": False}).agcl
    loss, gradient = batch_loss(vectors, rig.batch, choose_loss(agcl), ALONE)
    nudge = 1e-6 * torch.randn_like(vectors)
    moved, _ = batch_loss(vectors + nudge, rig.batch, choose_loss(agcl), ALONE)
    assert moved.value.item() - loss.value.item() == pytest.approx(float((gradient * nudge).sum()), rel=1e-3)
