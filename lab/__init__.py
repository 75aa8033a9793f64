"""The real parts around the daemon: registries, podmans, images and other people's converters."""
