"""What one optimizer step costs: the cases, the peers beside them, the host's part."""
