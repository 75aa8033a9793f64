"""The file system that podman sees."""
