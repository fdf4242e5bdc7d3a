"""The fine-tuning run: its data, what it starts from, the loop, and what it records."""
