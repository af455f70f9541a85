"""Tables: the same rows from every kind of file, and clear words for files that aren't one."""

import datetime
import gzip
import sys

import numpy as np
import pytest

from gpunet.tabular import tables
from gpunet.tabular.tables import BUNDLED, Arrays, Column, open_table

pa = pytest.importorskip("pyarrow")
from pyarrow import csv, parquet  # noqa: E402

from gpunet.tabular.arrow import CSV  # noqa: E402


@pytest.fixture
def small_batches(monkeypatch):
    """Read files a few rows at a time."""
    monkeypatch.setattr(CSV, "block_size", 64)
    monkeypatch.setattr(tables, "ROWS_AT_ONCE", 7)
    monkeypatch.setattr("gpunet.tabular.arrow.ROWS_AT_ONCE", 7)


def read(table, **kinds):
    """Return whole columns, as lists."""
    parts = list(table.batches(kinds))
    return {name: [value for part in parts for value in part[name].tolist()] for name in kinds}


def written(tmp_path, text, name="data.csv"):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def types(table):
    return {column.name: column.type for column in table.columns}


# --- every kind of file holds the same ---

NUMBERS = [float(i) / 4 for i in range(40)]
WORDS = [["red", "green", "blue"][i % 3] for i in range(40)]
FLAGS = [i % 2 == 0 for i in range(40)]


def as_csv(tmp_path):
    path = tmp_path / "data.csv"
    csv.write_csv(pa.table({"x": NUMBERS, "word": WORDS, "flag": FLAGS}), path)
    return path


def as_zipped_csv(tmp_path):
    path = tmp_path / "data.csv.gz"
    path.write_bytes(gzip.compress(as_csv(tmp_path).read_bytes()))
    return path


def as_parquet(tmp_path):
    path = tmp_path / "data.parquet"
    parquet.write_table(pa.table({"x": NUMBERS, "word": WORDS, "flag": FLAGS}), path)
    return path


def as_parquet_with_categories(tmp_path):
    path = tmp_path / "data.parquet"
    words = pa.array(WORDS).dictionary_encode()
    parquet.write_table(pa.table({"x": NUMBERS, "word": words, "flag": FLAGS}), path)
    return path


@pytest.mark.usefixtures("small_batches")
@pytest.mark.parametrize("write", [as_csv, as_zipped_csv, as_parquet, as_parquet_with_categories])
def test_a_file_is_read_in_batches_as_often_as_asked(write, tmp_path):
    table = open_table(write(tmp_path))
    assert table.name == "data"
    assert table.target is None
    assert types(table) == {"x": "real", "word": "text", "flag": "boolean"}
    assert table.rows == 40
    batches = list(table.batches({"x": "number"}))
    assert len(batches) > 3
    assert [batch.start for batch in batches] == np.cumsum([0, *map(len, batches[:-1])]).tolist()
    for _ in range(2):
        found = read(table, word="category", x="number", flag="number")
        assert found == {"word": WORDS, "x": NUMBERS, "flag": [float(flag) for flag in FLAGS]}
    assert read(table, flag="label", word="label") == {"flag": FLAGS, "word": WORDS}


def test_columns_in_memory_are_a_table():
    columns = {
        "x": np.array([1.5, np.nan]),
        "day": np.array(["1970-01-02", "NaT"], dtype="datetime64[D]"),
        "word": np.array(["2", "3"]),
        "many": np.array([1j, 2j]),
    }
    table = Arrays("test", "test", columns)
    assert [column.kind for column in table.columns] == ["number", "number", "category", None]
    found = read(table, x="category", day="number", word="number")
    assert found["x"] == ["1.5", None]
    assert found["day"][0] == 1.0
    assert np.isnan(found["day"][1])
    assert found["word"] == [2.0, 3.0]


# --- CSV: what a column holds ---


@pytest.mark.usefixtures("small_batches")
@pytest.mark.parametrize(
    ("early", "late", "expected"),
    [
        ("1", "2", "integer"),
        ("1", "2.5", "real"),
        ("1", "99999999999999999999", "real"),
        ("1", "many", "text"),
        ("1.5", "many", "text"),
        ("true", "False", "boolean"),
        ("true", "maybe", "text"),
        ("", "3", "integer"),
        ("", "3.5", "real"),
        ("", "late", "text"),
        ("2020-01-01", "2020-01-02", "time"),
        ("2020-01-01", "2020-01-02 12:00:00", "time"),
        ("2020-01-01", "soon", "text"),
        ("12:30", "noon", "text"),
        ("12:30", "12:31", "text"),
        ("NA", "?", "real"),
    ],
)
def test_a_type_is_settled_over_the_whole_file(early, late, expected, tmp_path):
    rows = [early] * 50 + [late]
    text = "other,x\n" + "".join(f"0,{value}\n" for value in rows)
    table = open_table(written(tmp_path, text))
    assert types(table) == {"other": "integer", "x": expected}
    assert table.rows == 51
    kind = table.columns[1].kind
    found = read(table, x=kind)["x"]
    missing = [value is None or value != value for value in found]  # noqa: PLR0124
    assert missing == [value in ("", "NA", "?") for value in rows]


def test_categories_are_read_as_they_are_written(tmp_path):
    table = open_table(written(tmp_path, "zip,y\n01,1\n1,2\n"))
    assert types(table)["zip"] == "integer"
    assert read(table, zip="category") == {"zip": ["01", "1"]}
    assert read(table, zip="number") == {"zip": [1.0, 1.0]}


def test_text_can_be_asked_for_as_numbers_if_it_is(tmp_path):
    table = open_table(written(tmp_path, 'x\n1\n"2.5"\n?\n'))
    found = read(table, x="number")["x"]
    assert found[:2] == [1.0, 2.5]
    assert np.isnan(found[2])
    table = open_table(written(tmp_path, "x\n1\nabc\n"))
    with pytest.raises(
        ValueError, match=r"'x' of .*data.csv should hold numbers, .* 'abc' in row 2"
    ):
        read(table, x="number")


@pytest.mark.parametrize(
    ("values", "days"),
    [
        (pa.array([datetime.date(1970, 1, 3), None]), 2.0),
        (pa.array([datetime.datetime(1970, 1, 1, 6), None], pa.timestamp("ns")), 0.25),
        (pa.array([datetime.datetime(1970, 1, 1, 6), None], pa.timestamp("s", "UTC")), 0.25),
    ],
    ids=["date", "timestamp", "zoned"],
)
def test_times_are_days(values, days, tmp_path):
    parquet.write_table(pa.table({"t": values}), tmp_path / "data.parquet")
    table = open_table(tmp_path / "data.parquet")
    assert types(table) == {"t": "time"}
    found = read(table, t="number")["t"]
    assert found[0] == days
    assert np.isnan(found[1])


def test_labels_keep_their_type_and_every_digit(tmp_path):
    large = 2**62 + 1
    parquet.write_table(pa.table({"y": [large, 3]}), tmp_path / "data.parquet")
    assert read(open_table(tmp_path / "data.parquet"), y="label") == {"y": [large, 3]}


@pytest.mark.usefixtures("small_batches")
def test_quoted_line_breaks_and_a_byte_order_mark(tmp_path):
    table = open_table(written(tmp_path, "\ufeffx,word\n" + '1,"two\n\nlines"\n2,"a,b"\n' * 50))
    assert read(table, x="label", word="label") == {
        "x": [1, 2] * 50,
        "word": ["two\n\nlines", "a,b"] * 50,
    }


def test_a_row_may_be_longer_than_a_block(monkeypatch, tmp_path):
    monkeypatch.setattr(CSV, "block_size", 64)
    table = open_table(written(tmp_path, "x,word\n1,a\n2," + "b" * 1000 + "\n"))
    assert read(table, word="label") == {"word": ["a", "b" * 1000]}


# --- CSV: what isn't one ---


@pytest.mark.usefixtures("small_batches")
@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty: a CSV has a header line"),
        ("\n\n", "is empty: a CSV has a header line"),
        ("a,b\n1,2\n3\n", "row 2, the header not counted, has 1 values .* 2 columns: '3'"),
        ("a,b\n" + "1,2\n" * 60 + "5,6,7\n", "row 61, .* has 3 values .* 2 columns: '5,6,7'"),
        ("a,b,a\n1,2,3\n", "several columns called 'a'"),
        ("a,b\n1,caf\u00e9\n".encode("latin-1"), "save it as UTF-8"),
        (b"a,b\n" + b"1,c\n" * 60 + b"1,caf\xe9\n", "save it as UTF-8"),
    ],
    ids=["empty", "blank", "short row", "long row, late", "same name", "latin-1", "latin-1, late"],
)
def test_a_broken_csv_is_refused(content, message, tmp_path):
    table = open_table(written(tmp_path, content))
    with pytest.raises(ValueError, match=message):
        _ = table.columns


def test_a_header_without_rows_is_a_table_without_rows(tmp_path):
    table = open_table(written(tmp_path, "a,b\n"))
    assert table.rows == 0
    assert [column.name for column in table.columns] == ["a", "b"]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["prise"], "has no column 'prise'; did you mean 'price'"),
        (["zzz", "price"], "has no column 'zzz'; it has 'price', 'colour'"),
        (["zzz", "yyy"], "has no columns 'zzz', 'yyy'; it has"),
    ],
)
def test_a_missing_column_is_named(names, message, tmp_path):
    table = open_table(written(tmp_path, "price,colour\n1,red\n"))
    with pytest.raises(ValueError, match=message):
        table.require(names)
    with pytest.raises(ValueError, match=message):
        list(table.batches(dict.fromkeys(names, "number")))


# --- Parquet ---


def test_what_no_network_takes_is_told_apart(tmp_path):
    columns = {"x": [1.5], "list": [[1, 2]], "__index_level_0__": [7]}
    parquet.write_table(pa.table(columns), tmp_path / "data.parquet")
    found = open_table(tmp_path / "data.parquet").columns
    assert [column.kind for column in found] == ["number", None, None]
    assert "list" in found[1].type
    assert found[2].type == "row labels of pandas"


def test_the_row_labels_that_pandas_writes_are_told_apart(tmp_path):
    table = open_table(written(tmp_path, ",x\n0,1.5\n1,2.5\n"))
    assert [column.kind for column in table.columns] == [None, "number"]


def test_junk_is_no_parquet(tmp_path):
    with pytest.raises(ValueError, match="can't be read as Parquet"):
        open_table(written(tmp_path, "junk", "data.parquet"))


# --- NPZ ---

X = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], dtype="float32")


def test_npz_holds_inputs_targets_and_names(tmp_path):
    np.savez(tmp_path / "data.npz", X=X, y=[True, False, True], feature_names=["a", "b"])
    table = open_table(tmp_path / "data.npz")
    assert (table.target, table.rows) == ("y", 3)
    assert types(table) == {"a": "real", "b": "real", "y": "boolean"}
    assert read(table, b="number", y="label") == {"b": [2.0, 4.0, 6.0], "y": [True, False, True]}


def test_npz_needs_neither_targets_nor_names(tmp_path):
    np.savez(tmp_path / "data.npz", X=X)
    table = open_table(tmp_path / "data.npz")
    assert table.target is None
    assert table.columns == (Column("x1", "real"), Column("x2", "real"))


def test_npz_takes_a_column_of_targets(tmp_path):
    np.savez(tmp_path / "data.npz", X=X, y=np.array([["a"], ["b"], ["a"]]))
    assert read(open_table(tmp_path / "data.npz"), y="label") == {"y": ["a", "b", "a"]}


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"Z": X}, "has no array X; an NPZ file has the arrays"),
        ({"X": X[0]}, r"has an X of shape \(2,\)"),
        ({"X": X, "y": [1, 2]}, r"don't fit each other: X \(3, 2\), y \(2,\)"),
        ({"X": X, "feature_names": ["a"]}, r"don't fit each other: .*feature_names \(1,\)"),
        ({"X": X, "feature_names": ["a", "a"]}, "have to differ"),
        ({"X": X, "y": [1, 2, 3], "feature_names": ["a", "y"]}, "have to differ"),
        ({"X": np.array([[1, "a"]], dtype=object)}, "isn't an NPZ file of plain arrays"),
    ],
    ids=["no X", "1-D X", "short y", "few names", "same names", "y twice", "objects"],
)
def test_a_wrong_npz_is_refused(arrays, message, tmp_path):
    np.savez(tmp_path / "data.npz", **arrays)
    with pytest.raises(ValueError, match=message):
        open_table(tmp_path / "data.npz")


@pytest.mark.parametrize("content", [b"", b"junk", b"PK\x03\x04junk"])
def test_junk_is_no_npz(content, tmp_path):
    with pytest.raises(ValueError, match="isn't an NPZ file"):
        open_table(written(tmp_path, content, "data.npz"))


# --- which reader ---


@pytest.mark.parametrize("name", BUNDLED)
def test_a_bundled_data_set_is_known_by_its_name(name):
    table = open_table(name)
    assert table.target == "target"
    assert table.columns[-1].name == "target"
    kinds = {column.name: "number" for column in table.columns[:-1]}
    assert {column.kind for column in table.columns[:-1]} == {"number"}
    assert sum(len(batch) for batch in table.batches(kinds)) == table.rows


def test_a_bundled_data_set_has_its_classes_by_name():
    assert set(read(open_table("iris"), target="label")["target"]) == {
        "setosa",
        "versicolor",
        "virginica",
    }


@pytest.mark.parametrize("name", ["nothing.csv", "digit", ""])
def test_what_is_not_there_is_named(name):
    with pytest.raises(
        FileNotFoundError, match=rf"No data '{name}': expected .* or one of .*digits"
    ):
        open_table(name)


def test_an_unknown_ending_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"should end with \.csv, \.csv\.gz, \.parquet or \.npz"):
        open_table(written(tmp_path, "x\n1\n", "data.xls"))


@pytest.mark.parametrize("name", ["data.csv", "data.parquet"])
def test_without_pyarrow_the_command_that_installs_it_is_named(name, monkeypatch, tmp_path):
    monkeypatch.delitem(sys.modules, "gpunet.tabular.arrow")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ImportError, match=r"needs pyarrow .*pip install 'gpunet\[tables\]'"):
        open_table(written(tmp_path, "x\n1\n", name))
