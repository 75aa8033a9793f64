"""What podman, buildah and CRI-O keep on this host: containers-storage's graph roots."""
