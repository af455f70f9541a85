"""How contestants are measured: a process each, in turns, in both directions, and what is said of it."""
