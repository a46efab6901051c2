"""Draws pairs of a synthetic image and the nearest real one, for a look at suspected copies."""

import io
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageOps

from builders.images.read import Pixels

SIDE = 96
"""Side of an image in pixels."""
COLUMNS = 8
TEXT = 14
"""Height of a line of text in pixels."""
GAP = 6


def draw_pairs(pairs: Sequence[tuple[Pixels, Pixels, str]]) -> bytes:
    """Draws each synthetic image above its real one and a label; the content of a PNG file."""
    rows = -(-len(pairs) // COLUMNS)
    step = SIDE + GAP, 2 * SIDE + TEXT + GAP
    sheet = Image.new("RGB", (min(COLUMNS, len(pairs)) * step[0], rows * step[1]), "white")
    pen = ImageDraw.Draw(sheet)
    for number, (synthetic, real, label) in enumerate(pairs):
        left, top = number % COLUMNS * step[0], number // COLUMNS * step[1]
        for offset, pixels in ((0, synthetic), (SIDE, real)):
            image = Image.fromarray(np.ascontiguousarray(pixels))
            sheet.paste(ImageOps.fit(image, (SIDE, SIDE), Image.Resampling.BICUBIC), (left, top + offset))
        pen.text((left, top + 2 * SIDE), label, fill="black")
    out = io.BytesIO()
    sheet.save(out, "PNG")
    return out.getvalue()
