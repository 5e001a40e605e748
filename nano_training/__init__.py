"""What makes the built-in model's weights. No part of the package: they are shipped, this is not."""
