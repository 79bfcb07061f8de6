"""A mailbox hands each task to one agent, and loses none."""

import os

import mounts
import pytest

from ablate.errors import AblateError
from ablate.execution.executors.mailbox import Mailbox, Tail


@pytest.fixture
def mailbox(tmp_path):
    made = Mailbox(tmp_path / "mailbox")
    made.make()
    return made


def post(mailbox, *tasks):
    return [mailbox.post(i, task, {"id": task}) for i, task in enumerate(tasks)]


def test_tasks_are_there_in_their_order_until_one_agent_has_them(mailbox):
    first, second, third = post(mailbox, "z", "a", "ä/🎲 \ud800")
    assert mailbox.unclaimed() == [first, second, third]
    assert mailbox.claim(first, "1_0.0")
    assert not mailbox.claim(first, "1_1.0")
    assert mailbox.unclaimed() == [second, third]
    assert (mailbox.owner(first), mailbox.owner(second)) == ("1_0.0", None)
    assert dict(mailbox.claimed()) == {first: "1_0.0"}
    assert mailbox.read(third) == {"id": "ä/🎲 \ud800"}
    mailbox.inherit(first, "1_0.1")
    assert mailbox.owner(first) == "1_0.1"
    mailbox.release(first)
    assert mailbox.unclaimed() == [first, second, third]


def test_a_claim_for_which_the_disk_has_no_room_is_not_left_behind(tmp_path):
    with mounts.small(tmp_path / "disk", "64k"):
        (mailbox := Mailbox(tmp_path / "disk" / "mailbox")).make()
        (name,) = post(mailbox, "a")
        mounts.fill(filler := tmp_path / "disk" / "filler")
        with pytest.raises(OSError, match="No space left"):
            mailbox.claim(name, "1_0.0")
        assert mailbox.unclaimed() == [name]
        filler.unlink()
        assert mailbox.claim(name, "1_0.0")


def test_a_task_that_ended_after_it_was_listed_is_not_taken_again(mailbox):
    (name,) = post(mailbox, "a")
    mailbox.request(name, "stop")
    assert mailbox.requests() == {name: "stop"}
    mailbox.remove(name)
    assert not mailbox.claim(name, "1_0.0")
    assert (mailbox.names(), mailbox.requests(), list(mailbox.claimed()), mailbox.read(name)) == (
        [],
        {},
        [],
        None,
    )


def test_a_line_that_is_being_written_is_read_when_it_is_whole_and_a_broken_one_passed_over(mailbox):
    path = mailbox.news("1_0.0")
    tail = Tail(path)
    assert tail.read() == []
    path.write_text('{"kind": "started", "task": "a"}\n{"kind": "fin')
    assert [line["kind"] for line in tail.read()] == ["started"]
    with path.open("a") as file:
        file.write('ished", "task": "a"}\n{"kind": "sta\n{"kind": "gone"}\n')
    assert [line["kind"] for line in tail.read()] == ["finished", "", "gone"]
    assert tail.read() == []
    assert mailbox.lives() == ["1_0.0"]


def test_what_is_left_of_it_is_counted_by_what_agents_have_said(mailbox):
    ended, running, _ = post(mailbox, "a", "b", "c")
    for name in (ended, running):
        mailbox.claim(name, "1_0.0")
    mailbox.news("1_0.0").write_text(
        f'{{"kind": "started", "task": "{ended}"}}\n{{"kind": "finished", "task": "{ended}"}}\n'
    )
    assert mailbox.standing() == (1, 1)
    mailbox.clear()
    assert mailbox.standing() == (0, 0)


def test_a_closed_mailbox_is_open_again_for_the_next_coordinator(mailbox):
    mailbox.close()
    assert mailbox.is_closed
    mailbox.make()
    assert not mailbox.is_closed
    mailbox.clear()
    assert mailbox.is_closed  # for agents that are still there


@pytest.mark.parametrize("mode", [0o770, 0o707])
def test_a_folder_that_others_can_write_to_is_no_mailbox(mailbox, mode):
    mailbox.check()
    mailbox.path.chmod(mode)
    with pytest.raises(AblateError, match="must be a folder of yours that nobody else can write to"):
        mailbox.check()


def test_a_link_is_no_mailbox(mailbox, tmp_path):
    link = tmp_path / "link"
    link.symlink_to(mailbox.path)
    with pytest.raises(AblateError, match="must be a folder of yours"):
        Mailbox(link).make()


def test_where_a_link_leads_nothing_is_made_or_removed(tmp_path):
    private = tmp_path / "home" / "study"
    private.mkdir(parents=True)
    (private / "mine").write_text("mine")
    (tmp_path / "slurm").symlink_to("home")
    mailbox = Mailbox(tmp_path / "slurm" / "study")
    for do in (mailbox.clear, mailbox.make, Mailbox(tmp_path / "slurm" / "new").make):
        with pytest.raises(AblateError, match="must be a folder of yours that nobody else can write to"):
            do()
    assert mailbox.standing() == (0, 0)
    assert [path.name for path in (tmp_path / "home").rglob("*")] == ["study", "mine"]


def test_what_is_in_another_ones_mailbox_is_not_read(mailbox):
    os.mkfifo(mailbox.news("1_0.0"))  # whoever opens it waits for ever
    mailbox.path.chmod(0o777)
    assert mailbox.standing() == (0, 0)


def test_a_mailbox_that_was_never_there_is_cleared_and_counted(tmp_path):
    mailbox = Mailbox(tmp_path / "none")
    mailbox.clear()
    assert mailbox.standing() == (0, 0)
