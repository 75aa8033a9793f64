"""The subcommands of registry-storagectl."""
