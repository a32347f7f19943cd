"""Who may ask what, and what is answered."""
