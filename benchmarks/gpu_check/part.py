"""What a step finds, part by part, and what it is given."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch


@dataclass(frozen=True, slots=True)
class Part:
    """One thing that a step has looked at: what must hold, whether it does, and figures."""

    claim: str
    held: bool | None  # none: a figure only, or it cannot be looked at here
    figures: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Setup:
    """Where a step works; on a CPU it does the same with less."""

    device: torch.device
    folder: Path  # empty, and removed afterwards

    @property
    def on_gpu(self) -> bool:
        """Whether this is in earnest."""
        return self.device.type == "cuda"

    def sized(self, on_gpu: Any, on_cpu: Any) -> Any:
        """Return the size of a check here."""
        return on_gpu if self.on_gpu else on_cpu
