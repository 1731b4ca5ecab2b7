"""A study as an HTML page: reading it, what follows from its numbers, and how they are shown."""
