"""The STUDY argument: whose place a file may take, the seeds that stay, and where a store is found."""

import os
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner
from projects import TEXT, run

from ablate.cli import main
from ablate.errors import StoreError
from ablate.store import files, layout, origin, study_folder
from ablate.workflow import argument

LONGER = TEXT.replace("epochs = 2", "epochs = 12")


def refused(path, *sets, **more):
    with pytest.raises(StoreError) as caught:
        run(path, *sets, **more)
    return str(caught.value)


# Whose place it takes


def test_a_copy_with_other_content_is_refused_and_says_whose_place_it_would_take(proj):
    run("pets.toml")
    (proj / "long.toml").write_text(LONGER)
    said = refused("long.toml")
    assert (
        f'long.toml: the study "pets" in {proj}/mlruns was last run from {proj}/pets.toml, which is '
        "another file" in said
    )
    assert "training.epochs 2 -> 12" in said
    assert "--replace" in said
    assert study_folder.recall(layout.open_store(Path("mlruns")), "pets").source == "pets.toml"
    assert run("long.toml", replace=True)[0] == f'"pets" takes the place of the study of {proj}/pets.toml'
    assert "training.epochs 12 -> 2" in refused("pets.toml")  # it is the other's now


def test_a_file_of_ones_own_is_edited_and_run_again_without_a_word(proj):
    run("pets.toml")
    (proj / "pets.toml").write_text(
        LONGER.replace("[0, 15]", "[0, 15, 30]").replace("seeds = 3", "seeds = 5")
    )
    assert run("pets.toml")[0] == ""
    assert run("pets.toml", "training.epochs=1")[0] == ""
    assert run(proj / "pets.toml")[0] == ""


def test_a_file_that_was_renamed_or_moved_goes_on_and_says_so_where_its_folder_has_changed(proj):
    run("pets.toml")
    (proj / "pets.toml").rename(proj / "animals.toml")
    (proj / "animals.toml").write_text(LONGER)
    assert (
        run("animals.toml")[0]
        == f'"pets" was last run from {proj}/pets.toml, which is gone: it goes on from animals.toml'
    )
    assert run("animals.toml")[0] == ""
    (proj / "studies").mkdir()
    (proj / "animals.toml").rename(proj / "studies/animals.toml")
    assert "which is gone" in run("studies/animals.toml")[0]


def test_a_project_that_is_moved_or_copied_with_its_store_is_the_same(proj, monkeypatch):
    run("pets.toml")
    shutil.copytree(proj, proj.parent / "copy")
    (proj.parent / "copy" / "pets.toml").write_text(LONGER)
    monkeypatch.chdir(proj.parent / "copy")
    assert run("pets.toml")[0] == ""


def test_the_same_file_by_another_path_is_the_same(proj):
    run("pets.toml")
    (proj.parent / "mount").symlink_to(proj)
    (proj / "hard.toml").hardlink_to(proj / "pets.toml")
    (proj / "pets.toml").write_text(LONGER)
    store = layout.open_store(Path("mlruns"))
    assert run(proj.parent / "mount" / "pets.toml", store=store)[0] == ""
    assert run("hard.toml", store=store)[0] == ""
    assert run("../proj/pets.toml", store=layout.open_store(proj.parent / "mount" / "mlruns"))[0] == ""


def test_a_copy_that_says_the_same_is_the_same_and_takes_nothing_over(proj):
    run("pets.toml")
    shutil.copy(proj / "pets.toml", proj / "copy.toml")
    assert run("copy.toml")[0] == ""
    assert run("copy.toml", "seeds=6")[0] == ""
    (proj / "copy.toml").write_text(LONGER)
    assert f"last run from {proj}/pets.toml" in refused("copy.toml")
    (proj / "pets.toml").write_text(LONGER)  # a colleague's, who has the same change and has not run it yet
    assert run("copy.toml")[0] == ""
    (proj / "pets.toml").write_text(TEXT)
    assert run("pets.toml")[0] == ""


NEIGHBOURS = {
    "images": TEXT.replace('name = "digits"', 'name = "imagefolder", root = "images"'),
    "level of images": TEXT.replace('name = "digits", ', 'name = "imagefolder", ')
    + 'data.root = ["images", "/other"]\n',
    "network": TEXT + 'model.name = ["cnn4", "mine:net"]\n',
    "named level": TEXT
    + '[[factor]]\nname = "n"\nlevels = [{name = "a", set = {}}, {name = "b", set = {model.name = '
    '"mine:net"}}]\n',
}


@pytest.mark.parametrize("text", NEIGHBOURS.values(), ids=NEIGHBOURS)
def test_the_same_text_in_another_folder_is_another_study_where_it_means_what_lies_beside_it(
    proj, monkeypatch, text
):
    (proj / "pets.toml").write_text(text)
    other = shutil.copytree(proj, proj.parent / "other")
    (proj.parent / "mount").symlink_to(proj)
    store = layout.open_store(Path("shared"))
    run("pets.toml", store=store, begin=False)
    said = refused(other / "pets.toml", store=store, begin=False)
    assert (
        f"last run from {proj}/pets.toml, which is another file and has its own images or networks beside "
        "it: give one" in said
    )
    assert "takes the place" in run(other / "pets.toml", store=store, replace=True, begin=False)[0]
    assert "has its own images" in refused("pets.toml", store=store, begin=False)
    run("pets.toml", store=store, replace=True, begin=False)
    assert run(proj.parent / "mount" / "pets.toml", store=store, begin=False)[0] == ""
    shutil.copytree(proj, proj.parent / "copy")  # with its store
    monkeypatch.chdir(proj.parent / "copy")
    assert run("pets.toml", store=layout.open_store(Path("shared")), begin=False)[0] == ""


@pytest.mark.parametrize("root", ["/images", "~/images"])
def test_the_same_text_means_the_same_where_it_names_images_by_their_whole_path(proj, root):
    (proj / "pets.toml").write_text(TEXT.replace('name = "digits"', f'name = "imagefolder", root = "{root}"'))
    run("pets.toml", begin=False)
    shutil.copy(proj / "pets.toml", proj / "copy.toml")
    assert run("copy.toml", begin=False)[0] == ""


def test_a_file_that_has_another_name_now_has_let_go(proj):
    run("pets.toml")
    (proj / "long.toml").write_text(LONGER)
    (proj / "pets.toml").write_text(TEXT.replace('"pets"', '"short"'))
    assert run("long.toml")[0] == ""


def test_a_name_by_set_is_no_way_round(proj):
    run("pets.toml", "name=x")
    (proj / "other.toml").write_text(LONGER.replace('"pets"', '"other"'))
    assert "is another file" in refused("other.toml", "name=x")


def test_a_file_on_another_machine_may_still_be_there(proj):
    run("pets.toml")
    path = proj / "mlruns/studies/pets/origin.json"
    hers = {"host": "elsewhere", "file": "/home/anna/pets.toml", "place": "../../anna/pets.toml"}
    files.write_json(path, files.read_json(path) | hers)
    (proj / "pets.toml").write_text(LONGER)
    assert "last run from /home/anna/pets.toml, which may still be there, on elsewhere" in refused(
        "pets.toml"
    )
    (proj / "pets.toml").write_text(TEXT)
    assert run("pets.toml")[0] == ""


def test_a_store_of_an_older_version_knows_the_path_as_it_was_given(proj):
    run("pets.toml")
    (proj / "mlruns/studies/pets/origin.json").unlink()
    (proj / "long.toml").write_text(LONGER)
    assert "is another file" in refused("long.toml")
    (proj / "pets.toml").write_text(LONGER.replace("[0, 15]", "[0, 20]"))
    assert run("pets.toml")[0] == ""


def test_a_study_by_its_name_stays_its_files(proj):
    run("pets.toml")
    run("pets")
    (proj / "long.toml").write_text(LONGER)
    assert "is another file" in refused("long.toml")
    (proj / "pets.toml").write_text(LONGER)
    assert run("pets.toml")[0] == ""


def test_names_that_share_a_folder_on_this_disk_are_told_apart(proj):
    run("pets.toml")
    studies = proj / "mlruns/studies"
    shutil.copytree(studies / "pets", studies / "Pets")  # what a disk that knows no upper case shows there
    (proj / "upper.toml").write_text(TEXT.replace('"pets"', '"Pets"'))
    assert '"Pets" would share the folder of "pets"' in refused("upper.toml")
    assert "choose another name" in refused("upper.toml")


def test_neither_plan_nor_a_report_elsewhere_is_refused_and_the_stored_report_is(proj):
    run("pets.toml")
    (proj / "long.toml").write_text(LONGER)
    call = CliRunner()
    planned = call.invoke(main, ["plan", "long.toml", "--json"])
    assert planned.exit_code == 0
    assert "note: long.toml: the study" in planned.stderr
    page = proj / "mlruns/studies/pets/report.html"
    page.write_text("of pets.toml")
    done = call.invoke(main, ["report", "long.toml"])
    assert (done.exit_code, page.read_text()) == (2, "of pets.toml")
    assert "--out FILE" in done.stderr
    assert "note:" not in done.stderr
    assert call.invoke(main, ["report", "long.toml", "--out", "long.html"]).exit_code == 0


@pytest.mark.parametrize(
    "command",
    [["status"], ["report", "--format", "json"], ["report", "--out", "x.html"], ["compare", "pets"]],
    ids=" ".join,
)
def test_what_only_reads_says_whose_name_a_file_has(proj, command):
    run("pets.toml")
    (proj / "long.toml").write_text(LONGER)
    note = (
        f'note: long.toml: the study "pets" in {proj}/mlruns was last run from {proj}/pets.toml, which '
        "is another file"
    )
    assert CliRunner().invoke(main, [*command, "long.toml"]).stderr.count(note) == 1
    assert note not in CliRunner().invoke(main, [*command, "pets.toml"]).stderr


# Seeds


def test_seeds_that_were_added_stay_and_file_and_name_say_the_same(proj):
    run("pets.toml")
    _, more = run("pets.toml", seeds=6)
    store = layout.open_store(Path("mlruns"))
    by_file, by_name = argument.load("pets.toml", (), store), argument.load("pets", (), store)
    assert by_file.seeds == by_name.seeds == more.seeds == (0, 1, 2, 3, 4, 5)
    assert by_file.text == by_name.text
    assert by_file.notes == ("seeds 3, 4, 5 were added by --seeds 6, and stay: --seeds 3 leaves them out",)
    assert (by_name.notes, by_file.omits) == ((), "")
    assert run("pets.toml")[1].seeds == more.seeds
    assert argument.load("pets.toml", (), store).seeds == more.seeds


@pytest.mark.parametrize("less", [{"seeds": 3}, {"sets": ("seeds=3",)}], ids=str)
def test_fewer_seeds_are_taken_and_what_is_left_out_is_said_by_file_and_name(proj, less):
    run("pets.toml", seeds=6)
    said = "seeds 3, 4, 5 are in the store and not in this report: --seeds 6 shows them"
    _, study = run("pets.toml", *less.get("sets", ()), seeds=less.get("seeds"))
    store = layout.open_store(Path("mlruns"))
    for found in (study, argument.load("pets.toml", (), store), argument.load("pets", (), store)):
        assert (found.seeds, found.omits, found.notes) == ((0, 1, 2), said, (said,))


def test_one_seed_and_seeds_with_gaps_are_named_as_one_can_ask_for_them(proj):
    run("pets.toml", "seeds=[0, 1, 2, 7]")
    store = layout.open_store(Path("mlruns"))
    assert argument.load("pets.toml", (), store).omits == (
        "seed 7 is in the store and not in this report: --set seeds=[0, 1, 2, 7] shows it"
    )
    assert argument.load("pets.toml", ("seeds=[0, 1, 2, 7]",), store).omits == ""


def test_seeds_that_were_asked_for_and_never_begun_stay_by_file_and_name(proj):
    run("pets.toml")
    run("pets.toml", seeds=5, begin=False)  # stopped at once
    store = layout.open_store(Path("mlruns"))
    by_file, by_name = argument.load("pets.toml", (), store), argument.load("pets", (), store)
    assert by_file.seeds == by_name.seeds == (0, 1, 2, 3, 4)
    assert by_file.notes == ("--seeds 5 was asked for, and stays: --seeds 3 undoes it",)
    assert by_name.notes == ()
    assert argument.load("pets.toml", ("seeds=3",), store).seeds == (0, 1, 2)
    run("pets.toml", seeds=3, begin=False)
    undone = argument.load("pets.toml", (), store)
    assert (undone.seeds, undone.notes) == ((0, 1, 2), ())


def test_seeds_of_another_recipe_are_neither_kept_nor_missed(proj):
    run("pets.toml", seeds=6)
    (proj / "pets.toml").write_text(LONGER)
    found = argument.load("pets.toml", (), layout.open_store(Path("mlruns")))
    assert (found.seeds, found.notes) == ((0, 1, 2), ())
    (proj / "pets.toml").write_text(
        TEXT.replace("[0, 15]", "[0, 15, 30]")
    )  # a level more: the others have their seeds
    assert len(argument.load("pets.toml", (), layout.open_store(Path("mlruns"))).seeds) == 6
    (proj / "pets.toml").write_text(TEXT.replace("seeds = 3", "seeds = 8"))
    assert len(argument.load("pets.toml", (), layout.open_store(Path("mlruns"))).seeds) == 8


def test_the_commands_say_it_beside_their_output(proj):
    run("pets.toml", seeds=6)
    call = CliRunner()
    done = call.invoke(main, ["report", "pets.toml", "--seeds", "3", "--format", "json"])
    assert done.exit_code == 0
    assert (
        done.stderr == "note: seeds 3, 4, 5 are in the store and not in this report: --seeds 6 shows them\n"
    )
    assert "seed 5" in call.invoke(main, ["status", "pets.toml"], env={"COLUMNS": "200"}).stdout


# Where the store is


def test_the_store_beside_the_study_is_found_from_elsewhere(proj, monkeypatch):
    run("pets.toml")
    monkeypatch.chdir(proj.parent)
    done = CliRunner().invoke(main, ["status", "proj/pets.toml", "--json"])
    assert done.stderr == "the store is proj/mlruns, beside the study: there is none in this folder\n"
    assert '"pets"' in done.stdout
    assert not (proj.parent / "mlruns").exists()
    layout.create(layout.open_store(Path("mlruns")))
    done = CliRunner().invoke(main, ["status", "proj/pets.toml"])
    assert (
        done.stderr
        == 'note: no run of "pets" is in mlruns; proj/mlruns, beside the study, has it: --store proj/mlruns\n'
    )
    assert CliRunner().invoke(main, ["status", "proj/pets.toml", "--store", "proj/mlruns"]).stderr == ""


@pytest.mark.parametrize(
    "arguments",
    [("report", "pets"), ("explain", "pets:baseline/0"), ("logs", "pets:baseline/0")],
    ids=" ".join,
)
@pytest.mark.parametrize(("at", "path"), [("..", "proj/mlruns"), ("sub/sub", "../../mlruns")])
def test_a_name_from_elsewhere_is_told_where_it_is(proj, monkeypatch, arguments, at, path):
    run("pets.toml")
    (proj / "sub/sub").mkdir(parents=True)
    monkeypatch.chdir(proj / at)
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 2
    assert f'"pets" is in {path}: --store {path}' in done.stderr


@pytest.mark.parametrize("command", ["gc", "ui"])
def test_commands_on_a_store_alone_name_the_one_that_is_near(proj, monkeypatch, command):
    run("pets.toml")
    monkeypatch.chdir(proj.parent)
    assert "there is one at proj/mlruns: --store proj/mlruns" in CliRunner().invoke(main, [command]).stderr


@pytest.mark.parametrize(
    "name", ["a" * 255, "a" * 300, "試" * 100, f"{'a' * 300}/b", "a/" * 2500 + "b"], ids=range(5)
)
@pytest.mark.parametrize("ending", ["", ".toml"])
def test_a_study_with_a_name_that_no_file_can_have_is_not_there(proj, name, ending):
    done = CliRunner().invoke(main, ["status", f"{name}{ending}"])
    assert done.exit_code == 2
    assert (
        "there is no such file" in done.stderr
        if ending
        else "is neither a study file nor a study in" in done.stderr
    )


@pytest.mark.parametrize("given", ["", " ", "pets.toml"])
def test_a_store_that_cannot_be_one_is_refused_by_what_only_reads_too(proj, given):
    done = CliRunner().invoke(main, ["status", "pets.toml", "--store", given])
    assert done.exit_code == 2
    assert "must " in done.stderr
    assert [path.name for path in proj.iterdir()] == ["pets.toml"]


def test_a_store_that_is_not_there_is_said(proj):
    done = CliRunner().invoke(main, ["status", "pets.toml", "--store", "typo"])
    assert done.stderr == f"note: there is no store at {proj}/typo: --store DIR names one\n"


@pytest.mark.parametrize("name", ["a b", "a#b", "a?b", "50%", "%20", "Größe", "试验"])
def test_any_folder_may_be_a_store_by_any_path(proj, name):
    (proj / "link").symlink_to(name)
    run("pets.toml", store=layout.open_store(Path(name)))
    for path in (name, f"./{name}/", f"../proj/{name}", "link"):
        found = CliRunner().invoke(main, ["status", "pets", "--store", path])
        assert (found.exit_code, found.stderr) == (0, ""), path
    assert layout.open_store(Path(f"../proj/{name}")) == layout.open_store(Path(f"./{name}/"))


# Which file is meant


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ("studies/pets.toml", "studies/pets.toml: there is no such file; there is a pets.toml here"),
        ("pest.toml", "pest.toml: there is no such file; there is a pets.toml here"),
        ("long.toml", "long.toml: there is no such file; there is studies/long.toml"),
        ("zzz.toml", "zzz.toml: there is no such file"),
        ("pet", "studies there: none yet"),
        ("long", "studies there: none yet; there is studies/long.toml"),
        ("studies", "it is a folder, with studies/long.toml: name the file"),
    ],
)
def test_a_wrong_file_is_told_from_the_one_that_is_here(proj, given, sentence):
    (proj / "studies").mkdir()
    (proj / "studies/long.toml").write_text(LONGER)
    done = CliRunner().invoke(main, ["plan", given])
    assert done.exit_code == 2
    assert done.stderr.strip().endswith(sentence)


def test_origins_are_compared_without_the_disk_where_it_has_neither(tmp_path):
    one = origin.Origin("/a/x.toml", "../x.toml", "here")
    assert origin.is_same(one, origin.Origin("/b/x.toml", "../x.toml", "there"), tmp_path)
    assert not origin.is_same(one, origin.Origin("/b/y.toml", "../y.toml", "here"), tmp_path)
    assert origin.standing(one, tmp_path / "mlruns")[0] == "unknown"
    assert (
        origin.standing(origin.Origin("/a/x.toml", "../x.toml", os.uname().nodename), tmp_path / "mlruns")[0]
        == "gone"
    )


# A name and a file


def test_a_file_does_not_take_the_place_of_the_study_that_has_its_name(proj):
    run("pets.toml")
    Path("pets").write_text(TEXT.replace("epochs = 2", "epochs = 12"))
    store = layout.open_store(Path("mlruns"))
    assert argument.load("pets", (), store).base["training.epochs"] == 2
    assert argument.load("./pets", (), store).base["training.epochs"] == 12


def test_a_name_that_only_a_file_has_is_told_how_that_is_meant(proj):
    Path("animals").write_text(TEXT)
    with pytest.raises(StoreError) as caught:
        argument.load("animals", (), layout.open_store(Path("mlruns")))
    assert str(caught.value).endswith("there is a file of that name, which is meant by ./animals")
    assert argument.load("./animals", (), layout.open_store(Path("mlruns"))).name == "pets"


def test_a_study_of_the_store_may_have_a_separator_in_its_name(proj):
    Path("pets.toml").write_text(TEXT.replace('"pets"', '"cats/dogs"'))
    run("pets.toml")
    assert argument.load("cats/dogs", (), layout.open_store(Path("mlruns"))).name == "cats/dogs"
