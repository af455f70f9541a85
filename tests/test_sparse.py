"""Sparse examples: the same numbers as dense ones, and on NumPy no dense copy of them."""

import numpy as np
import pytest
import scipy.sparse
from sklearn.neural_network import MLPClassifier as TheirClassifier

from gpunet import MLPClassifier, MLPRegressor
from gpunet.activations import ReLU, Sigmoid
from gpunet.backend import get_backend
from gpunet.losses import CrossEntropy
from gpunet.network import Architecture, cost_and_gradient, hypothesis
from gpunet.optimizers import KNOWN, LBFGS, Adam
from gpunet.primitives import Primitives
from gpunet.sparse import SparseColumns
from gpunet.streaming import copied_rows

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

RANDOM = np.random.RandomState(0)
X = scipy.sparse.random_array((150, 40), density=0.1, format="csr", rng=RANDOM)
Y = (X @ RANDOM.normal(size=40) > 0.05).astype(int) + (X @ RANDOM.normal(size=40) > 0.05)
DENSE = X.toarray()


def twice(X):
    """Return X with every entry stored as two halves, and unsorted, in int64."""
    half = scipy.sparse.csr_array(X)
    order = np.concatenate(
        [
            np.repeat(np.arange(a, b)[::-1], 2)
            for a, b in zip(half.indptr, half.indptr[1:], strict=False)
        ]
    )
    parts = (half.data[order] / 2, half.indices[order].astype("int64"), half.indptr * 2)
    doubled = scipy.sparse.csr_array(parts, shape=half.shape)
    assert doubled.nnz == 2 * half.nnz
    return doubled


def with_zeros(X):
    """Return X with zeros among what it stores."""
    stored = scipy.sparse.csr_array(X, copy=True)
    stored.data[::3] = 0.0
    return stored


FORMS = {
    "csr_array": scipy.sparse.csr_array,
    "csc_array": scipy.sparse.csc_array,
    "csr_matrix": scipy.sparse.csr_matrix,
    "csc_matrix": scipy.sparse.csc_matrix,
    "duplicates": twice,
    "explicit zeros": with_zeros,
}


@pytest.fixture
def never_dense(monkeypatch):
    """Let every way to make a sparse matrix dense fail."""

    def refuse(*_, **__):
        raise AssertionError("A sparse matrix was made dense.")

    for form in ("csr", "csc"):
        for kind in ("array", "matrix"):
            for name in ("toarray", "todense"):
                monkeypatch.setattr(getattr(scipy.sparse, f"{form}_{kind}"), name, refuse)


class TestProducts:
    """What layer 1 computes on NumPy."""

    @pytest.fixture(params=[(7, 40, 0.1), (30, 3000, 0.01), (2, 3000, 0.01), (3, 20_000, 0.001)])
    def rows(self, request):
        m, d, density = request.param
        return scipy.sparse.random_array((m, d), density=density, format="csr", rng=RANDOM)

    @pytest.fixture
    def columns(self, rows, dtype):
        return get_backend("numpy").sparse_columns(rows, dtype)

    @pytest.fixture
    def dense(self, rows, dtype):
        return rows.toarray().T.astype(dtype)

    @pytest.mark.parametrize("leading", [(), (3,), (2, 3)])
    @pytest.mark.parametrize("order", ["C", "F"])
    def test_products_equal_dense_ones(
        self, columns, dense, leading, *, order, dtype, tolerance, never_dense
    ):
        xp = get_backend("numpy").xp
        Theta = np.asarray(RANDOM.normal(size=(*leading, 20, dense.shape[0])), dtype, order=order)
        delta = np.asarray(RANDOM.normal(size=(*leading, 20, dense.shape[1])), dtype, order=order)
        z, D = xp.matmul(Theta, columns), xp.matmul(delta, xp.matrix_transpose(columns))
        assert (z.dtype, D.dtype) == (dtype, dtype)
        assert (type(z), type(D)) == (np.ndarray, np.ndarray)
        tolerance.check(z, Theta @ dense)
        tolerance.check(D, delta @ dense.T)

    @pytest.mark.parametrize("d", [5, 3000])
    def test_nothing_but_zeros(self, d):
        columns = get_backend("numpy").sparse_columns(scipy.sparse.csr_array((2, d)), "float64")
        z = np.matmul(np.ones((3, d)), columns)
        np.testing.assert_array_equal(z, np.zeros((3, 2)))

    @pytest.mark.parametrize("form", FORMS)
    def test_every_form(self, form, never_dense):
        given = FORMS[form](X)
        entries = given.nnz
        columns = get_backend("numpy").sparse_columns(given, "float64")
        Theta = RANDOM.normal(size=(20, 40))
        np.testing.assert_allclose(Theta @ columns, (given @ Theta.T).T, rtol=0, atol=1e-13)
        assert given.nnz == entries  # the caller's matrix stays as it is

    def test_matrix_transpose_of_numpy(self):
        columns = get_backend("numpy").sparse_columns(X, "float64")
        delta = RANDOM.normal(size=(4, 150))
        D = np.matmul(delta, np.matrix_transpose(columns))
        np.testing.assert_allclose(D, delta @ DENSE, rtol=0, atol=1e-12)

    @pytest.mark.parametrize(
        "other",
        [
            lambda x: x + np.ones(1),
            np.exp,
            lambda x: np.matmul(x, np.ones((150, 2))),
            np.sum,
        ],
        ids=["+", "exp", "on the left", "sum"],
    )
    def test_anything_else_is_refused(self, other):
        columns = get_backend("numpy").sparse_columns(X, "float64")
        with pytest.raises(TypeError):
            other(columns)


class TestColumns:
    """What every backend gives out."""

    def columns(self, backend, rows=X):
        return backend.sparse_columns(rows, "float64")

    def multiplied(self, backend, Theta, part):
        xp = backend.xp
        return backend.to_host(xp.matmul(backend.asarray(Theta), part))

    def test_shape(self, backend):
        columns = self.columns(backend)
        assert isinstance(columns, SparseColumns)
        assert columns.shape == (40, 150)
        assert copied_rows(columns) == (0 if backend.name == "numpy" else 40)

    def test_parts(self, backend):
        Theta, columns = RANDOM.normal(size=(3, 40)), self.columns(backend)
        chosen = np.asarray([5, 149, 5, 0])
        gathered = backend.primitives.gather(columns, backend.asarray(chosen))
        for part, rows in ((columns[..., 20:60], slice(20, 60)), (gathered, chosen)):
            expected = Theta @ DENSE[rows].T
            found = self.multiplied(backend, Theta, part)
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)

    def test_networks_with_examples_of_their_own(self, backend):
        Theta, chosen = RANDOM.normal(size=(2, 3, 40)), np.asarray([[5, 149, 5], [0, 1, 2]])
        part = backend.primitives.gather(self.columns(backend), backend.asarray(chosen))
        expected = Theta @ np.swapaxes(DENSE[chosen], -1, -2)
        found = self.multiplied(backend, Theta, part)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)

    @pytest.mark.parametrize("leading", [(), (3,)])
    def test_cost_gradient_and_hypothesis(self, backend, leading):
        network = Architecture((40, 6, 1), (ReLU(), Sigmoid()), CrossEntropy())
        theta = backend.asarray(RANDOM.normal(size=(*leading, network.n_parameters)))
        y = backend.asarray((Y > 0).astype("float64")[None, :])
        weights = backend.asarray(RANDOM.uniform(size=150))
        sparse, dense = self.columns(backend)[..., :], backend.asarray(DENSE.T)
        primitives = backend.primitives
        found, expected = (
            cost_and_gradient(network, theta, x, y, primitives, l2=0.1, weights=weights)
            for x in (sparse, dense)
        )
        for ours, theirs in zip(found, expected, strict=True):
            np.testing.assert_allclose(
                backend.to_host(ours), backend.to_host(theirs), rtol=0, atol=1e-12
            )
        for x in (self.columns(backend), sparse):
            _, h = hypothesis(network, theta, x, primitives, at_once=100)
            _, all_at_once = hypothesis(network, theta, dense, primitives)
            np.testing.assert_allclose(
                backend.to_host(h), backend.to_host(all_at_once), rtol=0, atol=1e-12
            )


SOLVERS = {
    "adam": {},
    "sgd": {"solver": "sgd", "learning_rate_init": 0.05},
    "lbfgs": {"solver": "lbfgs", "max_iter": 15},
    "early stopping": {"early_stopping": True, "track_scores": True},
    "no hidden layer": {"hidden_layer_sizes": ()},
    "dropout": {"dropout": 0.2, "hidden_layer_sizes": (8, 5)},
}


class TestEstimators:
    """A fit on NumPy: as the dense one, and as scikit-learn's."""

    def assert_same(self, ours, theirs, atol=1e-10):
        for a, b in zip(ours.coefs_, theirs.coefs_, strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=atol)
        np.testing.assert_allclose(ours.loss_, theirs.loss_, rtol=0, atol=atol)

    def model(self, kind=MLPClassifier, **parameters):
        settings = {"max_iter": 10, "batch_size": 32, "random_state": 0, "backend": "numpy"}
        return kind(**{"hidden_layer_sizes": (8,), **settings, **parameters})

    @pytest.mark.parametrize("solver", SOLVERS)
    def test_fit_and_predict_equal_dense_ones(self, solver, never_dense):
        sparse, dense = (self.model(**SOLVERS[solver]).fit(x, Y) for x in (X, DENSE))
        self.assert_same(sparse, dense)
        np.testing.assert_allclose(
            sparse.predict_proba(X), dense.predict_proba(DENSE), rtol=0, atol=1e-10
        )
        np.testing.assert_allclose(
            sparse.predict_proba(X[[7]]), dense.predict_proba(DENSE[[7]]), rtol=0, atol=1e-10
        )

    def test_sample_weight(self, never_dense):
        weight = RANDOM.uniform(size=150)
        sparse, dense = (self.model().fit(x, Y, sample_weight=weight) for x in (X, DENSE))
        self.assert_same(sparse, dense)

    def test_partial_fit(self, never_dense):
        sparse, dense = self.model(), self.model()
        for part in np.array_split(np.arange(150), 4):
            sparse.partial_fit(X[part], Y[part], classes=[0, 1, 2])
            dense.partial_fit(DENSE[part], Y[part], classes=[0, 1, 2])
        self.assert_same(sparse, dense)

    def test_regressor(self, never_dense):
        y = X @ np.arange(40.0) / 40
        sparse, dense = (self.model(MLPRegressor).fit(x, y) for x in (X, DENSE))
        self.assert_same(sparse, dense)
        np.testing.assert_allclose(sparse.predict(X), dense.predict(DENSE), rtol=0, atol=1e-10)

    def test_validation_data_of_ones_own(self, never_dense):
        sparse, dense = (
            self.model(early_stopping=True).fit(x[:100], Y[:100], X_val=x[100:], y_val=Y[100:])
            for x in (X, DENSE)
        )
        self.assert_same(sparse, dense)

    @pytest.mark.parametrize("form", FORMS)
    def test_every_form(self, form):
        given = FORMS[form](X)
        ours = self.model().fit(given, Y)
        theirs = TheirClassifier((8,), max_iter=10, batch_size=32, random_state=0).fit(given, Y)
        self.assert_same(ours, theirs, atol=1e-8)
        np.testing.assert_allclose(
            ours.predict_proba(given), theirs.predict_proba(given), rtol=0, atol=1e-8
        )

    def test_float32(self, never_dense):
        sparse, dense = (self.model().fit(x.astype("float32"), Y) for x in (X, DENSE))
        assert sparse.coefs_[0].dtype == np.float32
        assert sparse.predict_proba(X.astype("float32")).dtype == np.float32
        self.assert_same(sparse, dense, atol=1e-5)

    def test_float32_model_on_float64(self, never_dense):
        ours = self.model().fit(X.astype("float32"), Y)
        np.testing.assert_allclose(
            ours.predict_proba(X), ours.predict_proba(DENSE), rtol=0, atol=1e-12
        )

    def test_wide(self):
        """Where parts of Θ are multiplied one after the other."""
        wide = scipy.sparse.random_array((60, 9000), density=0.01, format="csr", rng=RANDOM)
        y = np.arange(60) % 3
        ours = self.model(hidden_layer_sizes=(20,), max_iter=3).fit(wide, y)
        theirs = TheirClassifier((20,), max_iter=3, batch_size=32, random_state=0).fit(wide, y)
        self.assert_same(ours, theirs, atol=1e-8)
        np.testing.assert_allclose(
            ours.predict_proba(wide), theirs.predict_proba(wide), rtol=0, atol=1e-8
        )


@pytest.mark.parametrize("leading", [(), (2,)])
@pytest.mark.parametrize("name", [name for name, kind in KNOWN.items() if kind is not LBFGS])
def test_updates_in_blocks_equal_the_reference(name, leading, monkeypatch):
    backend, optimizer = get_backend("numpy"), KNOWN[name]()
    monkeypatch.setattr(type(backend.primitives), "block", 16)
    results = []
    for primitives in (backend.primitives, Primitives(backend.xp)):
        random = np.random.RandomState(0)
        theta = random.normal(size=(*leading, 50))
        slots = optimizer.start(backend.xp, theta)
        for number in range(1, 4):
            rates = [np.asarray(rate) for rate in optimizer.rates(number, 0.1)]
            gradient = random.normal(size=(*leading, 50))
            theta, slots = primitives.update(optimizer, theta, gradient, slots, *rates)
        results.append((theta, *slots))
    for ours, reference in zip(*results, strict=True):
        np.testing.assert_array_equal(ours, reference)


def test_a_rule_of_ones_own_sees_all_parameters(monkeypatch):
    """Its update may depend on the whole gradient."""

    class Normalised(Adam):
        def update(self, xp, theta, gradient, slots, *rates):
            return theta - gradient / xp.sqrt(xp.sum(gradient * gradient)), slots

    primitives = get_backend("numpy").primitives
    monkeypatch.setattr(type(primitives), "block", 16)
    theta, _ = primitives.update(Normalised(), np.zeros(50), np.ones(50), (), np.asarray(0.1))
    np.testing.assert_allclose(theta, -np.full(50, 50**-0.5))
