"""Writing lazily pullable images."""
