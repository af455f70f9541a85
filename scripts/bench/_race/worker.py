"""One contestant in a process of its own, which answers questions one at a time and is idle in between."""

import contextlib
import gc
import importlib
import math
import multiprocessing
import os
import resource
import time
import warnings
from pathlib import Path

from _race.memory import peak_memory

CLEARED = (
    # Where these two are set, for the sake of old releases, a current NumPy runs slower kernels than users' do.
    "OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE",
    # how many threads, and how they wait
    "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS", "NUMBA_NUM_THREADS",
    "OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "XLA_FLAGS",
    # what becomes of freed memory, and so page faults
    "MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TOP_PAD_", "GLIBC_TUNABLES",
    "GPUNET_BACKEND", "GPUNET_NUMBA",
)  # fmt: skip


def prepare_environment(cores):
    """Clear what would change speeds, and keep this process and all that it starts to so many cores.

    All libraries take as many threads as cores they may run on.
    """
    for name in CLEARED:
        os.environ.pop(name, None)
    os.environ.update(CUDA_VISIBLE_DEVICES="", JAX_PLATFORMS="cpu")
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])


class Refusal(Exception):  # noqa: N818
    """Why a contestant can't answer."""


class Worker:
    """The process as its parent sees it.

    Parameters
    ----------
    name : str
        The contestant's.
    """

    def __init__(self, name):
        context = multiprocessing.get_context("spawn")
        self.name = name
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, name), daemon=True)
        self._process.start()
        theirs.close()

    def tell(self, method, *arguments):
        """Ask a method of `Answers`; `hear` returns its answer."""
        with contextlib.suppress(BrokenPipeError):  # `hear` tells of it
            self._pipe.send((method, arguments))

    def hear(self):
        """Return the answer.

        Raises
        ------
        Refusal
            In the contestant's words.
        """
        try:
            ok, answer = self._pipe.recv()
        except (EOFError, ConnectionError):
            self._process.join()
            raise Refusal(f"its process ended with code {self._process.exitcode}") from None
        if not ok:
            raise Refusal(answer)
        return answer

    def ask(self, method, *arguments):
        """Tell and hear."""
        self.tell(method, *arguments)
        return self.hear()

    def close(self):
        """End the process."""
        self._pipe.close()
        self._process.join(timeout=10)
        self._process.terminate()


def _serve(pipe, name):
    """Answer until the parent goes."""
    warnings.simplefilter("ignore")  # a few epochs don't converge
    os.dup2(2, 1)  # what a library prints isn't the benchmark's output
    answers = Answers(name)
    while True:
        try:
            method, arguments = pipe.recv()
        except EOFError:
            return
        try:
            pipe.send((True, getattr(answers, method)(*arguments)))
        except Exception as error:
            words = str(error).partition("\n")[0]
            if type(error).__name__ != "UnsuitedError":
                words = f"{type(error).__name__}: {words}"
            pipe.send((False, words))


class Answers:
    """What a contestant can be asked."""

    def __init__(self, name):
        self._name, self._contestant = name, None

    def prepare(self, workload):
        """Load the library and make the data ready."""
        from _contestants import find
        from _contestants.workloads import examples

        contestant = find(self._name)
        self._contestant = None  # that of another workload, and its memory
        gc.unfreeze()
        examples.cache_clear()
        self._contestant = contestant(workload, *examples(workload))
        self._workload, self._extra = workload, None

    def check(self):
        """Fit some; return what the very first fit took, the peak of memory, and the losses reached."""
        from _contestants.workloads import loss

        workload, contestant = self._workload, self._contestant
        ready = peak_memory()
        first, _ = self._fit(workload.checked[0])
        learned = [contestant.parameters()]
        for epochs in workload.checked[1:]:
            contestant.fit(epochs)
            learned.append(contestant.parameters())
        memory = peak_memory()  # of training; computing the losses needs more
        losses = [None if each is None else loss(workload, each) for each in learned]
        return {"first": first, "ready": ready, "memory": memory, "losses": losses}

    def first_use(self):
        """Return the seconds of importing what compiles, of the first fit of this process and of one like it."""
        start = time.perf_counter()
        if self._contestant.compiler is not None:
            importlib.import_module(self._contestant.compiler)
        load = time.perf_counter() - start
        first, again = (self._fit(self._workload.few)[0] for _ in range(2))
        return {"load": load, "first": first, "again": again}

    def train(self, seconds):
        """Return a trial of at least so many seconds: microseconds and page faults a step, and the rest of a fit."""
        workload = self._workload
        if self._extra is None:
            self._extra = self._enough(seconds)
        few, extra = workload.few, self._extra
        spent = faults = short = passes = 0
        while spent < 0.8 * seconds:  # speed drifts a little
            (less, few_faults), (more, many_faults) = self._fit(few), self._fit(few + extra)
            spent, faults = spent + more - less, faults + many_faults - few_faults
            short, passes = short + less, passes + 1
            if passes > 10_000:
                raise RuntimeError("more epochs take no more time")
        epoch = spent / passes / extra
        return {
            "us": epoch / workload.steps * 1e6,
            "faults": faults / (passes * extra * workload.steps),
            "fixed": short / passes - few * epoch,
        }

    def _enough(self, seconds):
        """Return how many epochs more than few of them take so long."""
        workload = self._workload
        if workload.many is not None:
            return workload.many - workload.few
        self._fit(workload.few)  # compiles, where something is compiled
        less, extra = self._fit(workload.few)[0], 1
        while (spent := self._fit(workload.few + extra)[0] - less) < seconds:
            extra = math.ceil(extra * min(10, max(1.5, 1.2 * seconds / max(spent, 1e-9))))
        return extra

    def predict(self, rows, seconds):
        """Return the microseconds of a prediction from NumPy rows to NumPy labels."""
        from _contestants.workloads import examples

        X, _ = examples(self._workload, rows)
        return self._repeated(lambda: self._contestant.predict(X), seconds)

    def fit(self, seconds):
        """Return the microseconds of a fit of one epoch."""
        return self._repeated(lambda: self._contestant.fit(1), seconds)

    def undisturbed(self, patience, method, *arguments):
        """Return an answer, and the share of a core that others took meanwhile; once more where it was a tenth."""
        for attempt in range(1 + patience):
            if attempt:
                time.sleep(attempt)
            gc.collect()
            gc.freeze()  # or a collection among all that a library has loaded falls into a fit, or not
            start, before = time.perf_counter(), others()
            answer = getattr(self, method)(*arguments)
            share = max(0.0, others() - before) / (time.perf_counter() - start)
            if share < 0.1:
                break
        return answer, share

    def memory(self):
        """Return the most memory the process has held, in MB."""
        return peak_memory()

    def libraries(self):
        """Return the pools of threads in this process."""
        from threadpoolctl import threadpool_info

        wanted = ("user_api", "internal_api", "version", "architecture", "num_threads")
        return [{key: pool.get(key) for key in wanted} for pool in threadpool_info()]

    def _fit(self, epochs):
        """Return the seconds and the page faults that a fit takes."""
        faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        start = time.perf_counter()
        self._contestant.fit(epochs)
        seconds = time.perf_counter() - start
        return seconds, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults

    @staticmethod
    def _repeated(call, seconds):
        call()
        calls, start = 0, time.perf_counter()
        while (spent := time.perf_counter() - start) < seconds:
            call()
            calls += 1
        return spent / calls * 1e6


def others():
    """Return the seconds that this process's cores have worked for others, other virtual machines included.

    Known on Linux only, to a hundredth of a second.
    """
    try:
        lines = Path("/proc/stat").read_text().splitlines()
    except OSError:
        return 0.0
    mine = {f"cpu{core}" for core in os.sched_getaffinity(0)}
    ticks = 0
    for line in lines:
        name, *spent = line.split()
        if name in mine:
            user, nice, system, _idle, _waiting, interrupts, more_interrupts, stolen = spent[:8]
            busy = (user, nice, system, interrupts, more_interrupts, stolen)
            ticks += sum(map(int, busy))
    return ticks / os.sysconf("SC_CLK_TCK") - time.process_time()
