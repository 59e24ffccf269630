"""Letters on pictures: the fonts that Gradio ships, which hold every sign that the app writes, and lines that fit a width."""

import functools
from pathlib import Path

import gradio
from PIL import ImageDraw, ImageFont

FONTS = Path(gradio.__file__).parent / "templates" / "frontend" / "static" / "fonts" / "SourceSansPro"


@functools.lru_cache(maxsize=64)
def font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """Source Sans; where Gradio or Pillow came without, what the machine has, and at the worst Pillow's own few letters."""
    kind = "Bold" if bold else "Regular"
    for name in (str(FONTS / f"SourceSansPro-{kind}.woff2"), f"DejaVuSans{'-Bold' if bold else ''}.ttf"):
        try:
            return ImageFont.truetype(name, size)
        except OSError:
            continue
    return ImageFont.load_default(size)


def lines(text: str, width: float, face: ImageFont.FreeTypeFont, most: int | None = None) -> list[str]:
    """The text in lines no wider than `width` pixels, at most `most`: what is more ends in "…". Words are cut where they must be.
    """
    found, line = [], ""
    for word in text.split():
        while face.getlength(word) > width:
            fits = next(n for n in range(len(word) - 1, 0, -1) if n == 1 or face.getlength(word[:n]) <= width)
            if line:
                found.append(line)
            found.append(word[:fits])
            line, word = "", word[fits:]
        longer = f"{line} {word}".strip()
        if face.getlength(longer) <= width:
            line = longer
        else:
            found.append(line)
            line = word
    found += [line] if line else []
    if most is not None and len(found) > most:
        last = found[most - 1]
        while last and face.getlength(last + "…") > width:
            last = last[:-1]
        found = [*found[: most - 1], last.rstrip(" ,;:.") + "…"]
    return found


def height(face: ImageFont.FreeTypeFont, count: int = 1) -> int:
    """Pixels from the top of one line to that below the last of `count`."""
    return round(count * face.size * 1.22)


def write(draw: ImageDraw.ImageDraw, place: tuple[float, float], rows: list[str], face: ImageFont.FreeTypeFont,
          color: str) -> int:
    """Lines below each other from their top left corner; the y below them."""
    x, y = place
    for row in rows:
        draw.text((x, y), row, fill=color, font=face)
        y += height(face)
    return round(y)
