"""Scores and decisions against scikit-learn's, on every backend."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from sklearn.metrics import accuracy_score, r2_score

from gpunet.scores import TASKS, decide, score

K, M = 3, 11
RANDOM = np.random.RandomState(4)
H = RANDOM.uniform(size=(K, M))
ONE_HOT = np.eye(K)[:, RANDOM.randint(K, size=M)]
LABELS = (RANDOM.uniform(size=(K, M)) < 0.4).astype(float)
VALUES = RANDOM.normal(size=(K, M))
WEIGHTS = {
    "unweighted": None,
    "weighted": RANDOM.uniform(0.1, 3.0, M),
    "zeros among them": RANDOM.randint(3, size=M).astype(float),
}

weighted = pytest.mark.parametrize("weights", WEIGHTS.values(), ids=WEIGHTS)
property_test = settings(
    deadline=None,
    max_examples=25,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def score_of(backend, task, h, y, weights=None, *, dtype="float64"):
    """Return the score, a NumPy array of the leading axes' shape."""
    h, y = backend.asarray(h, dtype), backend.asarray(y, dtype)
    weights = None if weights is None else backend.asarray(weights, dtype)
    return backend.to_host(score(backend.xp, task, h, y, weights))


class TestAccuracy:
    @weighted
    def test_binary_is_scikit_learns(self, backend, weights, dtype):
        y = LABELS[:1]
        expected = accuracy_score(y[0], H[0] > 0.5, sample_weight=weights)
        found = score_of(backend, "binary", H[:1], y, weights, dtype=dtype)
        assert found.item() == pytest.approx(expected, rel=1e-6)
        assert found.dtype == dtype

    @weighted
    def test_multiclass_is_scikit_learns(self, backend, weights, dtype):
        expected = accuracy_score(ONE_HOT.argmax(axis=0), H.argmax(axis=0), sample_weight=weights)
        found = score_of(backend, "multiclass", H, ONE_HOT, weights, dtype=dtype)
        assert found.item() == pytest.approx(expected, rel=1e-6)

    @weighted
    def test_multilabel_is_scikit_learns_share_of_exact_matches(self, backend, weights, dtype):
        decided = (H > 0.5).astype(int)
        expected = accuracy_score(LABELS.T.astype(int), decided.T, sample_weight=weights)
        found = score_of(backend, "multilabel", H, LABELS, weights, dtype=dtype)
        assert found.item() == pytest.approx(expected, rel=1e-6)

    @pytest.mark.parametrize(
        ("task", "y"), [("binary", LABELS[:1]), ("multiclass", ONE_HOT), ("multilabel", LABELS)]
    )
    def test_perfect_outputs_score_1(self, backend, task, y):
        assert score_of(backend, task, y, y).item() == pytest.approx(1.0, rel=1e-15)
        assert score_of(backend, task, 1 - y, y).item() < 1.0

    def test_soft_targets_count_as_what_they_decide(self, backend):
        soft = [[0.7, 0.1, 0.3], [0.3, 0.9, 0.7]]
        h = [[0.9, 0.4, 0.8], [0.1, 0.6, 0.2]]
        assert score_of(backend, "multiclass", h, soft).item() == pytest.approx(2 / 3)


class TestR2:
    @weighted
    @pytest.mark.parametrize("outputs", [1, K])
    def test_it_is_scikit_learns_averaged_over_outputs(self, backend, outputs, weights, dtype):
        h, y = H[:outputs], VALUES[:outputs]
        expected = r2_score(y.T, h.T, sample_weight=weights, multioutput="uniform_average")
        found = score_of(backend, "regression", h, y, weights, dtype=dtype)
        assert found.item() == pytest.approx(expected, rel=1e-5)

    def test_the_mean_scores_0_and_the_target_1(self, backend):
        mean = np.broadcast_to(VALUES.mean(axis=1, keepdims=True), VALUES.shape)
        assert score_of(backend, "regression", mean, VALUES).item() == pytest.approx(0, abs=1e-14)
        assert score_of(backend, "regression", VALUES, VALUES).item() == 1.0

    # the mean of equal numbers may round: 0.1 three times is 0.10000000000000002
    @pytest.mark.parametrize("value", [0.0, 2.0, 0.1, -0.3, 1e6 / 3])
    @pytest.mark.parametrize("m", [3, 7, 10])
    def test_a_constant_target_scores_1_if_predicted_exactly_and_else_0(
        self, backend, value, m, dtype
    ):
        y = np.full((1, m), value)
        assert score_of(backend, "regression", y, y, dtype=dtype).item() == 1.0
        wrong = score_of(backend, "regression", y + 0.5, y, dtype=dtype)
        assert wrong.item() == 0.0

    def test_a_constant_output_among_others_counts_as_scikit_learn_counts_it(self, backend):
        y = VALUES.copy()
        y[1] = 2.0
        expected = r2_score(y.T, H.T, multioutput="uniform_average")
        assert score_of(backend, "regression", H, y).item() == pytest.approx(expected, rel=1e-12)

    @weighted
    def test_a_large_mean_costs_no_precision(self, backend, weights):
        expected = r2_score(VALUES.T, H.T, sample_weight=weights)
        found = score_of(backend, "regression", H + 1e6, VALUES + 1e6, weights)
        assert found.item() == pytest.approx(expected, rel=1e-8)


class TestLeadingAxes:
    @weighted
    @pytest.mark.parametrize(
        ("task", "y"),
        [
            ("binary", LABELS[:1]),
            ("multiclass", ONE_HOT),
            ("multilabel", LABELS),
            ("regression", VALUES),
        ],
    )
    def test_a_stack_equals_a_loop(self, backend, task, y, weights):
        h = np.random.RandomState(8).uniform(size=(2, 3, *y.shape))
        found = score_of(backend, task, h, y, weights)
        one = [score_of(backend, task, h[place], y, weights) for place in np.ndindex(2, 3)]
        assert found.shape == (2, 3)
        np.testing.assert_allclose(found.ravel(), one, rtol=1e-13)


class TestDecisions:
    def test_binary_is_above_one_half(self, backend):
        h = backend.asarray([[0.2, 0.5, 0.51, 0.9]], "float64")
        decided = backend.to_host(decide(backend.xp, "binary", h))
        # 0.5 itself is no decision for 1, as in scikit-learn
        assert decided.tolist() == [[False, False, True, True]]

    def test_multiclass_is_the_largest_output_the_first_in_a_tie(self, backend):
        h = backend.asarray([[0.2, 0.4, 0.3], [0.7, 0.4, 0.3], [0.1, 0.2, 0.4]], "float64")
        assert backend.to_host(decide(backend.xp, "multiclass", h)).tolist() == [1, 0, 2]

    def test_multilabel_decides_each_output(self, backend):
        h = backend.asarray([[0.2, 0.9], [0.7, 0.9]], "float64")
        decided = backend.to_host(decide(backend.xp, "multilabel", h))
        assert decided.tolist() == [[False, True], [True, True]]

    def test_regression_is_the_output_itself(self, backend):
        decided = decide(backend.xp, "regression", backend.asarray(VALUES))
        np.testing.assert_array_equal(backend.to_host(decided), VALUES)


unit = st.floats(0, 1)


@pytest.mark.parametrize("task", TASKS)
@property_test
@given(
    h=arrays.arrays(np.float64, (K, M), elements=unit),
    y=arrays.arrays(np.float64, (K, M), elements=unit),
)
def test_no_score_is_above_1(backend, task, h, y):
    outputs = 1 if task == "binary" else K
    found = score_of(backend, task, h[:outputs], y[:outputs])
    assert found.item() <= 1.0 + 1e-12
    assert task == "regression" or found.item() >= 0.0
