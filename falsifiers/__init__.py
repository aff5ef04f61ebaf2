"""The probes and planted defects that this repository's contracts bind to, one module per subject."""
