"""Run a command until the standard input ends: whoever started this one is gone then, however that came."""

import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress

if __name__ == "__main__":
    user, *command = sys.argv[1:]
    own = {"user": user, "extra_groups": []} if user else {}
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True, **own)

    def end(number=signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)

    def watch():
        while os.read(0, 1):
            pass
        end()

    signal.signal(signal.SIGTERM, lambda *_: end(signal.SIGTERM))
    threading.Thread(target=watch, daemon=True).start()
    code = process.wait()
    end()  # what it has left
    os._exit(code if code >= 0 else 128 - code)
