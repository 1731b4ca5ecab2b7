"""Records on disk: written whole, read without trust, indexed."""
