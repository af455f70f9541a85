"""Activation functions: g, g' and δ pulled back through them, on every backend."""

import numpy as np
import pytest
import scipy.special
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from gpunet import activations, losses

GELU = np.sqrt(2 / np.pi)
# Independent formulas in NumPy and SciPy: g and g' by spec.
ELEMENTWISE = {
    "identity": (lambda z: z, np.ones_like),
    "sigmoid": (
        scipy.special.expit,
        lambda z: scipy.special.expit(z) * scipy.special.expit(-z),
    ),
    "tanh": (np.tanh, lambda z: 1.0 / np.cosh(z) ** 2),
    "relu": (lambda z: np.where(z > 0, z, 0), lambda z: np.where(z > 0, 1.0, 0.0)),
    "leaky_relu": (lambda z: np.where(z > 0, z, 0.1 * z), lambda z: np.where(z > 0, 1.0, 0.1)),
    "leaky_relu:0.3": (lambda z: np.where(z > 0, z, 0.3 * z), lambda z: np.where(z > 0, 1.0, 0.3)),
    "leaky_relu:0": (lambda z: np.where(z > 0, z, 0), lambda z: np.where(z > 0, 1.0, 0.0)),
    "elu": (
        lambda z: np.where(z >= 0, z, np.exp(np.minimum(z, 0)) - 1),
        lambda z: np.where(z >= 0, 1.0, np.exp(np.minimum(z, 0))),
    ),
    "elu:0.5": (
        lambda z: np.where(z >= 0, z, 0.5 * (np.exp(np.minimum(z, 0)) - 1)),
        lambda z: np.where(z >= 0, 1.0, 0.5 * np.exp(np.minimum(z, 0))),
    ),
    "elu:2": (
        lambda z: np.where(z >= 0, z, 2 * (np.exp(np.minimum(z, 0)) - 1)),
        lambda z: np.where(z >= 0, 1.0, 2 * np.exp(np.minimum(z, 0))),
    ),
    "gelu": (
        lambda z: 0.5 * z * (1 + np.tanh(GELU * (z + 0.044715 * z**3))),
        lambda z: (
            0.5 * (1 + np.tanh(GELU * (z + 0.044715 * z**3)))
            + 0.5
            * z
            * np.exp(-2 * np.logaddexp(u := GELU * (z + 0.044715 * z**3), -u) + 2 * np.log(2))
            * GELU
            * (1 + 0.134145 * z**2)
        ),
    ),
    "silu": (
        lambda z: z * scipy.special.expit(z),
        lambda z: scipy.special.expit(z) * (1 + z * scipy.special.expit(-z)),
    ),
    "exp": (np.exp, np.exp),
}
ALL = [*ELEMENTWISE, "maxout", "maxout:3", "softmax"]
LECTURE = ("cross_entropy", "softmax_cross_entropy", "squared_error", "mean_squared_error")
# e^z leaves float32's range at 88.7; GELU and SiLU fall a little before they rise
SAFE = [spec for spec in ALL if spec != "exp"]
RISING = [spec for spec in ELEMENTWISE if spec not in ("exp", "gelu", "silu")]

# Rows for 6 units, or 2 units of 3 pieces, or 3 of 2; no value within 0.01 of the kink at 0 or of a tie.
Z = np.random.RandomState(7).uniform(0.02, 4.0, (6, 10)) * np.where(
    np.random.RandomState(8).uniform(size=(6, 10)) < 0.5, -1.0, 1.0
)
FAR = np.stack(
    [np.roll([-1e4, -1e3, -104.0, -30.0, -0.0, 0.0, 30.0, 88.8, 1e3, 1e4], row) for row in range(6)]
)

property_test = settings(
    deadline=None,
    max_examples=25,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def fits(loss, output):
    """Return whether a loss takes what an output activation gives."""
    (low, high), (lowest, highest) = activations.get(output).range, losses.get(loss).domain
    return lowest <= low and high <= highest


def evaluate(backend, spec, z, dtype="float64"):
    """Return g(z) and g'(z), NumPy arrays of the dtype they were computed in."""
    activation = activations.get(spec)
    on_device = backend.asarray(z, dtype)
    a = activation.g(backend.xp, on_device)
    slope = activation.g_prime(backend.xp, on_device, a)
    return backend.to_host(a), backend.to_host(slope)


def pull_back(backend, spec, delta, z, dtype="float64"):
    """Return δ pulled back through g, a NumPy array."""
    activation = activations.get(spec)
    on_device = backend.asarray(z, dtype)
    a = activation.g(backend.xp, on_device)
    # a copy: `backward` consumes δ, whose memory may be NumPy's own
    delta = backend.xp.asarray(backend.asarray(delta, dtype), copy=True)
    return backend.to_host(activation.backward(backend.xp, delta, on_device, a))


class TestValues:
    @pytest.mark.parametrize("spec", ELEMENTWISE)
    def test_g_is_the_formula(self, backend, spec, dtype, tolerance):
        a, _ = evaluate(backend, spec, Z, dtype)
        tolerance.check(a, ELEMENTWISE[spec][0](Z))

    @pytest.mark.parametrize("spec", ELEMENTWISE)
    def test_g_prime_is_the_formula(self, backend, spec, dtype, tolerance):
        _, slope = evaluate(backend, spec, Z, dtype)
        tolerance.check(slope, ELEMENTWISE[spec][1](Z))

    @pytest.mark.parametrize("spec", ALL)
    def test_the_dtype_stays(self, backend, spec, dtype):
        a, slope = evaluate(backend, spec, Z, dtype)
        assert (a.dtype, slope.dtype) == (dtype, dtype)

    def test_softmax_is_scipys(self, backend, dtype, tolerance):
        a, slope = evaluate(backend, "softmax", Z, dtype)
        expected = scipy.special.softmax(Z, axis=0)
        tolerance.check(a, expected)
        tolerance.check(slope, expected * (1 - expected))

    def test_gelu_is_near_z_times_the_normal_distribution_function(self, backend):
        a, _ = evaluate(backend, "gelu", Z)
        np.testing.assert_allclose(a, Z * scipy.special.ndtr(Z), rtol=0, atol=5e-4)

    @pytest.mark.parametrize("pieces", [2, 3])
    def test_maxout_takes_the_largest_piece_of_each_unit(self, backend, pieces, dtype, tolerance):
        a, _ = evaluate(backend, f"maxout:{pieces}", Z, dtype)
        units = 6 // pieces  # row p · units + j is piece p of unit j
        expected = [Z[unit::units].max(axis=0) for unit in range(units)]
        assert a.shape == (units, 10)
        tolerance.check(a, expected)

    @pytest.mark.parametrize("spec", ALL)
    def test_z_is_left_as_it_was_and_a_is_new(self, backend, spec):
        activation = activations.get(spec)
        z = backend.asarray(Z.copy(), "float64")
        a = activation.g(backend.xp, z)
        a += 1.0
        np.testing.assert_array_equal(backend.to_host(z), Z)


class TestDerivative:
    @pytest.mark.parametrize("spec", ELEMENTWISE)
    def test_g_prime_is_the_numerical_derivative_away_from_kinks(self, backend, spec):
        step = 1e-5
        (above, _), (below, _) = (evaluate(backend, spec, Z + side) for side in (step, -step))
        _, slope = evaluate(backend, spec, Z)
        np.testing.assert_allclose(slope, (above - below) / (2 * step), rtol=1e-9, atol=1e-9)

    @pytest.mark.parametrize("spec", ELEMENTWISE)
    def test_backward_is_delta_times_g_prime(self, backend, spec, dtype, tolerance):
        delta = np.random.RandomState(3).normal(size=Z.shape)
        tolerance.check(pull_back(backend, spec, delta, Z, dtype), delta * ELEMENTWISE[spec][1](Z))

    @pytest.mark.parametrize("spec", ["softmax", "maxout", "maxout:3", "sigmoid"])
    def test_backward_is_the_transposed_numerical_jacobian(self, backend, spec):
        # the Jacobian of each example by central differences, a column for each z
        step = 1e-5
        activation = activations.get(spec)
        units = 6 // activation.pieces
        delta = np.random.RandomState(3).normal(size=(units, 10))
        columns = []
        for row in range(6):
            shift = step * (np.arange(6) == row)[:, None]
            (above, _), (below, _) = (evaluate(backend, spec, Z + s) for s in (shift, -shift))
            columns.append((above - below) / (2 * step))
        expected = np.einsum("zkm,km->zm", np.array(columns), delta)
        np.testing.assert_allclose(pull_back(backend, spec, delta, Z), expected, rtol=0, atol=1e-9)

    def test_backward_of_softmax_is_diag_a_minus_a_a_transposed(self, backend, dtype, tolerance):
        delta = np.random.RandomState(3).normal(size=Z.shape)
        a = scipy.special.softmax(Z, axis=0)
        jacobians = [np.diag(one) - np.outer(one, one) for one in a.T]
        expected = np.stack([J @ d for J, d in zip(jacobians, delta.T, strict=True)], axis=1)
        tolerance.check(pull_back(backend, "softmax", delta, Z, dtype), expected)

    def test_backward_of_maxout_gives_delta_to_the_winner_only(self, backend):
        # two units of two pieces: rows are piece 1 of both, then piece 2 of both
        z = [[1.0, 5.0], [0.0, 0.0], [3.0, 2.0], [-1.0, 4.0]]
        passed = pull_back(backend, "maxout", [[10.0, 20.0], [30.0, 40.0]], z)
        assert passed.tolist() == [[0.0, 20.0], [30.0, 0.0], [10.0, 0.0], [0.0, 40.0]]


class TestKinks:
    @pytest.mark.parametrize("zero", [0.0, -0.0])
    @pytest.mark.parametrize(
        ("spec", "slope"),
        [
            ("relu", 0.0),
            ("leaky_relu", 0.1),
            ("leaky_relu:0.3", 0.3),
            ("elu", 1.0),
            ("elu:0.5", 1.0),
            ("elu:2", 1.0),
        ],
    )
    def test_g_prime_at_0_is_the_documented_side(self, backend, spec, slope, zero):
        a, found = evaluate(backend, spec, [[zero]])
        assert (a.item(), found.item()) == (0.0, pytest.approx(slope, rel=1e-15))

    @pytest.mark.parametrize("pieces", [2, 3])
    def test_maxout_gives_a_tie_to_the_first_piece(self, backend, pieces):
        z = np.full((2 * pieces, 3), 0.7)
        _, slope = evaluate(backend, f"maxout:{pieces}", z)
        assert slope.tolist() == [[1.0] * 3] * 2 + [[0.0] * 3] * (2 * pieces - 2)

    def test_maxout_gives_a_tie_of_the_last_two_to_the_second_of_three(self, backend):
        _, slope = evaluate(backend, "maxout:3", [[0.0], [2.0], [2.0]])
        assert slope.tolist() == [[0.0], [1.0], [0.0]]


class TestFarOut:
    """|z| up to 1e4 in float32: no NaN, no infinity, no warning (warnings are errors)."""

    @pytest.mark.parametrize("spec", SAFE)
    def test_g_g_prime_and_backward_are_finite(self, backend, spec):
        a, slope = evaluate(backend, spec, FAR, "float32")
        passed = pull_back(backend, spec, np.ones_like(a), FAR, "float32")
        assert np.isfinite(a).all()
        assert np.isfinite(slope).all()
        assert np.isfinite(passed).all()

    @pytest.mark.parametrize("spec", [spec for spec in ELEMENTWISE if spec != "exp"])
    def test_g_is_still_the_formula(self, backend, spec):
        a, slope = evaluate(backend, spec, FAR, "float32")
        with np.errstate(over="ignore"):
            g, g_prime = (formula(FAR) for formula in ELEMENTWISE[spec])
        np.testing.assert_allclose(a, g, rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(slope, g_prime, rtol=1e-6, atol=1e-6)

    def test_exp_is_finite_wherever_its_dtype_goes(self, backend):
        z = [[-1e4, -104.0, 0.0, 88.0]]
        a, slope = evaluate(backend, "exp", z, "float32")
        np.testing.assert_allclose(a, np.exp(z), rtol=1e-5, atol=1e-37)
        np.testing.assert_array_equal(slope, a)

    @pytest.mark.parametrize("far", [1e4, -1e4])
    def test_softmax_of_equal_numbers_is_uniform(self, backend, far):
        a, _ = evaluate(backend, "softmax", np.full((6, 10), far), "float32")
        np.testing.assert_allclose(a, 1 / 6, rtol=1e-6)

    @pytest.mark.parametrize("target", [0.0, 0.3, 1.0])
    @pytest.mark.parametrize(
        ("loss", "output"),
        [
            (loss, output)
            for loss in losses.KNOWN
            for output in (SAFE if loss in LECTURE else ("identity", "sigmoid", "maxout"))
            if fits(loss, output)
        ],
    )
    def test_cost_and_delta_are_finite(self, backend, loss, output, target):
        loss, output, xp = losses.get(loss), activations.get(output), backend.xp
        z = backend.asarray(FAR, "float32")
        a = output.g(xp, z)
        # the first output's target is the given one, and the rest share what is left
        y = np.full(a.shape, (1.0 - target) / (a.shape[0] - 1))
        y[0] = target
        y = backend.asarray(y, "float32")
        cost = backend.to_host(loss.cost(xp, z, a, y, output))
        delta = backend.to_host(loss.delta(xp, z, a, y, output))
        assert np.isfinite(cost).all()
        assert np.isfinite(delta).all()
        assert (cost >= 0.0).all()


class TestLeadingAxes:
    @pytest.mark.parametrize("spec", ALL)
    def test_a_stack_equals_a_loop(self, backend, spec):
        z = np.random.RandomState(5).normal(size=(2, 3, 6, 10))
        places = list(np.ndindex(2, 3))
        a, slope = evaluate(backend, spec, z)
        delta = np.random.RandomState(6).normal(size=a.shape)
        passed = pull_back(backend, spec, delta, z)
        ones = [evaluate(backend, spec, z[place]) for place in places]
        ones_passed = [pull_back(backend, spec, delta[place], z[place]) for place in places]
        close = {"rtol": 1e-14, "atol": 1e-15}
        np.testing.assert_allclose(a.reshape(6, *a.shape[2:]), [one for one, _ in ones], **close)
        np.testing.assert_allclose(slope.reshape(6, 6, 10), [one for _, one in ones], **close)
        np.testing.assert_allclose(passed.reshape(6, 6, 10), ones_passed, **close)


@pytest.mark.parametrize("spec", [*SAFE, "elu:0.25"])
@property_test
@given(z=arrays.arrays(np.float32, (6, 10), elements=st.floats(-1e4, 1e4, width=32)))
def test_values_stay_within_the_declared_range(backend, spec, z):
    low, high = activations.get(spec).range
    a, _ = evaluate(backend, spec, z, "float32")
    assert (a >= low).all()
    assert (a <= high).all()


@pytest.mark.parametrize("spec", RISING)
@property_test
@given(z=arrays.arrays(np.float64, (6, 10), elements=st.floats(-1e4, 1e4)))
def test_no_activation_falls(backend, spec, z):
    a, slope = evaluate(backend, spec, np.sort(z, axis=1))
    assert (np.diff(a, axis=1) >= -1e-12).all()
    assert (slope >= 0.0).all()


@property_test
@given(
    z=arrays.arrays(np.float64, (6, 10), elements=st.floats(-1e3, 1e3)),
    shift=st.floats(-1e3, 1e3),
)
def test_softmax_sums_to_1_and_ignores_a_shift(backend, z, shift):
    a, _ = evaluate(backend, "softmax", z)
    shifted, _ = evaluate(backend, "softmax", z + shift)
    np.testing.assert_allclose(a.sum(axis=0), 1.0, rtol=1e-14)
    np.testing.assert_allclose(shifted, a, rtol=0, atol=1e-12)


@property_test
@given(z=arrays.arrays(np.float64, (6, 10), elements=st.floats(-1e4, 1e4)))
def test_sigmoid_is_symmetric_about_one_half(backend, z):
    a, _ = evaluate(backend, "sigmoid", z)
    mirrored, _ = evaluate(backend, "sigmoid", -z)
    np.testing.assert_allclose(a + mirrored, 1.0, rtol=0, atol=1e-15)


class TestCustom:
    SOFTSIGN = activations.Custom(
        lambda xp, z: z / (1.0 + xp.abs(z)),
        lambda xp, z, a: 1.0 / (1.0 + xp.abs(z)) ** 2,
        name="softsign",
        range=(-1.0, 1.0),
    )

    def test_it_computes_what_it_is_given(self, backend, dtype, tolerance):
        a, slope = evaluate(backend, self.SOFTSIGN, Z, dtype)
        tolerance.check(a, Z / (1 + abs(Z)))
        tolerance.check(slope, 1 / (1 + abs(Z)) ** 2)

    def test_backward_is_delta_times_its_derivative(self, backend, dtype, tolerance):
        delta = np.random.RandomState(3).normal(size=Z.shape)
        passed = pull_back(backend, self.SOFTSIGN, delta, Z, dtype)
        tolerance.check(passed, delta / (1 + abs(Z)) ** 2)

    def test_a_g_that_returns_z_itself_is_no_harm(self, backend):
        itself = activations.Custom(lambda xp, z: z, lambda xp, z, a: xp.ones_like(z))
        assert pull_back(backend, itself, [[5.0]], [[2.0]]).tolist() == [[5.0]]

    def test_it_is_known_by_its_name_and_range(self):
        assert (self.SOFTSIGN.name, self.SOFTSIGN.range) == ("softsign", (-1.0, 1.0))
        assert self.SOFTSIGN.pieces == 1


class TestGet:
    @pytest.mark.parametrize("name", activations.KNOWN)
    def test_a_name_gives_its_activation(self, name):
        found = activations.get(name)
        assert type(found) is activations.KNOWN[name]
        assert found.name == name

    @pytest.mark.parametrize(
        ("spec", "expected"),
        [
            ("leaky_relu", activations.LeakyReLU(slope=0.1)),
            ("leaky_relu:0.25", activations.LeakyReLU(slope=0.25)),
            ("elu", activations.ELU(alpha=1.0)),
            ("elu:0.5", activations.ELU(alpha=0.5)),
            ("maxout", activations.Maxout(pieces=2)),
            ("maxout:4", activations.Maxout(pieces=4)),
            ("logistic", activations.Sigmoid()),
            ("linear", activations.Identity()),
            ("LeakyReLU:0.2", activations.LeakyReLU(slope=0.2)),
            ("ReLU", activations.ReLU()),
            ("swish", activations.SiLU()),
        ],
    )
    def test_a_spec_gives_its_activation(self, spec, expected):
        assert activations.get(spec) == expected

    def test_an_activation_is_itself(self):
        elu = activations.ELU(0.7)
        assert activations.get(elu) is elu

    def test_equal_settings_are_equal_and_hash_alike(self):
        assert activations.get("elu:0.5") == activations.ELU(0.5)
        assert hash(activations.get("elu:0.5")) == hash(activations.ELU(0.5))
        assert activations.ReLU() != activations.Tanh()
        assert activations.ELU(0.5) != activations.ELU(0.6)

    def test_an_unknown_name_lists_the_known_ones(self):
        with pytest.raises(ValueError, match=r"warp.*known.*sigmoid.*relu.*maxout.*softmax"):
            activations.get("warp")

    @pytest.mark.parametrize("spec", [None, 3, ["relu"], activations.ReLU])
    def test_what_is_no_name_is_refused(self, spec):
        with pytest.raises(TypeError, match=r"activation is a name.*relu.*Custom"):
            activations.get(spec)

    @pytest.mark.parametrize("spec", ["relu:0.1", "sigmoid:2", "softmax:1", "identity:0"])
    def test_a_setting_for_what_has_none_is_refused(self, spec):
        with pytest.raises(ValueError, match=r"has no setting"):
            activations.get(spec)

    @pytest.mark.parametrize("spec", ["elu:", "leaky_relu:steep", "maxout:2.5", "maxout:two"])
    def test_a_setting_that_is_no_number_is_refused(self, spec):
        with pytest.raises(ValueError, match=rf"{spec.split(':')[1]}.*isn't a number"):
            activations.get(spec)

    @pytest.mark.parametrize("slope", ["-0.1", "1", "2", "nan", "inf"])
    def test_a_slope_for_which_the_maximum_is_another_function_is_refused(self, slope):
        with pytest.raises(ValueError, match=r"slope in \[0, 1\)"):
            activations.get(f"leaky_relu:{slope}")

    @pytest.mark.parametrize("alpha", ["0", "-1", "nan", "inf"])
    def test_an_alpha_that_is_not_positive_is_refused(self, alpha):
        with pytest.raises(ValueError, match=r"finite alpha > 0"):
            activations.get(f"elu:{alpha}")

    @pytest.mark.parametrize("pieces", ["1", "0", "-2"])
    def test_fewer_than_two_pieces_are_refused(self, pieces):
        with pytest.raises(ValueError, match=r"at least 2 pieces"):
            activations.get(f"maxout:{pieces}")

    def test_pieces_that_are_not_whole_are_refused(self):
        with pytest.raises(ValueError, match=r"pieces"):
            activations.Maxout(2.5)
