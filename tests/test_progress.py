"""Work that tells where it is, and stops when told to."""

import pytest

from ssl_demo.progress import Cancelled, listening, steps


def test_each_item_is_told_and_given():
    heard = []
    with listening(lambda *where: heard.append(where)):
        assert list(steps("abc", "reading")) == ["a", "b", "c"]
    assert heard == [(0, 3, "reading"), (1, 3, "reading"), (2, 3, "reading"), (3, 3, "reading")]


def test_nobody_needs_to_listen():
    assert list(steps([1, 2], "reading")) == [1, 2]
    with listening(lambda *where: pytest.fail("the block is over")):
        pass
    assert list(steps([1], "reading")) == [1]


def test_false_stops_the_work():
    done = []
    with pytest.raises(Cancelled), listening(lambda done, of, doing: done < 2):
        for item in steps(range(5), "reading"):
            done.append(item)
    assert done == [0, 1]
