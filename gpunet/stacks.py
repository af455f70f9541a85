"""Many networks of one shape, trained as one program.

A `Stack` runs the same `gpunet.step.TrainingStep` as a single network, with a leading axis on all that differs:
θ (K, P), the optimizer's memory, learning rates, λ, dropout, the examples. Each network sees exactly the minibatches
that it would have seen alone; where all of them see the same, as candidates of a search on one fold with one seed do,
a minibatch is gathered once.
"""

from __future__ import annotations

import copy
import dataclasses
import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from array_api_compat import array_namespace

from gpunet.backend import Backend, dtype_name
from gpunet.dropout import key_of
from gpunet.loss_scaling import start as first_scale
from gpunet.network import Architecture
from gpunet.optimizers import Optimizer
from gpunet.step import Carry, Settings, TrainingStep
from gpunet.training import LearningRate, at_once, of_each
from gpunet.typing import Array, HostArray

T = TypeVar("T")


@dataclass(eq=False)
class Member:
    """One network of a stack: what of it may differ from the others.

    Attributes
    ----------
    theta : array of shape (P,)
        Where it starts.
    optimizer : Optimizer
        Of one class in a stack; its numbers may differ.
    random : numpy.random.RandomState
        Draws the shuffles. Members may share one if all of a stack do.
    rows : NumPy array of int, shape (n,)
        The examples to train on; as many for all.
    l2 : float
        λ.
    weights : array of shape (n of all examples,), optional
        Sample weights; all members have some, or none has.
    dropout : tuple of float
        Each hidden layer's share; a layer drops in all members or in none.
    clip : float, optional
        The length that a gradient may have; all have one, or none has.
    learning_rate : float or callable
        Of the next epoch; a callable gives that of step number 1, 2, ...
    """

    theta: Array
    optimizer: Optimizer
    random: Any
    rows: HostArray
    l2: float = 0.0
    weights: Array | None = None
    dropout: tuple[float, ...] = ()
    clip: float | None = None
    learning_rate: LearningRate = 0.0


@dataclass(eq=False)
class _Lane:
    """Members that see the same minibatches: their shuffles come from equal generators."""

    random: Any
    rows: HostArray
    order: HostArray | None = None
    seed: int | None = None
    left: Any = None  # the generator that a member has left with last, and after which step: others may share it

    def shuffle(self) -> HostArray:
        """Return the examples in the next epoch's order: each shuffle shuffles the last one's."""
        n = self.rows.shape[0]
        self.order = self.random.permutation(n if self.order is None else self.order)
        return self.rows[self.order]


class Stack:
    """Networks that are trained as one.

    Parameters
    ----------
    architecture : Architecture
        That of all.
    x : array of shape (s_1, n)
    y : array of shape (K, n)
        All examples, held once; members choose theirs.
    members : sequence of Member
    backend : Backend
    batch_size : int
        Examples a step; the last step of an epoch takes what is left.
    shuffle : bool
        Whether each epoch sees the examples in a new order.

    Attributes
    ----------
    members : list of Member
        Those that are in it.
    theta : array of shape (members, P)
        The parameters now.
    slots : tuple of array of shape (members, P)
        The optimizer's memory.
    steps : int
        How many steps an epoch has.
    step : int
        How many there were.
    """

    def __init__(
        self,
        architecture: Architecture,
        x: Array,
        y: Array,
        members: Sequence[Member],
        *,
        backend: Backend,
        batch_size: int,
        shuffle: bool = True,
    ) -> None:
        xp, first = backend.xp, members[0]
        self._backend, self.members, self._shuffle = backend, list(members), shuffle
        self.n: int = first.rows.shape[0]
        self.batch_size = min(batch_size, self.n)
        self.steps, self.step = math.ceil(self.n / self.batch_size), 0
        self.theta = xp.stack([member.theta for member in members])
        self.slots = first.optimizer.start(xp, self.theta)
        self._lanes, self._lane = _lanes(members, shuffle=shuffle)
        # The learning rate comes with every step, so that it is no part of the program.
        rules = [dataclasses.replace(member.optimizer, learning_rate=1.0) for member in members]
        self._rules, self._rule = _distinct(rules)
        self._x, self._y, self._own = x, y, self._settings()
        l2 = {member.l2 for member in members}
        self._l2 = self._like([m.l2 for m in members]) if len(l2) > 1 else first.l2
        self._weights = first.weights
        if any(member.weights is not first.weights for member in members):
            self._weights = xp.stack([member.weights for member in members])
        drops = first.dropout if any(first.dropout) else ()
        scaled = backend.scales_losses(dtype_name(self.theta))
        self._scale = first_scale(xp, self.theta) if scaled else None
        self._run = backend.compile(
            TrainingStep(architecture, rules[0], drops, first.clip, scaled=scaled)
        )

    def _settings(self) -> Settings:
        """Return the members' own numbers where they differ."""
        members = self.members
        own: Settings = {}
        numbers = {
            field.name: [[getattr(member.optimizer, field.name)] for member in members]
            for field in dataclasses.fields(members[0].optimizer)
            if field.name != "learning_rate"
        }
        differing = {
            name: self._like(values) for name, values in numbers.items() if _differ(values)
        }
        if differing:
            own["optimizer"] = differing
        if _differ([member.dropout for member in members]):
            layers = zip(*(member.dropout for member in members), strict=True)
            own["dropout"] = tuple(
                self._backend.asarray(list(layer), "float64") for layer in layers
            )
        if _differ([member.clip for member in members]):
            own["clip"] = self._like([[member.clip] for member in members])
        return own

    def _like(self, numbers: Any) -> Array:
        """Return host numbers as an array of θ's dtype on the device."""
        return self._backend.asarray(numbers, dtype_name(self.theta))

    def run(self) -> Array:
        """Move all members on by an epoch and return each one's mean cost, (members,) on the device."""
        return self.run_ahead(1)[0]

    def run_ahead(self, epochs: int, stop: Callable[[], bool] = lambda: False) -> list[Array]:
        """Move all members on by up to so many epochs, which nobody looks at in between; return their mean costs.

        Fewer if they would take long. One that is asked to stop may leave them within an epoch, whose cost isn't known.
        """
        networks, parameters = self.theta.shape
        epochs = at_once(self._backend, epochs, self.steps, parameters, self.batch_size, networks)
        numbers = range(self.step + 1, self.step + 1 + epochs * self.steps)
        rates = self._rates(numbers)
        if any(self.members[0].dropout):
            rates = (self._keys(numbers), *rates)
        data = (self._x, self._y, self._weights, self._l2, self._own)
        carry: Carry = (self.theta, self.slots, self._like([0.0] * len(self.members)))
        if self._scale is not None:
            carry = (*carry, self._scale)
        parts = self._batches(self._orders(epochs), rates)
        carry, totals = self._backend.epochs(self._run, carry, parts, data, stop)
        self.theta, self.slots, _, *more = carry
        self._scale = more[0] if more else None
        self.step += min(epochs, len(totals) + 1) * self.steps
        return [total / self.n for total in totals]

    def _rates(self, numbers: range) -> tuple[Array, ...]:
        """Return the optimizers' rates, (steps, members, 1) each; equal ones are computed once."""
        factors = [  # of the learning rate: by rule, rate and step
            [*zip(*(rule.rates(number, 1.0) for number in numbers), strict=True)]
            for rule in self._rules
        ]
        learning_rates = [member.learning_rate for member in self.members]
        known, which = _distinct([*zip(self._rule, learning_rates, strict=True)])
        steps = [[*of_each(learning_rate, numbers)] for _, learning_rate in known]
        chosen = self._backend.asarray(which, "int64")
        rates = []
        for i in range(len(factors[0])):
            columns = [
                map(operator.mul, factors[rule][i], each)
                for (rule, _), each in zip(known, steps, strict=True)
            ]
            table = self._like([*zip(*columns, strict=True)])
            rates.append(self._backend.xp.take(table, chosen, axis=1)[..., None])
        return tuple(rates)

    def _keys(self, numbers: range) -> Array:
        """Return dropout's keys, (steps, members)."""
        for lane in self._lanes:
            if lane.seed is None:
                lane.seed = int(lane.random.randint(2**31 - 1))
        seeds = [self._lanes[lane].seed or 0 for lane in self._lane]
        keys = [[key_of(seed, number) for seed in seeds] for number in numbers]
        return self._backend.asarray(keys, "int64")

    def _orders(self, epochs: int) -> Array:
        """Return the next epochs' examples: (epochs, n) where all members see the same, else (epochs, members, n)."""
        asarray, xp = self._backend.asarray, self._backend.xp
        drawn = [
            lane.shuffle() if self._shuffle else lane.rows
            for _ in range(epochs)
            for lane in self._lanes
        ]
        orders = asarray(array_namespace(*drawn).stack(drawn))  # one way to the device for all
        lanes = len(self._lanes)
        if lanes == 1:
            return orders
        of_lanes = xp.reshape(orders, (epochs, lanes, self.n))
        return xp.take(of_lanes, asarray(self._lane, "int64"), axis=1)

    def _batches(self, order: Array, rates: tuple[Array, ...]) -> list[tuple[Array, ...]]:
        """Return the epochs' full batches by step, (epochs, steps, ...), then their partial last ones."""
        xp, epochs, full = self._backend.xp, order.shape[0], self.n // self.batch_size
        rates = tuple(xp.reshape(rate, (epochs, self.steps, *rate.shape[1:])) for rate in rates)
        whole = full * self.batch_size
        shape = (*order.shape[:-1], full, self.batch_size)
        batches = xp.reshape(order[..., :whole], shape)
        if batches.ndim > 3:  # each member has its own
            batches = xp.permute_dims(batches, (0, 2, 1, 3))
        parts = [(batches, *(rate[:, :full, ...] for rate in rates))]
        if whole < self.n:
            parts.append((order[:, None, ..., whole:], *(rate[:, full:, ...] for rate in rates)))
        return parts

    def keep(self, members: Sequence[int]) -> None:
        """Go on with these members only, given as indices; the others leave the stack."""
        chosen = self._backend.asarray(list(members), "int64")

        def part(array: Array) -> Array:
            return self._backend.xp.take(array, chosen, axis=0)

        self.members = [self.members[k] for k in members]
        self._lanes, self._lane = _distinct([self._lanes[self._lane[k]] for k in members])
        self._rules, self._rule = _distinct([self._rules[self._rule[k]] for k in members])
        self.theta, self.slots = part(self.theta), tuple(part(slot) for slot in self.slots)
        if self._scale is not None:
            factor, steps = self._scale
            self._scale = part(factor), part(steps)
        if not isinstance(self._l2, float):
            self._l2 = part(self._l2)
        if self._weights is not None and self._weights.ndim > 1:
            self._weights = part(self._weights)
        own = self._own
        if "optimizer" in own:
            own["optimizer"] = {name: part(array) for name, array in own["optimizer"].items()}
        if "dropout" in own:
            own["dropout"] = tuple(part(array) for array in own["dropout"])
        if "clip" in own:
            own["clip"] = part(own["clip"])

    def leave_generator(self, member: int) -> None:
        """Move a member's own generator to where it would be alone."""
        lane, random = self._lanes[self._lane[member]], self.members[member].random
        if random is not lane.random and lane.left != (random, self.step):
            random.set_state(lane.random.get_state())
            lane.left = random, self.step


def _lanes(members: Sequence[Member], *, shuffle: bool) -> tuple[list[_Lane], list[int]]:
    """Return the lanes, and which one each member is in."""
    drawn = shuffle or any(members[0].dropout)
    generators: dict[int, Any] = {id(member.random): None for member in members}
    if drawn and len(generators) > 1:
        distinct = {id(member.random): member.random for member in members}
        generators = {key: _state(random) for key, random in distinct.items()}
    keys = [(id(member.rows), generators[id(member.random)]) for member in members]
    first = dict(zip(reversed(keys), reversed(members), strict=True))
    names, which = _distinct(keys)
    lanes = [_Lane(first[key].random, first[key].rows) for key in names]
    if len(lanes) > 1:  # each a generator of its own, which goes on when its member has left
        for lane in lanes:
            lane.random = copy.deepcopy(lane.random)
    return lanes, which


def _distinct(values: Sequence[T]) -> tuple[list[T], list[int]]:
    """Return the values that differ, and which of them each one is."""
    known: dict[T, int] = {}
    which = [known.setdefault(value, len(known)) for value in values]
    return list(known), which


def _state(random: Any) -> Any:
    """Return a generator's state, to compare."""
    _, words, *rest = random.get_state()
    return words.tobytes(), *rest


def _differ(values: list[Any]) -> bool:
    return any(value != values[0] for value in values)
