"""Text and photos -> tensors, for every Qwen-VL (families.py), without torchvision.

The stock processors demand a video processor, and that one torchvision. Ours is the stock class without video, on the
PIL image backend, whose pixel values are the same. It opens folders saved by the stock processor, new or old, and by
itself.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from transformers import AutoTokenizer, ProcessorMixin, Qwen2VLImageProcessorPil, Qwen2VLProcessor
from transformers.image_utils import make_flat_list_of_images
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

from ..attributes.prompt import chat_messages
from ..catalog.pictures import Picture, opened
from ..errors import ModelError
from .embed_input import cut_text
from .families import THOUGHT, Family
from .presets import Base, read_config, read_json

if TYPE_CHECKING:
    from PIL.Image import Image

TEMPLATE_OPTIONS = {"enable_thinking": False}
"""Options of chat templates: they close the thought of models that think before they answer, so that all of their
tokens are the answer's. Other templates know nothing of it.
"""
MAX_ASPECT = 200
"""Qwen's resizing refuses pictures that are longer than this many times their width."""


class TooLong(ModelError):
    """A row that is longer than the model's positions."""


class _WithoutVideo(Qwen2VLProcessor):  # type: ignore[misc]
    """The stock processor without a video processor; a true ProcessorMixin, as trainers want."""

    _family: Family

    def __init__(self, image_processor: Any = None, tokenizer: Any = None, chat_template: Any = None) -> None:
        self.image_token, self.video_token = self._family.image_token, self._family.video_token
        self.image_token_id = tokenizer.convert_tokens_to_ids(self.image_token)
        self.video_token_id = tokenizer.convert_tokens_to_ids(self.video_token)
        ProcessorMixin.__init__(self, image_processor, tokenizer, chat_template=chat_template)

    def _process_images(self, images: Any, **options: Any) -> Any:
        """Return the stock way, but a picture that comes several times (the same object) is processed once: a trainer
        of the generator shows it once for every answer.
        """
        every = make_flat_list_of_images(images)
        number = {key: i for i, key in enumerate(dict.fromkeys(map(id, every)))}
        if len(number) == len(every):
            return super()._process_images(images, **options)
        once = {id(image): image for image in every}
        made, texts = super()._process_images([once[key] for key in number], **options)
        places = [number[id(image)] for image in every]
        ends = np.cumsum([int(grid.prod()) for grid in made["image_grid_thw"]])
        rows = np.split(np.arange(ends[-1]), ends[:-1])
        made["pixel_values"] = made["pixel_values"][np.concatenate([rows[i] for i in places])]
        made["image_grid_thw"] = made["image_grid_thw"][places]
        return made, [texts[i] for i in places]

    def save_pretrained(self, save_directory: Any, push_to_hub: bool = False, **kwargs: Any) -> Any:
        """Save so that a stock AutoProcessor opens it too: that one wants preprocessor_config.json."""
        saved = super().save_pretrained(save_directory, push_to_hub=push_to_hub, **kwargs)
        self.image_processor.save_pretrained(save_directory)
        return saved


class Processor:
    """What a base's processor is used for here. `inner` is the ProcessorMixin itself, for trainers."""

    def __init__(self, inner: Any, family: Family, max_positions: int) -> None:
        """Keep the processor. `max_positions`: the longest sequence that the model was made for, in tokens."""
        self.inner = inner
        self.family = family
        self.tokenizer = inner.tokenizer
        slot = self.tokenizer(family.image_slot, add_special_tokens=False)["input_ids"]
        self._marks, self.image_end = len(slot) - 1, int(slot[-1])
        self.max_positions = max_positions
        names = sorted(self.tokenizer.get_added_vocab(), key=len, reverse=True)
        self._special = re.compile("|".join(map(re.escape, names)))
        self._levels = _levels(inner.image_processor)

    def clean(self, text: str) -> str:
        """Return `text` with every special token's spelling replaced by a space: a shop's text can't open or close a
        turn or stand for a picture.
        """
        return self._special.sub(" ", text)

    def prompt(self, messages: Sequence[Mapping[str, object]]) -> str:
        """Return the string that the chat template makes of `messages`, with the answer's turn opened in it."""
        # transformers warns of an option that the template does not read, once for each prompt.
        options = TEMPLATE_OPTIONS if all(name in str(self.inner.chat_template) for name in TEMPLATE_OPTIONS) else {}
        made: str = self.inner.apply_chat_template(
            list(messages), add_generation_prompt=True, tokenize=False, **options
        )
        return made

    def check_prompts(self, name: str) -> None:
        """Raise ModelError when the model `name` can't be prompted: no chat template, one that has no place for a
        picture or fails, or a thought that it opens and leaves open.
        """
        hint = "use an instruction-tuned model that answers without thinking"
        if not self.inner.chat_template:
            raise ModelError(f"{name}: no chat template, so it can't be prompted", hint)
        try:
            made = self.prompt(chat_messages("What?", 1))
        except Exception as error:  # it is a program of whoever made the folder
            reason = str(error).strip().split("\n", 1)[0][:200]
            raise ModelError(f"{name}: its chat template fails: {type(error).__name__}: {reason}", hint) from error
        if made.count(self.family.image_slot) != 1 or "What?" not in made:
            raise ModelError(f"{name}: its chat template writes {made[:80]!r} of a picture and 'What?'", hint)
        if made.rstrip().endswith(THOUGHT[0]):
            raise ModelError(f"{name}: its chat template opens a thought and can't leave it out", hint)

    def cut(self, text: str, tokens: int) -> str:
        """Return the longest beginning of `text` of at most `tokens` tokens; `text` itself when it is short enough."""
        return cut_text(self.tokenizer, text, tokens)

    def image_tokens(self, size: tuple[int, int]) -> int:
        """Return how many tokens a picture of (width, height) pixels becomes."""
        pictures = self.inner.image_processor
        width, height = size
        width, height = max(width, -(-height // MAX_ASPECT)), max(height, -(-width // MAX_ASPECT))
        return int(pictures.get_number_of_image_patches(height, width) // pictures.merge_size**2)

    def grid(self, image: Image) -> tuple[int, int]:
        """Return the (height, width) of a picture in patches, in the size that the model sees it."""
        side = self.inner.image_processor.patch_size
        width, height = _size(self.inner.image_processor, image)
        return height // side, width // side

    def grid_tokens(self, grid: tuple[int, int]) -> int:
        """Return how many tokens a picture of (height, width) patches becomes."""
        return int(grid[0] * grid[1] // self.inner.image_processor.merge_size**2)

    def token_grid(self, grid: tuple[int, int]) -> tuple[int, int]:
        """Return how many rows and columns of tokens a picture of (height, width) patches becomes; tokens come row by
        row.
        """
        merge = int(self.inner.image_processor.merge_size)
        return grid[0] // merge, grid[1] // merge

    def resized(self, image: Image) -> Image:
        """Return `image` as small as possible with the same pixel values, for callers that keep or copy pictures.

        Qwen's way of finding a size is no fixed point: some pictures would be reduced twice, and stay as they are.
        """
        small = self.reduced(image)
        return small if _size(self.inner.image_processor, small) == small.size else image

    def reduced(self, image: Image) -> Image:
        """Return `image` in the very size that the model sees, to be put into a `Picture`: reduced once, and no
        more.
        """
        return _resized(self.inner.image_processor, image)

    @property
    def most_image_tokens(self) -> int:
        """Return how many tokens a large picture becomes."""
        pictures = self.inner.image_processor
        return int(pictures.size["longest_edge"] // (pictures.patch_size * pictures.merge_size) ** 2)

    def tensors(
        self, texts: Sequence[str], images: Sequence[Sequence[Image | Picture]], room: int = 0
    ) -> dict[str, torch.Tensor]:
        """Return what the model's forward takes, all of it: input_ids, attention_mask, mm_token_type_ids [n, length]
        padded on the left; with pictures also pixel_values [patches, d] and image_grid_thw [pictures, 3].

        Every text holds one image token per picture of its row. Nothing is cut: a row that with `room` tokens to come
        is longer than the model's positions is a ModelError.
        """
        made = self.pixels([image for row in images for image in row])
        return {**self.tokens(texts, [len(row) for row in images], made.get("image_grid_thw"), room), **made}

    def tokens(
        self, texts: Sequence[str], pictures: Sequence[int], grids: torch.Tensor | None, room: int = 0
    ) -> dict[str, torch.Tensor]:
        """Return `tensors` without what the tower takes: of texts with so many `pictures` each, whose grids [pictures,
        3] in patches are known.
        """
        if [text.count(self.family.image_token) for text in texts] != list(pictures):
            raise ValueError("a text must hold one image token per picture of its row")
        merged = self.inner.image_processor.merge_size**2
        counts = iter((grids.prod(1) // merged).tolist() if grids is not None else [])
        tokens = self.tokenizer([self._expanded(text, counts) for text in texts], padding=True, return_tensors="pt")
        ids = tokens["input_ids"]
        self.refuse_too_long(ids.shape[1] + room)
        kinds = (ids == self.inner.image_token_id).long() + 2 * (ids == self.inner.video_token_id).long()
        return {"input_ids": ids, "attention_mask": tokens["attention_mask"], "mm_token_type_ids": kinds}

    def pixels(self, pictures: Sequence[Image | Picture]) -> dict[str, torch.Tensor]:
        """Return pixel_values [patches, d] and image_grid_thw [pictures, 3] of `pictures`; nothing of none."""
        if not pictures:
            return {}
        small = [
            image.image if isinstance(image, Picture) and image.image else self.reduced(opened(image))
            for image in pictures
        ]
        return _pixels(self.inner.image_processor, small, self._levels)

    def photos_that_fit(self, photos: Sequence[int], text: int) -> int:
        """Return how many of the first photos (tokens of each, without the marks around it) stand beside `text` tokens
        within the model's positions; the first one always does, and is refused by `refuse_too_long` if need be.
        """
        left = self.max_positions - text
        sums = list(itertools.accumulate(tokens + self._marks for tokens in photos))
        return max(1, sum(total <= left for total in sums)) if photos else 0

    def _expanded(self, text: str, counts: Iterator[int]) -> str:
        """Return `text` with every image token repeated as often as its picture has tokens."""
        return re.sub(re.escape(self.family.image_token), lambda found: found[0] * next(counts), text)

    def refuse_too_long(self, length: int) -> None:
        """Raise TooLong when a row of `length` tokens is longer than the model's positions."""
        if length > self.max_positions:
            raise TooLong(
                f"a text with its pictures takes {length} tokens, the model has {self.max_positions} positions",
                "lower model.max_pixels, model.generator_images, model.embedder_images or model.max_text_tokens",
            )


def _levels(pictures: Any) -> NDArray[np.float32]:
    """Return the normalised value [3, 256] of every level of red, green and blue, by the image processor's own
    arithmetic.
    """
    levels = np.broadcast_to(np.arange(256, dtype=np.uint8), (3, 256))[:, :, None]
    scaled = pictures.rescale(levels, pictures.rescale_factor)
    normal = pictures.normalize(scaled, pictures.image_mean, pictures.image_std)
    return np.ascontiguousarray(normal[:, :, 0], dtype=np.float32)


def _pixels(pictures: Any, images: Sequence[Image], levels: NDArray[np.float32]) -> dict[str, torch.Tensor]:
    """Return pixel_values [patches, 3 * 2 * side * side] and image_grid_thw [images, 3] of reduced pictures, bit by bit
    as the image processor makes them and faster: each byte becomes its value in `levels`.
    """
    side, merge, frames = pictures.patch_size, pictures.merge_size, pictures.temporal_patch_size
    rows, grids = [], []
    for small in images:
        grid = small.height // side, small.width // side
        # [h / side / merge, merge, side, w / side / merge, merge, side, 3] -> patches of one square stand together
        bytes_ = np.asarray(small).reshape(grid[0] // merge, merge, side, grid[1] // merge, merge, side, 3)
        patches = bytes_.transpose(0, 3, 1, 4, 6, 2, 5).reshape(-1, 3, 1, side * side)
        values = np.stack([levels[colour].take(patches[:, colour]) for colour in range(3)], axis=1)
        rows.append(np.broadcast_to(values, (len(values), 3, frames, side * side)).reshape(len(values), -1))
        grids.append((1, *grid))
    return {"pixel_values": torch.from_numpy(np.concatenate(rows)), "image_grid_thw": torch.tensor(grids)}


def _size(pictures: Any, image: Image) -> tuple[int, int]:
    """Return the (width, height) in pixels in which the model sees `image`."""
    width, height = _wide_enough(image)
    low, high = pictures.size["shortest_edge"], pictures.size["longest_edge"]
    height, width = smart_resize(height, width, pictures.patch_size * pictures.merge_size, low, high)
    return width, height


def _resized(pictures: Any, image: Image) -> Image:
    """Return `image` in the size that the model sees; one that has it already stays as it is."""
    size = _size(pictures, image)
    image = _not_too_long(image)
    plain = image if image.mode == "RGB" else image.convert("RGB")
    return plain if plain.size == size else plain.resize(size, pictures.resample)


def load_processor(base: Base) -> Processor:
    """Return the processor of `base`, with its pixel limits, padding on the left. ModelError when the folder is
    damaged.
    """
    config = read_config(base.folder, base.name)
    try:
        tokenizer = AutoTokenizer.from_pretrained(base.folder, trust_remote_code=False, local_files_only=True)
        pictures = Qwen2VLImageProcessorPil.from_pretrained(
            base.folder,
            local_files_only=True,
            # In a folder of the older layout min_pixels and max_pixels stand there too, and would win over size.
            size={"shortest_edge": base.min_pixels, "longest_edge": base.max_pixels},
            min_pixels=base.min_pixels,
            max_pixels=base.max_pixels,
        )
    except Exception as error:  # tokenizers raises bare Exception on a damaged file
        reason = str(error).strip().split("\n", 1)[0][:200]
        hint = "fetch or copy the model again"
        raise ModelError(f"{base.name}: tokenizer or image processor can't be read: {reason}", hint) from error
    tokenizer.padding_side = "left"  # the last position is the last token; lost whenever a tokenizer is saved
    for token, key in ((base.family.image_token, "image_token_id"), (base.family.video_token, "video_token_id")):
        if tokenizer.convert_tokens_to_ids(token) != config.get(key, tokenizer.convert_tokens_to_ids(token)):
            raise ModelError(f"{base.name}: {token} has another number in the tokenizer than in config.json")
    if tokenizer.pad_token is None:
        raise ModelError(f"{base.name}: the tokenizer has no padding token")
    template = tokenizer.chat_template or _old_chat_template(base)
    inner = without_video(base.family, pictures, tokenizer, template)
    text_config = config.get("text_config") or config
    return Processor(inner, base.family, int(text_config.get("max_position_embeddings") or 32768))


def without_video(family: Family, image_processor: Any, tokenizer: Any, chat_template: str | None) -> Any:
    """Make the ProcessorMixin of a family that does without a video processor and torchvision."""
    name = family.processor_class
    # A saved folder carries the class's name; under another one a stock AutoProcessor quietly returns the tokenizer.
    made = type(name, (_WithoutVideo,), {"__module__": getattr(transformers, name).__module__, "_family": family})
    return made(image_processor=image_processor, tokenizer=tokenizer, chat_template=chat_template)


def _old_chat_template(base: Base) -> str | None:
    """Return where processors kept their template before transformers 5."""
    file = base.folder / "chat_template.json"
    return read_json(file).get("chat_template") if file.is_file() else None


def _wide_enough(image: Image) -> tuple[int, int]:
    """Return the (width, height) of `image`, the smaller raised where one is more than 200 times the other."""
    width, height = image.size
    return max(width, -(-height // MAX_ASPECT)), max(height, -(-width // MAX_ASPECT))


def _not_too_long(image: Image) -> Image:
    """Return `image` itself, or, when one side is more than 200 times the other, on a white strip that is wide
    enough.
    """
    wide, high = _wide_enough(image)
    if (wide, high) == image.size:
        return image
    from PIL import Image as Pillow

    strip = Pillow.new("RGB", (wide, high), "white")
    strip.paste(image, ((wide - image.width) // 2, (high - image.height) // 2))
    return strip
