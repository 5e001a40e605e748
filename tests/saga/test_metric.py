"""The losses of metric learning against numbers worked out by hand, loops, and what must not matter."""

from __future__ import annotations

import math
from random import Random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.functional import normalize

from afmrl_cli.saga.metric import make_metric, potential_field

LOSSES = ["multi-similarity", "proxy-anchor", "potential-field"]
LN_2 = math.log(2)


def unit(*degrees: float) -> Tensor:
    """Unit vectors in the plane, so that cosines are those of differences of angles."""
    angles = torch.deg2rad(torch.tensor(degrees, dtype=torch.float64))
    return torch.stack([torch.cos(angles), torch.sin(angles)], dim=1)


def batch(seed: int, number: int = 12, classes: int = 4, width: int = 6) -> tuple[Tensor, Tensor]:
    """Vectors about the middle of their class, and labels, of which one class has a single photo."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.tensor([0, *(1 + i % (classes - 1) for i in range(number - 1))])
    middle = torch.randn(classes, width, generator=generator, dtype=torch.float64)
    noise = torch.randn(number, width, generator=generator, dtype=torch.float64)
    return normalize(middle[labels] + noise, dim=1), labels


def twice(vectors: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The same photos once more, of other classes and at right angles to the first: what they add is the same."""
    none = torch.zeros_like(vectors)
    both = torch.cat([torch.cat([vectors, none], dim=1), torch.cat([none, vectors], dim=1)])
    return both, torch.cat([labels, labels + 10])


def metric(loss: str, classes: int = 6, dimension: int = 6, seed: int = 0) -> nn.Module:
    assert loss in LOSSES
    return make_metric(loss, classes, dimension, seed).double()  # type: ignore[arg-type]


def multi_similarity(vectors: Tensor, labels: Tensor) -> Tensor:
    loss: Tensor = metric("multi-similarity")(vectors, labels)
    return loss


def proxy_anchor(vectors: Tensor, labels: Tensor, proxies: Tensor) -> Tensor:
    whole = metric("proxy-anchor", len(proxies), proxies.shape[1])
    whole.proxies = nn.Parameter(proxies.detach())
    loss: Tensor = whole(vectors, labels)
    return loss


def numbers(labels: list[int]) -> Tensor:
    return torch.tensor(labels)


def test_multi_similarity_of_three_by_hand() -> None:
    # Photos at 0, 60 and 90 degrees, the first two of one class: s_01 = 0.5, s_02 = 0, s_12 = 0.866025.
    # 0: its negative 0 is not above 0.5 - 0.1, its positive 0.5 not below 0 + 0.1: nothing.
    # 1: the negative 0.866 > 0.4 and the positive 0.5 < 0.966 are kept:
    #    ln(1 + e^0) / 2 + ln(1 + e^(50 * 0.366025)) / 50 = 0.346574 + 0.366025
    # 2: has no positive: nothing.
    found = multi_similarity(*twice(unit(0, 60, 90), numbers([0, 0, 1])))
    assert found.item() == pytest.approx((LN_2 / 2 + 18.301270 / 50) / 3, abs=1e-8)


def test_multi_similarity_keeps_pairs_within_epsilon() -> None:
    # s_01 = 0.5, s_02 = cos 66 = 0.406737 > 0.4, s_12 = cos 126 = -0.587785. 0 keeps both; 1: 0.5 is not below
    # -0.587785 + 0.1, nothing.
    found = multi_similarity(*twice(unit(0, 60, -66), numbers([0, 0, 1])))
    kept = LN_2 / 2 + math.log1p(math.exp(50 * (0.4067366 - 0.5))) / 50
    assert found.item() == pytest.approx(kept / 3, abs=1e-7)
    assert multi_similarity(*twice(unit(0, 60, -67), numbers([0, 0, 1]))).item() == 0, "cos 67 = 0.390731 < 0.4"


def test_multi_similarity_without_pairs_is_nothing_that_can_be_differentiated() -> None:
    for labels in ([0, 1, 2], [1, 1, 1]):
        vectors = unit(0, 60, 90).requires_grad_()
        loss = multi_similarity(vectors, numbers(labels))
        loss.backward()
        assert loss.item() == 0 and vectors.grad is not None and not bool(vectors.grad.any())


def test_proxy_anchor_of_two_by_hand() -> None:
    # Photos at 0 and 60 degrees, both of class 0; proxies at 0 and 90 degrees, whatever their lengths.
    # pull, of class 0 alone: ln(1 + e^(-32 * 0.9) + e^(-32 * 0.4)) = 0.0000027607
    # push: of proxy 0 nothing; of proxy 1 ln(1 + e^(32 * 0.1) + e^(32 * 0.966025)) = 30.912813; over both 15.456406
    proxies = unit(0, 90) * torch.tensor([[3.0], [0.2]])
    found = proxy_anchor(unit(0, 60), numbers([0, 0]), proxies)
    assert found.item() == pytest.approx(0.0000027607 + 15.456406, abs=2e-6)


def test_proxy_anchor_pulls_where_a_class_is_far_from_its_proxy() -> None:
    # One photo of each class, at its opposite: pull 2 ln(1 + e^(32 * 1.1)) / 2 = 35.2;
    # push of each ln(1 + e^(32 * (0.1 + 1))) = 35.2 for proxies and photos at 0 and 180 degrees.
    found = proxy_anchor(unit(180, 0), numbers([0, 1]), unit(0, 180))
    assert found.item() == pytest.approx(70.4, abs=1e-6)
    assert proxy_anchor(unit(0, 180), numbers([0, 1]), unit(0, 180)).item() == pytest.approx(0, abs=1e-6)


def test_potential_field_by_hand() -> None:
    # Photos of class 0 at 0 and 60 degrees; its proxy at 90, that of class 1, which has no photo, at 120.
    # Squared distances 2 - 2 cos + 0.04: 60 degrees apart 1.04, 90: 2.04, 30: 0.307949, 120: 3.04.
    # attraction, each pair in both directions: 2 (1.04^-1/2 + 2.04^-1/2 + 0.307949^-1/2) = 6.965488
    # repulsion: only class 0's proxy is within 1 of class 1's: 0.307949^-1/2 - 1 = 0.802024;  six pairs attract
    attraction = 2 * (1.04**-0.5 + 2.04**-0.5 + 0.3079492**-0.5)
    found = potential_field(unit(0, 60), numbers([0, 0]), unit(90, 120) * 7, numbers([0, 1]))
    assert attraction == pytest.approx(6.965488, abs=1e-5)
    assert found.item() == pytest.approx((0.802024 - attraction) / 6, abs=1e-6)


def test_the_reach_of_repulsion_is_the_radius_whatever_the_decay(monkeypatch: pytest.MonkeyPatch) -> None:
    # alpha 2, delta 1.3: 1.3^-2 = 0.591716. Photos at 0 and 60 degrees: 1 / 1.04 - 0.591716 = 0.369823, both ways;
    # proxies opposite to them as well; each attracts its own with 1 / 4.04 = 0.247525. 120 degrees: 3.04 > 1.69.
    monkeypatch.setattr("afmrl_cli.saga.metric.DECAY", 2.0)
    monkeypatch.setattr("afmrl_cli.saga.metric.RADIUS", 1.3)
    found = potential_field(unit(0, 60), numbers([0, 1]), unit(180, 240), numbers([0, 1]))
    assert found.item() == pytest.approx(0.369823 - 0.247525, abs=2e-6)


def test_in_a_potential_field_both_classes_of_a_batch_repel_each_other() -> None:
    # Photos at 0 and 30 degrees, proxies opposite to them, at 180 and 210. Each attracts its own, 2 apart: 4.04.
    # Photo and photo, proxy and proxy repel in both directions; photo and other proxy are 150 degrees apart.
    found = potential_field(unit(0, 30), numbers([0, 1]), unit(180, 210), numbers([0, 1]))
    assert found.item() == pytest.approx((4 * (0.3079492**-0.5 - 1) - 4 * 4.04**-0.5) / 4, abs=1e-6)


def test_proxies_of_a_class_do_not_attract_each_other() -> None:
    proxies = unit(90, 100, 270, 300).requires_grad_()
    potential_field(unit(90), numbers([0]), proxies, numbers([0, 0, 1, 1])).backward()
    assert proxies.grad is not None
    # Turned towards the photo, at which the first one is already: by the derivative along the angle.
    along = (proxies.grad * unit(180, 190, 0, 30)).sum(1)
    assert along[0].item() == pytest.approx(0, abs=1e-9) and along[1] > 0.1
    assert along[2:].tolist() == pytest.approx([0, 0], abs=1e-12), "nor do those of a class that is not in the batch"


def test_photos_of_two_classes_that_look_alike_still_repel() -> None:
    proxies, labels = unit(180, 180), numbers([0, 1])
    half, five, thirty = (potential_field(unit(0, a), labels, proxies, labels).item() for a in (0.5, 5, 30))
    assert half > five + 0.1 > thirty + 0.2


def test_multi_similarity_is_what_a_loop_computes() -> None:
    vectors, labels = batch(3)
    total = 0.0
    for i, x in enumerate(vectors):
        same = [float(x @ y) for j, y in enumerate(vectors) if labels[j] == labels[i] and j != i]
        other = [float(x @ y) for j, y in enumerate(vectors) if labels[j] != labels[i]]
        near = [s for s in other if same and s > min(same) - 0.1]
        far = [s for s in same if other and s < max(other) + 0.1]
        total += math.log(1 + sum(math.exp(-2 * (s - 0.5)) for s in far)) / 2
        total += math.log(1 + sum(math.exp(50 * (s - 0.5)) for s in near)) / 50
    assert multi_similarity(vectors, labels).item() == pytest.approx(total / len(vectors), abs=1e-9)


def test_proxy_anchor_is_what_a_loop_computes() -> None:
    (vectors, labels), (proxies, _) = batch(4), batch(5, number=6)
    pulls, pushes = [], []
    for label, proxy in enumerate(proxies):
        cosines = [float(proxy @ x) for x in vectors]
        own = [s for s, other in zip(cosines, labels, strict=True) if other == label]
        others = [s for s, other in zip(cosines, labels, strict=True) if other != label]
        if own:
            pulls.append(math.log(1 + sum(math.exp(-32 * (s - 0.1)) for s in own)))
        pushes.append(math.log(1 + sum(math.exp(32 * (s + 0.1)) for s in others)))
    expected = sum(pulls) / len(pulls) + sum(pushes) / len(pushes)
    assert len(pulls) == 4 and len(pushes) == 6
    assert proxy_anchor(vectors, labels, 3 * proxies).item() == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("loss", LOSSES)
@given(st.integers(0, 1000), st.randoms(use_true_random=False))
def test_the_order_of_a_batch_does_not_matter(loss: str, seed: int, random: Random) -> None:
    vectors, labels = batch(seed)
    order = list(range(len(labels)))
    random.shuffle(order)
    made = metric(loss)
    assert made(vectors[order], labels[order]).item() == pytest.approx(made(vectors, labels).item(), abs=1e-9)


@pytest.mark.parametrize("loss", LOSSES)
def test_only_angles_and_who_is_of_one_class_matter(loss: str) -> None:
    vectors, labels = batch(1)
    made = metric(loss)
    turn, _ = torch.linalg.qr(torch.randn(6, 6, dtype=torch.float64))
    before = made(vectors, labels).item()
    for proxies in made.parameters():
        proxies.data = 5 * proxies.data @ turn
    assert made(vectors @ turn, labels).item() == pytest.approx(before, abs=1e-9)
    if loss == "multi-similarity":
        assert made(vectors @ turn, 17 - labels).item() == pytest.approx(before, abs=1e-9)


@pytest.mark.parametrize("loss", LOSSES)
def test_the_gradient_is_that_of_the_formula(loss: str) -> None:
    vectors, labels = batch(2, number=7)
    made = metric(loss)
    names = [name for name, _ in made.named_parameters()]

    def value(raw: Tensor, *proxies: Tensor) -> Tensor:
        found = torch.func.functional_call(
            made, dict(zip(names, proxies, strict=True)), (normalize(raw, dim=1), labels)
        )
        assert isinstance(found, Tensor)
        return found

    own = [each.detach().clone().requires_grad_() for each in made.parameters()]
    assert torch.autograd.gradcheck(value, (vectors.clone().requires_grad_(), *own))


@pytest.mark.parametrize("loss", LOSSES)
def test_equal_and_opposite_vectors_leave_loss_and_gradient_finite(loss: str) -> None:
    vectors = normalize(torch.tensor([[1.0, 1.0], [1.0, 1.0], [-1.0, -1.0], [1.0, 1.0]]), dim=1).requires_grad_()
    made = make_metric(loss, 2, 2, 0)  # type: ignore[arg-type]
    found = made(vectors, numbers([0, 0, 0, 1]))
    found.backward()
    assert math.isfinite(found.item()) and vectors.grad is not None and bool(vectors.grad.isfinite().all())


@pytest.mark.parametrize("loss", LOSSES)
def test_learning_puts_the_photos_of_a_class_next_to_each_other(loss: str) -> None:
    vectors, labels = batch(6)
    raw, made = vectors.clone().requires_grad_(), metric(loss, classes=4)
    assert not nearest_of_one_class(raw, labels)
    optimiser = torch.optim.Adam([raw, *made.parameters()], lr=0.05)
    for _ in range(100):
        optimiser.zero_grad()
        made(normalize(raw, dim=1), labels).backward()
        optimiser.step()
    assert nearest_of_one_class(raw, labels)


def nearest_of_one_class(raw: Tensor, labels: Tensor) -> bool:
    """Say whether each photo's nearest is of its class; the first one is the only one of its."""
    vectors = normalize(raw.detach(), dim=1)
    nearest = (vectors @ vectors.T).fill_diagonal_(-1).argmax(1)
    return bool((labels[nearest] == labels)[1:].all())


def test_proxies_follow_from_the_seed_and_from_nothing_else() -> None:
    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    assert list(make_metric("multi-similarity", 5, 8, 0).parameters()) == []
    for loss, number in (("proxy-anchor", 500), ("potential-field", 2000)):
        (first,), (again,), (other,) = ([*metric(loss, 500, 8, seed).parameters()] for seed in (1, 1, 2))
        assert first.shape == (number, 8) and torch.equal(first, again) and not torch.equal(first, other)
        # Kaiming, fan out: the variance of a number is 2 / rows
        assert first.std().item() == pytest.approx(math.sqrt(2 / number), rel=0.1)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_each_class_has_its_own_four_proxies_in_a_potential_field() -> None:
    made = metric("potential-field", classes=3, dimension=2)
    (proxies,) = made.parameters()
    proxies.data = unit(0, 0, 0, 0, 120, 120, 120, 120, 240, 240, 240, 240)
    right, wrong = made(unit(120), numbers([1])), made(unit(120), numbers([2]))
    assert right.item() == pytest.approx(-1 / 0.2, abs=1e-6), "each of them at the photo itself"
    assert wrong.item() > right.item() + 1
