"""What a training step sees while it is recorded for one block: values that stand for its arrays.

See `gpunet.backends.cupy.block_recorder`. A value knows its shape, without the networks' axis, and how the program
calls it. Products and gathered examples are values that nothing has been done for yet: who takes them says where they
go.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from gpunet.typing import Array

from ..recording import HostNumber, UnrecordableError


class Value:
    """What stands for an array."""

    shape: tuple[int, ...]

    @property
    def ndim(self) -> int:
        """How many axes it has."""
        return len(self.shape)

    def __getattr__(self, name: str) -> NoReturn:
        raise UnrecordableError(name)

    def __bool__(self) -> NoReturn:
        """Refuse: there are no numbers yet."""
        raise UnrecordableError("a choice")

    __float__ = __int__ = __index__ = __array__ = __bool__


@dataclass(eq=False)
class Given(Value):
    """An array that the program is handed.

    Attributes
    ----------
    name : str
        What the program calls it.
    leaf : int
        Which of the arrays of an epoch's arguments it is.
    axes : tuple of str
        What each of its axes counts: "step", "network", or something of its own.
    shape : tuple of int
        Of the axes of its own.
    kind : str
        Its numbers' type.
    """

    name: str
    leaf: int
    axes: tuple[str, ...]
    shape: tuple[int, ...]
    kind: str

    def at(self, *indices: str) -> str:
        """Return the expression for a number of it."""
        own, terms = iter(indices), []
        for axis, kind in enumerate(self.axes):
            index = kind if kind in {"step", "network"} else next(own, None)
            if index is not None:
                terms.append(f"{index} * {self.name}_{axis}")
        return f"{self.name}[{' + '.join(terms) or '0'}]"

    def apart(self, axis: str) -> str:
        """Return the expression for how many numbers neighbours along an axis lie apart."""
        return f"{self.name}_{self.axes.index(axis)}"


@dataclass(eq=False)
class Gathered(Value):
    """The examples of a minibatch in a given array (units, n) or (n,); nothing is copied yet."""

    of: Given
    shape: tuple[int, ...]


@dataclass(eq=False)
class Columns(Value):
    """A matrix (rows, m) on the chip, a part of its columns at a time."""

    name: str
    shape: tuple[int, ...]

    def matrix(self) -> tuple[str, str, str]:
        """Return where it is, and how far apart its rows and columns are."""
        return self.name, "APART", "1"

    def at(self, i: str, j: str) -> str:
        """Return the expression for a number of it."""
        return f"{self.name}[{i} * APART + {j}]"


@dataclass(eq=False)
class Flat(Value):
    """A vector on the chip: parameters, their gradient, or the first of them."""

    tape: Tape
    name: str
    shape: tuple[int, ...]

    def __getitem__(self, key: Any) -> Flat:
        if key[0] is not ... or len(key) != 2 or key[1].start or key[1].step:
            raise UnrecordableError(f"[{key}]")
        return Flat(self.tape, self.name, (key[1].indices(self.shape[0])[1],))

    def seen(self, start: int, rows: int, columns: int) -> Seen:
        """Return a matrix that begins at one of its numbers."""
        return Seen(self.name, start, columns, (rows, columns))

    def __mul__(self, other: Any) -> Squares:
        if other is not self:
            raise UnrecordableError("a product of vectors")
        return Squares(self)

    def __imul__(self, factor: Any) -> Flat:
        number = self.tape.code(factor)
        self.tape.note("after", f"EACH_OF_BLOCK(p, {self.shape[0]}) {self.name}[p] *= {number};")
        return self


@dataclass(eq=False)
class Squares(Value):
    """A vector's squares, to be summed up."""

    of: Flat

    def __post_init__(self) -> None:
        self.shape = self.of.shape


@dataclass(eq=False)
class Seen(Value):
    """A layer's Θ or bias, seen in parameters or in their gradient."""

    name: str
    start: int
    apart: int
    shape: tuple[int, ...]
    turned: bool = False

    def matrix(self) -> tuple[str, str, str]:
        """Return where it is, and how far apart its rows and columns are."""
        steps = str(self.apart), "1"
        return (f"{self.name} + {self.start}", *(steps[::-1] if self.turned else steps))

    def transposed(self) -> Seen:
        """Return the transpose."""
        return Seen(self.name, self.start, self.apart, self.shape[::-1], not self.turned)


@dataclass(eq=False)
class Product(Value):
    """Θ a or Θᵀ δ, times what dropout has kept; nothing is computed yet."""

    left: Seen
    right: Columns | Gathered
    kept: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self.shape = self.left.shape[0], self.right.shape[1]

    def __imul__(self, kept: Any) -> Product:
        if not isinstance(kept, Dropped):
            raise UnrecordableError("a factor")
        return Product(self.left, self.right, (*self.kept, kept.name))


@dataclass(eq=False)
class Dropped(Value):
    """The factor of dropout: the program computes it wherever it is needed."""

    name: str


@dataclass(eq=False)
class Scalar(Value):
    """A number of each network's.

    Attributes
    ----------
    code : str
        The expression for it.
    late : bool
        Whether it is known only when the whole minibatch has been seen.
    """

    tape: Tape
    code: str
    late: bool = False
    shape: tuple[int, ...] = ()

    def combined(self, other: Any, form: str) -> Scalar:
        """Return an expression of this number, {0}, and another, {1}."""
        late = self.late or (isinstance(other, Scalar) and other.late)
        return self.tape.scalar(form.format(self.code, self.tape.code(other)), late=late)

    def __add__(self, other: Any) -> Scalar:
        return self.combined(other, "{0} + {1}")

    def __radd__(self, other: Any) -> Scalar:
        return self.combined(other, "{1} + {0}")

    def __mul__(self, other: Any) -> Scalar:
        return self.combined(other, "{0} * {1}")

    def __rmul__(self, other: Any) -> Scalar:
        return self.combined(other, "{1} * {0}")

    def __truediv__(self, other: Any) -> Scalar:
        return self.combined(other, "{0} / {1}")

    def __rtruediv__(self, other: Any) -> Scalar:
        return self.combined(other, "{1} / {0}")

    def __gt__(self, other: Any) -> Scalar:
        return self.combined(other, "Real({0} > {1})")

    def __getitem__(self, key: Any) -> Scalar:
        if key != (..., None):
            raise UnrecordableError(f"[{key}]")
        return self

    @property
    def dtype(self) -> str:
        """That of all numbers of the program."""
        return "Real"


class Tape:
    """A program as it is noted down.

    Parameters
    ----------
    char : str
        NumPy's character for the type of its numbers.

    Attributes
    ----------
    sections : dict of list
        Lines of the program, or functions of `Layout` that return one: what to do "before" a minibatch, with each part
        of its "columns", and "after" it.
    given : list of Given
        Arrays that it is handed, in order.
    numbers : list of (HostNumber, str)
        Numbers that it is handed after these, and what the program calls them.
    examples : Given
        Of these the examples' numbers, by step and column.
    buffers : list of (str, int)
        Matrices on the chip, and how many rows lie before each.
    rows : int
        How many rows they have together.
    multiplications, largest : int
        How many a step has, and how many numbers its largest product.
    """

    def __init__(self, char: str) -> None:
        self.char = char
        self.sections: dict[str, list[str | Callable[[Any], str]]] = {
            "before": [],
            "columns": [],
            "after": [],
        }
        self.given: list[Given] = []
        self.numbers: list[tuple[HostNumber, str]] = []
        self.examples: Given
        self.buffers: list[tuple[str, int]] = []
        self.rows = self.multiplications = self.largest = 0
        self._names = 0

    def name(self, what: str) -> str:
        """Return a name that nothing else has."""
        self._names += 1
        return f"{what}_{self._names}"

    def note(self, section: str, line: str | Callable[[Any], str], *, meet: bool = False) -> None:
        """Note a line down; ``meet`` where what follows reads what other threads have written."""
        self.sections[section].append(line)
        if meet:
            self.sections[section].append("__syncthreads();")

    def hand(self, leaf: int, array: Array, axes: Sequence[str]) -> Given:
        """Return what stands for an array that the program is handed."""
        own = tuple(
            size
            for size, kind in zip(array.shape, axes, strict=True)
            if kind not in {"step", "network"}
        )
        kind = {"l": "Long", "q": "Long", "d": "double", self.char: "Real"}.get(array.dtype.char)
        if kind is None or not array.size:
            raise UnrecordableError(f"{array.dtype}")
        found = Given(self.name("given"), leaf, tuple(axes), own, kind)
        self.given.append(found)
        return found

    def hand_number(self, number: HostNumber) -> Scalar:
        """Return what stands for a number that the program is handed."""
        self.numbers.append((number, self.name("number")))
        return Scalar(self, self.numbers[-1][1])

    def columns(self, rows: int, m: int) -> Columns:
        """Return a matrix that there is room for on the chip."""
        made = Columns(self.name("columns"), (rows, m))
        self.buffers.append((made.name, self.rows))
        self.rows += rows
        return made

    def of_example(self, array: Given, column: str) -> str:
        """Return the expression for a column's number in an array with one for each example."""
        return array.at(self.example(column))

    def example(self, column: str) -> str:
        """Return the expression for which example a column of the minibatch is."""
        return self.examples.at(f"({column})")

    def code(self, number: Any) -> str:
        """Return the expression for a number, rounded once to the program's type."""
        if isinstance(number, Scalar):
            return number.code
        if not isinstance(number, float | int) or not math.isfinite(number):
            raise UnrecordableError(f"the number {number}")
        return f"Real({float(number)!r})"

    def scalar(self, code: str, *, late: bool) -> Scalar:
        """Note a number down."""
        name = self.name("number")
        self.note("after" if late else "before", f"const Real {name} = {code};")
        return Scalar(self, name, late)


class Namespace:
    """The functions that a recorded step sees: those that gpunet's own formulas take of vectors and numbers."""

    def __init__(self, tape: Tape) -> None:
        self._tape = tape
        self._sums: dict[int, tuple[Value, Scalar]] = {}

    def __getattr__(self, name: str) -> NoReturn:
        raise UnrecordableError(name)

    def matmul(self, left: Any, right: Any) -> Product:
        """Return left @ right, for Θ or its transpose and columns."""
        if not isinstance(left, Seen) or not isinstance(right, Columns | Gathered):
            raise UnrecordableError("a product")
        return Product(left, right)

    def matrix_transpose(self, matrix: Any) -> Seen:
        """Return the transpose of a Θ."""
        if not isinstance(matrix, Seen):
            raise UnrecordableError("a transpose")
        return matrix.transposed()

    def sum(self, values: Any, *, axis: int, keepdims: bool = False) -> Scalar:
        """Return the sum of squares, or of a minibatch's weights."""
        if axis != -1 or not isinstance(values, Squares | Gathered) or values.ndim != 1:
            raise UnrecordableError("a sum")
        if id(values) not in self._sums:
            self._sums[id(values)] = values, self._summed(values)
        return self._sums[id(values)][1]

    def _summed(self, values: Squares | Gathered) -> Scalar:
        tape, part = self._tape, self._tape.name("part")
        if isinstance(values, Squares):
            section, number = "after", f"{values.of.name}[p]"
            term = f"{number} * {number}"
        else:
            section, term = "before", tape.of_example(values.of, "p")
        loop = f"EACH_OF_BLOCK(p, {values.shape[0]}) {part} += {term};"
        tape.note(section, f"Real {part} = 0; {loop}")
        return tape.scalar(f"over_block({part}, shared)", late=section == "after")

    def sqrt(self, number: Any) -> Scalar:
        """Return the square root of a number."""
        return self._tape.scalar(f"sqrt({number.code})", late=number.late)

    def maximum(self, number: Any, other: Any) -> Scalar:
        """Return the larger of two numbers, NaN if one is."""
        return number.combined(other, "{0} < {1} ? {1} : {0}")  # type: ignore[no-any-return]

    def where(self, condition: Any, one: Any, other: Any) -> Scalar:
        """Return one where the condition holds, else the other."""
        code = f"{condition.code} != Real(0) ? {self._tape.code(one)} : {self._tape.code(other)}"
        return self._tape.scalar(code, late=condition.late)

    def astype(self, number: Any, dtype: Any) -> Scalar:
        """Return a number that a comparison gave: it is 0 or 1 already."""
        return number  # type: ignore[no-any-return]

    def ones_like(self, number: Any) -> Scalar:
        """Return 1."""
        return self._tape.scalar("Real(1)", late=False)
