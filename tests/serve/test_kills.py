"""Whatever is killed at whatever instant, each submission runs to its end, alone, and is told of once."""

import sys
from pathlib import Path

import pytest
from commands import wait_until
from kills import STUDY, Storm
from receivers import Receiver

from ablate.store import layout
from ablate.store import queue as submissions
from ablate.workflow import queue

BUILDERS = Path(__file__).parents[1] / "builders"
STUDIES, KILLS = 8, 12


@pytest.mark.slow
def test_nothing_is_lost_or_doubled_whatever_is_killed(tmp_path):
    store, receiver = layout.open_store(tmp_path / "mlruns"), Receiver()
    program = BUILDERS / "short_run.sh"
    command = [sys.executable, BUILDERS / "desk_process.py", store.path, receiver.url, program]
    storm = Storm(store, [*map(str, command)])
    count = 0
    while storm.killed.total() - storm.killed["nobody"] < KILLS:
        if storm.are_over():  # a quick machine is done before the last kill, and gets more to do
            for number in range(count, count + STUDIES):
                queue.submit(store, STUDY.format(number=number), key=str(number))
            count += STUDIES
            assert count < 20 * STUDIES, storm.killed
        storm.rage(1, 0.0, 0.6)
    storm.settle(600)
    wait_until(lambda: len({body["submission"] for _, body, _ in receiver.came}) == count)
    storm.stop()
    receiver.close()
    entries = queue.entries(store)
    assert [entry.state for entry in entries] == ["done"] * count
    ran = [(submissions.folder(store, entry.id) / "ran").read_text() for entry in entries]
    assert ran == ["worked\n"] * count
    assert not list(store.queue.glob("*/doubled"))
    assert len({body["id"] for _, body, _ in receiver.came}) == count
