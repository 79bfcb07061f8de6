"""A study on Slurm whose workers, agents, coordinators and nodes are killed at random ends as any other."""

import json
import os
import random
import time

import processes
import pytest
from commands import ablate, results, start

KILLS = int(os.environ.get("ABLATE_TEST_KILLS", "6"))
STUDY = ("--set", "seeds=6", "--set", "training.epochs=8")  # 12 jobs
SLURM = ("--executor", "slurm", "--slurm", "time=30", "--jobs", "4")


class Killer:
    """Kills something of a run, by a fixed sequence of draws."""

    def __init__(self, cluster):
        self.cluster, self.random, self.done = cluster, random.Random(7), []

    def kill(self, coordinator):
        agents = self.cluster.processes(b"executors.agent\0")
        kind = self.random.choices(("worker", "agent", "coordinator", "node"), (4, 3, 2, 1))[0]
        if kind == "coordinator":
            coordinator.kill()
        elif kind == "node":
            node = self.random.choice(("n1", "n2"))
            self.cluster.kill_node(node)
            self.cluster.start_node(node)
        else:
            victims = agents if kind == "agent" else [w for a in agents for w in processes.workers_of(a)]
            if not victims:
                return
            processes.kill(self.random.choice(victims))
        self.done.append(kind)


def numbers(study, store):
    """Return what a report says, without paths and times."""
    code, out, err = ablate("report", study, *STUDY, "--store", store, "--json")
    assert code == 0, err

    def kept(value):
        if isinstance(value, dict):
            dropped = ("path", "time", "second", "report")
            return {k: kept(v) for k, v in value.items() if not any(word in k for word in dropped)}
        return [kept(each) for each in value] if isinstance(value, list) else value

    return kept(json.loads(out))


def kill_while_it_trains(killer, study, store):
    """Run a study, with kills between its first attempt and its end; return what the last command printed."""
    end, run = time.monotonic() + 1500, start("run", study, *STUDY, "--store", store, *SLURM)
    following = killer.random.uniform(1, 4)
    while run.poll() is None or run.returncode == -9:
        assert time.monotonic() < end, killer.done
        if run.poll() == -9:
            run.communicate()
            run = start("run", study, *STUDY, "--store", store, *SLURM)
        if list(store.glob("jobs/*/attempts.jsonl")) and len(killer.done) < KILLS:
            time.sleep(following)
            killer.kill(run)
            following = killer.random.uniform(1, 4)
        time.sleep(0.2)
    out, err = run.communicate()
    assert run.returncode == 0, out + err
    return out


@pytest.mark.slow
def test_random_kills_cost_no_job_and_change_no_number(cluster, study, tmp_path):
    undisturbed, stores, killer = tmp_path / "undisturbed", [], Killer(cluster)
    code, _, err = ablate("run", study, *STUDY, "--store", undisturbed)
    assert code == 0, err
    while len(killer.done) < KILLS:  # a quick machine ends a study before all: the next store takes the rest
        stores.append(tmp_path / f"mlruns{len(stores)}")
        assert len(stores) < 10 + KILLS, f"studies end before they can be killed: {killer.done}"
        print(killer.done, kill_while_it_trains(killer, study, stores[-1]))
    here = results(undisturbed)
    journals = [name for name in here if name.endswith(("journal.jsonl", "outcome.json"))]
    assert len(journals) == 12 + 24
    for store in stores:
        same = results(store)
        assert {name: same[name] for name in journals} == {name: here[name] for name in journals}
        assert numbers(study, store) == numbers(study, undisturbed)
