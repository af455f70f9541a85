"""Steps as CUDA graphs: the same numbers as kernels started one by one, by a stand-in that captures and replays.

What a captured launch would write is NaN until its graph is launched, and any number read by the host is an error
(cupy_on_cpu.py). With a GPU the same numbers are compared on it.
"""

import gc
import importlib.util
import warnings
import weakref
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from gpunet.backends.cupy import graphs as recordings
from gpunet.backends.cupy import layers as layers_of_cupy
from gpunet.backends.cupy.feeding import PinnedFeed
from gpunet.backends.cupy.graphs import Graphs
from gpunet.backends.cupy.layers import LayerPrimitives
from gpunet.backends.cupy.products import Capturable, Products, precision
from gpunet.backends.numpy import NumPyBackend

from gpunet import activations, losses, optimizers
from gpunet.backend import Backend, BackendUnavailableError, get_backend
from gpunet.network import Architecture
from gpunet.primitives import Primitives
from gpunet.runs import train
from gpunet.stacks import Member, Stack
from gpunet.training import Epochs, TrainingState


def module_beside(name):
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


cupy_on_cpu, cuda_on_cpu = module_beside("cupy_on_cpu"), module_beside("cuda_on_cpu")
N, SIZES = 53, (5, 7, 6, 3)  # of 16 a batch: three full ones and one of 5


RELU, CROSS_ENTROPY, ADAM = activations.ReLU(), losses.SoftmaxCrossEntropy(), optimizers.Adam()


class StandIn(NumPyBackend):
    """The CuPy backend over the stand-in."""

    def __init__(self, graphs=True, problem=None, launch=None):
        super().__init__()
        self.cupy = cupy = cupy_on_cpu.CuPyOnCPU()
        products = Products(cupy, cupy_on_cpu.CuBLAS(cupy))
        self.xp = Capturable(cupy_on_cpu.Namespace(cupy), cupy, products)
        self.primitives = Primitives(self.xp)
        if launch is not None:
            self.primitives = LayerPrimitives(self.xp, self._launcher(launch))
        self.graphs = Graphs(cupy, problem) if graphs else None

    def _launcher(self, launch):
        def launched(name, grid, block, arguments):
            arguments = cupy_on_cpu.plain(arguments)
            self.cupy.launch(name, lambda: launch(name, grid, block, arguments), [])

        return launched

    def compile(self, step):
        plain = Backend.compile(self, step)
        return plain if self.graphs is None else self.graphs.compile(step, self.primitives, plain)

    def asarray(self, values, dtype=None):
        return self.cupy.asarray(values, dtype)

    def to_host(self, array):
        return self.cupy.asnumpy(array)

    def feed(self, arrays, most):
        return PinnedFeed(self.cupy, arrays, most, self)

    def scales_losses(self, dtype):
        return dtype == "float32" and precision() == "float16"


@dataclass
class Run:
    """A training run: what differs from the plainest."""

    hidden: activations.Activation = RELU
    loss: losses.Loss = CROSS_ENTROPY
    optimizer: optimizers.Optimizer = ADAM
    extras: dict = field(default_factory=dict)
    weighted: bool = False
    l2: float | None = 0.1
    n: int = N

    def begin(self, backend, dtype="float64"):
        """Return epochs on a backend, and the state they start from."""
        random = np.random.RandomState(0)
        X, weights = random.normal(size=(self.n, SIZES[0])), random.uniform(size=self.n)
        y = np.eye(SIZES[-1])[random.randint(SIZES[-1], size=self.n)]
        output = activations.get(self.loss.canonical)
        architecture = Architecture(SIZES, (self.hidden, activations.Tanh(), output), self.loss)
        theta = random.normal(scale=0.4, size=architecture.n_parameters)
        data = (
            backend.asarray(X, dtype).T, backend.asarray(y, dtype).T,
            backend.asarray(weights, dtype) if self.weighted else None, self.l2,
        )  # fmt: skip
        epochs = Epochs(
            architecture, data, backend=backend, optimizer=self.optimizer, batch_size=16,
            **self.extras,
        )  # fmt: skip
        return epochs, TrainingState(backend.asarray(theta, dtype), np.random.RandomState(3))

    def trained(self, backend, dtype="float64", times=3):
        """Return θ and the costs of some epochs."""
        with backend.active():
            epochs, state = self.begin(backend, dtype)
            costs = [epochs.run(state, rate) for _ in range(times)]
            return backend.to_host(state.theta), np.array([backend.to_host(J) for J in costs])


def rate(step):
    return 0.1 / step


CUBE = activations.Custom(lambda xp, z: z * z * z, lambda xp, z, a: 3.0 * z * z)
RUNS = {
    **{
        rule.name: Run(optimizer=rule())
        for rule in optimizers.KNOWN.values()
        if rule.name != "lbfgs"
    },
    "maxout": Run(hidden=activations.Maxout(2)),
    "one's own activation": Run(hidden=CUBE),
    **{
        loss.name: Run(loss=loss)
        for loss in losses.KNOWN.values()
        if loss.name not in {"softmax_cross_entropy", "poisson"}
    },
    "no λ": Run(l2=None),
    "sample weights": Run(weighted=True),
    "dropout": Run(extras={"dropout": (0.3, 0.1)}),
    "clipped": Run(extras={"clip": 0.5}),
    "the lecture's cost": Run(weighted=True, extras={"whole": True}),
    "full batches only": Run(n=48),
    "one batch": Run(n=16),
}
EVERY_RUN = pytest.mark.parametrize("run", RUNS.values(), ids=RUNS)


@EVERY_RUN
def test_graphs_compute_what_launches_do_and_the_reference(run, dtype, tolerance):
    theta, costs = run.trained(StandIn(), dtype)
    plain, plain_costs = run.trained(StandIn(graphs=False), dtype)
    np.testing.assert_array_equal(theta, plain)
    np.testing.assert_array_equal(costs, plain_costs)
    expected, expected_costs = run.trained(get_backend("numpy"), dtype)
    tolerance.check(theta, expected)
    tolerance.check(costs, expected_costs)


@pytest.fixture(scope="session")
def launch(tmp_path_factory):
    """Return what launches gpunet's kernels on the processor."""
    if cuda_on_cpu.COMPILER is None:
        pytest.skip("there is no C++ compiler to compile the kernels with")
    return cuda_on_cpu.OnProcessor(cuda_on_cpu.compiled(tmp_path_factory.mktemp("cuda")))


@EVERY_RUN
@pytest.mark.parametrize("small", [2**22, 0], ids=["small layers", "products"])
def test_kernels_compute_the_reference(launch, run, small, monkeypatch):
    monkeypatch.setattr(layers_of_cupy, "SMALL", small)
    theta, costs = run.trained(StandIn(launch=launch), times=2)
    expected, expected_costs = run.trained(get_backend("numpy"), times=2)
    np.testing.assert_allclose(theta, expected, rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(costs, expected_costs, rtol=1e-10)


@pytest.mark.parametrize("name", ["adam", "maxout", "dropout", "sample weights"])
def test_kernels_are_captured_as_everything_else(launch, name):
    backend = StandIn(launch=launch)
    theta, costs = RUNS[name].trained(backend)
    plain, plain_costs = RUNS[name].trained(StandIn(graphs=False, launch=launch))
    np.testing.assert_array_equal(theta, plain)
    np.testing.assert_array_equal(costs, plain_costs)
    assert any(n.startswith("update<double") for n, _ in backend.cupy.graphs[0].noted)


@pytest.mark.parametrize(
    ("sizes", "m", "nodes"),
    [
        ((50, 100, 10), 200, 8),
        ((50, 100, 100, 10), 200, 10),
        ((784, 256, 128, 10), 256, 17),
        ((1024, 2048, 2048, 10), 1024, 20),
    ],
)
@pytest.mark.parametrize(("products", "more"), [("float32", 0), ("float16", 7)])
def test_how_many_kernels_a_step_starts(sizes, m, nodes, products, more, monkeypatch):  # noqa: PLR0917  # a table
    """docs/gpu.md tells it: ReLU, softmax, Adam and λ. What they compute is of no interest here."""
    monkeypatch.setenv("GPUNET_PRODUCTS", products)
    backend = StandIn(launch=lambda *_: None)
    layers = (RELU,) * (len(sizes) - 2) + (activations.Softmax(),)
    architecture = Architecture(sizes, layers, CROSS_ENTROPY)
    x, y = (backend.asarray(np.ones((2 * m, n)), "float32").T for n in (sizes[0], sizes[-1]))
    epochs = Epochs(architecture, (x, y, None, 0.1), backend=backend, optimizer=ADAM, batch_size=m)
    theta = backend.asarray(np.ones(architecture.n_parameters), "float32")
    epochs.run(TrainingState(theta, np.random.RandomState(0)), rate)
    assert len(backend.cupy.graphs[0].noted) == nodes + more


def test_kernels_in_a_stack_write_gradients_where_they_belong(launch):
    """Nothing is put together afterwards: products and sums write into one flat gradient."""
    results = []
    for primitives in ("kernels", "reference"):
        backend = StandIn(launch=launch if primitives == "kernels" else None)
        with backend.active():
            stack = stack_of(backend, RULES)
            costs = [stack.run(), stack.run()]
        results.append([backend.to_host(each) for each in (stack.theta, *costs)])
        names = [name for name, _ in backend.cupy.graphs[0].noted]
        assert names.count("concatenate") == (0 if primitives == "kernels" else 2)  # and λ's part
    for kernels, reference in zip(*results, strict=True):
        np.testing.assert_allclose(kernels, reference, rtol=1e-10, atol=1e-12)


def test_a_gradient_of_another_layer_or_dtype_is_put_together_as_ever(launch):
    primitives = StandIn(launch=launch).primitives
    asarray = primitives.xp._cupy.asarray
    architecture = Architecture((3, 4, 2), (RELU, activations.Softmax()), CROSS_ENTROPY)
    random = np.random.default_rng(0)
    a, above, below = (random.normal(size=(n, 5)) for n in (3, 2, 4))
    for kinds in (("float64", "float64"), ("float16", "float64"), ("float64", "float16")):
        deltas = [asarray(delta, kind) for delta, kind in zip((above, below), kinds, strict=True)]
        inputs = [asarray(below, kinds[0]), asarray(a, kinds[1])]
        D = [
            primitives.layer_gradient(architecture, l, delta, x)
            for l, delta, x in zip((1, 0), deltas, inputs, strict=True)
        ]
        gradient = primitives.unroll(architecture, D[::-1])
        expected = architecture.unroll(
            np, [(below @ a.T, below.sum(-1)), (above @ below.T, above.sum(-1))]
        )
        np.testing.assert_allclose(cupy_on_cpu.plain(gradient), expected, rtol=0.02, atol=0.02)


@pytest.fixture
def gpu():
    """Return the GPU's backend."""
    try:
        return get_backend("cupy")
    except BackendUnavailableError as error:
        pytest.skip(str(error))


@EVERY_RUN
def test_on_a_gpu_graphs_compute_what_launches_do_cupy(gpu, run, dtype, tolerance, monkeypatch):
    monkeypatch.setenv("GPUNET_ON_CHIP", "0")
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a capture that fails warns
        theta, costs = run.trained(gpu, dtype)
    monkeypatch.setenv("GPUNET_GRAPHS", "0")
    plain, plain_costs = run.trained(gpu, dtype)
    tolerance.check(theta, plain)
    tolerance.check(costs, plain_costs)


@EVERY_RUN
def test_on_a_gpu_several_steps_in_a_graph_compute_what_launches_do_cupy(  # noqa: PLR0917  # fixtures
    gpu, run, impatient, dtype, tolerance, monkeypatch
):
    captured, sizes = recordings.Recording._captured, []

    def noted(self, steps):
        graph = captured(self, steps)
        sizes.append(steps)
        return graph

    monkeypatch.setenv("GPUNET_ON_CHIP", "0")
    monkeypatch.setattr(recordings.Recording, "_captured", noted)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        theta, costs = run.trained(gpu, dtype, times=4)
    assert max(sizes) == run.n // 16
    monkeypatch.setenv("GPUNET_GRAPHS", "0")
    plain, plain_costs = run.trained(gpu, dtype, times=4)
    tolerance.check(theta, plain)
    tolerance.check(costs, plain_costs)


def stack_of(backend, rules, l2s=(0.0, 0.1, 0.2)):
    """Return a stack whose members differ in all that may differ."""
    random = np.random.RandomState(0)
    X, labels = random.normal(size=(N, SIZES[0])), random.randint(3, size=N)
    layers = activations.ReLU(), activations.Maxout(2), activations.Softmax()
    architecture = Architecture(SIZES, layers, losses.SoftmaxCrossEntropy())
    thetas = random.normal(scale=0.3, size=(len(rules), architecture.n_parameters))
    members = [
        Member(
            backend.asarray(theta), rule, np.random.RandomState(seed), np.arange(N),
            l2=l2, dropout=(0.1 * seed, 0.2), learning_rate=0.01 * seed,
        )
        for seed, (theta, rule, l2) in enumerate(zip(thetas, rules, l2s, strict=True), start=1)
    ]  # fmt: skip
    return Stack(
        architecture, backend.asarray(X).T, backend.asarray(np.eye(3)[labels]).T, members,
        backend=backend, batch_size=16,
    )  # fmt: skip


RULES = [optimizers.Adam(), optimizers.Adam(beta_1=0.8), optimizers.Adam(epsilon=1e-4)]


def test_stacks_are_recorded_anew_when_members_leave():
    results = []
    for graphs in (True, False):
        backend = StandIn(graphs=graphs)
        with backend.active():
            stack = stack_of(backend, RULES)
            costs = [stack.run(), stack.run()]
            stack.keep([0, 2])
            costs += [stack.run(), stack.run(), stack.run()]
        results.append([backend.to_host(each) for each in (stack.theta, *costs)])
        assert len(backend.cupy.graphs) == (4 if graphs else 0)
    for graph, plain in zip(*results, strict=True):
        np.testing.assert_array_equal(graph, plain)


def test_a_step_is_launched_captured_and_then_replayed():
    backend = StandIn()
    epochs, state = Run().begin(backend)
    log = backend.cupy.log
    log.clear()
    epochs.run(state, rate)
    assert log.count("graph") == 2  # of three full batches; the last one was taken once
    assert "gemm" in log
    first, second = (log.count("gemm"), log.index("graph"))
    assert first == 2 * 8  # three products forward, three gradients, two back; twice
    assert "gemm" not in log[second : second + 2]
    log.clear()
    epochs.run(state, rate)
    assert log.count("graph") == 4
    assert log.count("gemm") == 0
    (full, partial) = backend.cupy.graphs
    assert (full.launched, partial.launched) == (5, 1)
    for _ in range(3):
        epochs.run(state, rate)
    assert backend.cupy.graphs == [full, partial]


@pytest.fixture
def impatient(monkeypatch):
    """Graphs of several steps, at once."""
    monkeypatch.setattr(recordings, "PATIENCE", 0)


@EVERY_RUN
def test_several_steps_in_a_graph_are_the_very_same(run, impatient, dtype):
    several, single = StandIn(), StandIn(graphs=False)
    theta, costs = run.trained(several, dtype, times=4)
    plain, plain_costs = run.trained(single, dtype, times=4)
    np.testing.assert_array_equal(theta, plain)
    np.testing.assert_array_equal(costs, plain_costs)
    sizes = [len(graph.noted) for graph in several.cupy.graphs]
    assert (run.n < 3 * 16) == (max(sizes) < 3 * min(sizes))  # three steps a graph, or one


@pytest.mark.parametrize(
    ("steps", "size", "together"),
    [
        (100, 1000, 14),
        (16, 1000, 16),
        (17, 1000, 8),
        (1, 1000, 1),
        (5, 1000, 5),
        (64, 10**7, 1),
        (64, 2 * 10**6, 5),
    ],
)
def test_how_many_steps_make_a_graph(steps, size, together):
    """No more than it takes to keep the device busy, and so that few are left over."""
    carry, batches = (np.empty(size, np.int8),), (np.empty((steps, 128), np.int8),)
    assert recordings._together(carry, batches) == together


def test_a_graph_of_several_steps_comes_when_it_has_paid(monkeypatch):
    monkeypatch.setattr(recordings, "PATIENCE", 8)
    backend = StandIn()
    epochs, state = Run(n=48).begin(backend)
    launched = []
    for _ in range(5):
        backend.cupy.log.clear()
        epochs.run(state, rate)
        launched.append(backend.cupy.log.count("graph"))
    assert launched == [2, 3, 3, 1, 1]


def test_several_steps_that_cannot_be_captured_go_on_one_by_one(impatient, monkeypatch):
    captured = recordings.Recording._captured

    def capture(self, steps):
        if steps > 1:
            raise MemoryError
        return captured(self, steps)

    monkeypatch.setattr(recordings.Recording, "_captured", capture)
    theta, costs = Run().trained(StandIn())
    plain, plain_costs = Run().trained(StandIn(graphs=False))
    np.testing.assert_array_equal(theta, plain)
    np.testing.assert_array_equal(costs, plain_costs)


def test_an_epochs_own_numbers_reach_a_graph_recorded_before():
    """Rates change from step to step and the shuffle from epoch to epoch; nothing of it is in the graph."""
    _, costs = Run(optimizer=optimizers.GradientDescent()).trained(StandIn(), times=6)
    _, plain = Run(optimizer=optimizers.GradientDescent()).trained(StandIn(False), times=6)
    np.testing.assert_array_equal(costs, plain)
    assert len(set(costs)) == 6


LAMBDAS = 0.1, 0.1, 0.7, 0.3, 0.0


@pytest.mark.parametrize("kernels", [True, False], ids=["kernels", "reference"])
@pytest.mark.parametrize("name", ["adam", "sample weights", "clipped", "dropout"])
def test_another_lambda_reaches_the_graphs_that_there_are(launch, name, kernels, dtype):
    """λ/m is rounded once, as single launches have it: 0.1 and 0.7 aren't float32's."""
    thetas = []
    for graphs in (True, False):
        backend = StandIn(graphs, launch=launch if kernels else None)
        epochs, state = RUNS[name].begin(backend, dtype)
        for l2 in LAMBDAS:
            epochs._data = (*epochs._data[:3], l2)
            epochs.run(state, rate)
        thetas.append(backend.to_host(state.theta))
        assert len(backend.cupy.graphs) == (2 if graphs else 0)
    np.testing.assert_array_equal(*thetas)


def test_a_lambda_that_changes_captures_nothing():
    backend = StandIn()
    epochs, state = Run().begin(backend)
    epochs.run(state, rate)
    epochs.run(state, rate)
    graphs = list(backend.cupy.graphs)
    for l2 in LAMBDAS:
        epochs._data = (*epochs._data[:3], l2)
        backend.cupy.log.clear()
        epochs.run(state, rate)
        assert backend.cupy.log.count("graph") == 4
    assert backend.cupy.graphs == graphs
    assert backend.cupy.captures == 2


def test_other_arrays_are_recorded_anew_and_so_is_a_lambda_that_comes_or_goes():
    backend = StandIn()
    epochs, state = Run(n=48).begin(backend)
    run, data = epochs._run, epochs._data
    others = data[0].copy().view(type(data[0]))
    for count, changed in enumerate((data, (others, *data[1:]), (others, *data[1:3], None)), 1):
        epochs._data = changed
        epochs.run(state, rate)
        assert len(backend.cupy.graphs) == count
    assert epochs._run is run


def test_a_stacks_common_lambda_is_each_networks():
    thetas = []
    for graphs in (True, False):
        backend = StandIn(graphs)
        with backend.active():
            stack = stack_of(backend, RULES, (0.1, 0.1, 0.1))
            for l2 in LAMBDAS:
                stack._l2 = l2
                stack.run()
            thetas.append(backend.to_host(stack.theta))
        assert len(backend.cupy.graphs) == (2 if graphs else 0)
    np.testing.assert_array_equal(*thetas)


def test_two_runs_may_share_a_program():
    """What an epoch returns is the caller's; the next epoch of another run doesn't touch it."""
    results = []
    for order in ((0, 1, 0, 1, 0, 1), (0, 0, 0, 1, 1, 1)):
        backend = StandIn()
        epochs, first = Run().begin(backend)
        thetas = [first.theta, first.theta + 1.0]
        states = [TrainingState(theta, np.random.RandomState(4)) for theta in thetas]
        for which in order:
            epochs.run(states[which], rate)
        assert all(state.theta is theta for state, theta in zip(states, thetas, strict=True))
        results.append([backend.to_host(theta) for theta in thetas])
    np.testing.assert_array_equal(*results)


def test_an_epoch_can_be_stopped_between_two_steps():
    steps = []
    for graphs in (True, False):
        backend = StandIn(graphs)
        epochs, state = Run().begin(backend)
        epochs.run(state, rate)
        epochs.run(state, rate, iter([False, False, True, True]).__next__)
        steps.append(backend.to_host(state.theta))
    np.testing.assert_array_equal(*steps)


class TestWithoutGraphs:
    def test_what_cannot_be_captured_is_launched_with_one_warning(self):
        """A function of one's own that CuPy can't capture, such as one that asks cuBLAS through CuPy."""

        def through_cupy(xp, z):
            return z * xp.sum(backend.cupy.matmul(z, xp.matrix_transpose(z)))

        own = activations.Custom(through_cupy, lambda xp, z, a: xp.ones_like(z))
        backend = StandIn()
        run = Run(hidden=own, n=48)
        with pytest.warns(UserWarning, match=r"every kernel is started by itself.*cuBLAS") as told:
            theta, costs = run.trained(backend)
        assert len(told) == 1
        run.trained(backend)  # another fit says nothing, where a warning is an error
        assert "GPUNET_GRAPHS=0" in str(told[0].message)
        assert backend.cupy.graphs == []
        assert backend.cupy.current[-1].noted is None
        assert backend.cupy.captures == 2  # once for each fit
        launched = backend
        backend = StandIn(False)  # which the activation looks up
        plain, plain_costs = run.trained(backend)
        np.testing.assert_array_equal(theta, plain)
        np.testing.assert_array_equal(costs, plain_costs)
        backend = launched
        Run().trained(backend)  # what can be captured still is
        assert len(backend.cupy.graphs) == 2

    def test_a_number_read_by_the_host_ends_the_capture(self):
        own = activations.Custom(
            lambda xp, z: z * float(backend.to_host(z[0, 0]) > 0), lambda xp, z, a: xp.ones_like(z)
        )
        backend = StandIn()
        with pytest.warns(UserWarning, match="a copy to the host"):
            Run(hidden=own).trained(backend)
        assert backend.cupy.graphs == []

    def test_missing_bindings_are_told_of_once(self):
        backend = StandIn(problem=ImportError("No module named 'nvmath'"))
        with pytest.warns(UserWarning, match="No module named 'nvmath'") as told:
            theta, _ = Run().trained(backend)
        assert len(told) == 1
        Run().trained(backend)
        np.testing.assert_array_equal(theta, Run().trained(StandIn(False))[0])

    def test_they_can_be_switched_off(self, monkeypatch):
        monkeypatch.setenv("GPUNET_GRAPHS", "0")
        backend = StandIn(problem=ImportError("No module named 'nvmath'"))
        Run().trained(backend)
        backend = StandIn()
        Run().trained(backend)
        assert "graph" not in backend.cupy.log

    def test_where_memory_is_short_kernels_do_without_a_graphs_own(self, monkeypatch):
        """θ, the optimizer's memory and what a step computes are there twice with graphs."""
        backend, run = StandIn(), Run(n=48)

        class Full(cupy_on_cpu.OwnPool):
            def malloc(self, size):
                raise MemoryError("out of memory allocating 1,024 bytes")

        monkeypatch.setattr(backend.cupy.cuda, "MemoryPool", Full)
        with pytest.warns(UserWarning, match="out of memory allocating 1,024 bytes") as told:
            theta, costs = run.trained(backend)
        assert len(told) == 1
        assert (len(backend.graphs.recordings), backend.cupy.graphs) == (0, [])
        plain, plain_costs = run.trained(StandIn(False))
        np.testing.assert_array_equal(theta, plain)
        np.testing.assert_array_equal(costs, plain_costs)

    def test_what_is_wrong_with_a_step_is_said_as_ever(self):
        def wrong(xp, z):
            raise ValueError("no such function")

        backend = StandIn()
        with pytest.raises(ValueError, match="no such function"):
            Run(hidden=activations.Custom(wrong, wrong)).trained(backend)


class TestMemory:
    def test_the_graphs_own_stream_waits_and_is_waited_for(self):
        backend = StandIn()
        Run(n=48).trained(backend)
        here, own = backend.cupy.streams
        assert backend.cupy.waits == [(own, here), (here, own)]

    def test_nothing_is_kept_when_a_run_is_over(self):
        backend = StandIn()
        epochs, state = Run().begin(backend)
        epochs.run(state, rate)
        epochs.run(state, rate)
        graphs = [weakref.ref(graph) for graph in backend.cupy.graphs]
        backend.cupy.graphs.clear()
        gc.collect()
        gc.disable()  # memory on a device doesn't wait for the collector
        try:
            del epochs
        finally:
            gc.enable()
        assert [graph() for graph in graphs] == [None, None]

    def test_a_stack_that_loses_members_drops_their_graphs(self):
        backend = StandIn()
        with backend.active():
            stack = stack_of(backend, RULES)
            stack.run()
            stack.run()
            graphs = [weakref.ref(graph) for graph in backend.cupy.graphs]
            backend.cupy.graphs.clear()
            stack.keep([1])
            stack.run()
        gc.collect()
        assert [graph() for graph in graphs] == [None, None]

    def test_a_whole_run_reads_once_an_epoch(self, monkeypatch):
        backend, reads = StandIn(), []
        to_host = type(backend).to_host

        def noted(self, array):
            reads.append(array.shape)
            return to_host(self, array)

        epochs, state = Run().begin(backend)
        monkeypatch.setattr(StandIn, "to_host", noted)
        with backend.active():
            train(epochs, state, backend=backend, n_epochs=4, learning_rate=rate)
        assert len(reads) == 4


def test_a_graphs_pool_never_frees_what_a_graph_points_at():
    """It would, where CUDA has no memory or more than a limit is asked for, and go on as if nothing had been."""

    class CUDARuntimeError(RuntimeError):
        pass

    def allocated(size):
        if size == 13:
            raise CUDARuntimeError("cudaErrorIllegalAddress: an illegal memory access")
        if size > 100:
            raise CUDARuntimeError("cudaErrorMemoryAllocation: out of memory")
        return size

    backend = StandIn()
    pools, cuda = [], backend.cupy.cuda
    cuda.MemoryPool = lambda allocator: pools.append(cupy_on_cpu.OwnPool(allocator)) or pools[-1]
    Run(n=48).trained(backend)
    (pool,) = pools
    assert pool.limit == 0
    cuda.Memory, cuda.MemoryPointer = allocated, lambda memory, at: (memory, at)
    cuda.runtime = SimpleNamespace(CUDARuntimeError=CUDARuntimeError)
    assert pool.allocator(100) == (100, 0)
    with pytest.raises(MemoryError, match="out of memory"):
        pool.allocator(101)
    with pytest.raises(CUDARuntimeError, match="illegal"):  # which isn't for want of memory
        pool.allocator(13)


def test_cupy_has_every_name_that_is_used():
    """CuPy may be installed where there is no GPU."""
    cupy = pytest.importorskip("cupy", reason="CuPy isn't installed")
    for name in (
        "Stream", "Memory", "MemoryPointer", "MemoryPool", "get_current_stream", "using_allocator",
    ):  # fmt: skip
        assert hasattr(cupy.cuda, name)
    assert hasattr(cupy.cuda.MemoryPool, "set_limit")
    assert issubclass(cupy.cuda.runtime.CUDARuntimeError, RuntimeError)
    for name in ("begin_capture", "end_capture", "record", "wait_event", "__enter__"):
        assert hasattr(cupy.cuda.Stream, name)
    assert hasattr(cupy.cuda.MemoryPool, "malloc")
    assert {"launch", "debug_dot_str"} <= set(dir(cupy.cuda.Graph))
    assert {"fill", "__setitem__", "__iadd__"} <= set(dir(cupy.ndarray))
    assert (cupy.cuda.runtime.CUDA_R_32F, cupy.cuda.runtime.CUDA_R_64F) == (0, 1)
