"""Frozen features of pictures: what `transfer` asks of the same networks, one picture at a time."""

import numpy as np
import pytest
import torch

from ssl_demo import embedding
from ssl_demo.checkpoints import UNTRAINED, load_weights
from ssl_demo.examples import EXAMPLES

PICTURES = [example.image for example in EXAMPLES[:3]]


@pytest.mark.parametrize("encoder", [*embedding.bundled_encoders(), f"{embedding.bundled_encoders()[0]}:{UNTRAINED}", "pixels"])
def test_features_are_the_networks_own_one_row_a_picture(encoder):
    together = embedding.embed(PICTURES, encoder)
    alone = embedding.embed(PICTURES[1:2], encoder)
    assert together.ndim == 2 and len(together) == 3 and together.isfinite().all() and embedding.title(encoder)
    assert torch.allclose(together[1:2], alone, atol=1e-4) and not torch.allclose(together[0], together[1])
    if encoder == "pixels":
        return
    name, _, untrained = encoder.partition(":")
    task, network = load_weights(name, UNTRAINED if untrained else None)
    with torch.no_grad():
        expected = task.features(network, embedding.stack(PICTURES, task.size))[0].flatten(1)
    assert torch.allclose(together, expected, atol=1e-4)


def test_many_pictures_go_in_batches():
    many = PICTURES * 23  # 69: more than a batch
    assert np.allclose(embedding.embed(many, "pixels"), embedding.embed(PICTURES, "pixels").repeat(23, 1), atol=1e-6)


def test_an_encoder_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match="nothing_such"):
        embedding.embed(PICTURES, "nothing_such")
