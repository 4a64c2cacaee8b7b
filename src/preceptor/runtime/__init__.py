"""What every part of the library rests on, and what knows nothing of models or studies."""
