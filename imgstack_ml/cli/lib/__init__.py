"""What the commands share: their options, the run, its output, and the messages on the terminal."""
