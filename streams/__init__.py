"""What the bus decides: pure rules, thin agents, and the store in which truth and offsets live together."""
