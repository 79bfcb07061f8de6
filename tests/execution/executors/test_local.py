"""The local executor keeps the contract.

And what only processes of this machine can do: die, and outlive one another.
"""

import json
import os
import platform
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import pytest
from calls import DEADLINE, ended, hear, is_alive, kinds, pids, run_all, running, task, the, wait_until_gone
from contract import Contract, Start

from ablate.execution import executors
from ablate.execution.executors import process, server
from ablate.execution.executors.base import Program, Slot
from ablate.execution.executors.local import LocalExecutor

HERE = Path(__file__).parent


class TestLocalExecutor(Contract):
    def build(self, slots: tuple[Slot, ...]) -> LocalExecutor:
        return LocalExecutor("jobs:run", slots)

    # Warm workers

    def test_one_process_runs_task_after_task(self, start: Start) -> None:
        heard = run_all(start(), [task("a", "ok"), task("b", "raises"), task("c", "ok"), task("d", "ok")])
        assert len(pids(heard)) == 1

    def test_slots_have_processes_of_their_own(self, start: Start) -> None:
        executor = start(2)
        executor.submit(task("a", "stops_when_asked"))
        executor.submit(task("b", "stops_when_asked"))
        assert len(pids(hear(executor, running(2))) - {os.getpid()}) == 2

    def test_a_death_between_two_tasks_is_no_event_and_costs_no_task(self, start: Start) -> None:
        executor = start()
        (old,) = pids(run_all(executor, [task("a", "ok")]))
        os.kill(old, signal.SIGKILL)
        hear(executor, lambda heard: executor._workers[0].process.pid != old)
        (new,) = pids(run_all(executor, [task("b", "ok")]))
        assert new != old

    def test_a_task_given_to_a_process_that_has_just_died_is_told_so(self, start: Start) -> None:
        executor = start()
        (old,) = pids(run_all(executor, [task("a", "ok")]))
        os.kill(old, signal.SIGKILL)
        wait_until_gone({old})
        executor.submit(task("b", "ok"))
        heard = hear(executor, ended(1))
        assert kinds(heard, "b")[-1] == "killed"
        assert kinds(run_all(executor, [task("b", "ok")]), "b") == ["queued", "started", "finished"]

    def test_the_death_of_the_server_that_workers_are_forked_from_costs_their_tasks_and_no_more(
        self, start: Start
    ) -> None:
        executor = start()
        server = the(run_all(executor, [task("a", "signals")]), "finished").detail["server"]
        executor.submit(task("b", "ignores_stop"))
        orphans = pids(hear(executor, running(1)))
        os.kill(server, signal.SIGKILL)
        assert the(hear(executor, ended(1)), "killed").task == "b"
        wait_until_gone(orphans)
        assert kinds(run_all(executor, [task("c", "ok")]), "c") == ["queued", "started", "finished"]

    def test_a_server_that_was_warmed_is_the_one_that_workers_are_forked_from(self, start: Start) -> None:
        executors.warm("local", Program("jobs:run", ("scipy.stats",)), "cpu")
        warm = forkserver._forkserver._forkserver_pid
        end = the(run_all(start(), [task("a", "signals")]), "finished").detail
        assert end["server"] == warm
        assert end["frozen"] > 10_000, "a worker's collector walks through what its server has imported"
        assert end["full"] == 0, "the server's collector walked through it while it was imported"
        assert end["collects"], "a worker's own garbage stays"

    def test_a_server_that_was_warmed_in_vain_is_ended_at_once_and_the_next_one_works(
        self, start: Start, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        kill, killed = os.kill, list[tuple[int, int]]()
        monkeypatch.setattr(os, "kill", lambda pid, number: killed.append((pid, number)) or kill(pid, number))
        server.cool()
        cool = executors.warm("local", Program("jobs:run", ("scipy.stats",)), "cpu")
        warm = forkserver._forkserver._forkserver_pid
        executors.warm("local", Program("jobs:run", ("scipy.stats",)), "cpu")()
        assert is_alive(warm), "whoever has not started it does not end it"
        cool()
        assert (warm, signal.SIGKILL) in killed, "it imports to its end first"
        wait_until_gone({warm})
        assert the(run_all(start(), [task("a", "signals")]), "finished").detail["server"] != warm

    def test_a_server_that_has_died_and_was_waited_for_is_no_error_and_nobody_else_is_killed(
        self, start: Start, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        cool = server.cool
        cool()
        executors.warm("local", Program("jobs:run", ()), "cpu")
        warm = forkserver._forkserver._forkserver_pid
        os.kill(warm, signal.SIGKILL)
        os.waitpid(warm, 0)
        with monkeypatch.context() as here:
            here.setattr(os, "kill", lambda *_: pytest.fail("its number may be another process's by now"))
            cool()
        assert kinds(run_all(start(), [task("a", "ok")]), "a") == ["queued", "started", "finished"]

    def test_the_server_leaves_without_tearing_down_what_it_has_imported(self, tmp_path: Path) -> None:
        # What is registered before runs after: of Python's own end nothing is left to run.
        (tmp_path / "late.py").write_text("import atexit\natexit.register(print, 'torn down', flush=True)\n")
        code = "import sys; sys.path.insert(0, {0!r}); import late; import ablate.execution.executors.frozen"
        command = [sys.executable, "-c", code.format(str(tmp_path))]
        assert subprocess.run(command, capture_output=True, check=True).stdout == b""

    def test_a_server_that_is_dead_and_not_gone_yet_is_waited_for(self) -> None:
        # A busy machine may leave it so for a second; nobody can bring that about at will, so its answer is
        # acted here.
        class Refused:
            times = 0

            def start(self) -> None:
                self.times += 1
                if self.times <= 2 * server.BAD_STARTS:
                    raise ConnectionRefusedError

        refused = Refused()
        server.start(refused, {})
        assert refused.times == 2 * server.BAD_STARTS + 1

    def test_what_the_kernel_ends_for_want_of_memory_is_told_apart(
        self, start: Start, tmp_path: Path
    ) -> None:
        with small_memory() as group:
            executor = start(2)
            executor.submit(task("a", "eats_memory", gate=str(tmp_path / "gate")))
            (pid,) = pids(hear(executor, running(1)))
            (group / "cgroup.procs").write_text(str(pid))
            (tmp_path / "gate").touch()
            event = hear(executor, ended(1))[-1]
            assert (event.kind, event.error) == (
                "out_of_memory",
                "the kernel has ended the process for lack of memory",
            )
            assert kinds(run_all(executor, [task("b", "ok")]), "b") == ["queued", "started", "finished"]

    # What cannot start or end

    @pytest.mark.parametrize(
        ("function", "cause"),
        [
            ("no_such_module:run", "No module named 'no_such_module'"),
            ("jobs:no_such_function", "no attribute 'no_such_function'"),
            ("broken:run", "libnothing.so: cannot open shared object file"),
        ],
    )
    def test_a_function_that_cannot_be_imported_is_an_error_and_not_tried_for_ever(
        self, tmp_path: Path, function: str, cause: str
    ) -> None:
        (tmp_path / "broken.py").write_text(
            "import ctypes\nctypes.CDLL('libnothing.so')\n"
        )  # an OSError, as of a torch that lacks CUDA
        with coordinate(2, function, "ok", path=tmp_path, stderr=subprocess.PIPE) as child:
            _, said = child.process.communicate(timeout=DEADLINE)
        assert child.process.returncode == 1
        assert said.splitlines()[-1].startswith("RuntimeError: no worker process can start")
        assert cause in said

    def test_no_worker_speaks_after_the_last_words_of_its_coordinator_or_into_them(
        self, tmp_path: Path
    ) -> None:
        # Three workers end at once, and the coordinator gives up; the next one is there by then, and takes
        # longer to say the same.
        (tmp_path / "late.py").write_text(
            "import multiprocessing, pathlib, time\n"
            "if multiprocessing.parent_process() is not None:\n"
            "    with (pathlib.Path(__file__).parent / 'starts').open('ab', buffering=0) as starts:\n"
            "        starts.write(b'x')\n"
            "        before = starts.tell()\n"
            "    time.sleep(0.0 if before <= 3 else 0.5)\n"
            "raise ImportError('no such thing')\n"
        )
        with coordinate(2, "late:run", "ok", path=tmp_path, stderr=subprocess.PIPE) as child:
            _, said = child.process.communicate(timeout=DEADLINE)
        assert said.splitlines()[-1].startswith("RuntimeError: no worker process can start")

    def test_close_kills_a_process_that_stands_still(
        self, start: Start, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(process, "GRACE", 0.2)
        executor = start()
        executor.submit(task("a", "stops_when_asked"))
        (frozen,) = pids(hear(executor, running(1)))
        os.kill(frozen, signal.SIGSTOP)  # as a process that hangs in the kernel, it sees nothing more
        watchdog = threading.Timer(DEADLINE, os.kill, (frozen, signal.SIGKILL))
        watchdog.start()
        executor.close()
        assert watchdog.is_alive(), "close waited for it"
        watchdog.cancel()
        assert not is_alive(frozen)

    # What a coordinator's end does to workers

    def test_a_coordinator_that_is_killed_leaves_no_worker(self) -> None:
        with coordinate(3, "jobs:run", "ignores_stop") as child:
            workers = set(child.read("workers")["pids"])
            for _ in range(2):
                assert child.read("progress")["detail"]["pid"] in workers
            assert all(map(is_alive, workers))
            child.process.kill()
            child.process.wait(DEADLINE)
            wait_until_gone(workers)

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_a_signal_to_all_of_them_reaches_the_coordinator_and_kills_no_worker(
        self, number: signal.Signals
    ) -> None:
        with coordinate(3, "jobs:run", "finishes_when_asked") as child:
            workers = set(child.read("workers")["pids"])
            for _ in range(2):
                child.read("progress")
            os.killpg(
                child.process.pid, number
            )  # what a terminal does at Ctrl-C, and a cluster at the end: to the whole group
            heard = [child.read("finished") for _ in range(2)]
            assert {event["detail"]["finished"] for event in heard} == {"anyway"}
            assert child.process.wait(DEADLINE) == 0
            wait_until_gone(workers)

    def test_ctrl_c_while_the_workers_still_import_is_heard_and_kills_nothing(self, tmp_path: Path) -> None:
        importing, gate = tmp_path / "importing", tmp_path / "gate"
        (tmp_path / "heavy.py").write_text(
            f"import jobs, pathlib\npathlib.Path({str(importing)!r}).touch()\n"
            f"jobs.wait_for(pathlib.Path({str(gate)!r}).exists)\nrun = jobs.run\n"
        )
        with coordinate(2, "heavy:run", "stops_when_asked", path=tmp_path) as child:
            child.wait_for(importing)
            os.killpg(child.process.pid, signal.SIGINT)
            gate.touch()
            child.read("asked")
            assert child.read("stopped")["task"] == "task 0"
            assert child.process.wait(DEADLINE) == 0

    # Threads

    @pytest.mark.parametrize("device", ["cpu", "cuda"])
    def test_a_worker_starts_in_the_environment_of_its_device_and_what_the_user_wants_wins(
        self, monkeypatch: pytest.MonkeyPatch, device: str
    ) -> None:
        for name in (
            "PYTORCH_CUDA_ALLOC_CONF",
            *server.ENVIRONMENT,
            *server.CUDA_ENVIRONMENT,
            *server.SEGMENTS,
        ):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("MKL_NUM_THREADS", "7")
        with coordinate(1, "jobs:run", "environment", device=device) as child:
            seen = child.read("finished")["detail"]
        said = {name: value for name, value in seen.items() if value is not None}
        assert said == server.environment(device) | {"MKL_NUM_THREADS": "7"}
        assert (seen["OMP_NUM_THREADS"], seen["CUBLAS_WORKSPACE_CONFIG"]) == ("1", ":4096:8")
        assert seen["PYTORCH_ALLOC_CONF"] == ("expandable_segments:True" if device == "cuda" else None)

    def test_a_gpus_segments_grow_unless_the_user_or_the_driver_wants_others(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("PYTORCH_CUDA_ALLOC_CONF", raising=False)
        assert "PYTORCH_ALLOC_CONF" in server.environment("cuda")
        monkeypatch.setenv("PYTORCH_CUDA_ALLOC_CONF", "max_split_size_mb:64")
        assert "PYTORCH_ALLOC_CONF" not in server.environment("cuda")
        monkeypatch.delenv("PYTORCH_CUDA_ALLOC_CONF")
        monkeypatch.setattr(platform, "release", lambda: "5.15.167.4-microsoft-standard-WSL2")
        assert "PYTORCH_ALLOC_CONF" not in server.environment("cuda")

    @pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the settings are glibc's")
    @pytest.mark.parametrize(("device", "kept"), [("cpu", True), ("cuda", False)])
    def test_what_the_host_frees_goes_back_to_the_system_where_a_gpu_computes(
        self, device: str, kept: bool
    ) -> None:
        code = (
            "def rss(): return int(open('/proc/self/statm').read().split()[1]) * 4096 >> 20\n"
            "many = [bytearray(b'x' * (8 << 20)) for _ in range(60)]\n"
            "peak = rss(); del many; print(peak - rss())"
        )
        environment = os.environ | server.environment(device)
        out = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=True)
        assert (int(out.stdout) < 50) == kept

    def test_starting_workers_leaves_the_coordinator_as_it_was(
        self, start: Start, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in server.ENVIRONMENT:
            monkeypatch.delenv(name, raising=False)
        before, mine = dict(os.environ), lambda *_: None
        theirs = signal.signal(signal.SIGINT, mine)
        try:
            run_all(start(), [task("a", "ok")])
            assert (dict(os.environ), signal.getsignal(signal.SIGINT)) == (before, mine)
        finally:
            signal.signal(signal.SIGINT, theirs)


@contextmanager
def small_memory() -> Iterator[Path]:
    """Make a control group whose processes may have 64 MiB in all, as a container's."""
    first, second = Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")  # the versions of control groups
    group, limit = (
        (first / f"ablate-test-{os.getpid()}", "memory.limit_in_bytes")
        if first.exists()
        else (second / f"ablate-test-{os.getpid()}", "memory.max")
    )
    try:
        group.mkdir()
        (group / limit).write_text(str(64 << 20))
    except OSError as error:
        pytest.skip(f"a control group must be made, and it cannot be: {error}")
    try:
        yield group
    finally:
        group.rmdir()


class Child:
    """A coordinator in a process group of its own."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def read(self, kind: str) -> dict[str, Any]:
        """Read what it says until it says this.

        It ends by itself if the test is broken, so this cannot wait for ever.
        """
        assert self.process.stdout is not None
        heard = []
        for line in self.process.stdout:
            heard.append(json.loads(line))
            if heard[-1]["kind"] == kind:
                return heard[-1]
        raise AssertionError(f"it ended with {self.process.wait()} after {heard}")

    def wait_for(self, path: Path) -> None:
        import jobs

        jobs.wait_for(lambda: path.exists() or self.process.poll() is not None)
        assert path.exists()


@contextmanager
def coordinate(
    slots: int, function: str, do: str, *, device: str = "cpu", path: Path = HERE, stderr: int | None = None
) -> Iterator[Child]:
    command = [sys.executable, str(HERE / "coordinator.py"), str(slots), function, do, device]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(path), str(HERE)])}
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=stderr, text=True, start_new_session=True, env=environment
    )
    with process:
        try:
            yield Child(process)
        finally:
            process.kill()
