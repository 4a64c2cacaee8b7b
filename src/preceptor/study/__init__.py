"""Protocol, plan and selection of a study; nothing is executed here."""
