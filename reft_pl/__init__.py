"""reft-pl: reasoning with reinforced fine-tuning, on Lightning."""
