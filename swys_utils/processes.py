"""Several processes that train one model together: which part of each batch is whose."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode


class ProcessShare(TorchFunctionMode):
    """One process's part of a batch, ``part``, and of the random numbers drawn for the batch.

    Inside ``with share:`` PatchDropout and stochastic depth draw the numbers of the whole batch, of
    which the process takes its own, so that several processes train what one would train.
    One part can have an image more than another. The loss of each is multiplied by ``weight``, so
    that the mean over the processes is the mean over the batch.

    Args:
        process: number of this process, from 0.
        processes: number of processes.
        images: number of images in the batch.
    """

    def __init__(self, process: int, processes: int, images: int):
        super().__init__()
        start = images * process // processes
        stop = images * (process + 1) // processes
        self.images = images
        self.part = slice(start, stop)
        self.size = stop - start
        self.weight = self.size * processes / images

    def __torch_function__(
        self, function: Callable, types: tuple, args: tuple = (), kwargs: dict | None = None
    ):
        """Torch calls this for each of its functions; the two that draw for images are changed."""
        kwargs = kwargs or {}
        one_each = (self.size,)  # the first dimension of numbers for this process's images
        if function is torch.randn and args[:1] == one_each:  # PatchDropout
            others = args[1:]
            drawn = torch.randn(self.images, *others, **kwargs)
            return drawn[self.part]
        if function is Tensor.bernoulli_ and args[0].shape[:1] == one_each:  # stochastic depth
            target, *probability = args
            drawn = target.new_empty(self.images, *target.shape[1:])
            drawn.bernoulli_(*probability, **kwargs)
            return target.copy_(drawn[self.part])
        return function(*args, **kwargs)
