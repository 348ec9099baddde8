"""Draw docs/architecture.svg: `python docs/architecture.py`. A test asserts that it is current.

Boxes stand on a grid of columns and rows; an arrow goes from the side of one box to the side of
another. Dark text on light boxes, so that it is read on a light and on a dark page alike.
"""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import NamedTuple

WIDTH = 1260
HEIGHT = 428
FONT = "font-family='Helvetica, Arial, sans-serif'"
FROZEN, TRAINED, DATA = "#dbe4f0", "#fbe3c4", "#f4f4f2"
INK = "#1d2733"
LINE = "#5b6875"


class Box(NamedTuple):
    """A box: left, top, width, height, its lines of text, and its colour."""

    x: int
    y: int
    w: int
    h: int
    lines: tuple[str, ...]
    colour: str

    def left(self, share: float = 0.5) -> tuple[float, float]:
        return self.x, self.y + share * self.h

    def right(self, share: float = 0.5) -> tuple[float, float]:
        return self.x + self.w, self.y + share * self.h

    def top(self, share: float = 0.5) -> tuple[float, float]:
        return self.x + share * self.w, self.y

    def bottom(self, share: float = 0.5) -> tuple[float, float]:
        return self.x + share * self.w, self.y + self.h


BOXES = {
    "rgb": Box(16, 60, 150, 62, ("RGB(t)", "and earlier years"), DATA),
    "encoder": Box(210, 60, 150, 62, ("I-JEPA encoder", "tokens(t)"), TRAINED),
    "predictor": Box(404, 60, 150, 62, ("predictor", "AlphaEarth(t+1)"), TRAINED),
    "tokens": Box(598, 60, 150, 62, ("tokens(t+1)", "where things change"), DATA),
    "captions": Box(
        16, 196, 150, 76, ("three captions(t)", "informative,", "geometric, semantic"), DATA
    ),
    "text": Box(210, 203, 150, 62, ("CLIP x2 + T5", "offline"), FROZEN),
    "embeddings": Box(404, 203, 150, 62, ("embeddings(t)", "what is there"), DATA),
    "forecaster": Box(598, 203, 150, 62, ("caption forecaster", "what it becomes"), TRAINED),
    "reader": Box(837, 46, 150, 62, ("reader", "puts words in place"), TRAINED),
    "adapter": Box(
        812,
        158,
        200,
        76,
        ("multi-stream adapter", "four signals,", "attention over past years"),
        TRAINED,
    ),
    "noise": Box(598, 341, 150, 62, ("pure noise", "no pixel of year t"), DATA),
    "sd": Box(812, 333, 200, 78, ("Stable Diffusion 3.5", "with LoRA,", "flow matching"), FROZEN),
    "vae": Box(1052, 341, 76, 62, ("VAE", "decoder"), FROZEN),
    "out": Box(1168, 341, 76, 62, ("RGB", "(t+1)"), DATA),
}
ARROWS = [  # the points of each, from box to box
    (BOXES["rgb"].right(), BOXES["encoder"].left()),
    (BOXES["encoder"].right(), BOXES["predictor"].left()),
    (BOXES["predictor"].right(), BOXES["tokens"].left()),
    (BOXES["tokens"].right(0.28), BOXES["reader"].left()),
    (BOXES["tokens"].right(0.72), (768, 105), (792, 177), BOXES["adapter"].left(0.25)),
    (BOXES["forecaster"].right(0.2), (762, 215), (818, 95), BOXES["reader"].left(0.8)),
    (BOXES["reader"].bottom(), BOXES["adapter"].top()),
    (BOXES["rgb"].bottom(), BOXES["captions"].top()),
    (BOXES["captions"].right(), BOXES["text"].left()),
    (BOXES["text"].right(), BOXES["embeddings"].left()),
    (BOXES["embeddings"].right(), BOXES["forecaster"].left()),
    (BOXES["tokens"].bottom(), BOXES["forecaster"].top()),
    (BOXES["forecaster"].right(0.6), (768, 240), (792, 215), BOXES["adapter"].left(0.75)),
    (BOXES["embeddings"].bottom(), (479, 300), (852, 300), BOXES["adapter"].bottom(0.2)),
    (BOXES["adapter"].bottom(0.65), BOXES["sd"].top(0.65)),
    (BOXES["noise"].right(), BOXES["sd"].left()),
    (BOXES["sd"].right(), BOXES["vae"].left()),
    (BOXES["vae"].right(), BOXES["out"].left()),
]
LEGEND = (("trained", TRAINED), ("frozen", FROZEN), ("data", DATA))


def draw_box(box: Box) -> str:
    """The rectangle and its centred lines, the first of them bold."""
    shape = (
        f"<rect x='{box.x}' y='{box.y}' width='{box.w}' height='{box.h}' rx='8' "
        f"fill='{box.colour}' stroke='{LINE}'/>"
    )
    first = box.y + box.h / 2 - 9 * (len(box.lines) - 1) + 5
    texts = []
    for number, line in enumerate(box.lines):
        weight = "bold" if number == 0 else "normal"
        texts.append(
            f"<text x='{box.x + box.w / 2:g}' y='{first + 18 * number:g}' text-anchor='middle' "
            f"font-size='13' font-weight='{weight}' fill='{INK}'>{escape(line)}</text>"
        )
    return "\n".join([shape, *texts])


def draw_arrow(points: tuple[tuple[float, float], ...]) -> str:
    """A line through the points with a head at its end."""
    path = " L ".join(f"{x:g} {y:g}" for x, y in points)
    style = f"fill='none' stroke='{LINE}' stroke-width='1.6' marker-end='url(#head)'"
    return f"<path d='M {path}' {style}/>"


def draw_legend() -> str:
    """What the colours mean."""
    parts = []
    for number, (word, colour) in enumerate(LEGEND):
        x = 16 + 104 * number
        parts.append(
            f"<rect x='{x}' y='14' width='18' height='18' rx='4' fill='{colour}' stroke='{LINE}'/>"
            f"<text x='{x + 26}' y='28' font-size='13' fill='{INK}'>{word}</text>"
        )
    return "\n".join(parts)


def draw() -> str:
    """The whole picture."""
    head = (
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {WIDTH} {HEIGHT}' "
        f"role='img' {FONT}>\n"
        "<title>From the images of year t to the image of year t+1</title>\n"
        f"<rect width='{WIDTH}' height='{HEIGHT}' fill='white'/>\n"
        "<defs><marker id='head' viewBox='0 0 10 10' refX='9' refY='5' markerWidth='7' "
        f"markerHeight='7' orient='auto'><path d='M 0 0 L 10 5 L 0 10 z' fill='{LINE}'/>"
        "</marker></defs>"
    )
    arrows = [draw_arrow(points) for points in ARROWS]
    boxes = [draw_box(box) for box in BOXES.values()]
    return "\n".join([head, draw_legend(), *arrows, *boxes, "</svg>", ""])


if __name__ == "__main__":
    Path(__file__).with_suffix(".svg").write_text(draw(), encoding="utf-8")
