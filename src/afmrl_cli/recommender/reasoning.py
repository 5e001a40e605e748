"""Reasoning about histories for training examples: written from the history alone, filtered, stored.

    history -> writer -> reasoning -> filters -> kept, by the case's key

Chain of thought of MLLMRec-R1 (arXiv 2603.06243), in one step: the paper writes a rough one from photos and has it
refined by a reasoning model; here listings are text already, so the refined form (four labelled steps) is asked for at
once. Departures from the paper's released code:

    1. the writer never sees the target, which the released refinement shows it
    2. reasoning joins its example by a key that is made of the interaction, not by the number of a line
    3. the assessment that the paper describes and does not release is `reasoning_filter`
    4. what is dropped is counted, by reason

The writer is the endpoint of `[reasoning]`, else the local generator without an adapter: one that has learnt to write
attributes writes nothing else. The judge is the same model. All answers are stored as they come (`reasoning_store`), so
a second run asks nothing again, and one that was ended goes on; only what a server left unanswered is asked again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ..attributes.request import Generation, Generator, Request, generate_until_stopped
from ..section import EndpointSettings
from ..settings import AttributeSettings, ModelSettings
from ..store.files import hash_json
from ..workspace import Workspace
from .reasoning_filter import (
    CUT_OFF,
    EMPTY,
    ENDPOINT_ERROR,
    MODALITY,
    NAMES_TARGET,
    PREDICTION,
    REFUSED,
    TOO_LONG,
    UNJUDGED,
    close_to_history,
    flaw_of,
    names_target,
    shuffled,
    similarity,
)
from .reasoning_prompt import choice_of, judging_prompt, reasoning_of, writing_prompt
from .reasoning_store import SIMILARITY, TEXT, VERDICT, ReasoningStore, Written, open_reasoning

WINDOW = 64
"""Requests between two writes to the disk: what a kill can cost."""
KEPT_VECTORS = 20_000
"""Vectors of texts that are kept in memory, since listings come again in other histories."""
FLAWS = (EMPTY, CUT_OFF, TOO_LONG, REFUSED, ENDPOINT_ERROR)
FILTERED = (NAMES_TARGET, MODALITY, PREDICTION, UNJUDGED)


@dataclass(frozen=True)
class Case:
    """One training interaction. `key` is a hash of history, second and item, never a place in a list; `history`
    and `candidates` are texts of listings, the latest last, the target among the candidates. `names` are what else
    names the target: its title and its id.
    """

    key: str
    history: tuple[str, ...]
    candidates: tuple[str, ...]
    target: str
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Reasonings:
    """What is kept, by key in the order of the cases; counts of what was asked, written, kept, and left out for each
    reason there was: asked = written + FLAWS, written = kept + FILTERED.
    """

    kept: dict[str, str]
    counts: dict[str, int]


def write_reasonings(work: Workspace, cases: Sequence[Case]) -> Reasonings:
    """Return reasoning about the cases, written where none is stored. The caller holds the lock.

    Raises UsageError at an endpoint that can't be used, ModelError where writer, judge or embedder can't go on; what
    was answered until then is stored. ValueError for a case without a history, or without its target among the
    candidates.
    """
    for case in cases:
        if not case.history or case.target not in case.candidates:
            raise ValueError(f"case {case.key}: no history, or the target is no candidate")
    run = ReasoningRun(work, {case.key: case for case in cases})
    written = run.write()
    kept = run.filtered(written) if work.settings.reasoning.filter else written
    left_out = Counter(run.left_out.values())
    counts = {"asked": len(run.cases), "written": len(written), "kept": len(kept)}
    counts |= {reason: left_out[reason] for reason in (*FLAWS, *FILTERED) if left_out[reason]}
    if run.cases and not kept:
        reasons = ", ".join(f"{number} {reason}" for reason, number in left_out.items())
        said = f"; the last error: {run.last_error}" if run.last_error else ""
        work.listener.warn(f"no reasoning is kept of {len(run.cases)} cases: {reasons}{said}")
    return Reasonings(kept, counts)


@dataclass
class ReasoningRun:
    """The cases of one run, what is stored of them, and why each of `left_out` is."""

    work: Workspace
    cases: dict[str, Case]
    left_out: dict[str, str] = field(default_factory=dict)
    last_error: str = ""
    _vectors: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    _told: bool = False
    """Whether the server's address was shown."""

    def __post_init__(self) -> None:
        self.settings = self.work.settings.reasoning
        self.store: ReasoningStore = open_reasoning(self.work.folder)
        self.model = _model_settings(self.work)
        self.model_id = _model_id(self.work, self.model)
        if self.store.damaged:
            self.work.listener.note(f"{self.store.path}: {self.store.damaged} damaged lines are made again")

    def write(self) -> dict[str, str]:
        """Return what is or was written about each case, without what is no reasoning."""
        settings, generator = self.settings, None
        prompts = {key: writing_prompt(case.history) for key, case in self.cases.items()}
        made_by = [self.model_id, settings.max_new_tokens, settings.temperature]
        prints = {key: hash_json([prompt, made_by]) for key, prompt in prompts.items()}
        missing = [key for key in self.cases if self.store.written(key, prints[key]) is None]
        for done, keys in _windows(missing, WINDOW):
            generator = generator or self._generator(settings.temperature)
            answers, stopped = generate_until_stopped(generator, [Request(prompts[key]) for key in keys])
            said = {key: answer for key, answer in zip(keys, answers, strict=True) if answer is not None}
            results = [(key, prints[key], _written(answer)) for key, answer in said.items()]
            self.store.add(TEXT, [one for one in results if one[2].flaw != ENDPOINT_ERROR])
            self.last_error = next((one.error for one in said.values() if one.error), self.last_error)
            if stopped is not None:
                raise stopped
            self.work.listener.progress("reasoning", done + len(keys), len(missing))
        return {key: text for key in self.cases if (text := self._usable(key, prints[key]))}

    def _usable(self, key: str, fingerprint: str) -> str:
        """Return the stored reasoning of a case, "" with the reason where it is none. The store may have come with the
        folder from anybody, so its texts are checked as an answer is.
        """
        written = self.store.written(key, fingerprint) or Written("", ENDPOINT_ERROR)
        if flaw := written.flaw or flaw_of(Generation(written.text, False)):
            self.left_out[key] = flaw
            return ""
        return reasoning_of(written.text)

    def filtered(self, written: dict[str, str]) -> dict[str, str]:
        """Return what passes all filters; the judge is asked last, about what passes the others."""
        similarities = self.similarities(written)
        close = close_to_history(similarities)
        open_cases = {}
        for key, text in written.items():
            case = self.cases[key]
            if names_target(text, (case.target, *case.names)):
                self.left_out[key] = NAMES_TARGET
            elif key not in close:
                self.left_out[key] = MODALITY
            else:
                open_cases[key] = text
        verdicts = self.verdicts(open_cases)
        for key in open_cases:
            if key not in verdicts:
                self.left_out[key] = UNJUDGED
            elif verdicts[key] < self.settings.agreed:
                self.left_out[key] = PREDICTION
        return {key: text for key, text in open_cases.items() if key not in self.left_out}

    def similarities(self, written: dict[str, str]) -> dict[str, float]:
        """Return how like its history each reasoning is."""
        if not written:
            return {}
        work = self.work.of_embedder()
        how = [work.embedder_id, work.embed.target_instruction]
        prints = {key: hash_json([how, text, self.cases[key].history]) for key, text in written.items()}
        missing = [key for key in written if self.store.similarity(key, prints[key]) is None]
        for done, keys in _windows(missing, WINDOW):
            texts = {key: [text for text in self.cases[key].history if text.strip()] for key in keys}
            every = [written[key] for key in keys] + [text for own in texts.values() for text in own]
            vectors = self._encoded(work, every)
            found = []
            for key in keys:
                history = np.array([vectors[text] for text in texts[key]], dtype=np.float32)
                value = similarity(vectors[written[key]], history) if len(history) else 0.0
                found.append((key, prints[key], value))
            self.store.add(SIMILARITY, found)
            work.listener.progress("comparing", done + len(keys), len(missing))
        return {key: self.store.similarity(key, prints[key]) or 0.0 for key in written}

    def _encoded(self, work: Workspace, texts: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        """Return the unit vector of each text."""
        from ..models.embed_input import Item

        if len(self._vectors) > KEPT_VECTORS:
            self._vectors.clear()
        new = [text for text in dict.fromkeys(texts) if text not in self._vectors]
        if new:
            instruction = work.embed.target_instruction
            rows = work.embedder().encode([Item(text) for text in new], instruction=instruction)
            self._vectors.update(zip(new, rows, strict=True))
        return self._vectors

    def verdicts(self, written: dict[str, str]) -> dict[str, int]:
        """Return how many of the judge's answers are the target, of those cases about which all were answered."""
        settings, generator = self.settings, None
        how = [self.model_id, settings.max_new_tokens, settings.judge_temperature, settings.judged, settings.seed]
        prints = {}
        for key, text in written.items():
            case = self.cases[key]
            prints[key] = hash_json([how, judging_prompt(text, sorted(case.candidates)), case.target])
        missing = [key for key in written if self.store.verdict(key, prints[key]) is None]
        for done, keys in _windows(missing, max(1, WINDOW // settings.judged)):
            generator = generator or self._generator(settings.judge_temperature)
            orders = {
                key: [shuffled(self.cases[key].candidates, settings.seed, key, n) for n in range(settings.judged)]
                for key in keys
            }
            prompts = [Request(judging_prompt(written[key], order)) for key in keys for order in orders[key]]
            answers, stopped = generate_until_stopped(generator, prompts)
            found = []
            for place, key in enumerate(keys):
                own = answers[place * settings.judged : (place + 1) * settings.judged]
                if all(answer is not None and (answer.error is None or answer.refused) for answer in own):
                    chosen = [choice_of(one.text, order) for one, order in zip(own, orders[key], strict=True) if one]
                    found.append((key, prints[key], chosen.count(self.cases[key].target)))
            self.store.add(VERDICT, found)
            self.last_error = next((one.error for one in answers if one is not None and one.error), self.last_error)
            if stopped is not None:
                raise stopped
            self.work.listener.progress("judging", done + len(keys), len(missing))
        verdicts = {key: self.store.verdict(key, prints[key]) for key in written}
        return {key: agreed for key, agreed in verdicts.items() if agreed is not None}

    def _generator(self, temperature: float) -> Generator:
        """Return the model that writes and judges, at a temperature. Raises as `models.backends.load_backend`."""
        work, reasoning = self.work, self.settings
        served = {name: getattr(reasoning, name) for name in EndpointSettings.model_fields}
        settings = AttributeSettings(
            **served,
            max_new_tokens=reasoning.max_new_tokens,
            temperature=temperature,
            seed=reasoning.seed,
            batch_size=work.settings.attributes.batch_size,
            endpoint_schema=False,
        )
        settings.mark(reasoning.foreign)  # an address that only the folder names stays one
        if settings.endpoint:
            from ..models.endpoint import Endpoint

            endpoint = Endpoint(settings, self.model, section="reasoning", read=str, listener=work.listener)
            if not self._told:
                work.listener.note(endpoint.destination)
            self._told = True
            return endpoint
        from ..models.generator import load_generator

        return load_generator(self.model, settings, work.checkpoints, bases=work.bases, listener=work.listener)


def _model_settings(work: Workspace) -> ModelSettings:
    """Return the settings' models with the generator's bare base."""
    return work.settings.model.model_copy(update={"generator_checkpoint": ""})


def _model_id(work: Workspace, model: ModelSettings) -> str:
    """Name the writer; of a server's model only its name counts, whatever a photo would be scaled to."""
    if work.settings.reasoning.endpoint:
        return f"endpoint {work.settings.reasoning.endpoint_model}"
    from ..models.presets import model_id

    return model_id(model, "generator", work.checkpoints, work.listener)


def _written(answer: Generation) -> Written:
    flaw = flaw_of(answer)
    return Written("" if flaw else reasoning_of(answer.text), flaw)


def _windows(keys: Sequence[str], size: int) -> Iterator[tuple[int, Sequence[str]]]:
    """Yield parts of `keys` with how many were before."""
    for begin in range(0, len(keys), size):
        yield begin, keys[begin : begin + size]
