"""A card's content as files that people open: Markdown, and a page with a plot."""
