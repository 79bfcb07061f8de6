"""What a user's own network does wrong, by what torch says of it: a few mistakes that many people make."""

import re

HINTS = (
    (r"not compiled with CUDA|No CUDA GPUs|NVIDIA driver|Expected all tensors to be on the same device", (
        "moves tensors to a device by itself: take .cuda() and .to(device) out, and make new tensors on "
        "x.device"
    )),
    (r"\bdouble\b|\bDouble\b|float64", ("computes in float64, and images come in float32: take .double() "
                                       "and torch.float64 out")),
    (r"\bHalf\b|float16|BFloat16", ("mixes number formats: take .half() and .bfloat16() out; "
                                   "training.precision does that")),
    (r"does not require grad", ("gives scores that depend on nothing that is trained: is there a "
                               "torch.no_grad or a detach in forward?")),
    (r"modified by an inplace operation|in-place operation", ("changes a tensor in place that its gradient "
                                                             "needs: use the plain operation")),
    (r"takes \d+ positional arguments? but \d+ were given|missing \d+ required positional argument", (
        "must take the images alone: forward(self, x), whatever else it takes with a default"
    )),
    (r"cross_entropy.*argument 'input'|must be Tensor, not (tuple|dict)", "must give one tensor of scores"),
)  # fmt: skip


def hint(error: BaseException) -> str | None:
    """Return what a network does wrong to raise this error, as the rest of a sentence.

    None where that is not known.
    """
    return next((words for pattern, words in HINTS if re.search(pattern, str(error))), None)


def reason(error: BaseException) -> str:
    """Return the first line of an error, or its type where it has no words."""
    return next(iter(str(error).splitlines()), type(error).__name__).rstrip(".")
