"""Contestants in turns, each in its own process; medians and ratios of what they answer."""

import statistics
import sys
import time
from dataclasses import dataclass

from _race.worker import Refusal, Worker

ENOUGH = 3
"""Rounds that are measured whatever they take."""


@dataclass(frozen=True)
class Pace:
    """How much is measured.

    Parameters
    ----------
    rounds : int
        Each asks every contestant once, every other one in reversed order.
    seconds : float
        The least that a trial takes.
    pause : float
        Seconds before a trial: idle threads of the one before have stopped spinning by then.
    patience : int
        How often a trial is repeated during which others kept the processor busy.
    minutes : float
        No further round begins after so many, once there are three.
    """

    rounds: int = 7
    seconds: float = 0.3
    pause: float = 0.2
    patience: int = 3
    minutes: float = 10.0


class Race:
    """A process for each contestant, for one workload or several, one after the other.

    Parameters
    ----------
    names : list of str
    pace : Pace

    Attributes
    ----------
    absent : dict of str
        Why a contestant doesn't answer any more, by name; forgotten with the next workload.
    """

    def __init__(self, names, pace):
        self.pace = pace
        self._workers = {name: Worker(name) for name in names}
        self.absent = {}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for worker in self._workers.values():
            worker.close()

    def prepare(self, workload):
        """Let all make ready for a workload, side by side: nothing is measured."""
        self.absent = {}
        for worker in self._workers.values():
            worker.tell("prepare", workload)
        for name, worker in self._workers.items():
            self._note(name, worker.hear)

    def dismiss(self, name):
        """Let a contestant go for good, if it is there."""
        if name in self._workers:
            self._workers.pop(name).close()

    def once(self, method, *arguments, reverse=False):
        """Return the contestants' answers by name, asked one after the other."""
        names = [name for name in self._workers if name not in self.absent]
        answers = {}
        for name in reversed(names) if reverse else names:
            time.sleep(self.pace.pause)
            answer = self._note(name, self._workers[name].ask, method, *arguments)
            if answer is not None:
                answers[name] = answer
        return {name: answers[name] for name in names if name in answers}

    def rounds(self, what, method, *arguments):
        """Return the answers in all rounds of those who have answered in all of them, a list for each.

        And the largest share of a core that others took in a trial, which should be little.
        """
        turns, question = [], ("undisturbed", self.pace.patience, method, *arguments)
        end = time.monotonic() + 60 * self.pace.minutes
        for number in range(self.pace.rounds):
            if number >= ENOUGH and time.monotonic() > end:
                break
            tell(f"{what}: round {number + 1} of {self.pace.rounds}", end="")
            turns.append(self.once(*question, reverse=number % 2 == 1))
        tell("", end="")
        trials = {name: [turn[name][0] for turn in turns] for name in turns[-1]}
        return trials, max((turn[name][1] for turn in turns for name in trials), default=0.0)

    def _note(self, name, call, *arguments):
        """Return a call's answer; note a refusal, and return None."""
        try:
            return call(*arguments)
        except Refusal as refusal:
            self.absent[name] = str(refusal)
            tell(f"{name}: skipped, {refusal}")
        return None


def tell(words, end="\n"):
    """Say how far it is, in place of what was said before."""
    print(f"\r\033[K{words}", end=end, file=sys.stderr, flush=True)


def summary(trials, reference):
    """Return each contestant's median, how far it was off, and its ratio to the reference.

    The ratio is the median of those within a round, which what slows the machine for a minute doesn't change.

    Parameters
    ----------
    trials : dict of list of float
        By name, a number for each round.
    reference : str
    """
    found = {}
    for name, numbers in trials.items():
        middle = statistics.median(numbers)
        row = {"median": middle, "trials": numbers}
        row["off"] = statistics.median(abs(number - middle) for number in numbers) / middle
        if reference in trials:
            pairs = zip(numbers, trials[reference], strict=True)
            row["ratio"] = statistics.median(ours / theirs for ours, theirs in pairs)
        found[name] = row
    return found
