"""Measurements of this project that people can rerun: the step's speed beside its peers, and what training with it gains."""
