"""All candidates of a search on all splits: networks are trained together, what remains is left to scikit-learn."""

from __future__ import annotations

import contextlib
import math
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from traceback import format_exception
from typing import Any

import numpy as np
from joblib import effective_n_jobs
from sklearn.base import clone
from sklearn.model_selection._validation import _fit_and_score
from sklearn.utils.parallel import Parallel, delayed

from gpunet.estimators import together
from gpunet.estimators.perceptron import BasePerceptron
from gpunet.estimators.prepared import Preparation
from gpunet.estimators.together import Job
from gpunet.runs import Interruption
from gpunet.search.bar import Silent
from gpunet.search.parts import Given, Split, TransformedSplit
from gpunet.search.recipes import Params, Recipe, Recipes
from gpunet.search.scoring import Judge
from gpunet.search.words import end_of, start_of, summary
from gpunet.sparse import is_sparse

Result = dict[str, Any]
"""What scikit-learn's ``_fit_and_score`` returns."""


@dataclass(eq=False)
class Task:
    """One candidate on one split.

    Attributes
    ----------
    index, candidate, split : int
        Its place in the results, and which candidate on which split it is.
    params : dict
    data : Split, optional
        Where it is trained with others; None leaves it to scikit-learn.
    """

    index: int
    candidate: int
    split: int
    params: Params
    data: Split | None = None


class Evaluation:
    """Fits and scores candidates on splits.

    Parameters
    ----------
    search : BaseSearchCV
        Its settings.
    given : Given
    base : estimator
        The search's, cloned.
    scorer : callable
    recipes : Recipes
    bar : Silent
        Is told how it goes.

    Attributes
    ----------
    curves : list of dict
        What `StackedSearch.learning_curves_` describes.
    interrupted : bool
        Whether Ctrl-C was pressed, be it when all fits were finished.
    missing : int
        Fits that Ctrl-C has prevented.
    """

    def __init__(
        self,
        search: Any,
        given: Given,
        *,
        base: Any,
        scorer: Any,
        recipes: Recipes,
        bar: Silent,
    ) -> None:
        self._search, self._given, self._base, self._scorer = search, given, base, scorer
        self._recipes, self._bar = recipes, bar
        self._judge = Judge(scorer, search.error_score)
        self.curves: list[dict[str, Any]] = []
        self.interrupted, self.missing = False, 0
        self._out: list[Result | None] = []

    def __call__(
        self, candidates: Sequence[Params], splits: Sequence[tuple[Any, Any]], context: Any
    ) -> list[Result]:
        """Return the results, those of a candidate side by side, in scikit-learn's order."""
        self._n_candidates, self._n_splits = len(candidates), len(splits)
        self._out = [None] * (len(candidates) * len(splits))
        self._bar.plan(len(self._out))
        self.interrupted = True  # if what follows doesn't come to its end
        # raised after the first Ctrl-C between two fits, after the second one anywhere, or in another process
        with contextlib.suppress(KeyboardInterrupt), Interruption() as interruption:
            self._fit(candidates, splits, context, interruption)
            self.interrupted = interruption.requested
        return self._filled()

    def _fit(
        self,
        candidates: Sequence[Params],
        splits: Sequence[tuple[Any, Any]],
        context: Any,
        interruption: Interruption,
    ) -> None:
        """Fit and score all there is, as long as nobody interrupts."""
        tasks, alone, reasons = self._plan(candidates, splits, interruption)
        jobs = self._jobs(tasks)
        if self._search.verbose > 0 and self._out:
            self._say(jobs, reasons)
        n_jobs = self._search.n_jobs
        interruption.check()
        together.fit_all(
            jobs,
            n_jobs=None if n_jobs is None else effective_n_jobs(n_jobs),
            stack_size=self._search.stack_size,
            after_stack=self._finish,
            after_epoch=self._bar.after_epoch,
        )
        interruption.check()
        self._fit_alone(alone, splits, context, interruption)

    def _plan(
        self,
        candidates: Sequence[Params],
        splits: Sequence[tuple[Any, Any]],
        interruption: Interruption,
    ) -> tuple[list[tuple[Task, Any]], list[Task], Counter[str]]:
        """Return tasks with their unfitted networks, the tasks that are scikit-learn's, and why they are."""
        rows = [Split(self._given, i, train, test) for i, (train, test) in enumerate(splits)]
        parts: dict[tuple[Split, Recipe], Split] = {}
        ours, alone, reasons = [], [], Counter[str]()
        for candidate, params in enumerate(candidates):
            recipe = self._recipes.of(params)
            for split in rows:
                task = Task(candidate * len(splits) + split.index, candidate, split.index, params)
                if isinstance(recipe, str):
                    alone.append(task)
                    reasons[recipe] += 1
                    continue
                how, own = recipe
                if (split, how) not in parts:
                    parts[split, how] = TransformedSplit(split, how) if how.pipeline else split
                    interruption.check()
                task.data = parts[split, how]
                task.data.users += 1
                ours.append((task, how.network.with_parameters(own)))
        return ours, alone, reasons

    def _jobs(self, tasks: Sequence[tuple[Task, Any]]) -> list[Job]:
        """Return the jobs of fitting the networks."""
        jobs = []
        for task, estimator in tasks:
            assert task.data is not None
            if self._search.verbose > 9:
                print(start_of(self._place(task), task.params))  # noqa: T201
            jobs.append(task.data.job(estimator, task))
        return jobs

    def _finish(self, jobs: Sequence[Job]) -> None:
        """Score what has just been fitted, and let it go."""
        by_split: dict[Split, list[Job]] = {}
        for job in jobs:
            self._note_curve(job.tag, job.estimator, failed=job.error is not None)
            if job.error is None:
                by_split.setdefault(job.tag.data, []).append(job)
            else:
                error = job.tag.data.error or "".join(format_exception(job.error))
                self._fail(job.tag, error, job.error, job.seconds)
                job.tag.data.scored(1)
        for split, fitted in by_split.items():
            estimators = [job.estimator for job in fitted]
            started = time.perf_counter()
            test_scores = self._judge.scores(split, estimators, "test")
            seconds = (time.perf_counter() - started) / len(fitted)
            train_scores = (
                self._judge.scores(split, estimators, "train")
                if self._search.return_train_score
                else test_scores
            )
            for job, test, train in zip(fitted, test_scores, train_scores, strict=True):
                self._keep(job.tag, test, train, fit_seconds=job.seconds, score_seconds=seconds)
            split.scored(len(fitted))
        for job in jobs:
            job.estimator = None  # thousands of them would fill the memory

    def _fail(
        self, task: Task, error: str, exception: Exception | None, fit_seconds: float
    ) -> None:
        if self._search.error_score == "raise":
            assert exception is not None
            raise exception
        score = self._judge.failed()
        self._keep(task, score, score, fit_seconds=fit_seconds, error=error)

    def _keep(
        self,
        task: Task,
        test: Any,
        train: Any,
        *,
        fit_seconds: float,
        score_seconds: float = 0.0,
        error: str | None = None,
    ) -> None:
        data = task.data
        assert data is not None
        result: Result = {
            "fit_error": error,
            "test_scores": test,
            "n_test_samples": data.n_test,
            "fit_time": fit_seconds + data.seconds / data.users,
            "score_time": score_seconds,
        }
        if self._search.return_train_score:
            result["train_scores"] = train.copy() if isinstance(train, dict) else train
        self._out[task.index] = result
        self._bar.finished(task, self._n_splits, test)
        if self._search.verbose > 1:
            with_scores = self._search.verbose > 2
            print(end_of(self._place(task), task.params, result, scores=with_scores))  # noqa: T201

    def _fit_alone(
        self,
        tasks: Sequence[Task],
        splits: Sequence[tuple[Any, Any]],
        context: Any,
        interruption: Interruption,
    ) -> None:
        """Let scikit-learn fit and score what can't be taken apart."""
        if not tasks:
            return
        search, given = self._search, self._given
        fitted_too = isinstance(_last_step(self._base), BasePerceptron)
        contexts = [
            context
            and context.subcontext(task_name="candidate-split-evaluation", task_id=task.index)
            for task in tasks
        ]
        parallel = Parallel(
            n_jobs=search.n_jobs, pre_dispatch=search.pre_dispatch, return_as="generator"
        )
        results = parallel(
            delayed(_fit_and_score)(
                clone(self._base),
                given.X,
                given.y,
                train=splits[task.split][0],
                test=splits[task.split][1],
                parameters=task.params,
                split_progress=(task.split, self._n_splits),
                candidate_progress=(task.candidate, self._n_candidates),
                scorer=self._scorer,
                fit_params=given.fit_params,
                score_params=given.score_params,
                return_train_score=search.return_train_score,
                return_n_test_samples=True,
                return_times=True,
                return_estimator=fitted_too,
                error_score=search.error_score,
                verbose=search.verbose,
                caller=search,
                callback_ctx=task_context,
            )
            for task, task_context in zip(tasks, contexts, strict=True)
        )
        for task, result in zip(tasks, results, strict=True):
            interruption.check()  # this fit may have been cut short
            failed = result["fit_error"] is not None
            if fitted_too:
                self._note_curve(task, _last_step(result.pop("estimator")), failed=failed)
            self._out[task.index] = result
            self._bar.finished(task, self._n_splits, result["test_scores"])

    def _filled(self) -> list[Result]:
        """Return all results; those that Ctrl-C has prevented are NaN."""
        done = self.finished
        self.missing = len(self._out) - len(done)
        if not self.missing:
            return done
        score: Any = math.nan
        good = (result["test_scores"] for result in done if result["fit_error"] is None)
        if isinstance(known := next(good, None), dict):
            score = dict.fromkeys(known, math.nan)
        none: Result = {"fit_error": None, "test_scores": score, "n_test_samples": 0}
        none |= {"fit_time": math.nan, "score_time": math.nan}
        if self._search.return_train_score:
            none["train_scores"] = score
        return [none if result is None else result for result in self._out]

    @property
    def finished(self) -> list[Result]:
        """The results without those that Ctrl-C has prevented."""
        return [result for result in self._out if result is not None]

    @property
    def some_complete(self) -> bool:
        """Whether a candidate was fitted on every split, or at least nothing is missing."""
        n = self._n_splits
        fitted = [result is not None and result["fit_error"] is None for result in self._out]
        return not self.missing or any(
            all(fitted[i * n : (i + 1) * n]) for i in range(self._n_candidates)
        )

    def _note_curve(self, task: Task, estimator: Any, *, failed: bool) -> None:
        losses = getattr(estimator, "loss_curve_", None)
        if not losses:  # L-BFGS
            losses = [record["loss"] for record in getattr(estimator, "history_", ())]
        if not losses:
            return
        scores = getattr(estimator, "validation_scores_", None)
        self.curves.append(
            {
                "candidate": task.candidate,
                "split": task.split,
                "loss_curve": np.asarray(losses),  # a quarter of a list's memory
                "validation_scores": None if scores is None else np.asarray(scores),
                "stopped_early": not failed and estimator.n_iter_ < estimator.max_iter,
            }
        )

    def _say(self, jobs: Sequence[Job], reasons: Counter[str]) -> None:
        """Print how many networks are trained in stacks, and why the others aren't."""
        prepare = Preparation()
        known = (_why_alone(job, prepare) for job in jobs)
        print(summary(len(self._out), reasons + Counter(filter(None, known))))  # noqa: T201

    def _place(self, task: Task) -> str:
        """Return which split and which candidate it is, as far as ``verbose`` says so."""
        verbose, text = self._search.verbose, ""
        if verbose > 2:
            text = f" {task.split + 1}/{self._n_splits}"
        if verbose > 9:
            text += f"; {task.candidate + 1}/{self._n_candidates}"
        return text


def _why_alone(job: Job, prepare: Preparation) -> str | None:
    """Return why a network isn't trained in a stack, as far as is known before; None if it is."""
    reason = together.stackable(job.estimator)
    if reason is None and is_sparse(job.X):
        reason = "sparse examples"
    if reason is None:
        try:
            prepare._parts(job.estimator)
        except Exception:
            reason = "parameters that fit refuses"
    return reason


def _last_step(estimator: Any) -> Any:
    steps = getattr(estimator, "steps", None)
    return steps[-1][1] if steps else estimator
