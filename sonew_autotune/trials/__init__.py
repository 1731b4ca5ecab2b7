"""One trial: a candidate is checked, then timed beside the default, in a process of its own."""
