"""A recorded program shared out to threads, against one thread and against the reference."""

import contextlib

import numpy as np
import pytest

from gpunet import losses
from gpunet.backend import Backend, get_backend

pytest.importorskip("numba", reason="numba isn't installed")

from gpunet.backends import (
    blas_threads,
    numba_kernels,
    numba_program,
    numba_recording,
    numba_shares,
)
from gpunet.backends.numba_program import Program, Programs
from gpunet.backends.numba_recording import DividedRecording
from gpunet.backends.numba_replay import ADDRESS, NOTHING, WAIT
from gpunet.backends.numba_shares import Region, Share, waits
from gpunet.backends.numba_tape import Operation
from program_helpers import epoch_of, step_of

M = 40


@pytest.fixture(params=[2, 3])
def threads(request, monkeypatch):
    """Any program is worth so many threads."""
    monkeypatch.setattr(blas_threads, "count", lambda: request.param)
    for name in ("_WORTH", "_A_PARAMETER", "_SPAN"):
        monkeypatch.setattr(numba_program, name, 1)
    monkeypatch.setattr(numba_shares, "LEAST", 4)
    return request.param


@pytest.fixture
def ways(monkeypatch):
    """Which ways were taken: True for together."""
    taken = []
    replay = DividedRecording._replay

    def noted(self, bases, first, last, *, together):
        taken.append(together)
        replay(self, bases, first, last, together=together)

    monkeypatch.setattr(DividedRecording, "_replay", noted)
    return taken


def always(monkeypatch, together):
    replay = DividedRecording._replay
    monkeypatch.setattr(
        DividedRecording,
        "_replay",
        lambda self, bases, first, last, **_: replay(self, bases, first, last, together=together),
    )


def trained(step, make, epochs=3):
    carry, batches, data = make()
    program = Program(step, carry, batches, data)
    for _ in range(epochs):
        carry = program.run(carry, batches, lambda: False)
    return carry


def same(mine, theirs, tolerance):
    pairs = [(mine[0], theirs[0]), (mine[2], theirs[2]), *zip(mine[1], theirs[1], strict=True)]
    for one, other in pairs:
        scale = max(1.0, np.abs(other).max())
        np.testing.assert_allclose(one, other, rtol=0, atol=tolerance * scale)


STEPS = {
    "adam": {},
    "momentum, tanh": {"rule": "momentum", "hidden": "tanh"},
    "nesterov, sigmoid": {"rule": "nesterov", "hidden": "sigmoid"},
    "gradient descent": {"rule": "gradient_descent"},
    "nadam": {"rule": "nadam"},
    "adamw, gelu": {"rule": "adamw", "hidden": "gelu"},
    "rmsprop": {"rule": "rmsprop", "hidden": "leaky_relu"},
    "clipped": {"clip": 0.1},
    "whole": {"whole": True},
    "squared error": {"output": "identity", "loss": losses.SquaredError()},
    "logistic": {"output": "sigmoid", "loss": losses.ClippedCrossEntropy()},
}


@pytest.mark.parametrize("settings", STEPS.values(), ids=STEPS)
@pytest.mark.parametrize("weighted", [False, True], ids=["", "weights"])
def test_threads_compute_what_the_step_says(settings, weighted, threads, ways, dtype):
    step = step_of(**settings)
    weights = np.random.RandomState(1).uniform(size=11).astype(dtype) if weighted else None
    make = epoch_of(step, "single", dtype, m=M, steps=9, weights=weights)
    mine = trained(step, make)
    assert True in ways
    plain, batches, data = make()
    epoch = Backend.compile(get_backend("numpy"), step)
    for _ in range(3):
        plain = epoch(plain, batches, data, lambda: False)
    same(mine, plain, {"float64": 1e-12, "float32": 2e-4}[dtype])


@pytest.mark.parametrize("settings", STEPS.values(), ids=STEPS)
def test_one_thread_gives_the_very_same(settings, threads, monkeypatch, dtype):
    """Whether there are processors for all threads must not change a bit."""
    step = step_of(**settings)
    make = epoch_of(step, "single", dtype, m=M, steps=300)
    with monkeypatch.context() as patch:
        always(patch, True)
        together = trained(step, make)
    always(monkeypatch, False)
    same(together, trained(step, make), 0.0)


@pytest.mark.parametrize(
    ("to_begin", "together", "in_turn", "faster"),
    [(1.0, 1.0, 2.0, True), (100.0, 1.0, 2.0, False), (0.0, 2.0, 1.0, False)],
    ids=["threads", "threads begin too slowly", "threads wait too long"],
)
def test_the_faster_way_is_taken(  # noqa: PLR0917  # what was measured, and what follows
    to_begin, together, in_turn, faster, threads, ways
):
    step = step_of()
    carry, batches, data = epoch_of(step, "single", "float64", m=M, steps=16)()
    program = Program(step, carry, batches, data)
    program.run(carry, batches, lambda: False)
    assert ways[:3] == [True, True, False]  # both are tried, the first time for nothing
    recording = program._divided
    recording._to_begin, recording._took = to_begin, {True: together, False: in_turn}
    recording._replays, recording._rest = 0, recording.trial
    program.run(carry, batches, lambda: False)
    assert ways[4:] == [faster]
    for _ in range(recording.trial):
        program.run(carry, batches, lambda: False)
    assert ways[-3:-1] == [True, False]  # and again


def test_a_way_that_loses_is_tried_less_and_less(threads, ways, monkeypatch):
    step = step_of()
    make = epoch_of(step, "single", "float64", m=M, steps=16)
    carry, batches, data = make()
    program = Program(step, carry, batches, data)
    program.run(carry, batches, lambda: False)
    clock = iter(range(10**9))
    together = numba_recording.replay_together

    def slowly(*arguments):
        for _ in range(1000):
            next(clock)
        return together(*arguments)

    monkeypatch.setattr(numba_recording, "replay_together", lambda *a: slowly(*a) and 0)
    monkeypatch.setattr(numba_recording.time, "perf_counter", clock.__next__)
    recording, rests = program._divided, []
    recording._rest = recording.trial
    for _ in range(10):
        recording._replays = 10**9
        program.run(carry, batches, lambda: False)
        rests.append(recording._rest // recording.trial)
    assert rests == [2, 4, 8, 16, 32, 32, 32, 32, 32, 32]


@pytest.mark.parametrize("steps", [1, 2, 3, 7])
def test_few_steps_at_a_time_try_both_ways_too(steps, threads, ways, monkeypatch):
    step = step_of()
    carry, batches, data = epoch_of(step, "single", "float64", m=M, steps=8)()
    program = Program(step, carry, batches, data)
    program._steps = steps
    program.run(carry, batches, lambda: False)
    assert ways[:3] == [True, True, False]


def test_lambdas_part_belongs_to_the_update(threads):
    """And threads wait for the sum of the gradients, for that of Σ Θ², for the update and at the next step's begin."""
    step = step_of()
    make = epoch_of(step, "single", "float64", m=M)
    program = Program(step, *make())
    carry, batches, _ = make()
    program.run(carry, batches, lambda: False)
    alone, divided = program._alone._shares, program._divided._shares
    decay = numba_kernels.compiled("decay", "float64").address
    assert decay not in alone[..., ADDRESS]
    assert decay not in divided[..., ADDRESS]
    assert divided[0, :, WAIT].sum() <= 4


def test_where_no_thread_can_begin_one_does_it_all(threads, monkeypatch, dtype):
    step = step_of()
    make = epoch_of(step, "single", dtype, m=M, steps=9)
    expected = trained(step, make)
    started = []

    def start(*arguments):
        if started:
            raise RuntimeError("can't start new thread")
        started.append(begin(*arguments))

    begin = numba_recording._thread.start_new_thread
    if threads == 2:
        started.append(None)
    monkeypatch.setattr(numba_recording._thread, "start_new_thread", start)
    same(trained(step, make), expected, 0.0)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_helper_that_fails_at_once_is_not_waited_for(threads, monkeypatch):
    step = step_of()
    make = epoch_of(step, "single", "float64", m=M, steps=9)
    expected = trained(step, make)

    def fail():
        raise OSError("no such library")

    monkeypatch.setattr(blas_threads, "one_in_this_thread", fail)
    monkeypatch.setattr("sys.unraisablehook", lambda _: None)
    same(trained(step, make), expected, 0.0)


def test_fits_at_the_same_time_leave_blas_as_it_was():
    before = blas_threads.count()
    first, second = blas_threads.one(), blas_threads.one()
    with contextlib.ExitStack() as left_last:
        with first:
            assert blas_threads._now() == 1
            left_last.enter_context(second)
            assert blas_threads.count() == before  # what a fit would be told without the other
        assert blas_threads._now() == 1
    assert blas_threads._now() == blas_threads.count() == before


def test_the_last_few_examples_keep_blas_to_one_thread(threads, monkeypatch):
    monkeypatch.setattr(numba_program, "_SPAN", 10**5)
    limited = []
    one = blas_threads.one
    monkeypatch.setattr(blas_threads, "one", lambda: limited.append(True) or one())
    step = step_of()
    programs = Programs(step)

    def run(m, steps):
        carry, batches, data = epoch_of(step, "single", "float64", m=m, steps=steps)()
        programs.find(carry, batches, data).run(carry, batches, lambda: False)
        return len(limited)

    assert run(7, 1) == 0
    assert run(M, 99) == 1
    assert run(7, 1) == 2  # now that others have threads of their own


def test_blas_has_as_many_threads_afterwards(threads, monkeypatch):
    monkeypatch.undo()
    before = blas_threads.count()
    monkeypatch.setattr(blas_threads, "count", lambda: threads)
    for name in ("_WORTH", "_A_PARAMETER", "_SPAN"):
        monkeypatch.setattr(numba_program, name, 1)
    step = step_of()
    trained(step, epoch_of(step, "single", "float64", m=M))
    monkeypatch.undo()
    assert blas_threads.count() == before


@pytest.mark.parametrize(
    "settings", [{"dropout": (0.5, 0.0)}, {"rule": "adam"}], ids=["dropout", "stack"]
)
def test_what_is_not_divided(settings, threads, ways):
    step = step_of(**settings)
    keys = [np.arange(4)] if "dropout" in settings else []
    kind = "single" if keys else "stacked"
    trained(step, epoch_of(step, kind, "float64", m=M, keys=keys))
    assert not ways


def test_short_epochs_are_not_divided(threads, ways, monkeypatch):
    monkeypatch.setattr(numba_program, "_SPAN", 10**9)
    step = step_of()
    trained(step, epoch_of(step, "single", "float64", m=M))
    assert not ways


def test_all_examples_at_once_are_not_divided(threads, ways):
    step = step_of()
    trained(step, epoch_of(step, "single", "float64", m=M, steps=1))
    assert not ways


def share(*regions):
    return Share(Operation(NOTHING, 0, (), ()), tuple(Region(0, *each) for each in regions))


def test_threads_wait_where_one_needs_what_another_has_written():
    rounds = [
        (share((0, 8, True)), share((8, 16, True))),
        (share((0, 8, False)), share((8, 16, False))),  # each its own
        (share((8, 16, False)), share((0, 8, False))),  # the other's
        (share((8, 16, False)), share((16, 24, True))),
    ]
    # and before the first ones are written to again
    assert waits(rounds) == [True, False, True, False]


def test_nobody_waits_for_what_is_only_read():
    rounds = [(share((0, 8, False), (8, 12, True)), share((0, 8, False), (12, 16, True)))] * 3
    assert waits(rounds) == [False] * 3


def test_a_wait_within_a_step_may_do_for_the_next_one():
    """The second step's writing comes after the wait for the sum of the first one."""
    rounds = [
        (share((0, 8, True)), share((8, 16, True))),
        (share((0, 16, False), (16, 20, True)), share()),
        (share(), share((16, 20, False))),
    ]
    assert waits(rounds) == [False, True, True]
