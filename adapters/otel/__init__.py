"""OpenTelemetry: spans of committed records sent out, shown in Jaeger's JSON, read back. Knows no database."""
