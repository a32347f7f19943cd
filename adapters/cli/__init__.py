"""The command line: the program `amends` as operators and scripts meet it. Its verbs are NATS requests."""
