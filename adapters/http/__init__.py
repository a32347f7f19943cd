"""HTTP: health, readiness, metrics and traces for operators. Knows no database and no rule."""
