"""What each page shows, as plain JSON values: pure functions of what the store holds."""
