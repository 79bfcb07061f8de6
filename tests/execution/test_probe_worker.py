"""What a probe does in its worker: what a job does, with its room and its pauses, and keeps nothing."""

from pathlib import Path

import pytest
from sessions import make

from ablate.execution import probe_worker
from ablate.execution.executors.base import Stopped
from ablate.store.tasks import Context, ProbeTask
from ablate.training import copies, data, images, loop


@pytest.fixture
def task(tmp_path):
    recipe = make(training={"batch_size": 20})
    prepared = data.prepare(recipe.data, tmp_path / "data")
    return ProbeTask(
        context=Context(compile_cache=str(tmp_path / "compiled"), jobs_a_device=3), recipe=recipe, seed=0,
        data=prepared.folder, log=tmp_path / "log",
    )  # fmt: skip


def run(task, steps, heard):
    """Run a probe for so many steps."""
    answers = iter([False] * (steps - 1) + [True])
    with pytest.raises(Stopped):
        probe_worker.probe(task, heard.append, answers.__next__)


@pytest.mark.parametrize(("room", "streamed"), [(None, False), (10**9, False), (0, True)])
def test_images_get_the_room_that_they_have_beside_the_other_jobs(task, monkeypatch, room, streamed):
    asked, started, real = [], [], loop.start

    def spy(*given, **options):
        started.append(real(*given, **options))
        return started[-1]

    monkeypatch.setattr(images, "room", lambda device, jobs: asked.append((device.type, jobs)) or room)
    monkeypatch.setattr(loop, "start", spy)
    run(task, 2, [])
    assert asked == [("cpu", 3)]
    assert started[0].train.streamed is streamed


def test_a_batch_is_evaluated_and_a_checkpoint_copied_first_and_once_in_every_window(task, monkeypatch):
    monkeypatch.setattr(probe_worker, "PAUSE", 0.0)
    done, score, copied = [], loop.score, copies.copied
    monkeypatch.setattr(loop, "score", lambda *given: done.append(len(given[1])) or score(*given))
    monkeypatch.setattr(copies, "copied", lambda *given: done.append("copy") or copied(*given))
    heard = []
    monkeypatch.setattr(loop, "evaluation_batch", lambda *_: 30)
    run(task, 5, heard)
    assert done == [30, "copy"] * 5  # before the first step, and after all but the last
    assert [set(news) for news in heard][:1] == [{"images", "time", "used", "total"}]
    assert not any(Path(task.log.parent).rglob("*.pt"))


def test_between_two_evaluations_a_network_trains(task, monkeypatch):
    monkeypatch.setattr(probe_worker, "PAUSE", 0.0)
    modes, real = [], loop.step
    monkeypatch.setattr(
        loop, "step", lambda session, batch: modes.append(session.network.training) or real(session, batch)
    )
    run(task, 4, [])
    assert modes == [True] * 4
