"""What scikit-learn's estimators can and can't express of ours."""

import numpy as np
import pytest
from estimator_helpers import TANH, X_IRIS, Y_IRIS, classifier, regressor

from gpunet import activations

pytestmark = [
    pytest.mark.usefixtures("on_numpy", "finding_classes"),
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
]


class TestConversion:
    @pytest.mark.parametrize(
        ("parameters", "named"),
        [
            ({"activation": "elu"}, "activation='elu'"),
            ({"activation": ["relu", "tanh"]}, "activation="),
            ({"activation": TANH}, "activation="),
            ({"solver": "nadam"}, "solver='nadam'"),
            ({"learning_rate": "cosine"}, "learning_rate='cosine'"),
            ({"dropout": [0.1, 0.0]}, r"dropout=\[0.1, 0.0\]"),
            ({"dropout": 0.1}, "dropout=0.1"),
            ({"clip_norm": 1.0}, "clip_norm=1.0"),
            ({"init": "he"}, "init='he'"),
            ({"class_weight": "balanced", "loss": "cross_entropy"}, "loss=.*class_weight="),
        ],
    )
    def test_what_scikit_learn_cant_express(self, parameters, named):
        ours = classifier(**parameters).fit(X_IRIS, Y_IRIS)
        with pytest.raises(
            ValueError, match=f"scikit-learn's MLPClassifier can't express .*{named}"
        ):
            ours.to_sklearn()

    @pytest.mark.parametrize("loss", ["huber", "absolute_error", "quantile"])
    def test_losses(self, loss):
        with pytest.raises(ValueError, match=f"MLPRegressor can't express loss='{loss}'"):
            regressor(loss=loss).to_sklearn()

    @pytest.mark.parametrize("activation", ["sigmoid", activations.Tanh(), ["relu", "relu"]])
    def test_other_names_for_the_same(self, activation):
        ours = classifier(activation=activation, dropout=[0.0, 0.0]).fit(X_IRIS, Y_IRIS)
        theirs = ours.to_sklearn()
        np.testing.assert_allclose(
            theirs.predict_proba(X_IRIS), ours.predict_proba(X_IRIS), atol=1e-12
        )
