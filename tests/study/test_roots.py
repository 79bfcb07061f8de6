"""Where the images of a study are: relative to its file, like its own networks; missing ones are reported."""

import json
import os
import re
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
import record_files
from click.testing import CliRunner
from PIL import Image

from ablate import cli
from ablate.errors import DataError
from ablate.execution import options
from ablate.planning import inputs, network_checks
from ablate.recipe import identity as identities
from ablate.store import files, job_folder, layout, study_folder
from ablate.study import file as study_file
from ablate.study import grid
from ablate.study.grid import Fingerprints
from ablate.training import datasets
from ablate.workflow import plan as planning

TEXT = """
name  = "pets"
seeds = 1

[recipe]
data = { name = "imagefolder", root = "imgs", image_size = 16 }
model.name = "cnn4"
training = { epochs = 1, batch_size = 8, precision = "fp32" }

[factors]
augment.flip = [true, false]
"""


def draw(root):
    for split in ("train", "test"):
        for label in ("cat", "dog"):
            (root / split / label).mkdir(parents=True)
            for i in range(3):
                pixels = np.random.default_rng(hash((split, label, i)) % 2**32).integers(
                    0, 256, (16, 16, 3), np.uint8
                )
                Image.fromarray(pixels).save(root / split / label / f"{i}.png")


@pytest.fixture
def project(tmp_path, monkeypatch):
    """Make a study, its images beside it, and a folder elsewhere, which is the current one."""
    (tmp_path / "project").mkdir()
    (tmp_path / "project/pets.toml").write_text(TEXT)
    draw(tmp_path / "project/imgs")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    return tmp_path / "project"


def place(checked):
    """Return the folder that the images of a study are looked for in."""
    (cell, *_) = grid.expand(checked, precision="fp32").cells
    return study_file.located(checked, cell.recipe.data).root


def plan(checked, here):
    return planning.plan(checked, options.Where(here, device="cpu"), check=True)


def settled(checked, here):
    """Decode the images of a study as its run does, and keep what that settles."""
    known, said = inputs.read(checked, here, "cpu"), []
    fingerprints = Fingerprints(inputs.decode(known, said.append))
    study_folder.keep(here, checked, inputs.settle(known, fingerprints))
    return said


# What a relative path starts from


def test_a_path_of_a_study_starts_from_its_file(project):
    assert place(study_file.load(project / "pets.toml")) == str(project / "imgs")
    assert place(study_file.load(project / "pets.toml", ("data.root=~/imgs",))) == "~/imgs"
    assert place(study_file.load(project / "pets.toml", ("data.root=/a/b",))) == "/a/b"


def test_a_path_of_the_command_line_starts_from_the_current_directory(project, tmp_path):
    here = str(tmp_path / "elsewhere" / "mine")
    table = 'data={ name = "imagefolder", root = "mine", image_size = 16 }'
    for given in ("data.root=mine", 'data.root="mine"', "recipe.data.root=mine", table):
        assert place(study_file.load(project / "pets.toml", (given,))) == here
    (project / "varied.toml").write_text(TEXT.replace('root = "imgs", ', ""))
    varied = study_file.load(project / "varied.toml", ('factors.data.root=["mine", "/a/b"]',))
    assert [
        level.set["data.root"]
        for factor in varied.factors
        if factor.name == "data.root"
        for level in factor.levels
    ] == [here, "/a/b"]


def test_a_study_of_the_store_finds_its_images_from_anywhere(project, tmp_path, monkeypatch):
    here = layout.open_store(tmp_path / "store")
    loaded = study_file.load(project / "pets.toml")
    settled(loaded, here)
    recalled = study_folder.recall(here, "pets")
    assert (place(recalled), recalled.folder) == (str(project / "imgs"), "")
    assert place(planning.load("pets", (), here, seeds=3)) == str(project / "imgs")
    assert [job.id for job in plan(recalled, here).jobs] == [job.id for job in plan(loaded, here).jobs]
    monkeypatch.chdir(project)
    project.rename(tmp_path / "moved")  # images, study and all
    monkeypatch.chdir(tmp_path / "moved")
    assert os.path.realpath(place(recalled)) == os.path.realpath(tmp_path / "moved/imgs")


def test_a_study_that_an_older_version_has_kept_starts_from_the_current_directory_as_then(
    project, tmp_path, monkeypatch
):
    here = layout.open_store(tmp_path / "store")
    settled(study_file.load(project / "pets.toml"), here)
    path = here.study("pets") / "study.json"
    kept = json.loads(path.read_text())
    del kept["folder"]
    path.write_text(json.dumps(kept))
    monkeypatch.chdir(project)
    recalled = study_folder.recall(here, "pets")
    assert os.path.realpath(place(recalled)) == str(project / "imgs")
    assert not any(job.data.startswith("not decoded") for job in plan(recalled, here).jobs)


def test_the_place_is_no_part_of_an_identity(project, tmp_path):
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy/pets.toml").write_text(TEXT)
    draw(tmp_path / "copy/imgs")
    here, ids = layout.open_store(tmp_path / "store"), []
    for folder in (project, tmp_path / "copy"):
        loaded = study_file.load(folder / "pets.toml")
        settled(loaded, here)
        ids.append([job.id for job in plan(loaded, here).jobs])
    assert ids[0] == ids[1]


# Data that are not there


def planned(*arguments):
    done = CliRunner().invoke(cli.main, ["plan", *map(str, arguments)])
    return done.exit_code, done.output + (done.stderr or "")


def test_plan_says_which_folder_is_missing_and_which_one_is_near(project):
    code, out = planned(project / "pets.toml", "--set", f"data.root={project}/img")
    assert code == 2
    assert re.search(
        rf"{project}/img must be a folder with .* and is not there "
        rf"\(did you mean {project}/imgs\?\): check data\.root",
        out,
    )
    assert not list(project.parent.glob("*/mlruns"))


def test_a_study_that_worked_from_the_current_directory_only_is_told_both_places(project, tmp_path):
    draw(tmp_path / "elsewhere/imgs")
    (project / "imgs").rename(project / "gone")
    with pytest.raises(DataError) as caught:
        plan(study_file.load(project / "pets.toml"), layout.open_store(tmp_path / "store"))
    assert str(caught.value) == (
        f"{project}/imgs must be a folder with train/<class>/* and test/<class>/*, and is not there: check "
        "data.root "
        f'(data.root = "imgs" is relative to the folder of the study file, {project}); the current '
        f"directory has {tmp_path}/elsewhere/imgs"
        ': write data.root = "../elsewhere/imgs" in the study, or give --set data.root=imgs'
    )
    assert (
        plan(
            study_file.load(project / "pets.toml", ("data.root=imgs",)), layout.open_store(tmp_path / "store")
        ).trainings
        == 2
    )


def test_plan_of_a_study_whose_images_are_gone_goes_by_its_last_run(project, tmp_path):
    here = layout.open_store(tmp_path / "store")
    loaded = study_file.load(project / "pets.toml")
    settled(loaded, here)
    before = plan(loaded, here)
    (project / "imgs").rename(project / "gone")
    assert [job.id for job in plan(loaded, here).jobs] == [job.id for job in before.jobs]
    with pytest.raises(DataError, match="other/imgs must be a folder"):
        plan(study_file.load(project / "pets.toml", (f"data.root={tmp_path}/other/imgs",)), here)


NETS = """
from torch import nn
def one(classes, channels, image_size):
    return nn.Sequential(nn.Flatten(), nn.Linear(channels * image_size**2, classes))
two = three = one
"""


def test_a_folder_is_looked_through_as_often_for_many_networks_and_cuts_as_for_one(
    project, tmp_path, monkeypatch
):
    (project / "few_nets.py").write_text(NETS)
    survey, seen, counts = datasets.folder.survey, [], []
    monkeypatch.setattr(
        network_checks, "_look", lambda *_: network_checks._Looked()
    )  # building networks takes seconds, and looks at no image
    monkeypatch.setattr(datasets.folder, "survey", lambda root: seen.append(root) or survey(root))
    one = TEXT.replace('"cnn4"', '"few_nets:one"')
    nets = 'model.name = ["few_nets:one", "few_nets:two", "few_nets:three"]'
    many = TEXT.replace('model.name = "cnn4"', "") + f"{nets}\ndata.train_size = [4, 5]\n"
    for text in (one, many):
        (project / "pets.toml").write_text(text)
        made = plan(study_file.load(project / "pets.toml"), layout.open_store(tmp_path / "store"))
        counts.append((len(made.grid.cells), len(seen)))
        seen.clear()
    assert [cells for cells, _ in counts] == [2, 12]
    assert counts[0][1] == counts[1][1] > 0


# Files that are not as they were


def finish(checked, here):
    """Decode the images of a study, and leave what its run leaves of each job."""
    said = settled(checked, here)
    for job in plan(checked, here).jobs:
        folder = here.job(job.id)
        job_folder.create(folder, job)
        files.write_json(folder.result, record_files.result(train_images=6))
        identity = identities.evaluation_id(job.recipe)
        files.write_json(
            folder.outcome(identity) / "outcome.json",
            record_files.evaluation(evaluation=job.recipe.evaluation.model_dump()),
        )
    return said


def test_files_with_another_time_and_the_same_pixels_are_the_images_of_the_last_run(project, tmp_path):
    here = layout.open_store(tmp_path / "store")
    loaded = study_file.load(project / "pets.toml")
    finish(loaded, here)
    before = plan(loaded, here)
    assert (before.done, before.notes) == (2, ())
    os.utime(project / "imgs/train/cat/0.png", (1, 1))
    made = plan(loaded, here)
    assert ([job.id for job in made.jobs], made.done, made.notes) == (
        [job.id for job in before.jobs],
        2,
        (inputs.CHANGED,),
    )
    assert [job.id for job in planning.plan(loaded, options.Where(here, device="cpu")).jobs] == [
        job.id for job in before.jobs
    ]
    (decoding,) = settled(loaded, here)
    assert (
        decoding
        == "decoding imagefolder at 16x16, again, as the files have changed or moved since the last run"
    )
    after = plan(loaded, here)
    assert ([job.id for job in after.jobs], after.done, after.notes) == (
        [job.id for job in before.jobs],
        2,
        (),
    )


def test_a_run_trains_anew_where_a_pixel_differs_although_it_was_asked_before_it_decoded(project, tmp_path):
    here = layout.open_store(tmp_path / "store")
    loaded = study_file.load(project / "pets.toml")
    finish(loaded, here)
    Image.new("RGB", (16, 16), (1, 2, 3)).save(project / "imgs/train/cat/0.png")
    assert (plan(loaded, here).done, plan(loaded, here).notes) == (2, (inputs.CHANGED,))
    known = inputs.read(loaded, here, "cpu")
    old = inputs.fingerprints(known, known.grid.cells)
    new = Fingerprints(inputs.decode(known, [].append))
    assert not {*old.data.values()} & {*new.data.values()}
    made = plan(loaded, here)
    assert (made.done, made.trainings, made.notes) == (
        0,
        2,
        ("2 jobs were trained on other images the last time",),
    )
    study_folder.keep(here, loaded, inputs.settle(known, new))
    assert plan(loaded, here).trainings == 2


def test_a_run_goes_on_with_images_that_are_gone_and_decoded(project, tmp_path):
    here = layout.open_store(tmp_path / "store")
    loaded = study_file.load(project / "pets.toml")
    finish(loaded, here)
    known = inputs.read(loaded, here, "cpu")
    before = inputs.settle(known, inputs.fingerprints(known, known.grid.cells))
    (project / "imgs").rename(tmp_path / "elsewhere/imgs")
    said = settled(loaded, here)
    assert len(said) == 1
    start = (
        f'{inputs.KEPT}: none are found at {project}/imgs (data.root = "imgs" is relative to the '
        f"folder of the study file, {project})"
    )
    assert said[0].startswith(f"{start}; the current directory has {tmp_path}/elsewhere/imgs: write")
    made = plan(loaded, here)
    assert (made.done, list(made.notes), study_folder.settled(here, "pets")) == (2, said, before)
    assert inputs.test_images(known) == 6
    assert list(inputs.shapes(known, [known.grid.cells[0].recipe.data]).values()) == [(3, 16, 2)]
    with pytest.raises(DataError, match=r"data\.train_size must be at most the 6 training images"):
        settled(study_file.load(project / "pets.toml", ("data.train_size=7",)), here)
    shutil.rmtree(here.data)
    (note,) = plan(loaded, here).notes
    assert note.startswith(f"{inputs.LOST}: none are found at {project}/imgs")
    with pytest.raises(
        DataError,
        match=r"is not there: check data\.root .*; the current directory has .*/imgs: write data\.root",
    ):
        settled(loaded, here)


def test_a_folder_that_only_the_store_names_is_not_decoded_into_it(project, tmp_path):
    here = layout.open_store(tmp_path / "store")
    settled(study_file.load(project / "pets.toml"), here)
    assert settled(study_folder.recall(here, "pets"), here) == []  # what is decoded there is read
    draw(tmp_path / "private")
    kept = here.study("pets") / "study.json"
    raw = json.loads(kept.read_text())
    raw["study"]["recipe"]["data"]["root"] = str(tmp_path / "private")  # by whoever writes to the store
    kept.write_text(json.dumps(raw))
    before = sorted(here.data.rglob("*"))
    with pytest.raises(DataError) as caught:
        settled(study_folder.recall(here, "pets"), here)
    assert str(caught.value) == (
        f'the images of "pets" are not decoded in this store as they are at {tmp_path / "private"}, and that '
        "folder is read only when you name the study's file, as in ablate run pets.toml"
    )
    assert sorted(here.data.rglob("*")) == before
    assert settled(study_file.load(project / "pets.toml", (f"data.root={tmp_path / 'private'}",)), here)


def test_a_reader_to_whom_the_folder_of_the_study_is_closed_is_told_the_same(project):
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    with tempfile.TemporaryDirectory() as name:
        here = layout.open_store(Path(name) / "store")
        finish(study_file.load(project / "pets.toml"), here)
        recalled = study_folder.recall(here, "pets")
        where = options.Where(here, device="cpu")
        mine = [job.id for job in planning.plan(recalled, where).jobs]
        Path(name).chmod(0o755)
        project.chmod(0o700)
        project.parent.chmod(0o700)
        try:
            os.seteuid(65534)
            with pytest.raises(PermissionError):
                project.is_dir()
            theirs = planning.plan(recalled, where)
        finally:
            os.seteuid(0)
    assert ([job.id for job in theirs.jobs], theirs.done) == (mine, 2)


# What is said of the images


def test_what_is_left_out_is_said_by_plan_when_decoding_and_in_meta_json(project, tmp_path):
    (project / "imgs/train/cat/Thumbs.db").write_text("x")
    (project / "imgs/test").rename(project / "imgs/val")
    here = layout.open_store(tmp_path / "store")
    loaded = study_file.load(project / "pets.toml")
    said = ("val/ is the test set, as there is no test/", "left out 1 file: 1 .db (train/cat/Thumbs.db)")
    assert plan(loaded, here).notes == said
    told = settled(loaded, here)
    assert told == ["decoding imagefolder at 16x16, once for this store", f"imagefolder: {'; '.join(said)}"]
    assert plan(loaded, here).notes == said
    assert settled(loaded, here) == [], "said once"
    (meta,) = here.data.glob("*/meta.json")
    assert tuple(json.loads(meta.read_text())["decoding"]) == said
    code, out = planned(project / "pets.toml", "--store", here.path, "--json")
    assert (code, json.loads(out)["notes"]) == (0, list(said))


def test_plan_says_that_an_older_version_has_decoded_the_images(project, tmp_path, monkeypatch):
    here = layout.open_store(tmp_path / "store")
    loaded = study_file.load(project / "pets.toml")
    older = datasets.source.older_key
    with monkeypatch.context() as as_before:
        as_before.setattr(datasets.source, "key", older)
        settled(loaded, here)
    made = plan(loaded, here)
    assert made.notes == (inputs.AGAIN,)
    assert not any(job.data.startswith("not decoded") for job in made.jobs)
    (first,) = settled(loaded, here)
    assert first == "decoding imagefolder at 16x16, again, as an older version has read some files otherwise"
    after = plan(loaded, here)
    assert after.notes == ()
    assert [job.id for job in after.jobs] == [job.id for job in made.jobs]


def test_a_warning_is_given_by_every_run(project, tmp_path):
    for path in (project / "imgs").rglob("*.png"):
        with Image.open(path) as image:
            pixels = np.asarray(image).copy()
        pixels[:, :, 0] = 9
        Image.fromarray(pixels).save(path)
    here = layout.open_store(tmp_path / "store")
    for _ in range(2):
        said = settled(study_file.load(project / "pets.toml"), here)
        assert (
            said[-1]
            == "warning: red of imagefolder hardly varies, by less than one grey level, and is divided by one"
        )
