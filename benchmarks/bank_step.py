"""A step of the second stage of `train-composed` against one of the first, of the same batch: time and memory.

    python -m benchmarks.bank_step WORK [--banks 20000,200000] [--batch 64] [--rounds 5]

The built-in model on a drawn shop in WORK, its own triplets; the bank holds random unit vectors, which take as long as
any. The two sides run in turn, in processor time of this process; printed are the medians of each and of the ratio, and
the bytes of the bank and of the similarities of a batch with their gradient. The aim is a ratio of at most 1.0 at
20,000 listings.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import torch

from afmrl_cli.composed.bank import Bank
from afmrl_cli.composed.plan import Drawn
from afmrl_cli.composed.run import COMPOSED, Run
from afmrl_cli.composed.step import BankStep, BatchStep
from afmrl_cli.listener import Silent
from afmrl_cli.nano.shop import ShopPlan, write_shop
from afmrl_cli.sources import load_settings
from afmrl_cli.store.folder import CatalogFolder
from afmrl_cli.training.shell import start_job
from afmrl_cli.workspace import Workspace

from . import BUILT_IN
from .figures import record


def seconds(step: BatchStep | BankStep, drawn: list[Drawn], made: Run) -> float:
    """Return the processor seconds of a step."""
    began = time.process_time()
    step(drawn)
    made.model.zero_grad()
    return time.process_time() - began


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--banks", default="20000,200000")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--products", type=int, default=120)
    parser.add_argument("--side", type=int, default=224, help="of a photo, in pixels")
    parser.add_argument("--rounds", type=int, default=5)
    wanted = parser.parse_args()
    shop = wanted.work / "shop"
    if not (shop / "catalog.csv").is_file():
        plan = ShopPlan(wanted.products, 3, 1.0, text_queries=0, photo_queries=0, size=wanted.side)
        write_shop(shop, plan, processes=1)
    flags = {"model.preset": "nano", "model.device": "cpu", "model.embedder_images": 1}
    work = Workspace(CatalogFolder(shop / "catalog.csv"), load_settings(shop, flags, BUILT_IN), Silent())
    job = start_job(COMPOSED, work)
    made = Run(job, COMPOSED.plan(job).content, work.folder.runs / "bench")
    made.model.train()
    number = len(made.plan.train.rows)
    drawn = made.plan.draw([i % number for i in range(wanted.batch)], 0)
    batch = BatchStep(made.plan, made.reader)
    seconds(batch, drawn, made)  # the first photos run through the tower, later ones come from the store
    for size in (int(each) for each in wanted.banks.split(",")):
        rows = torch.nn.functional.normalize(torch.randn(size, made.embedder.dimension), dim=1)
        bank = BankStep(made.plan, made.reader, Bank(rows))
        seconds(bank, drawn, made)
        pairs = [(seconds(bank, drawn, made), seconds(batch, drawn, made)) for _ in range(wanted.rounds)]
        ours, theirs = (statistics.median(side) for side in zip(*pairs, strict=True))
        ratios = sorted(theirs / own for own, theirs in pairs)
        held = rows.nbytes / 2**20
        similarities = 2 * 4 * size * wanted.batch / 2**20
        share = 1 / statistics.median(ratios)
        print(f"bank of {size:,}: {ours:.2f} s a step, {theirs:.2f} s the batch's, {share:.2f} of it")
        print(f"the bank {held:.0f} MiB, similarities and their gradient at most {similarities:.0f} MiB")
        record(
            f"composed: a step against a bank of {size:,} listings",
            ours,
            theirs,
            statistics.median(ratios),
            spread=ratios,
            aim="at least 1.0 at 20,000",
            bank_mib=held,
        )


if __name__ == "__main__":
    main()
