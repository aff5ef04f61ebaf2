"""What a contract is: reading YAML with positions, the schema, the rules. Imports no torch, no numpy, no probe."""
