"""The pages: views of the store as plain JSON, served on this machine or packed into one file."""
