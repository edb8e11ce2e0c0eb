"""Evaluate a model: held-out perplexity, generated text, complexity of training examples."""
