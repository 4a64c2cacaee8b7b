"""The study: the whole protocol as a graph of steps, its selection, execution and results."""
