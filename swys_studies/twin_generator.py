"""The generator of the embedded twin: class-conditional flow matching with a small U-Net.

Flow matching: Lipman et al. 2023, https://arxiv.org/abs/2210.02747. The generator is fitted to the
real *training* split and to nothing else. It starts from Gaussian noise: no pixel of a real image,
and no residual of one, enters a sample, and no sample is thrown away. All is seeded, but a GPU does
not promise the same bits twice.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm.auto import trange

from swys_utils.data import Split

BATCH_SIZE = 256
RATE = 5e-4  # the largest learning rate
WARMUP_STEPS = 200


def generate(
    train: Split,
    counts: dict[str, tuple[int, int]],
    steps: int,
    seed: int,
    device: torch.device,
) -> dict[str, np.ndarray]:
    """Sample the arrays of a MedMNIST file from a generator that is fitted to ``train``.

    Args:
        train: real images, uint8 (N, 28, 28), and their classes, int64 (N,), 0 or 1.
        counts: name of a split -> number of images of class 0 and of class 1.
        steps: optimiser steps.
        seed: of weights, batches and samples.
        device: where the generator is trained.

    Returns:
        For each split ``<split>_images``, uint8 (n, 28, 28), and ``<split>_labels``, uint8 (n, 1),
        in random order.
    """
    net = fit(train, steps, seed, device)
    mean = train.images.mean()
    deviation = train.images.std()
    rng = np.random.default_rng(seed)
    arrays = {}
    for number, split in enumerate(counts, start=1):
        classes = np.repeat([0, 1], counts[split])
        labels = rng.permutation(classes).astype(np.uint8)
        pixels = sample(net, labels, seed + number)
        grey = np.rint(pixels * deviation + mean)
        grey = np.clip(grey, 0, 255)
        arrays[f"{split}_images"] = grey.astype(np.uint8)
        arrays[f"{split}_labels"] = labels[:, None]
    return arrays


def fit(
    train: Split,
    steps: int,
    seed: int,
    device: torch.device,
) -> UNet:
    """Train the generator by flow matching.

    On the line x_t = (1 - t) x + t noise the network learns the velocity, noise - x.

    Args:
        train: real images, uint8 (N, 28, 28), and their classes, int64 (N,), 0 or 1.
        steps: optimiser steps.
        seed: of weights and batches.
        device: where the generator is trained.

    Returns:
        A running average of the network, in which late steps weigh most; it makes standardised
        grey levels.
    """
    torch.manual_seed(seed)
    images = standardised(train.images).to(device)
    labels = torch.as_tensor(train.labels).long()
    labels = labels.to(device)
    net = UNet().to(device)
    average = UNet().to(device)
    average.requires_grad_(False)
    optimiser = torch.optim.AdamW(
        net.parameters(),
        lr=RATE,
        weight_decay=0.01,
    )
    (group,) = optimiser.param_groups
    count = len(images)
    batch_size = min(BATCH_SIZE, count)
    for step in trange(steps, leave=False):
        indices = torch.randint(count, (batch_size,), device=device)
        loss = flow_matching_loss(net, images[indices], labels[indices])
        group["lr"] = learning_rate(step, steps)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimiser.step()
        move_average(average, net, 9 / (step + 9))
    return average.eval()


def standardised(images: np.ndarray) -> Tensor:
    """Grey levels with mean 0 and standard deviation 1 over all images.

    Args:
        images: uint8 (N, H, W).

    Returns:
        float32 (N, 1, H, W).
    """
    mean = images.mean()
    deviation = images.std()
    pixels = (images - mean) / deviation
    tensor = torch.as_tensor(pixels)
    return tensor[:, None].float()


def flow_matching_loss(net: UNet, x: Tensor, labels: Tensor) -> Tensor:
    """Mean squared error of the velocity at one random time for each image.

    Args:
        net: the velocity field.
        x: standardised images, float (B, 1, 28, 28).
        labels: int64 (B,).

    Returns:
        A scalar.
    """
    device = x.device
    on_gpu = device.type == "cuda"
    # the middle of the way gets most of the effort (Esser et al. 2024)
    t = torch.randn(len(x), device=device)
    t = torch.sigmoid(t)
    noise = torch.randn_like(x)
    share = t[:, None, None, None]
    x_t = (1 - share) * x + share * noise
    with torch.autocast(device.type, torch.bfloat16, enabled=on_gpu):
        velocity = net(x_t, t, labels)
    return F.mse_loss(velocity.float(), noise - x)


def learning_rate(step: int, steps: int) -> float:
    """The rate of a step: a linear warm-up times half a cosine down to 0.

    Args:
        step: 0 to ``steps`` - 1.
        steps: of the whole training.

    Returns:
        A number from 0 to ``RATE``.
    """
    warmup = min(1, (step + 1) / WARMUP_STEPS)
    angle = np.pi * step / steps
    cosine = (1 + np.cos(angle)) / 2
    return RATE * warmup * cosine


@torch.no_grad()
def move_average(average: nn.Module, net: nn.Module, weight: float) -> None:
    """Move the running average of the weights towards the weights of now.

    Args:
        average: changed in place.
        net: as it is now.
        weight: 0 leaves the average, 1 copies the network.
    """
    pairs = zip(average.parameters(), net.parameters())
    for mean, value in pairs:
        mean.lerp_(value, weight)


@torch.inference_mode()
def sample(
    net: UNet,
    labels: np.ndarray,
    seed: int,
    steps: int = 40,
) -> np.ndarray:
    """Follow the velocity from noise (t = 1) to an image (t = 0) by Heun's method.

    Args:
        net: the velocity field.
        labels: classes to sample, int (N,).
        seed: of the noise.
        steps: of the integration; each looks at the velocity twice.

    Returns:
        Standardised grey levels, float32 (N, 28, 28).
    """
    device = net.stem.weight.device
    count = len(labels)
    classes = torch.as_tensor(labels).long()
    classes = classes.to(device)
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, 1, 28, 28, generator=generator)
    x = x.to(device)
    times = torch.linspace(1, 0, steps + 1, device=device)
    for now, then in zip(times[:-1], times[1:]):
        step = then - now
        velocity = net(x, now.expand(count), classes)
        ahead = x + step * velocity
        velocity_ahead = net(ahead, then.expand(count), classes)
        mean_velocity = (velocity + velocity_ahead) / 2
        x = x + step * mean_velocity
    return x[:, 0].cpu().numpy()


class Block(nn.Module):
    """Two 3 x 3 convolutions with a skip connection; time and class are a scale and a shift.

    Args:
        channels_in: channels of the input.
        channels_out: channels of the output.
        embedding: length of the vector that stands for time and class.
    """

    def __init__(self, channels_in: int, channels_out: int, embedding: int):
        super().__init__()
        self.norm1 = nn.GroupNorm(8, channels_in)
        self.conv1 = conv3x3(channels_in, channels_out)
        self.norm2 = nn.GroupNorm(8, channels_out)
        self.conv2 = conv3x3(channels_out, channels_out)
        self.film = nn.Linear(embedding, 2 * channels_out)
        self.drop = nn.Dropout(0.1)
        self.skip: nn.Module = nn.Identity()
        if channels_in != channels_out:
            self.skip = nn.Conv2d(channels_in, channels_out, 1)
        nn.init.zeros_(self.conv2.weight)  # a new block adds nothing

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """Features of the next layer.

        Args:
            x: (B, channels_in, H, W).
            embedding: of time and class, (B, E).

        Returns:
            (B, channels_out, H, W).
        """
        film = self.film(embedding)
        film = film[:, :, None, None]
        scale, shift = film.chunk(2, dim=1)
        h = F.silu(self.norm1(x))
        h = self.conv1(h)
        h = self.norm2(h) * (1 + scale) + shift
        h = self.drop(F.silu(h))
        h = self.conv2(h)
        return self.skip(x) + h


class UNet(nn.Module):
    """Velocity field v(x_t, t, class) at 28, 14 and 7 px, with attention at 7 px."""

    def __init__(self):
        super().__init__()
        # channels at 28, 14 and 7 px, and length of the embedding of time and class
        c28 = 64
        c14 = 128
        c7 = 192
        embedding = 256
        frequencies = torch.linspace(0, 6, 32)
        self.register_buffer("freqs", torch.exp(frequencies))
        self.time = nn.Sequential(
            nn.Linear(64, embedding),
            nn.SiLU(),
            nn.Linear(embedding, embedding),
        )
        self.label = nn.Embedding(2, embedding)
        self.stem = conv3x3(1, c28)
        self.down = nn.ModuleList(
            [
                Block(c28, c28, embedding),
                Block(c28, c28, embedding),
                Block(c28, c14, embedding),
                Block(c14, c14, embedding),
                Block(c14, c7, embedding),
                Block(c7, c7, embedding),
            ]
        )
        self.norm = nn.GroupNorm(8, c7)
        self.attend = nn.MultiheadAttention(c7, 4, batch_first=True)
        self.up = nn.ModuleList(
            [
                Block(c7 + c14, c14, embedding),
                Block(c14, c14, embedding),
                Block(c14 + c28, c28, embedding),
                Block(c28, c28, embedding),
            ]
        )
        self.head = nn.Sequential(
            nn.GroupNorm(8, c28),
            nn.SiLU(),
            conv3x3(c28, 1),
        )

    def forward(self, x: Tensor, t: Tensor, labels: Tensor) -> Tensor:
        """Velocity of each pixel.

        Args:
            x: noisy images, (B, 1, 28, 28).
            t: times in [0, 1], (B,).
            labels: classes, int64 (B,).

        Returns:
            (B, 1, 28, 28).
        """
        embedding = self.embedding(t, labels)

        h28 = self.stem(x)
        h28 = self.down[0](h28, embedding)
        h28 = self.down[1](h28, embedding)
        h14 = F.avg_pool2d(h28, 2)
        h14 = self.down[2](h14, embedding)
        h14 = self.down[3](h14, embedding)
        h7 = F.avg_pool2d(h14, 2)
        h7 = self.down[4](h7, embedding)
        h7 = h7 + self.attention(h7)
        h7 = self.down[5](h7, embedding)

        h = F.interpolate(h7, scale_factor=2)
        h = torch.cat([h, h14], dim=1)
        h = self.up[0](h, embedding)
        h = self.up[1](h, embedding)
        h = F.interpolate(h, scale_factor=2)
        h = torch.cat([h, h28], dim=1)
        h = self.up[2](h, embedding)
        h = self.up[3](h, embedding)
        return self.head(h)

    def embedding(self, t: Tensor, labels: Tensor) -> Tensor:
        """What the blocks see of time and class.

        Args:
            t: times in [0, 1], (B,).
            labels: classes, int64 (B,).

        Returns:
            (B, 256).
        """
        angles = t[:, None] * self.freqs
        sine = angles.sin()
        cosine = angles.cos()
        waves = torch.cat([sine, cosine], dim=1)
        return F.silu(self.time(waves) + self.label(labels))

    def attention(self, h: Tensor) -> Tensor:
        """Attention between the positions of a feature map.

        Args:
            h: (B, C, H, W).

        Returns:
            (B, C, H, W).
        """
        tokens = self.norm(h).flatten(2)
        tokens = tokens.transpose(1, 2)
        attended, _ = self.attend(tokens, tokens, tokens, need_weights=False)
        attended = attended.transpose(1, 2)
        return attended.reshape(h.shape)


def conv3x3(channels_in: int, channels_out: int) -> nn.Conv2d:
    """A 3 x 3 convolution that keeps height and width.

    Args:
        channels_in: channels of the input.
        channels_out: channels of the output.

    Returns:
        The layer.
    """
    return nn.Conv2d(channels_in, channels_out, 3, padding=1)
