"""Several processes that train one network as if they were one: the same loss, at each step, as one with the whole batch.

Each reads its share of the photos, and all then have them all (`gather`, in the order one process would have them). Each draws
the chance of the whole batch from the same seed and makes the whole batch's example, of which it keeps its share (`share`): every
P-th row, for P processes. So a mask or a crop does not depend on how many share the work, and no task has to know of it. The
price is that crops and masks are made P times over, on the device. That is little beside the network, but it does not get less by
more processes: with very many of them, a chance of its own for each photo would be the way.

What looks at the whole batch looks at all processes': the losses that compare photos (`PretextTask.gathered`), and batch norm.
Gradients are averaged by DistributedDataParallel. What is left are differences of rounding: sums are taken in another order.
"""

import os
from datetime import timedelta

import torch
from accelerate import PartialState
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

LONGEST_WAIT = timedelta(hours=12)  # of processes for the one of their machine that decodes the photos


def processes() -> PartialState:
    """This process, alone or among those of `accelerate launch` or `torchrun`, and its device: CUDA, else the processor."""
    told = os.environ.get("SPACES_ZERO_GPU") or os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true")
    use_cpu = bool(told) or not torch.cuda.is_available()  # ZeroGPU lends its GPU for calls of seconds only
    # Without saying cpu, accelerate would leave processes on processors alone, each with all.
    return PartialState(cpu=use_cpu, timeout=LONGEST_WAIT)


def are_several() -> bool:
    """Whether this process has others to wait for."""
    return torch.distributed.is_available() and torch.distributed.is_initialized() and torch.distributed.get_world_size() > 1


def gather(values: Tensor) -> Tensor:
    """The values (B, ...) of all P processes, (P * B, ...), in the order of the whole batch. Gradients flow back to each.

    Each process then has the loss of the whole batch, and the gradient that comes back to it is the sum of what all of them ask
    for: as many times too much as there are processes, which DistributedDataParallel's mean over processes puts right.
    """
    return _Gathered.apply(values).transpose(0, 1).flatten(0, 1) if are_several() else values


class _Gathered(torch.autograd.Function):
    """(B, ...) of each process to (P, B, ...) at each."""

    @staticmethod
    def forward(ctx, values: Tensor) -> Tensor:
        parts = [torch.empty_like(values) for _ in range(torch.distributed.get_world_size())]
        torch.distributed.all_gather(parts, values.contiguous())
        return torch.stack(parts)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        gradient = gradient.contiguous().clone()
        torch.distributed.all_reduce(gradient)
        return gradient[torch.distributed.get_rank()]


def mean(values: Tensor) -> Tensor:
    """The mean of a tensor over all processes; gradients flow back to each."""
    return gather(values[None]).mean(dim=0)


def share(example: dict[str, Tensor]) -> dict[str, Tensor]:
    """This process's rows of an example of the whole batch: each P-th, for P processes, from its own number on."""
    if not are_several():
        return example
    first, step = torch.distributed.get_rank(), torch.distributed.get_world_size()
    return {name: values[first::step] for name, values in example.items()}


def share_batch_norm(model: nn.Module) -> nn.Module:
    """Lets batch norm count all processes' photos. The parameters stay the same ones, and so do the names of all weights."""
    if next(model.parameters()).device.type == "cuda":
        return nn.SyncBatchNorm.convert_sync_batchnorm(model)
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.__class__ = SharedBatchNorm
    return model


class SharedBatchNorm(_BatchNorm):
    """What `nn.SyncBatchNorm` is on GPUs, for processors, which it does not know: (B, C, ...) to the same.

    Mean and variance of each channel are those over the batches of all processes, which have to be equally large.
    """

    def _check_input_dim(self, images: Tensor) -> None:
        """Any number of dimensions."""

    def forward(self, images: Tensor) -> Tensor:
        if not self.training:
            return super().forward(images)
        exact, others = images.float(), [0, *range(2, images.ndim)]
        average = mean(exact.mean(others, keepdim=True))  # (1, C, 1, 1)
        centred = exact - average
        variance = mean(centred.square().mean(others, keepdim=True))
        count = images.numel() // images.shape[1] * torch.distributed.get_world_size()
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(average.flatten(), self.momentum)
            self.running_var.lerp_(variance.flatten() * count / (count - 1), self.momentum)
        normal = (centred * (variance + self.eps).rsqrt()).to(images.dtype)
        if not self.affine:
            return normal
        weight, bias = (values.view_as(average).to(images.dtype) for values in (self.weight, self.bias))
        return torch.addcmul(bias, normal, weight)
