"""Value types: ids, references, records, errors. They know no rule, no driver and no clock."""
