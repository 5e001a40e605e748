"""What SFT and then RAR bring to retrieval on a real catalog: no attributes, SFT's, and those of RAR over seeds.

    python -m benchmarks.rar_catalogs DATA/luma WORK --kind listings --keys colour=color,category=garment,pattern
    python -m benchmarks.rar_catalogs DATA/myntra WORK --kind text-to-photos --identity id \\
        --keys colour=baseColour,category=articleType

The generator is taught with the training split's own columns, then rewarded by the built-in embedder. `listings`: a
photo asks for the other photos of its product, there are no texts. `text-to-photos`: a title asks for its photo, and
SFT sees titles only. Judged is the test split in a gallery of the whole catalog; neither training nor the choice of a
step has seen its queries. Resumable: what is trained is not trained again.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path
from typing import Any

import numpy as np

from afmrl_cli.catalog.problems import Problems
from afmrl_cli.evaluation.compare import differences, spread
from afmrl_cli.models.base import Bases
from afmrl_cli.models.embedder import load_embedder
from afmrl_cli.models.generator import load_generator
from afmrl_cli.rar.environment import make_environments
from afmrl_cli.rar.policy import Policy
from afmrl_cli.rar.reward import recall_at_k
from afmrl_cli.rar.run import GALLERY, RAR
from afmrl_cli.settings import Settings
from afmrl_cli.sft.run import train_sft
from afmrl_cli.sources import load_settings
from afmrl_cli.store.checkpoints import Checkpoints
from afmrl_cli.store.folder import CatalogFolder
from afmrl_cli.training.shell import run_alone
from afmrl_cli.workspace import Workspace
from benchmarks import BUILT_IN

from .rar_help import Told
from .sft_catalogs import copy_catalog

KS = (1, 10, 50)
TAUGHT = "taught"


def settings_of(folder: CatalogFolder, flags: dict[str, object]) -> Settings:
    common: dict[str, object] = {
        "model.device": "cpu",
        "catalog.columns.product_id": "product_id",
        "catalog.allow_outside": True,
        "split.test": 0.2,
    }
    return load_settings(folder.root, {**common, **flags}, BUILT_IN)


def teach(photos: CatalogFolder, texts: CatalogFolder, flags: dict[str, object]) -> None:
    """SFT in one folder; its adapter is put beside the other catalog too, where RAR starts from it."""
    taught = {"sft.source": "columns", "sft.batch_size": 16, "sft.chunk_size": 16}
    taught |= {"sft.lora_dropout": 0, "sft.rank": 32, "sft.validate_every": 40, "sft.name": TAUGHT, **flags}
    made = train_sft(Workspace(texts, settings_of(texts, taught), Told()))
    assert made is not None
    print("SFT:", made.details["before"], "->", made.details["best"], flush=True)
    found, stored = Checkpoints(texts.checkpoints), Checkpoints(photos.checkpoints)
    if not stored.path(TAUGHT).exists():
        stored.add(found.path(TAUGHT), found.get(TAUGHT))


def judged(folder: CatalogFolder, kind: str, checkpoints: dict[str, list[str | None]]) -> None:
    """Print recall of the test split's queries: system -> its checkpoints, None for no attributes."""
    # With no test split the same identities are the validation split: what nobody has trained on or chosen by.
    flags = {"split.validation": 0.2, "split.test": 0.0, "rar.validation_queries": 1000}
    settings = settings_of(folder, {**flags, "rar.query": kind, "rar.gallery": 0})
    store = Checkpoints(folder.checkpoints)
    embedder = load_embedder(settings.model, settings.embed, store, catalog=settings.catalog)
    work = Workspace(folder, settings, Told())
    environment = make_environments(work, embedder, folder.runs / GALLERY, Problems()).heldout
    products = [query.id for query in environment.queries]
    found: dict[str, list[Any]] = {}
    for name, members in checkpoints.items():
        for checkpoint in members:
            texts: list[str | None] = [None] * len(products)
            if checkpoint is not None:
                model = settings.model.model_copy(update={"generator_checkpoint": checkpoint})
                answers = Policy(load_generator(model, settings.attributes, store, bases=Bases())).answers(environment)
                texts = [environment.read(number, answer) for number, answer in enumerate(answers)]
                pairs = np.mean([len(text.split(";")) if text else 0 for text in texts])
                print(
                    f"{name}: {np.mean([text is not None for text in texts]):.0%} valid, {pairs:.1f} pairs; {texts[:3]}"
                )
            ranks = environment.ranks(range(len(products)), texts)
            found.setdefault(name, []).append(np.array([[recall_at_k(row, k) for k in KS] for row in ranks]))
    print(f"\n{len(products)} test queries ({kind})\n")
    print("| system | runs | R@1 | R@10 | R@50 | R@50 against no attributes | against SFT |")
    print("| --- " * 7 + "|")
    names = [f"R@{k}" for k in KS]
    means = {name: np.mean(each, axis=0) for name, each in found.items()}
    for name, mine in means.items():
        apart = spread(found[name])
        cells = [
            f"{100 * mine[:, i].mean():.1f}" + f" ± {100 * apart[i]:.1f}" * (len(found[name]) > 1) for i in range(3)
        ]
        for other in ("no attributes", "SFT"):
            told = differences(names, mine, means[other], products, draws=2000, confidence=0.95, seed=0)[2]
            shown = f"{100 * told.difference:+.1f} ({100 * told.low:+.1f} to {100 * told.high:+.1f})"
            cells.append("" if name == other else shown)
        print("| " + " | ".join([name, str(len(found[name])), *cells]) + " |", flush=True)


def without_photos(folder: CatalogFolder) -> CatalogFolder:
    """A copy of the catalog that has texts only."""
    place = folder.root.with_name(folder.root.name + "-texts")
    place.mkdir(exist_ok=True)
    rows = list(csv.DictReader((folder.root / "catalog.csv").open(newline="", encoding="utf-8")))
    with (place / "catalog.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [name for name in rows[0] if name != "image"], extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    for name in ("afmrl.toml", "template.txt"):
        (place / name).write_bytes((folder.root / name).read_bytes())
    return CatalogFolder(place / "catalog.csv")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--kind", choices=("listings", "text-to-photos"), required=True)
    parser.add_argument("--keys", required=True, help="as of sft_catalogs")
    parser.add_argument("--identity", default="product_id", help="the column that says what is one product")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--sft-steps", type=int, default=120)
    parser.add_argument("--temperature", type=float, default=1.0)
    parser.add_argument("--k", type=int, default=10)
    chosen = parser.parse_args()
    show = "title" if chosen.kind == "text-to-photos" else "photo"
    photos = copy_catalog(chosen.data, chosen.work, show, chosen.keys.split(","), chosen.identity)
    teach(photos, without_photos(photos) if show == "title" else photos, {"sft.steps": chosen.sft_steps})
    made: dict[str, list[str | None]] = {"no attributes": [None], "SFT": [TAUGHT], "RAR": []}
    for seed in range(chosen.seeds):
        flags: dict[str, object] = {"rar.query": chosen.kind, "rar.k": chosen.k, "rar.seed": seed, "rar.gallery": 0}
        flags |= {"rar.steps": chosen.steps, "rar.prompts": 6, "rar.chunk_answers": 48, "rar.learning_rate": 5e-4}
        flags |= {"rar.temperature": chosen.temperature}
        flags |= {"rar.validate_every": 25, "rar.validation_queries": 100, "model.generator_checkpoint": TAUGHT}
        summary = run_alone(RAR, Workspace(photos, settings_of(photos, flags), Told()))
        print(
            f"RAR, seed {seed}: {summary.details}",
            flush=True,
        )
        made["RAR"].append(summary.checkpoint or TAUGHT)  # none is stored where no step was better
    judged(photos, chosen.kind, made)


if __name__ == "__main__":
    main()
