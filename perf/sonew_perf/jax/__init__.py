"""Times the JAX surface beside optax, in processes that do not load torch by themselves (Triton does, where it is installed)."""
