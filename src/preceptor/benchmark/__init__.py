"""Built-in benchmark of forged photographs."""
