"""Lets torchvision (and timm, which imports it) load beside a CPU-only build of torch.

torchvision's wheels on PyPI are linked against CUDA's torch. Beside a CPU build their compiled operators cannot load, and
``import torchvision`` dies while describing operators (``nms``) that are then missing. Nothing here uses those operators, so
declaring the two names it describes is enough. With a matching pair of builds this module changes nothing.
"""

import importlib.util
import sys

import torch


def _import_torchvision() -> None:
    try:
        import torchvision  # noqa: F401
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
        for name in [n for n in sys.modules if n == "torchvision" or n.startswith("torchvision.")]:
            del sys.modules[name]
        library = torch.library.Library("torchvision", "FRAGMENT")
        for operator in ("nms", "qnms"):
            library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        globals()["_library"] = library  # an operator lives only as long as the Library that declared it
        import torchvision  # noqa: F401


if importlib.util.find_spec("torchvision"):
    _import_torchvision()
