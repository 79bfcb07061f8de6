"""What the tests of a GPU share: they are skipped, with the reason, where there is none."""

import pytest
import torch

NEEDS_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
