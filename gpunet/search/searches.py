"""The searches: scikit-learn's, whose candidates are networks trained together."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np
from sklearn import model_selection
from sklearn.model_selection import _search_successive_halving as successive_halving

from gpunet.search.stacked import CONSTRAINTS, StackedSearch

_DOCUMENTATION = """The parameters, attributes and methods of `sklearn.model_selection.{name}`, and the same results.
    All candidates are trained on all splits at once, those of a shape as stacks of networks. Any other estimator
    is searched as by scikit-learn.

    Parameters
    ----------
    estimator : MLPClassifier, MLPRegressor or Pipeline
        gpunet's estimator, or a pipeline that ends with one.
    {parameters}
    n_jobs : int, default=None
        How many threads train stacks side by side; None takes one for each core. gpunet's networks that are for no
        stack are fitted one after the other. Of what is left to scikit-learn, how many are fitted at once, as there.
    stack_size : int, default=None
        How many networks are trained as one; None finds it.
    progress : bool, default=False
        Show a progress bar, if there is a terminal.

    Attributes
    ----------
    cv_results_, best_params_, best_score_, best_index_, best_estimator_, refit_time_, ...
        As in scikit-learn. A network's ``fit_time`` is its share of the time of its stack.
    learning_curves_ : list of dict
        Of each network: ``candidate``, its index in ``cv_results_``; ``split``; ``loss_curve`` and, with early
        stopping, ``validation_scores`` (otherwise None) as NumPy arrays (n_epochs,); ``stopped_early``, whether it
        ended before ``max_iter``."""


class GridSearchCV(model_selection.GridSearchCV, StackedSearch):  # type: ignore[misc]
    """Exhaustive search over a grid of parameters: scikit-learn's, with the networks trained together.

    {documentation}

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from gpunet import GridSearchCV, MLPClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> network = MLPClassifier((10,), learning_rate_init=0.05, tol=1e-3, random_state=0)
    >>> search = GridSearchCV(network, {{"alpha": [1e-4, 1.0, 100.0]}}, cv=3).fit(X, y)
    >>> bool(search.best_score_ > 0.95), search.best_params_["alpha"] < 100
    (True, True)
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **model_selection.GridSearchCV._parameter_constraints,
        **CONSTRAINTS,
    }

    def __init__(
        self,
        estimator: Any,
        param_grid: Any,
        *,
        scoring: Any = None,
        n_jobs: int | None = None,
        refit: Any = True,
        cv: Any = None,
        verbose: int = 0,
        pre_dispatch: int | str = "2*n_jobs",
        error_score: Any = np.nan,
        return_train_score: bool = False,
        stack_size: int | None = None,
        progress: bool = False,
    ) -> None:
        super().__init__(
            estimator,
            param_grid,
            scoring=scoring,
            n_jobs=n_jobs,
            refit=refit,
            cv=cv,
            verbose=verbose,
            pre_dispatch=pre_dispatch,
            error_score=error_score,
            return_train_score=return_train_score,
        )
        self.stack_size = stack_size
        self.progress = progress


class RandomizedSearchCV(model_selection.RandomizedSearchCV, StackedSearch):  # type: ignore[misc]
    """Search over parameters drawn at random: scikit-learn's, with the networks trained together.

    {documentation}

    Examples
    --------
    >>> from scipy.stats import loguniform
    >>> from sklearn.datasets import load_iris
    >>> from gpunet import MLPClassifier, RandomizedSearchCV
    >>> X, y = load_iris(return_X_y=True)
    >>> network = MLPClassifier((10,), learning_rate_init=0.05, tol=1e-3, random_state=0)
    >>> drawn = {{"alpha": loguniform(1e-5, 1e-1)}}
    >>> search = RandomizedSearchCV(network, drawn, n_iter=3, cv=3, random_state=0).fit(X, y)
    >>> bool(search.best_score_ > 0.95)
    True
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **model_selection.RandomizedSearchCV._parameter_constraints,
        **CONSTRAINTS,
    }

    def __init__(
        self,
        estimator: Any,
        param_distributions: Any,
        *,
        n_iter: int = 10,
        scoring: Any = None,
        n_jobs: int | None = None,
        refit: Any = True,
        cv: Any = None,
        verbose: int = 0,
        pre_dispatch: int | str = "2*n_jobs",
        random_state: Any = None,
        error_score: Any = np.nan,
        return_train_score: bool = False,
        stack_size: int | None = None,
        progress: bool = False,
    ) -> None:
        super().__init__(
            estimator,
            param_distributions,
            n_iter=n_iter,
            scoring=scoring,
            n_jobs=n_jobs,
            refit=refit,
            cv=cv,
            verbose=verbose,
            pre_dispatch=pre_dispatch,
            random_state=random_state,
            error_score=error_score,
            return_train_score=return_train_score,
        )
        self.stack_size = stack_size
        self.progress = progress


class HalvingGridSearchCV(successive_halving.HalvingGridSearchCV, StackedSearch):  # type: ignore[misc]
    """Search over a grid by successive halving: scikit-learn's, with each round's networks trained together.

    Unlike scikit-learn's it needs no `sklearn.experimental` import.

    {documentation}

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from gpunet import HalvingGridSearchCV, MLPClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> network = MLPClassifier((10,), learning_rate_init=0.05, tol=1e-3, random_state=0)
    >>> grid = {{"alpha": [1e-4, 1e-2, 1.0, 100.0]}}
    >>> search = HalvingGridSearchCV(network, grid, cv=3, random_state=0).fit(X, y)
    >>> search.n_candidates_
    [4, 2]
    """

    verbose: int
    n_resources_: list[int]
    n_candidates_: list[int]
    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **successive_halving.HalvingGridSearchCV._parameter_constraints,
        **CONSTRAINTS,
    }

    def __init__(
        self,
        estimator: Any,
        param_grid: Any,
        *,
        factor: float = 3,
        resource: str = "n_samples",
        max_resources: int | str = "auto",
        min_resources: int | str = "exhaust",
        aggressive_elimination: bool = False,
        cv: Any = 5,
        scoring: Any = None,
        refit: Any = True,
        error_score: Any = np.nan,
        return_train_score: bool = True,
        random_state: Any = None,
        n_jobs: int | None = None,
        verbose: int = 0,
        stack_size: int | None = None,
        progress: bool = False,
    ) -> None:
        super().__init__(
            estimator,
            param_grid,
            factor=factor,
            resource=resource,
            max_resources=max_resources,
            min_resources=min_resources,
            aggressive_elimination=aggressive_elimination,
            cv=cv,
            scoring=scoring,
            refit=refit,
            error_score=error_score,
            return_train_score=return_train_score,
            random_state=random_state,
            n_jobs=n_jobs,
            verbose=verbose,
        )
        self.stack_size = stack_size
        self.progress = progress

    def _run_search(self, evaluate_candidates: Any, *, callback_ctx: Any) -> None:
        verbose = self.verbose

        def evaluated(*arguments: Any, **settings: Any) -> dict[str, Any]:
            results: dict[str, Any] = evaluate_candidates(*arguments, **settings)
            if self._interrupted:
                self.verbose = 0  # scikit-learn would announce a round that doesn't begin
            return results

        try:
            super()._run_search(evaluated, callback_ctx=callback_ctx)
        finally:
            self.verbose = verbose

    def _end_early(self) -> None:
        super()._end_early()
        rounds, factor = len(self._rounds), self.factor
        self.n_resources_ = self.n_resources_[:rounds]
        self.n_candidates_ = self.n_candidates_[:rounds]
        self.n_iterations_ = rounds
        self.n_remaining_candidates_ = math.ceil(self.n_candidates_[-1] / factor)
        # as in BaseSuccessiveHalving._run_search of scikit-learn 1.9, which sets them after its last round
        self.n_required_iterations_ = 1 + math.floor(math.log(self.n_candidates_[0], factor))
        possible = math.log(self.max_resources_ // self.min_resources_, factor)
        self.n_possible_iterations_ = 1 + math.floor(possible)


def _document(search: type[StackedSearch], parameters: str) -> None:
    text = _DOCUMENTATION.format(name=search.__name__, parameters=parameters)
    search.__doc__ = (search.__doc__ or "").format(documentation=text)


_GRID = """param_grid : dict or list of dict
        The values of each parameter to try; a list of grids tries each of them."""
_document(GridSearchCV, _GRID)
_document(HalvingGridSearchCV, _GRID)
_document(
    RandomizedSearchCV,
    """param_distributions : dict or list of dict
        The values of each parameter, or a distribution with ``rvs`` to draw them from.
    n_iter : int, default=10
        How many candidates are drawn.""",
)
