"""Report of a study: text, figures, tables, HTML page and model card."""
