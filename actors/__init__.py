"""The pure core of renting: nodes, allocations, accounts; their steps and money arithmetic. It knows no I/O."""
