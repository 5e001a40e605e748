"""`afmrl cycle`: the closed loop of attributes, AGCL and RAR, scored stage by stage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .flags import setting
from .options import Session, in_session
from .output import Output

if TYPE_CHECKING:
    from ..cycle.expect import Expected
    from ..cycle.run import CycleSummary
    from ..cycle.stages import Scored
    from ..training.memory import StageMemory

GIB = 2**30
ESTIMATED_AS: dict[str, str] = {"score": "embed", "attributes": "attributes", "infonce": "train-agcl"}
"""By which command's estimate of memory a kind of stage goes, where it is not train-<kind>."""


def _command_of(stage: Expected) -> str:
    return ESTIMATED_AS.get(stage.kind, f"train-{stage.kind}")


@in_session(
    setting("cycle.iterations"),
    setting("cycle.share"),
    setting("cycle.infonce"),
    setting("cycle.sft"),
    setting("cycle.composed"),
    setting("cycle.protocol"),
    setting("model.preset"),
    roles=("generator", "embedder"),
    writes=True,
)
def cycle(
    session: Session,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only list the stages: which are done, what the others may take.")
    ] = False,
) -> None:
    """Run the whole loop: attributes, AGCL, RAR, new attributes, ...; stages are accepted by the validation split.

    Interrupted or killed, the same command goes on; what is done is not done again. A stage whose metric falls is
    rejected. The test split is scored once, at the end. The checkpoints of the last accepted stage are labelled best.

    Example: afmrl cycle --iterations 2 --dry-run; then afmrl cycle --iterations 2
    """

    from ..cycle.run import run_cycle

    with session.out:
        summary = run_cycle(session.work, dry_run=dry_run)
    if dry_run:
        _show_plan(session, summary)
    else:
        _show(session, summary)


def _show_plan(session: Session, summary: CycleSummary) -> None:
    from ..catalog.read import most_photos
    from ..models.device import memory_here
    from ..training.memory import estimate_stages

    here, settings = memory_here(session.settings.model), session.settings
    estimates: dict[str, StageMemory] = {
        each.stage: each for each in estimate_stages(settings, max(1, most_photos(session.folder, settings.catalog)))
    }
    left = [each for each in summary.expected if not each.done]
    known = [each.seconds for each in left if each.seconds is not None]
    stages: list[dict[str, object]] = []
    rows: list[list[object]] = []
    for each in summary.expected:
        estimate = estimates.get(_command_of(each))
        stages.append(asdict(each) | {"estimated_bytes": estimate.peak_bytes if estimate else None})
        seconds = "-" if each.done else "unknown" if each.seconds is None else f"{each.seconds:.0f} s"
        peak = "" if each.done or not each.peak_bytes else f"{each.peak_bytes / GIB:.2f} GiB"
        estimated = "" if each.done or estimate is None else f"{estimate.beside(each.peak_bytes or 0) / GIB:.2f} GiB"
        rows.append([each.name, "done" if each.done else "to do", seconds, peak, estimated])
    coming = {_command_of(each) for each in left}
    advice = _advice([each for name, each in estimates.items() if name in coming], here)
    document = {"run": summary.run, "stages": stages, "seconds": sum(known), "unknown": len(left) - len(known)}
    document |= {"folds": summary.content["folds"]}
    session.out.document("afmrl.cycle-plan/1", document | {"memory_here": here, "advice": advice})
    session.out.table(["stage", "", "time", "peak memory", "estimated peak"], rows)
    if not left:
        session.out.text("all is done")
        return
    message = f"{len(left)} stages to do"
    if known:
        message += f": {sum(known) / 60:.1f} min"
        measured = any(each.measured for each in left)
        message += (
            ", in part by what was measured just now, without loading" if measured else " by what they took before"
        )
    unknown = len(left) - len(known)
    session.out.text(message + f"; {unknown} of them could not be measured" * bool(unknown))
    for line in advice.values():
        session.out.text(line)


def _advice(estimates: Sequence[StageMemory], here: int | None) -> dict[str, str]:
    """Return a line for each stage that is too large for the device, by its command's name."""
    return {
        each.stage: f"{each.stage} is estimated at {each.peak_bytes / GIB:.1f} GiB, {here / GIB:.1f} are here: {what}"
        for each in estimates
        if here is not None and (what := each.advice(here))
    }


def show_composed(out: Output, found: Mapping[str, Any]) -> None:
    """Print what training for composed queries brought, `found` of cycle.json."""
    from ..cycle.composed import composed_lines, composed_table

    columns, rows, title = composed_table(found)
    if rows:
        out.table(columns, rows, title)
    for line in composed_lines(found):
        out.words(f"composed: {line}")


def _show(session: Session, summary: CycleSummary) -> None:
    from ..cycle.folds import folds_lines
    from ..cycle.stage_results import columns, in_all, last_accepted, leaderboard

    out, content, results, metric = session.out, summary.content, summary.results, summary.metric
    out.document("afmrl.cycle/2", {**{k: v for k, v in content.items() if k != "schema"}, "run": summary.run})
    words: dict[Scored, str] = {"validation": "by which stages were accepted", "test": "not used for choosing"}
    for split, role in words.items():
        scored = next((each[split] for each in content["leaderboard"] if each[split]), None)
        if scored is None:
            out.words(f"{split}: no query is about this split")
            continue
        sizes = f"{scored['queries']:,} queries about {scored['products']:,} products, gallery of {scored['gallery']:,}"
        out.table(columns(metric, split), leaderboard(results, metric, split), f"{split}, {role}: {sizes}")
    out.words("a change is to the last accepted stage before")
    for result in results:
        if result.note:
            out.words(f"{result.name}: {result.note}")
    if content["composed"]:
        show_composed(out, content["composed"])
    for line in (*content["shows"], *folds_lines(content["folds"])):
        out.words(line)
    if content["test_flatters"]:
        out.words(f"careful: {content['test_flatters']}")
    if content["stopped"]:
        out.words(f"ended early: {content['stopped']}")
    last = last_accepted(results)
    if last.test:
        out.words(in_all(results[0].name, last.name, last.change(metric, "test", "from_base"), metric))
    names = [f"{role} {name or 'as it was'}" for role, name in content["lineage"].items()]
    out.words(f"chosen: {', '.join(names)}; queries {'with' if content['attributes'] else 'without'} attributes")
    out.text(f"report: {summary.run / 'report.html'}")
    _tell_use(out, content)


def _tell_use(out: Output, content: Mapping[str, Any]) -> None:
    """Say with which settings the other commands take what the cycle made."""
    from ..cycle.composed import use_composed
    from ..cycle.stage_results import chosen_settings

    made = {"use them": chosen_settings(content) if any(content["lineage"].values()) else []}
    if content["composed"] and content["composed"]["checkpoint"]:
        made["for search --change"] = use_composed(content)
    for what, chosen in made.items():
        if chosen:
            out.note(f"{what}: afmrl embed " + " ".join(f"--set {each}" for each in chosen))
