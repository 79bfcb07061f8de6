"""How long work takes before anything was trained: a rough guess, or nothing."""

import pytest
from click.testing import CliRunner
from PIL import Image

from ablate.cli import main
from ablate.execution import options
from ablate.planning import costs
from ablate.recipe import networks
from ablate.recipe.fields import Data, Model, Recipe, Training
from ablate.store import layout
from ablate.study import file as study_file
from ablate.workflow import plan as planning

TEXT = """name = "folder"
[recipe]
data = { name = "imagefolder", root = "ROOT", image_size = 16, validation = 0.25 }
model.name = "MODEL"
training = { epochs = 2, precision = "fp32" }
[factors]
augment.rotation = [0, 15]
"""


@pytest.fixture
def images(tmp_path):
    """Write a folder of images that nobody has decoded."""
    for split, count in (("train", 8), ("test", 2)):
        for label in ("a", "b"):
            (tmp_path / "images" / split / label).mkdir(parents=True)
            for i in range(count):
                Image.new("RGB", (16, 16), (i, 0, 0)).save(tmp_path / "images" / split / label / f"{i}.png")
    return tmp_path / "images"


def seconds(here, **sections):
    made = Recipe(training=Training(epochs=2, precision="fp32"), **({"data": Data(name="digits")} | sections))
    found = costs.training(costs.Pace(here), made, "not decoded yet")
    return None if found is None else (found.seconds, found.is_guess)


def test_a_folder_that_is_not_decoded_is_counted_by_its_files(here, images):
    data = Data(name="imagefolder", root=str(images), image_size=32, validation=0.25)
    (time, is_guess) = seconds(here, data=data, model=Model(name="cnn4"))
    assert is_guess
    assert time == pytest.approx(2 * 12 / (networks.facts("cnn4").speed / 2))
    assert (
        seconds(
            here, data=data.model_copy(update={"root": str(images / "nowhere")}), model=Model(name="cnn4")
        )
        is None
    )


def test_a_folder_that_is_not_decoded_is_counted_where_the_study_has_it_by_any_usual_name(
    tmp_path, images, monkeypatch
):
    (images / "train").rename(images / "Training")
    (tmp_path / "folder.toml").write_text(TEXT.replace("ROOT", "images").replace("MODEL", "cnn4"))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    loaded = study_file.load(tmp_path / "folder.toml")
    made = planning.plan(loaded, options.Where(layout.open_store(tmp_path / "mlruns"), device="cpu"))
    trained = (
        2 * 2 * 12 / (networks.facts("cnn4").speed * 4 / 2)
    )  # trainings x epochs x images, of 16 pixels a side in fp32
    assert made.cost.seconds == pytest.approx(5 * trained)


def test_a_guess_is_made_for_any_form_of_a_network_that_is_known(here):
    whole, _ = seconds(here, model=Model(name="cnn4"))
    assert (
        seconds(here, model=Model(name="cnn4", trainable="head"))[0]
        < whole
        < seconds(here, model=Model(name="cnn4", width=2.0))[0]
    )
    assert (
        seconds(here, model=Model(name="resnet18", stem="imagenet"))[0]
        < seconds(here, model=Model(name="resnet18"))[0]
    )
    assert seconds(here, model=Model(name="own:net")) is None


@pytest.mark.parametrize(
    ("model", "line"),
    [
        ("cnn4", "(a rough guess; the first jobs will tell)"),
        ("resnet50", "not known before the first job of each network has ended"),
    ],
)
def test_the_first_plan_says_how_long_or_when_that_is_known(tmp_path, images, model, line):
    file = tmp_path / "folder.toml"
    file.write_text(TEXT.replace("ROOT", str(images)).replace("MODEL", model))
    done = CliRunner().invoke(
        main, ["plan", str(file), "--store", str(tmp_path / "mlruns")], env={"COLUMNS": "200"}
    )
    assert done.exit_code == 0, done.output
    (time,) = [row for row in done.stdout.splitlines() if row.startswith("time")]
    assert line in time
