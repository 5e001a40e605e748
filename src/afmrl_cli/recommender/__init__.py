"""The recommender: a language model that orders the listings of a shortlist by a customer's history, all as text."""
