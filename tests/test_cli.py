"""The command line: what a person types, reads, and finds in a folder."""

import csv
import gzip
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

import gpunet
from gpunet import cli, persistence
from gpunet.activations import Tanh
from gpunet.tabular.preparation import Number, Preparation
from gpunet.training import Epochs

pa = pytest.importorskip("pyarrow")
pytest.importorskip("matplotlib")
from pyarrow import parquet  # noqa: E402

PNG = b"\x89PNG\r\n\x1a\n"
M = 120


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Run in an empty folder, on NumPy, in a wide terminal."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GPUNET_BACKEND", "numpy")
    monkeypatch.setenv("COLUMNS", "200")
    return tmp_path


@pytest.fixture
def gpunet_(monkeypatch, capsys):
    """Return a function that runs a command line and gives its exit code, stdout and stderr."""

    def run(line):
        monkeypatch.setattr(sys, "argv", ["gpunet", *line.split()])
        with pytest.raises(SystemExit) as end:
            cli.main()
        out, err = capsys.readouterr()
        return end.value.code or 0, out, err

    return run


def write_csv(path, columns):
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))


def example():
    """Return mixed columns, with gaps, from which y can be learned."""
    random = np.random.default_rng(0)
    x = random.normal(size=M)
    colour = random.choice(["red", "green", "blue"], M)
    y = np.where(x + (colour == "red") > 0.3, "yes", "no")
    return {
        "x": ["" if i % 10 == 3 else f"{value:.4f}" for i, value in enumerate(x)],
        "constant": [7] * M,
        "colour": ["" if i % 10 == 5 else word for i, word in enumerate(colour)],
        "day": [f"2020-01-{1 + i % 28:02}" for i in range(M)],
        "name": [f"customer {i}" for i in range(M)],
        "y": y,
    }


@pytest.fixture
def mixed(folder):
    write_csv(folder / "mixed.csv", example())
    return folder / "mixed.csv"


def rows_of(path):
    with open(path, encoding="utf-8") as file:
        return list(csv.DictReader(file))


def scores_in(out):
    """Return the numbers of the table of scores: network, then baseline."""
    names = r"accuracy|balanced accuracy|R²|mean absolute error"
    lines = re.findall(rf"^ *({names})  +(\S+)  +(\S+) *$", out, re.MULTILINE)
    return {name: (float(network), float(trivial)) for name, network, trivial in lines}


# --- train ---


@pytest.mark.parametrize(
    ("name", "guess"),
    [("digits", 0.1), ("iris", 0.33), ("wine", 0.39), ("breast_cancer", 0.63), ("diabetes", 0.0)],
)
def test_train_on_a_bundled_data_set(name, guess, gpunet_, folder):
    code, out, err = gpunet_(f"train {name} --epochs 30")
    assert (code, err) == (0, "")
    picture = "predicted_vs_true.png" if name == "diabetes" else "confusion_matrix.png"
    files = {path.name: path.read_bytes() for path in (folder / "runs" / name).iterdir()}
    assert set(files) == {"model.safetensors", "history.csv", "loss_curve.png", picture}
    assert files["loss_curve.png"].startswith(PNG)
    assert files[picture].startswith(PNG)
    history = rows_of(folder / "runs" / name / "history.csv")
    assert [row["epoch"] for row in history] == [str(e) for e in range(1, len(history) + 1)]
    assert float(history[-1]["cost"]) < float(history[0]["cost"])
    assert {"validation_cost", "validation_score"} <= set(history[0])
    model = persistence.load(folder / "runs" / name / "model.safetensors").network
    assert out.index(f"{model.architecture.n_parameters:,}") < out.index("written to")
    network, trivial = zip(*scores_in(out).values(), strict=True)
    assert out.index("written to") < out.index("held-out rows")
    assert network[0] > trivial[0] + 0.2
    assert trivial[0] == pytest.approx(guess, abs=0.02)


def test_digits_are_told_apart(gpunet_):
    _, out, _ = gpunet_("train digits")
    assert scores_in(out)["accuracy"][0] >= 0.97


def test_mixed_columns_are_prepared(mixed, gpunet_):
    code, out, _ = gpunet_(f"train {mixed} --target y --out model")
    assert code == 0
    assert "column 'name' is left out: its text is different in every row" in out
    preparation = persistence.load("model/model.safetensors").preparation
    assert [column.name for column in preparation.numbers] == ["x", "constant", "day"]
    assert [column.values for column in preparation.categories] == [("blue", "green", "red")]
    assert preparation.classes == ("no", "yes")
    network, trivial = scores_in(out)["accuracy"]
    assert network > trivial + 0.1


def test_options_reach_the_network(mixed, gpunet_):
    line = f"train {mixed} --target y --drop day --drop name --hidden 5,4 --activation tanh,elu:0.5"
    code, _, _ = gpunet_(
        f"{line} --loss softmax_cross_entropy --precision float64 --epochs 3 --validation 0 --out o"
    )
    assert code == 0
    network = persistence.load("o/model.safetensors").network
    assert network.architecture.sizes == (5, 5, 4, 2)
    assert repr(network.architecture.activations) == "(Tanh(), ELU(alpha=0.5), Softmax())"
    assert network.dtype == "float64"
    assert len(rows_of("o/history.csv")) == 3


@pytest.mark.parametrize(
    ("options", "output", "outputs"),
    [
        ("iris --loss cross_entropy", "sigmoid", 3),
        ("iris --loss squared_error", "sigmoid", 3),
        ("breast_cancer", "sigmoid", 1),
        ("breast_cancer --task multiclass", "softmax", 2),
        ("diabetes --loss huber", "identity", 1),
        ("diabetes --loss poisson", "exp", 1),
        ("diabetes --optimizer lbfgs --hidden none", "identity", 1),
    ],
)
def test_losses_bring_their_outputs(options, output, outputs, gpunet_):
    code, out, err = gpunet_(f"train {options} --epochs 20 --out o")
    assert (code, err) == (0, "")
    architecture = persistence.load("o/model.safetensors").network.architecture
    assert architecture.activations[-1].name == output
    assert architecture.sizes[-1] == outputs
    network, trivial = next(iter(scores_in(out).values()))
    assert network > trivial


def test_the_seed_decides_everything(gpunet_):
    gpunet_("train iris --epochs 3 --seed 3 --out a")
    gpunet_("train iris --epochs 3 --seed 3 --out b")
    gpunet_("train iris --epochs 3 --seed 4 --out c")
    a, b, c = (Path(run, "model.safetensors").read_bytes() for run in "abc")
    assert a == b
    assert a != c


def test_nothing_may_be_held_out(gpunet_, folder):
    code, out, _ = gpunet_("train iris --epochs 2 --test 0 --validation 0 --out o")
    assert code == 0
    assert "150 to train on, 0 to validate on, 0 to hold out" in out
    assert scores_in(out) == {}
    assert {path.name for path in (folder / "o").iterdir()} == {
        "model.safetensors",
        "history.csv",
        "loss_curve.png",
    }


def test_without_matplotlib_there_are_no_pictures(gpunet_, folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    code, out, _ = gpunet_("train iris --epochs 2 --out o")
    assert code == 0
    assert "no pictures without matplotlib: pip install 'gpunet[plot]'" in out
    assert {path.name for path in (folder / "o").iterdir()} == {"model.safetensors", "history.csv"}


def test_after_ctrl_c_the_files_are_written(gpunet_, monkeypatch):
    run = Epochs.run

    def interrupted(self, state, *args):
        if state.epoch == 2:
            signal.raise_signal(signal.SIGINT)
        return run(self, state, *args)

    monkeypatch.setattr(Epochs, "run", interrupted)
    code, out, _ = gpunet_("train iris --out o")
    assert code == 130
    assert "Training was interrupted in epoch 3" in out
    assert "accuracy" in scores_in(out)
    assert len(rows_of("o/history.csv")) == 2
    assert persistence.load("o/model.safetensors").preparation.target == "target"


def test_ctrl_c_in_the_first_epoch_leaves_no_curve(gpunet_, folder, monkeypatch):
    def interrupted(self, state, *args):
        signal.raise_signal(signal.SIGINT)
        return Epochs.__dict__["_like"](self, [0.0], state.theta)[0]

    monkeypatch.setattr(Epochs, "run", interrupted)
    code, _, _ = gpunet_("train iris --out o")
    assert code == 130
    assert rows_of("o/history.csv") == []
    assert not (folder / "o" / "loss_curve.png").exists()


# --- predict and evaluate ---


@pytest.fixture
def trained(mixed, gpunet_):
    """Train on the mixed columns; return the run's folder."""
    assert gpunet_(f"train {mixed} --target y --out run")[0] == 0
    return "run"


def test_predict_writes_labels_and_probabilities(trained, mixed, gpunet_):
    code, out, _ = gpunet_(f"predict {trained} {mixed} --out p.csv")
    assert code == 0
    assert "120 predictions of 'y' written to p.csv" in out
    found = rows_of("p.csv")
    assert list(found[0]) == ["prediction", "probability_no", "probability_yes"]
    no, yes = (np.array([float(row[f"probability_{k}"]) for row in found]) for k in ("no", "yes"))
    np.testing.assert_allclose(no + yes, 1.0, atol=1e-6)
    assert [row["prediction"] for row in found] == np.where(yes >= 0.5, "yes", "no").tolist()
    right = np.mean([row["prediction"] for row in found] == example()["y"])
    assert right > 0.8
    _, out, _ = gpunet_(f"evaluate {trained}/model.safetensors {mixed} --target y")
    assert scores_in(out)["accuracy"][0] == pytest.approx(right, abs=1e-3)


def test_predict_needs_neither_target_nor_order(trained, mixed, gpunet_, folder):
    gpunet_(f"predict {trained} {mixed} --out with.csv")
    columns = example()
    del columns["y"], columns["name"]
    write_csv(folder / "less.csv", dict(reversed(columns.items())))
    assert gpunet_(f"predict {trained} less.csv --out without.csv")[0] == 0
    assert rows_of("without.csv") == rows_of("with.csv")


def test_predict_reads_and_writes_in_batches(trained, mixed, gpunet_, monkeypatch):
    gpunet_(f"predict {trained} {mixed} --out whole.csv")
    monkeypatch.setattr("gpunet.tabular.arrow.CSV.block_size", 512)
    assert gpunet_(f"predict {trained} {mixed} --out parts.csv")[0] == 0
    assert gpunet_(f"predict {trained} {mixed} --out parts.parquet")[0] == 0
    whole = [float(row["probability_yes"]) for row in rows_of("whole.csv")]
    parts = [float(row["probability_yes"]) for row in rows_of("parts.csv")]
    np.testing.assert_allclose(parts, whole, rtol=1e-5)
    table = parquet.read_table("parts.parquet")
    assert table.column_names == ["prediction", "probability_no", "probability_yes"]
    np.testing.assert_allclose(table["probability_yes"].to_numpy(), whole, rtol=1e-5)
    assert set(table["prediction"].to_pylist()) == {"no", "yes"}


@pytest.mark.parametrize(
    ("labels", "type_"), [(np.arange(M) % 3, int), (np.arange(M) % 2 == 0, bool)]
)
def test_predictions_have_the_type_of_the_labels(labels, type_, gpunet_):
    np.savez("data.npz", X=np.stack([labels, np.ones(M)], axis=1), y=labels)
    assert gpunet_("train data.npz --epochs 50 --out o")[0] == 0
    assert gpunet_("predict o data.npz --out p.parquet")[0] == 0
    found = parquet.read_table("p.parquet")["prediction"].to_pylist()
    assert {type(label) for label in found} == {type_}
    _, out, _ = gpunet_("evaluate o data.npz --target y")
    assert scores_in(out)["accuracy"][0] == pytest.approx(np.mean(found == labels))


def test_predictions_of_a_regression_are_in_its_units(gpunet_):
    x = np.linspace(-1.0, 1.0, M)
    parquet.write_table(pa.table({"x": x, "y": 1000.0 + 50.0 * x}), "data.parquet")
    assert gpunet_("train data.parquet --target y --out o")[0] == 0
    assert gpunet_("predict o data.parquet --out p.csv")[0] == 0
    found = [float(row["prediction"]) for row in rows_of("p.csv")]
    assert list(rows_of("p.csv")[0]) == ["prediction"]
    np.testing.assert_allclose(found, 1000.0 + 50.0 * x, atol=10.0)
    _, out, _ = gpunet_("evaluate o data.parquet")
    assert scores_in(out)["R²"][0] > 0.95
    assert scores_in(out)["mean absolute error"][1] > 20.0


def test_labels_that_look_like_numbers_are_compared_as_text(gpunet_, folder):
    write_csv(folder / "a.csv", {"x": list(range(60)), "y": ["01", "02", "x"] * 20})
    write_csv(folder / "b.csv", {"x": list(range(60)), "y": ["01", "02", "01"] * 20})
    assert gpunet_("train a.csv --target y --epochs 2 --out o")[0] == 0
    code, out, _ = gpunet_("evaluate o b.csv --target y")
    assert code == 0
    assert "Scores of the 60 rows of b.csv" in out


def test_a_model_trained_elsewhere_runs_here(gpunet_, mixed):
    pytest.importorskip("array_api_strict")
    line = f"train {mixed} --target y --epochs 2 --out o"
    assert gpunet_(f"{line} --backend array_api_strict --device device1")[0] == 0
    code, _, _ = gpunet_(f"predict o {mixed} --out p.csv --backend numpy")
    assert code == 0
    assert len(rows_of("p.csv")) == M


# --- check, backends, help ---


@pytest.mark.parametrize(
    "line",
    [
        "4 5 3 --activation tanh --loss cross_entropy --l2 0.1",
        "4 5 4 3 --activation relu,maxout:3 --loss softmax_cross_entropy",
        "3 2 --loss squared_error",
        "3 4 1 --activation elu --loss poisson",
    ],
)
def test_check_passes(line, gpunet_):
    code, out, _ = gpunet_(f"check {line}")
    assert code == 0
    layers = re.findall(r"^Theta(\d): largest relative difference (\S+)", out, re.MULTILINE)
    assert [int(l) for l, _ in layers] == list(range(1, len(layers) + 1))
    assert all(float(difference) < 1e-6 for _, difference in layers)


def test_check_finds_a_wrong_derivative(gpunet_, monkeypatch):
    monkeypatch.setattr(Tanh, "g_prime", lambda self, xp, z, a: 1.0 - 0.99 * a * a)
    code, out, err = gpunet_("check 4 5 3 --activation tanh")
    assert code == 1
    assert "Theta1: largest relative difference" in out
    assert err.startswith("error: Backpropagation differs")


def test_backends_are_shown_with_their_remedies(gpunet_, monkeypatch):
    infos = [
        {"name": "numpy", "version": "2.9", "devices": [], "problem": None, "install": ""},
        {
            "name": "cupy",
            "version": "14.1",
            "devices": [gpunet.backend.Device("0", "a GPU", 2 * 2**30)],
            "problem": None,
            "install": "",
        },
        {
            "name": "jax",
            "version": None,
            "devices": [],
            "problem": "jax isn't installed",
            "install": "pip install jax",
        },
    ]
    monkeypatch.setattr(gpunet, "backends_info", lambda: infos)
    code, out, _ = gpunet_("backends")
    assert code == 0
    assert re.search(r"numpy +2\.9", out)
    assert re.search(r"cupy +14\.1 +0: a GPU, 2\.0 GiB", out)
    assert "unusable: jax isn't installed" in out
    assert "install: pip install jax" in out


def test_backends_of_this_machine(gpunet_):
    code, out, _ = gpunet_("backends")
    assert code == 0
    assert re.search(rf"numpy +{re.escape(np.__version__)} +cpu", out)


@pytest.mark.parametrize("command", ["", "train", "predict", "evaluate", "check", "backends"])
def test_help(command, gpunet_):
    code, out, _ = gpunet_(f"{command} --help")
    assert code == 0
    assert "Usage: gpunet" in out


def test_version(gpunet_):
    assert gpunet_("--version") == (0, f"gpunet {gpunet.__version__}\n", "")


# --- what goes wrong ---


def lines_csv(*lines):
    with open("data.csv", "w", encoding="utf-8") as file:
        file.write("\n".join(lines) + "\n")


TRAIN = "train data.csv --target y --epochs 2"
GOOD = ["x,y", *["1,a", "2,b"] * 20]


@pytest.mark.parametrize(
    ("lines", "command", "message"),
    [
        (GOOD, f"{TRAIN} --backend abacus", "Unknown backend 'abacus'; known are .*numpy"),
        (GOOD, f"{TRAIN} --backend numpy --device cuda", "computes on 'cpu' only, not on 'cuda'"),
        (GOOD, f"{TRAIN} --activation swoosh", "Unknown activation 'swoosh'; known are .*relu"),
        (GOOD, f"{TRAIN} --activation tanh,relu", "hidden gives 2 activations"),
        (GOOD, f"{TRAIN} --loss hinge", "Unknown loss 'hinge'; known are cross_entropy"),
        (GOOD, f"{TRAIN} --optimizer walk", "Unknown optimizer 'walk'; known are .*adam"),
        (GOOD, f"{TRAIN} --init ones", "Unknown initializer 'ones'; known are zeros"),
        (GOOD, f"{TRAIN} --learning-rate -1", "learning_rate has to lie in"),
        (GOOD, f"{TRAIN} --hidden 0", "whole number of units"),
        (GOOD, f"{TRAIN} --task regression", "'y' holds text such as 'a', .* needs numbers"),
        (GOOD, "train data.csv --target z", "data.csv has no column 'z'; it has 'x', 'y'"),
        (GOOD, f"{TRAIN} --drop x", "data.csv has no column to predict 'y' from"),
        (GOOD, "train nothing --target y", "No data 'nothing': expected a CSV, .*digits, iris"),
        (GOOD, "train nothing.csv --target y", "No data 'nothing.csv'"),
        (["x,y", "1,a", "inf,b"] * 1 + GOOD[1:], TRAIN, "'x' holds inf in row 2, the header not"),
        (["x,y", "1,2.5", "2,inf", "3,1"], TRAIN, "'y' holds inf in row 2, the header not counted"),
        (["x,y", "1,a", "2,", "3,b"], TRAIN, "'y' has no value in 1 of 3 rows"),
        (["x,y", *["1,a"] * 20], TRAIN, "'y' holds a single class, a"),
        (["x,y"], TRAIN, "data.csv has no rows"),
        ([""], TRAIN, "data.csv is empty"),
        ([*GOOD, "1,2,3"], TRAIN, "row 41, the header not counted, has 3 values .* 2 columns"),
        (["x,y", "1,2.5", "2,1", "4,3"] * 1, f"{TRAIN} --loss cross_entropy", "is for classes"),
        (["x,y", "1,1", "2,2", "3,3"], TRAIN, "3 different values .* use the task 'regression'"),
        (["x,y,y", "1,a,a", "2,b,b"], TRAIN, "data.csv has several columns called 'y'"),
        (GOOD, f"{TRAIN} --test 0.5 --validation 0.5", "No row is left .* shares smaller"),
        (GOOD, f"{TRAIN} --out data.csv/run", "'data.csv' is a file; give another with --out"),
        (GOOD, f"{TRAIN} --out data.csv", "'data.csv' is a file; give another with --out"),
    ],
)
def test_bad_input_is_one_sentence(lines, command, message, gpunet_):
    lines_csv(*lines)
    code, _, err = gpunet_(command)
    assert code == 1
    assert re.match(f"error: .*{message}", err)
    assert err.count("\n") == 1


def test_a_gpu_where_there_is_none_is_one_sentence(gpunet_, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    broken = gpunet.BackendUnavailableError("Backend 'cupy' can't run here: no GPU.\nInstall one.")

    def get_backend(*_):
        raise broken

    monkeypatch.setattr(cli, "get_backend", get_backend)
    code, _, err = gpunet_("train iris --backend cupy")
    assert (code, err) == (1, "error: Backend 'cupy' can't run here: no GPU. Install one.\n")


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("train iris --l2 -1", "--l2"),
        ("train iris --epochs 0", "--epochs"),
        (f"train iris --seed {2**32}", "--seed"),
        (f"check 3 2 --seed {2**32}", "--seed"),
        ("train iris --hidden wide", "give sizes such as 100 or 64,32"),
        ("train iris --task ranking", "--task"),
        ("train iris --precision float16", "--precision"),
        ("train data.csv", "say which column of data.csv to predict"),
        ("train", "DATA"),
        ("frobnicate", "frobnicate"),
    ],
)
def test_bad_usage_is_explained(command, message, gpunet_):
    lines_csv(*GOOD)
    code, _, err = gpunet_(command)
    assert code == 2
    assert message in err
    assert "Traceback" not in err


def test_a_diverging_run_is_one_sentence(gpunet_):
    code, _, err = gpunet_(
        "train diabetes --optimizer gradient_descent --learning-rate 1e9 --out o"
    )
    assert code == 1
    assert re.match("error: Training diverged: in epoch 1 .* smaller learning rate", err)
    assert not os.path.exists("o/model.safetensors")


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["x,constant,day", "1,2,2020-01-01"], "data.csv has no column 'colour'; it has 'x'"),
        (["x,constant,day,colour"], "data.csv has no rows"),
        (["x,constant,day,colour", "abc,1,2020-01-01,red"], "'x' of data.csv should hold numbers"),
        (["x,constant,day,colour", "-inf,1,2020-01-01,red"], "'x' holds -inf in row 1"),
        (["x,constant,day,colour", "1,1,2020-01-01"], "row 1, .* has 3 values .* 4 columns"),
    ],
)
def test_bad_data_to_predict_is_one_sentence(lines, message, trained, gpunet_):
    lines_csv(*lines)
    before = sorted(os.listdir())
    code, _, err = gpunet_(f"predict {trained} data.csv --out p.csv")
    assert code == 1
    assert re.match(f"error: .*{message}", err)
    assert sorted(os.listdir()) == before


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("predict nothing mixed.csv --out p.csv", "no model file 'nothing': give one that gpunet"),
        ("predict empty mixed.csv --out p.csv", "no model file 'empty/model.safetensors': give"),
        ("predict folders mixed.csv --out p.csv", "no model file 'folders/model.safetensors'"),
        ("predict cut mixed.csv --out p.csv", "cut isn't a gpunet model, or it is cut off"),
        ("predict run empty --out p.csv", "No data 'empty', which is a folder: expected a CSV"),
        ("predict mixed.csv mixed.csv --out p.csv", "mixed.csv isn't a gpunet model"),
        ("predict foreign mixed.csv --out p.csv", "foreign isn't a gpunet model: it holds tensors"),
        ("predict newer mixed.csv --out p.csv", "newer was written by a newer gpunet"),
        ("predict alone mixed.csv --out p.csv", "alone holds a network without the columns"),
        ("predict run mixed.csv --out nowhere/p.csv", "no folder '.*nowhere' to write 'p.csv'"),
        ("predict run nothing.csv --out p.csv", "No data 'nothing.csv'"),
        ("evaluate run mixed.csv --target z", "mixed.csv has no column 'z'"),
        ("evaluate run mixed.csv --target x", "'x' is one that the model predicts from"),
        ("evaluate run mixed.csv --target name", "'name' has 'customer 0' in row 1, .* 2 classes"),
    ],
)
@pytest.mark.usefixtures("trained")
def test_a_bad_model_is_one_sentence(command, message, gpunet_):
    save_file({"w": np.zeros(1)}, "foreign")
    save_file({"w": np.zeros(1)}, "newer", {"gpunet": json.dumps({"version": 99})})
    gpunet.Network([2, 1]).save("alone")
    Path("empty").mkdir()
    Path("folders/model.safetensors").mkdir(parents=True)
    Path("cut").write_bytes(Path("alone").read_bytes()[:-1])
    code, _, err = gpunet_(command)
    assert code == 1
    assert re.match(f"error: .*{message}", err)
    assert err.count("\n") == 1


def damaged_parquet(path):
    """Write a file whose footer can be read and whose rows can't."""
    parquet.write_table(pa.table({"x": np.arange(99.0)}), path)
    content = Path(path).read_bytes()
    Path(path).write_bytes(content[:4] + bytes(96) + content[100:])


def damaged_npz(path):
    np.savez_compressed(path, X=np.eye(99), y=np.arange(99) % 2)
    content = Path(path).read_bytes()
    Path(path).write_bytes(content[:90] + bytes(30) + content[120:])


def cut_gzip(path):
    content = gzip.compress(
        "\n".join(["x,target", *(f"{i},{i % 2}" for i in range(9999))]).encode()
    )
    Path(path).write_bytes(content[: len(content) // 2])


@pytest.mark.parametrize(
    ("name", "write", "message"),
    [
        (
            "data.parquet",
            damaged_parquet,
            "can't be read as Parquet: it is damaged, cut off, or no",
        ),
        ("data.parquet", lambda path: Path(path).touch(), "can't be read as Parquet"),
        ("data.csv.gz", cut_gzip, "can't be read as CSV: it is damaged, cut off, or no CSV"),
        ("data.csv", lambda path: Path(path).write_bytes(b"\xb2,x\n1,2\n"), "save it as UTF-8"),
        ("data.npz", damaged_npz, "isn't an NPZ file of plain arrays, or it is damaged"),
    ],
)
@pytest.mark.parametrize("command", ["train {} --target x", "predict run {} --out p.csv"])
def test_a_damaged_file_is_named(command, name, write, message, gpunet_):
    network = gpunet.Network([1, 1], loss="squared_error")
    Path("run").mkdir()
    preparation = Preparation("y", "regression", (Number("x", 0.0, 1.0),), ())
    persistence.save("run/model.safetensors", network, preparation)
    write(name)
    code, _, err = gpunet_(command.format(name))
    assert code == 1
    assert re.match(f"error: {re.escape(name)} .*{message}", err)
    assert err.count("\n") == 1


class Hidden:
    """Finds that pyarrow isn't installed."""

    @staticmethod
    def find_spec(name, *_):
        if name.partition(".")[0] == "pyarrow":
            raise ModuleNotFoundError("No module named 'pyarrow'")


def test_without_pyarrow_a_csv_is_refused_and_a_data_set_is_not(mixed, gpunet_, monkeypatch):
    for name in [
        name for name in sys.modules if name.startswith(("pyarrow", "gpunet.tabular.arrow"))
    ]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Hidden, *sys.meta_path])
    code, _, err = gpunet_(f"train {mixed} --target y")
    assert code == 1
    assert "pip install 'gpunet[tables]'" in err
    assert gpunet_("train iris --epochs 2 --out o")[0] == 0
    assert gpunet_("predict o iris --out p.csv")[0] == 0
    code, _, err = gpunet_("predict o iris --out p.parquet")
    assert code == 1
    assert "Writing Parquet needs pyarrow" in err
    assert not os.path.exists("p.parquet")


def test_a_fault_of_gpunet_is_a_traceback(monkeypatch):
    def fault(*_args, **_settings):
        raise KeyError("a bug")

    monkeypatch.setattr(Preparation, "transform", fault)
    monkeypatch.setattr(sys, "argv", ["gpunet", "train", "iris"])
    with pytest.raises(KeyError, match="a bug"):
        cli.main()


def test_names_are_not_markup(gpunet_, folder):
    write_csv(folder / "data.csv", {"[red]x": [1, 2] * 20, "y": ["[bold]a", ":smile:"] * 20})
    code, out, _ = gpunet_("train data.csv --target y --epochs 2 --out [red]o")
    assert code == 0
    assert "written to [red]o" in out


def test_the_installed_command_runs():
    program = [sys.executable, "-c", "from gpunet.cli import main; main()", "check", "2", "1"]
    result = subprocess.run(program, capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 0
    assert "backpropagation is right" in result.stdout


def test_importing_gpunet_is_cheap():
    program = "import gpunet, sys; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    heavy = {"sklearn", "rich", "typer", "pyarrow", "matplotlib", "scipy", "torch", "jax", "cupy"}
    assert heavy & set(loaded.stdout.split()) == set()


def test_a_model_needs_the_number_of_inputs_it_was_made_for(gpunet_):
    preparation = Preparation("y", "regression", (Number("x", 0.0, 1.0),), ())
    network = gpunet.Network([2, 1], loss="squared_error")
    persistence.save("model", network, preparation)
    code, _, err = gpunet_("predict model iris --out p.csv")
    assert code == 1
    assert "its columns give 1 inputs" in err


def test_a_failed_run_leaves_no_folder(gpunet_, folder):
    code, _, err = gpunet_("train iris --target nonsense")
    assert code == 1
    assert "nonsense" in err
    assert not (folder / "runs").exists()


def test_a_target_that_is_no_target_is_refused(gpunet_, folder):
    write = parquet.write_table
    write(pa.table({"x": [1.0, 2.0], "y": [[1], [2]]}), folder / "lists.parquet")
    code, _, err = gpunet_("train lists.parquet --target y")
    assert code == 1
    assert "can't be predicted" in err


def test_a_second_run_says_that_it_replaces_the_first(gpunet_):
    printed = [gpunet_("train iris --epochs 1")[1] for _ in range(2)]
    assert "earlier run" not in printed[0]
    assert "in place of an earlier run" in printed[1]


def test_python_m_gpunet_is_the_command_line():
    done = subprocess.run(
        [sys.executable, "-m", "gpunet", "--version"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0
    assert gpunet.__version__ in done.stdout
