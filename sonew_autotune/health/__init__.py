"""What `doctor` looks at: one machine's software, GPU, clocks, folders and store, as pure checks over described facts."""
