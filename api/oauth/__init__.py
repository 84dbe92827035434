"""Who is calling: an embedded OAuth 2 authorization server and the validator of its access tokens."""
