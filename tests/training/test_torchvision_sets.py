"""The sets of torchvision, read from files in their own format."""

import gzip
import hashlib
import pickle
import re
import shutil
import socket
import tarfile

import numpy as np
import pytest
from pictures import noise, whole
from PIL import Image
from scipy.io import savemat

from ablate.errors import DataError
from ablate.recipe.fields import Data
from ablate.training import data
from ablate.training.datasets.torchvision_sets import TORCHVISION

# torchvision's sets, read by torchvision from files in their own format. The real ones are hundreds of
# megabytes and cannot be had here, and torchvision checks the MD5 sums of its files: so the sums that its
# classes list are replaced by those of the tiny files.


def md5(path):
    return hashlib.md5(path.read_bytes()).hexdigest()


def write_cifar(root, monkeypatch, kind, label_key, classes):
    """Write CIFAR's pickled batches to their archive; return (train, test, classes, archive)."""
    batches = {
        name: (noise(i, 4, 3072), [i, 3, 2, classes - 1])
        for i, (name, _) in enumerate([*kind.train_list, *kind.test_list])
    }
    folder = root / kind.base_folder
    folder.mkdir(parents=True)
    for name, (pixels, labels) in batches.items():
        (folder / name).write_bytes(
            pickle.dumps({"data": pixels, label_key: labels, "coarse_labels": [0] * 4})
        )
    names = [f"class {i}" for i in range(classes)]
    (folder / kind.meta["filename"]).write_bytes(pickle.dumps({kind.meta["key"]: names}))
    monkeypatch.setattr(kind, "train_list", [[name, md5(folder / name)] for name, _ in kind.train_list])
    monkeypatch.setattr(kind, "test_list", [[name, md5(folder / name)] for name, _ in kind.test_list])
    monkeypatch.setattr(kind, "meta", kind.meta | {"md5": md5(folder / kind.meta["filename"])})
    archive = root / kind.filename
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder, kind.base_folder)
    monkeypatch.setattr(kind, "tgz_md5", md5(archive))

    def part(chosen):
        pixels = np.concatenate([batches[name][0] for name, _ in chosen])
        labels = [label for name, _ in chosen for label in batches[name][1]]
        return pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), labels

    return part(kind.train_list), part(kind.test_list), names, folder


def write_cifar10(root, monkeypatch, kind):
    return write_cifar(root, monkeypatch, kind, "labels", 10)


def write_cifar100(root, monkeypatch, kind):
    return write_cifar(root, monkeypatch, kind, "fine_labels", 100)


def write_svhn(root, monkeypatch, kind):
    root.mkdir()
    found, listed = [], dict(kind.split_list)
    for i, split in enumerate(("train", "test")):
        pixels, labels = noise(i, 32, 32, 3, 5 + i), np.array([1, 2, 10, 9, 10, 3][: 5 + i])
        path = root / listed[split][1]
        savemat(path, {"X": pixels, "y": labels[:, None]})
        listed[split] = [listed[split][0], path.name, md5(path)]
        found.append((pixels.transpose(3, 0, 1, 2), (labels % 10).tolist()))  # its zeros are labelled 10
    monkeypatch.setattr(kind, "split_list", listed)
    return *found, [str(i) for i in range(10)], None


def write_mnist(root, monkeypatch, kind):
    """Write the IDX files of MNIST, packed as they are downloaded."""
    folder = root / kind.__name__ / "raw"
    folder.mkdir(parents=True)
    found, packed = [], []
    for i, part in enumerate(("train", "t10k")):
        pixels, labels = noise(i, 6 - i, 28, 28), noise(i, 6 - i) % 10
        for array, name in ((pixels, "images-idx3"), (labels, "labels-idx1")):
            content = np.array([2048 + array.ndim, *array.shape], ">i4").tobytes() + array.tobytes()
            path = folder / f"{part}-{name}-ubyte.gz"
            path.write_bytes(gzip.compress(content))
            packed.append((path.name, md5(path)))
        found.append((pixels[:, :, :, None], labels.tolist()))
    monkeypatch.setattr(kind, "resources", packed)
    return *found, list(kind.classes), None


WRITERS = {
    "cifar10": write_cifar10,
    "cifar100": write_cifar100,
    "svhn": write_svhn,
    "mnist": write_mnist,
    "fashion_mnist": write_mnist,
}
SIZE = {"mnist": 28, "fashion_mnist": 28}  # else 32


@pytest.fixture
def offline(monkeypatch):
    """Lead every download to a port of this machine where nobody listens."""
    from torchvision import datasets

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nowhere = f"http://127.0.0.1:{free.getsockname()[1]}/"
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    for kind in (datasets.CIFAR10, datasets.CIFAR100):
        monkeypatch.setattr(kind, "url", nowhere + kind.filename)
    monkeypatch.setattr(
        datasets.SVHN,
        "split_list",
        {k: [nowhere + v[1], *v[1:]] for k, v in datasets.SVHN.split_list.items()},
    )
    for kind in (datasets.MNIST, datasets.FashionMNIST):
        monkeypatch.setattr(kind, "mirrors", [nowhere])
    return nowhere


def written(name, root, monkeypatch):
    from torchvision import datasets

    return WRITERS[name](root, monkeypatch, getattr(datasets, TORCHVISION[name][0]))


def test_the_sets_of_this_file_are_all_there_are():
    assert set(WRITERS) == set(TORCHVISION)


@pytest.mark.parametrize("name", WRITERS)
def test_torchvisions_sets_are_read_from_their_own_files(name, tmp_path, monkeypatch, offline):
    train, test, classes, unpacked = written(name, tmp_path / "archives", monkeypatch)
    if unpacked is not None:
        shutil.rmtree(unpacked)  # only the archive, as the message of the error says
    section = Data(name=name, root=str(tmp_path / "archives"), image_size=SIZE.get(name, 32))
    prepared = data.prepare(section, tmp_path / "cache")
    arrays = data.open_arrays(prepared.folder)
    assert prepared.classes == tuple(classes)
    assert prepared.channels == (1 if "mnist" in name else 3)
    read = (arrays.train_images, arrays.train_labels), (arrays.test_images, arrays.test_labels)
    for (pixels, labels), (images, found) in zip((train, test), read, strict=True):
        assert np.array_equal(images, pixels)
        assert found.tolist() == labels
        assert found.dtype == np.int64
    shutil.rmtree(tmp_path / "archives")
    assert data.prepare(section, tmp_path / "cache") == prepared, "a second time, the files are not needed"


@pytest.mark.parametrize("name", WRITERS)
def test_torchvisions_sets_are_resized_to_the_size_of_the_recipe(name, tmp_path, monkeypatch, offline):
    (pixels, _), _, _, _ = written(name, tmp_path / "archives", monkeypatch)
    prepared = data.prepare(
        Data(name=name, root=str(tmp_path / "archives"), image_size=40), tmp_path / "cache"
    )
    first = Image.fromarray(pixels[0].squeeze()).resize((40, 40), Image.Resampling.BILINEAR)
    assert np.array_equal(data.open_arrays(prepared.folder).train_images[0].squeeze(), np.asarray(first))


@pytest.mark.parametrize("download", [False, True], ids=["without asking the network", "without a network"])
@pytest.mark.parametrize("name", TORCHVISION)
def test_without_the_files_it_says_where_it_looked_and_both_ways_out(name, download, tmp_path, offline):
    root = tmp_path / "archives"
    with pytest.raises(DataError) as caught:
        data.prepare(Data(name=name, root=str(root)), tmp_path / "cache", download=download)
    message = str(caught.value)
    archive = {"cifar10": "cifar-10-python.tar.gz", "cifar100": "cifar-100-python.tar.gz"}.get(
        name, "the files that torchvision downloads"
    )
    assert message.startswith(f"{name} must be in {root} or be downloadable, and it is neither (")
    assert f": put {archive}" in message
    assert message.endswith("there, or try the study with --set data.name=digits")
    assert "\n" not in message
    assert caught.value.__cause__ is None
    assert not whole(tmp_path / "cache")
    assert data.find(Data(name=name, root=str(root)), tmp_path / "cache") is None


@pytest.mark.parametrize(
    "content", [b"", b"<html>", bytes([0, 0, 8, 3, 0, 0, 0, 9])], ids=["empty", "a web page", "cut off"]
)
@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
def test_files_that_are_cut_off_are_the_same_sentence(name, content, tmp_path, monkeypatch, offline):
    written(name, tmp_path / "archives", monkeypatch)
    folder = tmp_path / "archives" / TORCHVISION[name][0] / "raw"
    data.prepare(Data(name=name, root=str(tmp_path / "archives")), tmp_path / "cache")
    (folder / "train-images-idx3-ubyte").write_bytes(content)
    with pytest.raises(DataError, match=rf"^{name} must be in .* and it is neither \(.+\): put "):
        data.prepare(Data(name=name, root=str(tmp_path / "archives")), tmp_path / "another cache")


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "svhn"])
def test_files_with_another_checksum_are_not_read(name, tmp_path, monkeypatch, offline):
    written(name, tmp_path / "archives", monkeypatch)
    for path in (tmp_path / "archives").rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(DataError, match=rf"^{name} must be in "):
        data.prepare(Data(name=name, root=str(tmp_path / "archives")), tmp_path / "cache")


def test_without_a_root_downloads_go_to_the_users_cache(tmp_path, monkeypatch, offline):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    with pytest.raises(
        DataError, match=re.escape(f"cifar10 must be in {tmp_path}/home/ablate/datasets or be downloadable")
    ):
        data.prepare(Data(name="cifar10"), tmp_path / "cache", download=False)
