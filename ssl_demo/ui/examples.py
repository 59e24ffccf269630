"""Photos that everybody may use, from what scikit-image ships; credited where they are shown."""

import functools
from dataclasses import dataclass

import skimage.data
from PIL import Image


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
