"""Two sets whose held-out accuracy shows what rounded products do to a model: an easy one and a hard one."""

from sklearn.datasets import load_digits, make_classification
from sklearn.model_selection import train_test_split


def digits():
    """Return the handwritten digits, 1,078 to train on."""
    X, y = load_digits(return_X_y=True)
    return (X / 16.0).astype("float32"), y, 1078


def overlapping():
    """Return ten classes of three clusters each, 7,200 examples to train on."""
    X, y = make_classification(
        12_000, 30, n_informative=12, n_redundant=6, n_classes=10, n_clusters_per_class=3, random_state=0
    )  # fmt: skip
    return X.astype("float32"), y, 7200


SETS = {"digits": digits, "overlapping classes": overlapping}


def split(data):
    """Return what is trained on and what is held out: X, held-out X, y, held-out y."""
    X, y, n = data
    return train_test_split(X, y, train_size=n, random_state=0, stratify=y)
