"""Writers of annotations in the formats of other tools."""
