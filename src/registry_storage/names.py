"""The names that the rest of the system knows us by, in one place."""

DAEMON = "registry-storage"
CONTROL = "registry-storagectl"
FILE_SYSTEM = "registry-storage"
"""Source and sub-type of the mount, as /proc/mounts shows them."""
DEFAULT_ROOT = "/var/lib/registry-storage"
DEFAULT_MOUNTPOINT = "/var/lib/registry-storage/store"
DEFAULT_CONFIG = "/etc/registry-storage/config.toml"
