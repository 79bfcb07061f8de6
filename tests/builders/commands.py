"""What the tests of commands share: a study of four short trainings, and how to run `ablate` as users do."""

import re
import time

import command_client

RECIPE = """[recipe]
data = { name = "digits", image_size = 16, train_size = 300 }
augment = { crop = "none", flip = false }
model = { name = "cnn4", width = 0.25, head_dropout = 0.2 }
training = { epochs = 3, batch_size = 20 }
optimizer = { name = "adam", lr = 0.003 }
"""

TINY = f"""
name       = "tiny"
question   = "Does it run?"
seeds      = 2
metric     = "test/accuracy"
min_effect = 0.01

{RECIPE}
[factors]
model.batch_norm      = [true, false]
evaluation.mc_dropout = [0, 3]

[[claim]]
text   = "BatchNorm helps"
expect = "model.batch_norm: true > false"
"""


BROKEN = """
from torch import nn

class Broken(nn.Sequential):
    def forward(self, x):
        if self.training and len(x) > 2:  # a rehearsal has two images
            raise ValueError("this network cannot be trained")
        return super().forward(x)

def make(classes, channels, image_size):
    return Broken(nn.Flatten(), nn.Linear(channels * image_size**2, classes))
"""


def failing(study):
    """Write a study half of whose jobs raise when they train, which no check beforehand can see."""
    text = TINY.replace("model.batch_norm      = [true, false]", 'model.name = ["cnn4", "broken_net:make"]')
    text = text.replace('name = "cnn4", width = 0.25, head_dropout', "head_dropout")
    study.write_text(text.replace("model.batch_norm: true > false", "evaluation.mc_dropout: 3 > 0"))
    study.with_name("broken_net.py").write_text(BROKEN)


def start(*arguments, cwd=None, **environment):
    """Start a command: what stands for its process, with pipes of what it prints."""
    return command_client.start([*map(str, arguments)], environment, cwd)


def start_anew(*arguments, cwd=None, **environment):
    """Start it as a shell does, in a new Python that imports everything."""
    return command_client.start_anew([*map(str, arguments)], environment, cwd)


def ablate(*arguments, **environment):
    """Run a command to its end: its exit code, what it printed on stdout, and on stderr."""
    return command_client.run([*map(str, arguments)], environment)


def results(store):
    """Return everything that the journals of a store say, without times."""
    found = {}
    for path in sorted(store.glob("jobs/*/**/*.json*")):
        text = re.sub(r'"(timestamp|seconds|time/\w+|pid|peak_memory)": [\d.]+', r'"\1": 0', path.read_text())
        if path.name not in ("environment.json",):
            found[str(path.relative_to(store))] = text
    return found


def attempts(store):
    return sum(len(path.read_text().splitlines()) for path in store.glob("jobs/*/attempts.jsonl"))


PATIENT = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "300"}
"""For what a server has in the end: on a busy machine one request may take more than the usual 20 s."""


def wait_until(condition, seconds=300):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.05)


def wait_for(condition, process, seconds=300):
    """Wait for what must come while a process is there."""
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.05)
