"""The attachment: a namespace mounted on the node of a rental."""
