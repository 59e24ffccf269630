"""See self-supervised learning work: one pretext task per paper, from a photo to learned predictions.

    >>> import ssl_demo
    >>> result = ssl_demo.load("mae").run("photo.jpg", seed=0, mask_ratio=75)
    >>> result.numbers, [panel.title for panel in result.panels]
"""

__version__ = "0.1.0"


def load(task: str, weights: str | None = None):
    """A task with its network, ready to `run(image, seed=0, **controls)`; see `ssl_demo.inference.load`."""
    from .inference import load  # torch loads only when a network is asked for

    return load(task, weights)
