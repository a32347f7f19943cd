"""What a domain declares. No behaviour here."""
