"""`afmrl checkpoints`: list, show, compare, prune, export and import the trained adapters."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import UsageError
from .errors import guarded
from .options import Session, in_session
from .output import plain_text

if TYPE_CHECKING:
    from ..store.checkpoints import Checkpoints, Manifest, Role
    from ..store.provenance import Provenance

checkpoints = typer.Typer(
    add_completion=False, no_args_is_help=True, help="List, show, compare, prune, export and import trained adapters."
)

FORMATS = ("sentence-transformers", "transformers", "peft", "afmrl")
Name = Annotated[
    str,
    typer.Argument(help="A name as in `afmrl checkpoints list`, or a label such as embedder:latest, generator:best."),
]


def _store(session: Session) -> Checkpoints:
    from ..store.checkpoints import Checkpoints

    return Checkpoints(session.folder.checkpoints)


def _labels_of(store: Checkpoints) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for label, name in store.labels().items():
        found.setdefault(name, []).append(label.partition(":")[2])
    return found


def _size(number: int) -> str:
    return f"{number / 2**20:.1f} MiB"


def _metrics(manifest: Manifest, most: int = 3) -> str:
    return ", ".join(f"{name} {value:.3f}" for name, value in list(manifest.metrics.items())[:most])


def list_(session: Session) -> None:
    """List the checkpoints, the oldest first; one whose manifest is damaged is named in a warning.

    Example: afmrl checkpoints list
    """
    store = _store(session)
    found, damaged = store.survey()
    labels = _labels_of(store)
    rows = [
        {
            "name": m.name,
            "role": m.role,
            "two_sided": m.two_sided,
            "labels": labels.get(m.name, []),
            "base": m.base,
            "parent": m.parent,
            "metrics": m.metrics,
            "bytes": store.size(m.name),
            "created": m.created,
        }
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
            ", ".join(labels.get(m.name, [])),
            f"{m.role}, two-sided" if m.two_sided else m.role,
            Path(m.base).name,
            m.parent or "",
            time.strftime("%Y-%m-%d %H:%M", time.localtime(m.created)),
            _size(store.size(m.name)),
            _metrics(m),
        ]
        for m in found
    ]
    session.out.table(["name", "label", "role", "base", "parent", "trained", "size", "validation"], cells)


def show(session: Session, name: Name) -> None:
    """Show a checkpoint's manifest, where it came from and what was made with it; its files are checked.

    Example: afmrl checkpoints show embedder-1
    """
    import dataclasses
    import json

    from ..store.provenance import provenance_of

    store = _store(session)
    manifest = store.find(name)
    provenance = provenance_of(session.folder, store, manifest)
    content = manifest.describe()
    about = {"folder": store.path(manifest.name), "bytes": store.size(manifest.name)}
    chain = _plain(dataclasses.asdict(provenance))
    session.out.document("afmrl.checkpoint/1", {**content, **about, "chain": chain})
    session.out.text(json.dumps(content, ensure_ascii=False, indent=2))
    for words, things in _summary(provenance, manifest):
        session.out.text(f"{words}: {', '.join(things) if things else 'none'}")
    session.out.note(f"files: {store.path(manifest.name)}")


def _plain(chain: dict[str, Any]) -> dict[str, Any]:
    """Write a provenance by the names that afmrl.checkpoint/1 has for its parts."""
    evaluations, descendants = map(str, chain.pop("evaluations")), chain.pop("descendants")
    return {
        **chain,
        "vectors": list(map(str, chain["vectors"])),
        "figures": list(evaluations),
        "offspring": descendants,
    }


def _summary(provenance: Provenance, manifest: Manifest) -> list[tuple[str, list[str]]]:
    sources = [f"{name} ({how})" for how, name in provenance.sources]
    imported = manifest.settings.get("imported")
    if isinstance(imported, dict):
        source = imported.get("source")
        what = f"imported, SHA-256 {str(source)[:12]}" if source else "imported"
        sources.append(f"{str(imported.get('name'))[:200]} ({what})")
    sides = ["gallery", "query (reads composed queries)"] if manifest.two_sided else []
    parts = ["adapter of the vision tower", "pooler"] if manifest.role == "vision" else []
    return [
        *([("two-sided", sides)] if sides else []),
        *([("vision encoder", parts)] if parts else []),
        ("came from", sources),
        ("attributes", [f"{number:,} by {model}" for model, number in provenance.attributes.items()]),
        ("vectors", [f"{path.parent.name}/{path.name}" for path in provenance.vectors]),
        ("evaluations", [path.name for path in provenance.evaluations]),
        ("stages of cycles", provenance.cycles),
        ("descendants", [f"{name} ({how})" for how, name in provenance.descendants]),
    ]


def diff(session: Session, first: Name, second: Name) -> None:
    """Show what two checkpoints differ in: parent, data, settings, metrics, versions.

    Example: afmrl checkpoints diff embedder-1 embedder-2
    """
    from ..store.lineage import differences

    store = _store(session)
    one, other = store.find(first), store.find(second)
    found = differences(one, other)
    rows = [{"what": what, "first": a, "second": b} for what, a, b in found]
    session.out.document("afmrl.checkpoints-diff/1", {"first": one.name, "second": other.name, "differences": rows})
    if not found:
        session.out.text(f"{one.name} and {other.name} differ in nothing but name and time")
        return
    session.out.table(["", one.name, other.name], [[what, plain_text(a), plain_text(b)] for what, a, b in found])


def tree(session: Session) -> None:
    """Show which checkpoint was trained from which.

    Example: afmrl checkpoints tree
    """
    from ..store.lineage import tree as ordered

    store = _store(session)
    labels = _labels_of(store)
    rows = ordered(store.list())
    found = [{"name": m.name, "depth": depth, "parent": m.parent, "metrics": m.metrics} for depth, m in rows]
    session.out.document("afmrl.checkpoints-tree/1", {"checkpoints": found})
    for depth, m in rows:
        marks = f" [{', '.join(labels[m.name])}]" if m.name in labels else ""
        session.out.text(f"{'   ' * (depth - 1) + '└─ ' if depth else ''}{m.name}{marks}  {_metrics(m, 1)}".rstrip())
    if not rows:
        session.out.note("no checkpoints yet: `afmrl train-agcl` makes one")


def best(session: Session, name: Name) -> None:
    """Label a checkpoint as the best of its role; `model.embedder_checkpoint = "best"` then means it.

    Example: afmrl checkpoints best embedder-2
    """
    from ..store.lock import writer_lock

    store = _store(session)
    with writer_lock(session.folder.store, "afmrl checkpoints best"):
        manifest = store.set_best(store.find(name).name)
    session.out.document("afmrl.checkpoints-best/1", {"role": manifest.role, "checkpoint": manifest.name})
    session.out.text(f"{manifest.role}:best is {manifest.name}")


def prune(
    session: Session, yes: Annotated[bool, typer.Option("--yes", help="Delete; without it, only say what.")] = False
) -> None:
    """Delete checkpoints that no label, setting or cycle needs, nor anything that came from them; shows them first.

    Example: afmrl checkpoints prune; then afmrl checkpoints prune --yes
    """
    from ..store.checkpoints import ROLES
    from ..store.lineage import needed
    from ..store.lock import writer_lock
    from ..store.provenance import wanted_checkpoints

    store = _store(session)
    with writer_lock(session.folder.store, "afmrl checkpoints prune"):
        found, model = store.list(), session.settings.model
        chosen = {f"model.{role}_checkpoint": getattr(model, f"{role}_checkpoint") for role in ROLES}
        kept = needed(found, wanted_checkpoints(session.folder, store, chosen))
        gone = [m for m in found if m.name not in kept]
        sizes = {m.name: store.size(m.name) for m in gone}
        if yes:
            for m in gone:
                store.remove(m.name)
    session.out.document(
        "afmrl.checkpoints-prune/1",
        {"deleted" if yes else "would_delete": list(sizes), "bytes": sum(sizes.values()), "kept": kept},
    )
    session.out.table(["kept", "because"], [[name, reason] for name, reason in sorted(kept.items())])
    if not gone:
        session.out.text("nothing to delete")
        return
    session.out.table(
        ["deleted" if yes else "would be deleted", "size", "validation"],
        [[m.name, _size(sizes[m.name]), _metrics(m)] for m in gone],
    )
    session.out.text(f"{_size(sum(sizes.values()))} in all" + ("" if yes else "; --yes deletes them"))


def export(
    session: Session,
    name: Name,
    out_folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A new folder to write.")],
    to: Annotated[
        str,
        typer.Option(
            "--to",
            help="sentence-transformers (of embedders, the default), transformers (of vision encoders, theirs), peft, "
            "or afmrl for `checkpoints import`.",
        ),
    ] = "",
) -> None:
    """Write a checkpoint as a folder that other programs open.

    Example: afmrl checkpoints export embedder-1 my-embedder
    """
    if to not in ("", *FORMATS):
        raise UsageError(f"--to {to}: unknown", f"known: {', '.join(FORMATS)}")
    store, settings = _store(session), session.settings
    manifest = store.find(name)
    to = to or ("transformers" if manifest.role == "vision" else "sentence-transformers")
    if to == "sentence-transformers" and manifest.role == "vision":
        raise UsageError(f"{manifest.name} reads photos, sentence-transformers texts", "use --to transformers")
    if to == "transformers" and manifest.role != "vision":
        raise UsageError(f"{manifest.name} belongs to the {manifest.role}: --to transformers is of vision encoders")
    if to == "sentence-transformers" and manifest.role != "embedder":
        raise UsageError(f"{manifest.name} belongs to the {manifest.role}: it gives no vectors", "use --to peft")
    with session.out:
        if to == "afmrl":
            from ..store.transfer import export_checkpoint

            export_checkpoint(manifest, store, out_folder)
        elif to == "peft":
            from ..models.export import export_peft

            export_peft(manifest, store, out_folder)
        elif to == "transformers":
            from ..models.export_vision import export_vision
            from ..models.presets import resolve_adapter, resolve_base

            base = resolve_base(settings.model, "vision", session.out)
            model = settings.model.model_copy(update={"vision_checkpoint": manifest.name})
            resolve_adapter(model, "vision", base, store)  # trained on that base
            export_vision(manifest, base, store, out_folder)
        else:
            from ..models.export import export_sentence_transformers
            from ..models.presets import embed_template, resolve_base

            base = resolve_base(settings.model, "embedder", session.out)
            chosen = settings.model.model_copy(update={"embedder_checkpoint": manifest.name})
            template = embed_template(chosen, store, session.out)
            export_sentence_transformers(manifest, base, template, settings.embed, store, out_folder)
    about = {"checkpoint": manifest.name, "to": to, "folder": out_folder, "two_sided": manifest.two_sided}
    session.out.document("afmrl.checkpoints-export/1", about)
    if manifest.two_sided and to != "afmrl":
        gallery = "gallery/" if to == "sentence-transformers" else "the folder itself"
        session.out.note(f"two-sided: query/ reads composed queries (a photo and a change), {gallery} all else")
    session.out.text(str(out_folder))


def import_(
    session: Session,
    source: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="What `checkpoints export --to afmrl` wrote, or any PEFT adapter.")
    ],
    name: Annotated[str, typer.Option("--name", help="Another name for it here.")] = "",
    role: Annotated[str, typer.Option("--role", help="Of an adapter made elsewhere: embedder or generator.")] = "",
    template: Annotated[
        str, typer.Option("--template", help="Embed template it was trained with; without it, its base's.")
    ] = "",
) -> None:
    """Take in a checkpoint of another catalog or machine, or an adapter that other programs trained; no pickles.

    Example: afmrl checkpoints import ../other-shop/exported; afmrl checkpoints import their-adapter --role embedder
    """
    from ..models.templates import TEMPLATES
    from ..store.checkpoints import MANIFEST, ROLES

    if role not in ("", *ROLES):
        raise UsageError(f"--role {role}: unknown", f"known: {', '.join(ROLES)}")
    if template not in ("", *TEMPLATES):
        raise UsageError(f"--template {template}: unknown", f"known: {', '.join(TEMPLATES)}")
    if template and role == "generator":
        raise UsageError("--template is of embedders", "leave it out")
    if (source / MANIFEST).exists():
        if template:
            raise UsageError(f"{source}: its {MANIFEST} says which template it has", "leave --template out")
        _import_archive(session, source, name, role)
    elif role not in ("embedder", "generator"):
        raise UsageError(
            f"{source}: no {MANIFEST} in it, so not what `afmrl checkpoints export` wrote",
            "for an adapter made elsewhere say --role embedder or --role generator; a reranker of another program does "
            "not say how it wants to be asked",
        )
    else:
        _import_adapter(session, source, name, "embedder" if role == "embedder" else "generator", template)


def _import_archive(session: Session, source: Path, name: str, role: str) -> None:
    from ..models.presets import resolve_base
    from ..store.lock import writer_lock
    from ..store.transfer import import_checkpoint, read_foreign

    store = _store(session)
    with session.out, writer_lock(session.folder.store, "afmrl checkpoints import"):
        manifest = read_foreign(source)
        if role not in ("", manifest.role):
            raise UsageError(f"{source}: a checkpoint of the {manifest.role}", "leave --role out")
        base = resolve_base(session.settings.model, manifest.role, session.out)
        before = {each.name for each in store.list()}
        stored = import_checkpoint(source, manifest, store, base.name, base.revision, name)
    here = stored.name in before
    session.out.document("afmrl.checkpoints-import/1", {"checkpoint": stored.name, "was_here": here})
    session.out.text(f"{stored.name}" + (": the same weights were here already" if here else ""))


def _import_adapter(session: Session, source: Path, name: str, role: Role, template: str) -> None:
    from ..models.import_adapter import import_adapter
    from ..store.lock import writer_lock

    store, model = _store(session), session.settings.model
    model = model.model_copy(update={"embed_template": template or model.embed_template})
    with session.out, writer_lock(session.folder.store, "afmrl checkpoints import"):
        done = import_adapter(source, role, model, store, session.out, name)
    details: dict[str, object] = {"tensors": done.tensors, "renamed": done.renamed}
    if role == "embedder":
        details["template"] = done.manifest.embed_template
    reads = f"; reads the template {done.manifest.embed_template}" if role == "embedder" else ""
    content = {"checkpoint": done.manifest.name, "was_here": done.was_here, **details}
    session.out.document("afmrl.checkpoints-import/1", content)
    kind = "tensors of a DoRA, which runs slower" if done.manifest.settings["imported"]["dora"] else "tensors"
    session.out.note(f"{done.tensors} {kind}; {done.renamed} renamed; base {done.manifest.base}{reads}")
    session.out.text(done.manifest.name + (": the same weights were here already" if done.was_here else ""))


checkpoints.command("list")(guarded(in_session(catalog="option")(list_)))
checkpoints.command("show")(guarded(in_session(catalog="option")(show)))
checkpoints.command("diff")(guarded(in_session(catalog="option")(diff)))
checkpoints.command("tree")(guarded(in_session(catalog="option")(tree)))
checkpoints.command("best")(guarded(in_session(catalog="option")(best)))
checkpoints.command("prune")(guarded(in_session(catalog="option")(prune)))
checkpoints.command("export")(guarded(in_session(catalog="option")(export)))
checkpoints.command("import")(guarded(in_session(catalog="option")(import_)))
