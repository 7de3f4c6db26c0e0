"""Safe writing: a file appears whole or not at all, one process writes it at a time, and a full disk is explained."""
