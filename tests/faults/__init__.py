"""The fault campaign: what breaks at random moments of real training, and what must come through it unharmed."""
