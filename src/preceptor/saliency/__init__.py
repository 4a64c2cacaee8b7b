"""Where a model looks: maps, their agreement and their store."""
