"""The built-in benchmark: forged photographs."""
