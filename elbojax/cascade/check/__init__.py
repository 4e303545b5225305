"""What an answer is worth: importance weights, short chains, what went wrong."""
