"""A tab's story as one picture fit for a slide: 1920 x 1080, the four steps, the key numbers, whose photo it is. No events."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from ..figures import INK, SOFT, bar_picture, chart_picture, matrix_picture, panel_picture
from ..inference import Result
from ..pretext import Card, Number, Panel
from ..texts import say
from .lettering import font, height, lines, write
from .story import STEPS, heading_of

SIZE = (1920, 1080)
GROUND, LINE, BLUE = "#f6f4ef", "#dcd8d0", "#2f6fb7"
EDGE, APART, BETWEEN = 64, 44, 22  # pixels: at the picture's edges, between two steps, between two panels of one
HEADING = 56  # of a step: its number, its name, a line
TITLE, CAPTION = 24, 20  # sizes of a panel's letters
MOST_NUMBERS = 6


@dataclass
class Cell:
    """Where a panel stands, (left, top, width, height) with its title and caption, and how large its picture becomes."""

    panel: Panel
    box: tuple[int, int, int, int]
    beside: bool = False  # whether its words stand at the right of the picture, not above and below
    widest: float = 0  # pixels of the longest word that stands beside a picture of this step

    def __post_init__(self):
        _, _, width, tall = self.box
        if self.beside:
            self.size = fitted(self.panel, min(width * 0.62, width - 18 - self.widest), tall)
            self.words = width - self.size[0] - 18
        else:
            self.words = width
            self.size = fitted(self.panel, width, tall - self.above - self.below)

    @property
    def title(self) -> list[str]:
        return lines(self.panel.title, self.words, font(TITLE, bold=True))

    @property
    def caption(self) -> list[str]:
        return lines(self.panel.caption, self.words, font(CAPTION))

    @property
    def above(self) -> int:
        return height(font(TITLE, bold=True), len(self.title)) + 8

    @property
    def below(self) -> int:
        return height(font(CAPTION), len(self.caption)) + 8

    @property
    def bottom(self) -> int:
        """Where what is drawn of it ends."""
        if self.beside:
            return self.box[1] + max(self.size[1], self.above + self.below)
        return self.box[1] + self.above + self.size[1] + self.below

    @property
    def fits(self) -> bool:
        """Whether picture and words stay in the box, and no word of the title must be cut."""
        return min(self.size) >= 24 and self.words >= max(110, self.widest) and self.bottom <= self.box[1] + self.box[3] + 1


def slide(result: Result, card: Card, notes: Sequence[str] = ()) -> Image.Image:
    """The story of a run, in the language of the result and the card.

    notes: sentences for the foot, such as whose photo it is and which network answered.
    """
    canvas = Image.new("RGB", SIZE, GROUND)
    draw = ImageDraw.Draw(canvas)
    top = head(draw, card)
    numbers = key_numbers(result, card)
    foot = SIZE[1] - 40 - height(font(17), len(foot_lines(notes)))
    strip = foot - 24 - strip_height(numbers)
    steps = arrange(result.panels, top + 26, strip - 34 - top - 26)
    for number, (stage, cells) in enumerate(steps.items(), start=1):
        name = heading_of(stage, card)
        left, right = cells[0].box[0], max(cell.box[0] + cell.box[2] for cell in cells)
        heading(draw, number, name, left, right, top + 26)
        for cell in cells:
            put(canvas, draw, cell)
    write_numbers(draw, numbers, strip)
    write(draw, (EDGE, foot), foot_lines(notes), font(17), SOFT)
    return canvas


def head(draw: ImageDraw.ImageDraw, card: Card) -> int:
    """Title, idea and paper; the y below them."""
    draw.text((EDGE, 44), card.title, fill=INK, font=font(54, bold=True))
    paper, right = font(22), SIZE[0] - EDGE
    used = EDGE + font(54, bold=True).getlength(card.title) + 60
    said = [f"{card.authors}, {card.year}", *lines(card.paper, right - used, paper, most=2)]
    for row, text in enumerate(said):
        draw.text((right, 48 + row * height(paper)), text, fill=SOFT, font=paper, anchor="ra")
    idea = lines(card.idea, SIZE[0] - 2 * EDGE, font(29), most=2)
    return write(draw, (EDGE, 128), idea, font(29), INK)


def key_numbers(result: Result, card: Card) -> list[Number]:
    """The figures with a text, as many as stand well in a row; the one that stands for the method is among them."""
    named = [number for name, number in result.figures.items() if number.text and name in card.overview]
    others = [number for number in result.figures.values() if number.text and number not in named]
    chosen = named + others[: MOST_NUMBERS - len(named)]
    return [number for number in result.figures.values() if number in chosen]


def strip_width(numbers: Sequence[Number]) -> int:
    return (SIZE[0] - 2 * EDGE + 28) // max(3, len(numbers)) - 28


def strip_height(numbers: Sequence[Number]) -> int:
    wide = strip_width(numbers)
    labels = max((len(lines(number.label, wide, font(20))) for number in numbers), default=0)
    helps = max((len(lines(number.help, wide, font(18))) for number in numbers), default=0)
    return 16 + height(font(20), labels) + height(font(34, bold=True)) + height(font(18), helps)


def write_numbers(draw: ImageDraw.ImageDraw, numbers: Sequence[Number], top: int) -> None:
    """The figures in a row; their values stand on one line."""
    wide, small, large = strip_width(numbers), font(20), font(34, bold=True)
    most = max((len(lines(number.label, wide, small)) for number in numbers), default=0)
    for place, number in enumerate(numbers):
        left = EDGE + place * (wide + 28)
        draw.line((left, top, left + wide, top), fill=LINE, width=2)
        write(draw, (left, top + 10), lines(number.label, wide, small), small, SOFT)
        size = next(size for size in range(34, 13, -1) if size == 14 or font(size, bold=True).getlength(number.text) <= wide)
        y = top + 10 + height(small, most)
        draw.text((left, y + height(large) - 8), number.text, fill=INK, font=font(size, bold=True), anchor="ls")
        write(draw, (left, y + height(large)), lines(number.help, wide, font(18)), font(18), SOFT)


def foot_lines(notes: Sequence[str]) -> list[str]:
    return lines("  ·  ".join(notes), SIZE[0] - 2 * EDGE, font(17), most=2)


def heading(draw: ImageDraw.ImageDraw, number: int, name: str, left: int, right: int, top: int) -> None:
    """A step's number and name over a line as wide as its panels."""
    draw.ellipse((left, top, left + 34, top + 34), fill=BLUE)
    draw.text((left + 17, top + 17), str(number), fill="white", font=font(22, bold=True), anchor="mm")
    size = next(size for size in range(27, 13, -1) if size == 14 or font(size, bold=True).getlength(name) <= right - left - 46)
    draw.text((left + 46, top + 17), name, fill=INK, font=font(size, bold=True), anchor="lm")
    draw.line((left, top + 43, right, top + 43), fill=LINE, width=2)


def arrange(panels: Sequence[Panel], top: int, tall: int) -> dict[str, list[Cell]]:
    """The panels by step, in the arrangement of one or two rows a step in which the pictures are largest."""
    staged = {stage: [panel for panel in panels if panel.stage == stage] for stage in STEPS}
    staged = {stage: found for stage, found in staged.items() if found}
    best, score = None, -math.inf
    for rows in itertools.product((1, 2), repeat=len(staged)):
        if any(count > len(found) for count, found in zip(rows, staged.values())):
            continue
        steps = placed(staged, rows, top, tall)
        cells = [cell for found in steps.values() for cell in found]
        worth = sum(math.log(pixels([cell])) for cell in cells) / len(cells) + 2 * math.log(pixels(cells))
        worth -= 4 * sum(not cell.fits for cell in cells)
        if worth > score:
            best, score = steps, worth
    return best


def placed(staged: dict[str, list[Panel]], rows: Sequence[int], top: int, tall: int) -> dict[str, list[Cell]]:
    """The panels in so many rows a step; all panels are as wide as each other."""
    across = [-(-len(found) // count) for found, count in zip(staged.values(), rows)]
    room = SIZE[0] - 2 * EDGE - APART * (len(staged) - 1) - BETWEEN * sum(count - 1 for count in across)
    wide = min(room // sum(across), 460)
    steps, left = {}, EDGE
    spare = (SIZE[0] - 2 * EDGE - wide * sum(across) - BETWEEN * sum(n - 1 for n in across)) // max(1, len(staged) - 1)
    for (stage, found), count, columns in zip(staged.items(), rows, across):
        high = (tall - HEADING - BETWEEN * (count - 1)) // count
        steps[stage], widely = [], count == 2 and len(found) == 3 and is_wide(found[0])  # then the first has its row
        for number, panel in enumerate(found):
            row, column = divmod(number + (1 if widely else 0), columns)
            if widely and not number:
                row, column = 0, 0
            is_last = number == len(found) - 1 and (panel.bars or panel.chart is not None)
            over = columns - column if is_last or (widely and not number) else 1
            box = (left + column * (wide + BETWEEN), top + HEADING + row * (high + BETWEEN),
                   wide * over + BETWEEN * (over - 1), high)
            steps[stage].append(Cell(panel, box))
        # Where panels stand below each other, words beside the pictures leave these more room; all pictures of a step or none.
        widest = max(font(TITLE, bold=True).getlength(word) for panel in found for word in panel.title.split())
        turned = [Cell(cell.panel, cell.box, True, widest) if cell.panel.image is not None else cell for cell in steps[stage]]
        if count > 1 and columns == 1 and all(cell.fits for cell in turned) and pixels(turned) > pixels(steps[stage]):
            steps[stage] = turned
        left += columns * wide + (columns - 1) * BETWEEN + spare
    return steps


def is_wide(panel: Panel) -> bool:
    """Whether a picture is twice as wide as high, or wider."""
    shape = panel.image.shape if panel.image is not None else (1, 1) if panel.video is None else panel.video.shape[1:]
    return shape[1] >= 2 * shape[0]


def pixels(cells: Sequence[Cell]) -> int:
    """How many pixels the pictures have."""
    return sum(cell.size[0] * cell.size[1] for cell in cells)


def fitted(panel: Panel, width: float, tall: float) -> tuple[int, int]:
    """How large a panel's picture becomes within (width, tall)."""
    width, tall = max(1, int(width)), max(1, int(tall))
    if panel.bars:
        return width, min(tall, 58 * len(panel.bars) + 16)
    if panel.chart is not None:
        return width, min(tall, width * 4 // 5)
    if panel.matrix is not None:
        shape = matrix_picture(panel.matrix, 8).shape
    else:
        shape = (panel.image if panel.video is None else panel.video[0]).shape
    factor = min(width / shape[1], tall / shape[0])
    return max(1, int(shape[1] * factor)), max(1, int(shape[0] * factor))


def drawn(panel: Panel, size: tuple[int, int]) -> Image.Image:
    """A panel at exactly that size. Pixels of small pictures stay square and sharp."""
    width, tall = size
    if panel.bars:
        canvas = Image.new("RGB", size, "white")
        canvas.paste(Image.fromarray(bar_picture(panel.bars, width, (tall - 16) // len(panel.bars), font, say("true"))))
        return canvas
    if panel.chart is not None:
        return Image.fromarray(chart_picture(panel.chart, width, tall, font))
    picture = matrix_picture(panel.matrix, 2 * width) if panel.matrix is not None else panel_picture(panel, 1)
    large = picture.repeat(factor := max(1, -(-2 * width // picture.shape[1])), axis=0).repeat(factor, axis=1)
    return Image.fromarray(np.ascontiguousarray(large)).resize(size, Image.Resampling.BOX)


def put(canvas: Image.Image, draw: ImageDraw.ImageDraw, cell: Cell) -> None:
    """A panel with its words."""
    left, top = cell.box[:2]
    if cell.beside:
        x = left + cell.size[0] + 18
        paste(canvas, drawn(cell.panel, cell.size), (left, top))
        y = write(draw, (x, top - 4), cell.title, font(TITLE, bold=True), INK) + 4
        write(draw, (x, y), cell.caption, font(CAPTION), SOFT)
        return
    write(draw, (left, top), cell.title, font(TITLE, bold=True), INK)
    paste(canvas, drawn(cell.panel, cell.size), (left, top + cell.above))
    write(draw, (left, top + cell.above + cell.size[1] + 8), cell.caption, font(CAPTION), SOFT)


def paste(canvas: Image.Image, picture: Image.Image, place: tuple[int, int], radius: int = 8) -> None:
    """A picture with round corners."""
    mask = Image.new("L", (4 * picture.width, 4 * picture.height))
    ImageDraw.Draw(mask).rounded_rectangle((0, 0, mask.width - 1, mask.height - 1), 4 * radius, fill=255)
    canvas.paste(picture, place, mask.resize(picture.size, Image.Resampling.BOX))
