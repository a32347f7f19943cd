"""Storage hosts: directories that are served to nodes. Knows no NATS and no grants, only who may mount what now."""
