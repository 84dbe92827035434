"""The part of the service that works on media, in processes of its own, and the bookkeeping around it."""
