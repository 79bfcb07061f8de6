"""Events: everything that changes, once, to all who follow; a client that comes back misses nothing."""

import json
import os
import shutil
import time

import pytest
from commands import TINY
from services import serving

from ablate.serve import events
from ablate.store import layout


@pytest.fixture(autouse=True)
def often(monkeypatch):
    """Look ten times as often as for people: nothing is trained beside."""
    monkeypatch.setattr(events, "EVERY", 0.1)
    monkeypatch.setattr(events, "REST", 0)


@pytest.fixture
def store(done, tmp_path):
    """Return a store of which two jobs are not there yet, and what puts each of them there."""
    shutil.copytree(done[0] / "store", tmp_path / "store", symlinks=True)
    (tmp_path / "later").mkdir()
    jobs = sorted((tmp_path / "store/jobs").glob("[0-9a-f]*"))[:2]
    for job in jobs:
        job.rename(tmp_path / "later" / job.name)
    return tmp_path / "store", [lambda job=job: (tmp_path / "later" / job.name).rename(job) for job in jobs]


def states(content):
    return [spot["status"] for spots in content["runs"].values() for spot in spots.values()]


def test_a_follower_sees_all_then_only_what_changes_and_verdicts_as_they_firm_up(store):
    folder, (put_first, put_second) = store
    with serving(folder) as asked:
        following = asked.events("/studies/tiny/events")
        assert following.answer.headers["content-type"].startswith("text/event-stream")
        assert following.next()[1:] == ("submission", None)
        _, name, content = following.next()
        assert (name, content["whole"], sorted(set(states(content)))) == (
            "status",
            True,
            ["finished", "not_run"],
        )
        assert content["total"] == {"finished": 4, "not_run": 4}
        _, _, verdicts = following.until(lambda event: event[1] == "verdicts")
        assert verdicts["finished"] == 4
        put_first()
        _, _, change = following.until(lambda event: event[1] == "status")
        assert (change["whole"], states(change)) == (False, ["finished", "finished"])
        put_second()
        _, _, verdicts = following.until(lambda event: event[1] == "verdicts" and event[2]["finished"] == 8)
        assert verdicts["effects"] == asked.get("/studies/tiny/report").json["effects"]
        following.close()


def test_who_comes_back_gets_what_came_after_his_last_event_and_nothing_twice(store):
    folder, (put_first, put_second) = store
    with serving(folder) as asked:
        following, steady = (asked.events("/studies/tiny/events") for _ in range(2))
        for each in (following, steady):
            last, _, _ = each.until(lambda event: event[1] == "verdicts")
        following.close()
        put_first()
        first = steady.until(lambda event: event[1] == "status")
        put_second()
        second = steady.until(lambda event: event[1] == "status")
        back = asked.events("/studies/tiny/events", Last_Event_ID=last)
        missed = [back.until(lambda event: event[1] == "status") for _ in range(2)]
        assert missed == [first, second]
        elsewhere = asked.events(
            "/studies/tiny/events", Last_Event_ID="0123abcd-7"
        )  # of a service that is gone
        _, _, content = elsewhere.until(lambda event: event[1] == "status")
        assert (content["whole"], content["total"]) == (True, {"finished": 8})
        for each in (steady, back, elsewhere):
            each.close()


def test_a_study_whose_runs_have_all_diverged_has_its_verdicts_too(store):
    folder, _ = store
    for job in folder.glob("jobs/[0-9a-f]*"):
        shutil.rmtree(job / "outcomes")
        result = json.loads((job / "result.json").read_text())
        (job / "result.json").write_text(json.dumps(result | {"status": "diverged", "reason": "nan"}))
    with serving(folder) as asked:
        following = asked.events("/studies/tiny/events")
        _, _, content = following.until(lambda event: event[1] == "status")
        assert set(states(content)) == {"diverged", "not_run"}
        assert following.until(lambda event: event[1] == "verdicts")[2]["shown"]["headline"]
        following.close()


def test_verdicts_are_computed_after_all_trainings_and_nothing_that_people_wait_for_is(store, monkeypatch):
    monkeypatch.setattr(events, "VERDICTS_REST", 1e6)
    folder, _ = store
    with serving(folder) as asked:
        results = asked.server.config.app.service.results
        following = asked.events("/studies/tiny/events")
        following.until(lambda event: event[1] == "verdicts")
        assert results.reader._process is None
        assert results.background.seconds > 0
        next_ones = asked.server.config.app.service.events._studies["tiny"]._next
        longest = events.LONGEST_VERDICTS_REST
        assert longest / 2 < next_ones - time.monotonic() <= longest  # by their CPU, or it were 4 s
        assert asked.get("/studies/tiny/report").status == 200
        levels = [
            os.getpriority(os.PRIO_PROCESS, child._process.pid)
            for child in (results.background, results.reader)
        ]
        assert levels == [19, os.getpriority(os.PRIO_PROCESS, 0)]
        following.close()


@pytest.mark.parametrize(
    ("took", "elapsed", "expected"),
    [
        (0.01, 1.0, 1.0),  # the first looks are a second apart
        (0.2, 15.0, 1.0),
        (0.22, 1.0, 3.8),  # 240 times what they took beyond 0.2 s, less what has gone by
        (0.22, 600.0, 1.0),
        (4.4, 5.0, 10.0),  # of 10,000 runs
    ],
)
def test_looks_rest_for_longer_the_more_they_have_taken(took, elapsed, expected, monkeypatch):
    monkeypatch.undo()  # `often`
    assert events.rest(took, elapsed) == pytest.approx(expected)


def test_one_watcher_looks_for_all_and_reads_no_job_twice(store, monkeypatch):
    from ablate.serve import board

    folder, _ = store
    reads = []
    read = board.Board._read
    monkeypatch.setattr(
        board.Board,
        "_read",
        lambda self, job, *rest, **how: (reads.append(job), read(self, job, *rest, **how))[1],
    )
    with serving(folder) as asked:
        following = [asked.events("/studies/tiny/events") for _ in range(10)]
        for each in following:
            each.next()
        channel = asked.server.config.app.service.events._studies["tiny"].channel
        before = channel.looks
        while channel.looks < before + 3:
            asked.get("/health")
            time.sleep(0.1)
        assert channel.followers == 10
        assert sorted(reads) == sorted(set(reads)), "a job that has not changed was read again"
        for each in following:
            each.close()


def test_a_log_line_or_an_epoch_is_seen_without_a_new_folder(store):
    from ablate.serve.board import Board

    folder, _ = store
    board = Board(layout.open_store(folder), "tiny")
    whole = board.look()
    assert board.look() is whole
    job = min(folder.glob("jobs/[0-9a-f]*"))
    for name in ("result.json", "outcomes"):
        (job / name).rename(job.parent / f"{job.name}-{name}")
    cut = board.look()
    assert cut.total["stopped"] == 2
    lines = (job / "journal.jsonl").read_text().splitlines(keepends=True)
    times = job.stat()
    (job / "journal.jsonl").write_text("".join(lines[:-1]))
    os.utime(job, ns=(times.st_atime_ns, times.st_mtime_ns))
    (epoch,) = {spot.epoch for spots in board.look().runs.values() for spot in spots.values() if spot.epoch}
    assert epoch == len(lines) - 1


def test_the_queue_has_events_of_its_own_and_the_service_ends_with_open_streams(tmp_path):
    with serving(tmp_path / "store") as asked:
        following = asked.events("/queue/events")
        assert following.next()[2] == []
        identity = asked.post("/queue", TINY).json["id"]
        assert [entry["state"] for entry in following.next()[2]] == ["waiting"]
        asked.post(f"/queue/{identity}/cancel")
        assert [entry["state"] for entry in following.next()[2]] == ["cancelled"]
    assert following.next() is None
    following.close()
