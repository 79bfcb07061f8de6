"""Notifications: each event is told once to each receiver, through failures and restarts."""

import shutil
import time
from datetime import UTC, datetime, timedelta

import pytest
from commands import TINY
from receivers import Receiver

from ablate.serve import notify, post
from ablate.serve.config import Config
from ablate.serve.notify import Notifier
from ablate.serve.post import Message, PostError
from ablate.store import layout
from ablate.store import queue as submissions
from ablate.workflow import queue

MESSAGE = Message(
    id="1", event="failed", study="<!channel> & @everyone", submission="00001", state="failed", reason="",
    text="ablate: <!channel> & @everyone has failed", time="2026-01-01T00:00:00+00:00", url="https://x/studies/a",
)  # fmt: skip


@pytest.fixture
def receiver():
    made = Receiver()
    yield made
    made.close()


@pytest.fixture
def teller(here, receiver):
    """Return a function that makes a notifier of a new service, whose thread does not run."""

    def make(url=receiver.url, allow_private=True, events=("finished", "failed"), **options):
        told = [{"url": url, "events": list(events)}]
        content = {"notify": {"to": told, "allow_private": allow_private}, "url": "https://x/"}
        made = Notifier(here, Config.model_validate(content), first=0.0, **options)
        made._thread.start = lambda: None
        return made

    return make


def over(store, state="done", ended=None):
    """Submit a study, and let it have ended."""
    entry = queue.submit(store, TINY)
    with submissions.changing(store):
        changes = {
            "state": state,
            "ended": ended or datetime.now(UTC),
            "reason": "why" if state == "failed" else "",
        }
        return submissions.write(store, entry.model_copy(update=changes))


def test_an_event_is_told_once_whatever_is_restarted(here, receiver, teller):
    first = teller()
    first.look(queue.entries(here))
    entry = over(here)
    for one in (first, first, teller(), teller()):
        one.look(queue.entries(here))
        one.send()
    ((path, body, headers),) = receiver.came
    assert path == "/hook"
    assert (body["event"], body["submission"], body["state"]) == ("finished", entry.id, "done")
    assert body["url"] == "https://x/studies/tiny"
    assert headers["Idempotency-Key"] == body["id"]
    over(here, "failed")
    one.look(queue.entries(here))
    one.send()
    assert receiver.events == ["finished", "failed"]
    assert receiver.came[1][1]["text"] == "ablate: tiny has failed (why)"


def test_what_fails_again_after_it_was_resumed_is_told_again(here, receiver, teller):
    one = teller()
    one.look(())
    for _ in range(2):
        entry = over(here, "failed")
        one.look(queue.entries(here))
        queue.resume(here, entry.id)
        one.look(queue.entries(here))
    one.send()
    assert receiver.events == ["failed", "failed"]


def test_what_could_not_be_told_is_told_later_by_the_next_service_too(here, receiver, teller):
    receiver.answers = [500, 302, 404]
    one = teller()
    one.look(())
    over(here)
    one.look(queue.entries(here))
    for _ in range(3):
        one.send()
    two = teller()
    two.look(queue.entries(here))
    two.send()
    assert receiver.events == ["finished"] * 4
    assert len({body["id"] for _, body, _ in receiver.came}) == 1
    assert {path for path, _, _ in receiver.came} == {"/hook"}  # the redirect was not followed


def test_tries_become_rarer(here, receiver, teller):
    receiver.answers = [500] * 9
    now = time.time()
    one = teller(clock=lambda: now)
    one._first = 2.0
    one.look(())
    over(here, ended=datetime.fromtimestamp(now, UTC) + timedelta(seconds=1))
    one.look(queue.entries(here))
    waits = []
    for _ in range(4):
        waits.append(one.send())
        now += waits[-1]
    assert waits == pytest.approx([2, 4, 8, 16])
    assert len(receiver.came) == 4


def test_nothing_old_is_told(here, receiver, teller):
    over(here)
    over(here, ended=datetime.now(UTC) - timedelta(days=2))
    one = teller()
    one.look(queue.entries(here))
    one.send()
    assert receiver.came == []


def test_without_receivers_nothing_is_written(here):
    Notifier(here, Config()).look((over(here),))
    assert not (here.queue / "outbox").exists()


def test_a_private_address_is_refused_unless_that_is_allowed(here, receiver, teller, caplog):
    one = teller(allow_private=False)
    one.look(())
    over(here)
    one.look(queue.entries(here))
    one.send()
    assert receiver.came == []
    assert "127.0.0.1: is of a private network: allow_private = true under [notify]" in caplog.text
    assert "/hook" not in caplog.text


@pytest.mark.parametrize(
    ("address", "is_public"),
    [
        ("93.184.215.14", True), ("2606:2800:21f:cb07:6820:80da:af6b:8b2c", True), ("127.0.0.1", False),
        ("10.1.2.3", False), ("169.254.169.254", False), ("192.168.0.1", False), ("100.64.0.1", False),
        ("0.0.0.0", False), ("224.0.0.1", False), ("::1", False), ("fe80::1%eth0", False), ("fd00::1", False),
        ("::ffff:127.0.0.1", False), ("64:ff9b::a00:1", False), ("2002:7f00:1::", False),
    ],
)  # fmt: skip
def test_public_addresses_are_told_from_others_however_they_are_written(address, is_public):
    assert post.is_public(address) == is_public


@pytest.mark.parametrize("host", ["localhost", "127.1", "2130706433", "[::1]", "[::ffff:127.0.0.1]"])
def test_what_a_name_stands_for_is_judged(receiver, host):
    url = receiver.url.replace("127.0.0.1", host)
    with pytest.raises(PostError, match="private network"):
        post.send(url, "webhook", MESSAGE, allow_private=False)
    assert receiver.came == []


def test_each_kind_has_its_form_and_names_call_nobody(receiver):
    for kind in ("webhook", "slack", "discord"):
        post.send(receiver.url, kind, MESSAGE, allow_private=True)
    plain, slack, discord = (body for _, body, _ in receiver.came)
    assert plain["study"] == MESSAGE.study
    assert slack == {"text": "ablate: &lt;!channel&gt; &amp; @everyone has failed\n<https://x/studies/a>"}
    assert discord["allowed_mentions"] == {"parse": []}
    assert discord["content"].startswith(MESSAGE.text)


def test_nobody_there_is_said_without_the_address():
    with pytest.raises(PostError) as raised:
        post.send("http://127.0.0.1:9/secret", "webhook", MESSAGE, allow_private=True)
    assert "secret" not in str(raised.value)
    assert "127.0.0.1" in str(raised.value)


@pytest.fixture(scope="module")
def finished(done, tmp_path_factory):
    """Return the store of a study that has finished, with its submission."""
    folder, _ = done
    return layout.open_store(shutil.copytree(folder / "store", tmp_path_factory.mktemp("copy") / "store"))


@pytest.mark.slow
def test_a_study_that_has_finished_is_told_as_decided_if_it_is(finished, teller, monkeypatch, receiver):
    one = teller(events=("decided", "finished"))
    one.store = finished
    asked = []

    def ask(store, study):
        asked.append(study)
        return real(store, study)

    real = notify.is_decided
    monkeypatch.setattr(notify, "is_decided", ask)
    one.look(())
    entry = queue.submit(finished, TINY)
    with submissions.changing(finished):
        submissions.write(finished, entry.model_copy(update={"state": "done", "ended": datetime.now(UTC)}))
    for _ in range(2):
        one.look(queue.entries(finished))
        one._watch()
    one.send()
    assert asked == ["tiny"]
    assert ("decided" in receiver.events) == real(finished, "tiny")


def test_a_running_study_that_does_not_move_has_stalled_once(finished, teller, receiver):
    now = time.time()
    one = teller(events=("stalled",), clock=lambda: now)
    one.store = finished
    entry = queue.submit(finished, TINY)
    running = entry.model_copy(update={"state": "running", "started": datetime.now(UTC)})
    one.look((running,))
    one._watch()
    assert one._notes == {}
    for seconds in (1801, 61):
        now += seconds
        one._watch()
    one.send()
    assert receiver.events == ["stalled"]
    assert receiver.came[0][1]["text"] == "ablate: tiny has not moved for 30m"
