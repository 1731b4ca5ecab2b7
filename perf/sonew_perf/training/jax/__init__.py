"""Trains in JAX with optax, in a process that does not load torch by itself (Triton does, where it is installed)."""
