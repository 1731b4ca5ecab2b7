"""The search: which candidates are tried, when it ends, and what is decided."""
