"""An agent, started as Slurm starts an element: it needs nothing of Slurm but its numbers and its signals."""

import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import jobs
import pytest

from ablate.execution.executors.mailbox import Mailbox, Tail


@pytest.fixture
def mailbox(tmp_path):
    made = Mailbox(tmp_path / "mailbox")
    made.make()
    return made


@contextmanager
def agent(mailbox, life=0):
    """Start a life of the element 17_3."""
    numbers = {"SLURM_ARRAY_JOB_ID": "17", "SLURM_ARRAY_TASK_ID": "3", "SLURM_JOB_ID": "20"}
    numbers |= {"SLURM_RESTART_COUNT": str(life)} if life else {}
    environment = os.environ | numbers | {"PYTHONPATH": str(Path(__file__).parent), "PATH": "/nowhere"}
    command = [sys.executable, "-m", "ablate.execution.executors.agent", str(mailbox.path)]
    process = subprocess.Popen(
        [*command, "--function", "jobs:run", "--jobs", "1"],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        with process:
            yield process
    finally:
        process.kill()


def post(mailbox, number, do, **values):
    content = {"id": f"task {number}", "payload": {"do": do} | values, "exclusive": False}
    return mailbox.post(number, content["id"], content)


def said(mailbox, life=0):
    """Return what an agent has said of its tasks, without signs of life."""
    lines = Tail(mailbox.news(f"17_3.{life}")).read()
    return [(line["kind"], line.get("task")) for line in lines if line["kind"] not in ("alive", "progress")]


def test_it_takes_task_after_task_and_gives_back_what_it_has_when_its_time_is_nearly_up(mailbox, tmp_path):
    done, stopped, waits = (
        post(mailbox, 0, "ok"),
        post(mailbox, 1, "stops_when_asked"),
        post(mailbox, 2, "ok"),
    )
    with agent(mailbox) as process:
        jobs.wait_for(lambda: ("started", stopped) in said(mailbox))
        process.send_signal(signal.SIGUSR1)
        assert process.wait(60) == 0
    assert said(mailbox) == [
        ("started", done), ("finished", done), ("started", stopped), ("queued", stopped),
    ]  # fmt: skip
    assert mailbox.unclaimed() == [stopped, waits]


def test_a_second_life_goes_on_with_what_the_first_had_and_passes_over_what_had_ended(mailbox, tmp_path):
    done, left = post(mailbox, 0, "ok"), post(mailbox, 1, "waits_for_gate", gate=str(tmp_path / "gate"))
    with agent(mailbox) as process:
        jobs.wait_for(lambda: ("started", left) in said(mailbox))
        process.kill()
    other = post(mailbox, 2, "ok")
    assert mailbox.claim(other, "17_4.0")
    with agent(mailbox, life=1) as process:
        jobs.wait_for(lambda: ("started", left) in said(mailbox, 1))
        (tmp_path / "gate").touch()
        jobs.wait_for(lambda: ("finished", left) in said(mailbox, 1))
        mailbox.close()
        assert process.wait(60) == 0
    assert said(mailbox, 1) == [("started", left), ("finished", left), ("gone", None)]
    assert (mailbox.owner(done), mailbox.owner(left), mailbox.owner(other)) == ("17_3.0", "17_3.1", "17_4.0")


def test_it_does_what_the_coordinator_asks_of_a_task(mailbox):
    stopped, killed = post(mailbox, 0, "stops_when_asked"), post(mailbox, 1, "ignores_stop")
    with agent(mailbox) as process:
        mailbox.request(stopped, "stop")
        jobs.wait_for(lambda: ("started", killed) in said(mailbox))
        mailbox.request(killed, "kill")
        jobs.wait_for(lambda: ("killed", killed) in said(mailbox))
        mailbox.close()
        assert process.wait(60) == 0
    assert ("stopped", stopped) in said(mailbox)


def test_it_ends_at_once_where_there_is_nothing_to_do_or_the_folder_is_not_its_users_own(mailbox):
    with agent(mailbox) as process:
        assert process.wait(60) == 0
    assert mailbox.lives() == []
    post(mailbox, 0, "ok")
    mailbox.path.chmod(0o777)
    with agent(mailbox) as process:
        out, _ = process.communicate(timeout=60)
        assert process.returncode == 2
    assert "must be a folder of yours" in out
    assert mailbox.lives() == []
