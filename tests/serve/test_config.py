"""The configuration of a service: all mistakes at once, and defaults without a file."""

import pytest

from ablate.errors import AblateError
from ablate.serve import config

WHOLE = """
hosts = ["ablate.example.org"]
url = "https://ablate.example.org"
[submit]
networks = ["mynets:wide"]
[run]
options = ["--device", "cpu"]
[notify]
stalled = "2h"
[[notify.to]]
kind = "slack"
url_file = "secret"
events = ["decided"]
"""


def test_the_file_beside_the_store_is_read_and_none_is_needed(here):
    assert config.read(here) == config.Config()
    (here.path.parent / "ablate.toml").write_text(WHOLE)
    whole = config.read(here)
    assert (whole.networks, whole.run.options) == (("mynets:wide",), ("--device", "cpu"))
    assert whole.notify.stalled_seconds == 7200
    assert whole.notify.to[0].events == ("decided",)


def test_a_receiver_may_have_its_address_in_a_file(tmp_path):
    path = tmp_path / "secret"
    path.write_text("https://hooks.example.org/x\n")
    assert config.Receiver(url_file=str(path)).address() == "https://hooks.example.org/x"
    path.write_text("nothing")
    with pytest.raises(AblateError, match="must have an address"):
        config.Receiver(url_file=str(path)).address()


def test_all_mistakes_are_shown_at_once_with_the_nearest_key(here):
    path = here.path.parent / "mine.toml"
    path.write_text(
        'host = "x"\n[run]\noptions = ["--store=x", "--wait"]\n[submit]\nnetworks = ["resnet18"]\n'
        '[notify]\nstalled = "soon"\n[[notify.to]]\nkind = "sms"\n[[notify.to]]\nurl = "ftp://x"\n'
    )
    with pytest.raises(AblateError) as raised:
        config.read(here, path)
    lines = [line.removeprefix(f"{path}: ") for line in str(raised.value).splitlines()]
    wrong = ["submit.networks[0]", "run.options", "notify.to[0].kind", "notify.to[1].url", "notify.stalled"]
    assert [line.split(":")[0] for line in lines] == [*wrong, "host"]
    assert "did you mean hosts?" in lines[-1]
    assert "--store=x, --wait" in lines[1]


@pytest.mark.parametrize("text", ["x = ", "[" * 10_000])
def test_what_is_no_toml_is_a_sentence(here, text):
    (here.path.parent / "ablate.toml").write_text(text)
    with pytest.raises(AblateError, match="is not TOML"):
        config.read(here)


def test_a_file_that_is_named_must_be_there(here):
    with pytest.raises(AblateError, match="cannot be read: No such file"):
        config.read(here, here.path / "no.toml")
