"""What is kept: winners with their evidence, journals, files written whole or not at all."""
