"""Imported last by the server that workers are forked from: no collector looks at what stands there then.

Without this the collector of every worker walks through all of torch, which unshares its memory, and the
server's end takes 2 s, in which it holds the terminal's pipes (`ablate run | tee` waits for it).
"""

import atexit
import gc
import os

SERVER = os.getpid()


def _leave() -> None:
    if os.getpid() == SERVER:  # and no worker, forked from it
        os._exit(0)


gc.freeze()
gc.enable()
atexit.register(_leave)
