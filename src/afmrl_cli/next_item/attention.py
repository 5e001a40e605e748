"""The network of the sequential baseline; imported only where torch is wanted."""

from __future__ import annotations

from torch import Tensor, nn

PADDING, START, FIRST = 0, 1, 2
"""Rows of the table of embeddings: padding, the start, and from which on those of listings are."""
BLOCKS, HEADS, DROPOUT = 2, 2, 0.2


class Attention(nn.Module):
    """Causal self-attention over sequences of listings of one `width`, at most `length` and the start."""

    def __init__(self, listings: int, width: int, length: int) -> None:
        super().__init__()
        self.items = nn.Embedding(FIRST + listings, width, padding_idx=PADDING)
        self.positions = nn.Embedding(1 + length, width)
        nn.init.normal_(self.items.weight, std=0.02)
        nn.init.normal_(self.positions.weight, std=0.02)
        self.dropout = nn.Dropout(DROPOUT)
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(width, HEADS, width, DROPOUT, batch_first=True, norm_first=True)
            for _ in range(BLOCKS)
        )
        self.norm = nn.LayerNorm(width)

    def listings(self) -> Tensor:
        """Return the embeddings of all listings [listings, width]."""
        return self.items.weight[FIRST:]

    def forward(self, inputs: Tensor) -> Tensor:
        """Return what follows each of `inputs` [n, l], as vectors [n, l, width]. Padding stands behind: nothing before
        it attends to it.
        """
        length = inputs.shape[1]
        hidden = self.dropout(self.items(inputs) * self.items.embedding_dim**0.5 + self.positions.weight[:length])
        mask = nn.Transformer.generate_square_subsequent_mask(length)
        for block in self.blocks:
            hidden = block(hidden, src_mask=mask, is_causal=True)
        return self.norm(hidden)  # type: ignore[no-any-return]
