"""Example shops, drawn from nothing, and the weights of the small model that was trained on them (`nano_training`)."""
