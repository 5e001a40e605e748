"""What `train-vision` leaves is what `embed` and `eval` use: the encoder finds what the trainer's validation found."""

from __future__ import annotations

import pytest

from afmrl_cli.listener import Silent
from afmrl_cli.models.embed_input import Item
from afmrl_cli.retrieval.embed import embed_catalog
from afmrl_cli.saga.validation import recall_by_class
from afmrl_cli.store.folder import CatalogFolder
from afmrl_cli.workspace import Workspace

from .test_run import PLAIN, SMALL, MakeSettings, plan_of, run


@pytest.mark.parametrize("pooling", ["attention", "mean"])
def test_the_encoder_finds_what_validation_found(shop: CatalogFolder, settings: MakeSettings, pooling: str) -> None:
    chosen = {**SMALL, **PLAIN, "vision.pooling": pooling, "vision.dimension": 24, "vision.steps": 2}
    summary = run(shop, settings(**chosen))
    work = Workspace(shop, settings(**{"model.vision_checkpoint": summary.checkpoint}), Silent())
    photos = plan_of(shop, settings(**chosen)).validation()
    vectors = work.embedder().encode([Item("", (photo.photo.path,)) for photo in photos], instruction="")
    assert vectors.shape == (len(photos), 24)
    assert recall_by_class(vectors, photos) == pytest.approx(summary.details["metrics"], abs=1e-6)
    done = embed_catalog(work)
    assert (done.products, done.left_out, done.dimension) == (80, 0, 24)
