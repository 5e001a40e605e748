"""What a cycle has done, stage by stage: one small file each, written when the stage is over.

    runs/cycle-<key>/settings.json
                     cycle.json          the leaderboard, the lineage, why it ended; rewritten after every stage
                     stages/1-agcl.json  fingerprint of the inputs, result, seconds, memory
                     scores/<stage>-<..>/ metrics and rankings, as `afmrl eval` keeps them

A kill loses the stage at hand at most; trainings and long generations go on inside.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from ..errors import AfmrlError
from ..listener import Listener
from ..store.files import hash_json, parse_json, reading, write_json
from .stages import Result, run_isolated


@dataclass(frozen=True)
class Record:
    """A finished stage."""

    name: str
    kind: str
    fingerprint: str
    inputs: Mapping[str, str]
    result: Result
    seconds: float
    peak_bytes: int
    created: float


class StageNotDone(Exception):
    """A dry run has come to the stage `name`, which is not done."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


class InputsChanged(Exception):
    """`what` changed while the stage `name` was being done: its result is of neither catalog, and not recorded."""

    def __init__(self, name: str, what: list[str]) -> None:
        super().__init__(name)
        self.name, self.what = name, what


class Records:
    """The stages of the cycle in `folder`. `dry`: nothing is done, StageNotDone is raised instead. `changed` says
    what of the catalog, its photos and the files beside it is another than at the last reading, in words.
    """

    def __init__(self, folder: Path, listener: Listener, *, dry: bool, changed: Callable[[], list[str]]) -> None:
        self.folder, self.listener, self.dry, self.changed = folder, listener, dry, changed
        self.stages: list[Record] = []
        self.skipped: set[str] = set()

    def worked(self) -> list[Record]:
        """Return the stages that were done by this command, not before."""
        return [each for each in self.stages if each.name not in self.skipped]

    def describe(self) -> list[dict[str, object]]:
        """Describe the stages for cycle.json."""
        return [
            {
                "name": each.name,
                "kind": each.kind,
                "fingerprint": each.fingerprint,
                "checkpoint": each.result.get("checkpoint"),
                "run": each.result.get("run"),
                "seconds": each.seconds,
                "peak_bytes": each.peak_bytes,
                "done_before": each.name in self.skipped,
            }
            for each in self.stages
        ]

    def keep_scores(self, places: Sequence[str]) -> None:
        """Remove scores that no stage stands for any more, of a catalog that has changed since: all but `places`."""
        scores = self.folder / "scores"
        for path in scores.iterdir() if scores.is_dir() else ():
            if path.name not in places:
                shutil.rmtree(path)

    def fingerprint(self, inputs: Mapping[str, str]) -> str:
        """Return the name of what the inputs give."""
        return hash_json(dict(inputs))[:16]

    def is_done(self, name: str, inputs: Mapping[str, str]) -> bool:
        """Tell whether stage `name` was done with these inputs."""
        before = read_record(self.folder / "stages" / f"{name}.json")
        return before is not None and before.fingerprint == self.fingerprint(inputs)

    def stage(
        self,
        name: str,
        kind: str,
        inputs: Mapping[str, str],
        work: Callable[[Result | None], Result],
        missing: Callable[[Result], str] = lambda result: "",
    ) -> Record:
        """Return the record of stage `name`: the one that is there if its inputs are the same, else after doing `work`.

        `missing` says what of a result is gone, "" for nothing. `work` gets the earlier result when its inputs were the
        same. Raises StageNotDone in a dry run, InputsChanged when the catalog has changed meanwhile.
        """
        place = self.folder / "stages" / f"{name}.json"
        fingerprint = self.fingerprint(inputs)
        before = read_record(place)
        same = before is not None and before.fingerprint == fingerprint
        if before is not None:
            gone = missing(before.result) if same else ""
            if same and not gone:
                self.skipped.add(name)
                self.stages.append(before)
                return before
            changed = sorted(key for key in {*inputs, *before.inputs} if inputs.get(key) != before.inputs.get(key))
            self.listener.note(f"{name} is done again: {gone or 'another ' + ', '.join(changed)}")
        if self.dry:
            raise StageNotDone(name)
        self.listener.note(f"== {name}")
        try:
            result, used = run_isolated(
                lambda: work(before.result if before is not None and same else None), self.listener
            )
        except AfmrlError as error:  # such as stages with different queries
            if what := self.changed():
                raise InputsChanged(name, what) from error
            raise
        if what := self.changed():
            raise InputsChanged(name, what)
        record = Record(name, kind, fingerprint, dict(inputs), result, used.seconds, used.peak_bytes, time.time())
        write_json(place, asdict(record))
        self.stages.append(record)
        return record


def read_record(place: Path) -> Record | None:
    """Return the record in the file `place`, None when there is none. DataError when it is damaged."""
    if not place.is_file():
        return None
    with reading(place):
        record = Record(**parse_json(place.read_text("utf-8")))
        if not isinstance(record.result, dict) or not isinstance(record.inputs, dict):
            raise TypeError("not a stage's record")
        float(record.seconds), float(record.created), int(record.peak_bytes)
    return record
