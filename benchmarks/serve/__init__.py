"""Reading through the mount when everything is here already: against ext4 and a minimal file system in C."""
