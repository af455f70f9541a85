"""Saving and loading: bit by bit the same network, and no file that isn't one."""

import json
import os
import struct

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

import gpunet
from gpunet import activations, losses, persistence
from gpunet.backend import get_backend
from gpunet.persistence import VERSION, ModelFileError, load, save
from gpunet.tabular.preparation import Category, Number, Preparation

PREPARATION = Preparation(
    target="sold",
    task="multiclass",
    numbers=(Number("price", 1 / 3, 2 / 3), Number("größe", 0.1, 1e-300)),
    categories=(Category("colour", ("blue", "red", "")),),
    classes=(False, 1.5, "1"),
)


def softsign(name="softsign"):
    return activations.Custom(
        lambda xp, z: z / (1 + xp.abs(z)), lambda xp, z, a: 1 / (1 + xp.abs(z)) ** 2, name=name
    )


def network(**settings):
    sizes = settings.pop("sizes", [5, 4, 3])
    return gpunet.Network(sizes, **{"seed": 0, "backend": "numpy", **settings})


def same(one, other):
    """Return whether two networks are the same, to the last bit of their parameters."""
    assert one.architecture == other.architecture
    assert (one.task, one.dtype) == (other.task, other.dtype)
    bits = [[Theta.tobytes() for Theta in network.thetas] for network in (one, other)]
    return bits[0] == bits[1]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.safetensors"


# --- a round trip ---


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"sizes": [5, 1]},
        {"sizes": [2, 3, 3, 2, 4], "hidden": ["tanh", "leaky_relu:0.3", "maxout:3"]},
        {"hidden": "elu:0.7", "loss": "softmax_cross_entropy"},
        {"loss": "squared_error", "output": "sigmoid", "task": "multiclass"},
        {"task": "multilabel"},
    ],
    ids=str,
)
def test_a_network_comes_back_bit_by_bit(settings, dtype, path):
    saved = network(dtype=dtype, init="normal", **settings)
    save(path, saved)
    assert same(load(path, backend="numpy").network, saved)


@pytest.mark.parametrize(
    "loss",
    [*losses.KNOWN.values(), losses.Huber(2.5), losses.Quantile((0.1, 0.5, 0.9))],
    ids=repr,
)
def test_a_loss_comes_back_with_its_settings(loss, path):
    save(path, network(loss=loss))
    assert load(path, backend="numpy").network.architecture.loss == loss


@pytest.mark.parametrize("kind", sorted(set(activations.KNOWN) - {"softmax"}))
def test_a_known_activation_comes_back(kind, path):
    saved = network(hidden=kind)
    save(path, saved)
    assert same(load(path, backend="numpy").network, saved)


def test_any_backend_reads_what_any_other_wrote(backend, path):
    numpy = network(dtype="float32")
    thetas = [backend.asarray(Theta) for Theta in numpy.thetas]
    there = gpunet.Network.from_thetas(thetas, backend=backend, dtype="float32")
    save(path, there)
    assert same(load(path, backend="numpy").network, numpy)
    back = load(path, backend=backend).network
    assert back.backend.spec == backend.spec
    assert same(back, numpy)


def test_the_reader_chooses_the_backend(path):
    strict = pytest.importorskip("array_api_strict").__name__
    save(path, network(backend=f"{strict}:device1"))
    with gpunet.use_backend("numpy"):
        assert load(path).network.backend is get_backend("numpy")
    with pytest.raises(ValueError, match="Unknown backend 'nope'"):
        load(path, backend="nope")


def test_the_preparation_comes_back_with_its_types(path):
    save(path, network(loss="softmax_cross_entropy"), PREPARATION)
    found = load(path, backend="numpy").preparation
    assert found == PREPARATION
    assert [type(label) for label in found.classes] == [bool, float, str]


def test_network_has_methods_for_it(path):
    saved = network()
    saved.save(path)
    assert same(gpunet.Network.load(path, backend="numpy"), saved)
    assert load(path, backend="numpy").preparation is None


def test_the_file_is_tensors_in_the_notes_shape_and_json(path):
    saved = network(sizes=[5, 4, 3], hidden="maxout")
    save(path, saved)
    with safe_open(path, framework="numpy") as file:
        assert set(file.keys()) == {"Theta1", "Theta2"}
        assert file.get_tensor("Theta1").shape == (8, 6)
        assert (file.get_tensor("Theta2") == saved.thetas[1]).all()
        assert json.loads(file.metadata()["gpunet"]) == {
            "version": VERSION,
            "sizes": [5, 4, 3],
            "activations": ["maxout:2", "sigmoid"],
            "loss": {"name": "cross_entropy"},
            "task": "multiclass",
            "dtype": "float64",
            "preparation": None,
        }


# --- no code in a file ---


def test_an_activation_of_ones_own_is_asked_for(path):
    saved = network(hidden=softsign())
    save(path, saved)
    with pytest.raises(
        ModelFileError, match=r"activation of one's own, 'softsign', .*give custom="
    ):
        load(path, backend="numpy")
    again = load(path, custom={"softsign": saved.architecture.activations[0]}, backend="numpy")
    assert same(again.network, saved)


def test_an_activation_of_ones_own_is_not_taken_for_a_known_one(path):
    save(path, network(hidden=softsign("relu")))
    with pytest.raises(ModelFileError, match="activation of one's own, 'relu'"):
        load(path, backend="numpy")


def test_a_loss_of_ones_own_is_refused(path):
    class Mine(losses.SquaredError):
        name = "mine"

    with pytest.raises(ValueError, match=r"can't be saved: a file holds no code"):
        save(path, network(loss=Mine()))
    assert not path.exists()


# --- what isn't a model ---


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no model file"):
        load(tmp_path)  # a folder
    with pytest.raises(FileNotFoundError, match=r"no model file '.*nothing.safetensors'"):
        load(tmp_path / "nothing.safetensors", backend="numpy")


@pytest.mark.parametrize("kept", [0, 1, 8, 100, -100, -1])
def test_a_truncated_file_is_refused(kept, path):
    save(path, network())
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ModelFileError, match="isn't a gpunet model, or it is cut off or damaged"):
        load(path, backend="numpy")


@pytest.mark.parametrize(
    "content",
    [
        b"\x89PNG\r\n\x1a\n" * 20,
        b"{}",
        b"\x80\x04\x95pickle.",
        struct.pack("<Q", 2) + b"[]",
        struct.pack("<Q", 2**62),
    ],
)
def test_another_file_is_refused(content, path):
    path.write_bytes(content)
    with pytest.raises(ModelFileError, match="isn't a gpunet model"):
        load(path, backend="numpy")


@pytest.mark.parametrize(
    "metadata",
    [
        None,
        {"format": "pt"},
        {"gpunet": "{"},
        {"gpunet": "[1]"},
        {"gpunet": "{}"},
        {"gpunet": '{"version": "1"}'},
        {"gpunet": '{"version": 0}'},
        {"gpunet": "[" * 100_000},
    ],
    ids=["none", "torch's", "no JSON", "list", "empty", "text version", "version 0", "deep"],
)
def test_tensors_of_others_are_refused(metadata, path):
    save_file({"weight": np.zeros((2, 2))}, path, metadata)
    with pytest.raises(ModelFileError, match="isn't a gpunet model: it holds tensors, but"):
        load(path, backend="numpy")


def rewritten(path, header=None, tensors=None):
    """Change a file's header and tensors."""
    with safe_open(path, framework="numpy") as file:
        old = json.loads(file.metadata()["gpunet"])
        held = {name: file.get_tensor(name) for name in ("Theta1", "Theta2")}
    new = {**old, **(header or {})}
    new = {name: value for name, value in new.items() if value != "left out"}
    held = {name: value for name, value in {**held, **(tensors or {})}.items() if value is not None}
    save_file(held, path, {"gpunet": json.dumps(new)})


def test_a_newer_file_is_refused(path):
    save(path, network())
    rewritten(path, {"version": VERSION + 1})
    with pytest.raises(
        ModelFileError, match=r"written by a newer gpunet \(format 2, .*update gpunet"
    ):
        load(path, backend="numpy")


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ({"sizes": [5, 7, 3]}, r"should hold .*'Theta1': \(7, 6\).*, but holds"),
        ({"sizes": [5, 4, 3, 2]}, "need L - 1 = 3 activations"),
        ({"sizes": [5, -4, 3]}, "whole number of units"),
        ({"sizes": "543"}, "whole number of units"),
        ({"sizes": 3}, "not iterable"),
        ({"sizes": "left out"}, "'sizes' is missing"),
        ({"activations": ["swoosh", "sigmoid"]}, "Unknown activation 'swoosh'"),
        ({"activations": ["maxout:2", "sigmoid"]}, "should hold"),
        ({"activations": ["relu", "identity"]}, r"needs outputs in \[0, 1\]"),
        ({"activations": [{}, "sigmoid"]}, "'custom' is missing"),
        ({"activations": [None, "sigmoid"]}, "subscriptable"),
        ({"activations": []}, "no valid model"),
        ({"loss": {"name": "hinge"}}, "Unknown loss 'hinge'"),
        ({"loss": {"name": "huber", "threshold": -1.0}}, "huber needs"),
        ({"loss": {"name": "squared_error", "slope": 1}}, "slope"),
        ({"loss": "cross_entropy"}, "no valid model"),
        ({"task": "ranking"}, "Unknown task 'ranking'"),
        ({"task": "binary"}, "doesn't fit"),
        ({"dtype": "float32"}, "aren't all float32"),
        ({"dtype": "left out"}, "'dtype' is missing"),
        ({"preparation": {}}, "preparation of columns is damaged"),
        ({"preparation": {**PREPARATION.to_dict(), "numbers": []}}, "3 inputs and 3 outputs"),
        ({"preparation": {**PREPARATION.to_dict(), "classes": [1, 2]}}, "5 inputs and 2 outputs"),
    ],
    ids=str,
)
def test_a_header_that_does_not_fit_is_refused(header, message, path):
    save(path, network())
    rewritten(path, header)
    with pytest.raises(ModelFileError, match=message) as caught:
        load(path, backend="numpy")
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"Theta2": None}, "should hold"),
        ({"Theta3": np.zeros((2, 4))}, "should hold"),
        ({"Theta1": np.zeros((6, 4))}, "should hold"),
        ({"Theta1": np.zeros(24)}, "should hold"),
        ({"Theta1": np.zeros((4, 6), "float32")}, "aren't all float64"),
        ({"Theta1": np.full((4, 6), np.nan)}, "NaN"),
    ],
    ids=["missing", "too many", "transposed", "flat", "dtype", "NaN"],
)
def test_tensors_that_do_not_fit_are_refused(tensors, message, path):
    save(path, network())
    rewritten(path, tensors=tensors)
    with pytest.raises(ModelFileError, match=message):
        load(path, backend="numpy")


# --- whole or not at all ---


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_failed_save_leaves_the_old_file_alone(step, path, monkeypatch):
    save(path, network(seed=1))
    before = path.read_bytes()

    def fail(*_):
        raise OSError("the disk is full")

    target = os if step == "fsync" else persistence.Path
    monkeypatch.setattr(target, step, fail)
    with pytest.raises(OSError, match="the disk is full"):
        save(path, network(seed=2))
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_a_new_file_replaces_the_old_one(path):
    save(path, network(seed=1))
    save(path, network(seed=2))
    assert same(load(path, backend="numpy").network, network(seed=2))
    assert list(path.parent.iterdir()) == [path]


def test_a_link_goes_on_pointing_to_the_file(path, tmp_path):
    link = tmp_path / "latest"
    save(path, network(seed=1))
    link.symlink_to(path)
    save(link, network(seed=2))
    assert link.is_symlink()
    assert same(load(path, backend="numpy").network, network(seed=2))


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no folder '.*nowhere' to write 'model'"):
        save(tmp_path / "nowhere" / "model", network())


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on this system")
def test_what_is_no_ordinary_file_is_not_replaced(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(OSError, match="no ordinary file"):
        gpunet.Network([2, 1], backend="numpy").save(pipe)
    assert pipe.is_fifo()
    assert [path.name for path in tmp_path.iterdir()] == ["pipe"]
