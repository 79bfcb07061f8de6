"""`python -m ablate`: the same command as `ablate`."""

import os.path
import sys

if __name__ == "__main__":
    # Python puts the current directory first, and it may be a shared store: nothing there is to be imported.
    if not sys.flags.safe_path and sys.path[0] != os.path.dirname(os.path.dirname(__file__)):  # noqa: PTH120
        del sys.path[0]
    from ablate.cli import main

    main()
