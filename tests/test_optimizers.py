"""Update rules against the same by hand, in NumPy and in scikit-learn; settings for many networks."""

import itertools
import math

import numpy as np
import pytest
from sklearn.neural_network._stochastic_optimizers import AdamOptimizer, SGDOptimizer

from gpunet import optimizers, schedules
from gpunet.optimizers import (
    LBFGS,
    Adam,
    AdamW,
    GradientDescent,
    Momentum,
    NAdam,
    Nesterov,
    RMSProp,
)

P, STEPS = 6, 5
RANDOM = np.random.RandomState(0)
THETA = RANDOM.normal(size=P)
GRADIENTS = RANDOM.normal(size=(STEPS, P))
RULES = [
    GradientDescent(0.1),
    Momentum(0.1, momentum=0.8),
    Nesterov(0.1, momentum=0.8),
    Adam(0.1, beta_1=0.8, beta_2=0.9, epsilon=1e-3),
    NAdam(0.1, beta_1=0.8, beta_2=0.9, epsilon=1e-3),
    AdamW(0.1, beta_1=0.8, beta_2=0.9, epsilon=1e-3, decay=0.3),
    RMSProp(0.1, rho=0.8, epsilon=1e-3),
]


def by_name(rule):
    return rule.name


def run(backend, optimizer, theta=THETA, gradients=GRADIENTS, *, rates=None, dtype="float64"):
    """Return θ after a step for each gradient, a NumPy array (steps, ..., P)."""
    xp = backend.xp
    # copies: an update consumes what it is given, which may be NumPy's own memory
    theta = xp.asarray(backend.asarray(theta, dtype), copy=True)
    slots = optimizer.start(xp, theta)
    path = []
    for step, gradient in enumerate(gradients, start=1):
        own = optimizer.rates(step, optimizer.learning_rate) if rates is None else rates[step - 1]
        own = [backend.asarray(np.asarray(rate), dtype) for rate in own]
        given = xp.asarray(backend.asarray(gradient, dtype), copy=True)
        theta, slots = optimizer.update(xp, theta, given, slots, *own)
        path.append(backend.to_host(theta).copy())
    return np.stack(path)


class TestByHand:
    """θ = 1 and the gradients 2, then −4, with α = 1/2 (1/10 for Adam)."""

    def path(self, backend, optimizer):
        return run(backend, optimizer, [1.0], [[2.0], [-4.0]]).ravel().tolist()

    def test_gradient_descent(self, backend):
        # 1 − ½·2 = 0, then 0 + ½·4 = 2
        assert self.path(backend, GradientDescent(0.5)) == [0.0, 2.0]

    def test_momentum(self, backend):
        # v = −½·2 = −1: θ = 0; v = −½ + ½·4 = 3/2: θ = 3/2
        assert self.path(backend, Momentum(0.5, momentum=0.5)) == [0.0, 1.5]

    def test_nesterov(self, backend):
        # v = −1, looking ahead ½v − ½·2 = −3/2: θ = −1/2
        # v = −½ + 2 = 3/2, looking ahead ¾ + 2 = 11/4: θ = 9/4
        assert self.path(backend, Nesterov(0.5, momentum=0.5)) == [-0.5, 2.25]

    def test_momentum_without_momentum_is_gradient_descent(self, backend):
        plain = run(backend, GradientDescent(0.1))
        np.testing.assert_array_equal(run(backend, Momentum(0.1, momentum=0.0)), plain)
        np.testing.assert_array_equal(run(backend, Nesterov(0.1, momentum=0.0)), plain)

    def test_adam(self, backend):
        # β₁ = β₂ = ½ and ε so small that it doesn't count
        # m = 1, v = 2, α₁ = α √½ / ½ = α √2: step α √2 · 1/√2 = α
        # m = ½ − 2 = −3/2, v = 1 + 8 = 9, α₂ = α √¾ / ¾ = 2α/√3: step 2α/√3 · −3/2 / 3 = −α/√3
        path = self.path(backend, Adam(0.1, beta_1=0.5, beta_2=0.5, epsilon=1e-30))
        assert path == pytest.approx([0.9, 0.9 + 0.1 / math.sqrt(3)], rel=1e-14)

    def test_rmsprop(self, backend):
        # ρ = ½: v = ½·4 = 2, step α·2/√2 = α√2; v = 1 + ½·16 = 9, step −α·4/3
        path = self.path(backend, RMSProp(0.1, rho=0.5, epsilon=1e-30))
        first = 1 - 0.1 * math.sqrt(2)
        assert path == pytest.approx([first, first + 0.4 / 3], rel=1e-14)

    def test_nadam(self, backend):
        # as for Adam below, with ½m + ½D in place of m: ½ + 1 = 3/2, then −¾ − 2 = −11/4
        path = self.path(backend, NAdam(0.1, beta_1=0.5, beta_2=0.5, epsilon=1e-30))
        steps = 0.1 * math.sqrt(2) * 1.5 / math.sqrt(2), -0.2 / math.sqrt(3) * 2.75 / 3
        assert path == pytest.approx([1 - steps[0], 1 - sum(steps)], rel=1e-14)

    def test_adamw_shrinks_all_of_theta_by_alpha_times_its_decay(self, backend):
        # no gradient, no step of Adam's: θ(1 − ½·⅕) = 9/10 θ
        path = run(backend, AdamW(0.5, decay=0.2), [1.0, -2.0], [[0.0, 0.0]] * 2)
        np.testing.assert_allclose(path, [[0.9, -1.8], [0.81, -1.62]], rtol=1e-14)

    def test_adamw_without_decay_is_adam(self, backend):
        np.testing.assert_array_equal(run(backend, AdamW(0.1, decay=0.0)), run(backend, Adam(0.1)))

    def test_adams_first_step_is_the_learning_rate_whatever_the_gradient(self, backend):
        path = run(backend, Adam(0.01), [0.0, 0.0, 0.0], [[1e-3, -7.0, 1e4]])
        np.testing.assert_allclose(path, [[-0.01, 0.01, -0.01]], rtol=1e-3)


class TestAgainstNumPy:
    """The rules once more, written down independently."""

    def expected(self, rule):
        theta, alpha, path = THETA.copy(), rule.learning_rate, []
        v = m = np.zeros(P)
        for t, gradient in enumerate(GRADIENTS, start=1):
            if isinstance(rule, Adam):
                m = rule.beta_1 * m + (1 - rule.beta_1) * gradient
                v = rule.beta_2 * v + (1 - rule.beta_2) * gradient**2
                # corrected moments; ε isn't, as in the paper's more efficient form
                step = alpha * math.sqrt(1 - rule.beta_2**t) / (1 - rule.beta_1**t)
                ahead = rule.beta_1 * m + (1 - rule.beta_1) * gradient
                decay = alpha * rule.decay * theta if isinstance(rule, AdamW) else 0.0
                moment = ahead if isinstance(rule, NAdam) else m
                theta = theta - decay - step * moment / (np.sqrt(v) + rule.epsilon)
            elif isinstance(rule, RMSProp):
                v = rule.rho * v + (1 - rule.rho) * gradient**2
                theta = theta - alpha * gradient / (np.sqrt(v) + rule.epsilon)
            elif isinstance(rule, Nesterov):
                v = rule.momentum * v - alpha * gradient
                theta = theta + rule.momentum * v - alpha * gradient
            elif isinstance(rule, Momentum):
                v = rule.momentum * v - alpha * gradient
                theta = theta + v
            else:
                theta = theta - alpha * gradient
            path.append(theta)
        return np.stack(path)

    @pytest.mark.parametrize("rule", RULES, ids=by_name)
    def test_every_step(self, backend, rule, dtype, tolerance):
        path = run(backend, rule, dtype=dtype)
        assert path.dtype == dtype
        tolerance.check(path, self.expected(rule))


class TestAgainstScikitLearn:
    def theirs(self, optimizer, theta):
        """Return their path; ``theta`` is the array they were given to update."""
        path = []
        for gradient in GRADIENTS:
            optimizer.update_params([theta], [gradient])
            path.append(theta.copy())
        return np.stack(path)

    @pytest.mark.parametrize("nesterov", [False, True])
    def test_momentum(self, backend, *, nesterov):
        theta = THETA.copy()
        theirs = SGDOptimizer([theta], 0.05, momentum=0.7, nesterov=nesterov)
        ours = (Nesterov if nesterov else Momentum)(0.05, momentum=0.7)
        np.testing.assert_allclose(run(backend, ours), self.theirs(theirs, theta), rtol=1e-14)

    @pytest.mark.parametrize(
        "settings",
        [{}, {"beta_1": 0.5, "beta_2": 0.9, "epsilon": 1e-2}, {"beta_1": 0.0, "beta_2": 0.0}],
        ids=str,
    )
    def test_adam(self, backend, settings):
        theta = THETA.copy()
        theirs = AdamOptimizer([theta], 0.05, **settings)
        path = run(backend, Adam(0.05, **settings))
        np.testing.assert_allclose(path, self.theirs(theirs, theta), rtol=1e-13)

    def test_the_defaults_are_theirs(self):
        adam, sgd = AdamOptimizer([]), SGDOptimizer([])
        assert Adam() == Adam(0.001, adam.beta_1, adam.beta_2, adam.epsilon)
        assert Momentum().momentum == Nesterov().momentum == sgd.momentum


class TestManyNetworks:
    """Settings of shape (K, 1): each network of a stack has its own."""

    ALPHAS = np.array([[0.01], [0.1], [0.5]])
    OWN = np.array([[0.0], [0.5], [0.95]])
    THETAS = np.random.RandomState(1).normal(size=(3, P))
    STACKED = np.random.RandomState(2).normal(size=(STEPS, 3, P))

    def one(self, backend, kind, k, **settings):
        """Return the path of network k alone."""
        alpha, settings = self.ALPHAS[k, 0], {name: v[k, 0] for name, v in settings.items()}
        optimizer = kind(float(alpha), **{name: float(v) for name, v in settings.items()})
        return run(backend, optimizer, self.THETAS[k], self.STACKED[:, k])

    @pytest.mark.parametrize(
        ("kind", "settings"),
        [
            (GradientDescent, {}),
            (Momentum, {"momentum": OWN}),
            (Nesterov, {"momentum": OWN}),
            (Adam, {}),
            (Adam, {"beta_1": OWN, "beta_2": OWN[::-1], "epsilon": ALPHAS}),
            (NAdam, {"beta_1": OWN, "beta_2": OWN[::-1], "epsilon": ALPHAS}),
            (AdamW, {"beta_1": OWN, "beta_2": OWN[::-1], "decay": ALPHAS}),
            (RMSProp, {"rho": OWN, "epsilon": ALPHAS}),
        ],
        ids=lambda value: getattr(value, "name", None) or "+".join(value) or "shared",
    )
    def test_a_stack_equals_a_loop(self, backend, kind, settings):
        on_device = {name: backend.asarray(v, "float64") for name, v in settings.items()}
        optimizer = kind(0.1, **on_device)
        # the rates come from the host, a column for each network
        alone = [
            kind(**{name: float(values[k, 0]) for name, values in settings.items()})
            for k in range(3)
        ]
        rates = []
        for step in range(1, STEPS + 1):
            rows = [one.rates(step, a) for one, a in zip(alone, self.ALPHAS[:, 0], strict=True)]
            rates.append([np.array(column)[:, None] for column in zip(*rows, strict=True)])
        path = run(backend, optimizer, self.THETAS, self.STACKED, rates=rates)
        one = [self.one(backend, kind, k, **settings) for k in range(3)]
        np.testing.assert_allclose(path, np.stack(one, axis=1), rtol=1e-13)

    @pytest.mark.parametrize("rule", RULES, ids=by_name)
    def test_a_shared_setting_serves_all(self, backend, rule):
        path = run(backend, rule, self.THETAS, self.STACKED)
        one = [run(backend, rule, self.THETAS[k], self.STACKED[:, k]) for k in range(3)]
        np.testing.assert_allclose(path, np.stack(one, axis=1), rtol=1e-13)


class TestState:
    @pytest.mark.parametrize("rule", RULES, ids=by_name)
    def test_it_starts_with_zeros_in_thetas_shape(self, backend, rule, dtype):
        theta = backend.asarray(np.ones((2, P)), dtype)
        slots = rule.start(backend.xp, theta)
        assert len(slots) == rule.n_slots
        hosts = [backend.to_host(slot) for slot in slots]
        assert [(slot.shape, slot.dtype, slot.any()) for slot in hosts] == [
            ((2, P), dtype, False)
        ] * rule.n_slots

    @pytest.mark.parametrize("rule", RULES, ids=by_name)
    def test_its_memory_is_all_that_a_run_needs_to_go_on(self, backend, rule):
        xp = backend.xp

        def steps(theta, slots, numbers):
            for step in numbers:
                rates = rule.rates(step, rule.learning_rate)
                rates = [backend.asarray(np.asarray(rate), "float64") for rate in rates]
                gradient = xp.asarray(backend.asarray(GRADIENTS[step - 1]), copy=True)
                theta, slots = rule.update(xp, theta, gradient, slots, *rates)
            return theta, slots

        theta = xp.asarray(backend.asarray(THETA), copy=True)
        theta, slots = steps(theta, rule.start(xp, theta), [1, 2])
        # by way of the host, as a checkpoint would take them
        saved = [backend.to_host(array).copy() for array in (theta, *slots)]
        theta, *slots = [xp.asarray(backend.asarray(array), copy=True) for array in saved]
        theta, _ = steps(theta, tuple(slots), [3, 4, 5])
        np.testing.assert_array_equal(backend.to_host(theta), run(backend, rule)[-1])

    @pytest.mark.parametrize("rule", RULES, ids=by_name)
    def test_the_rates_are_proportional_to_the_learning_rate(self, rule):
        """To the last bit: a stack computes them for a learning rate of 1."""
        for step, learning_rate in itertools.product([1, 2, 7, 1000], [1e-4, 0.3, 1.7]):
            ones = rule.rates(step, 1.0)
            assert rule.rates(step, learning_rate) == tuple(learning_rate * one for one in ones)

    @pytest.mark.parametrize("rule", RULES, ids=by_name)
    def test_the_rates_are_left_as_they_were(self, backend, rule):
        rates = [backend.asarray(np.full(P, rate), "float64") for rate in rule.rates(1, 0.25)]
        before = [backend.to_host(rate).copy() for rate in rates]
        given = [backend.xp.asarray(backend.asarray(a), copy=True) for a in (THETA, GRADIENTS[0])]
        rule.update(backend.xp, *given, rule.start(backend.xp, given[0]), *rates)
        for rate, expected in zip(rates, before, strict=True):
            np.testing.assert_array_equal(backend.to_host(rate), expected)

    def test_equal_settings_are_equal_and_hash_alike(self):
        # a compiled step is found again by its optimizer
        assert Adam(0.1) == Adam(0.1)
        assert hash(Adam(0.1)) == hash(Adam(0.1))
        assert Adam(0.1) != Adam(0.2)
        assert Momentum(0.1) != Nesterov(0.1)


class TestRanges:
    @pytest.mark.parametrize("rate", [0.0, -0.1, math.nan, math.inf, -math.inf])
    @pytest.mark.parametrize("kind", [type(rule) for rule in RULES], ids=by_name)
    def test_a_learning_rate_that_is_none_is_refused(self, kind, rate):
        with pytest.raises(ValueError, match=rf"learning_rate .*\(0, inf\), but is {rate}"):
            kind(rate)

    @pytest.mark.parametrize("value", [-0.1, 1.0, 1.5, math.nan])
    @pytest.mark.parametrize(
        ("kind", "name"),
        [
            (Momentum, "momentum"),
            (Nesterov, "momentum"),
            (Adam, "beta_1"),
            (Adam, "beta_2"),
            (AdamW, "beta_2"),
            (RMSProp, "rho"),
        ],
    )
    def test_a_share_outside_0_to_1_is_refused(self, kind, name, value):
        with pytest.raises(ValueError, match=rf"{name} .*\[0, 1\), but is {value}"):
            kind(**{name: value})

    def test_0_is_within(self):
        assert Momentum(momentum=0.0).momentum == 0.0
        assert Adam(beta_1=0.0, beta_2=0.0).beta_1 == 0.0

    @pytest.mark.parametrize("kind", [Adam, NAdam, AdamW, RMSProp], ids=by_name)
    @pytest.mark.parametrize("epsilon", [0.0, -1e-8, math.nan, math.inf])
    def test_epsilon_is_positive(self, epsilon, kind):
        with pytest.raises(ValueError, match=r"epsilon .*\(0, inf\), but is"):
            kind(epsilon=epsilon)

    @pytest.mark.parametrize("decay", [-0.1, math.nan, math.inf])
    def test_decay_is_not_negative(self, decay):
        with pytest.raises(ValueError, match=r"decay .*\[0, inf\), but is"):
            AdamW(decay=decay)

    @pytest.mark.parametrize("memory", [0, -1])
    def test_lbfgs_remembers_one_step_at_least(self, memory):
        with pytest.raises(ValueError, match=r"memory .*\(0, inf\), but is"):
            LBFGS(memory=memory)

    @pytest.mark.parametrize("tolerance", [-1e-5, math.nan, math.inf])
    def test_the_tolerance_of_lbfgs_is_not_negative(self, tolerance):
        with pytest.raises(ValueError, match=r"tolerance .*\[0, inf\), but is"):
            LBFGS(tolerance=tolerance)

    @pytest.mark.parametrize("rate", ["fast", "0.1", None])
    def test_a_learning_rate_that_is_no_number_is_refused(self, rate):
        with pytest.raises((TypeError, ValueError), match=r"learning_rate"):
            Adam(rate)


class TestGet:
    @pytest.mark.parametrize("name", optimizers.KNOWN)
    def test_a_name_gives_its_rule(self, name):
        found = optimizers.get(name)
        assert type(found) is optimizers.KNOWN[name]
        assert found.name == name

    @pytest.mark.parametrize(
        ("alias", "kind"), [("sgd", GradientDescent), ("gd", GradientDescent), ("l-bfgs", LBFGS)]
    )
    def test_an_alias_too(self, alias, kind):
        assert optimizers.get(alias) == kind()

    def test_a_learning_rate_goes_with_a_name(self):
        assert optimizers.get("adam", 0.02) == Adam(0.02)
        assert optimizers.get("momentum", 0.02) == Momentum(0.02)

    @pytest.mark.parametrize("rule", [*RULES, LBFGS()], ids=by_name)
    def test_an_optimizer_is_itself(self, rule):
        assert optimizers.get(rule) is rule

    def test_a_learning_rate_given_twice_is_refused(self):
        with pytest.raises(ValueError, match=r"learning rate once.*Adam\(learning_rate=0.1"):
            optimizers.get(Adam(0.1), 0.2)

    def test_a_learning_rate_for_lbfgs_is_refused(self):
        with pytest.raises(ValueError, match=r"lbfgs finds its own step length"):
            optimizers.get("lbfgs", 0.1)

    @pytest.mark.parametrize("spec", ["warp", "", None, 3, ["adam"]])
    def test_an_unknown_name_lists_the_known_ones(self, spec):
        with pytest.raises(
            ValueError, match=r"Unknown optimizer.*gradient_descent.*nesterov.*adam.*lbfgs"
        ):
            optimizers.get(spec)


class TestSchedules:
    def test_constant_is_1(self):
        assert [schedules.get("constant").factor(step, 9) for step in (1, 5, 9)] == [1.0] * 3

    def test_inverse_scaling_divides_by_a_power_of_the_step(self):
        schedule = schedules.get("inverse_scaling")
        assert [schedule.factor(step, 9) for step in (1, 4, 9)] == pytest.approx([1, 1 / 2, 1 / 3])
        assert schedules.InverseScaling(1.0).factor(4, 9) == 0.25

    @pytest.mark.parametrize("floor", [0.0, 0.1])
    def test_cosine_falls_from_1_to_its_floor(self, floor):
        schedule = schedules.Cosine(floor)
        factors = [schedule.factor(step, 9) for step in range(1, 10)]
        assert factors[0] == 1.0
        assert factors[4] == pytest.approx((1 + floor) / 2)
        assert factors[-1] == pytest.approx(floor, abs=1e-15)
        assert factors == sorted(factors, reverse=True)

    def test_cosine_of_one_step_is_that_step(self):
        assert schedules.Cosine().factor(1, 1) == 1.0

    def test_cosine_stays_at_its_floor_beyond_the_plan(self):
        assert schedules.Cosine(0.1).factor(20, 9) == pytest.approx(0.1)

    def test_an_unknown_name_lists_the_known_ones(self):
        with pytest.raises(
            ValueError, match=r"Unknown schedule.*constant.*inverse_scaling.*cosine"
        ):
            schedules.get("linear")

    def test_a_schedule_is_itself(self):
        schedule = schedules.Cosine(0.2)
        assert schedules.get(schedule) is schedule
