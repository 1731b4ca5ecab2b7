"""What training with an optimizer gains."""
