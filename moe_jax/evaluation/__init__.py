"""Judge a model: perplexity on held-out text, and text of its own."""
