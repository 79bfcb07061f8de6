"""A Slurm of two nodes on this host, from Debian's packages, in a folder of its own and on free ports.

`start` starts a guard, a process that holds the daemons and ends everything of this cluster, jobs included,
once its standard input is closed: so also when the tests are killed. `python slurm_cluster.py FOLDER` is the
guard.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

PROGRAMS = ("slurmctld", "slurmd", "sbatch", "squeue", "scancel", "scontrol", "munged")
NODES = ("n1", "n2")
CORES = 4  # that each node claims to have
LONGEST_ARRAY = 4  # MaxArraySize: indexes are below it
DEADLINE = 120.0

CONF = """ClusterName=ablate
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmUser=root
AuthType=auth/munge
AuthInfo=cred_expire=5,socket={folder}/munge.socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldLogFile={folder}/log/slurmctld.log
SlurmdLogFile={folder}/log/slurmd-%n.log
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerParameters=sched_interval=1,sched_min_interval=10000,batch_sched_delay=0,bf_interval=1
ReturnToService=2
SlurmdTimeout=10
KillWait=5
JobRequeue=1
MinJobAge=60
MaxArraySize={longest}
SlurmdParameters=config_overrides
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={first} CPUs={cores} RealMemory=8000
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={second} CPUs={cores} RealMemory=8000
PartitionName=debug Nodes=n1,n2 Default=YES State=UP DefMemPerCPU=64
PartitionName=small Nodes=n1,n2 State=UP DefMemPerCPU=64 MaxTime=10
"""


def lacking() -> str:
    """Return why there can be no cluster here; empty where there can."""
    if os.geteuid() != 0:
        return "the daemons of Slurm need root"
    missing = [program for program in PROGRAMS if _program(program) is None]
    return f"not installed: {', '.join(missing)} (apt-get install slurm-wlm munge)" if missing else ""


def _program(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


@dataclass
class Cluster:
    """The cluster, as a test handles it."""

    folder: Path
    guard: subprocess.Popen[str]

    @property
    def environment(self) -> dict[str, str]:
        return {"SLURM_CONF": str(self.folder / "slurm.conf")}

    def run(self, *command: str) -> str:
        """Run a program of Slurm; return what it prints."""
        done = subprocess.run(
            command, env=os.environ | self.environment, capture_output=True, text=True, check=True
        )
        return done.stdout

    def states(self) -> dict[str, str]:
        """Return the state of every node."""
        lines = self.run("sinfo", "-N", "-h", "-o", "%N %T").splitlines()
        return dict(line.split() for line in lines)

    def start_node(self, name: str) -> None:
        self._ask(f"start {name}")

    def kill_node(self, name: str, *, jobs: bool = True) -> None:
        """Kill the daemon of a node, and with `jobs` all that runs there, as when a machine loses power."""
        self._ask(f"{'lose' if jobs else 'kill'} {name}")

    def processes(self, words: bytes) -> list[int]:
        """List the processes of jobs of this cluster whose command line has these words."""
        ours = f"SLURM_CONF={self.folder}/slurm.conf".encode()
        matching = []
        for process in _processes():
            with suppress(OSError):
                command = (process / "cmdline").read_bytes()
                if words in command and ours in (process / "environ").read_bytes():
                    matching.append(int(process.name))
        return matching

    def _ask(self, what: str) -> None:
        assert self.guard.stdin is not None
        assert self.guard.stdout is not None
        self.guard.stdin.write(f"{what}\n")
        self.guard.stdin.flush()
        assert self.guard.stdout.readline() == "done\n"

    def heal(self) -> None:
        """Bring back all nodes and end all jobs."""
        self.run("scancel", "--user", "root", "--signal", "KILL", "--full")
        self.run("scancel", "--user", "root")
        for name, state in self.states().items():
            if "down" in state or state.endswith("*"):
                self.start_node(name)
        self.wait_until_idle()

    def wait_until_idle(self) -> None:
        end = time.monotonic() + DEADLINE
        while set(self.states().values()) != {"idle"} or self.run("squeue", "-h"):
            assert time.monotonic() < end, self.run("scontrol", "show", "node")
            time.sleep(0.2)

    def close(self) -> None:
        assert self.guard.stdin is not None
        with self.guard:
            self.guard.stdin.close()
            self.guard.wait(DEADLINE)


def start(folder: Path, longest_array: int = LONGEST_ARRAY) -> Cluster:
    """Start a cluster and wait until its nodes are idle."""
    for name in ("state", "log", "spool/n1", "spool/n2"):
        (folder / name).mkdir(parents=True)
    ports = _free_ports(3)
    host = socket.gethostname().split(".")[0]
    conf = CONF.format(
        host=host, folder=folder, controller=ports[0], first=ports[1], second=ports[2], cores=CORES,
        longest=longest_array,
    )  # fmt: skip
    (folder / "slurm.conf").write_text(conf)
    (folder / "munge.key").write_bytes(os.urandom(128))
    (folder / "munge.key").chmod(0o600)
    guard = subprocess.Popen(
        [sys.executable, __file__, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env=os.environ | {"SLURM_CONF": str(folder / "slurm.conf")}, start_new_session=True,
    )  # fmt: skip
    cluster = Cluster(folder, guard)
    end = time.monotonic() + DEADLINE
    while True:
        with suppress(subprocess.CalledProcessError):
            if set(cluster.states().values()) == {"idle"}:
                return cluster
        assert time.monotonic() < end, (folder / "log" / "slurmctld.log").read_text()
        time.sleep(0.2)


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def _guard(folder: Path) -> None:
    """Start the daemons, and do what is asked until nobody asks any more; then end everything."""
    try:
        munge = [f"--{name}={folder}/munge.{name.removesuffix('-file')}" for name in ("socket", "pid-file")]
        munge += [f"--{name}-file={folder}/munge.{name}" for name in ("key", "log", "seed")]
        _spawn(folder, "munged", "--force", "--foreground", *munge)
        _until((folder / "munge.socket").exists)
        _spawn(folder, "slurmctld", "-D", "-f", f"{folder}/slurm.conf")
        nodes = {name: _start_node(folder, name) for name in NODES}
        for line in sys.stdin:
            what, name = line.split()
            if what == "start":
                nodes[name] = _start_node(folder, name)
            else:
                nodes[name].kill()
                nodes[name].wait()
                if what == "lose":
                    _kill_steps(folder, name)  # first: they tell the controller that their job has died
                    _kill_all(f"SLURMD_NODENAME={name}\0", folder)
            print("done", flush=True)
    finally:
        for node in NODES:
            _kill_steps(folder, node)
        _kill_all(f"SLURM_CONF={folder}/slurm.conf\0", folder)


def _start_node(folder: Path, name: str) -> subprocess.Popen[bytes]:
    return _spawn(folder, "slurmd", "-D", "-N", name, "-f", f"{folder}/slurm.conf")


def _spawn(folder: Path, program: str, *arguments: str) -> subprocess.Popen[bytes]:
    path = _program(program)
    assert path is not None
    with (folder / "log" / "daemons.log").open("ab") as log:
        return subprocess.Popen(
            [path, *arguments], stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )


def _until(condition) -> None:
    end = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def _kill_steps(folder: Path, node: str) -> None:
    """Kill the daemons of a node's job steps, whose command line names the socket of the node."""
    for process in _processes():
        with suppress(OSError):
            command = (process / "cmdline").read_bytes()
            if b"slurmstepd" in command and (process / "cwd").exists():
                files = (process / "environ").read_bytes() + command
                links = b"".join(str(link.readlink()).encode() for link in (process / "fd").iterdir())
                if f"{folder}/log/slurmd-{node}.log".encode() in files + links:
                    os.kill(int(process.name), signal.SIGKILL)


def _kill_all(variable: str, folder: Path) -> None:
    """Kill all processes of this cluster with this in their environment, but for this one."""
    ours = f"SLURM_CONF={folder}/slurm.conf\0".encode()
    for process in _processes():
        with suppress(OSError):
            environment = b"\0" + (process / "environ").read_bytes()
            if b"\0" + ours in environment and b"\0" + variable.encode() in environment:
                os.kill(int(process.name), signal.SIGKILL)


def _processes() -> list[Path]:
    own = {str(os.getpid()), str(os.getppid())}
    return [path for path in Path("/proc").glob("[0-9]*") if path.name not in own]


if __name__ == "__main__":
    _guard(Path(sys.argv[1]))
