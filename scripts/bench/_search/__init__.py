"""The parts of `scripts/bench/search`."""
