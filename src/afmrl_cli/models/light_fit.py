"""What the embedder `light` was fitted to in one catalog: kept in .afmrl/light, part of the embedder's id.

fit.safetensors     idf of the word buckets, projections into the joint space; its metadata is a JSON object with
                    the weights of the blocks, how they were found, and hashes of the products that were seen
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import ModelError
from ..store.files import hash_json, writing
from ..store.training_products import TrainingProducts, read_training_products
from .joint import BLOCKS, BUCKETS, Floats, Projections

FIT = "fit.safetensors"
SCHEMA = "afmrl.light/1"
ENCODERS = "all-MiniLM-L6-v2 efficientnet-lite0 2"
"""The encoders and how they read: other ones, other vectors."""
UNFITTED = "light-unfitted"
FIT_HINT = "run `afmrl embed --force`, which fits it anew"
TEXT, TITLE_WORDS, PHOTO = 384, 512, 1280 + 512
DEFAULT_WEIGHTS = {"words": 0.2375, "text": 0.2375, "photo": 0.285, "colors": 0.19, "joint": 0.05}


@dataclass(frozen=True)
class Fit:
    """`projections` is None where there were too few pairs; `facts` say in numbers what it was made from."""

    idf: Floats
    projections: Projections | None
    weights: dict[str, float] = field(default_factory=lambda: dict(DEFAULT_WEIGHTS))
    facts: dict[str, Any] = field(default_factory=dict)
    products: TrainingProducts = field(default_factory=TrainingProducts)

    def arrays(self) -> dict[str, Floats]:
        """Return what is stored as tensors."""
        joint = self.projections
        return {"idf": self.idf} | ({} if joint is None else {f"joint.{k}": v for k, v in vars(joint).items()})

    @property
    def id(self) -> str:
        """Return a hash of all that changes a vector."""
        arrays = {name: [str(a.dtype), list(a.shape), a.tobytes().hex()] for name, a in self.arrays().items()}
        weights = {name: float(weight) for name, weight in self.weights.items()}  # 0 and 0.0 are one weight
        return hash_json([SCHEMA, ENCODERS, arrays, weights])[:10]


def write_fit(folder: Path, fit: Fit) -> None:
    """Store `fit`, beside and then in place."""
    from safetensors.numpy import save_file

    content = {
        "schema": SCHEMA,
        "id": fit.id,
        "weights": fit.weights,
        "facts": fit.facts,
        "products": fit.products.written(),
    }
    with writing(folder / FIT) as temporary:
        save_file(fit.arrays(), temporary, metadata={"fit": json.dumps(content, sort_keys=True)})


def read_fit(folder: Path) -> Fit:
    """Return the stored fit. ModelError when there is none or it is not what was written."""
    from safetensors import SafetensorError, safe_open

    file = folder / FIT
    if not file.is_file():
        raise ModelError(f"{folder}: light has not been fitted to this catalog yet", "run `afmrl embed`")
    try:
        with safe_open(file, "numpy") as there:
            content = json.loads((there.metadata() or {})["fit"])
            arrays = {name: there.get_tensor(name) for name in there.keys()}  # noqa: SIM118
        joint = {name.removeprefix("joint."): array for name, array in arrays.items() if name != "idf"}
        weights = {name: float(content["weights"][name]) for name in BLOCKS}
        products = read_training_products(content["products"]) or TrainingProducts()
        fit = Fit(arrays["idf"], Projections(**joint) if joint else None, weights, dict(content["facts"]), products)
        fits = content["schema"] == SCHEMA and content["id"] == fit.id and fit.idf.shape == (BUCKETS,)
        if fits and fit.projections is not None:
            fits = (len(fit.projections.text), len(fit.projections.photo)) == (TEXT + TITLE_WORDS, PHOTO)
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{file}: damaged: {str(error)[:200]}", FIT_HINT) from error
    if not fits:
        raise ModelError(f"{file}: damaged, or of another version", FIT_HINT)
    return fit


def light_id(folder: Path, photos: int) -> str:
    """Return the id of `light` with the fit in `folder`; UNFITTED where there is none yet. `photos`: 0, or the most of
    a listing that it sees.
    """
    if not (folder / FIT).is_file():
        return UNFITTED
    return f"light-{read_fit(folder).id}" + (f"-{photos}-photos" if photos else "")
