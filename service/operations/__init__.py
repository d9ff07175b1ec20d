"""What an operator sees and sets: metrics, logs, the life of the server process."""
