"""How much faster batched generation is than one product at a time, same model, same products.

    python -m benchmarks.attributes_rate [--model FOLDER] [--items 64] [--batch 32] [--rounds 3] [--clock]

Both sides in turn, the median of the rounds. Prints products per second (of processor time, with --clock by the clock),
the ratio, and whether the answers are equal.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from afmrl_cli.attributes.prompt import attribute_prompt
from afmrl_cli.attributes.request import Request
from afmrl_cli.models.generator import load_generator
from afmrl_cli.settings import AttributeSettings, ModelSettings
from afmrl_cli.store.checkpoints import Checkpoints

from .embed_rate import products
from .figures import record


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--model", default="", help="folder or hub name; default: the built-in nano")
    parser.add_argument("--items", type=int, default=64)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clock", action="store_true", help="time by the clock: on a machine that does nothing else")
    arguments = parser.parse_args()
    attributes = AttributeSettings(batch_size=arguments.batch)
    generator = load_generator(
        ModelSettings(preset="nano", generator=arguments.model), attributes, Checkpoints(Path("none"))
    )
    with tempfile.TemporaryDirectory() as folder:
        rows = products(Path(folder), arguments.items, 224)
        requests = [
            Request(attribute_prompt(text), (Image.open(path).convert("RGB"),), product=text) for text, path in rows
        ]

    def seconds(work: Callable[[], object]) -> float:
        now = time.perf_counter if arguments.clock else time.process_time
        start = now()
        work()
        return now() - start

    equal = generator.generate(requests) == [generator.generate([request])[0] for request in requests]
    batched, single = [], []
    for _ in range(arguments.rounds):
        batched.append(seconds(lambda: generator.generate(requests)))
        single.append(seconds(lambda: [generator.generate([request]) for request in requests]))
    fast, slow = statistics.median(batched), statistics.median(single)
    print(f"one by one     {arguments.items / slow:8.2f} products/s")
    print(f"batches of {arguments.batch:<3} {arguments.items / fast:8.2f} products/s   {slow / fast:.1f} times as fast")
    print(f"answers equal: {'yes' if equal else 'NO'}")
    record(
        f"attributes: batches of {arguments.batch} against one by one, products a second",
        arguments.items / fast,
        arguments.items / slow,
        slow / fast,
        spread=[b / a for a, b in zip(batched, single, strict=True)],
        aim=">= 3",
        time="clock" if arguments.clock else "processor",
        answers="equal" if equal else "NOT EQUAL",
    )


if __name__ == "__main__":
    main()
