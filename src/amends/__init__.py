"""The durable actor runtime: values, wire types, ports, turns, records. It knows no renting rule and no driver."""
