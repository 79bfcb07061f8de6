"""The queue of a store: what is handed in stays as it is, and every change of it is idempotent."""

import json
import multiprocessing

import pytest
from commands import RECIPE, TINY, failing

from ablate.errors import AblateError, StoreError, StudyError
from ablate.store import layout, origin, study_folder
from ablate.store import queue as submissions
from ablate.workflow import argument, queue


def titled(name):
    return TINY.replace('"tiny"', f'"{name}"')


def order(store):
    return [entry.study for entry in queue.entries(store)]


@pytest.fixture
def three(here):
    for name in "abc":
        queue.submit(here, titled(name))
    return here


def test_what_was_submitted_is_kept_to_the_byte_and_the_same_key_submits_once(here, study):
    text = TINY.replace("\n", "\r\n")
    first = queue.submit(here, text, sets=("seeds=3",), key="k", by="ada", path=study)
    again = queue.submit(here, text, sets=("seeds=3",), key="k", by="ada", path=study)
    assert again == first == queue.entry(here, "1")
    assert queue.entries(here) == (first,)
    assert submissions.study_file(here, first.id).read_bytes() == text.encode()
    assert (first.id, first.study, first.state, first.sets) == ("00001", "tiny", "waiting", ("seeds=3",))
    with pytest.raises(StoreError, match="idempotency key"):
        queue.submit(here, text, key="k", path=study)


def test_a_submission_shows_all_mistakes_and_leaves_nothing_behind(tmp_path):
    store = layout.open_store(tmp_path / "new")
    wrong = TINY.replace("cnn4", "cnn5").replace("epochs = 3", "epochs = -3")
    with pytest.raises(StudyError) as raised:
        queue.submit(store, wrong)
    assert len(raised.value.mistakes) >= 2
    assert all(m.startswith("the study: ") for m in raised.value.mistakes)
    assert not store.path.exists()
    with pytest.raises(StudyError) as checked:
        queue.check(store, wrong)
    assert checked.value.mistakes == raised.value.mistakes


def test_a_check_is_the_plan_of_the_study(here):
    preview = queue.check(here, TINY, ("seeds=4",))
    assert (len(preview.plan.runs), preview.plan.trainings) == (16, 8)
    assert not here.queue.exists()


def test_submissions_run_by_priority_then_in_their_order_then_as_they_were_moved(three):
    queue.submit(three, titled("d"), priority=1)
    assert order(three) == ["d", "a", "b", "c"]
    queue.move(three, "3", before="1")
    queue.move(three, "3", before="1")
    assert order(three) == ["d", "c", "a", "b"]
    assert queue.move(three, "1", after="4").priority == 1
    assert order(three) == ["d", "a", "c", "b"]
    queue.move(three, "2", priority=7)
    assert order(three) == ["b", "d", "a", "c"]


def test_a_hundred_moves_into_one_gap_stay_in_order(three):
    for _ in range(50):
        queue.move(three, "3", before="2")
        assert order(three) == ["a", "c", "b"]
        queue.move(three, "2", before="3")
        assert order(three) == ["a", "b", "c"]


@pytest.mark.parametrize("options", [{}, {"before": "2", "priority": 1}, {"before": "1"}, {"after": "9"}])
def test_a_move_that_means_nothing_is_refused(three, options):
    with pytest.raises(AblateError):
        queue.move(three, "1", **options)
    assert order(three) == ["a", "b", "c"]


def test_what_waits_is_stopped_at_once_and_what_runs_is_asked_to(three):
    running = submissions.read(three, "00001").model_copy(update={"state": "running"})
    with submissions.changing(three):
        submissions.write(three, running)
    for _ in range(2):
        assert queue.pause(three, "1").wish == "pause"
        assert queue.pause(three, "2").state == "paused"
        assert queue.cancel(three, "3").state == "cancelled"
    assert queue.cancel(three, "1").wish == queue.pause(three, "1").wish == "cancel"
    assert queue.resume(three, "1").wish is None
    for _ in range(2):
        assert [queue.resume(three, one).state for one in "23"] == ["waiting", "waiting"]


def test_a_submission_waits_only_for_those_there_are_and_a_resumed_one_for_those_that_may_still_end(three):
    with pytest.raises(StoreError, match='no submission "77"'):
        queue.submit(three, titled("d"), after=("77",))
    last = queue.submit(three, titled("d"), after=("1", "2", "1"))
    assert last.after == ("00001", "00002")
    queue.cancel(three, "1")
    queue.pause(three, last.id)
    assert queue.resume(three, last.id).after == ("00002",)


def test_own_code_travels_with_a_submission_and_runs_as_it_was(here, study, monkeypatch):
    failing(study)
    beside, text = study.with_name("broken_net.py"), study.read_text()
    beside.write_text(f"from parts.deep import nothing\n{beside.read_text()}")
    package = study.parent / "parts"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "deep.py").write_text("from . import near\nnothing = None\n")
    (package / "near.py").write_text("import json\n")
    (package / "other.py").write_text("raise ValueError\n")
    monkeypatch.chdir("/")
    entry = queue.submit(here, text, path=study)
    folder = submissions.folder(here, entry.id)
    copied = {str(path.relative_to(folder)) for path in folder.rglob("*.py")}
    assert copied == {"broken_net.py", "parts/__init__.py", "parts/deep.py", "parts/near.py"}
    before = argument.load(str(study), (), here)
    beside.write_text("")
    loaded = argument.load(str(folder / "study.toml"), (), here)
    assert origin.of(loaded, here.path) == origin.of(before, here.path)  # to the store it is the user's file
    assert loaded.relative_to == str(study.parent)


def test_without_a_file_code_and_images_are_those_that_the_service_allows(here, study, monkeypatch):
    failing(study)
    study.with_name("broken_net.py").rename(
        study.with_name("another_net.py")
    )  # no module of that name is in yet
    study.write_text(study.read_text().replace("broken_net", "another_net"))
    monkeypatch.chdir(study.parent)
    with pytest.raises(StudyError, match='"another_net:make" is code of your own'):
        queue.submit(here, study.read_text())
    with pytest.raises(StudyError, match=r"data\.root: must be a whole path"):
        queue.submit(here, TINY.replace('name = "digits"', 'name = "imagefolder", root = "here"'))
    folder = TINY.replace('name = "digits"', 'name = "imagefolder", root = "/there"')
    with pytest.raises(StudyError, match=r'whole path on .*, got "data.root=here"'):
        queue.submit(here, folder, sets=("data.root=here",))
    assert not here.queue.exists()
    entry = queue.submit(here, study.read_text(), networks=("another_net:make",))
    assert (submissions.folder(here, entry.id) / "another_net.py").exists()


def test_what_is_sent_does_not_take_the_place_of_a_file(here, study):
    study_folder.keep(here, argument.load(str(study), (), here), study_folder.Settled())
    changed = TINY.replace("epochs = 3", "epochs = 4")
    with pytest.raises(StoreError, match="ablate submit --replace"):
        queue.submit(here, changed)
    queue.submit(here, TINY)
    queue.submit(here, changed, path=study)
    queue.submit(here, changed, replaces=True)
    assert len(queue.entries(here)) == 3


def test_a_spoilt_submission_hides_no_other(three):
    path = submissions.folder(three, "00002") / "state.json"
    path.write_text(json.dumps({"id": 3}))
    spoilt = queue.entries(three)[-1]
    assert order(three) == ["a", "c", "?"]
    assert str(path) in spoilt.reason
    assert spoilt.state == "failed"


def test_a_killed_submission_leaves_a_draft_which_the_next_removes(here):
    draft = here.queue / f"{submissions.DRAFT}00001"
    draft.mkdir(parents=True)
    (draft / "study.toml").write_text("torn")
    assert queue.entries(here) == ()
    assert queue.submit(here, TINY).id == "00001"
    assert not draft.exists()


def _submit(store, count):
    for number in range(count):
        queue.submit(store, f'name = "x"\nseeds = 2\nmetric = "test/accuracy"\n{RECIPE}', key=str(number))


def test_submissions_of_many_processes_get_ids_of_their_own_and_a_key_once(here):
    processes = [
        multiprocessing.get_context("fork").Process(target=_submit, args=(here, 5)) for _ in range(4)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    there = queue.entries(here)
    assert [process.exitcode for process in processes] == [0] * 4
    assert len(there) == 5
    assert {entry.key for entry in there} == set("01234")
