"""Predictions on the fast path, without `validate_data`, and off it."""

import numpy as np
import pandas as pd
import pytest
from estimator_helpers import X_IRIS, Y_IRIS, classifier, regressor

pytestmark = [
    pytest.mark.usefixtures("on_numpy", "finding_classes"),
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
]


PLAIN = {
    "ints": lambda X: X.astype(int),
    "float32": lambda X: X.astype("float32"),
    "columns": np.asfortranarray,
    "list": lambda X: X.tolist(),
    "list of ints": lambda X: X.astype(int).tolist(),
    "strides": lambda X: np.repeat(X, 2, axis=0)[::2],
    "big-endian": lambda X: X.astype(">f8"),
}


class TestFastPath:
    """One plain row is predicted without `validate_data`; whatever isn't plain gets its messages."""

    @pytest.mark.parametrize(
        ("X", "message"),
        [
            (np.full((1, 4), np.nan), "contains NaN"),
            (np.full((1, 4), np.inf), "contains infinity"),
            (np.ones((1, 3)), "X has 3 features"),
            (np.ones(4), "Expected 2D array"),
            (np.ones((0, 4)), "0 sample"),
        ],
        ids=["NaN", "infinity", "columns", "1-D", "empty"],
    )
    def test_errors(self, X, message):
        ours = classifier().fit(X_IRIS, Y_IRIS)
        with pytest.raises(ValueError, match=message):
            ours.predict(X)

    @pytest.mark.parametrize(
        "X",
        [np.asfortranarray(X_IRIS), X_IRIS.tolist(), np.repeat(X_IRIS, 2, axis=0)[::2]],
        ids=["columns", "list", "strides"],
    )
    def test_other_layouts(self, X):
        ours = classifier().fit(X_IRIS, Y_IRIS)
        np.testing.assert_allclose(ours.predict_proba(X), ours.predict_proba(X_IRIS), atol=1e-12)

    @pytest.mark.parametrize("fitted", ["float32", "float64"])
    @pytest.mark.parametrize(
        "dtype", ["bool", "int8", "uint8", "int64", "float16", "float32", "float64"]
    )
    def test_other_dtypes(self, dtype, fitted):
        """Computed in what scikit-learn computes in."""
        X = (X_IRIS * 10).astype(dtype)
        ours = regressor().fit(X_IRIS.astype(fitted), Y_IRIS)
        theirs = ours.to_sklearn()
        for rows in (X, X[:1], X.tolist()):
            expected, found = theirs.predict(rows), ours.predict(rows)
            np.testing.assert_allclose(found, expected, rtol=1e-4)
        assert ours.predict(X).dtype == theirs.predict(X).dtype

    @pytest.mark.parametrize("plain", PLAIN, ids=str)
    def test_what_is_plain_is_not_validated_twice(self, plain, monkeypatch):
        ours = classifier().fit(X_IRIS, Y_IRIS)
        expected = ours.predict(np.round(X_IRIS * 8))
        monkeypatch.setattr("gpunet.estimators.placement.validate_data", None)
        np.testing.assert_array_equal(ours.predict(PLAIN[plain](np.round(X_IRIS * 8))), expected)

    def test_frames(self, monkeypatch):
        frame = pd.DataFrame(X_IRIS, columns=list("abcd"))
        ours = classifier().fit(frame, Y_IRIS)
        others = {
            "nullable": frame.astype("Float64"),
            "sparse": frame.astype(pd.SparseDtype("float", 0.0)),
            "objects": frame.astype(object),
        }
        for other in others.values():
            np.testing.assert_array_equal(ours.predict(other), ours.predict(frame))
        with pytest.raises(ValueError, match="feature names should match"):
            ours.predict(frame[list("bacd")])
        with pytest.raises(ValueError, match="NaN"):
            ours.predict(frame.where(frame < 1))
        with pytest.warns(UserWarning, match="does not have valid feature names"):
            ours.predict(X_IRIS)
        expected = ours.predict(frame)
        monkeypatch.setattr("gpunet.estimators.placement.validate_data", None)
        np.testing.assert_array_equal(ours.predict(frame), expected)

    @pytest.mark.parametrize(
        "X",
        [
            np.full((2, 4), "2020-01-01", dtype="M8[D]"),
            [[None] * 4],
            pd.DataFrame({"a": ["x"], "b": [1.0], "c": [1.0], "d": [1.0]}).astype(
                {"a": "category"}
            ),
        ],
        ids=["dates", "None", "categories"],
    )
    @pytest.mark.filterwarnings("ignore:X does not have valid feature names")
    def test_what_is_no_number(self, X):
        ours = classifier().fit(pd.DataFrame(X_IRIS, columns=list("abcd")), Y_IRIS)
        with pytest.raises(TypeError, match="X is of numbers, but its dtype is"):
            ours.predict(X)
        with pytest.raises(TypeError):
            ours.to_sklearn().predict(X)

    def test_large_numbers_whose_sum_overflows(self):
        ours = classifier(activation="tanh").fit(X_IRIS, Y_IRIS)
        assert ours.predict(np.full((1, 4), 1e308)).shape == (1,)

    def test_a_narrower_dtype_is_widened(self):
        ours = classifier().fit(X_IRIS, Y_IRIS)
        assert ours.predict_proba(X_IRIS.astype(np.float32)).dtype == np.float64

    def test_changed_coefficients_count(self):
        ours = classifier().fit(X_IRIS, Y_IRIS)
        ours.predict(X_IRIS)
        ours.intercepts_[-1] = np.array([0.0, 1e6, 0.0])
        assert set(ours.predict(X_IRIS)) == {1}
