"""The pooler against numbers worked out by hand; what it starts at; files that are not what it wrote."""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.functional import cosine_similarity, normalize

from afmrl_cli.errors import ModelError
from afmrl_cli.saga.pooler import Pooler, load_pooler, save_pooler


def pooler(query: list[float], key: list[list[float]], out: list[list[float]]) -> Pooler:
    made = Pooler(len(query), len(out), "attention")
    tensors = {"query": query, "key.weight": key, "out.weight": out}
    made.load_state_dict({name: torch.tensor(value) for name, value in tensors.items()})
    return made


def photos(*tokens: int, width: int = 8, scale: float = 1.0, seed: int = 0) -> list[Tensor]:
    """Tokens about a common mean, as towers make them."""
    generator = torch.Generator().manual_seed(seed)
    mean = torch.randn(width, generator=generator)
    return [scale * (mean + torch.randn(number, width, generator=generator)) for number in tokens]


def test_two_tokens_by_hand() -> None:
    # q W_k X^T / sqrt 2 = (ln 3, 0): beta = (3/4, 1/4); beta X = (0.75, 0.25), of length 0.790569
    made = pooler([math.sqrt(2) * math.log(3), 0.0], [[1.0, 0.0], [0.0, 1.0]], [[1.0, 0.0], [0.0, 1.0]])
    found = made([torch.eye(2)])
    assert found.beta[0].tolist() == pytest.approx([0.75, 0.25], abs=1e-6)
    assert found.vectors[0].tolist() == pytest.approx([0.948683, 0.316228], abs=1e-6)


def test_three_tokens_by_hand_with_keys_that_are_not_symmetric() -> None:
    # q W_k = sqrt 2 (0, ln 2): with X = (1, 0), (0, 1), (0, 2) the logits are 0, ln 2, 2 ln 2: beta = (1, 2, 4) / 7
    # beta X = (1, 10) / 7; W_o = (3, 1), (0, 1): (13, 10) / 7, of length sqrt 269 / 7
    made = pooler([math.sqrt(2) * math.log(2), 0.0], [[0.0, 1.0], [5.0, 0.0]], [[3.0, 1.0], [0.0, 1.0]])
    found = made([torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 2.0]])])
    assert found.beta[0].tolist() == pytest.approx([1 / 7, 2 / 7, 4 / 7], abs=1e-6)
    assert found.vectors[0].tolist() == pytest.approx([13 / math.sqrt(269), 10 / math.sqrt(269)], abs=1e-6)


def test_mean_pooling_has_even_attention_and_a_map_alone() -> None:
    made = Pooler(2, 2, "mean")
    found = made([torch.tensor([[1.0, 0.0], [5.0, 8.0], [0.0, 1.0]])])
    assert [name for name, _ in made.named_parameters()] == ["out.weight"]
    assert found.beta[0].tolist() == pytest.approx([1 / 3] * 3)
    assert found.vectors[0].tolist() == pytest.approx([2 / math.sqrt(13), 3 / math.sqrt(13)], abs=1e-6)


@pytest.mark.parametrize("scale", [0.1, 1.0, 5.0])
def test_training_starts_at_the_mean_of_the_pretrained_tokens(scale: float) -> None:
    shown = photos(49, 64, 9, width=64, scale=scale)
    found = Pooler(64, 64, "attention")(shown)
    means = torch.stack([each.mean(0) for each in shown])
    assert bool((cosine_similarity(found.vectors, means) > 0.99).all())
    for beta, each in zip(found.beta, shown, strict=True):
        assert beta.tolist() == pytest.approx([1 / len(each)] * len(each), rel=0.5)
        assert beta.sum().item() == pytest.approx(1, abs=1e-5)


def test_the_start_is_always_the_same_and_draws_no_random_number_of_the_training() -> None:
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    first, second = Pooler(8, 4, "attention"), Pooler(8, 4, "attention")
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_where_vectors_are_shorter_or_longer_than_tokens_the_map_starts_as_a_rotation() -> None:
    shorter, longer = Pooler(8, 4, "attention").out.weight, Pooler(4, 8, "mean").out.weight
    assert torch.allclose(shorter @ shorter.T, torch.eye(4), atol=1e-5)
    assert torch.allclose(longer.T @ longer, torch.eye(4), atol=1e-5)
    assert Pooler(8, 4, "attention")(photos(5, 3)).vectors.shape == (2, 4)


@pytest.mark.parametrize("pooling", ["attention", "mean"])
def test_a_photo_is_pooled_the_same_whatever_stands_beside_it(pooling: str) -> None:
    made = Pooler(8, 8, "attention" if pooling == "attention" else "mean")
    shown = photos(5, 1, 17)
    together, turned = made(shown), made(shown[::-1])
    assert torch.allclose(turned.vectors.flip(0), together.vectors, atol=1e-6)
    for i, each in enumerate(shown):
        alone = made([each])
        assert torch.allclose(alone.vectors[0], together.vectors[i], atol=1e-6)
        assert torch.allclose(alone.beta[0], together.beta[i], atol=1e-6)
        mixed = made([each.flip(0)])
        assert torch.allclose(mixed.vectors[0], together.vectors[i], atol=1e-6), "tokens have no order"


def test_tokens_in_half_precision_give_vectors_in_single() -> None:
    shown = photos(5, 9)
    found = Pooler(8, 8, "attention")([each.bfloat16() for each in shown])
    assert found.vectors.dtype == torch.float32 and found.beta[0].dtype == torch.float32
    assert found.vectors.norm(dim=1).tolist() == pytest.approx([1.0, 1.0], abs=1e-6)


def test_from_the_first_step_every_part_learns() -> None:
    made, shown = Pooler(8, 4, "attention"), [each.requires_grad_() for each in photos(5, 9)]
    target = normalize(torch.ones(1, 4), dim=1)
    (made(shown).vectors * target).sum().backward()
    for tensor in (*made.parameters(), *shown):
        assert tensor.grad is not None and bool(tensor.grad.any())


def test_the_gradient_is_that_of_the_formula() -> None:
    made = pooler(
        [0.3, -0.2, 0.9], [[1.0, 0.2, 0.0], [0.0, 1.0, -0.4], [0.5, 0.0, 1.0]], [[1.0, 2.0, 0.0], [0.0, 1.0, 1.0]]
    )
    made = made.double()
    first, second = (each.double().requires_grad_() for each in photos(2, 4, width=3))
    assert torch.autograd.gradcheck(lambda a, b: made([a, b]).vectors, (first, second))
    for name in ("query", "key.weight", "out.weight"):
        own = made.get_parameter(name).detach().clone().requires_grad_()

        def vectors(value: Tensor, name: str = name) -> Tensor:
            pooled = torch.func.functional_call(made, {name: value}, ([first.detach(), second.detach()],))
            assert isinstance(pooled.vectors, Tensor)
            return pooled.vectors

        assert torch.autograd.gradcheck(vectors, (own,))


@pytest.mark.parametrize("pooling", ["attention", "mean"])
def test_a_pooler_is_read_as_it_was_written(tmp_path: Path, pooling: str) -> None:
    made = Pooler(8, 4, "attention" if pooling == "attention" else "mean")
    with torch.no_grad():
        made.out.weight.mul_(torch.rand(4, 8))
    save_pooler(made, tmp_path / "one.safetensors")
    there = load_pooler(tmp_path / "one.safetensors")
    assert (there.width, there.dimension, there.pooling) == (8, 4, pooling)
    assert torch.equal(there(photos(5, 9)).vectors, made(photos(5, 9)).vectors)
    assert all(each.requires_grad for each in there.parameters())
    save_pooler(there, tmp_path / "two.safetensors")
    assert (tmp_path / "two.safetensors").read_bytes() == (tmp_path / "one.safetensors").read_bytes()


Damage = Callable[[dict[str, Tensor]], dict[str, Tensor]]


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda t: t | {"out.weight": t["out.weight"] / 0}, "out.weight holds values that are no numbers"),
        (lambda t: t | {"query": torch.full((8,), math.nan)}, "query holds values that are no numbers"),
        (lambda t: t | {"query": torch.tensor([1.0] * 7 + [math.inf])}, "query holds values that are no numbers"),
        (lambda t: t | {"bias": torch.zeros(4)}, "bias [4]"),
        (lambda t: {"query": t["query"], "out.weight": t["out.weight"]}, "query [8]"),
        (lambda t: {"query": t["query"], "key.weight": t["key.weight"]}, "key.weight [8, 8]"),
        (lambda t: t | {"query": torch.zeros(7)}, "query [7]"),
        (lambda t: t | {"key.weight": torch.zeros(8, 7)}, "key.weight [8, 7]"),
        (lambda t: t | {"out.weight": torch.zeros(4, 9)}, "out.weight [4, 9]"),
        (lambda t: {"out.weight": torch.zeros(4, 8, 1)}, "out.weight [4, 8, 1]"),
        (lambda t: {"out.weight": torch.zeros(0, 8)}, "out.weight [0, 8]"),
        (lambda t: {"out.weight": torch.zeros(1, 16_385)}, "out.weight [1, 16385]"),
        (lambda t: {"out.weight": torch.zeros(16_385, 1)}, "out.weight [16385, 1]"),
        (lambda t: {name: tensor.half() for name, tensor in t.items()}, "not a pooler of fp32"),
        (lambda t: {}, "not a pooler of fp32"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_pooler_is_refused(tmp_path: Path, damage: Damage, told: str) -> None:
    file = tmp_path / "pooler.safetensors"
    save_pooler(Pooler(8, 4, "attention"), file)
    save_file(damage(load_file(file)), file)
    with pytest.raises(ModelError) as error:
        load_pooler(file)
    assert str(file) in str(error.value) and told in str(error.value) and error.value.hint


def test_the_widest_that_is_believed_is_read(tmp_path: Path) -> None:
    for shape in ((1, 16_384), (16_384, 1)):
        save_file({"out.weight": torch.ones(shape)}, tmp_path / "pooler.safetensors")
        there = load_pooler(tmp_path / "pooler.safetensors")
        assert (there.dimension, there.width) == shape


def test_a_missing_cut_or_pickled_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "pooler.safetensors"
    with pytest.raises(ModelError, match="can't be read"):
        load_pooler(file)
    save_pooler(Pooler(8, 4, "attention"), file)
    for content in (file.read_bytes()[:-40], pickle.dumps({"out.weight": [[1.0]]}), b""):
        file.write_bytes(content)
        with pytest.raises(ModelError, match="can't be read"):
            load_pooler(file)
