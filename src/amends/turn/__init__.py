"""What one turn may say, collected as data. Pure."""
