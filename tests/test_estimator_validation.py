"""Validation data of one's own, and scorers."""

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from estimator_helpers import (
    NAMES,
    X_DIABETES,
    X_IRIS,
    Y_DIABETES,
    Y_IRIS,
    assert_same,
    classifier,
    regressor,
)
from sklearn.base import clone
from sklearn.model_selection import train_test_split

from gpunet.backend import backend_of

pytestmark = [
    pytest.mark.usefixtures("on_numpy", "finding_classes"),
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
]


class TestValidationData:
    def test_is_what_a_split_would_be(self):
        y = Y_IRIS[:100]
        X, X_val, y, y_val = train_test_split(X_IRIS, Y_IRIS, random_state=1)
        ours = classifier(early_stopping=True, max_iter=40).fit(X, y, X_val=X_val, y_val=y_val)
        assert len(ours.validation_scores_) == ours.n_iter_
        assert ours.t_ == 112 * ours.n_iter_  # nothing is set aside
        assert max(ours.validation_scores_) == ours.best_validation_score_
        assert ours.score(X_val, y_val) == ours.best_validation_score_  # the best are restored

    def test_without_early_stopping_it_is_only_watched(self):
        settings = {"max_iter": 5}
        watched = classifier(**settings).fit(X_IRIS, NAMES, X_val=X_IRIS[::2], y_val=NAMES[::2])
        assert_same(watched, classifier(**settings).fit(X_IRIS, NAMES))
        assert watched.validation_scores_ is None
        assert watched.history_[-1]["validation_score"] == watched.score(X_IRIS[::2], NAMES[::2])

    @pytest.mark.parametrize("kind", ["frame", "sparse", "list"])
    def test_kinds_of_data(self, kind):
        as_kind = {
            "frame": lambda X: pd.DataFrame(X, columns=list("abcd")),
            "sparse": scipy.sparse.csr_array,
            "list": np.ndarray.tolist,
        }[kind]
        X, more = as_kind(X_IRIS), as_kind(X_IRIS[::3])
        ours = classifier(early_stopping=True, scoring="accuracy", max_iter=3)
        ours.fit(X, NAMES, X_val=more, y_val=NAMES[::3])
        plain = clone(ours).fit(X_IRIS, NAMES, X_val=X_IRIS[::3], y_val=NAMES[::3])
        assert ours.validation_scores_ == plain.validation_scores_

    def test_on_every_backend(self, backend):
        X, y = backend.asarray(X_IRIS), backend.asarray(Y_IRIS)
        more = {"X_val": X[:40, :], "y_val": y[:40]}
        settings = {"early_stopping": True, "max_iter": 4, "track_scores": True}
        ours = classifier(**settings).fit(X, y, **more)
        host = {"X_val": X_IRIS[:40], "y_val": Y_IRIS[:40]}
        expected = classifier(**settings).fit(X_IRIS, Y_IRIS, **host)
        np.testing.assert_allclose(ours.validation_scores_, expected.validation_scores_)
        names = ("loss", "score", "validation_loss", "validation_score")
        for a, b in zip(ours.history_, expected.history_, strict=True):
            np.testing.assert_allclose([a[n] for n in names], [b[n] for n in names], atol=1e-7)

    def test_several_targets(self):
        y = np.column_stack([Y_DIABETES, Y_DIABETES])
        ours = regressor(early_stopping=True, max_iter=3)
        ours.fit(X_DIABETES, y, X_val=X_DIABETES[:50], y_val=y[:50])
        assert ours.best_validation_score_ == pytest.approx(ours.score(X_DIABETES[:50], y[:50]))
        with pytest.raises(ValueError, match="y_val has 1 outputs, but y has 2"):
            ours.fit(X_DIABETES, y, X_val=X_DIABETES[:50], y_val=y[:50, 0])

    @pytest.mark.parametrize(
        ("more", "message"),
        [
            ({"X_val": X_IRIS}, "X_val was given without y_val"),
            ({"y_val": NAMES}, "y_val was given without X_val"),
            ({"X_val": X_IRIS[:, :3], "y_val": NAMES}, "X_val: X has 3 features"),
            ({"X_val": X_IRIS[:9], "y_val": NAMES[:8]}, "y_val: .*inconsistent"),
            ({"X_val": X_IRIS[:2], "y_val": ["rosa", "setosa"]}, "y_val has classes .*rosa"),
            ({"X_val": X_IRIS, "y_val": np.eye(150, 3, dtype=int)}, "y_val has classes"),
            ({"X_val": np.full((2, 4), np.nan), "y_val": NAMES[:2]}, "X_val: .*NaN"),
        ],
    )
    def test_bad_data(self, more, message):
        with pytest.raises(ValueError, match=message):
            classifier().fit(X_IRIS, NAMES, **more)

    def test_another_place(self, backend):
        if backend.name == "numpy":
            pytest.skip("NumPy arrays are host data")
        X, y = backend.asarray(X_IRIS), backend.asarray(Y_IRIS)
        with pytest.raises(ValueError, match="X_val is on the host, but X is on"):
            classifier().fit(X, y, X_val=X_IRIS, y_val=Y_IRIS)
        with pytest.raises(ValueError, match=r"X_val is on .*, but X is on the host"):
            classifier().fit(X_IRIS, Y_IRIS, X_val=X, y_val=y)

    def test_lbfgs_refuses(self):
        with pytest.raises(ValueError, match=r"solver='lbfgs'.*X_val"):
            classifier(solver="lbfgs").fit(X_IRIS, Y_IRIS, X_val=X_IRIS, y_val=Y_IRIS)


class TestScoring:
    def test_accuracy_is_the_default(self):
        settings = {"early_stopping": True, "max_iter": 30}
        ours = classifier(scoring="accuracy", **settings).fit(X_IRIS, NAMES)
        expected = classifier(**settings).fit(X_IRIS, NAMES)
        assert_same(ours, expected)
        assert ours.validation_scores_ == pytest.approx(expected.validation_scores_)

    def test_a_names_own_score(self):
        ours = classifier(early_stopping=True, scoring="neg_log_loss").fit(X_IRIS, NAMES)
        assert max(ours.validation_scores_) < 0
        assert ours.history_[2]["validation_score"] == ours.validation_scores_[2]

    def test_a_function_sees_the_data_as_given(self):
        seen = []

        def scorer(estimator, X, y):
            seen.append((type(X), list(X.columns), set(y) <= set(NAMES)))
            return float(np.mean(estimator.predict(X) == y))

        frame = pd.DataFrame(X_IRIS, columns=list("abcd"))
        classifier(early_stopping=True, scoring=scorer, max_iter=2).fit(frame, NAMES)
        assert seen == [(pd.DataFrame, list("abcd"), True)] * 2

    def test_sees_arrays_where_they_are(self, backend):
        places = []

        def scorer(estimator, X, y):
            owners = [backend_of([array]) for array in (X, estimator.predict(X))]
            places.extend(owner and owner.spec for owner in owners)
            return 1.0

        X, y = backend.asarray(X_IRIS), backend.asarray(Y_IRIS)
        classifier(early_stopping=True, scoring=scorer, max_iter=1).fit(X, y)
        assert places == [None if backend.name == "numpy" else backend.spec] * 2

    def test_unknown(self):
        with pytest.raises(ValueError, match="scoring"):
            classifier(scoring="luck").fit(X_IRIS, Y_IRIS)
