"""The race on a GPU: who takes part, and what each is asked."""
