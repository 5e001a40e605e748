"""A vision encoder as a folder that plain transformers and torch open: its tower with the adapter merged in (fp32), the
pooler, and a program of a few lines (`photo_encoder`) that makes vectors of both. Nothing of afmrl is needed there.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from safetensors.torch import save_file

from ..saga.pooler import load_pooler
from ..store.checkpoints import POOLER_WEIGHTS, Checkpoints, Manifest
from ..store.files import writing_folder
from . import photo_encoder
from .base import quiet
from .export import CARD, refuse_existing
from .presets import Base
from .processor import load_processor
from .tower import drop_deepstack, load_tower, merge_adapter

PROGRAM = "load.py"
README = """# A photo encoder

{name}, trained by afmrl on the vision tower of `{base}` (revision `{revision}`): photos become vectors of {dimension}
numbers, of length 1, to be compared by their inner product. `model.safetensors` and `config.json` are the tower, the
adapter merged in (fp32); `pooler.safetensors` makes one vector of its tokens; photos are scaled to {low:,} to {high:,}
pixels (`preprocessor_config.json`).

    pip install torch transformers pillow safetensors
    python load.py first.jpg second.jpg        # cosines with the first

`load.py` is all the code there is: copy it, or `from load import PhotoEncoder`. Of a product with several photos take
the mean of their vectors, brought to length 1. The licence is that of `{base}`.
"""


def export_vision(manifest: Manifest, base: Base, checkpoints: Checkpoints, out: Path) -> None:
    """Write the vision encoder of `manifest`, trained on `base`, as the new folder `out`. Needs memory for the tower in
    fp32. DataError when `out` exists, ModelError when the checkpoint does not fit the base.
    """
    refuse_existing(out)
    own = checkpoints.path(manifest.name)
    pooler = load_pooler(own / POOLER_WEIGHTS)
    tower = load_tower(base, "fp32", "cpu")
    merge_adapter(tower, own, manifest.name)
    drop_deepstack(tower)
    with writing_folder(out) as folder:
        tower.config.architectures = [type(tower).__name__]
        save_file(tower.state_dict(), folder / "model.safetensors", {"format": "pt"})
        with quiet():
            tower.config.save_pretrained(folder)
            load_processor(base).inner.image_processor.save_pretrained(folder)
        shutil.copyfile(own / POOLER_WEIGHTS, folder / POOLER_WEIGHTS)
        shutil.copyfile(photo_encoder.__file__, folder / PROGRAM)
        about = README.format(
            name=manifest.name,
            base=base.name,
            revision=base.revision,
            dimension=pooler.dimension,
            low=base.min_pixels,
            high=base.max_pixels,
        )
        card = own / CARD
        trained = "\n" + card.read_text("utf-8") if card.is_file() else ""
        (folder / CARD).write_text(about + trained, "utf-8")
