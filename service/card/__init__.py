"""What a manifest says to a person: sentences, warnings and tables, for the card, the report and the terminal alike."""
