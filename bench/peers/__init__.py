"""What others offer for the same work, each in its own process; the table of them is in ``bench.peers.table``."""
