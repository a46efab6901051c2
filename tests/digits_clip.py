"""Trains a small CLIP on the digits and writes it in the layout of real CLIP checkpoints, so the same code loads both.

It knows each digit by all its names as a photograph (a scan), a drawing (dark ink on white) and a painting (in colors),
and the embedded model's backdrops by the names of their scenes.

python -m tests.digits_clip OUT     # about 3 minutes on one core
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from builders.audit.text_prompts import MEDIA, PHOTO, class_texts
from builders.classes.class_list import read_class_table
from builders.classes.digits import compose, enlarge, load_digits_split
from builders.classes.scenes import scene_phrase
from builders.embedded.digits import BACKDROPS
from builders.embedded.train import train_tokenizer

SIDE, WIDTH, HEADS, LAYERS = 32, 64, 4, 3
PER_CONCEPT = 6
MEDIA_SEEN = (PHOTO, "drawing", "painting")

GalleryImage = NDArray[np.uint8]


def as_drawing(image: GalleryImage) -> GalleryImage:
    """Returns an image as dark ink on white."""
    return 255 - image


def as_artwork(image: GalleryImage, rng: np.random.Generator) -> GalleryImage:
    """Returns an image with ink and paper in two of the strong colors."""
    ink, paper = rng.permutation(np.array([[220, 60, 30], [40, 90, 220], [240, 200, 40], [30, 160, 70]]))[:2]
    share = image.astype(np.float32) / 255
    return (share * ink + (1 - share) * paper).astype(np.uint8)


class Concepts:
    """The concepts that the CLIP learns: texts of one meaning, and images that show it."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        inks, labels, _ = load_digits_split("train")
        self.inks = [[ink for ink, label in zip(inks, labels, strict=True) if label == digit] for digit in range(10)]
        entries = read_class_table("digits")
        self.texts = [class_texts(entry, medium) for medium in MEDIA_SEEN for entry in entries]
        self.texts += [[f"a {PHOTO} of {scene_phrase(scene)}."] for scene in BACKDROPS]

    def all_texts(self) -> list[str]:
        unseen = [
            text for medium in MEDIA for entry in read_class_table("digits") for text in class_texts(entry, medium)
        ]
        return [text for found in self.texts for text in found] + unseen

    def text(self, concept: int) -> str:
        return str(self.rng.choice(self.texts[concept]))

    def image(self, concept: int) -> GalleryImage:
        """Returns a random image (32, 32, 3) of a concept."""
        if concept >= 10 * len(MEDIA_SEEN):
            draw = list(BACKDROPS.values())[concept - 10 * len(MEDIA_SEEN)]
            return np.clip(draw(self.rng), 0, 255).astype(np.uint8)
        medium, digit = divmod(concept, 10)
        inks = self.inks[digit]
        ink = enlarge(inks[int(self.rng.integers(len(inks)))])
        shifted = np.roll(ink, self.rng.integers(-2, 3, size=2), axis=(0, 1))
        if medium:
            plain = compose(shifted)
            return as_drawing(plain) if medium == 1 else as_artwork(plain, self.rng)
        backdrop = list(BACKDROPS.values())[int(self.rng.integers(len(BACKDROPS)))]
        return compose(shifted, backdrop(self.rng)) if self.rng.random() < 0.3 else compose(shifted)


def write_digits_clip(out: Path, num_steps: int = 2500, seed: int = 0) -> None:
    """Trains the CLIP and writes it with its tokenizer and image processor."""
    import torch
    from transformers import CLIPImageProcessorPil

    torch.manual_seed(seed)
    concepts = Concepts(np.random.default_rng(seed))
    tokenizer = train_tokenizer(concepts.all_texts())
    model = _model(tokenizer)
    processor = CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE})
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-3, total_steps=num_steps, pct_start=0.1)
    targets = torch.arange(len(concepts.texts)).repeat_interleave(PER_CONCEPT)
    for _ in range(num_steps):
        images = [concepts.image(concept) for concept in targets.tolist()]
        texts = [concepts.text(concept) for concept in range(len(concepts.texts))]
        tokens = tokenizer(texts, padding="max_length", truncation=True, max_length=77, return_tensors="pt")
        found = model(**tokens, pixel_values=processor(images, return_tensors="pt").pixel_values)
        loss = torch.nn.functional.cross_entropy(found.logits_per_image, targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    model.eval().save_pretrained(out)
    processor.save_pretrained(out)
    tokenizer.save_pretrained(out)


def _model(tokenizer: Any) -> Any:
    from transformers import CLIPConfig, CLIPModel

    shape = {
        "hidden_size": WIDTH,
        "intermediate_size": 2 * WIDTH,
        "num_attention_heads": HEADS,
        "num_hidden_layers": LAYERS,
    }
    tokens = {
        "vocab_size": len(tokenizer),
        "max_position_embeddings": 77,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    vision = {"image_size": SIDE, "patch_size": 4}
    return CLIPModel(
        CLIPConfig(text_config={**shape, **tokens}, vision_config={**shape, **vision}, projection_dim=WIDTH)
    ).train()


if __name__ == "__main__":
    write_digits_clip(Path(sys.argv[1]))
