"""What others offer for the same work, each in its own process."""
