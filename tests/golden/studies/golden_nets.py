"""Networks whose trainings do not end well."""

import torch
from torch import nn


class Fails(nn.Sequential):
    """Raise in the second batch of a training, which no check beforehand sees."""

    def forward(self, x):
        if self.training and len(x) > 2:
            raise ValueError("this network cannot be trained")
        return super().forward(x)


class Explodes(nn.Sequential):
    """Give a loss that is not finite once it trains on more than two images."""

    def forward(self, x):
        scores = super().forward(x)
        return scores * torch.inf if self.training and len(x) > 2 else scores


def fails(classes, channels, image_size):
    return Fails(nn.Flatten(), nn.Linear(channels * image_size**2, classes))


def explodes(classes, channels, image_size):
    return Explodes(nn.Flatten(), nn.Linear(channels * image_size**2, classes))
