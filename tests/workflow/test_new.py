"""Studies to begin with: those that come with ablate, and those of a folder of images."""

import tomllib

import mounts
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from ablate.cli import main
from ablate.study import file as study_file
from ablate.workflow import new


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def init(*arguments):
    result = CliRunner().invoke(main, ["init", *arguments])
    return result.exit_code, result.output


def pictures(folder, counts, side=40):
    for split in ("train", "test"):
        for label, count in counts.items():
            (folder / split / label).mkdir(parents=True)
            for i in range(count if split == "train" else 2):
                pixels = np.random.default_rng(i).integers(0, 256, (side, side + 8, 3), np.uint8)
                Image.fromarray(pixels).save(folder / split / label / f"{i}.png")


def test_a_full_disk_leaves_no_empty_study(tmp_path, monkeypatch):
    with mounts.small(tmp_path / "disk", "64k"):
        monkeypatch.chdir(tmp_path / "disk")
        (tmp_path / "disk" / "filler").write_bytes(bytes(64 << 10))
        code, said = init("mine")
        assert (code, "mine.toml: cannot be written (No space left on device)" in said) == (2, True), said
        assert [path.name for path in (tmp_path / "disk").iterdir()] == ["filler"]
        monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("name", sorted(new.shipped()))
def test_each_study_of_ours_can_be_begun_with(name, here):
    code, said = init("mine", "--from", name)
    assert (code, said) == (
        0,
        "mine.toml is written: look at it, then\n  ablate plan mine.toml\n  ablate run mine.toml\n",
    )
    ours = tomllib.loads(new.shipped()[name])
    assert tomllib.loads((here / "mine.toml").read_text()) == ours | {"name": "mine"}
    study_file.load(here / "mine.toml")


def test_a_name_of_ours_is_that_study_and_another_the_quickstart(here):
    assert (init("quickstart")[0], init("other.toml")[0]) == (0, 0)
    first, other = ((here / f"{name}.toml").read_text() for name in ("quickstart", "other"))
    assert "ablate run quickstart.toml" in first
    assert "studies/" not in first
    assert tomllib.loads(other) == tomllib.loads(first) | {"name": "other"}


def test_a_study_file_is_copied_and_one_that_is_none_refused(here):
    init("first")
    assert init("second", "--from", "first.toml")[0] == 0
    assert study_file.load(here / "second.toml").name == "second"
    (here / "bad.toml").write_text("name = 3")
    code, said = init("third", "--from", "bad.toml")
    assert (code, "bad.toml: name:" in said, (here / "third.toml").exists()) == (2, True, False)


def test_images_are_looked_at_and_the_study_is_theirs(here):
    pictures(here / "pets", {"cat": 30, "dog \u00fc": 20})
    code, said = init("pets-study", "--images", "pets")
    assert code == 0, said
    for line in (
        "2 classes: cat, dog \u00fc",
        "50 images in train/, 20 to 30 a class; 4 in test/",
        "resized to 32",
    ):
        assert line in said
    text = (here / "pets-study.toml").read_text()
    assert "# Seen: 2 classes: cat, dog \u00fc" in text
    study = study_file.load(here / "pets-study.toml")
    assert (study.base["data.root"], study.base["data.image_size"]) == ("pets", 32)
    assert study.factors[0].name == "augment.crop"
    planned = CliRunner().invoke(main, ["plan", "pets-study.toml"])
    assert planned.exit_code == 0, planned.output


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("quickstart.toml",), "quickstart.toml is there already: choose another name"),
        (("a", "--from", "augmentatoin"), "(did you mean augmentation?)"),
        (("nowhere/a",), "nowhere must be a folder, and there is none"),
        (("a", "--images", "nowhere"), "nowhere"),
        (("a", "--images", ".", "--from", "quickstart"), "exclude each other"),
    ],
)
def test_a_mistake_is_a_sentence(arguments, sentence, here):
    init("quickstart")
    code, said = init(*arguments)
    assert (code, sentence in said) == (2, True), said
    assert "Traceback" not in said
    assert [path.name for path in here.iterdir()] == ["quickstart.toml"]
