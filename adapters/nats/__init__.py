"""NATS: connections, JetStream publishing, heartbeats, agent tasks, the command service. Knows no renting rule."""
