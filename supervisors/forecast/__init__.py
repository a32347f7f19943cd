"""What a loss, a forced release or a retirement would come to, played on a stage with copies of the real states."""
