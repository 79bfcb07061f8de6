"""The pages as they are sent: readable without scripts, harmless whatever a study says; who is let in."""

import json
import re
import time
from html.parser import HTMLParser
from urllib.parse import quote

import pytest
from commands import TINY, ablate
from services import serving

from ablate.serve.addresses import segment
from ablate.serve.guard import COOKIE

TOKEN = "correct-horse-battery-staple"
HTML = {"Accept": "text/html,*/*"}
FORM = {"Content_Type": "application/x-www-form-urlencoded", **HTML}
EVIL = '</title><script>alert(1)</script>"><img src=x onerror=alert(2)>{{7*7}}'


class Page(HTMLParser):
    """The tags and the text of a page."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.texts = [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.texts.append(data)

    @property
    def text(self):
        return " ".join("".join(self.texts).split())

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


def page(client, path, code=200):
    answer = client("GET", path, **HTML)
    assert answer.status == code, answer.text
    assert answer.headers["content-type"].startswith("text/html")
    made = Page(answer.text)
    for tag, attributes in made.tags:
        assert "style" not in attributes, "the policy forbids it"
        assert not [name for name in attributes if name.startswith("on")], tag
        assert tag != "style"
    assert {script["src"].partition("?")[0] for script in made.all("script")} == {"/static/script.js"}
    assert made.all("main")
    assert len(made.all("h1")) == 1
    return made


@pytest.fixture(scope="module")
def client(done):
    with serving(done[0] / "store") as asked:
        yield asked


def wait_for_verdicts(client):
    end = time.monotonic() + 300
    while "The verdicts are being computed" in page(client, "/studies/tiny").text:
        assert time.monotonic() < end, "the verdicts do not come"
        time.sleep(0.1)


def test_a_study_is_read_without_scripts(client, done):
    wait_for_verdicts(client)
    made = page(client, "/studies/tiny")
    told = json.loads(ablate("report", "tiny", "--json", "--store", done[0] / "store")[1])
    for sentence in told["headline"]:
        assert " ".join(sentence.split()) in made.text
    for effect in told["effects"]:
        assert effect["change"] in made.text
    fields = [attributes for attributes in made.all("td") if "data-seed" in attributes]
    assert len(fields) == 8
    assert all(attributes["class"].startswith("finished") for attributes in fields)
    for cell in told["cells"]:
        for value in cell["values"].values():
            assert f"{100 * value:.2f}" in made.text
    assert "8 of 8 runs ended" in made.text


def test_the_first_page_lists_studies_and_submissions(tmp_path):
    with serving(tmp_path / "store") as asked:
        assert "No study was run in this store yet" in page(asked, "/").text
        asked.post("/queue?by=Ada", TINY)
        asked.post("/queue?set=name=second&priority=3", TINY)
        text = page(asked, "/").text
        assert text.index("second") < text.index("tiny")
        assert "by Ada" in text
        assert "priority 3" in text
        waiting = page(asked, "/studies/tiny")
        assert "Waiting for its turn." in waiting.text
        assert TINY.split()[-1] in page(asked, "/queue/00001").text


@pytest.mark.parametrize(
    "path", ["/studies/nope", "/queue/00009", "/nothing", "/studies/tiny/log?cell=no&seed=0"]
)
def test_what_is_not_there_is_a_page_with_a_sentence(path, client):
    assert "To the queue" in page(client, path, 404).text


def test_a_clone_has_the_text_and_what_had_changed_it(tmp_path):
    with serving(tmp_path / "store") as asked:
        entry = asked.post("/queue?set=seeds=3&set=name=mine", TINY).json
        made = page(asked, f"/new?entry={entry['id']}")
        assert "Clone of mine" in made.text
        assert "seeds=3 name=mine" in made.text
        assert "[factors]" in made.text


def test_two_studies_are_shown_side_by_side(client):
    made = page(client, "/compare?first=tiny&second=tiny")
    assert len(made.all("table")) == 1
    assert [option["value"] for option in made.all("option") if "selected" in option] == ["tiny", "tiny"]


def test_a_report_stands_in_a_frame_that_may_do_nothing(client):
    (frame,) = page(client, "/studies/tiny/report").all("iframe")
    assert frame["sandbox"] == "allow-scripts allow-downloads"
    embedded = client("GET", frame["src"])
    policy = embedded.headers["content-security-policy"]
    assert policy.startswith("sandbox allow-scripts allow-downloads; default-src 'none'")
    assert "frame-ancestors 'self'" in policy
    assert "connect-src" not in policy
    assert embedded.text.startswith("<!doctype html>")
    assert "Plotly" in embedded.text
    for path in ("/", "/studies/tiny", "/studies/tiny/report"):
        own = client("GET", path, **HTML).headers["content-security-policy"]
        assert "unsafe" not in own
        assert "frame-ancestors 'none'" in own


def test_a_log_is_shown(client, done):
    out = ablate("logs", "tiny:baseline/0", "--store", done[0] / "store")[1]
    assert " ".join(out.split()) in page(client, "/studies/tiny/log?cell=baseline&seed=0").text


def test_script_in_every_field_stays_text(tmp_path):
    text = TINY.replace('"Does it run?"', json.dumps(EVIL)).replace('"BatchNorm helps"', json.dumps(EVIL))
    text = text.replace('name       = "tiny"', f"name = {json.dumps(EVIL)}")
    with serving(tmp_path / "store") as asked:
        entry = asked.post(f"/queue?by={quote(EVIL)}", text).json
        from ablate.execution.options import Where
        from ablate.store import layout, study_folder
        from ablate.store.study_folder import Settled
        from ablate.study import file as study_file

        store = Where(layout.open_store(tmp_path / "store")).store
        paths = ["/", f"/queue/{entry['id']}", f"/new?entry={entry['id']}", f"/studies/{segment(EVIL)}"]
        shown = [page(asked, path) for path in paths]
        study_folder.keep(store, study_file.parse(text, "test"), Settled())
        paths = [
            "/",
            f"/studies/{segment(EVIL)}",
            f"/studies/{segment(EVIL)}/report",
            f"/new?study={quote(EVIL)}",
            f"/compare?first={quote(EVIL)}",
            f"/studies/{segment(EVIL)}/log?cell=baseline&seed=0",
        ]
        for made in (*shown, *(page(asked, path) for path in paths)):
            assert len(made.all("script")) == 1
            assert not made.all("img")
            assert "{{7*7}}" in made.text
        page(asked, f"/login?next={quote(EVIL)}")
        page(asked, f"/studies/{segment(EVIL)}?page={quote(EVIL)}", 422)


@pytest.fixture(scope="module")
def locked(done):
    with serving(done[0] / "store", TOKEN) as asked:
        asked.headers = {}
        yield asked


@pytest.fixture(autouse=True)
def forgiven(request):
    if "locked" in request.fixturenames:
        request.getfixturevalue("locked").server.config.app.patience._wrong.clear()


def test_somebody_without_a_token_is_asked_for_it_and_comes_back_to_where_he_was_going(locked):
    answer = locked("GET", "/studies/tiny?page=1", **HTML)
    assert (answer.status, answer.headers["location"]) == (303, "/login?next=%2Fstudies%2Ftiny%3Fpage%3D1")
    made = page(locked, answer.headers["location"])
    assert "store" not in re.sub(r"of its store", "", made.text)
    (there,) = [one["value"] for one in made.all("input") if one["name"] == "next"]
    answer = locked("POST", "/login", f"token={TOKEN}&next={quote(there, safe='')}", **FORM)
    assert (answer.status, answer.headers["location"]) == (303, "/studies/tiny?page=1")
    cookie = answer.headers["set-cookie"]
    assert re.search(r"HttpOnly; Max-Age=\d+; Path=/; SameSite=strict$", cookie), cookie
    assert TOKEN not in cookie
    session = cookie.partition(";")[0]
    assert locked("GET", "/studies/tiny", Cookie=session, **HTML).status == 200
    assert locked.get("/studies", Cookie=session).status == 200
    assert locked("GET", "/studies/tiny", Cookie=f"{session}0", **HTML).status == 303
    assert (
        locked("POST", "/logout", "", Cookie=session, **FORM).headers["set-cookie"].startswith(f'{COOKIE}=""')
    )


@pytest.mark.parametrize(
    "there", ["https://evil.example", "//evil.example", "/\\evil.example", "/\t/evil.example", "x"]
)
def test_nobody_is_sent_elsewhere_after_signing_in(there, locked):
    answer = locked("POST", "/login", f"token={TOKEN}&next={quote(there, safe='')}", **FORM)
    assert (answer.status, answer.headers["location"]) == (303, "/")


def test_a_wrong_token_is_told_and_a_form_of_another_site_is_not_read(locked):
    answer = locked("POST", "/login", "token=wrong", **FORM)
    assert answer.status == 401
    assert "this is not the token" in answer.text
    assert "set-cookie" not in answer.headers
    assert locked("POST", "/login", f"token={TOKEN}", Origin="https://evil.example", **FORM).status == 403


def test_style_and_script_are_for_everybody_and_nothing_else_is_there(locked):
    assert locked("GET", "/static/style.css").headers["content-type"].startswith("text/css")
    for path in (
        "/static/../app.py",
        "/static/%2e%2e%2fapp.py",
        "/static/base.html.j2",
        "/static//etc/passwd",
    ):
        assert locked("GET", path).status in (401, 404)
