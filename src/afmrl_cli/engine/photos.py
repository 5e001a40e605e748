"""Photos opened by processes of their own, on the machine of the model that they are for: the function of one process,
`models.vision.load_picture`, called elsewhere. A model asks for as many at a time as its threads wait for.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..catalog.images import ImageProblem
from ..catalog.pictures import Picture
from ..models.dimensions import Shortened
from ..models.features import Kept
from ..models.vision import load_picture
from ..settings import CatalogSettings

if TYPE_CHECKING:
    from ..models.processor import Processor


class PhotoActor:
    """The actor that opens photos as one model reads them."""

    def __init__(self, processor: Processor) -> None:
        self._processor = processor

    def load(self, path: Path, content: str, catalog: CatalogSettings) -> Picture | ImageProblem:
        """Return the photo, or why it can't be read."""
        try:
            return load_picture(path, content, None, self._processor, catalog)
        except ImageProblem as problem:
            return problem


class PhotoActors:
    """So many `count` of them, for one model; they end with the process that has started them."""

    def __init__(self, count: int) -> None:
        self._count = count

    def serve(self, model: Any) -> None:
        """Let them open the photos of `model`, if it is one that loads its own by `load_picture`."""
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        model = model.encoder if isinstance(model, Shortened) else model
        reader = getattr(model, "vision", model)
        if not hasattr(reader, "load_picture"):
            return
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        # The worker has taken their cores with its own.
        made = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=3, scheduling_strategy=here)
        actors = itertools.cycle([made(PhotoActor).remote(reader.processor) for _ in range(self._count)])

        def load(
            path: Path, content: str, kept: Kept | None, processor: Processor, catalog: CatalogSettings
        ) -> Picture:
            """Load the photo elsewhere, as `load_picture` does; one that stays closed here."""
            if kept is not None:
                return load_picture(path, content, kept, processor, catalog)
            found: Picture | ImageProblem = ray.get(next(actors).load.remote(path, content, catalog))
            if isinstance(found, ImageProblem):
                raise found
            return found

        reader.load_picture = load
