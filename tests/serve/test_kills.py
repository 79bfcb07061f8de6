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
STUDIES, KILLS = 8, 16


@pytest.mark.slow
def test_nothing_is_lost_or_doubled_whatever_is_killed(tmp_path):
    store, receiver = layout.open_store(tmp_path / "mlruns"), Receiver()
    for number in range(STUDIES):
        queue.submit(store, STUDY.format(number=number), key=str(number))
    program = BUILDERS / "short_run.sh"
    command = [sys.executable, BUILDERS / "desk_process.py", store.path, receiver.url, program]
    storm = Storm(store, [*map(str, command)])
    storm.rage(KILLS, 0.0, 0.6)
    storm.settle(600)
    wait_until(lambda: len({body["submission"] for _, body, _ in receiver.came}) == STUDIES)
    storm.stop()
    receiver.close()
    entries = queue.entries(store)
    assert [entry.state for entry in entries] == ["done"] * STUDIES
    ran = [(submissions.folder(store, entry.id) / "ran").read_text() for entry in entries]
    assert ran == ["worked\n"] * STUDIES
    assert not list(store.queue.glob("*/doubled"))
    assert (
        sum(storm.killed.values()) - storm.killed["nobody"] >= KILLS // 4
    )  # a quick machine is done before the last
    assert len({body["id"] for _, body, _ in receiver.came}) == STUDIES
