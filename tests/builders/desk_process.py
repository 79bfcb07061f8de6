"""A service without its web part, whose runs are a small program; it ends with its standard input."""

import logging
import os
import sys
import threading
from pathlib import Path

from ablate.serve import dispatcher
from ablate.serve.config import Config
from ablate.serve.dispatcher import Dispatcher
from ablate.serve.notify import Notifier
from ablate.store import layout
from ablate.store import queue as submissions

if __name__ == "__main__":
    folder, url, program = sys.argv[1:]

    def watch():
        while os.read(0, 1):
            pass
        os._exit(0)

    threading.Thread(target=watch, daemon=True).start()
    logging.basicConfig(level=logging.INFO)
    store = layout.open_store(Path(folder))
    to = [{"url": url, "events": ["finished", "failed"]}]
    notifier = Notifier(store, Config.model_validate({"notify": {"to": to, "allow_private": True}}))

    def command(entry):
        return ["/bin/sh", program, str(submissions.study_file(store, entry.id)), str(os.getppid())]

    desk = Dispatcher(store, command, studies=2, tells=notifier.look, restarts=1000)
    ended = threading.Event()
    with dispatcher.locked(store), dispatcher.leading(store, ended, print) as held:
        desk.run(held, ended)
