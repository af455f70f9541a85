"""Hidden features, the summary and its HTML."""

import copy
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from estimator_helpers import NAMES, X_IRIS, Y_IRIS, classifier
from sklearn import config_context
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline

import gpunet
from gpunet import MLPClassifier
from gpunet.estimators import perceptron
from gpunet.estimators.placement import Placement

pytestmark = [
    pytest.mark.usefixtures("on_numpy", "finding_classes"),
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
]


class TestTransform:
    def test_are_the_hidden_activations(self, backend):
        X = backend.asarray(X_IRIS)
        ours = classifier(activation="tanh").fit(X, Y_IRIS)
        coefs = [backend.to_host(c) for c in ours.coefs_]
        intercepts = [backend.to_host(b) for b in ours.intercepts_]
        first = np.tanh(X_IRIS @ coefs[0] + intercepts[0])
        last = np.tanh(first @ coefs[1] + intercepts[1])
        for layer, expected in ((1, first), (2, last), (None, last)):
            found = ours.transform(X, layer)
            assert type(found) is type(X)
            np.testing.assert_allclose(backend.to_host(found), expected, atol=1e-12)

    def test_many_examples_come_in_parts(self):
        ours = classifier(activation=["maxout", "relu"]).fit(X_IRIS, Y_IRIS)
        x = (
            ours._architecture(),
            [(c.T, b) for c, b in zip(ours.coefs_, ours.intercepts_, strict=True)],
        )
        primitives = gpunet.get_backend("numpy").primitives
        both = primitives, lambda xp, z, a: xp.concat([z, a])
        (whole,) = perceptron.forward(*x, X_IRIS.T, *both)
        parts = perceptron.forward(*x, X_IRIS.T, *both, at_once=16 * 7)
        assert {part.shape[1] for part in parts} == {7, 3}
        np.testing.assert_allclose(np.concat(parts, axis=1), whole, atol=1e-13)
        rows = Placement(gpunet.get_backend("numpy"), host=True).rows(parts)
        assert rows.flags.c_contiguous
        np.testing.assert_allclose(rows, whole.T, atol=1e-13)

    def test_names_and_frames(self):
        ours = classifier().fit(X_IRIS, Y_IRIS)
        names = [f"mlpclassifier{i}" for i in range(5)]
        assert ours.get_feature_names_out().tolist() == names
        assert len(ours.get_feature_names_out(layer=1)) == 8
        expected = [ours.transform(X_IRIS, layer) for layer in (1, 2)]
        given = pd.DataFrame(X_IRIS, index=np.arange(150) + 7)
        frame = ours.set_output(transform="pandas").transform(given)
        assert list(frame.columns) == names
        assert list(ours.transform(X_IRIS, layer=2).columns) == names
        frame = ours.transform(given, layer=1)
        assert list(frame.columns) == ours.get_feature_names_out(layer=1).tolist()
        assert list(frame.index) == list(given.index)
        np.testing.assert_array_equal(frame, expected[0])
        fresh = classifier().set_output(transform="pandas").fit_transform(X_IRIS, Y_IRIS)
        assert list(fresh.columns) == names
        np.testing.assert_array_equal(fresh, expected[1])

    @pytest.mark.parametrize("library", ["pandas", "polars"])
    def test_frames_by_configuration(self, backend, library):
        kind = pytest.importorskip(library, reason=f"{library} isn't installed").DataFrame
        X = backend.asarray(X_IRIS)
        ours = classifier().fit(X, Y_IRIS)
        with config_context(transform_output=library):
            frames = [ours.transform(X, layer) for layer in (1, None)]
        for frame, layer in zip(frames, (1, 2), strict=True):
            assert isinstance(frame, kind)
            assert list(frame.columns) == ours.get_feature_names_out(layer=layer).tolist()
            expected = backend.to_host(ours.transform(X, layer))
            np.testing.assert_array_equal(frame.to_numpy(), expected)

    def test_in_a_pipeline(self):
        pipeline = make_pipeline(classifier(), MLPClassifier((4,), max_iter=5, random_state=0))
        assert pipeline.fit(X_IRIS, NAMES).predict(X_IRIS).shape == (150,)

    @pytest.mark.parametrize("layer", [0, 3, -1, 1.5, True, "last"])
    def test_no_such_layer(self, layer):
        with pytest.raises(ValueError, match="from 1 to 2"):
            classifier().fit(X_IRIS, Y_IRIS).transform(X_IRIS, layer)

    def test_no_hidden_layer(self):
        with pytest.raises(ValueError, match="no hidden layer"):
            classifier(hidden_layer_sizes=()).fit(X_IRIS, Y_IRIS).transform(X_IRIS)

    def test_not_fitted(self):
        with pytest.raises(NotFittedError):
            classifier().transform(X_IRIS)


class OpenAt(HTMLParser):
    """Finds the classes of the elements around a text."""

    def __init__(self, text):
        super().__init__()
        self.text, self.open, self.classes = text, [], []

    def handle_starttag(self, tag, attributes):
        if tag not in ("br", "input", "meta", "link", "path"):
            self.open.append((tag, dict(attributes).get("class") or ""))

    def handle_endtag(self, tag):
        if self.open and self.open[-1][0] == tag:
            self.open.pop()

    def handle_data(self, data):
        if data == self.text:
            self.classes = " ".join(classes for _, classes in self.open).split()


class TestDescription:
    def test_summary(self):
        text = classifier(activation=["maxout:3", "elu"]).fit(X_IRIS, Y_IRIS).summary()
        assert "Theta1: 24 x 5" in text
        assert "elu:1.0" in text
        assert text.endswith("183 parameters, loss 'softmax_cross_entropy'")
        with pytest.raises(NotFittedError):
            classifier().summary()

    def test_in_a_notebook(self):
        ours = classifier()
        assert "Theta1" not in ours._repr_html_()
        html = ours.fit(X_IRIS, Y_IRIS)._repr_html_()
        assert "<td>Theta1: 8 x 5</td>" in html
        inside = OpenAt("Theta1: 8 x 5")
        inside.feed(html)
        assert "sk-container" in inside.classes
        assert html.endswith("</body>")

    def test_copies_stay_where_they_are(self, backend):
        X = backend.asarray(X_IRIS)
        ours = copy.copy(classifier(max_iter=2).fit(X, Y_IRIS))
        assert type(ours.predict_proba(X)) is type(X)
