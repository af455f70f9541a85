"""Examples that stay on the host: the same numbers as of those on the device, and in what order they come there."""

import gc
import importlib.util
import re
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from gpunet.backends.cupy import CuPyBackend, feeding
from gpunet.backends.cupy.feeding import SHARE, PinnedFeed, room

from gpunet import GridSearchCV, MLPClassifier, MLPRegressor, Network, activations, streaming
from gpunet.backend import Backend, get_backend
from gpunet.memory import OutOfMemoryError
from gpunet.network import Architecture
from gpunet.optimizers import Adam
from gpunet.sparse import SparseColumns
from gpunet.streaming import Chunks, Feed, HostColumns
from gpunet.training import Epochs, TrainingState

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

N, D, M = 53, 6, 5
RANDOM = np.random.RandomState(0)
X = RANDOM.normal(size=(N, D))
Y = (X @ RANDOM.normal(size=(D, 3))).argmax(axis=1)
WEIGHTS = np.linspace(0.0, 2.0, N)


def module_beside(name):
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


graphs = module_beside("test_cuda_graphs")


@pytest.fixture
def chunks(monkeypatch):
    """Chunks of two minibatches or three; return the numbers of examples that come, once the host keeps them."""
    seen = []
    monkeypatch.setattr(streaming, "CHUNK", 3 * M * 8 * (D + 3))
    for kind in (Feed, PinnedFeed):

        def noted(self, orders, called=kind.__call__):
            def told():
                for order in orders:
                    seen.append(order.shape[0])
                    yield order

            return called(self, told())

        monkeypatch.setattr(kind, "__call__", noted)
    return seen


def stay(monkeypatch):
    monkeypatch.setenv("GPUNET_RESIDENT", "0")


FITS = {
    "adam": {},
    "full batches only": {"n": 50},
    "fewer than a chunk": {"n": 8},
    "fewer than a batch": {"n": 3, "batch_size": 3},
    "sample weights": {"weighted": True},
    "dropout": {"dropout": 0.3},
    "clipped": {"clip_norm": 0.1},
    "in order": {"shuffle": False},
    "momentum": {"solver": "sgd", "learning_rate": "invscaling"},
    "validated": {"early_stopping": True, "n_iter_no_change": 9},
    "float32": {"dtype": "float32"},
    "scores": {"track_scores": True},
}


@pytest.mark.parametrize("settings", FITS.values(), ids=FITS)
def test_an_estimator_is_the_same(backend, settings, chunks, monkeypatch):
    settings = {"n": N, "batch_size": M, "max_iter": 3, "random_state": 0, **settings}
    n, weighted = settings.pop("n"), settings.pop("weighted", False)
    given = (X[:n], Y[:n], WEIGHTS[:n] if weighted else None)
    networks = []
    for way in (lambda _: None, stay):
        way(monkeypatch)
        networks.append(MLPClassifier((7,), backend=backend.spec, **settings).fit(*given))
        assert bool(chunks) == (way is stay)
    atol = 1e-6 if "dtype" in settings else 1e-12
    for mine, theirs in zip(networks[0].coefs_, networks[1].coefs_, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=atol)
    for name in ("loss_curve_", "validation_scores_"):
        mine, theirs = (getattr(network, name) or [] for network in networks)
        np.testing.assert_allclose(mine, theirs, rtol=atol)
    for history in zip(*(network.history_ for network in networks), strict=True):
        mine, theirs = (record.get("score", 0.0) for record in history)
        assert mine == theirs
    here, there = (network.predict_proba(X) for network in networks)
    np.testing.assert_allclose(here, there, atol=10 * atol)


def test_chunks_are_of_one_size_and_hold_whole_minibatches(on_numpy, chunks, monkeypatch):
    stay(monkeypatch)
    MLPClassifier((7,), batch_size=M, max_iter=2).fit(X, Y)
    assert chunks == 2 * [15, 15, 15, 5, 3]
    chunks.clear()
    MLPClassifier((7,), batch_size=N, max_iter=1).fit(X, Y)
    assert chunks == [N]  # a minibatch is not divided


def test_nothing_of_it_happens_to_examples_that_fit(backend, monkeypatch):
    for kind in (HostColumns, Chunks, Feed):
        monkeypatch.setattr(kind, "__init__", lambda *_, **__: pytest.fail("streamed"))
    MLPClassifier((7,), max_iter=1, backend=backend.spec).fit(X, Y).predict(X)
    Network([D, 3], output="softmax", backend=backend.spec).fit(X, Y, epochs=1).predict(X)


@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
def test_a_regression_with_validation_data_of_ones_own(backend, solver, chunks, monkeypatch):
    networks = []
    given = {"X_val": X[:9], "y_val": X[:9, :2]} if solver == "adam" else {}
    for way in (lambda _: None, stay):
        way(monkeypatch)
        network = MLPRegressor(
            hidden_layer_sizes=(7,), solver=solver, max_iter=3, backend=backend.spec, random_state=0,
            early_stopping=bool(given), batch_size=M,
        )  # fmt: skip
        networks.append(network.fit(X, X[:, :2], **given))
    for mine, theirs in zip(networks[0].coefs_, networks[1].coefs_, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=1e-9)
    assert bool(chunks) == (solver == "adam")


def test_partial_fit_goes_on(backend, chunks, monkeypatch):
    networks = []
    for way in (lambda _: None, stay):
        way(monkeypatch)
        network = MLPClassifier((7,), batch_size=M, backend=backend.spec, random_state=0)
        for rows in (slice(0, 20), slice(20, N)):
            network.partial_fit(X[rows], Y[rows], classes=[0, 1, 2])
        networks.append(network)
    assert sum(chunks) == N
    for mine, theirs in zip(networks[0].coefs_, networks[1].coefs_, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=1e-12)


@pytest.mark.parametrize("optimizer", ["adam", "lbfgs"])
@pytest.mark.parametrize("extras", [{}, {"validation": 0.2}, {"validation": (X[:9], Y[:9])}])
def test_a_network_is_the_same(backend, optimizer, extras, chunks, monkeypatch):
    found = []
    for way in (lambda _: None, stay):
        way(monkeypatch)
        network = Network([D, 7, 3], output="softmax", seed=0, backend=backend.spec)
        network.fit(
            X, Y, epochs=3, batch_size=M, optimizer=optimizer, l2=0.3, sample_weight=WEIGHTS + 1.0,
            **extras,
        )  # fmt: skip
        asked = [network.forward(X), network.predict(X), network.cost(X, Y), network.score(X, Y)]
        found.append([*network.thetas, *asked, network.history[-1]["score"]])
        gradient = network.gradient(X, Y)  # takes all of them at once, wherever they are
        assert gradient[0].shape == (7, D + 1)
    assert bool(chunks) == (optimizer == "adam")
    for mine, theirs in zip(*found, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=1e-8)


def test_what_a_network_refuses_it_refuses_there_too(on_numpy, monkeypatch):
    stay(monkeypatch)
    with pytest.raises(ValueError, match="X has 2 columns, but the input layer has s_1 = 6"):
        Network([D, 3], output="softmax").fit(X[:, :2], Y)
    with pytest.raises(ValueError, match="contains NaN"):
        Network([D, 3], output="softmax").predict(np.full_like(X, np.nan))


def test_a_search_trains_one_network_after_the_other(on_numpy, chunks, monkeypatch):
    found = []
    for way in (lambda _: None, stay):
        way(monkeypatch)
        network = MLPClassifier((7,), max_iter=2, batch_size=M, random_state=0)
        search = GridSearchCV(network, {"alpha": [0.0, 5.0]}, cv=2).fit(X, Y)
        found.append(search.cv_results_["mean_test_score"])
    np.testing.assert_array_equal(*found)
    assert chunks


def test_columns_are_parts_of_what_is_on_the_host(backend):
    columns = HostColumns(X, backend, "float32")
    assert (columns.shape, columns.ndim, streaming.copied_rows(columns)) == ((D, N), 2, D)
    examples = np.array([[3, 1], [0, 3]])
    parts = (
        columns[..., 4:9],
        columns.gather(backend.asarray(examples)),
        columns.chosen(backend.asarray(examples[0])),
    )
    expected = X[4:9].T, X[examples].swapaxes(-1, -2), X[[3, 1]].T
    for part, numbers in zip((*parts[:2], parts[2][..., :]), expected, strict=True):
        assert str(part.dtype).endswith("float32")
        np.testing.assert_array_equal(backend.to_host(part), numbers.astype(np.float32))
    assert isinstance(parts[2], HostColumns)
    again = parts[2].chosen(backend.asarray(np.array([1])))  # of the chosen ones
    assert (parts[2].shape, again.shape) == ((D, 2), (D, 1))
    for part in (again[..., :], parts[2].gather(backend.asarray(np.array([1])))):
        np.testing.assert_array_equal(backend.to_host(part), X[[1]].T.astype(np.float32))
    assert np.shares_memory(again._rows, X)  # however many are chosen, they aren't copied


def test_a_score_after_each_epoch_reads_rows_back_once(on_numpy, monkeypatch):
    """Not for each of the parts in which X comes for it."""
    stay(monkeypatch)
    backend, read = get_backend("numpy"), []
    to_host = type(backend).to_host
    monkeypatch.setattr(
        type(backend), "to_host", lambda self, array: (read.append(array), to_host(self, array))[1]
    )
    monkeypatch.setattr(backend.primitives, "at_once", 7 * 4, raising=False)  # four examples
    Network([D, 7, 3], output="softmax", seed=0).fit(X, Y, batch_size=M, epochs=3, validation=0.2)
    rows = [array for array in read if array.dtype.kind == "i" and array.size > 1]
    assert len(rows) == 1 + 1 + 1 + 3  # labels, held out, trained on, and each epoch's


@pytest.mark.parametrize(("size", "parts"), [(1, 7), (8 * 7 * D, 1), (8 * 3 * D, 3), (10**9, 1)])
def test_how_many_parts_all_of_them_are(backend, size, parts, monkeypatch):
    monkeypatch.setattr(streaming, "CHUNK", size)
    assert HostColumns(X[:7], backend, "float64").parts == parts


def test_sparse_examples_go_as_ever(on_numpy, chunks, monkeypatch):
    from scipy.sparse import csr_array

    stay(monkeypatch)
    MLPClassifier((7,), max_iter=1).fit(csr_array(X), Y)
    assert chunks == []
    assert issubclass(SparseColumns, HostColumns)


def test_numpy_records_a_step_once_for_all_chunks(on_numpy, chunks, monkeypatch):
    numba_program = pytest.importorskip("gpunet.backends.numba_program", reason="numba is missing")
    recorded, made = [], numba_program.Program.__init__
    monkeypatch.setattr(
        numba_program.Program, "__init__", lambda self, *given: (recorded.append(1), made(self, *given))[1]
    )  # fmt: skip
    backend, data = (
        get_backend("numpy"),
        (HostColumns(X, get_backend("numpy"), "float64"), np.eye(3)[Y].T, None, 0.1),
    )
    layers = activations.ReLU(), activations.Softmax()
    architecture = Architecture((D, 7, 3), layers, graphs.CROSS_ENTROPY)
    run = Epochs(architecture, data, backend=backend, optimizer=Adam(), batch_size=M)
    programs = numba_program.Programs(run._step)
    monkeypatch.setattr(
        run, "_run", lambda carry, batches, data, stop: programs.find(carry, batches, data).run(carry, batches, stop)
    )  # fmt: skip
    state = TrainingState(
        np.random.RandomState(1).normal(size=architecture.n_parameters), np.random.RandomState(1)
    )
    for _ in range(3):
        run.run(state, lambda step: 0.1)
    assert len(chunks) == 3 * 5
    assert len(recorded) == 2  # full batches and the partial one


@pytest.mark.parametrize("kind", ["estimator", "network"])
def test_a_mapped_file_stays_one(on_numpy, chunks, kind, tmp_path, monkeypatch):
    """Data larger than the host's memory, too, comes from the disk as it is needed."""
    stay(monkeypatch)
    np.save(tmp_path / "X.npy", X)
    mapped, seen = np.load(tmp_path / "X.npy", mmap_mode="r"), []
    made = Chunks.__init__
    monkeypatch.setattr(
        Chunks, "__init__", lambda self, data, **more: (seen.append(data[0]), made(self, data, **more))[1]
    )  # fmt: skip
    if kind == "estimator":
        MLPClassifier((7,), batch_size=M, max_iter=1).fit(mapped, Y)
    else:
        Network([D, 7, 3], output="softmax").fit(mapped, Y, batch_size=M, epochs=1)
    assert np.shares_memory(seen[0].rows, mapped)
    assert sum(chunks) == N


class TestStopping:
    def begun(self, backend, **extras):
        random = np.random.RandomState(1)
        layers = activations.ReLU(), activations.Softmax()
        architecture = Architecture((D, 7, 3), layers, graphs.CROSS_ENTROPY)
        y = backend.asarray(np.eye(3)[Y]).T
        data = (HostColumns(X, backend, "float64"), y, None, 0.1)
        epochs = Epochs(
            architecture, data, backend=backend, optimizer=Adam(), batch_size=M, **extras
        )
        theta = backend.asarray(random.normal(size=architecture.n_parameters))
        return epochs, TrainingState(theta, random)

    def test_no_chunk_comes_for_an_epoch_that_has_ended(self, chunks):
        epochs, state = self.begun(get_backend("numpy"))
        answers = iter([False] * 4 + [True])
        epochs.run(state, lambda step: 0.1, lambda: next(answers))  # and isn't asked again
        assert chunks == [15, 15]
        chunks.clear()
        epochs.run(state, lambda step: 0.1)  # a Ctrl-C that is over
        assert chunks == [15, 15, 15, 5, 3]

    def test_an_epoch_that_runs_short_of_memory_begins_anew_in_parts(self, chunks, monkeypatch):
        backend = get_backend("numpy")
        compiled = type(backend).compile

        def short(self, step):
            run, calls = compiled(self, step), iter(range(9))

            def epoch(*arguments):
                if next(calls) == 1:
                    raise MemoryError
                return run(*arguments)

            return epoch

        thetas = []
        for make in (compiled, short):
            monkeypatch.setattr(type(backend), "compile", make)
            epochs, state = self.begun(backend)
            if make is short:
                with pytest.warns(RuntimeWarning, match="added up from 4 parts"):
                    epochs.run(state, lambda step: 0.1)
            else:
                epochs.run(state, lambda step: 0.1)
            thetas.append(state.theta)
        np.testing.assert_allclose(*thetas, rtol=0, atol=1e-12)

    @pytest.mark.parametrize("when", ["begun", "taken"])
    def test_a_chunk_for_which_there_is_no_room_is_not_divided(self, when, chunks, monkeypatch):
        """A whole minibatch has to come, however its gradient is added up."""
        backend = get_backend("numpy")

        def short(*_):
            raise MemoryError

        if when == "taken":
            epochs, state = self.begun(backend)
            monkeypatch.setattr(type(epochs._chunks._feed), "_brought", short)
            monkeypatch.setattr(epochs, "_begin", lambda *_: ((state.theta,), ()))
        monkeypatch.setattr(type(backend), "feed", short)
        words = "no room in the memory of numpy:cpu: one of 5 examples is 0.0 MiB. Use a smaller batch_size"
        with warnings.catch_warnings():
            warnings.simplefilter("error", RuntimeWarning)
            with pytest.raises(OutOfMemoryError, match=words):
                epochs.run(state, lambda step: 0.1) if when == "taken" else self.begun(backend)

    def test_nothing_is_read_back_within_an_epoch(self, chunks):
        device = get_backend("array_api_strict:device1")
        with module_beside("test_host_reads").nothing_read():
            pass
        epochs, state = self.begun(device, dropout=(0.2,), clip=1.0)
        with module_beside("test_host_reads").nothing_read():
            for _ in range(2):
                cost = epochs.run(state, lambda step: 0.1 / step)
        assert np.isfinite(device.to_host(cost))
        assert len(chunks) == 10


def host_run(run, backend, dtype, times=3):
    """Return θ and costs of a run of test_cuda_graphs whose examples stay on the host."""
    made = Epochs.__init__

    def begin(self, architecture, data, **settings):
        x = HostColumns(np.asarray(graphs.cupy_on_cpu.plain(data[0])).T, backend, dtype)
        made(self, architecture, (x, *data[1:]), **settings)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(graphs.Epochs, "__init__", begin)
        return run.trained(backend, dtype, times)


class TestOnCuPy:
    """With the stand-in, whose copies from the host come as late as may be."""

    RUNS = pytest.mark.parametrize(
        "name",
        ["adam", "momentum", "sample weights", "dropout", "clipped", "the lecture's cost",
         "full batches only", "one batch", "no λ"],
    )  # fmt: skip

    @pytest.fixture(autouse=True)
    def _small(self, monkeypatch):
        monkeypatch.setattr(streaming, "CHUNK", 2 * 16 * 8 * (5 + 3 + 1))  # two minibatches

    @RUNS
    def test_the_numbers_are_those_of_examples_on_the_device(self, name, dtype):
        run = graphs.RUNS[name]
        backend = graphs.StandIn()
        theta, costs = host_run(run, backend, dtype)
        expected, expected_costs = run.trained(graphs.StandIn(graphs=False), dtype)
        np.testing.assert_array_equal(theta, expected)
        np.testing.assert_array_equal(costs, expected_costs)
        assert len(backend.cupy.graphs) == (
            2 if run.n % 16 else 1
        )  # for chunks of any number of steps

    def test_kernels_gather_from_a_chunk(self, launch):
        run = graphs.RUNS["sample weights"]
        theta, _ = host_run(run, graphs.StandIn(launch=launch), "float32")
        expected, _ = run.trained(graphs.StandIn(launch=launch, graphs=False), "float32")
        np.testing.assert_array_equal(theta, expected)

    def test_a_chunk_is_sent_while_the_last_one_is_trained_on(self):
        backend = graphs.StandIn()
        host_run(graphs.RUNS["adam"], backend, "float64", times=3)
        log, streams = backend.cupy.log, backend.cupy.streams
        (copies,) = {stream.ptr for stream in streams if stream.issued}
        sends = [at for at, what in enumerate(log) if what == "send"]
        assert len(sends) == 3 * 3 * 2  # epochs, chunks (two steps, one, the partial one), x and y
        firsts = sends[::2]
        for number, at in enumerate(firsts):
            # the device's buffer is free, and so is the host's, which the last but one was sent from
            assert log[at - 1] == f"{copies} waits for 0"
            assert (log[at - 2] == f"the host waits for {copies}") == (number >= 2)
            # what is computed next waits for it, and only then takes it over
            assert log[at + 2 : at + 5] == [f"0 waits for {copies}", "copy", "copy"]
        replays = [
            log[a:b].count("graph") for a, b in zip(firsts, [*firsts[1:], None], strict=True)
        ]
        assert replays[-3:] == [2, 1, 1]

    def test_the_host_waits_for_the_older_buffer_in_every_epoch(self):
        """An odd number of chunks an epoch, too, takes the buffers in turn."""
        backend = graphs.StandIn(graphs=False)
        feed = PinnedFeed(backend.cupy, (X,), 20, backend)
        written = []
        gather = feed._gather
        feed._gather = lambda a, order, into: (written.append(into.base), gather(a, order, into))[1]
        for _ in range(2):
            for _ in feed([np.arange(20), np.arange(20, 40), np.arange(40, N)]):
                pass
        turns = [[part is feed._pinned[0][0] for part in written], [True, False] * 3]
        assert turns[0] == turns[1]

    @pytest.mark.parametrize("end", ["closed", "an error", "all are taken"])
    def test_no_copy_outlives_its_epoch(self, end, monkeypatch):
        """When a feed is given up its memory goes back to CuPy's pools, which would hand it to somebody else."""
        backend = graphs.StandIn(graphs=False)
        feed = PinnedFeed(backend.cupy, (X, WEIGHTS), 20, backend)
        chunks = feed([np.arange(20), np.arange(20, 40)])
        next(chunks)
        if end == "closed":
            chunks.close()
        elif end == "an error":
            gather = feed._gather
            monkeypatch.setattr(
                feed, "_gather", lambda a, *rest: 1 / 0 if a is WEIGHTS else gather(a, *rest)
            )
            with pytest.raises(ZeroDivisionError):
                next(chunks)
        else:
            assert len(list(chunks)) == 1
        (copies,) = (stream for stream in backend.cupy.streams if stream.issued)
        sent = {"closed": 2, "an error": 3, "all are taken": 4}[end]
        assert copies.done == len(copies.issued) == sent

    @pytest.mark.parametrize("shape", [(1000,), (103, 7), (5, 3, 4), (2, 1000)])
    @pytest.mark.parametrize("order", ["C", "F"])
    def test_a_large_array_comes_through_small_buffers(self, shape, order, monkeypatch):
        monkeypatch.setattr(feeding, "CHUNK", 1024)
        backend, array = graphs.StandIn(graphs=False), np.random.default_rng(0).random(shape)
        array = np.asarray(array, order=order)
        made = feeding.brought(backend.cupy, array, backend)
        np.testing.assert_array_equal(backend.to_host(made), array)
        assert made.flags.c_contiguous
        rows = max(1, min(shape[0], 1024 // array[0].nbytes))
        assert [pinned.nbytes for pinned in backend.cupy.pinned] == [rows * array[0].nbytes] * 2

    @pytest.mark.parametrize("threads", [1, 2, 3, 50])
    def test_threads_share_the_gathering(self, threads, monkeypatch):
        monkeypatch.setattr(feeding, "WORTH_A_THREAD", 1)
        monkeypatch.setattr(feeding, "MOST_THREADS", threads)
        monkeypatch.setattr(feeding.os, "cpu_count", lambda: 99)
        backend = graphs.StandIn(graphs=False)
        feed = PinnedFeed(backend.cupy, (X, WEIGHTS), 20, backend)
        orders = [RANDOM.permutation(N)[:n] for n in (20, 7, 1)]
        found = [
            [backend.to_host(part)[: order.size] for part in chunk]
            for order, chunk in zip(orders, feed(iter(orders)), strict=True)
        ]
        for (x, weights), order in zip(found, orders, strict=True):
            np.testing.assert_array_equal(x, X[order])
            np.testing.assert_array_equal(weights, WEIGHTS[order])

    def test_a_buffer_that_is_written_too_early_would_be_seen(self, monkeypatch):
        run = graphs.RUNS["full batches only"]
        expected, _ = run.trained(graphs.StandIn(graphs=False), "float64")
        event = graphs.cupy_on_cpu.Event
        monkeypatch.setattr(event, "synchronize", lambda self: None)
        monkeypatch.setattr(graphs.cupy_on_cpu.Stream, "wait_event", lambda self, event: None)
        theta, _ = host_run(run, graphs.StandIn(graphs=False), "float64")
        assert not np.array_equal(theta, expected)

    @pytest.mark.parametrize("laid_out", [np.asfortranarray, lambda X: np.hstack((X, X))[:, :D]])
    def test_what_is_not_row_by_row_is_not_copied_as_a_whole(self, laid_out):
        class Rows(np.ndarray):
            def take(self, *_, **__):
                pytest.fail("copied")

        backend = graphs.StandIn(graphs=False)
        feed = PinnedFeed(backend.cupy, (laid_out(X).view(Rows),), N, backend)
        order = RANDOM.permutation(N)
        [(found,)] = feed([order])
        np.testing.assert_array_equal(graphs.cupy_on_cpu.plain(found), X[order])

    def test_fits_leave_nothing_behind(self):
        """The pool's used bytes return to what they were at once, without Python's collector."""
        backend, used = graphs.StandIn(), set()
        pool = backend.cupy.get_default_memory_pool()
        gc.collect()
        gc.disable()
        try:
            for _ in range(50):
                host_run(graphs.RUNS["sample weights"], backend, "float64", times=2)
                backend.cupy.graphs.clear()  # what the stand-in itself keeps
                backend.cupy.streams[1:] = []
                used.add(pool.used_bytes())
        finally:
            gc.enable()
        assert used == {0}


@pytest.fixture(scope="session")
def launch(tmp_path_factory):
    """Return what launches gpunet's kernels on the processor."""
    if graphs.cuda_on_cpu.COMPILER is None:
        pytest.skip("there is no C++ compiler to compile the kernels with")
    folder = tmp_path_factory.mktemp("cuda")
    return graphs.cuda_on_cpu.OnProcessor(graphs.cuda_on_cpu.compiled(folder))


class TestRoom:
    """What CuPy's backend finds free."""

    def cupy(self, free, pooled=0, limit=0, used=0):
        pool = SimpleNamespace(
            free_bytes=lambda: pooled, get_limit=lambda: limit, used_bytes=lambda: used
        )
        backend = CuPyBackend.__new__(CuPyBackend)
        backend._cupy = SimpleNamespace(get_default_memory_pool=lambda: pool)
        backend._device = type("Device", (), {"mem_info": (free, 10**9)})()
        type(backend._device).__enter__ = type(backend._device).__exit__ = lambda *_: None
        return backend

    @pytest.mark.parametrize(
        ("memory", "expected"),
        [
            ({"free": 100}, 100),
            ({"free": 100, "pooled": 30}, 130),
            ({"free": 100, "limit": 50, "used": 20}, 30),
            ({"free": 100, "limit": 500, "used": 20}, 100),
        ],
    )
    def test_is_what_the_device_and_the_pool_have(self, memory, expected):
        backend = self.cupy(**memory)
        assert room(backend._cupy, backend._device) == expected

    @pytest.mark.parametrize(
        ("wish", "size", "holds"),
        [(None, 7e9, True), (None, 7.1e9, False), ("0", 1, False), ("1", 1e12, True)],
    )
    def test_decides_unless_somebody_does(self, wish, size, holds, monkeypatch):
        if wish is None:
            monkeypatch.delenv("GPUNET_RESIDENT", raising=False)
        else:
            monkeypatch.setenv("GPUNET_RESIDENT", wish)
        assert SHARE == 0.7
        assert self.cupy(free=10**10).holds(size) is holds

    @pytest.mark.parametrize("wish", ["2", "no", "false", " 0"])
    def test_a_wish_that_is_not_understood_is_refused(self, wish, on_numpy, monkeypatch):
        monkeypatch.setenv("GPUNET_RESIDENT", wish)
        words = f"1 (all of X is brought to the device) or unset, not {wish!r}"
        for ask in (self.cupy(free=10**10).holds, get_backend("numpy").holds):
            with pytest.raises(ValueError, match=re.escape(words)):
                ask(1)
        with pytest.raises(ValueError, match=re.escape(words)):
            MLPClassifier((7,)).fit(X, Y)
        monkeypatch.setenv("GPUNET_RESIDENT", "")
        assert get_backend("numpy").holds(1)

    def test_is_not_asked_for_where_little_is_wanted(self, monkeypatch):
        monkeypatch.delenv("GPUNET_RESIDENT", raising=False)
        assert CuPyBackend.__new__(CuPyBackend).holds(2**20)  # which has no device to ask


def test_a_step_that_does_not_fit_counts_what_is_on_the_device(on_numpy, monkeypatch):
    def short(self, step):
        def epoch(*_):
            raise MemoryError

        return epoch

    stay(monkeypatch)
    monkeypatch.setattr(Backend, "compile", short)
    monkeypatch.setattr(type(get_backend("numpy")), "compile", short)
    for solver, words in {
        "adam": f"in minibatches of {M} examples it takes about 0.0 MiB beside the 0.0 MiB of targets and a chunk of X",
        "lbfgs": "L-BFGS has taken them in parts of so many",
    }.items():
        with (
            pytest.warns(RuntimeWarning, match="added up from (4|8) parts"),
            pytest.raises(OutOfMemoryError, match=words),
        ):
            MLPClassifier((7,), batch_size=M, solver=solver).fit(X, Y)


def test_lbfgs_says_in_how_many_parts_it_went(on_numpy, monkeypatch):
    stay(monkeypatch)
    monkeypatch.setattr(streaming, "CHUNK", 8 * 11 * D)  # five parts
    compiled = Backend.compile

    def short(self, step):
        def epoch(*arguments):
            if step.parts == 5:
                raise MemoryError
            return compiled(self, step)(*arguments)

        return epoch

    monkeypatch.setattr(Backend, "compile", short)
    words = "all 53 examples in 5 parts, one of which didn't fit .* added up from 20 parts"
    with pytest.warns(RuntimeWarning, match=words):
        MLPClassifier((7,), solver="lbfgs", max_iter=2).fit(X, Y)


def test_data_for_which_there_is_no_room_is_told_what_to_do(on_numpy, monkeypatch):
    def asarray(values, dtype=None):
        raise MemoryError

    monkeypatch.setattr(get_backend("numpy"), "asarray", asarray)
    words = "(53, 6) in float64 is 0.0 MiB: there is no room for it in the memory of numpy:cpu. Let X stay"
    with pytest.raises(MemoryError, match=re.escape(words)):
        MLPClassifier((7,)).fit(X, Y)


def test_any_backend_may_find_that_there_is_no_room(on_numpy, chunks, monkeypatch):
    monkeypatch.setattr(type(get_backend("numpy")), "holds", lambda self, size: size < 8 * N * D)
    MLPClassifier((7,), batch_size=M, max_iter=1).fit(X, Y)
    assert sum(chunks) == N
    assert Backend.holds(get_backend("numpy"), 10**15)


def test_cupy_has_every_name_that_is_used():
    """CuPy may be installed where there is no GPU."""
    cupy = pytest.importorskip("cupy", reason="CuPy isn't installed")
    assert hasattr(cupy.cuda, "alloc_pinned_memory")
    assert {"get_limit", "free_bytes", "used_bytes"} <= set(dir(cupy.cuda.MemoryPool))
    assert hasattr(cupy.cuda.Device, "mem_info")
    assert hasattr(cupy.cuda.Event, "synchronize")
    assert hasattr(cupy.ndarray, "set")
