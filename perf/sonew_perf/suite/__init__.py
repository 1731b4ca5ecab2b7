"""What `sonew-perf run` measures: groups of workloads derived from the kernel specs, each in a process of its own."""
