"""What recorders share: primitives that note a training step down instead of taking it.

A step of `gpunet.step` calls its primitives and nothing else. Called once with a recorder in their place and values
of known shapes in place of arrays, it tells all that there is to do; the backend then does it in a way of its own.
"""

from __future__ import annotations


class UnrecordableError(Exception):
    """A step does what a program can't hold."""
