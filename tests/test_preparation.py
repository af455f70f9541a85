"""Preparation and data sets: what scikit-learn's transformers give, from the training rows only, and back again."""

import dataclasses
import json
import re

import numpy as np
import pytest
from sklearn.compose import make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from gpunet.tabular import datasets, tables
from gpunet.tabular.datasets import Statistics, prepare
from gpunet.tabular.preparation import Category, Number, Preparation
from gpunet.tabular.tables import Arrays, Batch, Column, open_table

M = 200


@pytest.fixture
def columns():
    """Return numbers with gaps, a constant, categories with gaps, and a target."""
    random = np.random.default_rng(0)
    gaps = np.where(random.random(M) < 0.2, np.nan, random.normal(50.0, 9.0, M))
    words = random.choice(["red", "green", "blue"], M).astype(object)
    words[::9] = None
    return {
        "gaps": gaps,
        "constant": np.full(M, 0.1),
        "count": random.integers(0, 1000, M),
        "flag": random.random(M) < 0.5,
        "word": words,
        "y": random.choice(["no", "yes"], M),
    }


class Objects(Arrays):
    """A table whose object arrays are text with None for what is missing."""

    _type = staticmethod(lambda array: "text" if array.dtype == object else Arrays._type(array))

    def _read(self, name, kind, rows):
        values = self._arrays[name]
        return values[rows] if values.dtype == object else super()._read(name, kind, rows)


def table_of(columns):
    return Objects("data.csv", "data", columns)


def whole(table, preparation):
    return next(iter(table.batches(preparation.kinds)))


# --- the inputs ---


@pytest.mark.parametrize("rows_at_once", [7, 1000])
def test_the_inputs_are_those_of_scikit_learn(columns, rows_at_once, monkeypatch):
    monkeypatch.setattr(tables, "ROWS_AT_ONCE", rows_at_once)
    sets = prepare(table_of(columns), "y", dtype="float64")
    monkeypatch.setattr(tables, "ROWS_AT_ONCE", 1000)
    prepared = sets.preparation.transform(whole(table_of(columns), sets.preparation), "float64")
    # which rows were trained on, found by what they became
    trained = (prepared[:, None, :] == sets.train[0][None]).all(axis=2).any(axis=1)
    assert trained.sum() == len(sets.train[0]) == 140

    numbers = np.stack([columns[name] for name in ("gaps", "constant", "count", "flag")], axis=1)
    X = np.concatenate([numbers, columns["word"][:, None]], axis=1).astype(object)
    reference = make_column_transformer(
        (make_pipeline(StandardScaler(), SimpleImputer(fill_value=0.0)), [0, 1, 2, 3]),
        (OneHotEncoder(categories=[["blue", "green", "red"]], handle_unknown="ignore"), [4]),
        sparse_threshold=0,
    ).fit(X[trained])
    np.testing.assert_allclose(prepared, reference.transform(X), rtol=1e-12, atol=1e-12)


def test_a_constant_column_becomes_zero(columns):
    sets = prepare(table_of(columns), "y")
    position = [column.name for column in sets.preparation.numbers].index("constant")
    np.testing.assert_allclose(sets.train[0][:, position], 0.0, atol=1e-12)


def test_nothing_of_the_other_rows_leaks_into_the_statistics(columns):
    sets = prepare(table_of(columns), "y", dtype="float64")
    table = table_of(columns)
    prepared = sets.preparation.transform(whole(table, sets.preparation), "float64")
    trained = (prepared[:, None, :] == sets.train[0][None]).all(axis=2).any(axis=1)
    columns["gaps"] = np.where(trained, columns["gaps"], 1e6)
    columns["word"] = np.where(trained, columns["word"], "violet")
    assert prepare(table_of(columns), "y", dtype="float64").preparation == sets.preparation


def test_after_saving_the_inputs_are_exactly_the_same(columns):
    table = table_of(columns)
    preparation = prepare(table, "y").preparation
    again = Preparation.from_dict(json.loads(json.dumps(preparation.to_dict())))
    assert again == preparation
    before, after = (p.transform(whole(table, p), "float64") for p in (preparation, again))
    assert before.tobytes() == after.tobytes()


def test_a_column_whose_first_rows_are_all_missing_is_used(monkeypatch):
    monkeypatch.setattr(tables, "ROWS_AT_ONCE", 5)
    values = np.array([np.nan] * 20 + [1.0, 2.0, 3.0, 6.0])
    statistics = Statistics([Column("x", "real"), Column("z", "real")])
    for batch in table_of({"x": values, "z": values * 0.0 + 4.0}).batches(statistics.kinds):
        statistics.update(batch)
    numbers, _, _ = statistics.result()
    assert numbers[0] == Number("x", 3.0, pytest.approx(np.std([1.0, 2.0, 3.0, 6.0])))
    assert numbers[1] == Number("z", 4.0, 1.0)


@pytest.mark.parametrize("value", [np.inf, -np.inf, 1e200])
@pytest.mark.parametrize("row", [3, 150])
def test_infinity_is_refused_with_its_column_and_row(columns, value, row, monkeypatch):
    monkeypatch.setattr(tables, "ROWS_AT_ONCE", 7)
    columns["gaps"][row] = value
    held = re.escape(f"Column 'gaps' holds {value:g} in row {row + 1}, ")
    with pytest.raises(ValueError, match=held + ".*finite"):
        prepare(table_of(columns), "y")


# --- categories ---


def transform_words(preparation, *words):
    return preparation.transform(Batch(0, {"word": np.array(words, dtype=object)})).tolist()


def test_unknown_and_missing_categories_are_all_zeros():
    preparation = Preparation("y", "regression", (), (Category("word", ("a", "b")),))
    assert transform_words(preparation, "b", "c", None) == [[0, 1], [0, 0], [0, 0]]


def tally(words):
    statistics = Statistics([Column("word", "text")])
    for start in range(0, len(words), 50):
        part = np.array(words[start : start + 50], dtype=object)
        statistics.update(Batch(start, {"word": part}))
    return statistics.result()


def test_the_most_frequent_categories_are_kept(monkeypatch):
    monkeypatch.setattr(datasets, "MOST_CATEGORIES", 3)
    _, (category,), notes = tally(["z"] * 4 + ["a"] * 3 + ["d", "c"] * 2 + ["b"])
    assert category.values == ("a", "c", "z")
    assert "the 3 most frequent are told apart" in notes[0]


def test_many_categories_are_counted_in_little_memory(monkeypatch):
    monkeypatch.setattr(datasets._Tally, "most", 100)
    words = [f"rare{i}" for i in range(5000)]
    words[::3] = ["often"] * len(words[::3])
    words[1::10] = ["sometimes"] * len(words[1::10])
    tallied = datasets._Tally()
    for start in range(0, 5000, 50):
        tallied.update(np.array(words[start : start + 50], dtype=object))
        assert len(tallied.counts) <= 150
    assert {"often", "sometimes"} <= set(tallied.most_frequent())


@pytest.mark.parametrize("m", [10, 500])
def test_an_identifier_is_left_out(m, monkeypatch):
    monkeypatch.setattr(datasets._Tally, "most", 100)
    _, categories, notes = tally([f"id{i}" for i in range(m)])
    assert categories == ()
    assert "'word' is left out: its text is different in every row" in notes[0]


def test_text_without_values_is_left_out():
    _, categories, notes = tally([None, None])
    assert categories == ()
    assert notes == ["column 'word' is left out: it has no value"]


def test_text_among_numbers_is_pointed_out():
    _, _, notes = tally(["1.5", "2", "n/k", "7", "2"])
    assert notes[0] == "column 'word' is read as text, since it has 'n/k' among numbers"


def test_columns_that_no_network_takes_are_noted():
    statistics = Statistics([Column("x", "real"), Column("tags", "values of type list<int64>")])
    statistics.update(Batch(0, {"x": np.array([np.nan])}))
    numbers, _, notes = statistics.result()
    assert numbers == ()
    assert notes == [
        "column 'tags' is left out: it holds values of type list<int64>",
        "column 'x' is left out: it has no value",
    ]


# --- the target ---


@pytest.mark.parametrize(
    ("labels", "asked", "task", "classes"),
    [
        (["no", "yes"] * 20, None, "binary", ("no", "yes")),
        (["a", "b", "c"] * 20, None, "multiclass", ("a", "b", "c")),
        ([True, False] * 20, None, "binary", (False, True)),
        ([3, 5] * 20, None, "binary", (3, 5)),
        ([7, 5, -1] * 20, None, "multiclass", (-1, 5, 7)),
        (list(range(20)) * 4, None, "multiclass", tuple(range(20))),
        (list(range(21)) * 4, None, "regression", ()),
        ([0.0, 1.0] * 20, None, "regression", ()),
        ([0.0, 1.0] * 20, "binary", "binary", (0, 1)),
        ([0.5, 1.0, 2.0] * 20, "multiclass", "multiclass", (0.5, 1.0, 2.0)),
        ([0, 1] * 20, "multiclass", "multiclass", (0, 1)),
        ([0, 1] * 20, "regression", "regression", ()),
    ],
)
def test_the_task_is_inferred_or_asked_for(labels, asked, task, classes):
    y = np.array(labels)
    table = Arrays("data.csv", "data", {"x": np.arange(float(len(y))), "y": y})
    sets = prepare(table, "y", task=asked)
    assert sets.preparation.task == task
    assert sets.preparation.classes == classes
    assert [type(label) for label in sets.preparation.classes] == [type(label) for label in classes]
    again = Preparation.from_dict(json.loads(json.dumps(sets.preparation.to_dict())))
    assert [type(label) for label in again.classes] == [type(label) for label in classes]
    if classes:
        assert again.predictions(np.eye(len(classes))).tolist() == list(classes)
        encoded = again.encode(next(table.batches({"y": "label"}))["y"])
        assert [classes[k] for k in encoded] == labels


def test_a_regression_learns_a_standardised_target():
    y = np.random.default_rng(0).normal(1000.0, 50.0, M)
    sets = prepare(Arrays("data.csv", "data", {"x": y, "y": y}), "y", dtype="float64")
    learned = sets.train[1]
    np.testing.assert_allclose([learned.mean(), learned.std()], [0.0, 1.0], atol=1e-12)
    everything = np.concatenate([part[1] for part in (sets.train, sets.validation, sets.test)])
    back = sets.preparation.decide(everything[:, None])
    np.testing.assert_allclose(np.sort(back), np.sort(y), rtol=1e-12)
    np.testing.assert_allclose(sets.preparation.truth(everything), back)
    np.testing.assert_allclose(
        sets.preparation.encode(y), (y - sets.preparation.mean) / sets.preparation.scale
    )


def test_without_centring_a_positive_target_stays_positive():
    y = np.random.default_rng(0).poisson(7.0, M) * 1.0
    sets = prepare(Arrays("d", "d", {"x": y, "y": y}), "y", centre=False, dtype="float64")
    assert sets.preparation.mean == 0.0
    np.testing.assert_allclose(sets.train[1].mean(), 1.0)


def test_two_outputs_or_one_say_the_same():
    preparation = Preparation("y", "binary", (Number("x", 0.0, 1.0),), (), ("no", "yes"))
    h = np.array([[0.9], [0.5], [0.1]])
    np.testing.assert_allclose(preparation.probabilities(h), [[0.1, 0.9], [0.5, 0.5], [0.9, 0.1]])
    assert preparation.predictions(h).tolist() == ["yes", "no", "no"]
    assert preparation.predictions(np.array([[0.8, 0.2]])).tolist() == ["no"]


def changed(columns, **new):
    return {**columns, **{name: np.asarray(values) for name, values in new.items()}}


def missing_target(columns):
    columns["y"] = columns["y"].astype(object)
    columns["y"][[4, 7]] = None
    return columns


@pytest.mark.parametrize(
    ("change", "settings", "message"),
    [
        (lambda c: changed(c, y=["no"] * M), {}, "'y' holds a single class, no: "),
        (lambda c: changed(c, y=np.ones(M)), {}, r"'y' holds a single number, 1\.0: "),
        (missing_target, {}, "'y' has no value in 2 of 200 rows, the first of them row 5"),
        (lambda c: changed(c, y=[np.nan, *range(M - 1)]), {}, "'y' has no value in 1 of 200 rows"),
        (lambda c: changed(c, y=[np.inf, *range(M - 1)]), {}, "'y' holds inf in row 1"),
        (
            lambda c: c,
            {"task": "regression"},
            "'y' holds text such as .* a regression needs numbers",
        ),
        (lambda c: changed(c, y=["a", "b", "c", "d"] * 50), {"task": "binary"}, "has 4 classes"),
        (
            lambda c: changed(c, y=[f"n{i}" for i in range(M)]),
            {},
            "200 different values in 200 rows",
        ),
        (lambda c: c, {"task": "ranking"}, "Unknown task 'ranking'; known are binary"),
        (lambda c: c, {"target": "z"}, "data.csv has no column 'z'"),
        (lambda c: c, {"drop": ["z"]}, "data.csv has no column 'z'"),
        (
            lambda c: c,
            {"drop": ["gaps", "constant", "count", "flag", "word"]},
            "no column to predict 'y' from",
        ),
        (lambda c: {n: v[:0] for n, v in c.items()}, {}, "data.csv has no rows"),
        (
            lambda c: {**{n: v[:2] for n, v in c.items()}, "y": np.array(["no", "yes"])},
            {},
            "No row is left to train on: there are 2",
        ),
        (lambda c: c, {"test": 1.0}, r"test share has to lie in \[0, 1\), but is 1.0"),
        (
            lambda c: c,
            {"validation": -0.1},
            r"validation share has to lie in \[0, 1\), but is -0.1",
        ),
    ],
)
def test_what_cannot_be_learned_is_refused(columns, change, settings, message):
    settings = {"target": "y", **settings}
    with pytest.raises(ValueError, match=message):
        prepare(table_of(change(columns)), **settings)


def test_a_label_that_is_no_class_is_refused():
    preparation = Preparation("y", "binary", (Number("x", 0.0, 1.0),), (), (1, 2))
    assert preparation.encode(np.array([1.0, 2.0])).tolist() == [0, 1]
    with pytest.raises(ValueError, match=r"'y' has 3 in row 2, .* knows only 2 classes, such as 1"):
        preparation.encode(np.array([1, 3]))


# --- the three parts ---


def test_every_row_is_in_one_part_and_the_parts_are_one_matrix():
    y = np.arange(100) % 4
    sets = prepare(Arrays("d", "d", {"x": np.arange(100.0), "y": y}), "y", dtype="float64")
    parts = [sets.train, sets.validation, sets.test]
    assert [len(X) for X, _ in parts] == [70, 10, 20]
    assert all(X.base is parts[0][0].base for X, _ in parts)
    assert all(X.flags.c_contiguous for X, _ in parts)
    (number,) = sets.preparation.numbers
    x = np.concatenate([X[:, 0] for X, _ in parts]) * number.scale + number.mean
    assert sorted(np.round(x).tolist()) == list(range(100))
    labels = np.concatenate([labels for _, labels in parts])
    assert (np.round(x) % 4 == labels).all()
    assert np.bincount(sets.test[1].astype(int)).tolist() == [5, 5, 5, 5]


def test_the_seed_chooses_the_split():
    iris = open_table("iris")
    first, again, other = (prepare(iris, "target", seed=seed).test[0] for seed in (1, 1, 2))
    assert (first == again).all()
    assert (first != other).any()


def test_a_class_with_one_example_does_not_hinder_the_split():
    y = np.array(["a", "b"] * 20 + ["c"])
    sets = prepare(Arrays("d", "d", {"x": np.arange(41.0), "y": y}), "y")
    assert sets.preparation.classes == ("a", "b", "c")


def test_shares_of_zero_leave_parts_empty():
    sets = prepare(open_table("iris"), "target", validation=0.0, test=0.0)
    assert [len(y) for _, y in (sets.train, sets.validation, sets.test)] == [150, 0, 0]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_examples_have_the_dtype_asked_for(dtype):
    sets = prepare(open_table("iris"), "target", dtype=dtype)
    assert {part.dtype.name for part in (*sets.train, *sets.test)} == {dtype}


# --- the data that a file holds ---

GOOD = Preparation(
    "y", "binary", (Number("x", 1.0, 2.0),), (Category("w", ("a", "b")),), ("no", "yes")
)


@pytest.mark.parametrize(
    "change",
    [
        {"target": 3},
        {"task": "ranking"},
        {"task": "multiclass", "classes": ["no"]},
        {"task": "regression"},
        {"classes": ["no", "no"]},
        {"classes": ["no", None]},
        {"classes": ["no", ["yes"]]},
        {"numbers": [{"name": "x", "mean": 0.0}]},
        {"numbers": [{"name": "x", "mean": "0", "scale": 1.0}]},
        {"numbers": [{"name": "x", "mean": 0.0, "scale": 0.0}]},
        {"numbers": [{"name": "x", "mean": float("nan"), "scale": 1.0}]},
        {"categories": [{"name": "w", "values": [1, 2]}]},
        {"categories": [{"name": "w", "values": []}]},
        {"categories": [{"name": "x", "values": ["a"]}]},
        {"categories": [{"name": "w", "values": ["a", "a"]}]},
        {"target": "x"},
        {"categories": 5},
        {"numbers": [], "categories": []},
        {"scale": True},
    ],
    ids=str,
)
def test_damaged_data_is_refused(change):
    with pytest.raises(ValueError, match=r"damaged|fit|Unknown task|finite|no column|differ"):
        Preparation.from_dict({**GOOD.to_dict(), **change})


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(Preparation)])
def test_incomplete_data_is_refused(field):
    data = GOOD.to_dict()
    del data[field]
    with pytest.raises(ValueError, match=f"damaged .*{field}"):
        Preparation.from_dict(data)
