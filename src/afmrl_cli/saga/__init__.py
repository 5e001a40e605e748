"""Training a photo encoder by what a frozen language model sees in pairs of photos."""
