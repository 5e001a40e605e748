"""What SFT brings on a real catalog: attribute accuracy per key on the test split, before and after.

    python -m benchmarks.sft_catalogs DATA/myntra WORK --show photo --keys colour=baseColour,category=articleType
    python -m benchmarks.sft_catalogs DATA/myntra WORK --show title --keys colour=baseColour,category=articleType
    python -m benchmarks.sft_catalogs DATA/luma WORK --show photo --keys colour=color,category=garment,pattern

DATA is a catalog with photos and attr_* columns, of which a copy with what --show leaves is made in WORK. Targets are
the catalog's own columns; the split is by style, so that no style stands on both sides. The schema has all values that
the catalog has; the prompt does not list them. "most common" answers every key with its most common training value.
The test split is asked about twice, at the very end: with the bare base and with the trained adapter.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections import Counter
from pathlib import Path

from afmrl_cli.attributes.task import load_task
from afmrl_cli.catalog.problems import Problems
from afmrl_cli.catalog.read import open_catalog
from afmrl_cli.catalog.splits import split_of
from afmrl_cli.cli.output import Output
from afmrl_cli.listener import Silent
from afmrl_cli.models.generator import load_generator
from afmrl_cli.settings import Settings
from afmrl_cli.sft.corpus import Example
from afmrl_cli.sft.run import train_sft
from afmrl_cli.sft.score import Score, score_generator
from afmrl_cli.sft.targets import open_source, read_target
from afmrl_cli.sources import load_settings
from afmrl_cli.store.checkpoints import Checkpoints
from afmrl_cli.store.database import Database
from afmrl_cli.store.folder import CatalogFolder
from afmrl_cli.workspace import Workspace
from benchmarks import BUILT_IN

TEMPLATE = "{product}\nThe attributes of this product, in one line, key: value; key: value."


def copy_catalog(data: Path, work: Path, show: str, keys: list[str], identity: str = "style_id") -> CatalogFolder:
    """catalog.csv without what is not shown (`identity` is its product_id), the photos, afmrl.toml with the schema."""
    place = work / f"{data.name}-{show}"
    place.mkdir(parents=True, exist_ok=True)
    with (data / "catalog.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    pairs = [pair.rpartition("=")[::2] for pair in keys]
    named = {f"attr_{key or column}": f"attr_{column}" for key, column in pairs}
    if not named:
        named = {name: name for name in rows[0] if name.startswith("attr_")}
    attributes = list(named)
    rows = [
        row | {"product_id": row[identity], **{name: row[column] for name, column in named.items()}} for row in rows
    ]
    kept = ["id", "product_id", "image", *attributes, *(["title"] if show == "title" else [])]
    with (place / "catalog.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, kept, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    if not (place / "images").exists():
        (place / "images").symlink_to(data / "images")
    (place / "template.txt").write_text(TEMPLATE, "utf-8")
    lines = ['[attributes]\ntemplate = "template.txt"\nmax_new_tokens = 128\nmax_pairs = 16\n']
    for name in attributes:
        cells = [cell for row in rows if (cell := row[name])]
        several = any("|" in cell for cell in cells)
        values = sorted({part.strip().lower() for cell in cells for part in (cell.split("|") if several else [cell])})
        key = name.removeprefix("attr_").replace("_", " ").lower()
        lines.append(f'[attributes.keys."{key}"]\nvalues = {json.dumps(values)}\nmultiple = {str(several).lower()}\n')
    (place / "afmrl.toml").write_text("\n".join(lines), "utf-8")
    return CatalogFolder(place / "catalog.csv")


def test_examples(folder: CatalogFolder, settings: Settings) -> tuple[list[Example], Counter[tuple[str, str]]]:
    """The test split with its targets, and how often each (key, value) stands in the training split."""
    task, examples = load_task(settings.attributes, folder.root), []
    values: Counter[tuple[str, str]] = Counter()
    with Database(folder.database) as database, open_catalog(folder, settings.catalog, Problems()) as catalog:
        source = open_source(Workspace(folder, settings, Silent()), catalog, database, "")
        for product in catalog.products:
            text, _ = source.raw(product, None)
            target = read_target(text, product, task, source.keys)
            if not isinstance(target, str):
                if split_of(product, settings.split) == "test":
                    examples.append(Example(product, target))
                elif split_of(product, settings.split) == "train":
                    values.update(target.pairs.items())
    return examples, values


def print_table(before: Score, after: Score, common: dict[str, str], examples: list[Example]) -> None:
    print("| key | products | values | most common | before | after | after, letter by letter |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    old, new = before.by_key(), after.by_key()
    for key, figures in new.items():
        own = [example.target.pairs[key] for example in examples if key in example.target.pairs]
        guess = sum(value == common.get(key) for value in own) / len(own)
        shown = f"{guess:.3f} | {old[key]['accuracy']:.3f} | {figures['accuracy']:.3f} | {figures['exact']:.3f}"
        print(f"| {key} | {len(own)} | {len(set(own))} | {shown} |")
    for name in ("accuracy", "valid", "length", "extra"):
        print(f"{name}: before {before.metrics()[name]:.3f}, after {after.metrics()[name]:.3f}")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--show", choices=("photo", "title"), default="photo", help="title: photo and title")
    parser.add_argument("--keys", default="", help="columns without attr_, as KEY=COLUMN to rename; empty: all")
    parser.add_argument("--test-products", type=int, default=300, help="the first so many of the test split")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--dry-run", action="store_true")
    chosen = parser.parse_args()
    folder = copy_catalog(chosen.data, chosen.work, chosen.show, [key for key in chosen.keys.split(",") if key])
    flags = {
        "catalog.columns.product_id": "product_id",
        "catalog.allow_outside": True,
        "sft.source": "columns",
        "split.test": 0.2,
        **dict(pair.split("=", 1) for pair in chosen.set),
    }
    settings = load_settings(folder.root, flags, BUILT_IN)
    out = Output()
    summary = train_sft(Workspace(folder, settings, out), dry_run=chosen.dry_run)
    assert summary is not None
    print(json.dumps(summary.plan, ensure_ascii=False))
    if summary.estimate is not None:
        print(summary.estimate)
        return
    task, checkpoints = load_task(settings.attributes, folder.root), Checkpoints(folder.checkpoints)
    examples, values = test_examples(folder, settings)
    examples = examples[: chosen.test_products]
    common: dict[str, str] = {}
    for (key, value), _ in values.most_common():
        common.setdefault(key, value)
    scores = []
    for name in ("", summary.checkpoint):
        model = settings.model.model_copy(update={"generator_checkpoint": name})
        generator = load_generator(model, settings.attributes, checkpoints, listener=out)
        scores.append(score_generator(generator, examples, task, settings, out, "testing"))
    print(f"{chosen.data.name}, {chosen.show}: {len(examples)} test products; trained in {summary.seconds:.0f} s")
    print_table(scores[0], scores[1], common, examples)
    for example in examples[:3]:
        print(f"{example.product.id}: target {example.target.text}")


if __name__ == "__main__":
    main()
