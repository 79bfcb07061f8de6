"""The script that a study of eight jobs is compared with: one training, as in most repositories.

python -m benchmarks.usual FOLDER CROP ROTATION SEED EPOCHS
"""

import sys
from typing import Any

import mlflow
import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F  # noqa: N812
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms


class Digits(Dataset[Any]):
    """The digits at 32x32, as PIL images in memory."""

    def __init__(self, images: list[Image.Image], labels: np.ndarray, transform: transforms.Compose) -> None:
        self.images, self.labels, self.transform = images, labels, transform

    def __len__(self) -> int:
        """Count them."""
        return len(self.labels)

    def __getitem__(self, i: int) -> tuple[Any, int]:
        """Transform one."""
        return self.transform(self.images[i]), self.labels[i]


def network() -> nn.Module:
    """Build the same cnn4."""
    layers: list[nn.Module] = []
    channels = 1
    for width in (32, 64, 128, 128):
        layers += [
            nn.Conv2d(channels, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2),
        ]
        channels = width
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(512, 10))


def evaluate(model: nn.Module, loader: DataLoader[Any]) -> tuple[float, float]:
    """Return mean loss and accuracy."""
    model.eval()
    loss, right, count = 0.0, 0, 0
    with torch.no_grad():
        for x, y in loader:
            logits = model(x)
            loss += F.cross_entropy(logits, y, reduction="sum").item()
            right += (logits.argmax(1) == y).sum().item()
            count += len(y)
    return loss / count, right / count


def load(crop: str, rotation: int, seed: int) -> list[DataLoader[Any]]:
    """Return the batches of the test, the validation and the training images."""
    bunch = load_digits()
    images = [
        Image.fromarray(np.round(image * (255 / 16)).astype(np.uint8)).resize((32, 32), Image.BILINEAR)
        for image in bunch.images
    ]
    order = np.random.default_rng(seed).permutation(len(images))
    parts = np.split(order, [355, 355 + 144])
    plain = [transforms.ToTensor(), transforms.Normalize((0.3,), (0.3,))]
    cut = transforms.RandomCrop(32, 4) if crop == "random_crop" else transforms.RandomResizedCrop(32)
    augmented = [cut, *([transforms.RandomRotation(rotation)] if rotation else []), *plain]
    chains = [transforms.Compose(plain), transforms.Compose(plain), transforms.Compose(augmented)]
    return [
        DataLoader(
            Digits([images[i] for i in part], bunch.target[part], chain),
            128,
            shuffle=chain is chains[2],
            drop_last=chain is chains[2],
        )
        for part, chain in zip(parts, chains, strict=True)
    ]


def main() -> None:
    """Train, log, evaluate."""
    folder, crop = sys.argv[1:3]
    rotation, seed, epochs = map(int, sys.argv[3:6])
    torch.manual_seed(seed)
    test, validation, train = load(crop, rotation, seed)
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4, nesterov=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.05, epochs=epochs, steps_per_epoch=len(train))
    mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
    mlflow.set_experiment("usual")
    with mlflow.start_run():
        mlflow.log_params({"crop": crop, "rotation": rotation, "seed": seed})
        for epoch in range(epochs):
            model.train()
            running = 0.0
            for x, y in train:
                optimizer.zero_grad()
                loss = F.cross_entropy(model(x), y)
                loss.backward()
                optimizer.step()
                schedule.step()
                running += loss.item()
            mean, accuracy = evaluate(model, validation)
            validated = {"validation/loss": mean, "validation/accuracy": accuracy}
            mlflow.log_metrics({"train/loss": running / len(train)} | validated, step=epoch)
        mean, accuracy = evaluate(model, test)
        mlflow.log_metrics({"test/loss": mean, "test/accuracy": accuracy})
        torch.save(model.state_dict(), f"{folder}/model.pt")
        mlflow.log_artifact(f"{folder}/model.pt")


if __name__ == "__main__":
    main()
