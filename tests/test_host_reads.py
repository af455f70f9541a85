"""Nothing within an epoch waits for the device: a read back to the host is an error there.

array-api-strict's second device stands for a GPU. It refuses `numpy.asarray` by itself, and here every other way
out, too. What the CUDA kernels' own primitives do is held to the same in test_cuda_kernels.py.
"""

import contextlib

import numpy as np
import pytest

from gpunet import activations, losses, optimizers
from gpunet.backend import get_backend
from gpunet.network import Architecture
from gpunet.runs import train
from gpunet.stacks import Member, Stack
from gpunet.training import Epochs, TrainingState

pytest.importorskip("array_api_strict", reason="array-api-strict isn't installed")

WAYS_OUT = (
    "__bool__", "__complex__", "__float__", "__index__", "__int__", "__array__", "__buffer__",
    "__dlpack__", "to_device",
)  # fmt: skip
N, SIZES, DTYPE = 23, (4, 6, 5, 3), "float32"


class ReadBackError(Exception):
    """A number left the device."""


@contextlib.contextmanager
def nothing_read():
    """Make every way from the device to the host an error."""
    backend = get_backend("array_api_strict:device1")

    def refuse(*_, **__):
        raise ReadBackError

    with pytest.MonkeyPatch.context() as patch:
        kind = type(backend.xp.zeros(1))
        for name in WAYS_OUT:
            patch.setattr(kind, name, refuse, raising=False)
        patch.setattr(type(backend), "to_host", refuse)
        yield


@pytest.fixture
def device():
    """Return the device that stands for a GPU."""
    return get_backend("array_api_strict:device1")


WAYS = {
    "float": float,
    "bool": bool,
    "int": int,
    "if": lambda array: 1 if array else 0,
    "asarray": np.asarray,
    "dlpack": np.from_dlpack,
    "slice": lambda array: [1, 2, 3][:array],
    "range": range,
}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_every_way_out_is_closed(device, way):
    one = device.asarray(np.array(1))
    with nothing_read(), pytest.raises((ReadBackError, RuntimeError)):
        way(one)


def test_to_host_is_closed(device):
    one = device.asarray(np.array(1.0))
    with nothing_read(), pytest.raises(ReadBackError):
        device.to_host(one)
    assert float(device.to_host(one)) == 1.0


def minibatches(device, loss):
    """Return x, y and sample weights on the device."""
    random = np.random.RandomState(0)
    X, weights = random.normal(size=(N, SIZES[0])), random.uniform(size=N)
    y = np.eye(SIZES[-1])[random.randint(SIZES[-1], size=N)] if loss.classification else X[:, :3]
    y = np.abs(y) if loss.domain[0] == 0 else y
    return [device.asarray(array.T, DTYPE) for array in (X, y, weights)]


def architecture_of(hidden, loss):
    output = activations.get(loss.canonical)
    return Architecture(SIZES, (hidden, activations.Tanh(), output), loss)


RULES = [rule() for rule in optimizers.KNOWN.values() if rule.name != "lbfgs"]
LOSSES = list(losses.KNOWN.values())
HIDDEN = [activations.get(name) for name in activations.KNOWN]
PLAIN = (activations.ReLU(), LOSSES[1], RULES[3])
PARTS = {
    **{f"{rule.name}": (*PLAIN[:2], rule) for rule in RULES},
    **{f"{loss.name}": (PLAIN[0], loss, PLAIN[2]) for loss in LOSSES},
    **{f"{hidden.name} ": (hidden, *PLAIN[1:]) for hidden in HIDDEN},
}


class TestAnEpoch:
    @pytest.mark.parametrize(
        "extras", ["", "dropout", "clip", "weights", "weights whole", "l2", "l2 whole"]
    )
    @pytest.mark.parametrize("parts", PARTS.values(), ids=PARTS)
    def test_of_one_network(self, device, parts, extras):
        hidden, loss, optimizer = parts
        x, y, weights = minibatches(device, loss)
        architecture = architecture_of(hidden, loss)
        theta = np.random.RandomState(1).normal(scale=0.1, size=architecture.n_parameters)
        state = TrainingState(device.asarray(theta, DTYPE), np.random.RandomState(2))
        data = (x, y, weights if "weights" in extras else None, 0.1 if "l2" in extras else None)
        with nothing_read():
            epochs = Epochs(
                architecture, data, backend=device, optimizer=optimizer, batch_size=10,
                dropout=(0.2, 0.1) if extras == "dropout" else (),
                clip=1.0 if extras == "clip" else None, whole="whole" in extras,
            )  # fmt: skip
            costs = [epochs.run(state, lambda step: 0.1 / step) for _ in range(2)]
        assert np.isfinite([device.to_host(cost) for cost in costs]).all()

    @pytest.mark.parametrize("own", [False, True], ids=["alike", "each its own"])
    @pytest.mark.parametrize("optimizer", RULES, ids=lambda rule: rule.name)
    def test_of_a_stack(self, device, optimizer, own):
        loss = LOSSES[1]
        x, y, weights = minibatches(device, loss)
        architecture = architecture_of(activations.Maxout(), loss)
        thetas = np.random.RandomState(1).normal(scale=0.1, size=(3, architecture.n_parameters))
        settings = {
            name: value * 0.9
            for name, value in vars(optimizer).items()
            if own and name != "learning_rate"
        }
        rules = [optimizer, type(optimizer)(**settings), optimizer]
        members = [
            Member(
                device.asarray(theta, DTYPE), rule, np.random.RandomState(seed if own else 0),
                np.arange(N), l2=0.1 * seed * own, dropout=(0.1 + 0.2 * seed * own, 0.0),
                clip=1.0 + seed * own, weights=weights * (1.0 + seed) if own else weights,
                learning_rate=(lambda step: 0.1 / step) if own else 0.1,
            )
            for seed, (theta, rule) in enumerate(zip(thetas, rules, strict=True))
        ]  # fmt: skip
        with nothing_read():
            stack = Stack(architecture, x, y, members, backend=device, batch_size=10)
            costs = [stack.run()]
            stack.keep([0, 2])
            costs.append(stack.run())
        assert np.isfinite(np.concatenate([device.to_host(cost) for cost in costs])).all()


def test_a_run_reads_once_an_epoch(device, monkeypatch):
    reads = []
    to_host = type(device).to_host

    def noted(self, array):
        reads.append(array.shape)
        return to_host(self, array)

    hidden, loss, optimizer = PLAIN
    x, y, _ = minibatches(device, loss)
    architecture = architecture_of(hidden, loss)
    theta = device.asarray(np.full(architecture.n_parameters, 0.01), DTYPE)
    epochs = Epochs(
        architecture, (x, y, None, 0.1), backend=device, optimizer=optimizer, batch_size=5
    )
    state = TrainingState(theta, np.random.RandomState(0))
    monkeypatch.setattr(type(device), "to_host", noted)
    result = train(epochs, state, backend=device, n_epochs=4, learning_rate=lambda step: 0.1)
    assert len(result.history) == len(reads) == 4
