"""Many estimators fitted at once: each is the model that it would be alone."""

import itertools
import warnings

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import KFold

from gpunet import MLPClassifier, MLPRegressor
from gpunet.backend import BackendUnavailableError, get_backend
from gpunet.estimators import together
from gpunet.estimators.stacked import StackedFit
from gpunet.estimators.together import Job, fit_all, stackable
from gpunet.schedules import Schedule

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

X, DIGITS = load_digits(return_X_y=True)
X, DIGITS = X[:151] / 16.0, DIGITS[:151]
WEIGHTS = np.random.RandomState(0).uniform(0.5, 2.0, X.shape[0])
FOLDS = [train for train, _ in KFold(4).split(X)]  # 113 or 114 examples: sizes that differ by one
SMALL = {"hidden_layer_sizes": (6,), "random_state": 0, "batch_size": 25, "max_iter": 6}

CASES = {
    "rates and decay": (
        MLPClassifier(**SMALL),
        {"alpha": [1e-4, 1.0], "learning_rate_init": [1e-3, 1e-2]},
        {},
    ),
    "two layers, two classes": (
        MLPClassifier(**{**SMALL, "hidden_layer_sizes": (6, 3)}),
        {"beta_1": [0.8, 0.9], "beta_2": [0.9, 0.99], "epsilon": [1e-8, 1e-3]},
        {"y": DIGITS > 4},
    ),
    "early stopping": (
        MLPClassifier(**{**SMALL, "max_iter": 30}, early_stopping=True, n_iter_no_change=3),
        {"learning_rate_init": [1e-3, 1e-2, 3e-2], "tol": [1e-4, 1e-2]},
        {"sample_weight": WEIGHTS},
    ),
    "own seeds": (
        MLPClassifier(**SMALL, early_stopping=True),
        {"random_state": [1, 2, np.random.RandomState(3)], "alpha": [0.0, 0.1]},
        {},
    ),
    "dropout and clipping": (
        MLPClassifier(**SMALL),
        {"dropout": [0.2, 0.4], "clip_norm": [0.1, 1.0], "random_state": [1, 2]},
        {},
    ),
    "schedules": (
        MLPClassifier(**{**SMALL, "max_iter": 20}, solver="sgd", tol=1e-2, n_iter_no_change=2),
        {"learning_rate": ["adaptive", "invscaling", "cosine"], "momentum": [0.5, 0.9]},
        {},
    ),
    "epochs of their own": (MLPClassifier(**SMALL), {"max_iter": [1, 2, 4]}, {}),
    "class weights": (
        MLPClassifier(**SMALL, early_stopping=True),
        {"class_weight": [None, "balanced", {k: 1.0 + k for k in range(10)}]},
        {"sample_weight": WEIGHTS},
    ),
    "regression": (
        MLPRegressor(**SMALL, early_stopping=True),
        {"solver": ["adamw", "rmsprop", "nadam", "gradient_descent"], "alpha": [0.0, 0.1]},
        {"y": X[:, :2] + X[:, 2:4]},
    ),
    "several stacks on one fold": (
        MLPClassifier(**SMALL, solver="sgd", early_stopping=True),
        {
            "nesterovs_momentum": [True, False],
            "dropout": [0.0, 0.2],
            "clip_norm": [None, 1.0],
            "class_weight": [None, "balanced"],
        },
        {},
    ),
    "losses": (
        MLPRegressor(**SMALL),
        {"loss": ["poisson", "quantile", "huber"], "learning_rate_init": [1e-3, 1e-2]},
        {"y": X[:, 20] + 1.0},
    ),
    "label indicators": (
        MLPClassifier(**SMALL),
        {"activation": ["tanh", "maxout", "gelu"], "alpha": [1e-4, 1e-1]},
        {"y": (X[:, 20:23] > 0.5).astype(int)},
    ),
}


def jobs_of(estimator, grid, y=DIGITS, sample_weight=None, folds=FOLDS):
    settings = [dict(zip(grid, each, strict=True)) for each in itertools.product(*grid.values())]
    ready = [clone(clone(estimator).set_params(**setting)) for setting in settings for _ in folds]
    return [  # tagged with an unfitted copy, whose generator hasn't moved
        Job(each, X, y, sample_weight, rows, tag=clone(each))
        for each, rows in zip(ready, itertools.cycle(folds), strict=False)
    ]


@pytest.fixture
def alone(monkeypatch):
    """Return the list of jobs that weren't trained in a stack."""
    found = []
    fit_alone = together._fit_alone
    monkeypatch.setattr(together, "_fit_alone", lambda job: (found.append(job), fit_alone(job)))
    return found


def check_each(jobs, rounding=1e-12):
    """Compare each job's estimator with the same one fitted alone."""
    for job in jobs:
        fitted, single = job.estimator, job.tag
        weights = None if job.sample_weight is None else job.sample_weight[job.rows]
        single.fit(job.X[job.rows], job.y[job.rows], sample_weight=weights)
        assert job.error is None
        assert job.done
        assert set(vars(fitted)) == set(vars(single))
        for ours, theirs in zip(
            fitted.coefs_ + fitted.intercepts_, single.coefs_ + single.intercepts_, strict=True
        ):
            assert ours.dtype == theirs.dtype
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=rounding)
        curves = (getattr(each, "loss_curve_", []) for each in (fitted, single))
        np.testing.assert_allclose(*curves, rtol=1e-10)
        if fitted.early_stopping:
            np.testing.assert_allclose(fitted.validation_scores_, single.validation_scores_)
        assert (fitted.n_iter_, fitted.t_) == (single.n_iter_, single.t_)
        if not isinstance(fitted.random_state, int):  # else nothing is drawn from it any more
            assert fitted._random_state.randint(1000) == single._random_state.randint(1000)


@pytest.mark.parametrize("case", CASES)
def test_stacked_equals_alone(case, alone):
    estimator, grid, data = CASES[case]
    jobs = jobs_of(estimator, grid, **data)
    fit_all(jobs)
    assert not alone
    check_each(jobs)


@pytest.mark.parametrize("case", ["early stopping", "dropout and clipping", "own seeds"])
@pytest.mark.parametrize("spec", ["array_api_strict:device1", "torch:cpu", "cupy"])
def test_stacked_equals_alone_on_every_backend(spec, case, alone):
    run_on(spec, case, alone, FOLDS[:2])


def test_stacked_equals_alone_on_jax(alone):
    run_on("jax", "early stopping", alone, FOLDS[1:2])


def run_on(spec, case, alone, folds):
    try:
        get_backend(spec)
    except BackendUnavailableError as error:
        pytest.skip(str(error))
    estimator, grid, data = CASES[case]
    jobs = jobs_of(clone(estimator).set_params(backend=spec), grid, **data, folds=folds)
    fit_all(jobs)
    assert not alone
    check_each(jobs)


def test_what_is_prepared_together_shares_no_generator(monkeypatch):
    """As where a group turns out to have several shapes."""
    monkeypatch.setattr(together, "_OF_THE_SHAPE", ())
    monkeypatch.setattr(together, "_side_by_side", lambda *_: 2)
    grid = {"nesterovs_momentum": [True, False], "hidden_layer_sizes": [(5,), (6,)]}
    jobs = jobs_of(MLPClassifier(**SMALL, solver="sgd"), grid, folds=FOLDS[:2])
    fit_all(jobs)
    check_each(jobs)


class Halving(Schedule):
    """A schedule of one's own, compared as its base class is: any two are equal."""

    def __init__(self, every):
        self.every = every

    def factor(self, step, total):
        return 0.5 ** (step // self.every)


def test_schedules_of_ones_own(alone):
    grid = {"learning_rate": [Halving(2), Halving(7), "cosine"], "learning_rate_init": [1e-3, 1e-2]}
    jobs = jobs_of(MLPClassifier(**SMALL), grid, folds=FOLDS[:2])
    fit_all(jobs)
    assert not alone
    check_each(jobs)


@pytest.mark.parametrize("n", [20, 500])
def test_weights_of_another_length_are_refused_as_alone(n):
    jobs = jobs_of(MLPClassifier(**SMALL), {}, sample_weight=np.ones(n), folds=FOLDS[:1])
    fit_all(jobs)
    assert f"sample_weight.shape == ({n},)" in str(jobs[0].error)


@pytest.mark.parametrize("stack_size", [1, 3, 100])
@pytest.mark.parametrize("n_jobs", [1, 3])
def test_the_size_of_a_stack_changes_nothing(stack_size, n_jobs, alone):
    jobs = jobs_of(MLPClassifier(**SMALL), {"alpha": [1e-4, 1e-2, 1.0]})
    fit_all(jobs, stack_size=stack_size, n_jobs=n_jobs)
    assert not alone
    check_each(jobs)


def test_a_fit_goes_on_from_a_stack_as_from_a_fit_alone():
    (job,) = jobs_of(MLPClassifier(**SMALL), {}, folds=FOLDS[:1])
    fit_all([job])
    single = clone(job.estimator).fit(X[job.rows], DIGITS[job.rows])
    for fitted in (job.estimator, single):
        fitted.partial_fit(X[job.rows], DIGITS[job.rows])
    np.testing.assert_allclose(job.estimator.coefs_[0], single.coefs_[0], rtol=0, atol=1e-12)


def test_what_cant_be_stacked_is_fitted_alone(alone):
    grid = {"solver": ["lbfgs", "adam"], "alpha": [1e-4, 1e-2]}
    jobs = jobs_of(MLPClassifier(**SMALL), grid, folds=FOLDS[:1])
    fit_all(jobs)
    assert [job.estimator.solver for job in alone] == ["lbfgs", "lbfgs"]
    check_each(jobs)


def test_an_error_stays_in_its_job():
    rates = {"learning_rate_init": [1e-3, 1e300], "alpha": [1e-4, -1.0]}
    jobs = jobs_of(MLPRegressor(**SMALL), rates, y=X[:, 5], folds=FOLDS[:1])
    with np.errstate(all="ignore"):
        fit_all(jobs)
    good, negative, diverged, both = jobs
    check_each([good])
    assert "alpha" in str(negative.error)
    assert "alpha" in str(both.error)
    assert "non-finite" in str(diverged.error)


def test_each_fit_warns_as_it_would_alone():
    jobs = jobs_of(MLPClassifier(**SMALL), {"alpha": [1e-4, 1e-2]})
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit_all(jobs)
    told = [warning for warning in caught if warning.category is ConvergenceWarning]
    assert len(told) == len(jobs)
    assert "Maximum iterations (6) reached" in str(told[0].message)


def test_without_a_seed_all_networks_differ():
    jobs = jobs_of(MLPClassifier(**{**SMALL, "random_state": None}), {}, folds=FOLDS[:1] * 3)
    fit_all(jobs)
    first, second, third = (job.estimator.coefs_[0] for job in jobs)
    assert not np.allclose(first, second)
    assert not np.allclose(second, third)


def test_all_are_told_of(alone):
    jobs = jobs_of(MLPClassifier(**SMALL), {"max_iter": [2, 5], "solver": ["adam", "lbfgs"]})
    finished, epochs = [], []
    fit_all(jobs, after_stack=finished.extend, after_epoch=epochs.extend)
    assert {id(job) for job in finished} == {id(job) for job in jobs}
    for job in jobs:
        if job.estimator.solver == "adam":
            assert epochs.count(job) == job.estimator.n_iter_
        assert job.seconds > 0.0


@pytest.mark.parametrize(
    ("estimator", "reason"),
    [
        (MLPClassifier(), None),
        (MLPRegressor(solver="lbfgs"), "lbfgs"),
        (MLPClassifier(callbacks=[print]), "callbacks"),
        (MLPClassifier(early_stopping=True, scoring="f1_macro"), "scoring"),
        (MLPClassifier(track_scores=True), "track_scores"),
        (MLPClassifier(verbose=True), "verbose"),
        (MLPClassifier(activation=(lambda xp, z: z, lambda xp, z, a: z)), "functions"),
        (type("Own", (MLPClassifier,), {})(), "Own"),
    ],
)
def test_what_is_stackable(estimator, reason):
    found = stackable(estimator)
    assert found is None if reason is None else reason in found


@pytest.mark.parametrize("fits", [2, 1])
def test_stacks_that_dont_fit_the_memory_are_divided(fits, monkeypatch, alone):
    run = StackedFit.run

    def short(self, *arguments):
        if len(self._prepared) > fits:
            run(self, *arguments)  # after all the work
            raise MemoryError
        return run(self, *arguments)

    monkeypatch.setattr(StackedFit, "run", short)
    grid = {"alpha": [1e-4, 1e-3, 1e-2], "random_state": [0, np.random.RandomState(3)]}
    jobs = jobs_of(MLPClassifier(**SMALL), grid, folds=FOLDS[:1])
    with pytest.warns(RuntimeWarning, match="A stack of 3 networks didn.t fit the memory"):
        fit_all(jobs, stack_size=6)
    assert not alone
    check_each(jobs)


def test_a_network_that_doesnt_fit_the_memory_before_it_is_trained_is_named(monkeypatch):
    draw = MLPClassifier._draw

    def short(self, place):
        if self.hidden_layer_sizes != (6,):
            raise MemoryError("Unable to allocate")
        draw(self, place)

    monkeypatch.setattr(MLPClassifier, "_draw", short)
    jobs = jobs_of(MLPClassifier(**SMALL), {"hidden_layer_sizes": [(6,), (60,)]}, folds=FOLDS[:1])
    fit_all(jobs)
    assert jobs[0].error is None
    assert "layers [64, 60, 10], 4,510 parameters, doesn't fit the memory" in str(jobs[1].error)


def test_a_network_that_doesnt_fit_the_memory_is_named(monkeypatch):
    def short(self, *arguments):
        raise MemoryError

    monkeypatch.setattr(StackedFit, "run", short)
    jobs = jobs_of(MLPClassifier(**SMALL), {"alpha": [1e-4, 1e-3]}, folds=FOLDS[:1])
    with pytest.warns(RuntimeWarning):
        fit_all(jobs)
    for job in jobs:
        assert isinstance(job.error, MemoryError)
        assert "layers [64, 6, 10], 460 parameters, doesn't fit the memory" in str(job.error)
