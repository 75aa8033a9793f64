"""The host that the daemon runs on: what is right, what is wrong, and what belongs where."""
