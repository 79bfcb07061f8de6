"""A Ray cluster as it is found: its nodes, what can be placed there, and in which sentence it is refused."""

import logging
import signal
import threading
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import chain, zip_longest
from json import loads
from typing import Any

from ablate import __version__, gpus
from ablate.errors import AblateError
from ablate.execution.executors import ray_host
from ablate.execution.executors.base import Options, Slot
from ablate.hardware import Resources
from ablate.messages import count

ANSWER = 120.0  # seconds in which a node must have started a process and answered


@dataclass(frozen=True, slots=True)
class Node:
    """A node that is alive."""

    id: str
    name: str
    cpus: int
    gpus: int


@dataclass(frozen=True, slots=True)
class Place:
    """What one actor gets: a GPU or CPU cores of a node, and the slots that share it."""

    node: str  # its id
    where: str  # its name
    slots: tuple[Slot, ...]
    cpus: float
    gpus: float

    @property
    def memory(self) -> str:
        """The name of the memory that its tasks use."""
        return f"{self.node} {self.slots[0].memory}"


def connect(address: str) -> None:
    """Connect to a cluster, unless this process has done so; without an address, to the one that runs here.

    Raises an AblateError where there is none.
    """
    import ray
    from ray._private import worker

    if ray.is_initialized():
        return
    if address and find_spec("grpc") is None:
        raise AblateError(
            f"--executor ray://{address} needs Ray's client, and its grpcio is not installed: "
            'pip install "ray[client]"'
        )
    if hasattr(worker, "print_to_stdstream"):  # Ray has no switch for what raylets say to a driver
        worker.print_to_stdstream = lambda *_arguments, **_options: None
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        ray.init(
            address=f"ray://{address}" if address else "auto",
            log_to_driver=False,
            logging_level=logging.CRITICAL,
        )
    except (ConnectionError, ValueError, RuntimeError, ImportError, TimeoutError) as error:
        reason = next(iter(str(error).splitlines()), "")
        if address:
            raise AblateError(
                f"--executor ray://{address}: no Ray cluster answers there ({reason})"
            ) from None
        raise AblateError(
            "--executor ray: no Ray cluster runs on this machine: start one with ray start --head, set "
            f"RAY_ADDRESS, or name one as ray://HOST:10001 ({reason})"
        ) from None
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in handlers.items():  # Ray has put its own in their place
                signal.signal(number, handler)


def nodes() -> tuple[Node, ...]:
    """Return the nodes that are alive; names that several have are made different."""
    alive = [node for node in _table() if node["Alive"]]
    names = Counter(node["NodeManagerHostname"] for node in alive)
    return tuple(
        Node(
            node["NodeID"],
            (name := node["NodeManagerHostname"]) + (f"-{node['NodeID'][:4]}" if names[name] > 1 else ""),
            int(node["Resources"].get("CPU", 0)),
            int(node["Resources"].get("GPU", 0)),
        )
        for node in sorted(alive, key=lambda node: (node["NodeManagerHostname"], node["NodeID"]))
    )


def is_alive(node: str) -> bool:
    """Whether the cluster still counts a node among its own; it takes some time to see that one is lost."""
    return any(other["NodeID"] == node and other["Alive"] for other in _table())


def _table() -> list[dict[str, Any]]:
    import ray

    nodes: Any = ray.nodes
    return list(nodes())


def places(options: Options, there: tuple[Node, ...]) -> tuple[Place, ...]:
    """Lay out the slots over the nodes, evenly.

    Raises an AblateError where the cluster can never have them.
    """
    number = sum(node.gpus for node in there)
    if options.device == "cuda" and not number:
        raise AblateError(f"--device cuda: the Ray cluster has no GPU: {describe(there)}")
    laid_out = _on_gpus(options, there) if number and options.device != "cpu" else _on_cpus(options, there)
    return _first(laid_out, options.most)


def _on_gpus(options: Options, there: tuple[Node, ...]) -> tuple[Place, ...]:
    """Return a place for each GPU, with the slots that share it."""
    devices = _interleaved([(node, i) for i in range(node.gpus)] for node in there)[: options.devices]
    wanted = options.jobs or len(devices) * options.jobs_per_gpu
    shares = [wanted // len(devices) + (i < wanted % len(devices)) for i in range(len(devices))]
    return tuple(
        Place(
            node.id, node.name, (Slot(f"{node.name}/cuda:{i}", "cuda"),) * share,
            # A job on a GPU needs a core that launches its kernels, as far as the node has as many.
            cpus=min(share, node.cpus // node.gpus), gpus=1,
        )
        for (node, i), share in zip(devices, shares, strict=True) if share
    )  # fmt: skip


def _on_cpus(options: Options, there: tuple[Node, ...]) -> tuple[Place, ...]:
    """Return a place for each `threads` cores."""
    threads = options.threads
    room = _interleaved([(node, i) for i in range(node.cpus // threads)] for node in there)
    if not room or (options.jobs or 0) > len(room):
        asked = f"{count(options.jobs, 'job')} at a time (--jobs)" if options.jobs else "a job"
        raise AblateError(
            f"{asked} with {count(threads, 'CPU')} each can never run on the Ray cluster, which has room for "
            f"{len(room)}: {describe(there)}"
        )
    # A Ray process without a GPU sees all of them, unless it is told otherwise.
    return tuple(
        Place(node.id, node.name, (Slot(f"{node.name}/cpu:{i}", "cpu", {gpus.MASK: ""}),), threads, 0)
        for node, i in room[: options.jobs]
    )


def _interleaved(rows: Iterable[list[tuple[Node, int]]]) -> list[tuple[Node, int]]:
    """Return the first of each row, then the second of each, and so on."""
    return [each for each in chain.from_iterable(zip_longest(*rows)) if each is not None]


def _first(laid_out: tuple[Place, ...], most: int | None) -> tuple[Place, ...]:
    """Return places for no more tasks than there are."""
    return laid_out if most is None else laid_out[: max(1, most)]


def describe(there: tuple[Node, ...]) -> str:
    """Return in words what a cluster has."""
    return (
        ", ".join(f"{node.name} {count(node.cpus, 'CPU')} and {count(node.gpus, 'GPU')}" for node in there)
        or "no node"
    )


def resources(laid_out: Iterable[Place], precision: str, *, shares_store: bool) -> Resources:
    """Return what places offer."""
    laid_out = tuple(laid_out)
    by_memory: Counter[str] = Counter()
    for place in laid_out:
        by_memory[place.memory] += len(place.slots)
    device = laid_out[0].slots[0].device if laid_out else "cpu"
    return Resources(
        slots=sum(len(place.slots) for place in laid_out),
        device=device,
        precision=precision,
        jobs_a_device=max((len(place.slots) for place in laid_out), default=1),
        shares_memory=max(by_memory.values(), default=1) > 1,
        shares_store=shares_store,
    )


def ready(options: Options) -> tuple[tuple[Place, ...], str]:
    """Return places on nodes that answer, and what precision "auto" is on all of them.

    Raises an AblateError where the cluster can never have what is asked, or a node cannot run this ablate.
    """
    there = nodes()
    while True:
        laid_out = places(options, there)
        names, device = {place.node: place.where for place in laid_out}, laid_out[0].slots[0].device
        answers = _ask(names, device)
        lost = names.keys() - answers.keys()
        if not lost:
            is_bf16 = all(answer["precision"] == "bf16" for answer in answers.values())
            return laid_out, "bf16" if is_bf16 else "fp32"
        there = tuple(node for node in there if node.id not in lost)


def _ask(names: dict[str, str], device: str) -> dict[str, dict[str, str]]:
    """Return what each node, by its id, says of itself; nothing of one that is lost.

    Ray counts such a node among its own for some seconds.
    """
    import ray
    from ray.exceptions import NodeDiedError, RayError, RayTaskError, TaskUnschedulableError

    look: Any = ray.remote(ray_host.look)
    asked = {
        node: look.options(num_cpus=0, max_retries=0, scheduling_strategy=on(node)).remote(device)
        for node in names
    }
    answers = {}
    for node, reference in asked.items():
        try:
            answers[node] = loads(ray.get(reference, timeout=ANSWER))
        except (NodeDiedError, TaskUnschedulableError):
            continue
        except (RayError, ImportError) as error:  # the second: what was raised there
            reason = str(error).strip().splitlines()[-1]
            is_lacking = isinstance(error, RayTaskError | ImportError)
            advice = ": install it in the Python that runs Ray there" if is_lacking else ""
            raise AblateError(
                f"{names[node]}, a node of the Ray cluster, cannot run ablate {__version__}: {reason}{advice}"
            ) from None
        if answers[node]["version"] != __version__:
            raise AblateError(
                f"{names[node]}, a node of the Ray cluster, has ablate {answers[node]['version']}, and here "
                f"is {__version__}: install the same there"
            )
    return answers


def on(node: str) -> Any:
    """Return Ray's word for: on this node, and nowhere else."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return NodeAffinitySchedulingStrategy(node, soft=False)
