"""`afmrl checkpoints`: the adapters that were trained, and handing them to other programs."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Literal

import typer

from ..errors import UsageError
from .errors import guarded
from .options import Session, in_session

checkpoints = typer.Typer(no_args_is_help=True, help="List, show and export trained adapters.")

Name = Annotated[str, typer.Argument(help="The checkpoint's name, as in `afmrl checkpoints list`.")]


def list_(session: Session) -> None:
    """List the checkpoints, the oldest first; one whose manifest is damaged is named in a warning.

    Example: afmrl checkpoints list
    """
    from ..store.checkpoints import Checkpoints

    found, damaged = Checkpoints(session.folder.checkpoints).survey()
    rows = [
        {"name": m.name, "role": m.role, "base": m.base, "parent": m.parent, "metrics": m.metrics, "created": m.created}
        for m in found
    ]
    wrong = [{"name": name, "error": str(error)} for name, error in damaged.items()]
    session.out.document("afmrl.checkpoints/1", {"checkpoints": rows, "damaged": wrong})
    for error in damaged.values():
        session.out.warn(f"{error} ({error.hint})")
    if not found:
        if not damaged:
            session.out.note("no checkpoints yet: `afmrl train-agcl` makes one")
        return
    cells = [
        [
            m.name,
            m.role,
            Path(m.base).name,
            m.parent or "",
            time.strftime("%Y-%m-%d %H:%M", time.localtime(m.created)),
            ", ".join(f"{name} {value:.3f}" for name, value in m.metrics.items()),
        ]
        for m in found
    ]
    session.out.table(["name", "role", "base", "parent", "trained", "validation"], cells)


def show(session: Session, name: Name) -> None:
    """Show a checkpoint's manifest; its files are checked against their hashes.

    Example: afmrl checkpoints show embedder-1
    """
    import dataclasses
    import json

    from ..store.checkpoints import Checkpoints

    store = Checkpoints(session.folder.checkpoints)
    manifest = dataclasses.asdict(store.get(name))
    session.out.document("afmrl.checkpoint/1", {**manifest, "folder": store.path(name)})
    session.out.text(json.dumps(manifest, ensure_ascii=False, indent=2))
    session.out.note(f"files: {store.path(name)}")


def export(
    session: Session,
    name: Name,
    out_folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A new folder to write.")],
    to: Annotated[
        str, typer.Option("--to", help="sentence-transformers (embedders), or peft.")
    ] = "sentence-transformers",
) -> None:
    """Write a checkpoint as a folder that other programs open.

    Example: afmrl checkpoints export embedder-1 my-embedder
    """
    kinds: tuple[Literal["sentence-transformers", "peft"], ...] = ("sentence-transformers", "peft")
    if to not in kinds:
        raise UsageError(f"--to {to}: unknown", f"known: {', '.join(kinds)}")
    from ..store.checkpoints import Checkpoints

    store, settings = Checkpoints(session.folder.checkpoints), session.settings
    manifest = store.get(name)
    if to == "sentence-transformers" and manifest.role != "embedder":
        raise UsageError(f"{name} belongs to the {manifest.role}: it gives no vectors", "use --to peft")
    with session.out:
        from ..models.export import export_peft, export_sentence_transformers

        if to == "peft":
            export_peft(manifest, store, out_folder)
        else:
            from ..models.presets import resolve_adapter, resolve_base

            base = resolve_base(settings.model, "embedder", session.out)
            resolve_adapter(settings.model.model_copy(update={"embedder_checkpoint": name}), "embedder", base, store)
            export_sentence_transformers(manifest, base, settings.embed, store, out_folder)
    session.out.document("afmrl.checkpoints-export/1", {"checkpoint": name, "to": to, "folder": out_folder})
    session.out.text(str(out_folder))


checkpoints.command("list")(guarded(in_session(list_)))
checkpoints.command("show")(guarded(in_session(show)))
checkpoints.command("export")(guarded(in_session(export)))
