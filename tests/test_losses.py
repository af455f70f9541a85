"""Losses: the cost of an example, its derivative and δ, on every backend."""

import numpy as np
import pytest
import scipy.special
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from sklearn.metrics import (
    log_loss,
    mean_absolute_error,
    mean_pinball_loss,
    mean_poisson_deviance,
    mean_squared_error,
)

from gpunet import activations, losses

OUTPUTS = (
    "identity",
    "sigmoid",
    "tanh",
    "relu",
    "leaky_relu",
    "elu",
    "elu:0.5",
    "maxout",
    "softmax",
    "gelu",
    "exp",
)


def fits(loss, output):
    """Return whether a loss takes what an output activation gives."""
    (low, high), (lowest, highest) = activations.get(output).range, losses.get(loss).domain
    return lowest <= low and high <= highest


# the lecture's losses with every output they take, the others with a few
LECTURE = ("cross_entropy", "softmax_cross_entropy", "squared_error", "mean_squared_error")
PAIRS = [
    (loss, output)
    for loss in losses.KNOWN
    for output in (OUTPUTS if loss in LECTURE else ("identity", "sigmoid", "maxout", "exp"))
    if fits(loss, output)
]
CANONICAL = [(name, loss.canonical) for name, loss in losses.KNOWN.items()]


def with_targets(cases):
    """Return cases (loss, ...) with each kind of targets: hard and soft ones for probabilities."""
    return [
        (*case, kind)
        for case in cases
        for kind in (("hard", "soft") if losses.get(case[0]).domain[1] == 1.0 else ("values",))
    ]


K, M = 3, 7
RANDOM = np.random.RandomState(11)
# away from 0, where some outputs have a kink; twice as many rows as outputs, for maxout
Z = RANDOM.uniform(0.1, 3.0, (2 * K, M)) * np.where(RANDOM.uniform(size=(2 * K, M)) < 0.5, -1, 1)
HARD = np.eye(K)[:, RANDOM.randint(K, size=M)]
SOFT = RANDOM.dirichlet(np.ones(K), M).T
ANY = RANDOM.normal(size=(K, M))


def rows_for(output):
    """Return z with K outputs' worth of rows."""
    return Z[: K * activations.get(output).pieces]


def targets_for(loss, kind):
    """Return targets that the loss is meant for."""
    low, high = losses.get(loss).domain
    if high == 1.0:
        return {"hard": HARD, "soft": SOFT}.get(kind, SOFT)
    return abs(ANY) if low == 0.0 else ANY


def on_device(backend, output, z, y, dtype="float64"):
    """Return the output activation, and z, a, y on the device."""
    output = activations.get(output)
    z = backend.asarray(z, dtype)
    return output, z, output.g(backend.xp, z), backend.asarray(y, dtype)


def cost_of(backend, loss, output, z, y, *, dtype="float64"):
    """Return the cost of each example, a NumPy array (m,)."""
    output, z, a, y = on_device(backend, output, z, y, dtype)
    return backend.to_host(losses.get(loss).cost(backend.xp, z, a, y, output))


def delta_of(backend, loss, output, z, y, *, dtype="float64"):
    """Return ∂cost/∂z of each example, a NumPy array (rows, m)."""
    output, z, a, y = on_device(backend, output, z, y, dtype)
    return backend.to_host(losses.get(loss).delta(backend.xp, z, a, y, output))


class TestValues:
    def test_cross_entropy_is_summed_over_logistic_outputs(self, backend, dtype, tolerance):
        z = Z[:K]
        a = scipy.special.expit(z)
        expected = -(SOFT * np.log(a) + (1 - SOFT) * np.log(1 - a)).sum(axis=0)
        cost = cost_of(backend, "cross_entropy", "sigmoid", z, SOFT, dtype=dtype)
        assert cost.shape == (M,)
        tolerance.check(cost, expected)

    def test_softmax_cross_entropy_is_minus_sum_y_log_a(self, backend, dtype, tolerance):
        z = Z[:K]
        expected = -(SOFT * scipy.special.log_softmax(z, axis=0)).sum(axis=0)
        tolerance.check(
            cost_of(backend, "softmax_cross_entropy", "softmax", z, SOFT, dtype=dtype), expected
        )

    @pytest.mark.parametrize(
        ("loss", "factor"), [("squared_error", 0.5), ("mean_squared_error", 1)]
    )
    def test_squared_errors_sum_over_outputs(self, backend, loss, factor, dtype, tolerance):
        expected = factor * ((Z[:K] - ANY) ** 2).sum(axis=0)
        tolerance.check(cost_of(backend, loss, "identity", Z[:K], ANY, dtype=dtype), expected)

    def test_absolute_error(self, backend, dtype, tolerance):
        cost = cost_of(backend, "absolute_error", "identity", Z[:K], ANY, dtype=dtype)
        tolerance.check(cost, abs(Z[:K] - ANY).sum(axis=0))

    @pytest.mark.parametrize("threshold", [0.3, 1.0, 100.0])
    def test_huber_is_scipys(self, backend, threshold, dtype, tolerance):
        loss = losses.Huber(threshold)
        cost = cost_of(backend, loss, "identity", Z[:K], ANY, dtype=dtype)
        tolerance.check(cost, scipy.special.huber(threshold, Z[:K] - ANY).sum(axis=0))

    def test_huber_of_a_large_threshold_is_the_squared_error(self, backend):
        found, expected = (
            cost_of(backend, loss, "identity", Z[:K], ANY)
            for loss in (losses.Huber(1e6), losses.SquaredError())
        )
        np.testing.assert_allclose(found, expected, rtol=1e-14)

    def test_poisson_is_half_the_deviance(self, backend, dtype, tolerance):
        y, a = abs(ANY), np.exp(Z[:K])
        cost = cost_of(backend, "poisson", "exp", Z[:K], y, dtype=dtype)
        tolerance.check(cost, (y * np.log(y / a) - y + a).sum(axis=0))

    def test_poisson_of_no_counts_is_the_rate(self, backend):
        cost = cost_of(backend, "poisson", "exp", Z[:K], np.zeros((K, M)))
        np.testing.assert_allclose(cost, np.exp(Z[:K]).sum(axis=0), rtol=1e-14)

    def test_of_a_worked_example(self, backend):
        # a = (0.5, 0.75) from z = (0, log 3), y = (1, 0):
        # −log 0.5 − log 0.25 = log 2 + log 4 = 3 log 2
        cost = cost_of(backend, "cross_entropy", "sigmoid", [[0.0], [np.log(3)]], [[1.0], [0.0]])
        assert cost.item() == pytest.approx(3 * np.log(2), rel=1e-15)

    def test_of_a_worked_example_with_softmax(self, backend):
        # softmax of (0, log 3) is (1/4, 3/4): −log 1/4 = 2 log 2
        cost = cost_of(
            backend, "softmax_cross_entropy", "softmax", [[0.0], [np.log(3)]], [[1.0], [0.0]]
        )
        assert cost.item() == pytest.approx(2 * np.log(2), rel=1e-15)


class TestAgainstScikitLearn:
    @pytest.mark.parametrize("kind", ["hard", "soft"])
    def test_softmax_cross_entropy_averages_to_log_loss(self, backend, kind):
        y = {"hard": HARD, "soft": SOFT}[kind]
        cost = cost_of(backend, "softmax_cross_entropy", "softmax", Z[:K], y).mean()
        proba = scipy.special.softmax(Z[:K], axis=0)
        # scikit-learn takes soft targets as weights: each example once for each class
        classes = np.repeat(np.arange(K), M)
        expected = log_loss(
            classes, np.tile(proba.T, (K, 1)), sample_weight=y.ravel(), labels=list(range(K))
        )
        assert cost == pytest.approx(expected, rel=1e-12)

    def test_cross_entropy_averages_to_a_log_loss_for_each_output(self, backend):
        proba = scipy.special.expit(Z[:K])
        expected = sum(log_loss(y, p, labels=[0, 1]) for y, p in zip(HARD, proba, strict=True))
        cost = cost_of(backend, "cross_entropy", "sigmoid", Z[:K], HARD).mean()
        assert cost == pytest.approx(expected, rel=1e-12)

    @pytest.mark.parametrize(
        ("loss", "factor"), [("squared_error", 0.5), ("mean_squared_error", 1)]
    )
    def test_squared_errors_average_to_mean_squared_error(self, backend, loss, factor):
        each_output = mean_squared_error(ANY.T, Z[:K].T, multioutput="raw_values")
        cost = cost_of(backend, loss, "identity", Z[:K], ANY).mean()
        assert cost == pytest.approx(factor * each_output.sum(), rel=1e-12)

    def test_absolute_error_averages_to_theirs(self, backend):
        theirs = mean_absolute_error(ANY.T, Z[:K].T, multioutput="raw_values").sum()
        cost = cost_of(backend, "absolute_error", "identity", Z[:K], ANY).mean()
        assert cost == pytest.approx(theirs, rel=1e-12)

    @pytest.mark.parametrize("level", [0.1, 0.5, 0.9])
    def test_quantile_averages_to_the_pinball_loss(self, backend, level):
        theirs = mean_pinball_loss(ANY.T, Z[:K].T, alpha=level, multioutput="raw_values").sum()
        cost = cost_of(backend, losses.Quantile((level,)), "identity", Z[:K], ANY).mean()
        assert cost == pytest.approx(theirs, rel=1e-12)

    def test_each_output_of_a_quantile_loss_has_its_level(self, backend):
        levels = (0.1, 0.5, 0.9)
        theirs = sum(
            mean_pinball_loss(y, a, alpha=level)
            for y, a, level in zip(ANY, Z[:K], levels, strict=True)
        )
        cost = cost_of(backend, losses.Quantile(levels), "identity", Z[:K], ANY).mean()
        assert cost == pytest.approx(theirs, rel=1e-12)

    def test_poisson_averages_to_half_their_deviance(self, backend):
        y, a = abs(ANY), np.exp(Z[:K])
        theirs = sum(mean_poisson_deviance(*pair) for pair in zip(y, a, strict=True)) / 2
        cost = cost_of(backend, "poisson", "exp", Z[:K], y).mean()
        assert cost == pytest.approx(theirs, rel=1e-12)


class TestFromZ:
    """Near 0 both definitions agree; far out only the one from z is exact."""

    @pytest.mark.parametrize(("loss", "output", "kind"), with_targets(CANONICAL))
    def test_cost_from_z_is_cost_from_a(self, backend, loss, output, *, kind, dtype, tolerance):
        output, z, a, y = on_device(backend, output, Z[:K], targets_for(loss, kind), dtype)
        loss = losses.get(loss)
        from_z = backend.to_host(loss.cost_from_z(backend.xp, z, a, y))
        tolerance.check(from_z, backend.to_host(loss.cost_from_a(backend.xp, a, y)))

    @pytest.mark.parametrize("far", [40.0, 90.0, 1e3, 1e4])
    @pytest.mark.parametrize("side", [1.0, -1.0])
    def test_a_wrong_certainty_costs_z(self, backend, far, side, dtype):
        # log(1 + e^z) → z: the target is the other side's
        cost = cost_of(
            backend, "cross_entropy", "sigmoid", [[side * far]], [[float(side < 0)]], dtype=dtype
        )
        assert cost.item() == pytest.approx(far, rel=1e-6)

    @pytest.mark.parametrize("side", [1.0, -1.0])
    def test_a_right_certainty_costs_e_to_minus_z(self, backend, side, dtype):
        cost = cost_of(
            backend, "cross_entropy", "sigmoid", [[side * 30.0]], [[float(side > 0)]], dtype=dtype
        )
        assert cost.item() == pytest.approx(np.exp(-30.0), rel=1e-5)

    @pytest.mark.parametrize("far", [40.0, 90.0, 1e3, 1e4])
    def test_a_wrong_certainty_of_softmax_costs_the_distance(self, backend, far, dtype):
        z, y = [[far], [0.0], [0.0]], [[0.0], [1.0], [0.0]]
        cost = cost_of(backend, "softmax_cross_entropy", "softmax", z, y, dtype=dtype)
        assert cost.item() == pytest.approx(far, rel=1e-6)

    @pytest.mark.parametrize(("loss", "output"), PAIRS)
    def test_no_cost_is_negative(self, backend, loss, output, dtype):
        cost = cost_of(
            backend, loss, output, rows_for(output), targets_for(loss, "hard"), dtype=dtype
        )
        assert (cost >= 0.0).all()


class TestDerivatives:
    STEP = 1e-5

    @pytest.mark.parametrize(("loss", "output", "kind"), with_targets(PAIRS))
    def test_delta_is_the_numerical_derivative(self, backend, loss, output, kind):
        z, y = rows_for(output), targets_for(loss, kind)
        columns = []
        for row in range(z.shape[0]):
            shift = self.STEP * (np.arange(z.shape[0]) == row)[:, None]
            above = cost_of(backend, loss, output, z + shift, y)
            below = cost_of(backend, loss, output, z - shift, y)
            columns.append((above - below) / (2 * self.STEP))
        found = delta_of(backend, loss, output, z, y)
        assert found.shape == z.shape
        np.testing.assert_allclose(found, columns, rtol=1e-9, atol=1e-7)

    @pytest.mark.parametrize(
        "loss",
        [losses.Huber(0.3), losses.Huber(3.0), losses.Quantile((0.1, 0.5, 0.9))],
        ids=str,
    )
    def test_delta_of_a_loss_with_settings_is_the_numerical_derivative(self, backend, loss):
        columns = []
        for row in range(K):
            shift = self.STEP * (np.arange(K) == row)[:, None]
            above = cost_of(backend, loss, "identity", Z[:K] + shift, ANY)
            below = cost_of(backend, loss, "identity", Z[:K] - shift, ANY)
            columns.append((above - below) / (2 * self.STEP))
        found = delta_of(backend, loss, "identity", Z[:K], ANY)
        np.testing.assert_allclose(found, columns, rtol=0, atol=1e-9)

    @pytest.mark.parametrize(
        ("loss", "slopes"),
        [
            (losses.AbsoluteError(), [-1.0, 0.0, 1.0]),
            (losses.Quantile((0.9,)), [-0.9, 0.0, 0.1]),
            (losses.Huber(0.5), [-0.5, 0.0, 0.5]),
        ],
        ids=str,
    )
    def test_below_at_and_above_the_target(self, backend, loss, slopes):
        found = delta_of(backend, loss, "identity", [[1.0, 2.0, 3.0]], [[2.0, 2.0, 2.0]])
        assert found[0].tolist() == pytest.approx(slopes, rel=1e-15)

    @pytest.mark.parametrize(("loss", "kind"), with_targets((name,) for name in losses.KNOWN))
    def test_derivative_is_that_of_the_cost_by_a(self, backend, loss, kind):
        loss_, xp = losses.get(loss), backend.xp
        a = np.random.RandomState(2).uniform(0.1, 0.9, (K, M))
        y = targets_for(loss, kind)

        def cost(a):
            moved = loss_.cost_from_a(
                xp, backend.asarray(a, "float64"), backend.asarray(y, "float64")
            )
            return backend.to_host(moved)

        columns = []
        for row in range(K):
            shift = self.STEP * (np.arange(K) == row)[:, None]
            columns.append((cost(a + shift) - cost(a - shift)) / (2 * self.STEP))
        found = loss_.derivative(xp, backend.asarray(a, "float64"), backend.asarray(y, "float64"))
        np.testing.assert_allclose(backend.to_host(found), columns, rtol=1e-7, atol=1e-8)

    @pytest.mark.parametrize(("loss", "output"), CANONICAL)
    def test_the_canonical_shortcut_is_the_pull_back_through_g_prime(self, backend, loss, output):
        kind, z, a, y = on_device(backend, output, Z[:K], targets_for(loss, "soft"))
        by_chain = kind.backward(backend.xp, losses.get(loss).derivative(backend.xp, a, y), z, a)
        np.testing.assert_allclose(
            delta_of(backend, loss, output, Z[:K], targets_for(loss, "soft")),
            backend.to_host(by_chain),
            rtol=0,
            atol=1e-13,
        )

    @pytest.mark.parametrize(
        ("loss", "output", "factor", "kind"),
        with_targets(
            [
                ("cross_entropy", "sigmoid", 1),
                ("softmax_cross_entropy", "softmax", 1),
                ("squared_error", "identity", 1),
                ("mean_squared_error", "identity", 2),
                ("poisson", "exp", 1),
            ]
        ),
    )
    def test_delta_of_a_canonical_pair_is_a_minus_y(
        self, backend, loss, output, *, factor, kind, dtype, tolerance
    ):
        g = {
            "sigmoid": scipy.special.expit,
            "softmax": lambda z: scipy.special.softmax(z, axis=0),
            "identity": lambda z: z,
            "exp": np.exp,
        }[output]
        y = targets_for(loss, kind)
        delta = delta_of(backend, loss, output, Z[:K], y, dtype=dtype)
        tolerance.check(delta, factor * (g(Z[:K]) - y))

    def test_delta_of_softmax_is_exact_for_targets_that_do_not_sum_to_1(self, backend):
        # two labels an example: cost = −Σ y log a, whose derivative is a Σy − y
        y = np.array([[1.0], [1.0], [0.0]])
        z = Z[:K, :1]
        expected = 2 * scipy.special.softmax(z, axis=0) - y
        found = delta_of(backend, "softmax_cross_entropy", "softmax", z, y)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-14)

    @pytest.mark.parametrize(("loss", "output"), PAIRS)
    def test_delta_is_a_new_array(self, backend, loss, output):
        z, y = rows_for(output), targets_for(loss, "hard")
        output, z_, a_, y_ = on_device(backend, output, z.copy(), y.copy())
        delta = losses.get(loss).delta(backend.xp, z_, a_, y_, output)
        delta += 1.0
        np.testing.assert_array_equal(backend.to_host(y_), y)
        np.testing.assert_array_equal(backend.to_host(z_), z)


class TestLeadingAxes:
    @pytest.mark.parametrize(("loss", "output"), PAIRS)
    def test_a_stack_equals_a_loop_and_shares_the_targets(self, backend, loss, output):
        y = targets_for(loss, "soft")
        z = np.stack([rows_for(output), -rows_for(output)])
        cost, delta = cost_of(backend, loss, output, z, y), delta_of(backend, loss, output, z, y)
        one_cost = [cost_of(backend, loss, output, one, y) for one in z]
        one_delta = [delta_of(backend, loss, output, one, y) for one in z]
        np.testing.assert_allclose(cost, one_cost, rtol=1e-14, atol=1e-15)
        np.testing.assert_allclose(delta, one_delta, rtol=1e-13, atol=1e-14)


property_test = settings(
    deadline=None,
    max_examples=25,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@pytest.mark.parametrize(("loss", "output"), CANONICAL)
@property_test
@given(
    z=arrays.arrays(np.float64, (K, M), elements=st.floats(-12, 12)),
    y=arrays.arrays(np.float64, (K, M), elements=st.floats(0, 1)),
)
def test_both_definitions_agree_wherever_a_does_not_round(backend, loss, output, z, y):
    output, z, a, y = on_device(backend, output, z, y)
    loss = losses.get(loss)
    from_z = backend.to_host(loss.cost_from_z(backend.xp, z, a, y))
    from_a = backend.to_host(loss.cost_from_a(backend.xp, a, y))
    np.testing.assert_allclose(from_z, from_a, rtol=1e-9, atol=1e-9)


@property_test
@given(
    z=arrays.arrays(np.float64, (K, M), elements=st.floats(-1e4, 1e4)),
    y=arrays.arrays(np.float64, (K, M), elements=st.floats(0, 1)),
)
def test_cross_entropy_is_least_at_the_target(backend, z, y):
    # Σ −y log y − (1 − y) log(1 − y), the targets' own entropy, bounds it from below
    entropy = (scipy.special.entr(y) + scipy.special.entr(1 - y)).sum(axis=0)
    assert (cost_of(backend, "cross_entropy", "sigmoid", z, y) >= entropy - 1e-9).all()


class TestGet:
    @pytest.mark.parametrize("name", losses.KNOWN)
    def test_a_name_gives_its_loss(self, name):
        assert losses.get(name).name == name

    def test_a_loss_is_itself(self):
        loss = losses.SquaredError()
        assert losses.get(loss) is loss

    @pytest.mark.parametrize("spec", ["hinge", "", None])
    def test_an_unknown_name_lists_the_known_ones(self, spec):
        with pytest.raises(
            ValueError, match=r"Unknown loss.*cross_entropy.*softmax_cross_entropy.*squared_error"
        ):
            losses.get(spec)

    def test_what_cannot_be_a_name_is_refused_in_words(self):
        with pytest.raises((TypeError, ValueError), match=r"(?i)loss"):
            losses.get(["squared_error"])

    @pytest.mark.parametrize("threshold", [0.0, -1.0, np.nan, np.inf])
    def test_a_threshold_of_huber_that_is_none_is_refused(self, threshold):
        with pytest.raises(ValueError, match=r"huber needs a finite threshold > 0"):
            losses.Huber(threshold)

    @pytest.mark.parametrize("levels", [(), (0.0,), (1.0,), (0.5, 1.5), (np.nan,)])
    def test_levels_that_are_no_quantiles_are_refused(self, levels):
        with pytest.raises(ValueError, match=r"quantiles lie in \(0, 1\)"):
            losses.Quantile(levels)

    def test_equal_losses_are_equal(self):
        assert losses.CrossEntropy() == losses.get("cross_entropy")
        assert hash(losses.CrossEntropy()) == hash(losses.get("cross_entropy"))
        assert losses.get("squared_error") != losses.get("mean_squared_error")
