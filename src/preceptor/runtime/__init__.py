"""What every package may use: files, processes, time; it knows nothing of models or studies."""
