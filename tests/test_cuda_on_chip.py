"""Small networks on the chip: one block trains a network for all of an epoch, with the numbers that launches give.

The kernel is written from the recorded step. Here it is compiled as C++ and run by fibers (cuda_on_cpu.py), each launch
in the one order of threads and the other, its shared memory NaN at first and between guards. With a GPU the same runs
are compared on it.
"""

import functools
import hashlib
import importlib.util
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from gpunet.backends.cupy.block_layout import layout, tiles
from gpunet.backends.cupy.block_program import NAME, Chip, Program
from gpunet.backends.cupy.kernels import OPTIONS
from gpunet.backends.cupy.on_chip import OnChip, on_device, worth_it
from gpunet.backends.recording import UnrecordableError

from gpunet import activations, losses, optimizers, streaming
from gpunet.backend import Backend, BackendUnavailableError, get_backend
from gpunet.network import Architecture
from gpunet.stacks import Member, Stack
from gpunet.step import TrainingStep
from gpunet.streaming import HostColumns
from gpunet.training import Epochs, TrainingState


def module_beside(name):
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


graphs, cuda_on_cpu = module_beside("test_cuda_graphs"), module_beside("cuda_on_cpu")
program_test = module_beside("test_cuda_program")
nvrtc = program_test.nvrtc
H100, A100 = Chip(227 * 1024, 132), Chip(163 * 1024, 108)
PLACED = "static const int placed = (cpu::shared_of_launch = &on_chip, 0);"


@pytest.fixture(scope="session")
def build(tmp_path_factory):
    """Return what compiles a program for the processor, each once."""
    if cuda_on_cpu.COMPILER is None:
        pytest.skip("there is no C++ compiler to compile the kernels with")
    folder, known = tmp_path_factory.mktemp("on_chip"), {}

    def build(source, size):
        key = hashlib.sha256(source.encode()).hexdigest()
        if key not in known:
            place = folder / key
            place.mkdir()
            library = cuda_on_cpu.built(place, source, [NAME], PLACED, "-O0")
            known[key] = cuda_on_cpu.OnProcessor(library, [NAME])

        def launch(grid, block, arguments):
            plain = graphs.cupy_on_cpu.plain(arguments)
            known[key].launch(NAME, grid, block, plain, size)

        return launch

    return build


@pytest.fixture(autouse=True)
def wherever_it_fits(monkeypatch):
    """Don't ask whether it is worth it."""
    monkeypatch.setenv("GPUNET_ON_CHIP", "1")


class StandIn(graphs.StandIn):
    """The CuPy backend over the stand-in, small networks on a chip.

    Attributes
    ----------
    launches : list of tuple
        Grid, block and first step of each launch.
    others : int
        How many epochs were made for what isn't for the chip.
    """

    def __init__(self, build, chip=H100):
        super().__init__(graphs=False)
        self.launches, self.others = [], 0

        def noted(source, size):
            launch = build(source, size)

            def note(grid, block, arguments):
                steps = [a for a in arguments if isinstance(a, np.int32)]
                self.launches.append((grid, block, steps))
                self.cupy.launch(NAME, lambda: launch(grid, block, arguments), [])

            return note

        self.on_chip = OnChip(chip, noted)

    def compile(self, step):
        def other():
            self.others += 1
            return Backend.compile(self, step)

        return self.on_chip.compile(step, other)


@dataclass
class Run:
    """Three epochs of one network."""

    sizes: tuple = (5, 7, 3)
    hidden: tuple = (activations.ReLU(),)
    loss: losses.Loss = graphs.CROSS_ENTROPY
    optimizer: optimizers.Optimizer = graphs.ADAM
    extras: dict = field(default_factory=dict)
    weighted: bool = False
    l2: float | None = 0.1
    n: int = 32
    batch: int = 16
    turned: bool = False  # x and y lie as columns

    def architecture(self):
        output = activations.get(self.loss.canonical)
        return Architecture(self.sizes, (*self.hidden, output), self.loss)

    def begin(self, backend, dtype="float64"):
        random, architecture = np.random.RandomState(0), self.architecture()
        X, weights = random.normal(size=(self.n, self.sizes[0])), random.uniform(size=self.n)
        weights[:3] = 0.0
        y = np.eye(self.sizes[-1])[random.randint(self.sizes[-1], size=self.n)]
        theta = random.normal(scale=0.4, size=architecture.n_parameters)
        x, y = (
            backend.asarray(a.T, dtype) if self.turned else backend.asarray(a, dtype).T
            for a in (X, y)
        )
        data = x, y, backend.asarray(weights, dtype) if self.weighted else None, self.l2
        epochs = Epochs(
            architecture, data, backend=backend, optimizer=self.optimizer, batch_size=self.batch,
            **self.extras,
        )  # fmt: skip
        return epochs, TrainingState(backend.asarray(theta, dtype), np.random.RandomState(3))

    trained = graphs.Run.trained


def check(run, build, dtype, tolerance, chip=H100):
    """Compare a run on the chip with single launches; return the backend on whose chip it was."""
    backend = StandIn(build, chip)
    theta, costs = run.trained(backend, dtype)
    expected, expected_costs = run.trained(graphs.StandIn(graphs=False), dtype)
    assert (backend.launches != [], backend.others) == (True, 0)
    tolerance.check(theta, expected)
    tolerance.check(costs, expected_costs)
    return backend


RULES = [rule() for rule in optimizers.KNOWN.values() if rule.name != "lbfgs"]
A = activations
MANY = (A.Sigmoid(), A.Tanh(), A.ELU(0.7), A.LeakyReLU(0.3))
RUNS = {
    **{rule.name: Run(optimizer=rule) for rule in RULES},
    "some activations": Run((5, 6, 7, 6, 5, 3), MANY),
    "others": Run((5, 6, 7, 6, 5, 3), (A.GELU(), A.SiLU(), A.Identity(), A.Exponential())),
    **{
        type(loss).__name__: Run(loss=loss)
        for loss in (
            losses.CrossEntropy(), losses.ClippedCrossEntropy(), losses.SquaredError(),
            losses.ClippedSoftmaxCrossEntropy(), losses.MeanSquaredError(),
        )
    },
    "maxout": Run(
        (5, 7, 6, 3), (A.Maxout(3), A.Maxout(2)), extras={"dropout": (0.3, 0.1)}, n=37
    ),
    "no λ": Run(l2=None),
    "sample weights": Run(weighted=True, n=37),
    "dropout": Run((5, 7, 6, 3), (A.ReLU(), A.GELU()), extras={"dropout": (0.3, 0.1)}, n=37),
    "clipped": Run(extras={"clip": 0.5}),
    "the lecture's cost": Run(weighted=True, extras={"whole": True}, n=37),
    "no hidden layer": Run((5, 3), ()),
    "one of each": Run((1, 1, 1), loss=losses.CrossEntropy(), n=3, batch=1),
    "many outputs": Run((13, 37, 41), n=40, batch=20),
    "sums that groups share": Run((20, 33, 3), n=90, batch=90),
    "columns in memory": Run(turned=True),
}  # fmt: skip


DOUBLE, SINGLE = (pytest.mark.parametrize("dtype", [kind]) for kind in ("float64", "float32"))


@DOUBLE
@pytest.mark.parametrize("run", RUNS.values(), ids=RUNS)
def test_a_block_computes_what_launches_do(build, run, dtype, tolerance):
    check(run, build, dtype, tolerance)


IN_SINGLE = ["adam", "sample weights", "dropout", "clipped", "others"]


@SINGLE
@pytest.mark.parametrize("name", IN_SINGLE)
def test_so_it_does_in_single_precision(build, name, dtype, tolerance):
    check(RUNS[name], build, dtype, tolerance)


@pytest.mark.parametrize("chip", [H100, A100], ids=["H100", "A100"])
def test_so_it_does_at_full_size(build, chip, dtype, tolerance):
    """256 threads, large tiles, groups of 2, 4 and 8; the larger the numbers and the smaller the chip, in parts.

    Momentum, as Adam makes much of a gradient that rounds to nothing.
    """
    run = Run((50, 100, 10), optimizer=optimizers.Momentum(), n=200, batch=200)
    backend = check(run, build, dtype, tolerance, chip)
    assert backend.launches[0][1] == (256, 1)


def stack_of(backend, rules, dtype, *, own, n=37):
    """Return a stack whose members differ in all that may differ, or in their parameters only."""
    random = np.random.RandomState(0)
    X, labels = random.normal(size=(50, 5)), random.randint(3, size=50)
    layers = A.ReLU(), A.Tanh(), A.Softmax()
    architecture = Architecture((5, 7, 6, 3), layers, losses.SoftmaxCrossEntropy())
    thetas = random.normal(scale=0.3, size=(len(rules), architecture.n_parameters))
    weights = random.uniform(size=(len(rules), 50))
    rows = [random.permutation(50)[:n] for _ in rules]
    members = [
        Member(
            backend.asarray(theta, dtype), rule,
            np.random.RandomState(seed if own else 0), rows[seed if own else 0],
            l2=0.1 * seed if own else 0.1, learning_rate=0.01 * (seed + 1 if own else 1),
            weights=backend.asarray(weights[seed], dtype) if own else None,
            dropout=(0.1 * (seed + 1), 0.2) if own else (), clip=0.5 + seed if own else None,
        )
        for seed, (theta, rule) in enumerate(zip(thetas, rules, strict=True))
    ]  # fmt: skip
    asarray = backend.asarray
    return Stack(
        architecture, asarray(X, dtype).T, asarray(np.eye(3)[labels], dtype).T, members,
        backend=backend, batch_size=16,
    )  # fmt: skip


def trained_stack(backend, rules, dtype, *, own):
    """Return a stack's parameters and costs; a member leaves after two epochs."""
    with backend.active():
        stack = stack_of(backend, rules, dtype, own=own)
        costs = [stack.run(), stack.run()]
        stack.keep([0, 2])
        costs += [stack.run(), stack.run()]
        return [backend.to_host(each) for each in (stack.theta, *costs)]


STACKS = {
    "adam": [optimizers.Adam(), optimizers.Adam(beta_1=0.8), optimizers.Adam(epsilon=1e-4)],
    "adamw": [optimizers.AdamW(), optimizers.AdamW(decay=0.1), optimizers.AdamW(beta_2=0.9)],
    "nesterov": [optimizers.Nesterov(), optimizers.Nesterov(momentum=0.5), optimizers.Nesterov()],
}  # fmt: skip


@pytest.mark.parametrize("own", [True, False], ids=["all their own", "all the same"])
@pytest.mark.parametrize("name", STACKS)
def test_each_network_of_a_stack_has_a_block(build, name, own, dtype, tolerance):
    if name != "adam" and (not own or dtype == "float32"):
        pytest.skip("one of each is enough")
    backend = StandIn(build)
    found = trained_stack(backend, STACKS[name], dtype, own=own)
    expected = trained_stack(graphs.StandIn(graphs=False), STACKS[name], dtype, own=own)
    for mine, theirs in zip(found, expected, strict=True):
        tolerance.check(mine, theirs)
    assert backend.others == 0
    assert [grid[0] for grid, *_ in backend.launches] == [3, 3, 3, 3, 2, 2, 2, 2]
    # a kernel for full batches and one for the last: those that stay go on with the same
    assert len(backend.on_chip.kernels) == 2


class TestWhatFits:
    @DOUBLE
    @pytest.mark.parametrize(
        ("room", "part", "slots"), [(2_200, 40, True), (1_900, 27, True), (1_500, 27, False)]
    )
    def test_a_minibatch_is_cut_into_parts(  # noqa: PLR0917  # fixtures, most of them
        self, build, room, part, slots, dtype, tolerance
    ):
        """Their gradients add up; a last part may have fewer columns. The optimizer's memory leaves first."""
        run = Run(
            (5, 7, 6, 3), (A.ReLU(), A.Tanh()), n=160, batch=80, weighted=True,
            extras={"dropout": (0.3, 0.1)},
        )  # fmt: skip
        backend = check(run, build, dtype, tolerance, Chip(8 * room, 1))
        (kernel,) = backend.on_chip.kernels
        assert f"start += {part})" in kernel
        assert ("copy(slots_1_given" in kernel) == slots
        assert ("slots_1 = slots_1_given + network * " in kernel) != slots

    def test_what_does_not_fit_goes_on_as_ever(self, build):
        backend = StandIn(build, Chip(8 * 600, 1))
        theta, _ = Run().trained(backend)
        assert (backend.launches, backend.others) == ([], 1)
        np.testing.assert_array_equal(theta, Run().trained(graphs.StandIn(graphs=False))[0])

    def test_the_target_fits_whole_where_there_is_room(self):
        """50-100-10 with a batch of 200 and Adam: θ, gradient and both slots, and 160 rows of columns."""
        on_h100, on_a100 = (program((50, 100, 10), 200, 1000, chip).layout for chip in (H100, A100))
        assert (on_h100.part, on_h100.slots, on_h100.bytes) == (
            200,
            True,
            4 * (256 + 4 * 6_110 + 160 * 201),
        )
        assert (on_a100.part, on_a100.slots) == (100, True)

    @pytest.mark.parametrize("m", [1, 2, 3, 31, 32, 33, 200, 1_000, 10_007])
    @pytest.mark.parametrize("rows", [1, 9, 160, 1_200])
    def test_no_more_is_taken_than_there_is(self, rows, m):
        found = layout(227, 2, rows, m, 4, H100.shared, threads=64, lanes=1)
        assert found.bytes <= H100.shared
        assert found.apart % 2 == 1
        assert found.apart >= found.part
        assert 0 <= -(-m // found.part) * found.part - m < found.part


SHAPES = [(1, 1), (3, 32), (100, 200), (100, 50), (10, 100), (37, 41), (700, 31)]


@pytest.mark.parametrize("threads", [64, 128, 256])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_product_has_no_more_parts_than_threads(shape, threads):
    for shared in (False, True):
        tall, wide, down, across, groups = tiles(*shape, 200, threads, "f", shared=shared)
        assert down * across * groups <= threads
        assert tall * wide <= 80
        assert down <= shape[0]
        assert across <= shape[1]
        assert groups == 1 or (shared and down * tall >= shape[0] and across * wide >= shape[1])


def test_large_products_keep_threads_busy():
    tall, wide, down, across, groups = tiles(100, 200, 50, 256, "f", shared=False)
    assert tall * wide * down * across == 100 * 200
    assert tall + wide <= 0.25 * tall * wide  # numbers read for each multiplied
    tall, wide, *_, groups = tiles(10, 100, 200, 256, "f", shared=True)
    assert groups > 1
    assert tall + wide <= 0.5 * tall * wide


class TestTheOtherWay:
    @pytest.mark.parametrize(
        "run",
        [
            Run(hidden=(A.Softmax(),)), Run(hidden=(graphs.CUBE,)),
            Run(loss=losses.Huber()), Run(loss=losses.Quantile()),
        ],
        ids=["softmax within", "one's own", "huber", "quantile"],
    )  # fmt: skip
    def test_is_taken_by_what_no_block_knows(self, build, run):
        backend = StandIn(build)
        theta, costs = run.trained(backend)
        assert (backend.launches, backend.others) == ([], 1)
        expected, expected_costs = run.trained(graphs.StandIn(graphs=False))
        np.testing.assert_array_equal(theta, expected)
        np.testing.assert_array_equal(costs, expected_costs)

    def test_is_taken_by_an_optimizer_of_ones_own(self, build):
        class Own(optimizers.Momentum):
            """Somebody's own, which happens to be like one of gpunet's."""

        backend = StandIn(build)
        Run(optimizer=Own()).trained(backend)
        assert (backend.launches, backend.others) == ([], 1)

    @SINGLE
    @pytest.mark.parametrize(
        "trained",
        [Run().trained, functools.partial(trained_stack, rules=STACKS["adam"], own=True)],
        ids=["network", "stack"],
    )
    def test_is_taken_by_scaled_losses(self, build, trained, dtype, monkeypatch):
        """A block multiplies float32 as it is, in no float16 that δ would have to fit."""
        monkeypatch.setenv("GPUNET_PRODUCTS", "float16")
        backend = StandIn(build)
        assert backend.scales_losses(dtype)
        found = trained(backend, dtype=dtype)
        assert (backend.launches, backend.others) == ([], 1)
        expected = trained(graphs.StandIn(graphs=False), dtype=dtype)
        for mine, theirs in zip(found, expected, strict=True):
            np.testing.assert_array_equal(mine, theirs)

    def test_is_taken_where_switched_off(self, build, monkeypatch):
        monkeypatch.setenv("GPUNET_ON_CHIP", "0")
        backend = StandIn(build)
        Run().trained(backend)
        assert (backend.launches, backend.others) == ([], 1)

    def test_is_taken_with_one_warning_where_the_kernel_is_refused(self):
        def refused(source, size):
            raise RuntimeError("nvrtc: error: invalid value\nmore")

        backend = StandIn(refused)
        with pytest.warns(UserWarning, match="RuntimeError: nvrtc: error: invalid value$") as told:
            theta, _ = Run().trained(backend)
        assert "GPUNET_ON_CHIP=0" in str(told[0].message)
        assert len(told) == 1
        Run().trained(backend)  # another fit says nothing, where a warning is an error
        np.testing.assert_array_equal(theta, Run().trained(graphs.StandIn(graphs=False))[0])


def test_examples_that_stay_on_the_host_come_in_chunks(build, dtype, monkeypatch):
    """A chunk is a launch; one kernel serves chunks of any number of minibatches, and one the partial batch."""
    monkeypatch.setattr(streaming, "CHUNK", 3 * 16 * 8 * (5 + 3))
    thetas, recorded = [], []
    record = Program.__init__
    monkeypatch.setattr(
        Program, "__init__", lambda self, *given: (recorded.append(1), record(self, *given))[1]
    )
    for host in (False, True):
        backend, run = StandIn(build), Run(n=85)  # five full batches, and one of 5
        epochs, state = run.begin(backend, dtype)
        if host:
            rows = np.asarray(graphs.cupy_on_cpu.plain(epochs._data[0])).T
            x = HostColumns(rows, backend, dtype)
            epochs = Epochs(
                run.architecture(), (x, *epochs._data[1:]), backend=backend,
                optimizer=run.optimizer, batch_size=run.batch,
            )  # fmt: skip
        recorded.clear()
        for _ in range(2):
            epochs.run(state, graphs.rate)
        thetas.append(backend.to_host(state.theta))
        assert len(recorded) == 2
    assert backend.others == 0
    assert [steps for *_, steps in backend.launches] == 2 * (
        [[0, 3], [0, 2], [0, 1]] if dtype == "float64" else [[0, 5], [0, 1]]
    )
    np.testing.assert_array_equal(*thetas)


def test_another_lambda_needs_no_other_kernel(build, dtype):
    thetas = []
    for backend in (StandIn(build), graphs.StandIn(graphs=False)):
        epochs, state = Run(n=37).begin(backend, dtype)
        for l2 in (0.1, 0.7, 0.3):
            epochs._data = (*epochs._data[:3], l2)
            epochs.run(state, graphs.rate)
        thetas.append(backend.to_host(state.theta))
    np.testing.assert_allclose(*thetas, rtol=1e-11 if dtype == "float64" else 1e-5, atol=1e-6)


def test_kernels_serve_every_lambda():
    sources = {program((10, 16, 3), 32, 5, l2=l2).source for l2 in (0.1, 0.2, 0.0)}
    assert len(sources) == 1
    assert sources != {program((10, 16, 3), 32, 5, l2=None).source}


def program(sizes, m, networks, chip=H100, dtype="float32", **settings):
    """Return the program for a stack, or for one network."""
    optimizer, l2 = settings.pop("optimizer", graphs.ADAM), settings.pop("l2", 0.1)
    layers = (settings.pop("hidden", A.ReLU()),) * (len(sizes) - 2) + (A.Softmax(),)
    architecture = Architecture(sizes, layers, graphs.CROSS_ENTROPY)
    leading, one = ((networks,), (1,)) if networks > 1 else ((), ())
    theta = np.zeros((*leading, architecture.n_parameters), dtype)
    carry = theta, tuple(theta.copy() for _ in range(optimizer.n_slots)), np.zeros(leading, dtype)
    keys = (np.zeros((15, *leading), np.int64),) if settings else ()
    batches = np.zeros((15, m), np.int64), *keys, np.zeros((15, *leading, *one), dtype)
    x, y = (np.zeros((64, size), dtype).T for size in (sizes[0], sizes[-1]))
    step = TrainingStep(architecture, optimizer, **settings)
    return Program(step, (carry, batches, (x, y, None, l2)), chip)


@pytest.mark.parametrize(
    ("sizes", "m", "networks", "worth"),
    [
        ((10, 16, 3), 32, 1, True), ((10, 16, 3), 32, 1_000, True),
        ((50, 100, 10), 200, 1, False), ((50, 100, 10), 200, 72, True),
        ((50, 100, 10), 200, 1_000, True), ((64, 300, 10), 200, 4, False),
    ],
)  # fmt: skip
def test_a_few_large_networks_are_left_to_the_whole_device(sizes, m, networks, worth):
    assert worth_it(program(sizes, m, networks)) is worth


def test_a_network_of_another_size_does_not_fit():
    with pytest.raises(UnrecordableError, match="more than the chip holds"):
        program((784, 256, 128, 10), 256, 1)


class TestStopping:
    def test_between_two_launches(self, build, monkeypatch):
        monkeypatch.setattr(Program, "at_once", 1e-9)  # a step a launch
        thetas = []
        for backend in (StandIn(build), graphs.StandIn(graphs=False)):
            epochs, state = Run(n=80).begin(backend)
            epochs.run(state, graphs.rate, iter([False, False, True]).__next__)
            thetas.append(backend.to_host(state.theta))
        np.testing.assert_allclose(*thetas, rtol=1e-11, atol=1e-13)

    def test_an_epoch_is_one_launch_where_it_is_short(self, build):
        backend = StandIn(build)
        epochs, state = Run(n=80).begin(backend)
        epochs.run(state, graphs.rate)
        assert [steps for *_, steps in backend.launches] == [[0, 5]]

    def test_an_error_between_launches_is_told(self, build, monkeypatch):
        """What has begun is not begun again in another way."""
        monkeypatch.setattr(Program, "at_once", 1e-9)

        def stop():
            if backend.launches:
                raise ValueError("enough")
            return False

        backend = StandIn(build)
        epochs, state = Run(n=80).begin(backend)
        with pytest.raises(ValueError, match="enough"):
            epochs.run(state, graphs.rate, stop)
        assert backend.others == 0


PROGRAMS = {
    "50-100-10": lambda: program((50, 100, 10), 200, 1_000),
    "the same on an A100": lambda: program((50, 100, 10), 200, 1_000, A100),
    "in double precision": lambda: program((50, 100, 10), 200, 1_000, dtype="float64"),
    "10-16-3": lambda: program((10, 16, 3), 32, 1_000),
    "everything": lambda: program(
        (10, 16, 16, 40), 31, 3, Chip(20_000, 1), hidden=A.GELU(), dropout=(0.1, 0.2), clip=0.5
    ),
}


@pytest.mark.parametrize(
    ("name", "generation"),
    [*((name, "sm_90") for name in PROGRAMS), ("everything", "sm_80"), ("everything", "sm_100")],
)
def test_programs_compile_without_a_warning(nvrtc, name, generation):
    options = (*OPTIONS, *program_test.CUPYS, f"--gpu-architecture={generation}")
    code, said, _ = nvrtc.compile(PROGRAMS[name]().source, options, [])
    assert said == ""
    assert NAME.encode() in code


@pytest.fixture
def gpu():
    """Return the GPU's backend."""
    try:
        return get_backend("cupy")
    except BackendUnavailableError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize(
    ("name", "dtype"), [*((name, "float64") for name in RUNS), *((n, "float32") for n in IN_SINGLE)]
)
def test_on_a_gpu_a_block_computes_what_graphs_do_cupy(gpu, name, dtype, tolerance, monkeypatch):
    gpu.on_chip.kernels.clear()
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a kernel that is refused warns
        theta, costs = RUNS[name].trained(gpu, dtype)
    assert gpu.on_chip.kernels
    monkeypatch.setenv("GPUNET_ON_CHIP", "0")
    expected, expected_costs = RUNS[name].trained(gpu, dtype)
    tolerance.check(theta, expected)
    tolerance.check(costs, expected_costs)


@pytest.mark.parametrize("own", [True, False], ids=["all their own", "all the same"])
@pytest.mark.parametrize("name", STACKS)
def test_on_a_gpu_stacks_do_cupy(  # noqa: PLR0917  # fixtures, most of them
    gpu, name, own, dtype, tolerance, monkeypatch
):
    found = trained_stack(gpu, STACKS[name], dtype, own=own)
    monkeypatch.setenv("GPUNET_ON_CHIP", "0")
    for mine, theirs in zip(found, trained_stack(gpu, STACKS[name], dtype, own=own), strict=True):
        tolerance.check(mine, theirs)


def test_a_kernel_gets_the_shared_memory_that_it_asks_for():
    """More than 48 KiB has to be asked for twice: of the kernel, and of each launch."""
    known = {}

    class RawKernel:
        def __init__(self, *arguments):
            known["made"] = arguments

        def __call__(self, *arguments, shared_mem):
            known["launched"] = arguments, shared_mem, self.max_dynamic_shared_size_bytes

    attributes = {"MaxSharedMemoryPerBlockOptin": H100.shared, "MultiProcessorCount": 132}
    cupy, device = SimpleNamespace(RawKernel=RawKernel), SimpleNamespace(attributes=attributes)
    on_chip = on_device(cupy, device)
    assert on_chip.chip == H100
    on_chip.build("text", 200_000)((3, 1), (64, 1), ("θ",))
    assert known["made"] == ("text", NAME, OPTIONS)
    assert known["launched"] == (((3, 1), (64, 1), ("θ",)), 200_000, 200_000)


def test_cupy_has_every_name_that_is_used():
    """CuPy may be installed where there is no GPU."""
    cupy = pytest.importorskip("cupy", reason="CuPy isn't installed")
    assert hasattr(cupy.RawKernel, "max_dynamic_shared_size_bytes")
    assert "shared_mem" in cupy.RawKernel.__call__.__doc__
    for name in ("MaxSharedMemoryPerBlockOptin", "MultiProcessorCount"):
        assert hasattr(cupy.cuda.runtime, f"cudaDevAttr{name}")
