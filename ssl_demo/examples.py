"""Photos that everybody may use, from what scikit-image ships; credited where they are shown."""

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import skimage.data
from PIL import Image

from .images import square


@dataclass(frozen=True)
class ExamplePhoto:
    """A photo by name, with its credit and licence."""

    name: str
    title: str
    credit: str

    @functools.cached_property
    def image(self) -> Image.Image:
        """The RGB picture."""
        return Image.fromarray(getattr(skimage.data, self.name)())


EXAMPLES = (
    ExamplePhoto("chelsea", "Chelsea the cat", "Stéfan van der Walt, CC0, via scikit-image"),
    ExamplePhoto("astronaut", "Eileen Collins", "NASA, public domain, via scikit-image"),
    ExamplePhoto("coffee", "A cup of coffee", "Rachel Michetti, courtesy of Pikolo Espresso Bar, CC0, via scikit-image"),
    ExamplePhoto("rocket", "Falcon 9 with DSCOVR", "SpaceX, public domain, via scikit-image"),
)


def name_of(photo) -> str | None:
    """The name of the example that a picture is; None where it is none of them, or a clip."""
    if not isinstance(photo, Image.Image):
        return None
    sizes = {example.image.size: example for example in EXAMPLES}
    example = sizes.get(photo.size)
    return example.name if example and np.array_equal(_gist(example.image), _gist(photo)) else None


def company(photo: Image.Image, brought: Sequence[Image.Image], count: int, size: int) -> list[Image.Image]:
    """`count` squares of `size` pixels to stand beside a photo: those that were brought, then the examples, then parts of these.

    The photo itself is not among the examples that join it, or a method that tells photos apart would be asked to tell it from
    itself. The same photos give the same company.
    """
    own = _gist(photo)
    others = [example.image for example in EXAMPLES if np.abs(_gist(example.image) - own).max() > 8]
    squares = [square(picture, size) for picture in [*brought[:count], *others][:count]]
    for part in _parts(others):
        if len(squares) >= count:
            break
        squares.append(square(part, size))
    return squares


def _parts(photos: list[Image.Image]) -> Iterator[Image.Image]:
    """Ever smaller squares of the photos: the left and right end of each, then its corners, then ninths."""
    for across in (2, 3, 4):
        for place in range(across * across):
            for photo in photos:
                side = min(photo.size) * 2 // (across + 1)
                row, column = divmod(place, across)
                left, top = ((length - side) * at // (across - 1) for length, at in zip(photo.size, (column, row)))
                yield photo.crop((left, top, left + side, top + side))


def _gist(photo: Image.Image) -> np.ndarray:
    """A photo's square at 8 x 8 pixels, which tells photos apart however they were stored."""
    return np.asarray(square(photo, 8), dtype=np.float32)
