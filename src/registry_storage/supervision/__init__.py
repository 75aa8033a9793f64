"""Who keeps the mount when the process that serves it ends: a supervisor, and the workers that it starts."""
