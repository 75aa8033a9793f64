"""Cold starts after HelloBench: pull, create, run until ready, over links of several speeds."""
