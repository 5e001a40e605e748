"""TRL's GRPOTrainer, the prompt run once for a group: what is overridden of it for that, and nothing else.

The passes themselves are in `packed.py`. `_compute_loss`, advantages, importance sampling, clipping, KL, adapters and
logs stay TRL's; tests/rar/test_packed.py holds a step against TRL's and tells when a release moves what stands here.
"""

from __future__ import annotations

from typing import Any

import torch
from trl import GRPOTrainer
from trl.trainer.utils import split_pixel_values_by_grid, split_tensor_dict, unsplit_pixel_values_by_grid

from .packed import make_rows, packed_logps

PICTURES = ("pixel_values", "image_grid_thw", "num_images", "mm_token_type_ids")
"""What TRL hands on of a row's pictures."""


class SharedPrefix(GRPOTrainer):  # type: ignore[misc]
    """`shared_prefix` False: TRL's own passes. `trunk` is the policy's model without its vocabulary head.

    For Qwen-VL models without experts, in one process.
    """

    shared_prefix: bool
    trunk: Any
    _buffered_inputs: list[dict[str, Any]] | None

    def _prepare_inputs(self, generation_batch: Any) -> Any:
        """TRL's, but for the shuffling of single answers: a group stays together, so that it can share its prompt.

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
        """TRL's, each prompt run once."""
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
        pictures = [fields.pop(name, None) for name in PICTURES]
        unknown = [name for name, value in fields.items() if value is not None]
        if unknown or compute_aux_loss:
            raise ValueError(f"rar.shared_prefix knows nothing of {', '.join(unknown) or 'experts'}")
        rows = make_rows(input_ids, attention_mask, logits_to_keep, *pictures)
        step = batch_size or len(rows)
        with self.accelerator.autocast():
            made = [packed_logps(model, self.trunk, rows[i : i + step]) for i in range(0, len(rows), step)]
        logps, entropies = (torch.cat(each) for each in zip(*made, strict=True))
        return logps, entropies if compute_entropy else None, None

    def _tokenize_prompts(self, prompts: list[Any]) -> tuple[list[list[int]], list[list[Any]] | None, dict[str, Any]]:
        """TRL's, with no pictures where it has None: in a batch with pictures, processors refuse None."""
        ids, images, fields = super()._tokenize_prompts(prompts)
        return ids, None if images is None else [each or [] for each in images], fields
