"""What a domain declares: data, what can be read off it, and the checks at the start."""
