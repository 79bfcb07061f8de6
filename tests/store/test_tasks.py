"""Tasks: out and back without a change, as values and as lines of a file.

A file that is something else is a sentence.
"""

import json
from pathlib import Path

import pytest

from ablate.errors import AblateError
from ablate.recipe.fields import Augment, Data, Evaluation, MeanStd, Model, Optimizer, Recipe, Training
from ablate.recipe.range_test import Sweep
from ablate.store import tasks
from ablate.store.tasks import Context, ProbeTask, RangeTask, TrainTask

RECIPE = Recipe(
    data=Data(
        name="imagefolder", root="/images", image_size=16, normalize=MeanStd(mean=(0.1,), std=(1 / 3,))
    ),
    augment=Augment(crop="random_crop", padding=2, rotation=15),
    model=Model(name="resnet18", trainable=("layer4", "fc")),
    optimizer=Optimizer(lr=1e-300),
    training=Training(epochs=3, early_stopping=2),
)
CONTEXT = Context(
    study='Grüße "世界"\n', git={"commit": "abc", "dirty": True, "diff": "+\u2028 \ud800"},
    compile_cache="/c",
    code=("/mine", "."), jobs_a_device=4,
)  # fmt: skip
BATCH = (
    TrainTask(
        context=CONTEXT, folder=Path("/store/jobs/a b"), job="a" * 64, data=Path("/data"),
        evaluations=(Evaluation(), Evaluation(mc_dropout=20)),
    ),
    TrainTask(folder=Path("f"), job="b", data=Path("d"), evaluations=(), trained=True, device="cuda"),
    RangeTask(
        context=CONTEXT, test="c", seed=3, recipe=RECIPE, sweep=Sweep(low=1e-7, per="epoch"),
        folder=Path("/r"), curve=Path("/r/3.json"), data=Path("/d"), code="x",
    ),
    ProbeTask(number=2, seed=0, recipe=RECIPE, data=Path("/d"), log=Path("/log")),
)  # fmt: skip


@pytest.mark.parametrize("task", BATCH, ids=lambda task: task.kind)
def test_a_task_is_the_same_after_a_pipe_and_after_a_file(task, tmp_path):
    sent = task.to_json()
    assert json.loads(json.dumps(sent)) == sent, "plain JSON values"
    assert tasks.from_json(json.loads(json.dumps(sent))) == task
    tasks.write(tmp_path / "tasks.jsonl", [BATCH[0], task])
    assert tasks.read(tmp_path / "tasks.jsonl", 1) == task


def test_each_line_of_a_file_is_one_task(tmp_path):
    path = tmp_path / "tasks.jsonl"
    tasks.write(path, BATCH)
    assert [tasks.read(path, i) for i in range(len(BATCH))] == list(BATCH)
    assert len(path.read_bytes().split(b"\n")) == len(BATCH) + 1


def test_a_task_cannot_be_changed():
    with pytest.raises(ValueError, match="frozen"):
        BATCH[0].job = "other"


@pytest.mark.parametrize(
    ("content", "index", "sentence"),
    [
        (b"", 0, "has no tasks"),
        (b"{}\n{}\n", 2, "has no task 2: its tasks are 0 to 1"),
        (b"{}\n", -1, "has no task -1"),
        (b"{}\n", 0, "line 1 is no task of this version of ablate"),
        (b'{"kind": "bake"}\n', 0, "line 1 is no task of this version of ablate"),
        (b'{"kind": "train", "job": "a"}\n', 0, "train.folder: Field required"),
        (
            b'{"kind": "train", "folder": "f", "job": "a", "data": "d", "evaluations": [], "x": 1}\n',
            0,
            "train.x",
        ),
        (b"\n{\n", 1, "line 2 is no task of this version of ablate"),
        (b"\xff\xfe\n", 0, "is no text"),
    ],
)
def test_a_file_that_holds_something_else_is_a_sentence(tmp_path, content, index, sentence):
    path = tmp_path / "tasks.jsonl"
    path.write_bytes(content)
    with pytest.raises(AblateError, match=sentence) as error:
        tasks.read(path, index)
    assert str(error.value).startswith(f"{path}: ")
    assert len(str(error.value).splitlines()) == 1
