"""Several processes that train one model together: which part of each batch is whose."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode


class ProcessShare(TorchFunctionMode):
    """The rows of a batch that are one process's, and inside it their random numbers (of PatchDropout and
    stochastic depth): drawn for the whole batch, so that several processes train what one trains.

    ``weight`` makes the mean of the shares' losses the mean over the batch when shares differ by an image.
    """

    def __init__(self, process: int, processes: int, images: int):
        super().__init__()
        self.images = images
        self.rows = slice(images * process // processes, images * (process + 1) // processes)
        self.weight = (self.rows.stop - self.rows.start) * processes / images

    def __torch_function__(self, function, types, args=(), kwargs=None):
        """Each call of a torch function passes here; all but the two that draw pass unchanged."""
        share = self.rows.stop - self.rows.start
        if function is torch.randn and args and args[0] == share:
            return function(self.images, *args[1:], **(kwargs or {}))[self.rows]
        if function is Tensor.bernoulli_ and args[0].ndim and len(args[0]) == share:
            whole = args[0].new_empty(self.images, *args[0].shape[1:])
            return args[0].copy_(function(whole, *args[1:], **(kwargs or {}))[self.rows])
        return function(*args, **(kwargs or {}))
