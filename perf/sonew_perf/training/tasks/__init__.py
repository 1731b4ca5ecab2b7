"""What is trained: a module per task, and the table of them."""
