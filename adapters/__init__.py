"""Everything that touches the world, one folder for each outside thing; one never imports another."""
