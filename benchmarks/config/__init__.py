"""From overrides to trials: the configuration of a run, its identity and its directory."""
