"""What a search prints: scikit-learn's lines, and one on what is trained in stacks."""

from __future__ import annotations

from collections import Counter
from typing import Any

from joblib import logger

from gpunet.search.recipes import Params


def summary(n: int, reasons: Counter[str]) -> str:
    """Return how many of n networks are trained in stacks, and why the others aren't.

    Examples
    --------
    >>> summary(6, Counter())
    '6 networks are trained in stacks.'
    >>> summary(6, Counter({"solver='lbfgs'": 2}))
    "4 networks are trained in stacks, 2 one by one (solver='lbfgs': 2)."
    """
    singly = sum(reasons.values())
    text = f"{n - singly} networks are trained in stacks"
    if singly:
        why = ", ".join(f"{reason}: {count}" for reason, count in reasons.most_common())
        text += f", {singly} one by one ({why})"
    return text + "."


def start_of(place: str, params: Params) -> str:
    """Return scikit-learn's line on a candidate that is about to be fitted."""
    text = f"[CV{place}] START {_in_words(params)}"
    return text + "." * (80 - len(text))


def end_of(place: str, params: Params, result: dict[str, Any], *, scores: bool) -> str:
    """Return scikit-learn's line on a candidate that has been fitted and scored."""
    words = _in_words(params)
    text = words + (";" if words else "")
    test, train = result["test_scores"], result.get("train_scores")
    if scores and isinstance(test, dict):
        for name in sorted(test):
            before = "" if train is None else f"train={train[name]:.3f}, "
            text += f" {name}: ({before}test={test[name]:.3f})"
    elif scores:
        text += ", score="
        text += f"{test:.3f}" if train is None else f"(train={train:.3f}, test={test:.3f})"
    seconds = logger.short_format_time(result["fit_time"] + result["score_time"])
    text += f" total time={seconds}"
    start = f"[CV{place}] END "
    return start + "." * (80 - len(start) - len(text)) + text


def _in_words(params: Params) -> str:
    return ", ".join(f"{name}={params[name]}" for name in sorted(params))
