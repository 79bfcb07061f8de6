"""The executor of Slurm keeps the contract, on two real nodes; and what only a cluster can do."""

import os
import signal
import sys
import tempfile
from contextlib import closing
from pathlib import Path

import jobs
import processes
import pytest
import slurm_cluster
from calls import ended, hear, is_alive, kinds, pids, run_all, running, task, the, wait_until_gone
from contract import Contract
from promises import ALL

from ablate import hardware
from ablate.errors import AblateError
from ablate.execution.executors import slurm_elements
from ablate.execution.executors.base import Executor, Options, Program, Slot
from ablate.execution.executors.mailbox import Mailbox
from ablate.execution.executors.slurm import SlurmExecutor
from ablate.execution.executors.slurm_elements import Array

pytestmark = pytest.mark.slow


class TestSlurmExecutor(Contract):
    """Slots are elements of arrays: their names are Slurm's, and each has its own memory."""

    promises = ALL - {"names", "environment", "memory"}

    @pytest.fixture(autouse=True)
    def _on_the_cluster(self, cluster, tmp_path) -> None:
        self.folder = tmp_path / "mailbox"
        self.number = 0

    def build(self, slots: tuple[Slot, ...]) -> Executor:
        self.number += 1
        array = Array(self.folder.with_name(f"mailbox {self.number}"), "cpu", "fp32", jobs=len(slots))
        return SlurmExecutor(Program("jobs:run"), array)


@pytest.fixture
def make(cluster, tmp_path):
    """Return a function that makes an executor, and the notices of all of them."""
    made, said = [], []

    def executor(count=1, function="jobs:run", **options):
        extra = options.pop("extra", {})
        array = Array(tmp_path / "mailbox", "cpu", "fp32", jobs=count, extra=extra)
        made.append(SlurmExecutor(Program(function), array, notice=said.append, **options))
        return made[-1]

    executor.said = said
    yield executor
    for each in made:
        each._is_left = False
        each.close()


def agent_of(pid):
    """Return the process of the agent that has a worker: the script of the job."""
    while b"executors.agent" not in Path(f"/proc/{pid}/cmdline").read_bytes():
        pid = processes.parent_of(pid)
    return pid


def the_kinds(heard, name):
    return [kind for kind in kinds(heard, name) if kind not in ("progress", "alive")]


def test_more_elements_than_an_array_may_have_are_several_arrays(make, tmp_path):
    executor = make(7)  # three elements an array
    gate = tmp_path / "gate"
    for i in range(7):
        executor.submit(task(f"{i}", "waits_for_gate", gate=str(gate)))
    heard = hear(executor, running(7))
    assert {event.slot.partition("_")[2] for event in heard if event.slot} == {"0", "1", "2"}
    assert len({event.slot for event in heard if event.slot}) == 7
    assert [text.partition(", of ")[2] for text in make.said] == ["3 elements", "3 elements", "1 element"]
    gate.touch()
    assert len(hear(executor, ended(7))) == 7


def test_an_element_that_is_requeued_gives_its_task_back_and_the_task_goes_on(make, cluster):
    executor = make()
    executor.submit(task("a", "stops_when_asked"))
    heard = hear(executor, running(1))
    cluster.run("scontrol", "requeue", heard[-1].slot)
    heard += hear(executor, lambda heard: kinds(heard, "a").count("started") == 1)
    executor.cancel("a")
    heard += hear(executor, ended(1))
    assert the_kinds(heard, "a") == ["queued", "started", "queued", "started", "stopped"]
    assert any("gives its task back" in text for text in make.said)
    assert Mailbox(executor._array.folder).requests() == {}


def test_a_task_is_saved_before_the_time_limit_and_goes_on_in_the_same_element(make, tmp_path):
    executor = make(extra={"time": "1"})
    folder = tmp_path / "job"
    folder.mkdir()
    executor.submit(task("a", "stops_once", folder=str(folder)))
    heard = hear(executor, ended(1))
    assert the_kinds(heard, "a") == ["queued", "started", "queued", "started", "finished"]
    assert len({event.slot for event in heard if event.slot}) == 1
    assert make.said[1:] == [f"{heard[-1].slot} gives its task back: its time limit is near"]


def test_a_node_that_is_lost_is_told_in_one_line_and_its_task_is_run_on_the_other(make, cluster, tmp_path):
    executor = make()
    executor.submit(task("a", "waits_for_gate", gate=str(tmp_path / "gate")))
    heard = hear(executor, running(1))
    lost = pids(heard)
    node = cluster.run("squeue", "-h", "-o", "%N").strip()
    cluster.kill_node(node)
    wait_until_gone(lost)
    heard += hear(executor, lambda heard: kinds(heard, "a").count("started") == 1)
    (tmp_path / "gate").touch()
    heard += hear(executor, ended(1))
    assert the_kinds(heard, "a") == ["queued", "started", "queued", "started", "finished"]
    assert [text for text in make.said if node in text] == [
        f"{heard[-1].slot}: node {node} was lost, or the job preempted; Slurm has it in its queue again"
    ]


def test_a_daemon_that_is_killed_and_started_again_costs_nothing(make, cluster, tmp_path):
    executor = make()
    executor.submit(task("a", "waits_for_gate", gate=str(tmp_path / "gate")))
    heard = hear(executor, running(1))
    node = cluster.run("squeue", "-h", "-o", "%N").strip()
    cluster.kill_node(node, jobs=False)
    cluster.start_node(node)
    assert all(map(is_alive, pids(heard)))
    (tmp_path / "gate").touch()
    assert the(hear(executor, ended(1)), "finished").task == "a"
    heard = run_all(executor, [task("b", "ok")])
    assert the_kinds(heard, "b") == ["queued", "started", "finished"]


def test_an_agent_that_is_killed_is_the_end_of_its_task_alone_and_another_takes_its_place(make):
    executor = make(2)
    for name in ("a", "b"):
        executor.submit(task(name, "stops_when_asked"))
    heard = hear(executor, running(2))
    victim = next(event for event in heard if event.kind == "progress" and event.task == "a")
    os.kill(agent_of(victim.detail["pid"]), signal.SIGKILL)
    heard = hear(executor, ended(1))
    assert (heard[-1].task, heard[-1].kind) == ("a", "killed")
    assert f"Slurm's job {victim.slot} on n" in heard[-1].error
    executor.submit(task("a", "ok"))
    assert the(hear(executor, ended(1)), "finished").task == "a"
    executor.stop()
    assert the(hear(executor, ended(1)), "stopped").task == "b"


def test_an_agent_that_stands_still_is_ended_by_slurm(make, monkeypatch):
    monkeypatch.setattr("ablate.execution.executors.slurm.ANSWER", 1.0)
    executor = make()
    executor.submit(task("a", "stops_when_asked"))
    heard = hear(executor, running(1))
    os.kill(agent_of(heard[-1].detail["pid"]), signal.SIGSTOP)
    executor.kill("a")
    assert the(hear(executor, ended(1)), "killed").task == "a"
    assert the_kinds(run_all(executor, [task("b", "ok")]), "b") == ["queued", "started", "finished"]


def test_arrays_that_somebody_cancels_are_not_submitted_again(make, cluster, tmp_path):
    executor = make(2)
    for name in ("a", "b"):
        executor.submit(task(name, "waits_for_gate", gate=str(tmp_path / "gate")))
    hear(executor, running(2))
    cluster.run("scancel", "--user", "root")
    heard = hear(executor, ended(2))
    assert [event.kind for event in heard if event.kind != "queued"] == ["killed", "killed"]
    executor.submit(task("a", "ok"))
    with pytest.raises(AblateError, match="all elements of the job array were cancelled"):
        hear(executor, lambda _: False)
    assert cluster.run("squeue", "-h", "--states=RUNNING,PENDING") == ""


def test_elements_that_cannot_start_are_an_error_with_their_last_words(make, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/not/on/this/node/python")
    executor = make()
    executor.submit(task("a", "ok"))
    with pytest.raises(AblateError, match=r"no element of the job array can start: .*python: not found"):
        hear(executor, lambda _: False)


def test_what_an_earlier_process_has_left_is_followed_and_heard_from_the_beginning(make, cluster, tmp_path):
    gate = tmp_path / "gate"
    first = make(2, detach=True)
    tasks = [task(name, "waits_for_gate", gate=str(gate)) for name in "abc"]
    for each in tasks:
        first.submit(each)
    heard = hear(first, ended(3))
    assert [event.kind for event in heard] == ["queued"] * 3 + ["left"] * 3
    first.close()
    second = make(2)  # as after a kill of the first
    for each in tasks:
        second.submit(each)
    heard = hear(second, running(2))
    third = make(2)
    for each in tasks:
        third.submit(each)
    again = hear(third, running(2))
    assert pids(again) == pids(heard)
    gate.touch()
    again += hear(third, ended(3))
    assert [the_kinds(again, name) for name in "abc"] == [["queued", "started", "finished"]] * 3
    assert "Slurm has array" in make.said[-1]
    shown = ("squeue", "-h", "-r", "--states=all", f"--name={third._array.name}", "-o", "%i")
    assert len(cluster.run(*shown).split()) == 2


def test_a_task_whose_element_died_while_nobody_looked_is_run_by_another(make, cluster, tmp_path):
    gate = tmp_path / "gate"
    tasks = [task(name, "waits_for_gate", gate=str(gate)) for name in "ab"]
    first = make(2)
    for each in tasks:
        first.submit(each)
    heard = hear(first, running(2))
    victim = next(event for event in heard if event.kind == "progress" and event.task == "a")
    os.kill(agent_of(victim.detail["pid"]), signal.SIGKILL)
    shown = ("squeue", "-h", "--states=all", "-r", "-o", "%i %T")
    jobs.wait_for(lambda: f"{victim.slot} FAILED" in cluster.run(*shown))
    second = make(2)
    for each in tasks:
        second.submit(each)
    heard = hear(second, lambda heard: kinds(heard, "a").count("started") == 2)
    gate.touch()
    heard += hear(second, ended(2))
    assert the_kinds(heard, "a") == ["queued", "started", "queued", "started", "finished"]
    assert the_kinds(heard, "b") == ["queued", "started", "finished"]


def test_what_others_could_write_into_is_no_mailbox(make, tmp_path):
    (tmp_path / "mailbox").mkdir()
    (tmp_path / "mailbox").chmod(0o777)
    with pytest.raises(AblateError, match="must be a folder of yours that nobody else can write to"):
        Mailbox(tmp_path / "mailbox").check()


def test_its_resources_are_what_is_asked_for_and_a_gpu_is_one_of_an_element(cluster):
    cpu = slurm_elements.array(Options("cpu", 3, slurm=("cpus-per-task=4",), threads=2))
    assert (cpu.resources.slots, cpu.resources.device, cpu.each, cpu.cores) == (3, "cpu", 2, 4)
    assert cpu.resources.keeps_queue
    assert cpu.resources.precision == hardware.precision("cpu")
    assert slurm_elements.array(Options("cpu", 3, most=2)).resources.slots == 2
    with pytest.raises(AblateError, match="--device cuda needs a GPU in each element"):
        slurm_elements.array(Options("cuda"))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("partition=nonsense", "Slurm refuses the job array: .*[Ii]nvalid partition"),
        ("bogus=1", "Slurm refuses the job array: unrecognized option '--bogus=1'"),
        ("cpus-per-task=99", "Slurm refuses the job array: .*node configuration is not available"),
    ],
)
def test_what_slurm_refuses_is_a_sentence_before_anything_is_done(cluster, text, sentence):
    with pytest.raises(AblateError, match=sentence):
        slurm_elements.array(Options(slurm=(text,)))


def test_a_reason_to_wait_that_is_not_the_usual_one_is_told(make):
    executor = make(extra={"partition": "small", "time": "20"})
    executor.submit(task("a", "ok"))
    heard = hear(executor, lambda _: len(make.said) > 1)
    assert kinds(heard, "a") == ["queued"]
    assert "_0 waits in Slurm's queue: Partition" in make.said[1]


def test_a_limit_of_submissions_leaves_fewer_elements_that_take_turns(make, tmp_path, monkeypatch):
    # The accounting that has such limits needs a database of its own: here sbatch says its words.
    (tmp_path / "bin").mkdir()
    sbatch = tmp_path / "bin" / "sbatch"
    sbatch.write_text(
        f"#!/bin/sh\nif [ -e {tmp_path}/once ]; then echo 'sbatch: error: Batch job submission failed: "
        "Job violates accounting/QOS policy (job submit limit, user size)' >&2; exit 1; fi\n"
        f'case "$*" in *array=0-0*) touch {tmp_path}/once; exec /usr/bin/sbatch "$@";; '
        "*) echo 'sbatch: error: QOSMaxSubmitJobPerUserLimit' >&2; exit 1;; esac\n"
    )
    sbatch.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    executor = make(3)
    for name in "abc":
        executor.submit(task(name, "ok"))
    heard = hear(executor, ended(3))
    assert len({event.slot for event in heard if event.slot}) == 1
    assert make.said[1].endswith(
        "(job submit limit, user size): the tasks take turns on 1 element; more are asked for later"
    )


def test_the_cluster_of_the_tests_ends_with_them(tmp_path):
    if reason := slurm_cluster.lacking():
        pytest.skip(reason)
    with tempfile.TemporaryDirectory(prefix="slurm-", ignore_cleanup_errors=True) as folder:
        started = slurm_cluster.start(Path(folder))
        with closing(started):
            below = set(processes.descendants(started.guard.pid))
            assert below
        wait_until_gone(below)
