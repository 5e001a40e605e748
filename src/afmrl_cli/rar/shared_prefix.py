"""TRL's GRPOTrainer, the prompt run once for a group: what is overridden of it for that, and nothing else.

TRL is shown prompts as tokens and no pictures: these go to the model from `pictures`, once for a group, whereas TRL
would carry the pixels of each answer's prompt. The passes themselves are in `packed.py`. The loss, advantages,
importance sampling, clipping, KL, adapters and logs stay TRL's; tests/rar/test_packed.py holds a step against TRL's and
tells when a release moves what stands here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from trl import GRPOTrainer
from trl.trainer.utils import split_pixel_values_by_grid, split_tensor_dict, unsplit_pixel_values_by_grid

from .packed import Rows, packed_logps

QUERY_NUMBERS = "query_numbers"
"""Under which name a batch holds the number of each row's query."""


TOKEN_MEANS = ("kl", "entropy", "clip_ratio/low_mean", "clip_ratio/high_mean", "clip_ratio/region_mean")
EXTREMES: dict[str, Callable[[list[float]], float]] = {"clip_ratio/low_min": min, "clip_ratio/high_max": max}


class SharedPrefix(GRPOTrainer):  # type: ignore[misc]
    """`shared_prefix` False: TRL's own passes, to be compared with. `packs_answers`: a group is one row. `trunk` is the
    policy's model without its vocabulary head; `query_numbers` are the queries of the rows at hand; `prompt_tokens`
    gives the prompt about a query, image tokens included; `pictures` is as `packed.Pictures`; `chunk_tokens` are the
    tokens answered in each chunk that the loss was computed of since `pool_metrics`.

    For Qwen-VL models without experts. Of several processes each has groups of its own.
    """

    shared_prefix: bool = True
    packs_answers: bool
    trunk: Any
    query_numbers: list[int]
    prompt_tokens: Callable[[int], list[int]]
    pictures: Callable[[list[int]], dict[str, Any]]
    chunk_tokens: list[int]
    _buffered_inputs: list[dict[str, Any]] | None

    def _prepare_inputs(self, generation_batch: Any) -> Any:
        """Do as TRL, but for the shuffling of single answers: a group stays together, so that it can share its prompt.

        The sum over a step is the same in any order, except for `bnpo`, which divides by the tokens of a chunk: there
        the chunks remain TRL's.
        """
        if not self.shared_prefix or self.loss_type == "bnpo":
            return super()._prepare_inputs(generation_batch)
        parts = self.args.steps_per_generation
        if self._step % (parts * self.num_iterations) == 0 or self._buffered_inputs is None:
            made = split_pixel_values_by_grid(self._generate_and_score_completions(generation_batch))
            self._buffered_inputs = [unsplit_pixel_values_by_grid(part) for part in split_tensor_dict(made, parts)]
        return self._buffered_inputs[self._step % parts]

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        """Do as TRL, with the queries beside."""
        self.query_numbers = [row["query"] for row in inputs]
        made: dict[str, Any] = super()._generate_and_score_completions(inputs)
        return {**made, QUERY_NUMBERS: torch.tensor([row["query"] for row in inputs])} if self.shared_prefix else made

    def begin_chunk(self, inputs: dict[str, Any]) -> None:
        """Note the queries of the rows whose loss comes next, and their tokens."""
        if self.shared_prefix:
            self.query_numbers = inputs[QUERY_NUMBERS].tolist()
        self.chunk_tokens.append(int(inputs["completion_mask"].sum()))

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> torch.Tensor:
        """Compute TRL's loss, with the queries of its rows."""
        self.begin_chunk(inputs)
        loss: torch.Tensor = super()._compute_loss(model, inputs)
        return loss

    def pool_metrics(self) -> None:
        """Make one number of what TRL counted in each chunk since the last time, the mean over all tokens: TRL logs the
        mean of the chunks' means, in which a token of a short chunk counts more than one of a long chunk.
        """
        own = torch.tensor(self.chunk_tokens, device=self.accelerator.device)
        found, tokens = self._metrics["train"], self.accelerator.reduce(own, reduction="sum").tolist()
        for name in TOKEN_MEANS:
            if values := found.get(name):
                found[name] = [sum(v * n for v, n in zip(values, tokens, strict=True)) / max(1, sum(tokens))]
        for name, most in EXTREMES.items():
            if values := found.get(name):
                found[name] = [most(values)]
        self.chunk_tokens = []

    def _get_per_token_logps_and_entropies(
        self,
        model: Any,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        logits_to_keep: int,
        batch_size: int | None = None,
        compute_entropy: bool = False,
        compute_aux_loss: bool = False,
        **fields: Any,
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
        """Compute TRL's log-probabilities and entropies, each prompt run once."""
        if not self.shared_prefix:
            found: tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None] = (
                super()._get_per_token_logps_and_entropies(
                    model,
                    input_ids,
                    attention_mask,
                    logits_to_keep,
                    batch_size,
                    compute_entropy,
                    compute_aux_loss,
                    **fields,
                )
            )
            return found
        unknown = [name for name, value in fields.items() if value is not None]
        if unknown or compute_aux_loss:
            raise ValueError(f"rar.shared_prefix knows nothing of {', '.join(unknown) or 'experts'}")
        rows = Rows(input_ids, attention_mask, logits_to_keep, self.query_numbers)
        step = batch_size or len(rows)
        with self.accelerator.autocast():
            made = [
                packed_logps(model, self.trunk, rows[i : i + step], self.pictures, together=self.packs_answers)
                for i in range(0, len(rows), step)
            ]
        logps, entropies = (torch.cat(each) for each in zip(*made, strict=True))
        return logps, entropies if compute_entropy else None, None

    def _tokenize_prompts(self, prompts: list[Any]) -> tuple[list[list[int]], list[list[Any]] | None, dict[str, Any]]:
        """Return the prompts of `query_numbers`, which TRL needs no pictures for; or TRL's, with no pictures where it
        has None: in a batch with pictures, processors refuse None.
        """
        if self.shared_prefix:
            made = {query: self.prompt_tokens(query) for query in dict.fromkeys(self.query_numbers)}
            return [made[query] for query in self.query_numbers], None, {}
        ids, images, fields = super()._tokenize_prompts(prompts)
        return ids, None if images is None else [each or [] for each in images], fields
