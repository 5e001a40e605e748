"""Training for composed retrieval: a photo and a change find the listing that is so."""
