"""Faults put into the algorithm files and the store one at a time: which of them do the tests notice?

    python -m benchmarks.mutants [--count 100] [--seed 0] [--only training/agcl.py ...] [--fail-under 0.95]

A fault is one change of one expression or statement: another comparison or operator, a number off by one, a condition
turned round, min for max, a statement left out, nothing returned. Of all that can be made `--count` are drawn by
`--seed`, put into a copy of the project one by one, and the tests of that file are run until one fails. A fault that
changes nothing that anybody could see counts as not noticed all the same. Text, annotations, what an error says and the
tuned numbers of a module (weights, sizes) are left alone.

Not mutmut: it runs the tests in another folder by relative paths, so that each test which starts a process fails, and
it leaves constants of a module and decorated functions out. Here the libraries are imported once and every run is a
fork, which saves the five seconds of importing torch.
"""

from __future__ import annotations

import argparse
import ast
import compileall
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SOURCE = Path("src/afmrl_cli")
STORE = (
    "store/test_checkpoints.py store/test_database.py store/test_files_and_lock.py store/test_lineage.py "
    "store/test_runs.py store/test_sealed.py store/test_strict.py store/test_provenance.py "
    "store/test_training_products.py store/test_written.py store/test_links.py store/test_poolers.py"
)
TESTS = {
    "training/agcl.py": "training/test_agcl.py",
    "training/gradcache.py": "training/test_gradcache.py",
    "training/batches.py": "training/test_batches.py",
    "training/lexical.py": "training/test_lexical.py training/test_batches.py retrieval/test_bm25.py",
    "training/pairs.py": "training/test_pairs.py",
    "retrieval/bm25.py": "retrieval/test_bm25.py training/test_lexical.py",
    "retrieval/index.py": "retrieval/test_index.py",
    "retrieval/words.py": "retrieval/test_hybrid.py",
    "retrieval/named.py": "retrieval/test_hybrid.py",
    "retrieval/hybrid.py": "retrieval/test_hybrid.py",
    "retrieval/columns.py": "retrieval/test_columns.py",
    "index/points.py": "index/test_conditions.py index/test_push.py",
    "index/conditions.py": "index/test_conditions.py index/test_push.py",
    "index/push.py": "index/test_push.py index/test_folder.py",
    "evaluation/hybrid.py": "evaluation/test_hybrid.py",
    "rar/reward.py": "rar/test_reward.py",
    "evaluation/metrics.py": "evaluation/test_metrics.py",
    "intervals.py": "test_intervals.py evaluation/test_compare.py",
    "evaluation/compare.py": "evaluation/test_compare.py",
    "next_item/metrics.py": "next_item/test_metrics.py",
    "scores.py": "test_scores.py retrieval/test_index.py",
    "models/tower.py": "models/test_vision_encoder.py",
    "models/vision_encoder.py": "models/test_vision_encoder.py",
    "saga/adjudicator.py": "saga/test_adjudicator.py",
    "saga/pairs.py": "saga/test_pairs.py",
    "saga/photos.py": "saga/test_photos.py saga/test_pairs.py",
    "saga/pooler.py": "saga/test_pooler.py",
    "saga/metric.py": "saga/test_metric.py",
    "saga/grpo.py": "saga/test_grpo.py",
    "saga/anchoring.py": "saga/test_anchoring.py",
    "saga/learn.py": "saga/test_learn.py",
    "saga/replay.py": "saga/test_learn.py",
    "saga/watch.py": "saga/test_watch.py",
    "saga/batch_pairs.py": "saga/test_run.py",
    "saga/validation.py": "saga/test_run.py",
    "serve/facets.py": "serve/test_api.py",
    "serve/guard.py": "serve/test_guard.py serve/test_api.py",
    "serve/line.py": "serve/test_line.py",
    "serve/marks.py": "serve/test_marks.py",
    "serve/photos.py": "serve/test_guard.py serve/test_api.py",
    "dedupe/score.py": "dedupe/test_score.py",
    "dedupe/groups.py": "dedupe/test_parts.py",
    "attributes/parse.py": "attributes/test_parse.py",
    "attributes/schema.py": "attributes/test_schema.py",
    "catalog/splits.py": "catalog/test_splits_and_fingerprints.py",
    "store/checkpoints.py": STORE,
    "store/database.py": STORE,
    "store/files.py": STORE,
    "store/folder.py": f"{STORE} catalog/test_hostile.py",
    "store/transfer.py": STORE,
    "store/lineage.py": STORE,
    "store/lock.py": f"{STORE} store/test_shards.py",
    "store/shards.py": "store/test_shards.py cli/test_shards.py",
    "store/source.py": "catalog/test_parquet_folder.py store/test_shards.py",
    "store/runs.py": STORE,
    "store/strict.py": STORE,
    "store/provenance.py": STORE,
    "store/training_products.py": STORE,
    "store/written.py": STORE,
}
"""The files, below `src/afmrl_cli`, and the tests, below `tests`, that have to notice."""
LIBRARIES = [
    "pytest", "hypothesis", "numpy", "pandas", "scipy.stats", "scipy.sparse", "faiss", "PIL.Image", "pydantic", "torch",
    "sklearn.pipeline", "sklearn.linear_model", "sklearn.model_selection", "typer", "rich.table", "peft",
    "transformers.models.qwen2_vl.modeling_qwen2_vl", "safetensors.torch",
]  # fmt: skip
SECONDS = 300
"""A run that takes longer hangs, which is noticed too."""

COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
}  # fmt: skip
OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult, ast.Mod: ast.Add,
    ast.Pow: ast.Mult, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd, ast.MatMult: ast.Mult,
}  # fmt: skip
NAMES = {"min": "max", "max": "min", "any": "all", "all": "any", "minimum": "maximum", "maximum": "minimum"}


@dataclass(frozen=True)
class Fault:
    """One change: in `file`, the text from `start` to `end` (bytes) becomes `new`."""

    file: str
    line: int
    start: int
    end: int
    old: str
    new: str

    def __str__(self) -> str:
        old, new = (re.sub(r"\s+", " ", text) for text in (self.old, self.new))
        return f"{self.file}:{self.line}: {old[:70]}  ->  {new[:70]}"


def faults_of(file: str, source: str) -> list[Fault]:
    """Every fault that can be put into the text of `file`."""
    lines = [len(line.encode()) for line in source.splitlines(keepends=True)]
    begins = [sum(lines[:i]) for i in range(len(lines) + 1)]
    raw, made = source.encode(), []
    for node, new in _changes(ast.parse(source)):
        assert node.end_lineno is not None and node.end_col_offset is not None
        start, end = begins[node.lineno - 1] + node.col_offset, begins[node.end_lineno - 1] + node.end_col_offset
        old = raw[start:end].decode()
        text = new if isinstance(new, str) else ast.unparse(new)
        if isinstance(node, ast.expr) and not isinstance(node, ast.Constant | ast.Name):
            text = f"({text})"
        fault = Fault(file, node.lineno, start, end, old, text)
        try:
            ast.parse(_with(raw, fault))
        except SyntaxError:  # inside an f-string, where quotes would have to change
            continue
        made.append(fault)
    return made


def _with(raw: bytes, fault: Fault) -> bytes:
    return raw[: fault.start] + fault.new.encode() + raw[fault.end :]


def _changes(node: ast.AST) -> Iterator[tuple[ast.expr | ast.stmt, ast.AST | str]]:
    """(node, what stands in its place) for `node` and all below it."""
    if isinstance(node, ast.expr | ast.stmt):
        yield from ((node, new) for new in _instead(node))
    if isinstance(node, ast.If | ast.While | ast.IfExp) and not _turned_round_below(node.test):
        yield node.test, ast.UnaryOp(ast.Not(), node.test)
    for child in _below(node):
        yield from _changes(child)


def _below(node: ast.AST) -> Iterator[ast.AST]:
    if isinstance(node, ast.Raise | ast.JoinedStr | ast.Import | ast.ImportFrom):
        return
    if isinstance(node, ast.keyword) and node.arg == "strict":  # of zip: it only guards
        return
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list", "type_comment", "bases"):
            continue
        for child in value if isinstance(value, list) else [value]:
            tuned = isinstance(node, ast.Module) and isinstance(child, ast.Assign) and _is_tuned(child.value)
            if isinstance(child, ast.AST) and not tuned:
                yield child


def _is_tuned(value: ast.expr) -> bool:
    """Weights, sizes and shares: a number of 16 or more, a fraction, or a table of them."""
    numbers = [each.value for each in ast.walk(value) if isinstance(each, ast.Constant)]
    return any(isinstance(number, float) or (isinstance(number, int) and number >= 16) for number in numbers)


def _instead(node: ast.expr | ast.stmt) -> Iterator[ast.AST | str]:
    match node:
        case ast.Return(value=ast.expr() as value) if not (isinstance(value, ast.Constant) and value.value is None):
            yield "return None"
        case ast.Expr(value=ast.Call()) | ast.AugAssign() | ast.Continue() | ast.Break() | ast.Raise():
            yield "pass"
        case ast.Constant(value=bool(value)):
            yield repr(not value)
        case ast.Constant(value=int(value)):
            yield repr(value + 1)
        case ast.Constant(value=float(value)):
            yield repr(value * 2 if value else 1.0)
        case ast.Call(func=ast.Name(id=name), args=args, keywords=keywords) if name in NAMES:
            yield ast.Call(ast.Name(NAMES[name]), args, keywords)
        case ast.Call(func=ast.Attribute(value=value, attr=name), args=args, keywords=keywords) if name in NAMES:
            yield ast.Call(ast.Attribute(value, NAMES[name]), args, keywords)
        case _:
            yield from _other_operator(node)


def _other_operator(node: ast.expr | ast.stmt) -> Iterator[ast.AST]:
    match node:
        case ast.Compare(ops=[op], left=left, comparators=right):
            yield ast.Compare(left, [COMPARISONS[type(op)]()], right)
        case ast.BinOp(op=ast.BitOr(), right=ast.Constant(value=None)):
            return  # a type
        case ast.BinOp(left=left, op=op, right=right) if type(op) in OPERATORS and not _holds_text(node):
            yield ast.BinOp(left, OPERATORS[type(op)](), right)
        case ast.BoolOp(op=op, values=values):
            yield ast.BoolOp(ast.Or() if isinstance(op, ast.And) else ast.And(), values)
        case ast.UnaryOp(op=ast.Not() | ast.Invert() | ast.USub(), operand=operand):
            yield operand


def _turned_round_below(test: ast.expr) -> bool:
    """Whether a fault of the condition's own is the opposite already."""
    if isinstance(test, ast.Compare):
        return not isinstance(test.ops[0], ast.Lt | ast.LtE | ast.Gt | ast.GtE)
    return isinstance(test, ast.UnaryOp) or ast.unparse(test) == "TYPE_CHECKING"


def _holds_text(node: ast.AST) -> bool:
    return any(isinstance(child, ast.JoinedStr | ast.Constant) and _text(child) for child in ast.walk(node))


def _text(node: ast.AST) -> bool:
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))


class Runner:
    """Runs tests of a copy of the project in forks of this process, which has the libraries in memory."""

    def __init__(self, copy: Path) -> None:
        self.copy = copy
        tracked = subprocess.run(
            ["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT, check=True, capture_output=True, text=True
        )
        for name in filter(None, tracked.stdout.split("\0")):
            if (ROOT / name).is_file():
                (copy / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, copy / name)
        os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        os.environ["PYTHONPATH"] = os.pathsep.join([str(copy), str(copy / "src")])
        sys.path[:0] = [str(copy), str(copy / "src")]
        for name in LIBRARIES:
            __import__(name)
        compileall.compile_dir(copy / "src", quiet=1)

    def failing(self, tests: Sequence[str], *, keep_bytecode: bool = False) -> str:
        """The first test that fails, "" when none does."""
        log = self.copy.parent / "log"
        child = os.fork()
        if not child:
            os.setsid()
            os.chdir(self.copy)
            out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(out, 1)
            os.dup2(out, 2)
            if not keep_bytecode:  # a fault's must never be taken for the file's own
                os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
                sys.dont_write_bytecode = True
            import pytest

            os._exit(int(pytest.main(["-x", "-q", "--tb=line", "-p", "no:cacheprovider", "-p", "no:warnings", *tests])))
        end = time.monotonic() + SECONDS
        while (ended := os.waitpid(child, os.WNOHANG)) == (0, 0):
            if time.monotonic() > end:
                os.killpg(child, signal.SIGKILL)
                os.waitpid(child, 0)
                return f"still running after {SECONDS} s"
            time.sleep(0.01)
        if os.waitstatus_to_exitcode(ended[1]) == 0:
            return ""
        text = log.read_text("utf-8", "replace")
        found = re.search(r"^(?:FAILED|ERROR) (\S+)", text, re.MULTILINE)
        return found[1] if found else text[-300:]

    def failing_with(self, fault: Fault) -> str:
        """The same, with `fault` in its file."""
        path = self.copy / SOURCE / fault.file
        raw, before = path.read_bytes(), path.stat()
        path.write_bytes(_with(raw, fault))
        try:
            return self.failing(tests_of(fault.file))
        finally:
            path.write_bytes(raw)
            os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def tests_of(file: str) -> list[str]:
    """Where the tests of a file stand."""
    return [f"tests/{name}" for name in TESTS[file].split()]


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.mutants", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", default=list(TESTS), choices=list(TESTS), metavar="FILE")
    parser.add_argument("--fail-under", type=float, default=0.0)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args(words)
    every = [fault for file in asked.only for fault in faults_of(file, (ROOT / SOURCE / file).read_text("utf-8"))]
    drawn = random.Random(asked.seed).sample(every, min(asked.count, len(every)))
    told = []
    with tempfile.TemporaryDirectory() as place:
        runner = Runner(Path(place) / "copy")
        tests = sorted({test for fault in drawn for test in tests_of(fault.file)})
        if failing := runner.failing(tests, keep_bytecode=True):
            print(f"without any fault: {failing}", file=sys.stderr)
            return 2
        for fault in sorted(drawn, key=lambda fault: (list(TESTS).index(fault.file), fault.start)):
            failing = runner.failing_with(fault)
            told.append({"fault": str(fault), "noticed": failing})
            print(f"{'noticed' if failing else 'NOT    '}  {fault}  {failing}", file=sys.stderr, flush=True)
    noticed = sum(bool(each["noticed"]) for each in told)
    share = noticed / max(1, len(told))
    if asked.json:
        print(json.dumps({"possible": len(every), "seed": asked.seed, "faults": told, "share": share}, indent=2))
    else:
        print(f"{noticed} of {len(told)} noticed ({share:.0%}), of {len(every):,} possible, seed {asked.seed}")
    return int(share < asked.fail_under)


if __name__ == "__main__":
    sys.exit(main())
