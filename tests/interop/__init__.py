"""The daemon with real podmans, a real registry, and images that other tools made."""
