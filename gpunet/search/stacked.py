"""What the searches share: scikit-learn's fit, with the parallel loop replaced by training all networks together."""

from __future__ import annotations

import time
from collections import defaultdict
from inspect import signature
from numbers import Integral
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.stats import rankdata
from sklearn.base import _fit_context, clone, is_classifier
from sklearn.metrics._scorer import _MultimetricScorer
from sklearn.model_selection._search import BaseSearchCV
from sklearn.model_selection._split import check_cv
from sklearn.model_selection._validation import (
    _insert_error_scores,
    _warn_or_raise_about_fit_failures,
)
from sklearn.utils._param_validation import Interval
from sklearn.utils.validation import _check_method_params, check_is_fitted, indexable

from gpunet.fitting import TrainingInterruptedWarning
from gpunet.notices import warn
from gpunet.search.bar import Silent, search_bar
from gpunet.search.evaluation import Evaluation
from gpunet.search.parts import Given
from gpunet.search.recipes import Recipes, is_watched

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CONSTRAINTS: dict[str, Any] = {
    "stack_size": [Interval(Integral, 1, None, closed="left"), None],
    "progress": ["boolean"],
}


_REMEDY = "clone(search.estimator).set_params(**search.best_params_).fit(X, y) does it."


class _Interrupted(Exception):  # noqa: N818  # no error: it leaves scikit-learn's loop over candidates
    """Ctrl-C was pressed; what is known by then is kept."""


class StackedSearch(BaseSearchCV):  # type: ignore[misc]  # scikit-learn has no types
    """What the three searches share: `fit`, which trains all candidates on all splits at once, and pictures.

    Attributes
    ----------
    learning_curves_ : list of dict
        Of each network: ``candidate``, its index in ``cv_results_``; ``split``; ``loss_curve`` and, with early
        stopping, ``validation_scores`` (otherwise None) as NumPy arrays (n_epochs,); ``stopped_early``, whether it
        ended before ``max_iter``.
    """

    stack_size: int | None = None
    progress: bool = False

    # of the last fit
    _interrupted: bool = False  # Ctrl-C was pressed
    _cut: bool = False  # and so rounds were left out
    _some_complete: bool = True  # a candidate was finished on every split, or nothing is missing
    _rounds: list[tuple[int, int]]  # of each that was kept: fits that are missing, and all

    @_fit_context(prefer_skip_nested_validation=False)  # type: ignore[untyped-decorator]
    def fit(self, X: Any, y: Any = None, **params: Any) -> Any:
        """Train and score all candidates on all splits, then refit the best one on all data.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
        **params : dict
            For the estimator, the scorer and the splitter, as in scikit-learn: ``sample_weight``, ``groups``.

        Returns
        -------
        StackedSearch
            Itself.

        Warns
        -----
        TrainingInterruptedWarning
            After Ctrl-C, which leaves the search with the candidates that were finished, and without a refit.

        Raises
        ------
        KeyboardInterrupt
            If by then not one fit was finished.
        """
        # This follows BaseSearchCV.fit of scikit-learn 1.9; `_evaluate` is in the place of its parallel loop.
        scorers, refit_metric = self._get_scorers()
        X, y = indexable(X, y)
        params = _check_method_params(X, params=params)
        routed = self._get_routed_params_for_fit(params)
        weights = params.get("sample_weight")
        metadata = None if weights is None else {"sample_weight": weights}
        about = {"estimator": self, "X": X, "y": y, "metadata": metadata}
        root = self._init_callback_context(max_subtasks=1 + (self.refit is not False))
        root.call_on_fit_task_begin(**about)

        self._checked_cv_orig = check_cv(self.cv, y, classifier=is_classifier(self.estimator))
        self._check_input_parameters(X=X, y=y, split_params=routed.splitter.split)
        self.n_splits_ = self._checked_cv_orig.get_n_splits(X, y, **routed.splitter.split)
        base = clone(self.estimator)
        given = Given(self.estimator, X, y, routed.estimator.fit, routed.scorer.score)

        refit = self.refit
        with search_bar(refit, enabled=self.progress) as bar:
            results, first = self._searched(
                given, base=base, scorers=scorers, routed=routed, root=root, bar=bar
            )
        if not self._some_complete:
            _average_what_is_done(results, self.n_splits_)
        self.multimetric_ = isinstance(first, dict)  # a callable's scores are known only now
        if callable(self.scoring) and self.multimetric_:
            self._check_refit_for_multimetric(first)
            refit_metric = refit
        if refit or not self.multimetric_:
            self._choose(results, refit_metric)
        if refit and not self._interrupted:
            try:
                self._refit_best(base, routed.estimator.fit, root, about)
            except KeyboardInterrupt:  # the scores aren't to be lost for it
                self._interrupted = True
        if self._interrupted:
            self._warn_of_interruption()
        self.scorer_ = scorers._scorers if isinstance(scorers, _MultimetricScorer) else scorers
        self.cv_results_ = results
        root.call_on_fit_task_end(**about)
        return self

    def _searched(
        self, given: Given, *, base: Any, scorers: Any, routed: Any, root: Any, bar: Silent
    ) -> tuple[dict[str, Any], Any]:
        """Return ``cv_results_``, and the first candidate's first score."""
        reason = "callbacks" if is_watched(self) else None
        if given.y is None:
            reason = "no y"
        recipes = Recipes(base, reason, given.fit_params)
        all_params: list[Any] = []
        all_out: list[Any] = []
        all_more: dict[str, list[Any]] = defaultdict(list)
        results: dict[str, Any] = {}
        self.learning_curves_: list[dict[str, Any]] = []
        self._interrupted, self._cut, self._some_complete, self._rounds = False, False, True, []

        def evaluate_candidates(
            candidate_params: Any,
            cv: Any = None,
            more_results: Any = None,
            callback_ctx: Any = None,
        ) -> dict[str, Any]:
            if self._interrupted:
                raise _Interrupted  # only now is it known that something was left to do
            candidates = list(candidate_params)
            splits = self._splits(cv or self._checked_cv_orig, given, routed)
            n_splits, n_fits = self.n_splits_, len(candidates) * self.n_splits_
            if self.verbose > 0:
                print(  # noqa: T201
                    f"Fitting {n_splits} folds for each of {len(candidates)} candidates, totalling {n_fits} fits"
                )
            evaluation = Evaluation(
                self, given, base=base, scorer=scorers, recipes=recipes, bar=bar
            )
            out = evaluation(candidates, splits, callback_ctx)
            if not out:
                raise ValueError(
                    "No fits were performed. Was the CV iterator empty? Were there no candidates?"
                )
            self._interrupted = evaluation.interrupted
            if evaluation.missing == n_fits and not all_out:
                raise KeyboardInterrupt(
                    "The search was interrupted before the first fit was finished: there are no results."
                )
            if all_out and not evaluation.some_complete:
                raise _Interrupted  # successive halving has an earlier round to choose from
            _warn_or_raise_about_fit_failures(evaluation.finished, self.error_score)
            if callable(self.scoring):
                _insert_error_scores(out, self.error_score)
            for curve in evaluation.curves:
                curve["candidate"] += len(all_params)
            self.learning_curves_ += evaluation.curves
            all_params.extend(candidates)
            all_out.extend(out)
            for key, value in (more_results or {}).items():
                all_more[key].extend(value)
            nonlocal results
            results = self._format_results(all_params, n_splits, all_out, all_more)
            self._rounds.append((evaluation.missing, n_fits))
            self._some_complete = evaluation.some_complete
            return results

        try:
            if "callback_ctx" in signature(self._run_search).parameters:
                self._run_search(evaluate_candidates, callback_ctx=root)
            else:  # a subclass's own
                self._run_search(evaluate_candidates)
        except (_Interrupted, KeyboardInterrupt):  # the second: while candidates are drawn or split
            if not results:
                raise
            self._end_early()
        return results, all_out[0]["test_scores"]

    def _splits(self, cv: Any, given: Given, routed: Any) -> list[Any]:
        """Return the indices of all splits' rows."""
        splits = list(cv.split(given.X, given.y, **routed.splitter.split))
        if len(splits) != self.n_splits_:
            raise ValueError(
                "cv.split and cv.get_n_splits return inconsistent results. "
                f"Expected {self.n_splits_} splits, got {len(splits)}"
            )
        return splits

    def _end_early(self) -> None:
        """Note that Ctrl-C has left out rounds, and set what ``_run_search`` would have set at its end."""
        self._interrupted = self._cut = True

    def _choose(self, results: dict[str, Any], metric: Any) -> None:
        """Set ``best_index_`` and what follows from it."""
        self.best_index_ = self._select_best_index(self.refit, metric, results)
        if not callable(self.refit):
            self.best_score_ = results[f"mean_test_{metric}"][self.best_index_]
        self.best_params_ = results["params"][self.best_index_]

    @property
    def best_estimator_(self) -> Any:
        """The best candidate, fitted to all data; not after Ctrl-C."""
        if "best_estimator_" not in self.__dict__:
            text = f"{type(self).__name__!r} object has no attribute 'best_estimator_'"
            if self.refit and self._interrupted:
                text += f", since the search was interrupted: the best candidate was not refitted. {_REMEDY}"
            raise AttributeError(text)
        return self.__dict__["best_estimator_"]

    @best_estimator_.setter
    def best_estimator_(self, fitted: Any) -> None:
        self.__dict__["best_estimator_"] = fitted

    def _refit_best(self, base: Any, fit_params: Any, root: Any, about: dict[str, Any]) -> None:
        """Fit the best candidate to all data."""
        self.best_estimator_ = clone(base).set_params(**clone(self.best_params_, safe=False))
        context = root.subcontext(task_name="refit-with-best-params")
        data = (about["X"],) if about["y"] is None else (about["X"], about["y"])
        with context.propagate_callback_context(self.best_estimator_):
            context.call_on_fit_task_begin(**about)
            started = time.time()
            self.best_estimator_.fit(*data, **fit_params)
            self.refit_time_ = time.time() - started
        if hasattr(self.best_estimator_, "feature_names_in_"):
            self.feature_names_in_ = self.best_estimator_.feature_names_in_
        context.call_on_fit_task_end(**about)

    def _warn_of_interruption(self) -> None:
        """Say what is missing after Ctrl-C; an earlier fit's best estimator isn't this one's."""
        for name in ("best_estimator_", "refit_time_"):
            self.__dict__.pop(name, None)
        text = "The search was interrupted"
        rounds, (missing, n) = len(self._rounds), self._rounds[-1]
        if missing:
            last = " of the last round" if rounds > 1 else ""
            text += f": {missing} of {n} fits{last} are missing, and their scores are NaN."
        elif not self._cut:
            text += " when all fits were finished."
        else:
            text += "."
        if self._cut:
            kept = "round" if rounds == 1 else f"{rounds} rounds"
            text += f" `cv_results_` has the first {kept} only."
        if not self._some_complete:
            text += (
                " No candidate was finished on every split: mean scores are over the splits that were, and the best "
                "is chosen by them."
            )
        if self.refit:
            text += f" The best candidate was not refitted. {_REMEDY}"
        warn(text, TrainingInterruptedWarning)

    def plot(
        self, kind: str | None = None, ax: Axes | None = None, *, metric: str | None = None
    ) -> Axes:
        """Draw the scores of the candidates, or their learning curves; needs matplotlib.

        Parameters
        ----------
        kind : {'line', 'heatmap', 'parallel', 'curves'}, optional
            One searched parameter along a line, two as a heat map, any number on parallel axes; 'curves' are the
            learning curves. None goes by how many parameters there are.
        ax : matplotlib Axes, optional
            Where to draw; None makes a new Figure.
        metric : str, optional
            Which of several scores; None is the one that ``refit`` names, or the first.

        Returns
        -------
        Axes
        """
        from gpunet.search.pictures import draw  # only for those who draw

        check_is_fitted(self)
        return draw(self, kind, ax, metric)


def _average_what_is_done(results: dict[str, Any], n_splits: int) -> None:
    """Set mean scores and ranks by the splits that are done, of the candidates with most of them.

    Stacks may go split by split, and then these are the same splits.
    """
    for key in [key for key in results if key.startswith(("mean_test_", "mean_train_"))]:
        name = key.removeprefix("mean_")
        scores = np.stack([results[f"split{i}_{name}"] for i in range(n_splits)])
        done = np.sum(~np.isnan(scores), axis=0)
        most = done == max(done.max(), 1)
        results[f"mean_{name}"][most] = np.nanmean(scores[:, most], axis=0)
        results[f"std_{name}"][most] = np.nanstd(scores[:, most], axis=0)
        if f"rank_{name}" in results:
            worst_last = np.where(most, -results[f"mean_{name}"], np.inf)
            results[f"rank_{name}"] = rankdata(worst_last, method="min").astype(np.int32)
