"""Safe writing: files that are whole or not there, locks, and tensors."""
