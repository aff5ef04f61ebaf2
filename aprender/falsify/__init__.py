"""From a contract to a verdict: binding, running, judging, witnesses, evidence, gate.

Imports no torch and no numpy, and knows nothing about transformers: probes bring their own system.
"""
