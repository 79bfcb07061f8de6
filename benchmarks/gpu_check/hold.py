"""A stranger who holds all of a GPU's memory but so many MiB, until its stdin is closed."""

import sys

import torch


def main() -> None:
    """Hold the memory."""
    torch.ones(1, device="cuda")
    free, _ = torch.cuda.mem_get_info()
    held = torch.empty(max(0, free - int(sys.argv[1]) * 2**20), dtype=torch.uint8, device="cuda")
    print("held", len(held), flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
